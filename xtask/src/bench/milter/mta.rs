//! One session of an MTA with a milter: offer, opening, one or more messages, farewell.
//! Not an MTA: it expects that every message may pass, counts no changes and reports anything else as an error.

use std::io::{self, BufReader, Read as _, Write as _};
use std::time::{Duration, Instant};

use super::super::client::Failure;
use super::super::mail::Mail;
use super::script::{Expected, HEAD, Script, Terms, Turn};
use super::socket::{Address, Stream};

/// Sends messages one after the other, a number of them over each connection.
pub(super) struct Mta<'a> {
    filter: &'a Address,
    messages_per_session: usize,
    /// Made for the terms of the last connection; a filter asks for the same each time.
    prepared: Option<Prepared>,
    connection: Option<Connection>,
}

struct Prepared {
    terms: Terms,
    opening: Script,
    message: Script,
}

struct Connection {
    stream: BufReader<Stream>,
    /// Messages sent.
    messages: usize,
    /// Packets that nobody answers wait for the next that somebody does, as in an MTA's buffer.
    unwritten: Vec<u8>,
}

impl<'a> Mta<'a> {
    pub(super) fn new(filter: &'a Address, messages_per_session: usize) -> Self {
        Self { filter, messages_per_session, prepared: None, connection: None }
    }

    /// Sends one mail; the time is from MAIL, or from connect for the first of a connection, to the decision.
    pub(super) fn send(&mut self, mail: &Mail) -> Result<Duration, Failure> {
        let begin = Instant::now();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open(mail)?,
        };
        let Some(prepared) = &mut self.prepared else { return Err(Failure::new("offer", "no terms")) };
        prepared.message.number_as(mail);
        connection.play(&prepared.message, connection.messages == 0)?;
        connection.messages += 1;
        let latency = begin.elapsed();
        if connection.messages < self.messages_per_session {
            self.connection = Some(connection);
        } else {
            connection.close()?;
        }
        Ok(latency)
    }

    fn open(&mut self, mail: &Mail) -> Result<Connection, Failure> {
        let stream = self.filter.connect().map_err(|error| failed("connect", &error))?;
        let mut connection = Connection::new(stream);
        let terms = connection.negotiate()?;
        let prepared = match self.prepared.take() {
            Some(prepared) if prepared.terms == terms => prepared,
            _ => Prepared { opening: Script::opening(&terms), message: Script::message(&terms, mail), terms },
        };
        let opened = connection.play(&prepared.opening, false);
        self.prepared = Some(prepared);
        opened.map(|()| connection)
    }
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self { stream: BufReader::with_capacity(4096, stream), messages: 0, unwritten: Vec::new() }
    }

    fn negotiate(&mut self) -> Result<Terms, Failure> {
        self.write("offer", &Script::offer())?;
        let (code, data) = self.packet("offer")?;
        let terms = if code == b'O' { Terms::read(&data) } else { None };
        terms.ok_or_else(|| Failure::new("offer", "answer is no negotiation"))
    }

    /// `first`: the leading abort is left out.
    fn play(&mut self, script: &Script, first: bool) -> Result<(), Failure> {
        let mut body_wanted = true;
        for (index, turn) in script.turns().iter().enumerate() {
            if turn.expected == Expected::GoOrSkip && !body_wanted {
                continue;
            }
            let mut packets = turn.packets.clone();
            if first && index == 0 {
                packets.start += HEAD;
            }
            let name = step(turn.command);
            self.write(name, &script.bytes()[packets])?;
            body_wanted &= self.answer(name, turn)?;
        }
        self.unwritten.extend_from_slice(script.unanswered());
        Ok(())
    }

    /// Whether more of the body is wanted.
    fn answer(&mut self, name: &'static str, turn: &Turn) -> Result<bool, Failure> {
        loop {
            let (code, data) = self.packet(name)?;
            match (turn.expected, code) {
                (Expected::Decision, b'a' | b'c') | (Expected::Go | Expected::GoOrSkip, b'c') => return Ok(true),
                (Expected::GoOrSkip, b's') => return Ok(false),
                (Expected::Decision, b'p' | b'h' | b'i' | b'm' | b'b' | b'+' | b'2' | b'-' | b'e' | b'q') => {}
                _ => {
                    let text = String::from_utf8_lossy(&data);
                    let text = text.trim_end_matches('\0');
                    return Err(Failure::new(name, format!("answer {} {text}", code.escape_ascii()).trim_end()));
                }
            }
        }
    }

    /// Says goodbye and waits until the filter has closed: over TCP the side that closes first keeps the TIME_WAIT
    /// state; were it this one, it would run out of ports.
    fn close(mut self) -> Result<(), Failure> {
        self.write("quit", &Script::farewell())?;
        match self.stream.read(&mut [0; 16]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::new("quit", "more behind the decision")),
            Err(error) => Err(failed("quit", &error)),
        }
    }

    fn write(&mut self, step: &'static str, packets: &[u8]) -> Result<(), Failure> {
        let stream = self.stream.get_mut();
        let written = if self.unwritten.is_empty() {
            stream.write_all(packets)
        } else {
            self.unwritten.extend_from_slice(packets);
            stream.write_all(&self.unwritten)
        };
        self.unwritten.clear();
        written.map_err(|error| failed(step, &error))
    }

    fn packet(&mut self, step: &'static str) -> Result<(u8, Vec<u8>), Failure> {
        let mut head = [0; HEAD];
        self.stream.read_exact(&mut head).map_err(|error| failed(step, &error))?;
        let [l0, l1, l2, l3, code] = head;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let mut data = Vec::new();
        match length.checked_sub(1) {
            Some(length @ 0..=0x10_0000) => data.resize(length as usize, 0),
            _ => return Err(Failure::new(step, "answer of impossible length")),
        }
        self.stream.read_exact(&mut data).map_err(|error| failed(step, &error))?;
        Ok((code, data))
    }
}

