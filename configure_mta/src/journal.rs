//! What was done to a machine, on its disk before it is done: each file as it was, each command with its way back.
//! So whatever ends a run, the next one knows what there is to take back.
//!
//! Below `/var/lib/configure_mta` (root's alone) each run that changes something has a folder with a number. In it,
//! `journal` has a JSON object a line, and `kept/N` is a file as it was. Runs lie one on the other: the lowest one
//! has the oldest copies, and they are taken back from the top.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use checkpost_setup::{Answers, Command};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::tree::{Attributes, Tree, Whole};

/// Where all journals are.
pub const STATE: &str = "/var/lib/configure_mta";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    /// First of all.
    Begin(Begin),
    /// What follows belongs to this part.
    Part(Part),
    /// A file, before anything is done to it.
    Register {
        /// Which.
        path: String,
        /// As it was; `None`: it was not there.
        was: Option<Kept>,
    },
    /// A registered file is about to be this.
    Intend {
        /// Which.
        path: String,
        /// As it will be.
        is: Kept,
    },
    /// A registered file is about to be a program of ours. What is there later is ours, too, of a newer version, as long as
    /// it has these permissions.
    Program {
        /// Which.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// A registered file is this, after a command that may have changed it.
    Now {
        /// Which.
        path: String,
        /// As it is; `None`: it is not there.
        is: Option<Kept>,
    },
    /// A file is about to be made that takes room on its disk, until all is in place.
    Reserve(String),
    /// A folder is about to be made.
    Folder(String),
    /// A second name is about to be made.
    Name(String),
    /// A command is about to be run.
    Run {
        /// Which.
        command: Command,
        /// Its way back.
        back: Option<Command>,
        /// The files it may change, all registered.
        touches: Vec<String>,
        /// See [`checkpost_setup::What::Run`].
        rebuilds: bool,
    },
    /// The command has ended well.
    Ran,
    /// Steps that the administrator is told to take, and those back.
    ByHand(String),
    /// From here on the MTA may have read its new configuration.
    Activate,
    /// All is in place.
    Applied,
    /// It is being taken back.
    Undo,
}

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The MTA.
    pub mta: String,
    /// Its instance.
    pub instance: Option<String>,
    /// The method.
    pub method: String,
    /// What was answered.
    pub answers: BTreeMap<String, String>,
    /// Filters of others that were in the path.
    #[serde(default)]
    pub filters: Vec<String>,
    /// When: seconds since 1970.
    pub at: u64,
}

impl Begin {
    /// The answers.
    pub fn answers(&self) -> Answers {
        Answers(self.answers.clone())
    }
}

/// A part of a set-up, with what must be done around its changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// For people.
    pub title: String,
    /// After its changes.
    pub check: Vec<Command>,
    /// Then; and again when they have been taken back.
    pub activate: Vec<Command>,
    /// When they have been taken back at will.
    pub settle: Vec<Command>,
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The name of the copy below `kept`.
    pub copy: String,
    /// Mode, owner, extended attributes.
    #[serde(flatten)]
    pub attributes: Attributes,
}

/// All journals of a machine, held by one run at a time.
#[derive(Debug)]
pub struct Journals {
    folder: PathBuf,
    lock: File,
}

