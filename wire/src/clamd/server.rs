//! The clamd protocol, server side: commands as clients send them, and answers as clamd gives them (clamd(8),
//! "COMMANDS"; checked against clamd 1.4.6).
//!
//! A command ends in NUL when it begins with `z`, in a line end when it begins with `n` or with neither, and so does the
//! answer. Within a session each answer has the number of its command in front.

use bytes::{Buf, BytesMut};

/// The longest command: a path of PATH_MAX octets and the words around it.
pub const MAX_COMMAND: usize = 4096 + 32;
/// The longest name of a finding in an answer, in octets. Exim takes no answer of 1024 octets and more.
pub const MAX_NAME: usize = 120;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Is somebody there?
    Ping,
    /// Which version?
    Version,
    /// Which commands?
    Commands,
    /// Look at the file of this name.
    Scan(Vec<u8>),
    /// Look at what follows in chunks.
    Stream,
    /// Look at the file whose descriptor comes with the next octet.
    Descriptor,
    /// Answers get numbers, and the connection stays.
    Session,
    /// The session ends.
    End,
    /// A command of clamd's that is not for strangers, or of no use here.
    Unavailable,
    /// None of clamd's.
    Unknown,
}

/// A command and how it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub command: Command,
    /// The octet that ends the answer.
    pub end: u8,
    /// Without `z` or `n`: not allowed within a session.
    pub old: bool,
}

/// A command without an end within [`MAX_COMMAND`] octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command of more than {MAX_COMMAND} octets")]
pub struct TooLong;

/// Takes the first command, once it is here whole.
///
/// # Errors
/// It is too long.
pub fn take_command(input: &mut BytesMut) -> Result<Option<Request>, TooLong> {
    let (prefix, end) = match input.first() {
        None => return Ok(None),
        Some(b'z') => (1, 0),
        Some(b'n') => (1, b'\n'),
        Some(_) => (0, b'\n'),
    };
    let window = &input[..input.len().min(MAX_COMMAND)];
    let Some(at) = memchr::memchr(end, window) else {
        return if input.len() < MAX_COMMAND { Ok(None) } else { Err(TooLong) };
    };
    let line = input.split_to(at + 1);
    let mut text = &line[prefix..at];
    if end == b'\n' {
        text = text.strip_suffix(b"\r").unwrap_or(text);
    }
    Ok(Some(Request { command: command(text), end, old: prefix == 0 }))
}

fn command(text: &[u8]) -> Command {
    let (word, rest) = match memchr::memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &text[text.len()..]),
    };
    match (word, rest.is_empty()) {
        (b"PING", true) => Command::Ping,
        (b"VERSION", true) => Command::Version,
        (b"VERSIONCOMMANDS", true) => Command::Commands,
        (b"SCAN" | b"CONTSCAN" | b"MULTISCAN" | b"ALLMATCHSCAN", false) => Command::Scan(rest.to_vec()),
        (b"INSTREAM", true) => Command::Stream,
        (b"FILDES", true) => Command::Descriptor,
        (b"IDSESSION", true) => Command::Session,
        (b"END", true) => Command::End,
        (b"RELOAD" | b"SHUTDOWN" | b"STATS" | b"DETSTATS" | b"DETSTATSCLEAR" | b"SELFCHECK", true) => {
            Command::Unavailable
        }
        _ => Command::Unknown,
    }
}

/// The content of a stream: chunks with their lengths before them, ended by an empty one. Nothing is reserved for a
/// declared length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Of the chunk that has begun.
    left: usize,
}

/// What there is of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Too little.
    More,
    /// These are of the content.
    Octets(BytesMut),
    /// That was all.
    End,
}

impl Chunks {
    /// Takes what is there: the rest of a chunk, or `stretch` octets of it and more.
    pub fn take(&mut self, input: &mut BytesMut, stretch: usize) -> Chunk {
        if self.left == 0 {
            let Some(head) = input.first_chunk::<4>() else { return Chunk::More };
            self.left = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
            input.advance(4);
            if self.left == 0 {
                return Chunk::End;
            }
        }
        let here = self.left.min(input.len());
        if here == 0 || (here < self.left && here < stretch) {
            return Chunk::More;
        }
        self.left -= here;
        Chunk::Octets(input.split_to(here))
    }
}

/// Writes an answer: the number of the command within a session, what was looked at, what is said of it.
pub fn answer(id: Option<u32>, subject: Option<&[u8]>, said: &str, end: u8) -> Vec<u8> {
    let mut answer = Vec::with_capacity(64);
    if let Some(id) = id {
        answer.extend_from_slice(format!("{id}: ").as_bytes());
    }
    if let Some(subject) = subject {
        // A path is the client's own, but a line end in it would make two answers of one.
        answer.extend(subject.iter().map(|octet| if octet.is_ascii_control() { b'?' } else { *octet }));
        answer.extend_from_slice(b": ");
    }
    answer.extend(said.bytes().map(|octet| if octet.is_ascii_control() { b'?' } else { octet }));
    answer.push(end);
    answer
}

