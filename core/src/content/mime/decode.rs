//! Base64, quoted-printable and uuencode, block by block.
//!
//! They read what a careless mail reader would read: garbage is skipped, never an error.

use std::cell::Cell;

use memchr::memchr;

use super::budget::{Budget, Halt};
use super::source::{Source, Window};

/// What a decoder takes in at a time: in and out fit into the first two caches.
pub(crate) const CHUNK: usize = 48 << 10;

/// Gives an item's octets, block by block.
pub(crate) trait Produce {
    /// Appends the next octets, some [`CHUNK`] of them; false at the end.
    fn produce(&mut self, out: &mut Vec<u8>, budget: &mut Budget) -> Result<bool, Halt>;
}

/// RFC 2045 section 6.8.
#[derive(Debug)]
pub(crate) struct Base64<'a> {
    window: Window<'a>,
    position: u64,
    /// The alphabet's characters without line ends; at most three stay between calls.
    stripped: Vec<u8>,
    /// Set when there is something else in between, which the octets made of it do not show.
    garbage: &'a Cell<bool>,
}

impl<'a> Base64<'a> {
    pub(crate) fn new(source: Source<'a>, garbage: &'a Cell<bool>) -> Self {
        let room = usize::try_from(source.len()).unwrap_or(CHUNK).min(CHUNK) + 4;
        Self { window: Window::new(source), position: 0, stripped: Vec::with_capacity(room), garbage }
    }
}

impl Produce for Base64<'_> {
    fn produce(&mut self, out: &mut Vec<u8>, _budget: &mut Budget) -> Result<bool, Halt> {
        let view = self.window.at(self.position, CHUNK)?;
        let view = &view[..view.len().min(CHUNK)];
        self.position += view.len() as u64;
        let at_end = view.is_empty();
        strip_line_ends(view, &mut self.stripped);
        let whole = self.stripped.len() / 4 * 4;
        let before = out.len();
        let fast = base64_simd::STANDARD.decode_append(&self.stripped[..whole], out);
        if fast.is_ok() && !(at_end && self.stripped.len() > whole) {
            self.stripped.copy_within(whole.., 0);
            self.stripped.truncate(self.stripped.len() - whole);
        } else {
            out.truncate(before);
            self.garbage.set(
                self.garbage.get() | !self.stripped.iter().all(|o| o.is_ascii_alphanumeric() || b"+/=".contains(o)),
            );
            let left = forgiving_base64(&self.stripped, out, at_end);
            self.stripped.clear();
            self.stripped.extend_from_slice(&left.0[..left.1]);
        }
        Ok(!at_end)
    }
}

/// Appends the lines without their ends. Where a line is as long as the one before, its end is looked
/// for there only: a line end that is overlooked so is garbage, which the decoder skips.
fn strip_line_ends(view: &[u8], stripped: &mut Vec<u8>) {
    /// What nearly every mailer writes (RFC 2045 section 6.8 sets it as the limit).
    const USUAL: usize = 76;
    let mut rest = view;
    while !rest.is_empty() {
        while let Some((line, after)) = rest.split_first_chunk::<USUAL>()
            && let Some(next) = after.strip_prefix(b"\r\n")
        {
            stripped.extend_from_slice(line);
            rest = next;
        }
        let Some(end) = memchr(b'\n', rest) else {
            stripped.extend_from_slice(rest);
            return;
        };
        let line = &rest[..end];
        stripped.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
        rest = &rest[end + 1..];
    }
}

/// Skips what is not of the alphabet; a pad ends a group, and what follows is a new one. Returns
/// the characters of a group that is not complete yet.
fn forgiving_base64(input: &[u8], out: &mut Vec<u8>, at_end: bool) -> ([u8; 3], usize) {
    let mut group = [0u8; 4];
    let mut filled = 0;
    out.reserve(input.len() / 4 * 3 + 3);
    for octet in input {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {
                group[filled] = *octet;
                filled += 1;
                if filled == 4 {
                    out.extend_from_slice(&ungroup(group));
                    filled = 0;
                }
            }
            b'=' => {
                flush(group, filled, out);
                filled = 0;
            }
            _ => {}
        }
    }
    if at_end {
        flush(group, filled, out);
        filled = 0;
    }
    ([group[0], group[1], group[2]], filled)
}

