//! The protocol of SpamAssassin's spamd, server side (its `spamd/PROTOCOL`; checked against spamc 4.0.1 and Exim 4.96).
//!
//! A request is a line, `Name: value` lines, an empty line and a message. What an answer looks like hangs on the version
//! that the client speaks: Exim says 1.2 and reads nothing but the form of that time.

use std::fmt::Write as _;

use crate::head::{self, Finder, HeadError};

/// `EX_PROTOCOL` (sysexits.h): the request was none.
pub const PROTOCOL: u8 = 76;
/// `EX_TEMPFAIL`: not checked, try again.
pub const TEMPORARY: u8 = 75;
/// `EX_UNAVAILABLE`: not done here.
pub const UNAVAILABLE: u8 = 69;

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The score.
    Check,
    /// The score and the names of what was found.
    Symbols,
    /// The score and a text about it.
    Report,
    /// The text for spam only.
    ReportIfSpam,
    /// The message, changed.
    Process,
    /// The header of the message, changed.
    Headers,
    /// Nothing after all.
    Skip,
    /// Is somebody there?
    Ping,
    /// Learn, report or forget a message.
    Tell,
}

/// One request, without its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub method: Method,
    /// The version of the protocol: 1.2 is (1, 2).
    pub version: (u16, u16),
    /// The message's length in octets; `None`: it goes on until the client has no more to say.
    pub length: Option<u64>,
    /// For whom, as the client names it.
    pub user: Option<String>,
    /// The message is compressed.
    pub compressed: bool,
}

/// Looks for a request in a buffer that grows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reader(Finder);

impl Reader {
    /// The first request and the length of its head, once that is here whole.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&mut self, buffer: &[u8]) -> Result<Option<(Request, usize)>, HeadError> {
        // Old clients say no more than the line where there is no message.
        if let Some(at) = memchr::memchr(b'\n', &buffer[..buffer.len().min(256)]) {
            let (method, version) = first_line(&buffer[..at])?;
            if method == Method::Skip || (method == Method::Ping && version < (1, 5)) {
                let request = Request { method, version, length: None, user: None, compressed: false };
                return Ok(Some((request, at + 1)));
            }
        } else if buffer.len() >= 256 {
            return Err(HeadError::Malformed);
        }
        match self.0.find(buffer)? {
            None => Ok(None),
            Some(length) => Ok(Some((parse(&buffer[..length])?, length))),
        }
    }
}

fn parse(head: &[u8]) -> Result<Request, HeadError> {
    let at = memchr::memchr(b'\n', head).ok_or(HeadError::Malformed)?;
    let (method, version) = first_line(&head[..at])?;
    let mut request = Request { method, version, length: None, user: None, compressed: false };
    for (name, value) in head::lines(&head[at + 1..])? {
        if name.eq_ignore_ascii_case("Content-length") {
            if request.length.replace(head::length(value)?).is_some() {
                return Err(HeadError::Length);
            }
        } else if name.eq_ignore_ascii_case("User") {
            request.user = Some(String::from_utf8_lossy(value).into_owned());
        } else if name.eq_ignore_ascii_case("Compress") {
            request.compressed = true;
        }
    }
    Ok(request)
}

/// `CHECK SPAMC/1.2`.
fn first_line(line: &[u8]) -> Result<(Method, (u16, u16)), HeadError> {
    let line = std::str::from_utf8(line).map_err(|_| HeadError::Malformed)?.trim_end();
    let (word, version) = line.split_once(" SPAMC/").ok_or(HeadError::Malformed)?;
    let version = version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let method = match word {
        "CHECK" => Method::Check,
        "SYMBOLS" => Method::Symbols,
        "REPORT" => Method::Report,
        "REPORT_IFSPAM" => Method::ReportIfSpam,
        "PROCESS" => Method::Process,
        "HEADERS" => Method::Headers,
        "SKIP" => Method::Skip,
        "PING" => Method::Ping,
        "TELL" => Method::Tell,
        _ => return Err(HeadError::Malformed),
    };
    Ok((method, version.ok_or(HeadError::Malformed)?))
}

/// A score, in tenths of a point: what is written has one digit, and what is compared must be what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenths(pub i32);

impl std::fmt::Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{}", self.0.unsigned_abs() / 10, self.0.unsigned_abs() % 10)
    }
}

/// What is said of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Is it spam? Clients compare the two scores as well, so it must fit them.
    pub spam: bool,
    /// Its score.
    pub score: Tenths,
    /// What makes spam.
    pub threshold: Tenths,
}

impl Verdict {
    fn line(self) -> String {
        let Self { spam, score, threshold } = self;
        format!("Spam: {} ; {score} / {threshold}\r\n", if spam { "True" } else { "False" })
    }
}

impl Request {
    /// What stands before the text (or message) of `length` octets that answers this request; behind it nothing may follow.
    pub fn answer(&self, verdict: Verdict, length: u64) -> String {
        let mut answer = String::from("SPAMD/1.1 0 EX_OK\r\n");
        let line = verdict.line();
        let changed = matches!(self.method, Method::Process | Method::Headers);
        // Writing to a String cannot fail.
        let _ = match (self.version, changed) {
            _ if self.method == Method::Check => write!(answer, "{line}\r\n"),
            ((1, ..=1) | (0, _), true) => {
                answer.replace_range(..9, "SPAMD/1.0");
                Ok(())
            }
            ((1, 2), true) => write!(answer, "Content-length: {length}\r\n\r\n"),
            ((1, ..=2) | (0, _), false) => write!(answer, "{line}\r\n"),
            _ => write!(answer, "Content-length: {length}\r\n{line}\r\n"),
        };
        answer
    }
}

