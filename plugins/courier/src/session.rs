//! What Courier and a filter say to each other over the filter's socket (courierfilter(8)): names of queue
//! files, an empty line, and back a reply as in SMTP. Octets in any slicing; no sockets and no files.
//!
//! What is in the files is read in [`crate::control`].

/// The longest line, in octets: a path (PATH_MAX).
pub const MAX_LINE: usize = 4096;
/// The most control files of a mail. By default Courier puts 100 recipients into one.
pub const MAX_CONTROLS: usize = 10_000;
/// The longest request, in octets.
pub const MAX_REQUEST: usize = 2 << 20;
/// The longest line of a reply, in octets: RFC 5321 section 4.5.3.1.5, without room to spare for CR LF.
pub const MAX_REPLY_LINE: usize = 500;

/// The files of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The mail itself.
    pub data: Vec<u8>,
    /// Its envelope, in at least one file.
    pub controls: Vec<Vec<u8>>,
}

/// Why a request is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A line longer than any path.
    #[error("a line of more than {MAX_LINE} octets")]
    Line,
    /// Too many files, or too many octets.
    #[error("more than {MAX_CONTROLS} files or {MAX_REQUEST} octets")]
    TooLarge,
    /// A name with a NUL, or one that is blank, which Courier sends for a file that it has no name of.
    #[error("a file without a name")]
    NoName,
    /// It ended with its data file.
    #[error("no control file")]
    NoControl,
}

/// Puts a request together.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    files: Vec<Vec<u8>>,
    octets: usize,
}

