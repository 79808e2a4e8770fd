//! The mark as a header field, for mail servers that show nothing but the message. What they put on top of it does not
//! count; what is below it must be as it was.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use crate::{BLOCK, Key, Mark, Signing};

/// The field's name. It begins as all our fields do, which are stripped from mail that is checked.
pub const FIELD: &str = "X-Checkpost-Mark";

/// A line is kept to this length, in octets. Longer ones are no mark.
const LINE: usize = 200;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Fields of this name. More than one is a loop, or somebody's attempt.
    pub fields: usize,
    /// The topmost is a mark of ours, for what is below it, and no older than allowed.
    pub holds: bool,
}

/// The field with its line end, LF; what is marked comes right behind it.
pub fn line(mark: &Mark) -> String {
    format!("{FIELD}: {mark}\n")
}

/// Is this line, with or without its line end, of such a field? To take it out.
pub fn is_field(line: &[u8]) -> bool {
    value(line).is_some()
}

/// Reads a message to its end if there is such a field in its header, and to the header's end if there is none.
///
/// # Errors
/// It cannot be read.
pub fn look(key: &Key, mut message: impl Read, now: SystemTime, within: Duration) -> io::Result<Seen> {
    let (mut seen, mut topmost) = (Seen::default(), None::<(Mark, Signing)>);
    let (mut header, mut line) = (true, Vec::with_capacity(LINE));
    let mut block = vec![0; BLOCK];
    loop {
        let count = match message.read(&mut block) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if count == 0 || (!header && topmost.is_none()) {
            break;
        }
        let mut rest = &block[..count];
        while header && !rest.is_empty() {
            let length = rest.iter().position(|octet| *octet == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, tail) = rest.split_at(length);
            rest = tail;
            line.extend_from_slice(&piece[..piece.len().min(LINE.saturating_sub(line.len()))]);
            if let Some((_, signing)) = &mut topmost {
                signing.take(piece);
            }
            if piece.last() != Some(&b'\n') {
                continue;
            }
            // A line that was cut has lost its end: it is neither empty nor a mark.
            header = !matches!(&*line, b"\n" | b"\r\n");
            if let Some(value) = value(&line) {
                seen.fields += 1;
                if seen.fields == 1 && line.ends_with(b"\n") {
                    let mark = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse::<Mark>().ok());
                    let fresh = mark.filter(|mark| mark.is_fresh(now, within));
                    topmost = fresh.map(|mark| (mark, Signing::new(key, mark.time)));
                }
            }
            line.clear();
        }
        if let Some((_, signing)) = &mut topmost {
            signing.take(rest);
        }
    }
    seen.holds = topmost.is_some_and(|(mark, signing)| signing.is(&mark));
    Ok(seen)
}

fn value(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(FIELD.len())?;
    name.eq_ignore_ascii_case(FIELD.as_bytes()).then_some(())?;
    rest.trim_ascii_start().strip_prefix(b":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(60);

    /// Hands out so many octets at a time.
    struct Slices<'a>(&'a [u8], usize);

    impl Read for Slices<'_> {
        fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len());
            let (head, tail) = self.0.split_at(count);
            block[..count].copy_from_slice(head);
            self.0 = tail;
            Ok(count)
        }
    }

    fn check(message: &str, fields: usize, holds: bool) {
        for slice in [1, 7, 1000] {
            let seen = look(&Key::of(&[7; 32]), Slices(message.as_bytes(), slice), SystemTime::now(), WITHIN).unwrap();
            assert_eq!(seen, Seen { fields, holds }, "{slice}: {message}");
        }
    }

    #[test]
    fn a_mark_is_found_below_what_mail_servers_add() {
        let below = "Subject: x\n\nbody\nX-Checkpost-Mark: in the body\n";
        let marked = line(&Key::of(&[7; 32]).mark(below.as_bytes(), SystemTime::now()).unwrap());
        let other = line(&Key::of(&[8; 32]).mark(below.as_bytes(), SystemTime::now()).unwrap());
        let old = SystemTime::now() - 2 * WITHIN;
        let old = line(&Key::of(&[7; 32]).mark(below.as_bytes(), old).unwrap());
        check(below, 0, false);
        check(&format!("{marked}{below}"), 1, true);
        check(&format!("Received: a\n\tb\n{marked}{below}"), 1, true);
        check(&format!("Received: {}\n{marked}{below}", "x".repeat(500)), 1, true);
        check(&format!("Received: a\r\n{}", format!("{marked}{below}").replace('\n', "\r\n")), 1, true);
        check(&format!("{}{below}", marked.replace("X-Checkpost-Mark: ", "x-checkpost-mark \t:  ")), 1, true);
        check(&format!("{other}{below}"), 1, false);
        check(&format!("{old}{below}"), 1, false);
        check(&format!("{marked}{below}more\n"), 1, false);
        check(&format!("{marked}Subject: y\n{below}"), 1, false);
        check(&format!("X-Checkpost-Mark: yes\n{below}"), 1, false);
        // A second one above ours, and ours in the body.
        check(&format!("X-Checkpost-Mark: yes\n{marked}{below}"), 2, false);
        check(&format!("Subject: y\n\n{marked}{below}"), 0, false);
        check("", 0, false);
        check(&format!("X-Checkpost-Mark: {}\n{below}", "1".repeat(500)), 1, false);
    }

    proptest! {
        #[test]
        fn what_is_marked_is_found(above in "(Received: [a-z ]{0,9}\n)?", below in "Subject: [a-z]{0,9}\n\n[a-z\n]{0,40}") {
            let key = Key::of(&[7; 32]);
            let marked = line(&key.mark(below.as_bytes(), SystemTime::now()).unwrap());
            let message = format!("{above}{marked}{below}");
            prop_assert!(look(&key, message.as_bytes(), SystemTime::now(), WITHIN).unwrap().holds);
        }

        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!look(&Key::of(&[7; 32]), &octets[..], SystemTime::now(), WITHIN).unwrap().holds);
        }
    }
}
