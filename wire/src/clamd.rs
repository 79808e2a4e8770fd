//! The clamd protocol, client side: what to send, and what the answers mean. The other side is in [`server`].
//!
//! No sockets, no clocks. It knows only what a mail filter needs: `IDSESSION`, `INSTREAM`, `FILDES`
//! and `VERSION`, all with the `z` prefix (clamd(8), "COMMANDS"), so that answers end in NUL.
//!
//! Whether a mail is clean hangs on one line of text, so the reading is strict: an answer is clean
//! only if it is to the byte the one that clamd gives to this very request. Anything not understood
//! is [`AnswerError::Unknown`], never clean and never infected.

pub mod server;

/// Begins a session: many requests on one connection, answers numbered from 1.
pub const IDSESSION: &[u8] = b"zIDSESSION\0";
/// Content follows in chunks, each with [`chunk_header`], ended by [`END_OF_STREAM`].
pub const INSTREAM: &[u8] = b"zINSTREAM\0";
/// The descriptor goes with these bytes (SCM_RIGHTS); the last is the dummy that clamd wants.
pub const FILDES: &[u8] = b"zFILDES\0\0";
/// Asks for the versions of program and signatures.
pub const VERSION: &[u8] = b"zVERSION\0";
/// The empty chunk that ends a stream.
pub const END_OF_STREAM: [u8; 4] = [0; 4];

/// The longest answer taken, in octets without the NUL. Signature names are far shorter.
pub const MAX_ANSWER: usize = 4096;

/// The length before each chunk of a stream, in network byte order. A chunk must not be empty: that
/// would end the stream.
pub fn chunk_header(length: u32) -> [u8; 4] {
    length.to_be_bytes()
}

/// How the content was handed over, and so how the answer must begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// With [`INSTREAM`]: `stream: …`.
    Stream,
    /// With [`FILDES`]: `fd[N]: …`, N being clamd's own number of the descriptor.
    Descriptor,
}

/// What clamd says of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing found.
    Clean,
    /// This signature matched. Printable ASCII without blanks.
    Found(String),
    /// The stream was longer than clamd's `StreamMaxLength`; it closes the connection after that.
    TooLarge,
    /// clamd waited too long for a request and closes the connection.
    IdleClosed,
    /// clamd could not scan; its own words, printable ASCII.
    Error(String),
}

/// Why bytes from clamd are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// More than [`MAX_ANSWER`] octets without an end.
    #[error("an answer of more than {MAX_ANSWER} octets")]
    TooLong,
    /// Bytes after the end of the answer, though nothing more was asked.
    #[error("more than one answer to one request")]
    Trailing,
    /// Not what clamd says to such a request.
    #[error("an answer that the protocol does not know")]
    Unknown,
    /// The number is not the request's.
    #[error("an answer to another request")]
    WrongId,
}

/// Collects one answer from bytes in any slicing.
#[derive(Debug, Default)]
pub struct AnswerReader {
    bytes: Vec<u8>,
}

impl AnswerReader {
    /// Takes more bytes. `Ok(true)`: the answer is whole, see [`AnswerReader::answer`]. After an error or a
    /// whole answer it must not be fed again.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<bool, AnswerError> {
        let end = memchr::memchr(0, bytes);
        let taken = end.unwrap_or(bytes.len());
        if self.bytes.len() + taken > MAX_ANSWER {
            return Err(AnswerError::TooLong);
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        match end {
            None => Ok(false),
            Some(end) if end + 1 == bytes.len() => Ok(true),
            Some(_) => Err(AnswerError::Trailing),
        }
    }

    /// Nothing has come yet?
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The answer so far, without its NUL.
    pub fn answer(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the answer to a scan. `id`: the request's number in a session (from 1), `None` outside of one.
///
/// Errors need not carry the number, since clamd gives some of them without reading a request; "OK"
/// and "FOUND" must.
pub fn parse_answer(answer: &[u8], asked: Asked, id: Option<u32>) -> Result<Answer, AnswerError> {
    let text = std::str::from_utf8(answer).map_err(|_| AnswerError::Unknown)?;
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(AnswerError::Unknown);
    }
    let (number, text) = split_number(text);
    match (number, id) {
        (Some(number), Some(id)) if number != id => return Err(AnswerError::WrongId),
        (Some(_), None) => return Err(AnswerError::Unknown),
        _ => {}
    }
    if text == "INSTREAM size limit exceeded. ERROR" {
        return Ok(Answer::TooLarge);
    }
    if text == "COMMAND READ TIMED OUT" {
        return Ok(Answer::IdleClosed);
    }
    if text == "UNKNOWN COMMAND" || text.ends_with(" ERROR") {
        return Ok(Answer::Error(text.to_owned()));
    }
    if number != id {
        return Err(AnswerError::Unknown);
    }
    let said = match asked {
        Asked::Stream => text.strip_prefix("stream: "),
        Asked::Descriptor => strip_descriptor(text),
    };
    match said.ok_or(AnswerError::Unknown)? {
        "OK" => Ok(Answer::Clean),
        said => match said.strip_suffix(" FOUND") {
            Some(name) if !name.is_empty() && !name.contains(' ') => Ok(Answer::Found(name.to_owned())),
            _ => Err(AnswerError::Unknown),
        },
    }
}

/// Program and signatures, as clamd names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `ClamAV 1.4.6`.
    pub program: String,
    /// The number of the daily signatures and their time: `27500/Mon Nov 23 09:26:35 2026`. `None`
    /// when clamd runs without them.
    pub data: Option<String>,
}

