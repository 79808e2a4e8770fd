//! Batched SMTP as Exim's `use_bsmtp` writes it: commands and one content with dots doubled, in one direction, nobody
//! answers (RFC 2442). Bytes in, in any slicing; the envelope and the bytes of the content out.
//!
//! No address passes through a command line that way: Exim 4.96 bounces a mail rather than put a stranger's address
//! into one ("tainted"), and there is no limit to their number. Before MAIL there may be XFORWARD and XCLIENT lines
//! (Postfix XFORWARD_README), which tell the origin; the transport's `message_prefix` writes them.

use checkpost_wire::smtp::attributes::{Attribute, Attributes};
use checkpost_wire::smtp::command::Command;
use checkpost_wire::smtp::path::Path;
use memchr::{memchr, memmem};

use crate::{Envelope, Origin};

/// The longest line of a command, in octets.
const MAX_LINE: usize = 8 << 10;

/// All commands together, in octets.
const MAX_COMMANDS: usize = 16 << 20;

/// Reads one mail.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    commands: usize,
    sender: Option<Vec<u8>>,
    recipients: Vec<Vec<u8>>,
    said: Attributes,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Commands,
    Content(At),
    Ended,
}

/// Where in a line of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    /// Behind a dot at its start, which is not written yet.
    Dot,
    /// Behind that and CR.
    DotCr,
    Within,
}

/// Why there is no mail. To be tried again: it is a fault of the settings, or the mail server gave up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BsmtpError {
    /// A command that is none, or not here.
    #[error("not batched SMTP: {0:?}; is use_bsmtp set?")]
    Command(String),
    /// A line that is too long, or too many of them.
    #[error("the envelope is too long")]
    TooLong,
    /// The input ended before the final dot.
    #[error("the mail ended before its final dot")]
    Unfinished,
    /// There is something behind the final dot.
    #[error("something stands behind the final dot; is message_suffix empty?")]
    Trailing,
}

