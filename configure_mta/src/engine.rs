//! Carries a set-up out: each change is in the journal before it is made, and when anything fails, all is put back as it
//! was, to the octet. It does not know what a change is for.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use checkpost_setup::{Change, What};

use crate::journal::{Begin, Journal, JournalError, Journals, Part, Record, STATE};
use crate::machine::Machine;
use crate::tree::{Attributes, Whole};
use crate::undo;

/// All that is to be done, in parts that are carried out in this order and taken back in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// What it is about.
    pub begin: Begin,
    /// In this order.
    pub parts: Vec<(Part, Vec<Change>)>,
}

impl Setup {
    /// Is there nothing to be done?
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|(_, changes)| changes.is_empty())
    }

    /// Every file that a change may touch.
    fn touches(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().flat_map(|(_, changes)| changes).flat_map(files)
    }
}

/// For the journal, and for what is written beside a file before it takes its name.
const ROOM: u64 = 256 << 10;

/// Is told of each step before it is taken; tests end a run there.
pub trait Watch {
    /// A step, in one line.
    ///
    /// # Errors
    /// To let the run fail here.
    fn step(&mut self, what: &str) -> io::Result<()>;

    /// A point within a step, at which a machine may crash as at any other.
    ///
    /// # Errors
    /// To let the run fail here.
    fn within(&mut self, what: &str) -> io::Result<()> {
        let _ = what;
        Ok(())
    }
}