/// Why the journals cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another run holds them.
    #[error("another configure_mta is at work (it holds {}); wait until it has ended", .0.display())]
    Busy(PathBuf),
    /// They cannot be read or written.
    #[error("{}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A line is not understood.
    #[error("{}:{line}: not a line of a journal", path.display())]
    Unclear {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Journals {
    /// Those of a tree; makes the folder, and waits for nobody.
    ///
    /// # Errors
    /// When another run is at work, or the folder cannot be made.
    pub fn lock(tree: &Tree) -> Result<Self, JournalError> {
        let folder = place(tree);
        let io = |error| JournalError::Io(folder.clone(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io)?;
        let lock = folder.join("lock");
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = File::options().create(true).append(true).mode(0o600).custom_flags(flags).open(&lock).map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { folder, lock: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Busy(lock)),
            Err(error) => Err(io(error.into())),
        }
    }

    /// The lock itself, for another process to keep.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn share(&self) -> Result<File, JournalError> {
        self.lock.try_clone().map_err(|error| JournalError::Io(self.folder.join("lock"), error))
    }

    /// To look only: what the journals of a tree say, lowest first. None if there are none, or they are not ours to read.
    ///
    /// # Errors
    /// When one is there and is not understood.
    pub fn look(tree: &Tree) -> Result<Vec<Run>, JournalError> {
        runs(&place(tree))
    }

    /// All runs, lowest first.
    ///
    /// # Errors
    /// When one is not understood.
    pub fn runs(&self) -> Result<Vec<Run>, JournalError> {
        runs(&self.folder)
    }

    /// Begins one on top.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn begin(&self, begin: Begin) -> Result<Journal, JournalError> {
        let next = self.runs()?.last().map_or(1, |run| run.number + 1);
        let folder = self.folder.join(format!("{next:04}"));
        let io = |error| JournalError::Io(folder.clone(), error);
        fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io)?;
        fs::DirBuilder::new().mode(0o700).create(folder.join("kept")).map_err(io)?;
        let path = folder.join("journal");
        let file = File::options().create_new(true).append(true).mode(0o600).open(&path).map_err(io)?;
        sync(&folder).and_then(|()| sync(&self.folder)).map_err(io)?;
        let mut journal = Journal { folder, file, kept: 0 };
        journal.write(&Record::Begin(begin))?;
        Ok(journal)
    }

    /// Goes on with one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, run: &Run) -> Result<Journal, JournalError> {
        let folder = run.folder.clone();
        let io = |error| JournalError::Io(folder.clone(), error);
        let path = folder.join("journal");
        let whole = complete(&fs::read(&path).map_err(io)?);
        let file = File::options().append(true).open(&path).map_err(io)?;
        // A line that was cut off is no line.
        file.set_len(whole as u64).map_err(io)?;
        let kept = fs::read_dir(folder.join("kept")).map_err(io)?.count();
        Ok(Journal { folder, file, kept })
    }

    /// Forgets one whose every change has been taken back.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self, run: &Path) -> Result<(), JournalError> {
        let io = |error| JournalError::Io(run.to_owned(), error);
        // Out of sight at one blow: half a journal would be one that is not understood.
        let gone = self.folder.join(".gone");
        if gone.exists() {
            fs::remove_dir_all(&gone).map_err(io)?;
        }
        fs::rename(run, &gone).map_err(io)?;
        sync(&self.folder).map_err(io)?;
        fs::remove_dir_all(&gone).map_err(io)
    }

    /// Takes the folder away if no run is left in it, so that nothing of us stays.
    pub fn leave(self) {
        let gone = self.folder.join(".gone");
        // What cannot be removed does no harm.
        let _ = fs::remove_dir_all(gone);
        if runs(&self.folder).is_ok_and(|runs| runs.is_empty()) {
            let _ = fs::remove_file(self.folder.join("lock"));
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

fn place(tree: &Tree) -> PathBuf {
    tree.path().join(STATE.trim_start_matches('/'))
}

/// One journal that is being written.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    kept: usize,
}

impl Journal {
    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a line; it is on the disk when this returns.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        let io = |error| JournalError::Io(self.folder.join("journal"), error);
        let mut line = serde_json::to_vec(record).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(io)
    }

    /// Keeps a file as it is, then registers it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn register(&mut self, path: &str, was: Option<&Whole>) -> Result<(), JournalError> {
        let was = was.map(|whole| self.keep(whole)).transpose()?;
        self.write(&Record::Register { path: path.to_owned(), was })
    }

    /// Keeps a copy of a file, on the disk when this returns.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep(&mut self, whole: &Whole) -> Result<Kept, JournalError> {
        let copy = format!("{:04}", self.kept);
        let path = self.folder.join("kept").join(&copy);
        let io = |error| JournalError::Io(path.clone(), error);
        // One that a run left that was cut off before it registered it, may be there.
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&path).map_err(io)?;
        file.write_all(&whole.content).and_then(|()| file.sync_all()).map_err(io)?;
        sync(&self.folder.join("kept")).map_err(io)?;
        self.kept += 1;
        Ok(Kept { copy, attributes: whole.attributes.clone() })
    }
}

