//! Bytes to look at, in memory or in a file, and a window that moves over them.
//!
//! Bytes in memory are borrowed, never copied; those in a file come by blocks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::content::Content;

/// What a window reads from a file at a time.
pub(crate) const BLOCK: usize = 256 << 10;

/// Bytes somewhere, or a range of them. Offsets count from the start of the range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    place: Place<'a>,
    start: u64,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    Memory(&'a [u8]),
    Content(&'a Content),
    File(&'a File),
}

impl<'a> Source<'a> {
    pub(crate) fn content(content: &'a Content) -> Self {
        match content.as_slice() {
            Some(bytes) => Self::memory(bytes),
            None => Self { place: Place::Content(content), start: 0, end: content.len() },
        }
    }

    pub(crate) fn memory(bytes: &'a [u8]) -> Self {
        Self { place: Place::Memory(bytes), start: 0, end: bytes.len() as u64 }
    }

    pub(crate) fn file(file: &'a File, length: u64) -> Self {
        Self { place: Place::File(file), start: 0, end: length }
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// The part of it from `from` to before `to`; what lies outside is left out.
    pub(crate) fn range(&self, from: u64, to: u64) -> Self {
        let start = self.start.saturating_add(from).min(self.end);
        let end = self.start.saturating_add(to).clamp(start, self.end);
        Self { place: self.place, start, end }
    }

    /// All of it, when it is in memory.
    pub(crate) fn as_slice(&self) -> Option<&'a [u8]> {
        match self.place {
            // `start` and `end` lie within the slice by construction.
            Place::Memory(bytes) => bytes.get(self.start as usize..self.end as usize),
            _ => None,
        }
    }

    /// Fills the buffer from `offset`; short only at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.len().saturating_sub(offset);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        match self.place {
            Place::Memory(bytes) => {
                let from = self.start as usize + offset as usize * usize::from(count > 0);
                buffer.copy_from_slice(&bytes[from..from + count]);
                Ok(count)
            }
            Place::Content(content) => content.read_full_at(buffer, self.start + offset),
            Place::File(file) => {
                if count > 0 {
                    file.read_exact_at(buffer, self.start + offset)?;
                }
                Ok(count)
            }
        }
    }
}

/// Moves over a [`Source`].
#[derive(Debug)]
pub(crate) struct Window<'a> {
    source: Source<'a>,
    slice: Option<&'a [u8]>,
    buffer: Vec<u8>,
    at: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(source: Source<'a>) -> Self {
        Self { source, slice: source.as_slice(), buffer: Vec::new(), at: 0 }
    }

    pub(crate) fn source(&self) -> Source<'a> {
        self.source
    }

    /// The bytes from `offset` on: at least `want` (at most [`BLOCK`]), fewer only at the end.
    pub(crate) fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        if let Some(slice) = self.slice {
            return Ok(&slice[usize::try_from(offset).unwrap_or(usize::MAX).min(slice.len())..]);
        }
        let end = self.at + self.buffer.len() as u64;
        let covered = offset >= self.at && offset <= end && (end - offset >= want as u64 || end == self.source.len());
        if !covered || self.buffer.is_empty() {
            let left = usize::try_from(self.source.len().saturating_sub(offset)).unwrap_or(usize::MAX);
            self.buffer.resize(BLOCK.min(left), 0);
            let count = self.source.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(count);
            self.at = offset;
        }
        Ok(&self.buffer[(offset - self.at) as usize..])
    }
}
