//! Replies, both ways: reading a server's, writing ours or passing one on (RFC 5321 section 4.2, RFC 2034).
//! Does not decide what a reply means for a message.

use bytes::{Bytes, BytesMut};

/// Most lines taken in one reply.
pub const MAX_LINES: usize = 100;
/// Longest reply line taken, in octets with its line end. RFC 5321 says 512; EHLO and policy texts go beyond.
pub const MAX_LINE: usize = 1000;
/// Most octets taken in one reply.
pub const MAX_REPLY: usize = 64 * 1024;

/// A whole reply of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReply {
    /// 200 to 599.
    pub code: u16,
    /// The text of each line after code and separator, as received; at least one.
    pub lines: Vec<Bytes>,
}

/// Why the octets of a server are no reply. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplySyntax {
    /// No three digits, or a first digit other than 2 to 5.
    #[error("reply does not begin with a code")]
    Code,
    /// Neither blank, hyphen nor line end after the code.
    #[error("wrong separator after the reply code")]
    Separator,
    /// Lines of one reply with different codes.
    #[error("lines of one reply have different codes")]
    MixedCodes,
    /// Over [`MAX_LINE`], [`MAX_LINES`] or [`MAX_REPLY`].
    #[error("reply too long")]
    TooLong,
}

/// Collects a reply over any slicing of the input.
#[derive(Debug, Clone, Default)]
pub struct ReplyParser {
    code: u16,
    lines: Vec<Bytes>,
    octets: usize,
    scanned: usize,
}

impl ReplyParser {
    /// Ready for the first reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes lines from the buffer until a reply is whole; what follows it stays in the buffer. `Ok(None)`: read
    /// more. Line ends may be LF alone. After an error close the connection.
    pub fn push(&mut self, buffer: &mut BytesMut) -> Result<Option<PeerReply>, ReplySyntax> {
        loop {
            let Some(found) = memchr::memchr(b'\n', buffer.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = buffer.len();
                // Refuse early, so that a server that never ends a line costs nothing.
                return if buffer.len() >= MAX_LINE { Err(ReplySyntax::TooLong) } else { Ok(None) };
            };
            let end = self.scanned + found + 1;
            self.scanned = 0;
            if end > MAX_LINE {
                return Err(ReplySyntax::TooLong);
            }
            let line = buffer.split_to(end).freeze();
            if let Some(reply) = self.line(&line)? {
                return Ok(Some(reply));
            }
        }
    }

    /// A reply has begun but is not whole.
    #[must_use]
    pub fn is_within_reply(&self) -> bool {
        !self.lines.is_empty() || self.scanned > 0
    }

    fn line(&mut self, line: &Bytes) -> Result<Option<PeerReply>, ReplySyntax> {
        self.octets += line.len();
        if self.lines.len() >= MAX_LINES || self.octets > MAX_REPLY {
            return Err(ReplySyntax::TooLong);
        }
        let without_lf = &line[..line.len() - 1];
        let line = line.slice_ref(without_lf.strip_suffix(b"\r").unwrap_or(without_lf));
        let code = match line.get(..3) {
            Some(&[a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
                [a, b, c].into_iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(ReplySyntax::Code),
        };
        if !self.lines.is_empty() && code != self.code {
            return Err(ReplySyntax::MixedCodes);
        }
        self.code = code;
        let last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplySyntax::Separator),
        };
        self.lines.push(line.slice(4.min(line.len())..));
        if !last {
            return Ok(None);
        }
        self.octets = 0;
        Ok(Some(PeerReply { code, lines: std::mem::take(&mut self.lines) }))
    }
}

