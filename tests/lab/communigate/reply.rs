//! The lines of a helper, as the server reads them.

/// The longest line with its end, in octets.
pub(crate) const MAX_LINE: usize = 4096;

/// What a helper says about a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It goes on.
    Ok,
    /// It goes on with these lines in its header.
    AddHeader(Vec<String>),
    /// It is refused for good.
    Error(String),
    /// It is dropped.
    Discard,
    /// It stays in the queue.
    Rejected(String),
    /// It goes on, though the helper could not handle it.
    Failure,
}

impl Reply {
    /// Reads what stands behind the number, as a server does that has agreed on this interface.
    ///
    /// # Panics
    /// When it is nothing that a server understands.
    pub fn read(text: &[u8], interface: u32) -> Self {
        let shown = || String::from_utf8_lossy(text).into_owned();
        let string = |rest: &[u8], behind: &[u8]| {
            let (string, rest) = read_string(rest).unwrap_or_else(|| panic!("no string: {}", shown()));
            assert_eq!(rest, behind, "{}", shown());
            String::from_utf8(string).unwrap_or_else(|_| panic!("8-bit text: {}", shown()))
        };
        match text {
            b"OK" => Self::Ok,
            b"DISCARD" => Self::Discard,
            b"FAILURE" => Self::Failure,
            _ => {
                let at = text.iter().position(|octet| *octet == b' ');
                let (word, rest) = text.split_at(at.unwrap_or_else(|| panic!("an unknown answer: {}", shown())));
                let rest = &rest[1..];
                match word {
                    b"ERROR" => Self::Error(string(rest, b"")),
                    b"REJECTED" => Self::Rejected(string(rest, b"")),
                    b"ADDHEADER" => {
                        // From interface 3 on it is a modifier, and without a word behind it the mail hangs.
                        let lines = string(rest, if interface >= 3 { b" OK" } else { b"" });
                        Self::AddHeader(lines.split('\n').map(str::to_owned).collect())
                    }
                    _ => panic!("an unknown answer: {}", shown()),
                }
            }
        }
    }
}

/// A string at the start: its text, and what stands behind it.
pub fn read_string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut octets = text.iter().copied().enumerate();
    if octets.next()?.1 != b'"' {
        return None;
    }
    let mut string = Vec::new();
    while let Some((at, octet)) = octets.next() {
        if octet == b'"' {
            return Some((string, &text[at + 1..]));
        }
        if octet != b'\\' {
            assert!((b' '..=b'~').contains(&octet), "octet {octet} in a string");
            string.push(octet);
            continue;
        }
        let (_, escaped) = octets.next()?;
        string.push(match escaped {
            b'"' | b'\\' => escaped,
            b'e' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'n' => b'\n',
            b'0'..=b'2' => {
                let digits = [escaped, octets.next()?.1, octets.next()?.1];
                std::str::from_utf8(&digits).ok()?.parse().ok()?
            }
            _ => return None,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_as_the_manual_has_them() {
        let read = |text: &str| read_string(text.as_bytes()).map(|(text, rest)| (text, rest.to_vec()));
        assert_eq!(read(r#""H: v\eH2: \"v2\"\t\\" OK"#), Some((b"H: v\nH2: \"v2\"\t\\".to_vec(), b" OK".to_vec())));
        assert_eq!(read(r#""\065\255""#), Some((vec![65, 255], Vec::new())));
        for wrong in ["x", r#""x"#, r#""\""#, r#""\6""#, r#""\x""#, r#""\299""#] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[should_panic(expected = "ADDHEADER")]
    fn a_modifier_without_a_final_word_is_refused() {
        Reply::read(br#"ADDHEADER "H: v""#, 3);
    }

    #[test]
    fn replies_are_read() {
        assert_eq!(Reply::read(br#"ADDHEADER "H: v" OK"#, 3), Reply::AddHeader(vec!["H: v".into()]));
        assert_eq!(Reply::read(br#"ADDHEADER "H: v\eI: w""#, 2), Reply::AddHeader(vec!["H: v".into(), "I: w".into()]));
        assert_eq!(Reply::read(br#"ERROR "no""#, 3), Reply::Error("no".into()));
    }
}
