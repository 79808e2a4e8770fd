//! One SMTP session as a sending MTA has it: connect, greeting, EHLO, MAIL, RCPT, DATA, content, dot, QUIT.
//! Not a mail client: it expects success at every step and reports anything else as an error.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::mail::Mail;

/// A peer that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

const MAIL: &[u8] = b"MAIL FROM:<ada@sender.example>\r\n";
const RCPT: &[u8] = b"RCPT TO:<ben@receiver.example>\r\n";
const DATA: &[u8] = b"DATA\r\n";

/// An open session.
pub(super) struct Client {
    stream: TcpStream,
    buffer: [u8; 2048],
    start: usize,
    end: usize,
}

/// Sends one mail, which has its final dot, over a connection of its own; the time is from connect to the answer to
/// the dot.
pub(super) fn message(peer: SocketAddr, mail: &Mail, pipelining: bool) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let mut client = Client::connect(peer)?;
    client.envelope(pipelining)?;
    client.content(mail.bytes())?;
    client.answer()?;
    let latency = begin.elapsed();
    client.quit()?;
    Ok(latency)
}

/// Why a message did not get through: in which step, and what happened there. Short, so that equal ones can be counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    step: &'static str,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.what)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(super) fn new(step: &'static str, what: &str) -> Self {
        Self { step, what: what.to_string() }
    }
}

impl Client {
    /// Connects and takes the greeting.
    pub(super) fn connect(peer: SocketAddr) -> Result<Self, Failure> {
        let open = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect(peer)?;
            // Each command is one write that must leave at once: Nagle would hold it for the peer's delayed ACK.
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = open().map_err(|error| failed("connect", &error))?;
        let mut client = Self { stream, buffer: [0; 2048], start: 0, end: 0 };
        client.expect("greeting", b'2')?;
        Ok(client)
    }

    /// EHLO, MAIL, RCPT and DATA, each waiting for its reply; with `pipelining` the last three go in one write.
    pub(super) fn envelope(&mut self, pipelining: bool) -> Result<(), Failure> {
        self.say("EHLO", b"EHLO sender.example\r\n")?;
        self.expect("EHLO", b'2')?;
        if pipelining {
            self.say("MAIL", &[MAIL, RCPT, DATA].concat())?;
        } else {
            self.say("MAIL", MAIL)?;
        }
        self.expect("MAIL", b'2')?;
        if !pipelining {
            self.say("RCPT", RCPT)?;
        }
        self.expect("RCPT", b'2')?;
        if !pipelining {
            self.say("DATA", DATA)?;
        }
        self.expect("DATA", b'3')
    }

    /// Writes content, or a piece of it.
    pub(super) fn content(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.say("content", bytes)
    }

    /// Takes the answer to the final dot.
    pub(super) fn answer(&mut self) -> Result<(), Failure> {
        self.expect("final dot", b'2')
    }

    /// Says QUIT, takes the reply and waits until the peer has closed.
    ///
    /// The side that closes first keeps the TIME_WAIT state; were it this one, it would run out of ports.
    pub(super) fn quit(mut self) -> Result<(), Failure> {
        self.say("QUIT", b"QUIT\r\n")?;
        self.expect("QUIT", b'2')?;
        match self.stream.read(&mut self.buffer) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure { step: "QUIT", what: "more after the reply".into() }),
            Err(error) => Err(failed("QUIT", &error)),
        }
    }

    fn say(&mut self, step: &'static str, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).map_err(|error| failed(step, &error))
    }

    /// Reads one reply of any number of lines, which must begin with the digit `class`.
    fn expect(&mut self, step: &'static str, class: u8) -> Result<(), Failure> {
        loop {
            while let Some(length) = self.buffer[self.start..self.end].iter().position(|byte| *byte == b'\n') {
                let line = &self.buffer[self.start..self.start + length];
                self.start += length + 1;
                if line.get(3) == Some(&b'-') {
                    continue;
                }
                if line.first() == Some(&class) {
                    return Ok(());
                }
                let text = String::from_utf8_lossy(line).trim_end().to_string();
                return Err(Failure { step, what: text });
            }
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
            } else if self.end == self.buffer.len() {
                self.buffer.copy_within(self.start.., 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.end == self.buffer.len() {
                return Err(Failure { step, what: "reply line too long".into() });
            }
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Failure { step, what: "connection closed".into() }),
                Ok(length) => self.end += length,
                Err(error) => return Err(failed(step, &error)),
            }
        }
    }
}

fn failed(step: &'static str, error: &io::Error) -> Failure {
    Failure { step, what: error.kind().to_string() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Plays `replies` to one client, one for each read of its side, in pieces of `piece` bytes.
    fn server(replies: &'static [&'static str], piece: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            for (turn, reply) in replies.iter().enumerate() {
                if turn > 0 && stream.read(&mut buffer).unwrap_or(0) == 0 {
                    return;
                }
                for part in reply.as_bytes().chunks(piece) {
                    let _ = stream.write_all(part);
                }
            }
            // What is still to come is read: a close with unread data would be a reset for the client.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            while stream.read(&mut buffer).unwrap_or(0) > 0 {}
        });
        address
    }

    fn session(peer: SocketAddr, pipelining: bool) -> Result<(), Failure> {
        let mut client = Client::connect(peer)?;
        client.envelope(pipelining)?;
        client.content(b"x: y\r\n\r\nz\r\n.\r\n")?;
        client.answer()?;
        client.quit()
    }

    #[test]
    fn a_whole_session() {
        let steps = &[
            "220-a\r\n220 b\r\n",
            "250-x\r\n250 \r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go\r\n",
            "250 ok\r\n",
            "221 bye\r\n",
        ];
        for piece in [1, 5, 500] {
            assert_eq!(session(server(steps, piece), false), Ok(()));
        }
        let grouped = &["220 b\r\n", "250 x\r\n", "250 ok\r\n250 ok\r\n354 go\r\n", "250 ok\r\n", "221 bye\r\n"];
        assert_eq!(session(server(grouped, 500), true), Ok(()));
    }

    #[test]
    fn what_goes_wrong_is_named() {
        let check = |steps, expected: &str| {
            assert_eq!(session(server(steps, 500), false).unwrap_err().to_string(), expected);
        };
        check(&["421 busy\r\n"], "greeting: 421 busy");
        check(&["220 b\r\n", "250 x\r\n", "250 ok\r\n", "451-a\r\n451 later\r\n"], "RCPT: 451 later");
        check(&["220 b\r\n", "250 x\r\n"], "MAIL: connection closed");
    }
}