fn step(command: u8) -> &'static str {
    match command {
        b'C' => "connect event",
        b'H' => "HELO",
        b'M' => "MAIL",
        b'R' => "RCPT",
        b'T' => "DATA",
        b'L' => "header",
        b'N' => "end of header",
        b'B' => "body",
        _ => "end of message",
    }
}

fn failed(step: &'static str, error: &io::Error) -> Failure {
    Failure::new(step, &error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Answers one connection: the offer with `steps`, then each command with the code that `answer` has for it.
    /// Returns the codes that came, macros left out.
    fn filter(listener: &UnixListener, steps: u32, answer: impl Fn(u8) -> &'static [u8]) -> String {
        let (stream, _) = listener.accept().unwrap();
        let mut connection = Connection::new(Stream::Unix(stream));
        let mut codes = String::new();
        while let Ok((code, _)) = connection.packet("test") {
            match code {
                b'O' => {
                    let data = [13, 0, 0, 0, 0, 0].map(u32::to_be_bytes).concat();
                    let terms = [6_u32, 0, steps].map(u32::to_be_bytes).concat();
                    connection.write("test", &[&data[..4], b"O", &terms].concat()).unwrap();
                }
                b'Q' => return codes + "Q",
                b'D' => continue,
                code => {
                    for answer in answer(code) {
                        connection.write("test", &[0, 0, 0, 1, *answer]).unwrap();
                    }
                }
            }
            codes.push(char::from(code));
        }
        codes
    }

    fn session(steps: u32, messages: usize, answer: fn(u8) -> &'static [u8]) -> (Vec<Result<(), String>>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let filter = thread::spawn(move || filter(&listener, steps, answer));
        let address = Address::Unix(path);
        let mut mta = Mta::new(&address, messages);
        let mail = Mail::of_size(100_000);
        let mut sent = Vec::new();
        for _ in 0..messages {
            sent.push(mta.send(&mail).map(drop).map_err(|failure| failure.to_string()));
            if sent.last().is_some_and(Result::is_err) {
                break;
            }
        }
        drop(mta);
        (sent, filter.join().unwrap())
    }

    #[test]
    fn messages_share_a_connection() {
        let (sent, codes) = session(0, 2, |code| if code == b'A' { b"" } else { b"c" });
        assert_eq!(sent, [Ok(()), Ok(())]);
        assert_eq!(codes, "OCHMRTLLLLLLLLNBBEAMRTLLLLLLLLNBBEAAQ");
    }

    #[test]
    fn a_filter_may_skip_the_body_and_take_its_time() {
        let (sent, codes) = session(0x400, 1, |code| match code {
            b'A' => b"",
            b'B' => b"s",
            b'E' => b"ppqa",
            _ => b"c",
        });
        assert_eq!(sent, [Ok(())]);
        assert_eq!(codes, "OCHMRTLLLLLLLLNBEAAQ");
    }

    #[test]
    fn what_goes_wrong_is_named() {
        let (sent, _) = session(0, 1, |code| if code == b'E' { b"r" } else { b"c" });
        assert_eq!(sent, [Err("end of message: answer r".to_string())]);
        let (sent, _) = session(0x20_0000, 1, |_| b"c");
        assert_eq!(sent, [Err("offer: answer is no negotiation".to_string())]);
    }
}
