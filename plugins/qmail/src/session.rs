//! The envelope that qmail-queue reads at its descriptor 1: bytes in, in any slicing; an envelope or its end out.
//!
//! ```text
//! F <sender bytes> NUL  { T <recipient bytes> NUL }  NUL
//! ```
//!
//! No file, socket or clock is in here. What the bytes mean to a mail server is not, either: an address is what stands
//! between its letter and its NUL, and goes on byte for byte (qmail-queue(8)).

use std::ops::Range;

/// The longest address that qmail-queue takes, in bytes (`ADDR` in qmail-queue.c less one).
pub const MAX_ADDRESS: usize = 1002;

/// Reads an envelope.
#[derive(Debug, Default)]
pub struct EnvelopeReader {
    bytes: Vec<u8>,
    /// Of each address that ended, the sender's first.
    addresses: Vec<Range<usize>>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the sender's letter.
    #[default]
    Start,
    /// Before a recipient's letter or the last NUL.
    Between,
    /// In the address that begins here.
    Address(usize),
    Whole,
}

/// An envelope to its last NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    addresses: Vec<Range<usize>>,
}

/// Why there is no envelope; each is an exit code of qmail-queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The caller ended it before its last NUL: it takes the mail back.
    Aborted,
    /// A letter that is neither `F` nor `T` in its place.
    Grammar,
    /// An address of more than [`MAX_ADDRESS`] bytes.
    TooLong,
}

impl EnvelopeReader {
    /// Takes the next bytes. True: the envelope is whole, and nothing behind it matters.
    ///
    /// # Errors
    /// Nothing that follows can make an envelope of it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<bool, EnvelopeError> {
        for &byte in bytes {
            let here = self.bytes.len();
            self.state = match (self.state, byte) {
                (State::Whole, _) => break,
                (State::Between, 0) => State::Whole,
                (State::Start, b'F') | (State::Between, b'T') => State::Address(here + 1),
                (State::Start | State::Between, _) => return Err(EnvelopeError::Grammar),
                (State::Address(start), 0) => {
                    self.addresses.push(start..here);
                    State::Between
                }
                (State::Address(start), _) if here - start == MAX_ADDRESS => return Err(EnvelopeError::TooLong),
                (state @ State::Address(_), _) => state,
            };
            self.bytes.push(byte);
        }
        Ok(self.state == State::Whole)
    }

    /// The envelope, when no more bytes come.
    ///
    /// # Errors
    /// [`EnvelopeError::Aborted`] when it is not whole.
    pub fn finish(self) -> Result<Envelope, EnvelopeError> {
        match self.state {
            State::Whole => Ok(Envelope { bytes: self.bytes, addresses: self.addresses }),
            _ => Err(EnvelopeError::Aborted),
        }
    }
}

impl Envelope {
    /// As it came, to its last NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sender as it came: empty for a bounce, `#@[]` for a bounce of a bounce.
    pub fn sender(&self) -> &[u8] {
        self.addresses.first().map_or(&[], |range| &self.bytes[range.clone()])
    }

    /// The recipients as they came, in their order. There may be none.
    pub fn recipients(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.addresses.iter().skip(1).map(|range| &self.bytes[range.clone()])
    }

    /// Has it a sender that nobody can be told anything at?
    pub fn is_bounce(&self) -> bool {
        matches!(self.sender(), b"" | b"#@[]")
    }

