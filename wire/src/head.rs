//! The head of a request, as HTTP has it and as the protocols of spamd and rspamd's older one took from it: a line, lines
//! `Name: value`, an empty line. Lines end in CRLF or LF.

/// The longest head that is taken, in octets.
pub const MAX_HEAD: usize = 256 << 10;
/// The most lines in it: one for each of many recipients.
pub const MAX_LINES: usize = 20_000;

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Without an end.
    #[error("a head of more than {MAX_HEAD} octets")]
    TooLong,
    /// A line that is none of a head.
    #[error("a line that is not `Name: value`")]
    Malformed,
    /// Two lengths, or none that can be read.
    #[error("a length that is none, or two of them")]
    Length,
}

/// Looks for the end of a head in a buffer that grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finder {
    /// There is no end in so many octets from the start.
    seen: usize,
}

impl Finder {
    /// The length of the head at the start of `buffer` with its empty line, once all of it is there. What was looked at
    /// before is not looked at again, so the buffer may only grow until a length is returned.
    ///
    /// # Errors
    /// [`HeadError::TooLong`].
    pub fn find(&mut self, buffer: &[u8]) -> Result<Option<usize>, HeadError> {
        // An end may have begun before: LF CR.
        let from = self.seen.saturating_sub(2).min(buffer.len());
        for at in memchr::memchr_iter(b'\n', &buffer[from..]) {
            let rest = &buffer[from + at + 1..];
            let end = if rest.starts_with(b"\n") {
                Some(1)
            } else if rest.starts_with(b"\r\n") {
                Some(2)
            } else {
                None
            };
            if let Some(end) = end {
                let length = from + at + 1 + end;
                *self = Self::default();
                return if length <= MAX_HEAD { Ok(Some(length)) } else { Err(HeadError::TooLong) };
            }
        }
        self.seen = buffer.len();
        if buffer.len() < MAX_HEAD { Ok(None) } else { Err(HeadError::TooLong) }
    }
}

/// Name and value of each line of a head behind its first one, with the empty line at its end.
///
/// # Errors
/// [`HeadError::Malformed`].
pub fn lines(head: &[u8]) -> Result<Vec<(&str, &[u8])>, HeadError> {
    // Each line has a line end, so this is no more than there can be.
    let most = memchr::memchr_iter(b'\n', head).count().min(MAX_LINES);
    let mut space = vec![httparse::EMPTY_HEADER; most];
    match httparse::parse_headers(head, &mut space) {
        Ok(httparse::Status::Complete((_, headers))) => {
            Ok(headers.iter().map(|header| (header.name, header.value.trim_ascii())).collect())
        }
        Ok(httparse::Status::Partial) | Err(_) => Err(HeadError::Malformed),
    }
}

/// A length in octets, digits only.
///
/// # Errors
/// [`HeadError::Length`].
pub fn length(value: &[u8]) -> Result<u64, HeadError> {
    let text = std::str::from_utf8(value).map_err(|_| HeadError::Length)?;
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    if digits { text.parse().map_err(|_| HeadError::Length) } else { Err(HeadError::Length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let find = |text: &str| Finder::default().find(text.as_bytes());
        assert_eq!(find("A\r\nB: c\r\n\r\nbody"), Ok(Some(11)));
        assert_eq!(find("A\nB: c\n\nbody"), Ok(Some(8)));
        assert_eq!(find("A\nB: c\n\r\nbody"), Ok(Some(9)));
        assert_eq!(find("A\r\nB: c\r\n"), Ok(None));
        assert_eq!(find(""), Ok(None));
        assert_eq!(find(&"x".repeat(MAX_HEAD)), Err(HeadError::TooLong));
    }

    #[test]
    fn lines_are_read_as_they_stand() {
        let lines = |text| lines(text).map(|lines| lines.iter().map(|(n, v)| format!("{n}={}", v.len())).collect());
        assert_eq!(lines(b"A: 1\r\nb:  22 \r\n\r\n"), Ok::<Vec<_>, _>(vec!["A=1".to_owned(), "b=2".to_owned()]));
        assert_eq!(lines(b"\r\n"), Ok(Vec::new()));
        assert_eq!(lines(b"no colon\r\n\r\n"), Err(HeadError::Malformed));
        assert_eq!(lines(b"a b: c\r\n\r\n"), Err(HeadError::Malformed));
        assert_eq!(lines(b"A: 1\r\n"), Err(HeadError::Malformed));
    }

    #[test]
    fn a_length_is_digits_only() {
        assert_eq!(length(b"12"), Ok(12));
        for odd in [&b""[..], b"+1", b"-1", b"1,2", b"0x1", b"99999999999999999999", b" 1"] {
            assert_eq!(length(odd), Err(HeadError::Length), "{}", String::from_utf8_lossy(odd));
        }
    }

    proptest! {
        #[test]
        fn the_end_is_the_same_in_any_slicing(text in "[a\r\n]{0,40}", cut in 1usize..7) {
            let whole = Finder::default().find(text.as_bytes());
            let (mut finder, mut buffer, mut found) = (Finder::default(), Vec::new(), Ok(None));
            for piece in text.as_bytes().chunks(cut) {
                buffer.extend_from_slice(piece);
                found = finder.find(&buffer);
                if found != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(found, whole);
        }
    }
}