impl PeerReply {
    /// A reply of one line, for tests and for replies made in a server's stead.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        Self { code, lines: vec![Bytes::copy_from_slice(text.as_bytes())] }
    }

    /// First digit: 2 done, 3 go on, 4 not now, 5 never.
    #[must_use]
    pub fn class(&self) -> u8 {
        u8::try_from(self.code / 100).unwrap_or(5)
    }

    /// 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        self.class() == 2
    }

    /// 3xx.
    #[must_use]
    pub fn is_intermediate(&self) -> bool {
        self.class() == 3
    }

    /// 4xx.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class() == 4
    }

    /// 5xx.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.class() == 5
    }

    /// The enhanced status code (RFC 2034) at the front of the first line, when its class is that of the reply.
    #[must_use]
    pub fn enhanced(&self) -> Option<(u8, u16, u16)> {
        let first = self.lines.first()?;
        let word = first.split(|octet| *octet == b' ').next()?;
        let mut parts = std::str::from_utf8(word).ok()?.split('.');
        let mut number = |most: usize| -> Option<u16> {
            let part = parts.next()?;
            let digits = (1..=most).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        let code = (u8::try_from(number(1)?).ok()?, number(3)?, number(3)?);
        (parts.next().is_none() && code.0 == self.class()).then_some(code)
    }

    /// All lines in one, printable, for logs and for a reply of our own.
    #[must_use]
    pub fn text(&self) -> String {
        let lines: Vec<String> =
            self.lines.iter().map(|line| String::from_utf8_lossy(&clean(line)).into_owned()).collect();
        lines.join(" ")
    }

    /// Writes the reply for a client: same code, same lines; control characters but TAB become `?`.
    pub fn write_to(&self, out: &mut BytesMut) {
        write_lines(out, self.code, self.lines.iter().map(|line| &line[..]));
    }
}

/// Writes a reply of ours. Line feeds in `text` begin further lines, each with code and enhanced code; other control
/// characters become `?`.
pub fn write_reply(out: &mut BytesMut, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) {
    let prefix = enhanced.map_or_else(String::new, |(class, subject, detail)| format!("{class}.{subject}.{detail} "));
    let lines: Vec<String> = text.trim_end().split('\n').map(|line| format!("{prefix}{}", line.trim_end())).collect();
    write_lines(out, code, lines.iter().map(|line| line.trim_end().as_bytes()));
}

/// Writes the 250 of EHLO or LHLO: the greeting, then one keyword with its parameters per line.
pub fn write_ehlo<K: AsRef<str>>(out: &mut BytesMut, greeting: &str, keywords: impl Iterator<Item = K>) {
    let keywords: Vec<K> = keywords.collect();
    let lines = std::iter::once(greeting.as_bytes()).chain(keywords.iter().map(|keyword| keyword.as_ref().as_bytes()));
    write_lines(out, 250, lines);
}

fn write_lines<'a>(out: &mut BytesMut, code: u16, lines: impl Iterator<Item = &'a [u8]>) {
    let code = code.clamp(200, 599).to_string();
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(b" \r\n");
    }
    while let Some(line) = lines.next() {
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(if lines.peek().is_some() { b"-" } else { b" " });
        out.extend_from_slice(&clean(line));
        out.extend_from_slice(b"\r\n");
    }
}