/// The answer to a ping.
pub const PONG: &str = "SPAMD/1.5 0 PONG\r\n";

/// The answer when there is no verdict: a code of sysexits.h that is not 0, and why. No message follows.
pub fn failure(code: u8, why: &str) -> String {
    let why: String = why.chars().map(|c| if c.is_ascii_control() { '?' } else { c }).collect();
    format!("SPAMD/1.0 {code} {why}\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<(Request, usize)>, HeadError> {
        Reader::default().read(text.as_bytes())
    }

    fn request(method: Method, version: (u16, u16), length: Option<u64>) -> Request {
        Request { method, version, length, user: None, compressed: false }
    }

    #[test]
    fn requests() {
        let exim = "REPORT SPAMC/1.2\r\nUser: nobody\r\nContent-length: 12\r\n\r\n";
        let mut wanted = request(Method::Report, (1, 2), Some(12));
        wanted.user = Some("nobody".into());
        assert_eq!(read(exim), Ok(Some((wanted, exim.len()))));
        assert_eq!(read("PING SPAMC/1.2\r\n"), Ok(Some((request(Method::Ping, (1, 2), None), 16))));
        assert_eq!(read("PING SPAMC/1.5\r\n"), Ok(None));
        assert_eq!(read("PING SPAMC/1.5\r\n\r\n"), Ok(Some((request(Method::Ping, (1, 5), None), 18))));
        assert_eq!(read("SKIP SPAMC/1.5\r\n"), Ok(Some((request(Method::Skip, (1, 5), None), 16))));
        assert_eq!(read("CHECK SPAMC/1.3\n\nx"), Ok(Some((request(Method::Check, (1, 3), None), 17))));
        assert_eq!(read("CHECK SPAMC/1.3\r\n"), Ok(None));
        assert!(read("CHECK SPAMC/1.3\r\nCompress: zlib\r\n\r\n").unwrap().unwrap().0.compressed);
        for odd in [
            "GET / HTTP/1.1\r\n",
            "CHECK RSPAMC/1.3\r\n\r\n",
            "CHECK SPAMC/1\r\n\r\n",
            "check SPAMC/1.2\r\n\r\n",
            "\r\n",
        ] {
            assert_eq!(read(odd), Err(HeadError::Malformed), "{odd}");
        }
        assert_eq!(read(&"x".repeat(300)), Err(HeadError::Malformed));
        assert_eq!(read("CHECK SPAMC/1.2\r\nContent-length: -1\r\n\r\n"), Err(HeadError::Length));
        let twice = "CHECK SPAMC/1.2\r\nContent-length: 1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(read(twice), Err(HeadError::Length));
    }

    #[test]
    fn an_answer_is_as_the_clients_version_has_it() {
        let verdict = Verdict { spam: true, score: Tenths(150), threshold: Tenths(50) };
        let check = |method, version, wanted: &str| {
            assert_eq!(request(method, version, None).answer(verdict, 7), wanted, "{method:?} {version:?}");
        };
        let line = "Spam: True ; 15.0 / 5.0\r\n";
        for version in [(1, 2), (1, 5)] {
            check(Method::Check, version, &format!("SPAMD/1.1 0 EX_OK\r\n{line}\r\n"));
        }
        for method in [Method::Report, Method::ReportIfSpam, Method::Symbols] {
            check(method, (1, 2), &format!("SPAMD/1.1 0 EX_OK\r\n{line}\r\n"));
            check(method, (1, 3), &format!("SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\n{line}\r\n"));
        }
        check(Method::Process, (1, 1), "SPAMD/1.0 0 EX_OK\r\n");
        check(Method::Process, (1, 2), "SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\n\r\n");
        check(Method::Headers, (1, 5), &format!("SPAMD/1.1 0 EX_OK\r\nContent-length: 7\r\n{line}\r\n"));
        assert_eq!(failure(TEMPORARY, "a\r\nb"), "SPAMD/1.0 75 a??b\r\n");
    }

    #[test]
    fn scores_have_one_digit() {
        let text = |tenths| Tenths(tenths).to_string();
        assert_eq!([text(0), text(5), text(-5), text(-123), text(1000)], ["0.0", "0.5", "-0.5", "-12.3", "100.0"]);
    }

    proptest! {
        #[test]
        fn any_slicing_reads_alike(text in "(CHECK|PING|SKIP|x) SPAMC/1.[0-9]\r?\n(Content-length: [0-9]{1,3}\r\n)?\r?\n?[ -~]{0,9}", cut in 1usize..9) {
            let whole = read(&text);
            let (mut reader, mut buffer, mut seen) = (Reader::default(), Vec::new(), Ok(None));
            for piece in text.as_bytes().chunks(cut) {
                buffer.extend_from_slice(piece);
                seen = reader.read(&buffer);
                if seen != Ok(None) {
                    break;
                }
            }
            prop_assert_eq!(seen, whole);
        }

        #[test]
        fn nothing_panics(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Reader::default().read(&octets);
        }
    }
}
