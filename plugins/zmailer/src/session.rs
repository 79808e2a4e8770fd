//! What smtpserver and its content filter say to each other, on a pipe or a socket (smtpserver(8), contentpolicy.c,
//! subdaemon-ctf.c): `#hungry`, the path of a spool file, a verdict, `#hungry`. Octets in any slicing; no descriptors.
//!
//! Whatever smtpserver does not understand it takes for "accept". So a verdict has its two numbers by construction,
//! is one line, and ends with the second `#hungry`.

/// The filter is ready: the very first line, and the last of every reply. Nothing may stand beside it.
pub const HUNGRY: &[u8] = b"#hungry\n";
/// Says that a mail is still looked at. smtpserver gives up after 120 s without an octet.
pub const BUSY: &[u8] = b"#busy\n";

/// The longest path, in octets (PATH_MAX).
pub const MAX_PATH: usize = 4096;
/// The longest text of a verdict, in octets: the line that smtpserver makes of it has 512 (RFC 5321 section 4.5.3.1.5),
/// with its own words around it.
pub const MAX_TEXT: usize = 400;

/// Why a line is no path. It is answered all the same: each line gets one verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Longer than any path.
    #[error("a path of more than {MAX_PATH} octets")]
    TooLong,
    /// Nothing, or something with a NUL in it.
    #[error("a line that is no path")]
    None,
}

/// A request, or what is none.
pub type Asked = Result<Vec<u8>, PathError>;

/// Cuts what smtpserver says into requests.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    too_long: bool,
}

impl Reader {
    /// Takes what came: the requests that are whole now. One is asked at a time.
    pub fn take(&mut self, octets: &[u8]) -> Vec<Asked> {
        let mut asked = Vec::new();
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            let (text, ends) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            self.too_long |= self.line.len() + text.len() > MAX_PATH;
            if !self.too_long {
                self.line.extend_from_slice(text);
            }
            if ends {
                let line = std::mem::take(&mut self.line);
                asked.push(match std::mem::take(&mut self.too_long) {
                    true => Err(PathError::TooLong),
                    false if line.is_empty() || line.contains(&0) => Err(PathError::None),
                    false => Ok(line),
                });
            }
        }
        asked
    }
}

/// What smtpserver is told of a mail. The default is "try again later".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To the router with it.
    Accept,
    /// Into the freezer with it: nobody gets it before an administrator releases it.
    Freeze,
    /// The client is told that it was taken, and the file is deleted.
    Discard,
    /// The client is told this line, as `550 5.7.1 text`, and the file is deleted.
    Refuse(String),
}

impl Default for Verdict {
    fn default() -> Self {
        Self::later("Local problem, try again later")
    }
}

impl Verdict {
    /// Something on our side failed.
    pub fn later(text: &str) -> Self {
        Self::Refuse(format!("451 4.3.0 {text}"))
    }

    /// As smtpserver reads it, the closing `#hungry` with it, for one write. A line that refuses nothing becomes "try
    /// again later".
    pub fn print(&self) -> Vec<u8> {
        let mut printed = match self {
            Self::Accept => b"0 250 2.0.0 Ok\n".to_vec(),
            // The file's name in the freezer ends with the number.
            Self::Freeze => b"1 250 2.7.1 Ok\n".to_vec(),
            Self::Discard => b"-1 250 2.7.1 Ok\n".to_vec(),
            Self::Refuse(line) => match refusal(line) {
                Some((code, enhanced, text)) => format!("-1 {code} {enhanced} {text}\n").into_bytes(),
                None => return Self::default().print(),
            },
        };
        printed.extend_from_slice(HUNGRY);
        printed
    }
}

/// Code, enhanced code and text of a line that refuses, as smtpserver can say them.
fn refusal(line: &str) -> Option<(&str, String, String)> {
    let (code, rest) = line.split_once(' ')?;
    let digits = code.as_bytes();
    // 421 is sent as it is, and the connection stays open: not what RFC 5321 section 3.8 says of it.
    let refuses = digits.len() == 3 && matches!(digits[0], b'4' | b'5') && digits.iter().all(u8::is_ascii_digit);
    if !refuses || code == "421" {
        return None;
    }
    let (enhanced, text) = match rest.split_once(' ') {
        Some((word, text)) if is_enhanced(word) => (single_digits(word), text),
        _ => (format!("{}.0.0", &code[..1]), rest),
    };
    // What is beyond ASCII would be dropped, a CR would begin another line, and an empty line would be our end.
    let clean = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let text: String = text.trim().chars().map(clean).take(MAX_TEXT).collect();
    (!text.is_empty() && enhanced.starts_with(&code[..1])).then_some((code, enhanced, text))
}

fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let number =
        |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    number(parts.next()) && number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

