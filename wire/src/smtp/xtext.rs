//! xtext (RFC 3461 section 4): any octets as printable ASCII without `+`, `=` and blanks.
//! Not base64, not quoted-printable.

use std::fmt::Write as _;

/// Encodes octets: printable ASCII except `+` and `=` stays, all else becomes `+XX`.
#[must_use]
pub fn encode(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for &octet in value {
        if matches!(octet, b'!'..=b'~') && octet != b'+' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "+{octet:02X}");
        }
    }
    out
}

/// Decodes xtext. `None` when a `+` is not followed by two hexadecimal digits or an octet is not printable.
///
/// Lower-case digits and a bare `=` are taken, as senders write them.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        match octet {
            b'+' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                out.push(digit(0)? << 4 | digit(1)?);
                rest = tail;
            }
            b'!'..=b'~' => out.push(octet),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn examples() {
        assert_eq!(encode(b"a+b=c d\xff"), "a+2Bb+3Dc+20d+FF");
        assert_eq!(decode(b"a+2Bb+3dc").as_deref(), Some(&b"a+b=c"[..]));
        for wrong in [&b"+"[..], b"+4", b"+4G", b"+ 4", b"++2B", b"a b", b"a\r", b"\xff"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(value: Vec<u8>) {
            prop_assert_eq!(decode(encode(&value).as_bytes()), Some(value));
        }

        #[test]
        fn any_octets_are_safe(value: Vec<u8>) {
            let _ = decode(&value);
        }
    }
}
