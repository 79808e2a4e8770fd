//! What one look into a mail may use up: octets, items, memory, time.
//!
//! It counts and says stop; what a stop means for the mail is the caller's.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::source::Source;
use crate::filter::Unpacking;

/// Decoded parts that must be read again (archives, encoded messages) stay in memory up to this
/// many octets, all that are open at once together; above, in a temporary file.
pub const MEMORY: usize = 8 << 20;

/// What is left for one mail.
#[derive(Debug)]
pub struct Budget {
    limits: Unpacking,
    deadline: Instant,
    cancelled: Arc<AtomicBool>,
    octets: u64,
    items: u32,
    memory: usize,
}

/// The whole look has to end here.
#[derive(Debug)]
pub enum Stop {
    /// The deadline passed or the look was cancelled.
    Deadline,
    /// No octets left.
    Octets,
    /// No items left.
    Items,
    /// Reading the content or writing a temporary file failed.
    Local(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Local(error)
    }
}

/// Why one item gives no more data.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The whole look has to end.
    Stop(Stop),
    /// It grows more than [`Unpacking::ratio`] allows.
    Ratio,
    /// Malformed, or packed in a way that is not known here.
    Unreadable(&'static str),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Stop(Stop::Local(error))
    }
}

impl Budget {
    /// A full one. Setting `cancelled` ends the look at its next block.
    pub fn new(limits: Unpacking, deadline: Instant, cancelled: Arc<AtomicBool>) -> Self {
        Self { limits, deadline, cancelled, octets: limits.octets, items: limits.items, memory: MEMORY }
    }

    /// The bounds it started from.
    pub fn limits(&self) -> &Unpacking {
        &self.limits
    }

    /// Takes `count` octets, and checks the time. Called once per block.
    pub(crate) fn spend(&mut self, count: usize) -> Result<(), Stop> {
        self.octets = self.octets.checked_sub(count as u64).ok_or(Stop::Octets)?;
        self.in_time()
    }

    /// Takes one item.
    pub(crate) fn item(&mut self) -> Result<(), Stop> {
        self.items = self.items.checked_sub(1).ok_or(Stop::Items)?;
        self.in_time()
    }

    /// Items left.
    pub(crate) fn items(&self) -> u32 {
        self.items
    }

    /// Is there time left?
    pub(crate) fn in_time(&self) -> Result<(), Stop> {
        if self.cancelled.load(Ordering::Relaxed) || Instant::now() >= self.deadline {
            return Err(Stop::Deadline);
        }
        Ok(())
    }
}

/// A decoded part that must be read again.
#[derive(Debug, Default)]
pub(crate) struct Spill {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
    reserved: usize,
}

impl Spill {
    pub(crate) fn append(&mut self, bytes: &[u8], budget: &mut Budget) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if self.file.is_none() && bytes.len() <= budget.memory {
            budget.memory -= bytes.len();
            self.reserved += bytes.len();
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        if self.file.is_none() {
            let mut file = tempfile::tempfile()?;
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
            self.release(budget);
        }
        match &self.file {
            Some(file) => file.write_all_at(bytes, self.length - bytes.len() as u64),
            None => Ok(()),
        }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        match &self.file {
            Some(file) => Source::file(file, self.length),
            None => Source::memory(&self.memory),
        }
    }

    /// Gives its memory back to the budget.
    pub(crate) fn release(&mut self, budget: &mut Budget) {
        budget.memory += std::mem::take(&mut self.reserved);
    }
}
