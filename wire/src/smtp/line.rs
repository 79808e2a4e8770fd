//! Command lines out of a byte stream, in any slicing and with bounded memory.
//! Knows nothing about what a line says.

use bytes::{Bytes, BytesMut};

/// What the next octets of a peer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineEvent {
    /// A whole line, without its line end.
    Line(Bytes),
    /// No line end yet: read more. Everything before it has been handed out.
    Incomplete,
    /// A line over the limit. [`Lines`] drops the rest of it; answer 500 5.5.2 once.
    TooLong,
    /// The line holds a bare LF, a bare CR or a NUL; these are the octets before the first of them.
    ///
    /// [`Lines`] drops everything up to the next true line end, so that what follows the bare LF is never taken
    /// for a command (command smuggling). Answer 500 5.5.2, and from outside better close.
    BareLf(Bytes),
}

/// Line framing with a memory for the line being skipped.
#[derive(Debug, Clone)]
pub struct Lines {
    limit: usize,
    accept_lf: bool,
    /// Octets at the front of the buffer already searched without result.
    scanned: usize,
    skipping: bool,
    /// While skipping: the octet dropped last was a CR.
    skipped_cr: bool,
}

impl Lines {
    /// Strict framing: only CRLF ends a line. `limit` counts octets without the line end.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, accept_lf: false, scanned: 0, skipping: false, skipped_cr: false }
    }

    /// For trusted peers: LF alone ends a line as well. A bare CR or NUL is still flagged.
    #[must_use]
    pub fn accepting_lf(limit: usize) -> Self {
        Self { accept_lf: true, ..Self::new(limit) }
    }

    /// The next event. Call until it says [`LineEvent::Incomplete`].
    ///
    /// The buffer must not be shortened in between, except when nothing of a line is pending (the octets of DATA
    /// and BDAT come after a line); after STARTTLS, when all buffered octets are dropped, take a new `Lines`.
    pub fn next(&mut self, buffer: &mut BytesMut) -> LineEvent {
        if self.skipping && !self.skip(buffer) {
            return LineEvent::Incomplete;
        }
        match scan(buffer, self.scanned, self.limit, self.accept_lf) {
            Scan::Line { length, end } => {
                self.scanned = 0;
                let mut line = buffer.split_to(end);
                line.truncate(length);
                LineEvent::Line(line.freeze())
            }
            Scan::More { scanned } => {
                self.scanned = scanned;
                LineEvent::Incomplete
            }
            Scan::TooLong { at } => {
                self.start_skipping(buffer, at);
                LineEvent::TooLong
            }
            Scan::Bare { at } => LineEvent::BareLf(self.start_skipping(buffer, at)),
        }
    }

    /// Whether the rest of a flagged or overlong line is still being dropped.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    fn start_skipping(&mut self, buffer: &mut BytesMut, at: usize) -> Bytes {
        self.scanned = 0;
        self.skipping = true;
        self.skipped_cr = false;
        buffer.split_to(at).freeze()
    }

    /// Drops up to and including the line end; true when it was found.
    fn skip(&mut self, buffer: &mut BytesMut) -> bool {
        let mut from = 0;
        while let Some(found) = memchr::memchr(b'\n', &buffer[from..]) {
            let lf = from + found;
            let after_cr = if lf == 0 { self.skipped_cr } else { buffer[lf - 1] == b'\r' };
            if after_cr || self.accept_lf {
                let _ = buffer.split_to(lf + 1);
                self.skipping = false;
                self.skipped_cr = false;
                return true;
            }
            from = lf + 1;
        }
        if let Some(&last) = buffer.last() {
            self.skipped_cr = last == b'\r';
        }
        buffer.clear();
        false
    }
}

/// Strict framing without memory, for peers whose connection is closed on anything but a good line.
///
/// [`LineEvent::Line`] takes the line out of the buffer; all other events leave the buffer as it is, so that the
/// octets after a fault can never be read as the next command. Use [`Lines`] to go on after a fault.
pub fn next_line(buffer: &mut BytesMut, limit: usize) -> LineEvent {
    match scan(buffer, 0, limit, false) {
        Scan::Line { length, end } => {
            let mut line = buffer.split_to(end);
            line.truncate(length);
            LineEvent::Line(line.freeze())
        }
        Scan::More { .. } => LineEvent::Incomplete,
        Scan::TooLong { .. } => LineEvent::TooLong,
        Scan::Bare { at } => LineEvent::BareLf(Bytes::copy_from_slice(&buffer[..at])),
    }
}

enum Scan {
    Line { length: usize, end: usize },
    More { scanned: usize },
    TooLong { at: usize },
    Bare { at: usize },
}