/// A journal, read.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which.
    pub number: u32,
    /// Where.
    pub folder: PathBuf,
    /// Its lines. The first is the beginning.
    pub records: Vec<Record>,
}

impl Run {
    /// What it is about; `None`: it was cut off before anything was done.
    pub fn begin(&self) -> Option<&Begin> {
        match self.records.first() {
            Some(Record::Begin(begin)) => Some(begin),
            _ => None,
        }
    }

    /// Has it been carried out, and not begun to be taken back?
    pub fn is_applied(&self) -> bool {
        self.records.last() == Some(&Record::Applied)
    }

    /// Has it begun to be taken back?
    pub fn is_undoing(&self) -> bool {
        self.records.contains(&Record::Undo)
    }

    /// A file as it was.
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub fn kept(&self, kept: &Kept) -> io::Result<Whole> {
        let content = fs::read(self.folder.join("kept").join(&kept.copy))?;
        Ok(Whole { content, attributes: kept.attributes.clone() })
    }
}

fn runs(folder: &Path) -> Result<Vec<Run>, JournalError> {
    let io = |error| JournalError::Io(folder.to_owned(), error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io(error)),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io)?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let folder = entry.path();
        let path = folder.join("journal");
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Cut off before its first line: nothing was done.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(JournalError::Io(path, error)),
        };
        let mut records = Vec::new();
        for (i, line) in text[..complete(&text)].lines().enumerate() {
            let line = line.map_err(|error| JournalError::Io(path.clone(), error))?;
            let unclear = |source| JournalError::Unclear { path: path.clone(), line: i + 1, source };
            records.push(serde_json::from_str(&line).map_err(unclear)?);
        }
        runs.push(Run { number, folder, records });
    }
    runs.sort_by_key(|run| run.number);
    Ok(runs)
}

/// The length of all whole lines.
fn complete(text: &[u8]) -> usize {
    text.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Begin {
        Begin {
            mta: "postfix".into(),
            instance: None,
            method: "postfix-milter".into(),
            answers: BTreeMap::new(),
            filters: Vec::new(),
            at: 0,
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_half_a_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let journals = Journals::lock(&tree).unwrap();
        assert!(matches!(Journals::lock(&tree), Err(JournalError::Busy(_))));
        let mut journal = journals.begin(begin()).unwrap();
        let attributes = Attributes { mode: 0o640, uid: 1, gid: 2, extended: vec![("user.x".into(), vec![0, 255])] };
        let whole = Whole { content: b"as it was".to_vec(), attributes };
        journal.register("/etc/x", Some(&whole)).unwrap();
        journal.write(&Record::Applied).unwrap();
        let path = journal.folder().join("journal");
        File::options().append(true).open(&path).unwrap().write_all(b"{\"regis").unwrap();
        let runs = journals.runs().unwrap();
        let [run] = &runs[..] else { panic!("{runs:?}") };
        assert!(run.is_applied() && !run.is_undoing());
        let Record::Register { was: Some(kept), .. } = &run.records[1] else { panic!("{run:?}") };
        assert_eq!(run.kept(kept).unwrap(), whole);
        journals.open(run).unwrap().write(&Record::Undo).unwrap();
        let run = journals.runs().unwrap().remove(0);
        assert!(run.is_undoing() && !run.is_applied());
        journals.forget(&run.folder).unwrap();
        journals.leave();
        assert!(!folder.path().join("var/lib/configure_mta").exists());
    }
}