/// Reads the answer to [`VERSION`], given outside of a session.
pub fn parse_version(answer: &[u8]) -> Result<Version, AnswerError> {
    let text = std::str::from_utf8(answer).map_err(|_| AnswerError::Unknown)?;
    if !text.starts_with("ClamAV ") || !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(AnswerError::Unknown);
    }
    let (program, data) = match text.split_once('/') {
        Some((program, data)) => (program, Some(data.to_owned())),
        None => (text, None),
    };
    Ok(Version { program: program.to_owned(), data })
}

/// Takes clamd's details of the match off a signature name: `Name(md5:size)` is `Name`, `md5:size`.
pub fn split_details(name: &str) -> (&str, Option<&str>) {
    let details = name.strip_suffix(')').and_then(|rest| rest.rsplit_once('('));
    match details {
        Some((name, details)) if !name.is_empty() && is_details(details) => (name, Some(details)),
        _ => (name, None),
    }
}

fn is_details(details: &str) -> bool {
    details
        .split_once(':')
        .is_some_and(|(hash, size)| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()) && is_number(size))
}

/// `12: rest`.
fn split_number(text: &str) -> (Option<u32>, &str) {
    let split = text.split_once(": ").filter(|(number, _)| is_number(number));
    match split.and_then(|(number, rest)| Some((number.parse().ok()?, rest))) {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

/// `fd[12]: rest`.
fn strip_descriptor(text: &str) -> Option<&str> {
    let (number, rest) = text.strip_prefix("fd[")?.split_once("]: ")?;
    is_number(number).then_some(rest)
}

/// Digits only: `parse` alone would take a sign.
fn is_number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(answer: &str, asked: Asked, id: Option<u32>, expected: &Result<Answer, AnswerError>) {
        assert_eq!(&parse_answer(answer.as_bytes(), asked, id), expected, "{answer:?}");
    }

    fn found(name: &str) -> Result<Answer, AnswerError> {
        Ok(Answer::Found(name.into()))
    }

    fn error(text: &str) -> Result<Answer, AnswerError> {
        Ok(Answer::Error(text.into()))
    }

    // Answers of clamd 1.4.6, and near misses of them.
    #[test]
    fn answers() {
        use Asked::{Descriptor, Stream};
        let unknown = Err(AnswerError::Unknown);
        check("stream: OK", Stream, None, &Ok(Answer::Clean));
        check("fd[12]: OK", Descriptor, None, &Ok(Answer::Clean));
        check("3: stream: OK", Stream, Some(3), &Ok(Answer::Clean));
        check("7: fd[9]: OK", Descriptor, Some(7), &Ok(Answer::Clean));
        check("stream: Win.Test.A-1 FOUND", Stream, None, &found("Win.Test.A-1"));
        check("1: fd[12]: Lab.X.UNOFFICIAL FOUND", Descriptor, Some(1), &found("Lab.X.UNOFFICIAL"));
        check("INSTREAM size limit exceeded. ERROR", Stream, None, &Ok(Answer::TooLarge));
        check("2: INSTREAM size limit exceeded. ERROR", Stream, Some(2), &Ok(Answer::TooLarge));
        check("INSTREAM size limit exceeded. ERROR", Stream, Some(2), &Ok(Answer::TooLarge));
        check("COMMAND READ TIMED OUT", Stream, Some(2), &Ok(Answer::IdleClosed));
        check("UNKNOWN COMMAND", Stream, None, &error("UNKNOWN COMMAND"));
        check("1: UNKNOWN COMMAND", Stream, Some(1), &error("UNKNOWN COMMAND"));
        let text = "fd[12]: Not a regular file ERROR";
        check(text, Descriptor, None, &error(text));
        check("No file descriptor received. ERROR", Descriptor, None, &error("No file descriptor received. ERROR"));

        check("", Stream, None, &unknown);
        check("OK", Stream, None, &unknown);
        check("stream: OK ", Stream, None, &unknown);
        check("stream:  OK", Stream, None, &unknown);
        check(" stream: OK", Stream, None, &unknown);
        check("stream: ok", Stream, None, &unknown);
        check("stream: OK\n", Stream, None, &unknown);
        check("stream: NOT OK", Stream, None, &unknown);
        check("Stream: OK", Stream, None, &unknown);
        check("stream: OK", Descriptor, None, &unknown);
        check("fd[12]: OK", Stream, None, &unknown);
        check("fd[]: OK", Descriptor, None, &unknown);
        check("fd[-1]: OK", Descriptor, None, &unknown);
        check("fd[+1]: OK", Descriptor, None, &unknown);
        check("stream: OK", Stream, Some(1), &unknown);
        check("1: stream: OK", Stream, None, &unknown);
        check("1: stream: OK", Stream, Some(2), &Err(AnswerError::WrongId));
        check("2: INSTREAM size limit exceeded. ERROR", Stream, Some(1), &Err(AnswerError::WrongId));
        check("stream:  FOUND", Stream, None, &unknown);
        check("stream: FOUND", Stream, None, &unknown);
        check("stream: A B FOUND", Stream, None, &unknown);
        check("stream: A FOUND x", Stream, None, &unknown);
        check("PONG", Stream, None, &unknown);
        check("stream: \u{e9} FOUND", Stream, None, &unknown);
    }

    #[test]
    fn versions() {
        let version = |text: &str| parse_version(text.as_bytes()).map(|v| (v.program, v.data));
        assert_eq!(version("ClamAV 1.4.6"), Ok(("ClamAV 1.4.6".into(), None)));
        assert_eq!(
            version("ClamAV 1.4.3/27500/Mon Nov 23 09:26:35 2026"),
            Ok(("ClamAV 1.4.3".into(), Some("27500/Mon Nov 23 09:26:35 2026".into())))
        );
        assert_eq!(version("PONG"), Err(AnswerError::Unknown));
        assert_eq!(version("ClamAV \x07"), Err(AnswerError::Unknown));
    }

    #[test]
    fn details_come_off_the_name() {
        let hash = "44d88612fea8a8f36de82e1278abb02f:68";
        assert_eq!(split_details(&format!("A-B({hash})")), ("A-B", Some(hash)));
        for plain in ["A-B", "A(B)", "(44d88612fea8a8f36de82e1278abb02f:68)", "A()", ")"] {
            assert_eq!(split_details(plain), (plain, None));
        }
    }

    #[test]
    fn an_answer_is_bounded_and_alone() {
        assert_eq!(AnswerReader::default().feed(&[b'x'; MAX_ANSWER + 1]), Err(AnswerError::TooLong));
        assert_eq!(AnswerReader::default().feed(b"stream: OK\0\0"), Err(AnswerError::Trailing));
        let mut reader = AnswerReader::default();
        assert_eq!(reader.feed(&[b'x'; MAX_ANSWER]), Ok(false));
        assert_eq!(reader.feed(b"x"), Err(AnswerError::TooLong));
    }

    proptest! {
        #[test]
        fn any_slicing_reads_alike(answer in "[ -~]{0,60}", cut in 0usize..60) {
            let mut whole = answer.clone().into_bytes();
            whole.push(0);
            let (a, b) = whole.split_at(cut.min(whole.len() - 1));
            let mut reader = AnswerReader::default();
            prop_assert_eq!(reader.feed(a), Ok(false));
            prop_assert_eq!(reader.feed(b), Ok(true));
            prop_assert_eq!(reader.answer(), answer.as_bytes());
        }

        #[test]
        fn nothing_but_the_one_line_is_clean(answer in proptest::collection::vec(any::<u8>(), 0..40)) {
            if parse_answer(&answer, Asked::Stream, None) == Ok(Answer::Clean) {
                prop_assert_eq!(&answer[..], b"stream: OK");
            }
        }

        #[test]
        fn near_answers(answer in "(1: |2: |)(stream: |fd\\[1\\]: |)(OK|X FOUND|X ERROR|FOUND|ERROR| |)(\n|)") {
            let clean = parse_answer(answer.as_bytes(), Asked::Descriptor, Some(2)) == Ok(Answer::Clean);
            prop_assert_eq!(clean, answer == "2: fd[1]: OK");
            let found = matches!(parse_answer(answer.as_bytes(), Asked::Descriptor, Some(2)), Ok(Answer::Found(_)));
            prop_assert_eq!(found, answer == "2: fd[1]: X FOUND");
        }
    }
}
