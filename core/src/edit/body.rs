//! A new body: plain text, in a form that every mail system carries.

use std::fmt;

use bytes::Bytes;

use super::EditError;

/// The longest text, 16 MiB.
pub const MAX_TEXT: usize = 16 << 20;
/// RFC 5322 section 2.1.1: without CRLF.
const MAX_LINE: usize = 998;
/// RFC 2045 section 6.8: characters in a line of base64.
const BASE64_LINE: usize = 76;

/// A text as a body (RFC 2045): lines of ASCII as they are, anything else in base64.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Body {
    octets: Bytes,
    encoding: &'static str,
}

impl Body {
    /// Any text without NUL, of at most [`MAX_TEXT`] octets. Line ends become CRLF, and the last line
    /// gets one.
    ///
    /// # Errors
    /// [`EditError::Body`].
    pub fn new(text: &str) -> Result<Self, EditError> {
        if text.len() > MAX_TEXT || text.contains('\0') {
            return Err(EditError::Body);
        }
        let mut lines = String::with_capacity(text.len() + 64);
        let mut plain = text.is_ascii();
        for line in text.lines() {
            plain &= line.len() <= MAX_LINE && !line.contains('\r');
            lines.push_str(line);
            lines.push_str("\r\n");
        }
        if plain {
            return Ok(Self { octets: lines.into(), encoding: "7bit" });
        }
        let encoded = base64_simd::STANDARD.encode_to_string(lines);
        let mut octets = Vec::with_capacity(encoded.len() + encoded.len() / BASE64_LINE * 2 + 2);
        for line in encoded.as_bytes().chunks(BASE64_LINE) {
            octets.extend_from_slice(line);
            octets.extend_from_slice(b"\r\n");
        }
        Ok(Self { octets: octets.into(), encoding: "base64" })
    }

    /// What does not fit goes: for texts that hold names from scanners.
    pub fn lossy(text: &str) -> Self {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        // Without NUL and short enough: what `new` refuses is not there.
        Self::new(&text[..end].replace('\0', "?")).unwrap_or(Self { octets: Bytes::new(), encoding: "7bit" })
    }

    /// As it goes over the wire, without dot stuffing.
    pub fn octets(&self) -> &Bytes {
        &self.octets
    }

    /// The fields that describe it, as name and value.
    pub fn fields(&self) -> [(&'static str, &'static str); 3] {
        [
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", self.encoding),
        ]
    }
}

/// Not its octets: they may be many.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} octets, {})", self.octets.len(), self.encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_lines_that_every_system_carries() {
        let plain = Body::new("a\nb\r\n.\nlast").unwrap();
        assert_eq!((&plain.octets()[..], plain.encoding), (&b"a\r\nb\r\n.\r\nlast\r\n"[..], "7bit"));
        assert_eq!(Body::new("").unwrap().octets().len(), 0);
        for coded in ["grüße\n".to_owned(), "x".repeat(1000), "a\rb".to_owned()] {
            let body = Body::new(&coded).unwrap();
            assert_eq!(body.encoding, "base64");
            assert!(body.octets().split(|b| *b == b'\n').all(|line| line.len() <= 77));
            let packed: Vec<u8> = body.octets().iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            let text = base64_simd::STANDARD.decode_to_vec(packed).unwrap();
            assert_eq!(String::from_utf8(text).unwrap().trim_end(), coded.trim_end());
        }
        assert_eq!(Body::new("a\0b"), Err(EditError::Body));
    }
}
