//! The keyed mark on mail that was checked and is handed in again, so that it is not checked for ever: when it was
//! made, and an HMAC over that time and every octet below the mark.
//!
//! Who writes it where is each way's business: a header field ([`header`]) where a mail server shows nothing else, a line
//! of the envelope where there is one, for that never leaves the machine. A name alone is never trusted; a mark says
//! that *this* content was checked, so a copied one is of no use for another. It ends with its time.

pub mod header;
mod key;

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;

pub use key::{Key, KeyError};

/// Half of SHA-256's, which is what RFC 2104 section 5 allows at least, so that a mark fits on a line.
const TAG: usize = 16;
/// A clock may be set back a little between two looks.
const SLACK: u64 = 60;
/// Read at once, in octets.
const BLOCK: usize = 64 << 10;

/// A mark: `1795739000-` and 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Seconds since 1970.
    time: u64,
    tag: [u8; TAG],
}

/// What is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a mark")]
pub struct NoMark;

impl Key {
    /// Marks what is read, to its end.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn mark(&self, below: impl Read, now: SystemTime) -> io::Result<Mark> {
        let time = seconds(now);
        let mut signing = Signing::new(self, time);
        signing.read(below)?;
        let mut tag = [0; TAG];
        tag.copy_from_slice(&signing.finish().as_ref()[..TAG]);
        Ok(Mark { time, tag })
    }

    /// Is this the mark of what is read, to its end, and no older than `within`?
    ///
    /// # Errors
    /// It cannot be read.
    pub fn holds(&self, mark: &Mark, below: impl Read, now: SystemTime, within: Duration) -> io::Result<bool> {
        if !mark.is_fresh(now, within) {
            return Ok(false);
        }
        let mut signing = Signing::new(self, mark.time);
        signing.read(below)?;
        Ok(signing.is(mark))
    }
}

impl Mark {
    fn is_fresh(&self, now: SystemTime, within: Duration) -> bool {
        let now = seconds(now);
        self.time <= now.saturating_add(SLACK) && now.saturating_sub(self.time) <= within.as_secs()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.time)?;
        self.tag.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        let (time, tag) = text.split_once('-').ok_or(NoMark)?;
        if time.is_empty() || !time.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NoMark);
        }
        Ok(Self { time: time.parse().map_err(|_| NoMark)?, tag: from_hex(tag.as_bytes()).ok_or(NoMark)? })
    }
}

/// An HMAC that grows. Line ends are LF in it and the last line has one, whatever a mail server makes of them.
struct Signing {
    context: hmac::Context,
    /// A CR that may belong to a line end.
    cr: bool,
    open_line: bool,
}

impl Signing {
    fn new(key: &Key, time: u64) -> Self {
        let mut context = hmac::Context::with_key(key.as_hmac());
        context.update(format!("checkpost mark 1\n{time}\n").as_bytes());
        Self { context, cr: false, open_line: false }
    }