impl Reader {
    /// Takes the next bytes, and gives those of the content to `content`, as they were before dots were doubled.
    ///
    /// # Errors
    /// Nothing that follows can make a mail of it, or what `content` says.
    pub fn feed<E: From<BsmtpError>>(
        &mut self,
        mut bytes: &[u8],
        mut content: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Commands => self.command_bytes(bytes)?,
                State::Content(at) => {
                    let (next, rest) = content_bytes(at, bytes, &mut content)?;
                    self.state = next;
                    rest
                }
                State::Ended => return Err(BsmtpError::Trailing.into()),
            };
        }
        Ok(())
    }

    /// The envelope, when no more bytes come.
    ///
    /// # Errors
    /// [`BsmtpError::Unfinished`]
    pub fn finish(self) -> Result<Envelope, BsmtpError> {
        match (self.state, self.sender) {
            (State::Ended, Some(sender)) => {
                Ok(Envelope { sender, recipients: self.recipients, origin: origin(&self.said) })
            }
            _ => Err(BsmtpError::Unfinished),
        }
    }

    fn command_bytes<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], BsmtpError> {
        let end = memchr(b'\n', bytes);
        let (more, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        self.line.extend_from_slice(more);
        self.commands += more.len();
        if self.line.len() > MAX_LINE || self.commands > MAX_COMMANDS {
            return Err(BsmtpError::TooLong);
        }
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.command(line.trim_ascii_end())?;
        }
        Ok(rest)
    }

    fn command(&mut self, line: &[u8]) -> Result<(), BsmtpError> {
        let wrong = || BsmtpError::Command(String::from_utf8_lossy(line).chars().take(80).collect());
        match Command::parse(line).map_err(|_| wrong())? {
            Command::Ehlo(_) | Command::Helo(_) if self.sender.is_none() => {}
            Command::Xforward(said) | Command::Xclient(said) if self.sender.is_none() => self.said.merge(&said),
            Command::Mail { path, .. } if self.sender.is_none() => self.sender = Some(octets(&path)),
            Command::Rcpt { path, .. } if self.sender.is_some() => self.recipients.push(octets(&path)),
            Command::Data if !self.recipients.is_empty() => self.state = State::Content(At::Start),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

fn octets(path: &Path) -> Vec<u8> {
    path.as_str().as_bytes().to_vec()
}

fn origin(said: &Attributes) -> Origin {
    let text = |attribute| said.text(attribute).filter(|text| !text.is_empty()).map(std::borrow::Cow::into_owned);
    Origin {
        client: said.address(),
        client_name: text(Attribute::Name),
        helo: text(Attribute::Helo),
        user: text(Attribute::Login),
        queue_id: text(Attribute::Ident),
        protocol: text(Attribute::Proto),
    }
}

/// Takes some bytes of the content; returns what follows.
fn content_bytes<'a, E>(
    at: At,
    bytes: &'a [u8],
    content: &mut impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(State, &'a [u8]), E> {
    let (first, rest) = (bytes[0], &bytes[1..]);
    Ok(match (at, first) {
        (At::Start, b'.') => (State::Content(At::Dot), rest),
        (At::Dot | At::DotCr, b'\n') => (State::Ended, rest),
        (At::Dot, b'\r') => (State::Content(At::DotCr), rest),
        (At::DotCr, _) => {
            // The dot was doubled, or somebody else's; the line goes on.
            content(b"\r")?;
            (State::Content(At::Within), bytes)
        }
        (At::Start | At::Dot | At::Within, _) => match memmem::find(bytes, b"\n.") {
            Some(end) => {
                content(&bytes[..=end])?;
                (State::Content(At::Dot), &bytes[end + 2..])
            }
            None => {
                content(bytes)?;
                let at = if bytes.ends_with(b"\n") { At::Start } else { At::Within };
                (State::Content(at), &bytes[bytes.len()..])
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(Envelope, Vec<u8>), BsmtpError> {
        let (mut reader, mut content) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.feed(piece, |bytes| {
                content.extend_from_slice(bytes);
                Ok::<(), BsmtpError>(())
            })?;
        }
        Ok((reader.finish()?, content))
    }

    fn both(bytes: &[u8]) -> Result<(Envelope, Vec<u8>), BsmtpError> {
        let by_byte: Vec<&[u8]> = bytes.chunks(1).collect();
        let whole = read(&[bytes]);
        assert_eq!(read(&by_byte), whole, "{}", bytes.escape_ascii());
        whole
    }

    /// As Exim 4.96 wrote it.
    #[test]
    fn what_exim_writes_is_read() {
        let (envelope, content) = both(
            b"XFORWARD ADDR=192.0.2.7 NAME=client.example HELO=c PROTO=esmtp IDENT=1xWk7S-00006R-0b\n\
              XCLIENT LOGIN=anna\n\
              MAIL FROM:<>\nRCPT TO:<bob@example.test>\nRCPT TO:<\"a b\"@c.d>\nRCPT TO:<-x@a.b>\nDATA\n\
              Subject: x\n\nhi\n..\n...\nFrom x\nlast\n.\n",
        )
        .unwrap();
        assert_eq!(envelope.sender, b"");
        assert_eq!(envelope.recipients, [&b"bob@example.test"[..], b"\"a b\"@c.d", b"-x@a.b"]);
        assert_eq!(content, b"Subject: x\n\nhi\n.\n..\nFrom x\nlast\n");
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            envelope.origin,
            Origin {
                client: "192.0.2.7".parse().ok(),
                client_name: some("client.example"),
                helo: some("c"),
                user: some("anna"),
                queue_id: some("1xWk7S-00006R-0b"),
                protocol: some("esmtp"),
            }
        );
    }

    #[test]
    fn a_local_mail_has_no_client() {
        let (envelope, content) =
            both(b"XFORWARD PROTO=local\nMAIL FROM:<a@b> SIZE=1\nRCPT TO:<c@d>\nDATA\n.\n").unwrap();
        assert_eq!(envelope.origin, Origin { protocol: Some("local".into()), ..Origin::default() });
        assert_eq!((envelope.sender.as_slice(), content.as_slice()), (&b"a@b"[..], &b""[..]));
    }

    #[test]
    fn carriage_returns_are_no_end() {
        let (_, content) = both(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n..\r\n..\rx\r\n.\r\n").unwrap();
        assert_eq!(content, b".\r\n.\rx\r\n");
        // Not doubled: somebody else's idea of batched SMTP.
        let (_, content) = both(b"MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\n.\rx\n.a\n.\n").unwrap();
        assert_eq!(content, b"\rx\na\n");
    }

    #[test]
    fn what_is_no_mail_is_told() {
        use BsmtpError::{Command, TooLong, Trailing, Unfinished};
        let start = "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\n";
        for unfinished in ["", "MAIL FROM:<a@b>\n", start, &format!("{start}x\n."), &format!("{start}x\n..\n")] {
            assert_eq!(both(unfinished.as_bytes()), Err(Unfinished), "{unfinished}");
        }
        for (wrong, line) in [
            ("Subject: x\n", "Subject: x"),
            ("RCPT TO:<a@b>\n", "RCPT TO:<a@b>"),
            ("MAIL FROM:<a@b>\nDATA\n", "DATA"),
            ("MAIL FROM:<a@b>\nMAIL FROM:<a@b>\n", "MAIL FROM:<a@b>"),
            ("MAIL FROM:<a@b>\nXFORWARD ADDR=192.0.2.1\n", "XFORWARD ADDR=192.0.2.1"),
            ("MAIL FROM:a@b\n", "MAIL FROM:a@b"),
            ("QUIT\n", "QUIT"),
        ] {
            assert_eq!(both(wrong.as_bytes()), Err(Command(line.into())), "{wrong}");
        }
        assert_eq!(both(format!("{start}.\nQUIT\n").as_bytes()), Err(Trailing));
        assert_eq!(both(&[b'x'; MAX_LINE + 1]), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_content_comes_through_in_any_slices(
            content in prop::collection::vec(prop::sample::select(b"..\n\r\x00\xe9a".to_vec()), 0..60),
            cuts in prop::collection::vec(1..9_usize, 0..60),
        ) {
            // Exim ends the last line of a message if it must.
            let mut content = content;
            if !content.is_empty() && !content.ends_with(b"\n") {
                content.push(b'\n');
            }
            let mut sent = b"MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\n".to_vec();
            for line in content.split_inclusive(|byte| *byte == b'\n') {
                if line.starts_with(b".") {
                    sent.push(b'.');
                }
                sent.extend_from_slice(line);
            }
            sent.extend_from_slice(b".\n");
            let (mut pieces, mut rest) = (Vec::new(), &sent[..]);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces).unwrap().1, content);
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = both(&bytes);
        }
    }
}
