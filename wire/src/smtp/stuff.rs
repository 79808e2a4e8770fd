//! Message content on its way out over DATA: dots doubled at line starts, the final dot (RFC 5321 section 4.5.2).
//! Copies nothing: it yields slices of the content for a gathering write.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// A dot that begins a line.
pub(super) static LF_DOT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n."));

/// Doubles dots over any slicing of one message.
///
/// A dot after any LF is doubled, not only after CRLF: content from [`super::DataDecoder`] has no bare LF, and in
/// content from elsewhere an extra dot is the lesser evil than a message that ends early at a lax server.
#[derive(Debug, Clone)]
pub struct Stuffer {
    /// The last octet was LF, or there was none yet: the CRLF of the DATA command itself begins the first line.
    line_start: bool,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// CRLF, or no content at all.
    CrLf,
    Cr,
    Other,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// For one message.
    #[must_use]
    pub fn new() -> Self {
        Self { line_start: true, ending: Ending::CrLf }
    }

    /// The slices that say `chunk` on the wire. Where a dot is doubled, one slice ends with it and the next begins
    /// with it again. The state moves on at once, whether or not the iterator is used.
    pub fn stuff<'a>(&mut self, chunk: &'a [u8]) -> Stuffed<'a> {
        let again = self.line_start && chunk.first() == Some(&b'.');
        if let Some(&last) = chunk.last() {
            self.line_start = last == b'\n';
            self.ending = match (last, chunk.len()) {
                (b'\r', _) => Ending::Cr,
                (b'\n', 1) if self.ending == Ending::Cr => Ending::CrLf,
                (b'\n', length) if length > 1 && chunk[length - 2] == b'\r' => Ending::CrLf,
                _ => Ending::Other,
            };
        }
        Stuffed { rest: chunk, first_dot: again }
    }

    /// What ends the message: the line end if the content lacks it, and the dot.
    #[must_use]
    pub fn finish(&self) -> &'static [u8] {
        match self.ending {
            Ending::CrLf => b".\r\n",
            Ending::Cr => b"\n.\r\n",
            Ending::Other => b"\r\n.\r\n",
        }
    }
}

/// The slices of one chunk; see [`Stuffer::stuff`].
#[derive(Debug, Clone)]
pub struct Stuffed<'a> {
    rest: &'a [u8],
    /// `rest` begins with a dot that has yet to be doubled.
    first_dot: bool,
}

impl<'a> Iterator for Stuffed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if std::mem::take(&mut self.first_dot) {
            return Some(&self.rest[..1]);
        }
        if self.rest.is_empty() {
            return None;
        }
        let rest = self.rest;
        match LF_DOT.find(rest) {
            Some(lf) => {
                self.rest = &rest[lf + 1..];
                Some(&rest[..lf + 2])
            }
            None => {
                self.rest = &[];
                Some(rest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{BareNewline, DataDecoder, DataEvent};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn stuffed(chunks: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = Stuffer::new();
        let mut out: Vec<u8> =
            chunks.iter().flat_map(|chunk| stuffer.stuff(chunk).collect::<Vec<_>>()).flatten().copied().collect();
        out.extend_from_slice(stuffer.finish());
        out
    }

    fn check(content: &str, expected: &str) {
        assert_eq!(String::from_utf8(stuffed(&[content.as_bytes()])).unwrap(), expected, "{content:?}");
        let single: Vec<&[u8]> = content.as_bytes().chunks(1).collect();
        assert_eq!(String::from_utf8(stuffed(&single)).unwrap(), expected, "{content:?} byte by byte");
    }

    #[test]
    fn dots_at_line_starts_are_doubled() {
        check("", ".\r\n");
        check("a\r\n", "a\r\n.\r\n");
        check("a", "a\r\n.\r\n");
        check(".", "..\r\n.\r\n");
        check(".\r\n", "..\r\n.\r\n");
        check("a.b\r\n..\r\n.c\r\n", "a.b\r\n...\r\n..c\r\n.\r\n");
        check("\r\n.\r\n", "\r\n..\r\n.\r\n");
        check("a\n.\nb", "a\n..\nb\r\n.\r\n");
        check("a\n", "a\n\r\n.\r\n");
        check("a\r", "a\r\n.\r\n");
    }

    proptest! {
        #[test]
        fn decoding_gives_the_content_back(
            lines in proptest::collection::vec("[.a\0ü]{0,5}", 0..20),
            cuts in proptest::collection::vec(1usize..9, 0..60),
        ) {
            let content: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
            let mut rest = &content[..];
            let mut chunks = Vec::new();
            for &cut in &cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            let wire = stuffed(&chunks);
            prop_assert_eq!(&wire, &stuffed(&[&content]));
            let mut decoder = DataDecoder::new(BareNewline::Reject, 0);
            let mut out = BytesMut::new();
            let mut input = BytesMut::new();
            let mut event = DataEvent::More;
            for piece in wire.chunks(cuts.first().copied().unwrap_or(1000)) {
                input.extend_from_slice(piece);
                event = decoder.decode(&mut input, &mut out);
            }
            prop_assert_eq!(event, DataEvent::End);
            prop_assert!(input.is_empty());
            prop_assert_eq!(&out[..], &content[..]);
        }

        #[test]
        fn no_content_can_end_the_message_early(content in "[.\r\na]{0,30}") {
            // A lax server takes LF alone for a line end: even for it the only lone dot is the last.
            let wire = stuffed(&[content.as_bytes()]);
            let lax: Vec<&[u8]> = wire.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
            let first = lax.iter().position(|line| *line == b".").unwrap();
            prop_assert_eq!(first, lax.len() - 2);
        }
    }
}
