//! The smallest SMTP client: one mail, and what its sender is told.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::{LOOK_AGAIN, PATIENCE};

/// One reply.
const REPLY: Duration = Duration::from_secs(120);

/// One mail by SMTP, and the last reply.
pub(super) fn send(address: &str, helo: &str, sender: &str, to: &str, message: &str) -> io::Result<String> {
    let end = Instant::now() + PATIENCE;
    // An MTA that has just been told to restart may be away for a moment.
    let stream = loop {
        match connect(address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
    };
    stream.set_read_timeout(Some(REPLY))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut reply = reply(&mut reader)?;
    let dotted: String = message
        .split_inclusive("\r\n")
        .map(|line| if line.starts_with('.') { format!(".{line}") } else { line.into() })
        .collect();
    let commands = [
        format!("EHLO {helo}\r\n"),
        format!("MAIL FROM:<{sender}>\r\n"),
        format!("RCPT TO:<{to}>\r\n"),
        "DATA\r\n".to_owned(),
        format!("{dotted}.\r\n"),
    ];
    for command in &commands {
        if !matches!(reply.as_bytes().first(), Some(b'2' | b'3')) {
            break;
        }
        (&stream).write_all(command.as_bytes())?;
        reply = self::reply(&mut reader)?;
    }
    // It has said what it had to say.
    let _ = (&stream).write_all(b"QUIT\r\n");
    Ok(reply)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    TcpStream::connect_timeout(&address, PATIENCE)
}

/// A reply; the texts of its lines one after the other.
fn reply(reader: &mut impl BufRead) -> io::Result<String> {
    let mut whole = String::new();
    loop {
        let mut line = Vec::new();
        // A line of a server that does not stop talking is cut.
        io::Read::take(&mut *reader, 4096).read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() || whole.len() > 65536 {
            return if whole.is_empty() { Ok("421 (the connection was closed)".into()) } else { Ok(whole) };
        }
        if whole.is_empty() {
            whole.clone_from(&line);
        } else {
            whole.push_str(line.get(3..).unwrap_or_default());
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_to_their_last_line() {
        let read = |text: &str| reply(&mut BufReader::new(text.as_bytes())).unwrap();
        assert_eq!(read("250-a\r\n250 b\r\nrest"), "250-a b");
        assert_eq!(read("550 5.7.1 no\r\n"), "550 5.7.1 no");
        assert!(read("").starts_with("421"));
    }
}
