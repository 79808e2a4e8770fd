//! A small, plain SMTP client: every answer kept. No TLS, no pipelining, no extensions.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any answer may take in a test.
const TIMEOUT: Duration = Duration::from_secs(120);

/// One answer of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The three digits.
    pub code: u16,
    /// The text of all lines, joined by line feeds.
    pub text: String,
}

impl Answer {
    /// 2xx or 3xx.
    pub fn is_positive(&self) -> bool {
        (200..400).contains(&self.code)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text.replace('\n', " / "))
    }
}

/// What the sender of one mail was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// To MAIL FROM.
    pub sender: Answer,
    /// To each RCPT TO, in order.
    pub recipients: Vec<(String, Answer)>,
    /// To the final dot, or to DATA if that was refused; `None` if no recipient was taken.
    pub end: Option<Answer>,
}

impl Told {
    /// Whether the server has taken over the mail.
    pub fn accepted(&self) -> bool {
        self.end.as_ref().is_some_and(Answer::is_positive)
    }

    /// The answer that decided: the last one.
    pub fn last(&self) -> &Answer {
        let recipient = self.recipients.last().map(|(_, answer)| answer);
        self.end.as_ref().or(recipient).unwrap_or(&self.sender)
    }
}

/// Sends `message` (lines ending with CRLF) over a fresh connection as `client.example.net`. Refusals
/// are results; an error means that the connection or the server's syntax broke.
pub fn send(stream: TcpStream, from: &str, to: &[&str], message: &[u8]) -> io::Result<Told> {
    let mut client = Client::open(stream, "client.example.net")?;
    expect(&client.greeting)?;
    expect(&client.hello)?;
    let told = client.mail(from, to, message)?;
    client.quit();
    Ok(told)
}

/// A connection to a server, for several mails one after the other.
#[derive(Debug)]
pub struct Client {
    read: BufReader<TcpStream>,
    write: TcpStream,
    /// What the server said at first.
    pub greeting: Answer,
    /// What it said to EHLO.
    pub hello: Answer,
}

impl Client {
    /// Waits for the greeting and says EHLO with `name`. That the server refuses either is a result.
    pub fn open(stream: TcpStream, name: &str) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let nothing = Answer { code: 0, text: String::new() };
        let read = BufReader::new(stream.try_clone()?);
        let mut client = Self { read, write: stream, greeting: nothing.clone(), hello: nothing };
        client.greeting = client.answer()?;
        if client.greeting.code == 421 {
            // It has closed (RFC 5321 section 3.8).
            client.hello = client.greeting.clone();
            return Ok(client);
        }
        client.hello = client.ask(&format!("EHLO {name}"))?;
        Ok(client)
    }

    /// Sends one mail, as far as the server lets it come. `from` may have parameters behind a `>`, as
    /// `a@b> BODY=8BITMIME`.
    pub fn mail(&mut self, from: &str, to: &[&str], message: &[u8]) -> io::Result<Told> {
        let mut told = self.envelope(from, to)?;
        if told.recipients.iter().any(|(_, answer)| answer.is_positive()) {
            told.end = Some(self.content(message)?);
        }
        Ok(told)
    }

    /// Sends DATA and what belongs behind it, to who has heard the envelope.
    pub fn content(&mut self, message: &[u8]) -> io::Result<Answer> {
        let answer = self.ask("DATA")?;
        if answer.code != 354 {
            return Ok(answer);
        }
        self.write(&stuffed(message))?;
        self.answer()
    }

    /// Sends MAIL and RCPT, and nothing behind them.
    pub fn envelope(&mut self, from: &str, to: &[&str]) -> io::Result<Told> {
        let (from, parameters) = from.split_once('>').unwrap_or((from, ""));
        let sender = self.ask(&format!("MAIL FROM:<{from}>{parameters}"))?;
        let mut told = Told { sender, recipients: Vec::new(), end: None };
        if told.sender.is_positive() {
            for recipient in to {
                let answer = self.ask(&format!("RCPT TO:<{recipient}>"))?;
                told.recipients.push(((*recipient).to_owned(), answer));
            }
        }
        Ok(told)
    }

    /// Sends one line and hears the answer to it.
    pub fn ask(&mut self, command: &str) -> io::Result<Answer> {
        self.write(format!("{command}\r\n").as_bytes())?;
        self.answer()
    }

    /// Sends octets as they are.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.write.write_all(octets)
    }

    /// Says goodbye. A server that has closed already did nothing wrong to us.
    pub fn quit(mut self) {
        let _ = self.ask("QUIT");
    }

    /// Hears one answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut texts = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.read.read_until(b'\n', &mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "server closed the connection"));
            }
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            let code = line.get(..3).and_then(|digits| digits.parse().ok());
            let Some(code) = code else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("no SMTP answer: {line:?}")));
            };
            texts.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(Answer { code, text: texts.join("\n") });
            }
        }
    }
}

fn expect(answer: &Answer) -> io::Result<()> {
    if answer.is_positive() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::ConnectionRefused, answer.to_string()))
}

/// The message with leading dots doubled (RFC 5321 4.5.2), its last line ended, and the final dot.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_stuffed() {
        fn check(message: &str, sent: &str) {
            assert_eq!(String::from_utf8_lossy(&stuffed(message.as_bytes())), sent);
        }
        check("", ".\r\n");
        check("a\r\n", "a\r\n.\r\n");
        check("a", "a\r\n.\r\n");
        check(".\r\n..\r\na.b\r\n", "..\r\n...\r\na.b\r\n.\r\n");
    }
}