    /// Another one.
    ///
    /// Addresses that qmail-queue would not take, with a NUL in them or too long, are left out.
    /// `None`: the sender is such.
    pub fn build<'a>(sender: &[u8], recipients: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut envelope = Self { bytes: Vec::new(), addresses: Vec::new() };
        envelope.push(b'F', sender).then_some(())?;
        for recipient in recipients {
            envelope.push(b'T', recipient);
        }
        envelope.bytes.push(0);
        Some(envelope)
    }

    fn push(&mut self, letter: u8, address: &[u8]) -> bool {
        let fits = address.len() <= MAX_ADDRESS && !address.contains(&0);
        if fits {
            self.bytes.push(letter);
            let start = self.bytes.len();
            self.bytes.extend_from_slice(address);
            self.addresses.push(start..self.bytes.len());
            self.bytes.push(0);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Envelope, EnvelopeError> {
        let mut reader = EnvelopeReader::default();
        for piece in pieces {
            if reader.feed(piece)? {
                break;
            }
        }
        reader.finish()
    }

    fn check(bytes: &[u8], expected: Result<(&str, &[&str]), EnvelopeError>) {
        let by_byte: Vec<&[u8]> = bytes.chunks(1).collect();
        for read in [read(&[bytes]), read(&by_byte)] {
            let read = read.map(|envelope| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (text(envelope.sender()), envelope.recipients().map(text).collect::<Vec<_>>())
            });
            let expected = expected.map(|(sender, recipients)| {
                (sender.to_owned(), recipients.iter().map(|&recipient| recipient.to_owned()).collect())
            });
            assert_eq!(read, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn envelopes_are_read_as_qmail_queue_reads_them() {
        use EnvelopeError::{Aborted, Grammar, TooLong};
        check(b"Fs@client.example\0Talice@example.com\0\0", Ok(("s@client.example", &["alice@example.com"])));
        check(b"F\0Ta@example.com\0Tb@example.com\0\0", Ok(("", &["a@example.com", "b@example.com"])));
        check(b"F#@[]\0Ta\0\0", Ok(("#@[]", &["a"])));
        check(b"Fx-@[]\0T\0\0", Ok(("x-@[]", &[""])));
        check(b"F\0\0", Ok(("", &[])));
        check(b"Fa\0Tb\0\0anything\0", Ok(("a", &["b"])));
        check(b"Fone\ntwo\0Tb\0\0", Ok(("one\ntwo", &["b"])));
        for aborted in [&b""[..], b"F", b"Fa", b"Fa\0", b"Fa\0T", b"Fa\0Tb", b"Fa\0Tb\0"] {
            check(aborted, Err(Aborted));
        }
        for wrong in [&b"\0"[..], b"Ta\0\0", b"fa\0\0", b"Fa\0b\0\0", b"Fa\0Fb\0\0", b"Fa\0Tb\0Fc\0\0", b"\n"] {
            check(wrong, Err(Grammar));
        }
        for letter in ["F", "Fs\0T"] {
            let most = format!("{letter}{}\0\0", "a".repeat(MAX_ADDRESS));
            assert!(read(&[most.as_bytes()]).is_ok(), "{letter}");
            let more = format!("{letter}{}", "a".repeat(MAX_ADDRESS + 1));
            check(more.as_bytes(), Err(TooLong));
        }
    }

    #[test]
    fn bounces_are_known_by_their_sender() {
        for (sender, bounce) in [("", true), ("#@[]", true), ("list-@[]", false), ("a@example.com", false)] {
            let envelope = Envelope::build(sender.as_bytes(), [&b"b"[..]]).unwrap();
            assert_eq!(envelope.is_bounce(), bounce, "{sender}");
        }
    }

    #[test]
    fn what_qmail_queue_would_not_take_is_not_built() {
        assert_eq!(Envelope::build(b"a\0b", []), None);
        let long = [b'a'; MAX_ADDRESS + 1];
        assert_eq!(Envelope::build(&long, []), None);
        let envelope = Envelope::build(b"", [&b"a"[..], b"\0Tevil", &long, b"b"]).unwrap();
        assert_eq!(envelope.as_bytes(), b"F\0Ta\0Tb\0\0");
    }

    fn address() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(1..=255_u8, 0..40),
            prop::sample::select(vec![b"#@[]".to_vec(), b"a@b".to_vec(), b"T".to_vec(), b"F".to_vec()]),
        ]
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(sender in address(), recipients in prop::collection::vec(address(), 0..6), behind: Vec<u8>) {
            let envelope = Envelope::build(&sender, recipients.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(envelope.sender(), sender.as_slice());
            prop_assert_eq!(envelope.recipients().map(<[u8]>::to_vec).collect::<Vec<_>>(), recipients);
            prop_assert_eq!(read(&[envelope.as_bytes(), &behind]), Ok(envelope.clone()));
            // Whatever is missing of it is an abort.
            for end in 0..envelope.as_bytes().len() {
                prop_assert_eq!(read(&[&envelope.as_bytes()[..end]]), Err(EnvelopeError::Aborted));
            }
        }

        #[test]
        fn slices_do_not_matter(bytes in prop::collection::vec(prop::sample::select(b"FTab\0\n".to_vec()), 0..40), cuts in prop::collection::vec(1..7_usize, 0..40)) {
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            let whole = read(&[&bytes]);
            prop_assert_eq!(&read(&pieces), &whole);
            if let Ok(envelope) = whole {
                prop_assert!(bytes.starts_with(envelope.as_bytes()));
            }
        }
    }
}