/// smtpserver takes one digit for each number and the rest for text. RFC 3463: 0 is the undefined one.
fn single_digits(enhanced: &str) -> String {
    let digit = |part: &str| if part.len() == 1 { part.to_owned() } else { "0".to_owned() };
    enhanced.split('.').map(digit).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_line_is_a_request() {
        let mut reader = Reader::default();
        assert_eq!(reader.take(b"/var/spool/postoffice/public/a:1"), []);
        assert_eq!(reader.take(b"23\n/x"), [Ok(b"/var/spool/postoffice/public/a:123".to_vec())]);
        assert_eq!(reader.take(b"\n\n/a\0b\n"), [Ok(b"/x".to_vec()), Err(PathError::None), Err(PathError::None)]);
        let long = [b'x'; MAX_PATH + 1];
        assert_eq!(reader.take(&long[1..]), []);
        assert_eq!(reader.take(b"\n"), [Ok(long[1..].to_vec())]);
        for _ in 0..1000 {
            assert_eq!(reader.take(&long), []);
        }
        assert_eq!(reader.take(b"\n/x\n"), [Err(PathError::TooLong), Ok(b"/x".to_vec())]);
    }

    fn check(verdict: &Verdict, printed: &str) {
        assert_eq!(String::from_utf8_lossy(&verdict.print()), format!("{printed}\n#hungry\n"));
    }

    #[test]
    fn verdicts_are_whole() {
        check(&Verdict::Accept, "0 250 2.0.0 Ok");
        check(&Verdict::Freeze, "1 250 2.7.1 Ok");
        check(&Verdict::Discard, "-1 250 2.7.1 Ok");
        check(&Verdict::default(), "-1 451 4.3.0 Local problem, try again later");
    }

    #[test]
    fn refusals_are_said_as_smtpserver_understands_them() {
        let check = |line: &str, printed: &str| check(&Verdict::Refuse(line.into()), printed);
        check("550 5.7.1 Message contains malware (x)", "-1 550 5.7.1 Message contains malware (x)");
        check("450 4.7.1 Later", "-1 450 4.7.1 Later");
        check("550 5.7.12 Not for you", "-1 550 5.7.0 Not for you");
        check("554 Without a code of its own", "-1 554 5.0.0 Without a code of its own");
        check("550 2 viruses", "-1 550 5.0.0 2 viruses");
        check("550 5.7.1 a\r\n0 250 2.0.0 b\n\n\u{e4}", "-1 550 5.7.1 a??0 250 2.0.0 b???");
        check(&format!("550 5.7.1 {}", "x".repeat(5000)), &format!("-1 550 5.7.1 {}", "x".repeat(MAX_TEXT)));
        let later = "-1 451 4.3.0 Local problem, try again later";
        for wrong in [
            "",
            "550",
            "550 ",
            "550 5.7.1 ",
            "550 5.7.1",
            "250 2.0.0 Fine",
            "5x0 a",
            "55 a",
            "5500 a",
            "421 4.3.2 Bye",
            "550 4.7.1 a",
        ] {
            match wrong {
                // Its enhanced code is all its text.
                "550 5.7.1" => check(wrong, "-1 550 5.0.0 5.7.1"),
                _ => check(wrong, later),
            }
        }
    }

    proptest! {
        /// As smtpserver reads it: `sscanf("%i %i %i")` gives at least two numbers, the first in column 1, a blank behind it.
        #[test]
        fn every_refusal_is_one(line in "[245][0-9]{2} ([0-9.]{0,7} )?\\PC{0,900}") {
            let printed = Verdict::Refuse(line).print();
            let printed = String::from_utf8(printed).unwrap();
            let verdict = printed.strip_suffix("\n#hungry\n").unwrap();
            prop_assert!(!verdict.contains('\n') && !verdict.contains('\r') && verdict.is_ascii());
            let words: Vec<&str> = verdict.splitn(4, ' ').collect();
            prop_assert_eq!(words[0], "-1");
            prop_assert!(matches!(words[1].parse::<u16>().unwrap(), 400..=599));
            let enhanced = words[2].as_bytes();
            prop_assert!(enhanced.len() == 5 && enhanced[0] == words[1].as_bytes()[0], "{}", verdict);
            prop_assert!(!words[3].trim().is_empty() && verdict.len() <= MAX_TEXT + 16);
        }

        #[test]
        fn slices_do_not_matter(octets in "[/ax\n\u{0}]{0,80}", cuts in proptest::collection::vec(1usize..9, 0..40)) {
            let whole = Reader::default().take(octets.as_bytes());
            let (mut reader, mut sliced, mut rest) = (Reader::default(), Vec::new(), octets.as_bytes());
            for length in cuts.into_iter().chain(std::iter::repeat(1)) {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at(length.min(rest.len()));
                sliced.extend(reader.take(head));
                rest = tail;
            }
            prop_assert_eq!(whole, sliced);
        }
    }
}