/// No CR, LF, NUL or terminal escape gets from one peer to another.
fn clean(line: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    let is_bad = |octet: &u8| octet.is_ascii_control() && *octet != b'\t';
    if line.iter().any(is_bad) {
        line.iter().map(|octet| if is_bad(octet) { b'?' } else { *octet }).collect::<Vec<_>>().into()
    } else {
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies(slices: &[&[u8]]) -> Result<Vec<PeerReply>, ReplySyntax> {
        let mut parser = ReplyParser::new();
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for slice in slices {
            buffer.extend_from_slice(slice);
            while let Some(reply) = parser.push(&mut buffer)? {
                seen.push(reply);
            }
        }
        Ok(seen)
    }

    /// Reads whole and byte by byte, writes again.
    fn check(input: &str, expected: Result<&str, ReplySyntax>) {
        let whole = replies(&[input.as_bytes()]);
        assert_eq!(replies(&input.as_bytes().chunks(1).collect::<Vec<_>>()), whole, "{input:?}");
        let written = whole.map(|replies| {
            let mut out = BytesMut::new();
            replies.iter().for_each(|reply| reply.write_to(&mut out));
            String::from_utf8(out.to_vec()).unwrap()
        });
        assert_eq!(written.as_deref().map_err(|error| *error), expected, "{input:?}");
    }

    #[test]
    fn replies_are_read_and_passed_on() {
        check("250 ok\r\n", Ok("250 ok\r\n"));
        check("250 ok\n", Ok("250 ok\r\n"));
        check("250\r\n", Ok("250 \r\n"));
        check("250-a\r\n250-\r\n250 b\r\n354 go\r\n", Ok("250-a\r\n250-\r\n250 b\r\n354 go\r\n"));
        check("550-a\n550\n", Ok("550-a\r\n550 \r\n"));
        check("550 a\0b\rc\x1bd\te\x7f\r\n", Ok("550 a?b?c?d\te?\r\n"));
        check("250 half", Ok(""));
    }

    #[test]
    fn what_is_no_reply() {
        for input in ["\r\n", "25\r\n", "2x0 a\r\n", "QUIT\r\n", "150 a\r\n", "650 a\r\n", "+OK\r\n"] {
            check(input, Err(ReplySyntax::Code));
        }
        check("250:a\r\n", Err(ReplySyntax::Separator));
        check("2500 a\r\n", Err(ReplySyntax::Separator));
        check("250-a\r\n251 b\r\n", Err(ReplySyntax::MixedCodes));
        check(&"250-a\r\n".repeat(101), Err(ReplySyntax::TooLong));
        check(&format!("250 {}\r\n", "a".repeat(1000)), Err(ReplySyntax::TooLong));
        check(&format!("250-{}\r\n", "a".repeat(900)).repeat(80), Err(ReplySyntax::TooLong));
        let longest = format!("250 {}\r\n", "a".repeat(MAX_LINE - 6));
        check(&longest, Ok(&longest));
    }

    #[test]
    fn enhanced_codes() {
        let enhanced = |code, text| PeerReply::new(code, text).enhanced();
        assert_eq!(enhanced(550, "5.7.1 no"), Some((5, 7, 1)));
        assert_eq!(enhanced(250, "2.1.0"), Some((2, 1, 0)));
        assert_eq!(enhanced(451, "4.123.999 x"), Some((4, 123, 999)));
        for (code, text) in
            [(550, "4.7.1 x"), (550, "5.7 x"), (550, "5.7.1.2"), (550, "5.1234.1"), (550, "5..1"), (550, "")]
        {
            assert_eq!(enhanced(code, text), None, "{text}");
        }
    }

    #[test]
    fn our_replies() {
        let mut out = BytesMut::new();
        write_reply(&mut out, 550, Some((5, 7, 1)), "no\r\nway\0 ");
        write_reply(&mut out, 220, None, "hello");
        write_ehlo(&mut out, "checkpost.local", ["PIPELINING", "SIZE 10"].into_iter());
        assert_eq!(
            &out[..],
            b"550-5.7.1 no\r\n550 5.7.1 way?\r\n220 hello\r\n250-checkpost.local\r\n250-PIPELINING\r\n250 SIZE 10\r\n"
        );
    }

    #[test]
    fn text_is_one_line() {
        let reply = PeerReply { code: 550, lines: vec![Bytes::from_static(b"a\rb"), Bytes::from_static(b"\xff")] };
        assert_eq!(reply.text(), "a?b \u{fffd}");
    }

    proptest! {
        #[test]
        fn slicing_changes_nothing(input in "[25-]{0,3}([ -][ab\r\n]{0,4})?(250[ -]x?\r?\n|251 \n){0,9}", at in 0usize..40) {
            let at = at.min(input.len());
            let whole = replies(&[input.as_bytes()]);
            let (head, tail) = input.as_bytes().split_at(at);
            prop_assert_eq!(replies(&[head, tail]), whole);
        }

        #[test]
        fn written_is_read_back(code in 200u16..600, lines in proptest::collection::vec("[ -~\t]{0,60}", 1..20)) {
            let reply = PeerReply { code, lines: lines.into_iter().map(Bytes::from).collect() };
            let mut out = BytesMut::new();
            reply.write_to(&mut out);
            prop_assert_eq!(replies(&[&out]), Ok(vec![reply]));
        }

        #[test]
        fn any_octets_are_safe(input: Vec<u8>) {
            let _ = replies(&[&input]);
        }
    }
}