fn flush(mut group: [u8; 4], filled: usize, out: &mut Vec<u8>) {
    group[filled..].fill(b'A');
    // Two characters hold one octet, three hold two, one holds none.
    out.extend_from_slice(&ungroup(group)[..filled.saturating_sub(1)]);
}

fn ungroup(group: [u8; 4]) -> [u8; 3] {
    let bits = group.iter().fold(0u32, |bits, octet| {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        bits << 6 | u32::from(value)
    });
    [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8]
}

/// RFC 2045 section 6.7.
#[derive(Debug)]
pub(crate) struct QuotedPrintable<'a> {
    window: Window<'a>,
    position: u64,
}

impl<'a> QuotedPrintable<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        Self { window: Window::new(source), position: 0 }
    }
}

/// Blanks between an equals sign and the line's end, more than which do not count as a soft break.
const BLANKS: usize = 1024;

impl Produce for QuotedPrintable<'_> {
    fn produce(&mut self, out: &mut Vec<u8>, _budget: &mut Budget) -> Result<bool, Halt> {
        let whole = self.window.at(self.position, CHUNK + BLANKS)?;
        let last = whole.len() <= CHUNK + BLANKS && whole.len() as u64 + self.position >= self.window_end();
        let view = self.window.at(self.position, CHUNK + BLANKS)?;
        let stop = if last { view.len() } else { view.len().min(CHUNK) };
        out.reserve(stop);
        let mut at = 0;
        while at < stop {
            let Some(equals) = memchr(b'=', &view[at..stop]).map(|found| at + found) else {
                out.extend_from_slice(&view[at..stop]);
                at = stop;
                break;
            };
            out.extend_from_slice(&view[at..equals]);
            let rest = &view[equals + 1..];
            at = equals + 1;
            if let [high, low, ..] = rest
                && let (Some(high), Some(low)) = (hex(*high), hex(*low))
            {
                out.push(high << 4 | low);
                at += 2;
                continue;
            }
            let blanks = rest.iter().take(BLANKS).take_while(|octet| matches!(octet, b' ' | b'\t' | b'\r')).count();
            match rest.get(blanks) {
                Some(b'\n') => at += blanks + 1,
                None => at += blanks,
                Some(_) => out.push(b'='),
            }
        }
        self.position += at as u64;
        Ok(!(last && at >= stop))
    }
}

impl QuotedPrintable<'_> {
    fn window_end(&self) -> u64 {
        self.window.source().len()
    }
}

fn hex(octet: u8) -> Option<u8> {
    (octet as char).to_digit(16).map(|digit| digit as u8)
}

/// The lines between `begin` and `end` of uuencode (POSIX `uuencode`, historical algorithm).
#[derive(Debug)]
pub(crate) struct Uu<'a> {
    window: Window<'a>,
    /// Where it has come to; after the `end` line when done.
    pub(crate) position: u64,
}

/// 1 + 60 characters and the line's end are usual; longer lines are cut.
const LINE: usize = 256;

impl<'a> Uu<'a> {
    /// From after the `begin` line on.
    pub(crate) fn new(source: Source<'a>, position: u64) -> Self {
        Self { window: Window::new(source), position }
    }
}

impl Produce for Uu<'_> {
    fn produce(&mut self, out: &mut Vec<u8>, _budget: &mut Budget) -> Result<bool, Halt> {
        let limit = out.len() + CHUNK;
        while out.len() < limit {
            let view = self.window.at(self.position, LINE)?;
            let view = &view[..view.len().min(LINE)];
            let line = &view[..memchr(b'\n', view).map_or(view.len(), |end| end + 1)];
            let start = self.position;
            self.position += line.len() as u64;
            let line = line.trim_ascii_end();
            if line == b"end" || view.is_empty() {
                return Ok(false);
            }
            let Some((count, text)) = line.split_first() else { continue };
            let mut left = usize::from(count.wrapping_sub(32) & 63);
            if !(32..=96).contains(count) || text.len() > left.div_ceil(3) * 4 + 4 {
                // Not a line of it: what follows is text again.
                self.position = start;
                return Ok(false);
            }
            for group in text.chunks(4) {
                let mut four = [b' '; 4];
                four[..group.len()].copy_from_slice(group);
                let bits = four.iter().fold(0u32, |bits, o| bits << 6 | u32::from(o.wrapping_sub(32) & 63));
                let three = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
                out.extend_from_slice(&three[..left.min(3)]);
                left = left.saturating_sub(3);
            }
        }
        Ok(true)
    }
}