/// The files that a change may touch.
fn files(change: &Change) -> Vec<&str> {
    match &change.what {
        What::Write { path, .. } | What::Program { path, .. } => vec![path],
        What::Run { touches, .. } => touches.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Tells nobody.
#[derive(Debug)]
pub struct Quiet;

impl Watch for Quiet {
    fn step(&mut self, _what: &str) -> io::Result<()> {
        Ok(())
    }
}

/// A run, and what it does to which machine.
pub struct Engine<'a> {
    /// The machine.
    pub machine: Machine<'a>,
    /// Who looks on.
    pub watch: &'a mut dyn Watch,
    /// Set by a signal: stop at the next step, and put all back.
    pub stop: &'a AtomicBool,
    /// The contents of Checkpost's own programs.
    pub programs: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// Why a set-up is not in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A step failed; everything is as it was before.
    #[error("{step}")]
    RolledBack {
        /// Which.
        step: String,
        /// Why.
        #[source]
        why: io::Error,
    },
    /// A step failed, and so did the way back. The journal has all that is needed; the next run tries again.
    #[error("{step}: {why}; and not all could be put back")]
    Stuck {
        /// Which.
        step: String,
        /// Why.
        why: io::Error,
        /// What could not be put back.
        #[source]
        back: undo::UndoError,
    },
    /// The journal cannot be written: nothing was done.
    #[error("nothing was changed")]
    Journal(#[from] JournalError),
}

impl Engine<'_> {
    /// Carries it out.
    ///
    /// # Errors
    /// When a step fails; what was done before it is taken back.
    pub fn apply(&mut self, journals: &Journals, setup: &Setup) -> Result<(), ApplyError> {
        let mut journal = journals.begin(setup.begin.clone())?;
        let mut step = String::from("take room on the disk, to put things back if need be");
        let done = self.reserve(&mut journal, setup).and_then(|reserves| {
            self.carry_out(&mut journal, setup, &mut step)?;
            reserves.iter().try_for_each(|path| self.machine.tree.remove(path))?;
            Ok(journal.write(&Record::Applied)?)
        });
        let Err(why) = done else { return Ok(()) };
        match self.roll_back(journals, &journal) {
            Ok(()) => Err(ApplyError::RolledBack { step, why: why.0 }),
            Err(back) => Err(ApplyError::Stuck { step, why: why.0, back }),
        }
    }

    /// A disk that fills up while we work must not keep us from putting things back: one file on each of them.
    fn reserve(&mut self, journal: &mut Journal, setup: &Setup) -> Result<Vec<String>, Failure> {
        let tree = self.machine.tree;
        let own = format!("{STATE}/reserve");
        let mut disks = BTreeMap::from([(tree.device(&own)?, (own.clone(), 0))]);
        for path in setup.touches() {
            // What has no folder yet is not there either, and will be taken away.
            let Some(disk) = tree.device(path)? else { continue };
            let name =
                || path.rsplit_once('/').map_or(own.clone(), |(folder, _)| format!("{folder}/.checkpost-reserve"));
            let size = tree.read_program(path)?.map_or(0, |whole| whole.content.len() as u64);
            disks.entry(Some(disk)).or_insert_with(|| (name(), 0)).1 += size;
        }
        for (path, octets) in disks.values() {
            journal.write(&Record::Reserve(path.clone()))?;
            tree.remove(path)?;
            tree.reserve(path, octets + ROOM)?;
        }
        Ok(disks.into_values().map(|(path, _)| path).collect())
    }

    fn carry_out(&mut self, journal: &mut Journal, setup: &Setup, step: &mut String) -> Result<(), Failure> {
        for (part, changes) in &setup.parts {
            if changes.is_empty() {
                continue;
            }
            journal.write(&Record::Part(part.clone()))?;
            for change in changes {
                self.step(step, change.title())?;
                self.change(journal, &change.what)?;
            }
            for command in &part.check {
                self.step(step, format!("check: {}", command.brief()))?;
                self.machine.change(command)?;
            }
            if !part.activate.is_empty() {
                journal.write(&Record::Activate)?;
            }
            for command in &part.activate {
                self.step(step, format!("activate: {}", command.brief()))?;
                self.machine.change(command)?;
            }
        }
        // The last chance to fail.
        self.step(step, "finish".into())
    }

    fn step(&mut self, step: &mut String, what: String) -> Result<(), Failure> {
        *step = what;
        if self.stop.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted by a signal").into());
        }
        Ok(self.watch.step(step)?)
    }

    fn change(&mut self, journal: &mut Journal, what: &What) -> Result<(), Failure> {
        let tree = self.machine.tree;
        match what {
            What::Write { path, from, to, owner, mode } => {
                let was = tree.read(path)?;
                if was.as_ref().map(|was| &was.content) != from.as_ref() {
                    return Err(io::Error::other(format!("{path} has changed since the plan was made")).into());
                }
                let attributes = match &was {
                    Some(was) => was.attributes.clone(),
                    None => self.attributes(owner, *mode)?,
                };
                self.replace(journal, path, was.as_ref(), &Whole { content: to.clone(), attributes })
            }
            What::Program { name, path, mode } => {
                let was = tree.read_program(path)?;
                let attributes = self.attributes(&checkpost_setup::Owner::root(), *mode)?;
                let content = (self.programs)(name)?;
                journal.register(path, was.as_ref())?;
                journal.write(&Record::Program { path: path.clone(), mode: *mode })?;
                Ok(tree.replace(path, &Whole { content, attributes })?)
            }
            What::Folder { path, owner, mode } => {
                let attributes = self.attributes(owner, *mode)?;
                journal.write(&Record::Folder(path.clone()))?;
                self.watch.within("folder")?;
                Ok(tree.make_folder(path, &attributes)?)
            }
            What::SecondName { path, name } => {
                if tree.about(name)?.is_some() {
                    return Err(io::Error::other(format!("{name} is there already")).into());
                }
                journal.write(&Record::Name(name.clone()))?;
                Ok(tree.link(path, name)?)
            }
            What::Run { command, touches, back, rebuilds } => {
                for path in touches {
                    journal.register(path, tree.read(path)?.as_ref())?;
                }
                journal.write(&Record::Run {
                    command: command.clone(),
                    back: back.clone(),
                    touches: touches.clone(),
                    rebuilds: *rebuilds,
                })?;
                self.watch.within("registered")?;
                let said = self.machine.change(command);
                self.watch.within("run")?;
                // Also when it failed: it may have done half of it.
                for path in touches {
                    let is = tree.read(path)?.map(|whole| journal.keep(&whole)).transpose()?;
                    journal.write(&Record::Now { path: path.clone(), is })?;
                }
                said?;
                Ok(journal.write(&Record::Ran)?)
            }
            What::ByHand { back, .. } => Ok(journal.write(&Record::ByHand(back.clone()))?),
        }
    }

    fn replace(&mut self, journal: &mut Journal, path: &str, was: Option<&Whole>, is: &Whole) -> Result<(), Failure> {
        journal.register(path, was)?;
        let kept = journal.keep(is)?;
        self.watch.within("kept")?;
        journal.write(&Record::Intend { path: path.to_owned(), is: kept })?;
        self.watch.within("intended")?;
        self.machine.tree.replace(path, is)?;
        Ok(self.watch.within("replaced")?)
    }

    fn attributes(&self, owner: &checkpost_setup::Owner, mode: u32) -> io::Result<Attributes> {
        // Who is not root can make files of his own only, as in a tree for a test.
        let own = rustix::process::geteuid();
        let (uid, gid) = if own.is_root() {
            self.machine.numbers(owner)?
        } else {
            (own.as_raw(), rustix::process::getegid().as_raw())
        };
        Ok(Attributes { mode, uid, gid, extended: Vec::new() })
    }

    fn roll_back(&mut self, journals: &Journals, journal: &Journal) -> Result<(), undo::UndoError> {
        let runs = journals.runs()?;
        let Some(run) = runs.iter().find(|run| run.folder == journal.folder()) else { return Ok(()) };
        undo::roll_back(&self.machine, journals, run)
    }

    /// Puts back what a run left that was cut off, or was cut off while it took things back. True if there was one.
    ///
    /// # Errors
    /// When something cannot be put back.
    pub fn heal(&mut self, journals: &Journals) -> Result<bool, undo::UndoError> {
        let mut healed = false;
        for run in journals.runs()?.iter().rev() {
            if run.is_applied() {
                break;
            }
            healed = true;
            if run.is_undoing() {
                undo::undo(&self.machine, journals, run, self.watch)?;
            } else {
                undo::roll_back(&self.machine, journals, run)?;
            }
        }
        Ok(healed)
    }
}

/// A file, a command or the journal.
struct Failure(io::Error);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self(match error {
            JournalError::Io(_, error) => error,
            other => io::Error::other(other),
        })
    }
}
