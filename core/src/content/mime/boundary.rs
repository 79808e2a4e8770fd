//! Finds the lines between parts.
//!
//! All levels of nested multiparts are looked for in one pass.

use std::io;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::budget::{Budget, Stop};
use super::fields::BOUNDARY;
use super::source::{BLOCK, Window};

/// A multipart that is open.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) boundaries: Vec<Vec<u8>>,
    pub(crate) path: String,
    /// Parts so far.
    pub(crate) parts: u32,
    /// Of its parts.
    pub(crate) depth: u32,
}

/// A boundary line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) level: usize,
    pub(crate) closes: bool,
    /// Where the part before ends: the line end before the boundary belongs to the boundary.
    pub(crate) end: u64,
    pub(crate) line: u64,
    /// Where the line after it starts.
    pub(crate) next: u64,
}

static DASHES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n--"));

/// The dashes, the boundary, the dashes of a closing line.
const LINE: usize = BOUNDARY + 4;

/// The next boundary line of any level, from `from` on, which is the start of a line.
pub(crate) fn find_boundary(
    window: &mut Window<'_>,
    from: u64,
    levels: &[Level],
    budget: &Budget,
) -> Result<Option<Hit>, Stop> {
    if levels.is_empty() {
        return Ok(None);
    }
    if window.at(from, LINE)?.starts_with(b"--")
        && let Some(hit) = hit_at(window, from, levels)?
    {
        return Ok(Some(hit));
    }
    let mut at = from;
    loop {
        budget.in_time()?;
        let view = window.at(at, BLOCK)?;
        let length = view.len();
        let ends = at + length as u64 >= window.source().len();
        let view = window.at(at, BLOCK)?;
        let mut candidate = None;
        for found in DASHES.find_iter(view) {
            let line = &view[found + 1..];
            if line.len() < LINE && !ends {
                candidate = Some(found);
                break;
            }
            if match_boundary(line, levels).is_some() {
                candidate = Some(found);
                break;
            }
        }
        if let Some(found) = candidate {
            let line = at + found as u64 + 1;
            match hit_at(window, line, levels)? {
                Some(hit) => return Ok(Some(hit)),
                None => at = line,
            }
        } else if ends {
            return Ok(None);
        } else {
            // The last two octets may be the start of the next mark.
            at += length.saturating_sub(2).max(1) as u64;
        }
    }
}

fn hit_at(window: &mut Window<'_>, line: u64, levels: &[Level]) -> Result<Option<Hit>, Stop> {
    let Some(mut hit) = match_boundary(window.at(line, LINE)?, levels) else { return Ok(None) };
    hit.line = line;
    hit.end = line;
    let mut before = [0; 2];
    let back = line.min(2);
    window.source().read_at(&mut before[2 - back as usize..], line - back)?;
    if before[1] == b'\n' {
        hit.end -= 1 + u64::from(before[0] == b'\r');
    }
    hit.next = line_end(window, line)?;
    Ok(Some(hit))
}

fn line_end(window: &mut Window<'_>, mut at: u64) -> io::Result<u64> {
    loop {
        let view = window.at(at, LINE)?;
        match memchr::memchr(b'\n', view) {
            Some(end) => return Ok(at + end as u64 + 1),
            None if view.is_empty() => return Ok(at),
            None => at += view.len() as u64,
        }
    }
}

/// Does this line start with the boundary of a level? It is enough that it starts so (RFC 2046
/// section 5.1.1). Of several the longest counts, then the innermost: `a` is no hit for `ab`'s line.
pub(crate) fn match_boundary(line: &[u8], levels: &[Level]) -> Option<Hit> {
    let rest = line.strip_prefix(b"--")?;
    let mut best: Option<(usize, usize)> = None;
    for (level, open) in levels.iter().enumerate() {
        for boundary in &open.boundaries {
            if rest.starts_with(boundary) && best.is_none_or(|(length, _)| boundary.len() >= length) {
                best = Some((boundary.len(), level));
            }
        }
    }
    let (length, level) = best?;
    Some(Hit { level, closes: rest[length..].starts_with(b"--"), end: 0, line: 0, next: 0 })
}