impl Reader {
    /// Takes what came; the request, once the empty line is there. What comes behind it does not count.
    ///
    /// # Errors
    /// It is none; nothing may be taken after that.
    pub fn take(&mut self, octets: &[u8]) -> Result<Option<Request>, RequestError> {
        for &octet in octets {
            self.octets += 1;
            if self.octets > MAX_REQUEST {
                return Err(RequestError::TooLarge);
            }
            match octet {
                b'\n' if self.line.is_empty() => return self.finish().map(Some),
                b'\n' => {
                    if self.files.len() > MAX_CONTROLS {
                        return Err(RequestError::TooLarge);
                    }
                    let name = std::mem::take(&mut self.line);
                    if name.iter().all(u8::is_ascii_whitespace) {
                        return Err(RequestError::NoName);
                    }
                    self.files.push(name);
                }
                0 => return Err(RequestError::NoName),
                _ if self.line.len() == MAX_LINE => return Err(RequestError::Line),
                _ => self.line.push(octet),
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Request, RequestError> {
        let mut files = std::mem::take(&mut self.files).into_iter();
        let data = files.next().ok_or(RequestError::NoName)?;
        let controls: Vec<_> = files.collect();
        if controls.is_empty() {
            return Err(RequestError::NoControl);
        }
        Ok(Request { data, controls })
    }
}

/// What Courier is told. The default is "try again later".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The next filter is asked, then the mail is queued.
    Accept,
    /// The client is told this line, as `550 5.7.1 text`.
    Refuse(String),
}

impl Default for Reply {
    fn default() -> Self {
        Self::later("Local problem, try again later")
    }
}

impl Reply {
    /// Something on our side failed.
    pub fn later(text: &str) -> Self {
        Self::Refuse(format!("451 4.3.0 {text}"))
    }

    /// As Courier reads it; the connection is closed behind it. A line that refuses nothing becomes
    /// "try again later": Courier takes mail for most of what is no refusal.
    pub fn print(&self) -> Vec<u8> {
        match self {
            Self::Accept => b"200 Ok\n".to_vec(),
            Self::Refuse(line) => match refusal(line) {
                Some((code, text)) => print_lines(code, text),
                None => Self::default().print(),
            },
        }
    }
}

/// Code and text of a line that refuses.
fn refusal(line: &str) -> Option<(&str, &str)> {
    let (code, text) = line.split_once(' ')?;
    let digits = code.as_bytes();
    let refuses = digits.len() == 3 && matches!(digits[0], b'4' | b'5') && digits.iter().all(u8::is_ascii_digit);
    (refuses && !text.trim().is_empty()).then_some((code, text))
}

/// RFC 2034 section 4: each line has the enhanced code.
fn print_lines(code: &str, text: &str) -> Vec<u8> {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let (enhanced, mut rest) = match clean.split_once(' ') {
        Some((word, rest)) if word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            (format!("{word} "), rest)
        }
        _ => (String::new(), &*clean),
    };
    let room = MAX_REPLY_LINE.saturating_sub(code.len() + 1 + enhanced.len()).max(4);
    let mut printed = String::new();
    loop {
        let part = &rest[..cut(rest, room)];
        rest = rest[part.len()..].trim_start_matches(' ');
        let mark = if rest.is_empty() { ' ' } else { '-' };
        printed.push_str(&format!("{code}{mark}{enhanced}{}\n", part.trim_end_matches(' ')));
        if rest.is_empty() {
            return printed.into_bytes();
        }
    }
}

/// How much of the text fits, between words if possible.
fn cut(text: &str, room: usize) -> usize {
    if text.len() <= room {
        return text.len();
    }
    let end = text.floor_char_boundary(room);
    text[..end].rfind(' ').filter(|at| *at > 0).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TWO: &[u8] = b"/var/lib/courier/tmp/179551/D10249141\n/var/lib/courier/tmp/179551/C10249141.1\n\
                         /var/lib/courier/tmp/179551/C10249141.2\n\n";

    #[test]
    fn a_request_ends_with_its_empty_line() {
        for end in 0..TWO.len() {
            assert_eq!(Reader::default().take(&TWO[..end]), Ok(None));
        }
        let request = Reader::default().take(TWO).unwrap().unwrap();
        assert_eq!(request.data, b"/var/lib/courier/tmp/179551/D10249141");
        assert_eq!(request.controls.len(), 2);
        assert!(request.controls[1].ends_with(b"C10249141.2"));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        fn check(octets: &[u8], error: RequestError) {
            assert_eq!(Reader::default().take(octets), Err(error), "{:?}", String::from_utf8_lossy(octets));
        }
        check(b"\n", RequestError::NoName);
        check(b"/d\n\n", RequestError::NoControl);
        check(b"/d\n \n\n", RequestError::NoName);
        check(b" \n/c\n\n", RequestError::NoName);
        check(b"/d\0\n", RequestError::NoName);
        check(&[b'x'; MAX_LINE + 1], RequestError::Line);
        check(&b"/x\n".repeat(MAX_CONTROLS + 2), RequestError::TooLarge);
        check(&[&[b'x'; MAX_LINE - 1][..], b"\n"].concat().repeat(MAX_REQUEST / MAX_LINE + 1), RequestError::TooLarge);
    }

    #[test]
    fn replies_are_printed() {
        fn check(line: &str, printed: &str) {
            assert_eq!(String::from_utf8_lossy(&Reply::Refuse(line.into()).print()), printed);
        }
        assert_eq!(Reply::Accept.print(), b"200 Ok\n");
        assert_eq!(Reply::default().print(), b"451 4.3.0 Local problem, try again later\n");
        check("550 5.7.1 Message contains malware (x)", "550 5.7.1 Message contains malware (x)\n");
        check("450 no code", "450 no code\n");
        // Nothing that Courier would take for an accept, or for its undocumented "skip the rest".
        for wrong in ["", "550", "550 ", "250 2.0.0 fine", "050 5.7.1 skip", "5x0 a", "55 a", "5500 a"] {
            check(wrong, "451 4.3.0 Local problem, try again later\n");
        }
        check("550 5.7.1 a\r\n250 b", "550 5.7.1 a??250 b\n");
        let long = format!("550 5.7.1 {}end", "word ".repeat(150));
        let printed = String::from_utf8(Reply::Refuse(long).print()).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("550-5.7.1 word") && lines[0].ends_with("word"), "{printed}");
        assert!(lines[1].starts_with("550 5.7.1 word") && lines[1].ends_with("word end"), "{printed}");
    }

    proptest! {
        #[test]
        fn slices_do_not_matter(octets in "[/ax\n \u{0}]{0,80}", cuts in proptest::collection::vec(1usize..9, 0..40)) {
            let whole = Reader::default().take(octets.as_bytes());
            let mut reader = Reader::default();
            let mut sliced = Ok(None);
            let mut rest = octets.as_bytes();
            for length in cuts.into_iter().chain(std::iter::repeat(1)) {
                if rest.is_empty() || sliced != Ok(None) {
                    break;
                }
                let (head, tail) = rest.split_at(length.min(rest.len()));
                sliced = reader.take(head);
                rest = tail;
            }
            prop_assert_eq!(whole, sliced);
        }

        #[test]
        fn a_reply_is_lines_of_one_code(line in "[245][0-9]{2} ([0-9.]{0,5} )?\\PC{0,900}") {
            let printed = Reply::Refuse(line).print();
            prop_assert!(printed.ends_with(b"\n"));
            let lines: Vec<&[u8]> = printed[..printed.len() - 1].split(|octet| *octet == b'\n').collect();
            for (index, line) in lines.iter().enumerate() {
                prop_assert!(line.len() <= MAX_REPLY_LINE);
                prop_assert!(matches!(line[0], b'4' | b'5') && line[..3] == lines[0][..3]);
                prop_assert_eq!(line[3], if index + 1 == lines.len() { b' ' } else { b'-' });
            }
        }
    }
}