/// What is said of something found: one word, however odd the name, and `FOUND`.
pub fn found(name: &str) -> String {
    let word: String = name.chars().take(MAX_NAME).map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    format!("{} FOUND", if word.is_empty() { "Unnamed" } else { &word })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(sent: &[u8], command: &Command, end: u8, old: bool) {
        let mut input = BytesMut::from(sent);
        let wanted = Request { command: command.clone(), end, old };
        assert_eq!(take_command(&mut input), Ok(Some(wanted)), "{}", String::from_utf8_lossy(sent));
        assert!(input.is_empty());
    }

    #[test]
    fn commands() {
        use Command::{Commands, Descriptor, End, Ping, Scan, Session, Stream, Unavailable, Unknown, Version};
        check(b"zPING\0", &Ping, 0, false);
        check(b"nPING\n", &Ping, b'\n', false);
        check(b"PING\n", &Ping, b'\n', true);
        check(b"PING\r\n", &Ping, b'\n', true);
        check(b"zVERSION\0", &Version, 0, false);
        check(b"nVERSIONCOMMANDS\n", &Commands, b'\n', false);
        check(b"zINSTREAM\0", &Stream, 0, false);
        check(b"zFILDES\0", &Descriptor, 0, false);
        check(b"zIDSESSION\0", &Session, 0, false);
        check(b"zEND\0", &End, 0, false);
        check(b"SCAN /a b\n", &Scan(b"/a b".to_vec()), b'\n', true);
        check(b"zCONTSCAN /a\nb\0", &Scan(b"/a\nb".to_vec()), 0, false);
        check(b"nMULTISCAN /a\n", &Scan(b"/a".to_vec()), b'\n', false);
        check(b"zALLMATCHSCAN /a\0", &Scan(b"/a".to_vec()), 0, false);
        check(b"zSHUTDOWN\0", &Unavailable, 0, false);
        check(b"nRELOAD\n", &Unavailable, b'\n', false);
        for odd in [&b"zSCAN\0"[..], b"zSCAN \0", b"zping\0", b"z\0", b"zPING x\0", b"zSTREAM\0", b"z PING\0"] {
            check(odd, &Unknown, 0, false);
        }
        check(b"GET / HTTP/1.1\r\n", &Unknown, b'\n', true);
    }

    #[test]
    fn a_command_is_bounded_and_waited_for() {
        assert_eq!(take_command(&mut BytesMut::new()), Ok(None));
        assert_eq!(take_command(&mut BytesMut::from(&b"zSCAN /a\n"[..])), Ok(None));
        assert_eq!(take_command(&mut BytesMut::from(&vec![b'z'; MAX_COMMAND - 1][..])), Ok(None));
        assert_eq!(take_command(&mut BytesMut::from(&vec![b'z'; MAX_COMMAND][..])), Err(TooLong));
        let mut late = vec![b'z'; MAX_COMMAND + 9];
        late.push(0);
        assert_eq!(take_command(&mut BytesMut::from(&late[..])), Err(TooLong));
    }

    #[test]
    fn answers_are_clamds() {
        let text = |answer: Vec<u8>| String::from_utf8(answer).unwrap();
        assert_eq!(text(answer(None, Some(b"stream"), "OK", 0)), "stream: OK\0");
        assert_eq!(text(answer(Some(3), Some(b"fd[10]"), &found("A-B"), 0)), "3: fd[10]: A-B FOUND\0");
        assert_eq!(text(answer(Some(1), None, "PONG", b'\n')), "1: PONG\n");
        assert_eq!(text(answer(None, Some(b"/a\nstream: OK"), "later ERROR", b'\n')), "/a?stream: OK: later ERROR\n");
        assert_eq!(found("a b\u{e9}\n"), "a_b__ FOUND");
        assert_eq!(found(""), "Unnamed FOUND");
        assert!(found(&"x".repeat(5000)).len() < 200);
    }

    proptest! {
        /// What our client reads of it is what was said.
        #[test]
        fn our_client_reads_what_is_answered(name in ".{1,200}", id in proptest::option::of(1u32..1000)) {
            use super::super::{Answer, Asked, parse_answer};
            let read = |said: &str| {
                let answer = answer(id, Some(b"stream"), said, 0);
                parse_answer(&answer[..answer.len() - 1], Asked::Stream, id)
            };
            prop_assert_eq!(read("OK"), Ok(Answer::Clean));
            prop_assert!(matches!(read(&found(&name)), Ok(Answer::Found(_))));
            let error = name.replace(|c: char| !c.is_ascii(), "?") + " ERROR";
            prop_assert!(matches!(read(&error), Ok(Answer::Error(_))));
        }

        #[test]
        fn a_stream_is_the_same_in_any_slicing(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
            cut in 1usize..20,
            stretch in 0usize..30,
        ) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                sent.extend_from_slice(&u32::try_from(chunk.len()).unwrap().to_be_bytes());
                sent.extend_from_slice(chunk);
            }
            sent.extend_from_slice(&[0; 4]);
            sent.extend_from_slice(b"next");
            let (mut input, mut content, mut ended) = (BytesMut::new(), Vec::new(), false);
            let mut stream = Chunks::default();
            for slice in sent.chunks(cut) {
                input.extend_from_slice(slice);
                while !ended {
                    match stream.take(&mut input, stretch) {
                        Chunk::More => break,
                        Chunk::Octets(octets) => content.extend_from_slice(&octets),
                        Chunk::End => ended = true,
                    }
                }
            }
            prop_assert!(ended);
            prop_assert_eq!(content, chunks.concat());
            prop_assert_eq!(&input[..], b"next");
        }

        #[test]
        fn nothing_panics(sent in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut input = BytesMut::from(&sent[..]);
            while let Ok(Some(_)) = take_command(&mut input) {}
        }
    }
}
