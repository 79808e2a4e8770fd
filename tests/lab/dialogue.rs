//! The server's side of plain SMTP, for what stands in a mail server's place.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(60);

/// A mail that a client has handed in.
#[derive(Debug, Clone)]
pub(crate) struct HandedIn {
    /// Empty: the null sender.
    pub(crate) sender: String,
    /// Known ones.
    pub(crate) recipients: Vec<String>,
    /// As sent, without what was stuffed.
    pub(crate) mail: Vec<u8>,
}

/// One dialogue, to its end. `knows`: is there such a recipient? `take` gives the reply to the final dot.
pub(crate) fn serve(
    client: &TcpStream,
    name: &str,
    knows: &dyn Fn(&str) -> bool,
    take: &mut dyn FnMut(HandedIn) -> io::Result<String>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(IDLE))?;
    let mut read = BufReader::new(client);
    let mut write = client;
    let mut sender: Option<String> = None;
    let mut recipients: Vec<String> = Vec::new();
    write.write_all(format!("220 {name} ESMTP\r\n").as_bytes())?;
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => format!("250-{name}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE"),
            "HELO" | "NOOP" => "250 ok".into(),
            "MAIL" if sender.is_some() => "503 5.5.1 one mail at a time".into(),
            "MAIL" => {
                sender = Some(address(&line));
                "250 2.1.0 ok".into()
            }
            "RCPT" => {
                let recipient = address(&line);
                if knows(&recipient) {
                    recipients.push(recipient);
                    "250 2.1.5 ok".into()
                } else {
                    "550 5.1.1 no such user here".into()
                }
            }
            "DATA" if recipients.is_empty() => "503 5.5.1 no recipients".into(),
            "DATA" => {
                write.write_all(b"354 go on\r\n")?;
                let mail = content(&mut read)?;
                let sender = sender.take().unwrap_or_default();
                take(HandedIn { sender, recipients: std::mem::take(&mut recipients), mail })?
            }
            "RSET" => {
                sender = None;
                recipients.clear();
                "250 ok".into()
            }
            "QUIT" => {
                write.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => "500 5.5.2 what?".into(),
        };
        write.write_all(format!("{answer}\r\n").as_bytes())?;
    }
}

/// What is between `<` and `>`.
fn address(line: &str) -> String {
    let inside = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

/// Reads up to the final dot and undoes dot-stuffing.
fn content(read: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut mail = Vec::new();
    loop {
        let mut line = Vec::new();
        if read.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.as_slice() {
            b".\r\n" => return Ok(mail),
            [b'.', rest @ ..] => mail.extend_from_slice(rest),
            all => mail.extend_from_slice(all),
        }
    }
}