    fn read(&mut self, mut below: impl Read) -> io::Result<()> {
        let mut block = vec![0; BLOCK];
        loop {
            match below.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(count) => self.take(&block[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, octets: &[u8]) {
        for piece in octets.split_inclusive(|octet| *octet == b'\r') {
            if self.cr && piece[0] != b'\n' {
                self.context.update(b"\r");
            }
            let (rest, cr) = piece.strip_suffix(b"\r").map_or((piece, false), |rest| (rest, true));
            self.context.update(rest);
            self.cr = cr;
            self.open_line = cr || rest.last() != Some(&b'\n');
        }
    }

    fn finish(mut self) -> hmac::Tag {
        // A CR at the very end is a line end that lost its LF.
        if self.open_line {
            self.context.update(b"\n");
        }
        self.context.sign()
    }

    fn is(self, mark: &Mark) -> bool {
        // Every octet is looked at, so that the time tells nothing.
        let tag = self.finish();
        let differ = tag.as_ref()[..TAG].iter().zip(&mark.tag).fold(0, |differ, (a, b)| differ | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut octets = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *octet = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn key() -> Key {
        Key::of(&[7; 32])
    }

    #[test]
    fn a_mark_holds_for_its_content_its_key_and_its_time() {
        let mark = key().mark(&b"to <a@x>\nSubject: x\n\nbody\n"[..], at(1_795_739_000)).unwrap();
        let check = |key: &Key, content: &[u8], now, holds: bool| {
            assert_eq!(key.holds(&mark, content, at(now), HOUR).unwrap(), holds, "{}", content.escape_ascii());
        };
        check(&key(), b"to <a@x>\nSubject: x\n\nbody\n", 1_795_739_000, true);
        // What mail servers do to line ends is no change.
        check(&key(), b"to <a@x>\r\nSubject: x\r\n\r\nbody", 1_795_739_000, true);
        for other in [
            &b"to <b@x>\nSubject: x\n\nbody\n"[..],
            b"",
            b"to <a@x>\nSubject: x\n\nbody\n\n",
            b"to <a@x>\nSubject: x\n\nbo\rdy\n",
        ] {
            check(&key(), other, 1_795_739_000, false);
        }
        check(&Key::of(&[8; 32]), b"to <a@x>\nSubject: x\n\nbody\n", 1_795_739_000, false);
        for (now, holds) in
            [(1_795_742_600, true), (1_795_742_601, false), (1_795_738_940, true), (1_795_738_939, false)]
        {
            check(&key(), b"to <a@x>\nSubject: x\n\nbody\n", now, holds);
        }
    }

    #[test]
    fn a_mark_cannot_be_made_younger() {
        let mark = key().mark(&b"x"[..], at(1000)).unwrap();
        let younger = Mark { time: 1001, ..mark };
        assert!(!key().holds(&younger, &b"x"[..], at(1001), HOUR).unwrap());
    }

    #[test]
    fn the_same_mark_is_made_by_every_version() {
        // HMAC-SHA-256 over "checkpost mark 1\n1000\nx\n", as `openssl dgst -mac hmac` has it.
        let mark = key().mark(&b"x"[..], at(1000)).unwrap();
        assert_eq!(mark.to_string(), "1000-f8266233969d216fb7170838d7bb39d2");
    }

    #[test]
    fn what_is_no_mark_is_none() {
        let tag = "0123456789abcdef0123456789ABCDEF";
        assert!(format!("1-{tag}").parse::<Mark>().is_ok());
        for wrong in [
            "",
            "1",
            "-",
            "1-",
            &format!("-{tag}"),
            &format!("+1-{tag}"),
            &format!("1-{tag}0"),
            &format!("1-{}g", &tag[1..]),
        ] {
            assert_eq!(wrong.parse::<Mark>(), Err(NoMark), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_mark_is_read_back(time: u64, tag: [u8; TAG]) {
            let mark = Mark { time, tag };
            prop_assert_eq!(mark.to_string().parse(), Ok(mark));
        }

        #[test]
        fn slices_do_not_matter(text in "[a\r\n]{0,40}", cut in 1usize..9) {
            let whole = key().mark(text.as_bytes(), at(1)).unwrap();
            let mut signing = Signing::new(&key(), 1);
            text.as_bytes().chunks(cut).for_each(|piece| signing.take(piece));
            prop_assert!(signing.is(&whole));
        }

        #[test]
        fn line_ends_do_not_matter(text in "(a{0,3}\r?\n){0,9}(a{1,3}\r?)?") {
            let mut plain = text.replace('\r', "");
            if !plain.ends_with('\n') && !text.is_empty() {
                plain.push('\n');
            }
            prop_assert_eq!(key().mark(text.as_bytes(), at(1)).unwrap(), key().mark(plain.as_bytes(), at(1)).unwrap());
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<Mark>();
        }
    }
}