/// Decides by position alone (first fault first), so that slicing cannot change the outcome.
fn scan(buffer: &[u8], from: usize, limit: usize, accept_lf: bool) -> Scan {
    // A CR at `limit` may still begin the line end; anything else there is one octet too many.
    let window = &buffer[..buffer.len().min(limit.saturating_add(1))];
    let found = window.get(from..).and_then(|rest| memchr::memchr3(b'\r', b'\n', 0, rest));
    if let Some(found) = found {
        let at = from + found;
        return match window[at] {
            b'\r' => match buffer.get(at + 1) {
                None => Scan::More { scanned: at },
                Some(b'\n') => Scan::Line { length: at, end: at + 2 },
                Some(_) => Scan::Bare { at },
            },
            b'\n' if accept_lf => Scan::Line { length: at, end: at + 1 },
            _ => Scan::Bare { at },
        };
    }
    if buffer.len() > limit { Scan::TooLong { at: limit } } else { Scan::More { scanned: buffer.len() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(mut lines: Lines, slices: &[&[u8]]) -> Vec<LineEvent> {
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for slice in slices {
            buffer.extend_from_slice(slice);
            loop {
                match lines.next(&mut buffer) {
                    LineEvent::Incomplete => break,
                    event => seen.push(event),
                }
            }
            assert!(buffer.len() <= lines.limit + 1, "unbounded: {}", buffer.len());
        }
        seen
    }

    fn check(input: &str, expected: &[&str]) {
        check_with(&Lines::new(10), input, expected);
    }

    fn check_with(lines: &Lines, input: &str, expected: &[&str]) {
        let show = |events: Vec<LineEvent>| -> Vec<String> {
            let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
            events
                .into_iter()
                .map(|event| match event {
                    LineEvent::Line(line) => format!("line {}", text(line)),
                    LineEvent::BareLf(line) => format!("bare {}", text(line)),
                    LineEvent::TooLong => "long".to_owned(),
                    LineEvent::Incomplete => "incomplete".to_owned(),
                })
                .collect()
        };
        assert_eq!(show(events(lines.clone(), &[input.as_bytes()])), expected, "{input:?}");
        let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
        assert_eq!(show(events(lines.clone(), &bytes)), expected, "{input:?} byte by byte");
    }

    #[test]
    fn only_crlf_ends_a_line() {
        check("NOOP\r\nQUIT\r\nRS", &["line NOOP", "line QUIT"]);
        check("\r\n", &["line "]);
        check("0123456789\r\n", &["line 0123456789"]);
        check("0123456789x\r\nQUIT\r\n", &["long", "line QUIT"]);
        check("0123456789x and much more of it\nMAIL\r\r\nQUIT\r\n", &["long", "line QUIT"]);
        check("NOOP\nMAIL\r\nQUIT\r\n", &["bare NOOP", "line QUIT"]);
        check("NOOP\rMAIL\r\nQUIT\r\n", &["bare NOOP", "line QUIT"]);
        check("NOOP\r\r\nQUIT\r\n", &["bare NOOP", "line QUIT"]);
        check("NO\0P\r\nQUIT\r\n", &["bare NO", "line QUIT"]);
        check("0123456789\n\r\nQUIT\r\n", &["bare 0123456789", "line QUIT"]);
        check("0123456789\rx\r\nQUIT\r\n", &["bare 0123456789", "line QUIT"]);
        check("NOOP\n", &["bare NOOP"]);
    }

    #[test]
    fn a_trusted_peer_may_end_lines_with_lf() {
        let lines = Lines::accepting_lf(10);
        check_with(&lines, "NOOP\nQUIT\r\nRSET\n", &["line NOOP", "line QUIT", "line RSET"]);
        check_with(&lines, "NO\rOP\nQUIT\n", &["bare NO", "line QUIT"]);
        check_with(&lines, "0123456789abcdef\nQUIT\n", &["long", "line QUIT"]);
    }

    #[test]
    fn without_memory_a_fault_stays_in_the_buffer() {
        let mut buffer = BytesMut::from(&b"QUIT\r\nNOOP\nMAIL FROM:<a@b>\r\n"[..]);
        assert_eq!(next_line(&mut buffer, 512), LineEvent::Line(Bytes::from_static(b"QUIT")));
        assert_eq!(next_line(&mut buffer, 512), LineEvent::BareLf(Bytes::from_static(b"NOOP")));
        assert_eq!(next_line(&mut buffer, 512), LineEvent::BareLf(Bytes::from_static(b"NOOP")));
        let mut buffer = BytesMut::from(&b"0123456789x"[..]);
        assert_eq!(next_line(&mut buffer, 10), LineEvent::TooLong);
    }

    proptest! {
        #[test]
        fn slicing_changes_nothing(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0), Just(b'a')], 0..80),
            cuts in proptest::collection::vec(1usize..7, 0..80),
            accept_lf: bool,
        ) {
            let lines = if accept_lf { Lines::accepting_lf(5) } else { Lines::new(5) };
            let whole = events(lines.clone(), &[&input]);
            let mut rest = &input[..];
            let mut slices = Vec::new();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                slices.push(head);
                rest = tail;
            }
            slices.push(rest);
            prop_assert_eq!(events(lines, &slices), whole);
        }
    }
}
