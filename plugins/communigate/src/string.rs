//! CommuniGate's strings (Guide/Data.html): `"text"` with escapes, as they stand in its helpers' lines.
//!
//! `\e` is the end of a line, `\ddd` a decimal code. Nothing is known here of what a text means.

/// Why something is no string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StringError {
    /// It does not begin with a quotation mark.
    #[error("no quotation mark")]
    NotQuoted,
    /// It does not end with one.
    #[error("no closing quotation mark")]
    Open,
    /// A backslash with something behind it that is no escape.
    #[error("an unknown escape")]
    Escape,
}

/// Reads a string at the start of `octets`: its text, and what is behind it.
///
/// # Errors
/// There is none.
pub fn read(octets: &[u8]) -> Result<(Vec<u8>, &[u8]), StringError> {
    let mut rest = octets.strip_prefix(b"\"").ok_or(StringError::NotQuoted)?;
    let mut text = Vec::new();
    loop {
        let (&octet, behind) = rest.split_first().ok_or(StringError::Open)?;
        rest = behind;
        match octet {
            b'"' => return Ok((text, rest)),
            b'\\' => {
                let (escaped, behind) = escape(rest)?;
                text.push(escaped);
                rest = behind;
            }
            _ => text.push(octet),
        }
    }
}

/// What stands behind a backslash.
fn escape(octets: &[u8]) -> Result<(u8, &[u8]), StringError> {
    let (&first, behind) = octets.split_first().ok_or(StringError::Open)?;
    let octet = match first {
        b'e' | b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'"' | b'\\' => first,
        b'0'..=b'9' => {
            let (digits, behind) = octets.split_at_checked(3).ok_or(StringError::Escape)?;
            let code = digits
                .iter()
                .try_fold(0u16, |code, digit| digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0')));
            let octet = code.and_then(|code| u8::try_from(code).ok()).ok_or(StringError::Escape)?;
            return Ok((octet, behind));
        }
        _ => return Err(StringError::Escape),
    };
    Ok((octet, behind))
}

/// Writes a text as a string of at most `most` octets with its quotation marks: what does not fit is left out at the
/// end, whole escapes only. The second value: did all of it fit?
///
/// `\e` is written for a line feed; what is neither printable nor ASCII becomes its code.
pub fn write(text: &[u8], most: usize) -> (Vec<u8>, bool) {
    let mut written = vec![b'"'];
    let mut whole = true;
    for &octet in text {
        let mut code = [b'\\', b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        let item: &[u8] = match octet {
            b'\n' => b"\\e",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b' '..=b'~' => {
                code[0] = octet;
                &code[..1]
            }
            _ => &code,
        };
        if written.len() + item.len() >= most {
            whole = false;
            break;
        }
        written.extend_from_slice(item);
    }
    written.push(b'"');
    (written, whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_read() {
        fn check(written: &str, result: Result<(&[u8], &str), StringError>) {
            let result = result.map(|(text, rest)| (text.to_vec(), rest.as_bytes()));
            assert_eq!(read(written.as_bytes()), result, "{written}");
        }
        check(r#""""#, Ok((b"", "")));
        check(r#""a b" OK"#, Ok((b"a b", " OK")));
        check(r#""say \"a\\b\"""#, Ok((b"say \"a\\b\"", "")));
        check(r#""H: v\eH2: v2\tx""#, Ok((b"H: v\nH2: v2\tx", "")));
        // Decimal, not octal.
        check(r#""\065\010\255\r\n""#, Ok((b"A\x0a\xff\r\n", "")));
        check(r#"a"#, Err(StringError::NotQuoted));
        check("", Err(StringError::NotQuoted));
        check(r#""a"#, Err(StringError::Open));
        check(r#""a\""#, Err(StringError::Open));
        check(r#""a\"#, Err(StringError::Open));
        check(r#""\256""#, Err(StringError::Escape));
        check(r#""\12""#, Err(StringError::Escape));
        check(r#""\1""#, Err(StringError::Escape));
        check(r#""\x41""#, Err(StringError::Escape));
    }

    #[test]
    fn strings_are_written_and_cut_between_escapes() {
        fn check(text: &[u8], most: usize, written: &str, whole: bool) {
            assert_eq!(write(text, most), (written.as_bytes().to_vec(), whole));
        }
        check(b"H: \"v\"\nH2: \\\t\x01\xe4", 100, r#""H: \"v\"\eH2: \\\t\001\228""#, true);
        check(b"abc", 5, r#""abc""#, true);
        check(b"abcd", 5, r#""abc""#, false);
        check(b"a\n", 4, r#""a""#, false);
        check(b"a\n", 5, r#""a\e""#, true);
        check(b"a\xff", 6, r#""a""#, false);
        check(b"a\xff", 7, r#""a\255""#, true);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in proptest::collection::vec(any::<u8>(), 0..60), most in 2usize..80) {
            let (written, whole) = write(&text, most);
            prop_assert!(written.len() <= most);
            prop_assert!(written.iter().all(|octet| (b' '..=b'~').contains(octet)));
            let (read, rest) = read(&written).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert!(text.starts_with(&read));
            prop_assert_eq!(whole, read == text);
        }

        #[test]
        fn nothing_panics(octets in "\"[\\\\\"entr0-9x]{0,20}") {
            let _ = read(octets.as_bytes());
        }
    }
}
