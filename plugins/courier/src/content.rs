//! A look at a content before it takes the place of a mail's: does it end with a line feed, and where has it octets
//! beyond ASCII? Nothing is changed here.

/// What was seen. Starts with nothing seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// Octets.
    pub length: u64,
    /// Octets beyond ASCII, anywhere.
    pub eight_bit: bool,
    /// Octets beyond ASCII in the header.
    pub eight_bit_header: bool,
    last: Option<u8>,
    in_body: bool,
}

impl Look {
    /// Sees the next octets.
    pub fn take(&mut self, octets: &[u8]) {
        self.length += octets.len() as u64;
        for &octet in octets {
            if octet == b'\n' && matches!(self.last, None | Some(b'\n')) {
                self.in_body = true;
            }
            if !octet.is_ascii() {
                self.eight_bit = true;
                self.eight_bit_header |= !self.in_body;
            }
            // A line may end with CR LF; Courier's own do not.
            if octet != b'\r' {
                self.last = Some(octet);
            }
        }
    }

    /// Is the last octet a line feed? Courier's delivery breaks otherwise.
    pub fn ends_with_line_feed(&self) -> bool {
        self.last == Some(b'\n')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen() {
        fn check(text: &str, header: bool, body: bool, ended: bool) {
            for piece in [1, 2, 3, 1000] {
                let mut look = Look::default();
                text.as_bytes().chunks(piece).for_each(|octets| look.take(octets));
                let seen = (look.eight_bit_header, look.eight_bit, look.ends_with_line_feed());
                assert_eq!(seen, (header, header || body, ended), "{text:?}");
                assert_eq!(look.length, text.len() as u64);
            }
        }
        check("", false, false, false);
        check("a: b\n\nc\n", false, false, true);
        check("a: b\n\nc", false, false, false);
        check("a: \u{e9}\n\nc\n", true, false, true);
        check("a: b\n\n\u{e9}\n", false, true, true);
        check("a: b\r\n\r\n\u{e9}\r\n", false, true, true);
        check("\n\u{e9}\n", false, true, true);
    }
}
