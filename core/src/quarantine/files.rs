//! The first store: for each mail its exact bytes, `ID.eml`, and its record, `ID.json`, in one directory.
//! Not an index and not shared between machines; two processes may use one directory (an old daemon that drains).
//!
//! Both files are written under names that begin with a dot, synced, and renamed, the record last: a mail that has
//! its record is complete. What a crash left is removed at the next start. A file being written is locked (flock),
//! so that a starting process tells the leftovers of a dead one from the work of a living one.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::reader::{is_id, path};
use super::{Entry, Quarantine, QuarantineConfig, QuarantineError, QuarantineReader};
use crate::content::Content;
use crate::fit::Fitted;
use crate::mail::Mail;
use crate::verdict::Verdict;

/// How much of a mail is in memory while it is copied.
const BLOCK: usize = 128 << 10;

/// A quarantine of files. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileQuarantine(Arc<Store>);

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Mails removed because of their age.
    pub old: usize,
    /// Mails removed to keep to the size.
    pub over: usize,
    /// Octets still kept.
    pub left: u64,
}

#[derive(Debug)]
struct Store {
    config: QuarantineConfig,
    books: Mutex<Books>,
}

/// Octets.
#[derive(Debug, Default)]
struct Books {
    stored: u64,
    /// Of stores under way.
    reserved: u64,
}

impl FileQuarantine {
    /// Makes the directory where there is none, takes away what a crash left, and counts what is there. Blocks.
    ///
    /// The directory gets mode 0700. An error is the file system's: no rights, not our directory.
    pub fn open(config: QuarantineConfig) -> io::Result<Self> {
        let directory = &config.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        if std::fs::metadata(directory)?.permissions().mode() & 0o777 != 0o700 {
            std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        }
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // Without the right to look into the parent, whoever made the directory has synced it, or not.
            File::open(parent).and_then(|parent| parent.sync_all()).ok();
        }
        let leftovers = remove_leftovers(directory)?;
        if leftovers > 0 {
            tracing::warn!(files = leftovers, directory = %directory.display(), "removed half-written quarantine files");
        }
        let stored = held(directory)?.iter().map(|held| held.octets).sum();
        Ok(Self(Arc::new(Store { config, books: Mutex::new(Books { stored, reserved: 0 }) })))
    }

    /// Removes what is too old, then the oldest until the rest is within the size. To be called now and then; a
    /// store makes room by itself.
    pub async fn sweep(&self) -> Result<Swept, QuarantineError> {
        let store = Arc::clone(&self.0);
        blocking(move || store.sweep(SystemTime::now())).await
    }

    /// Its reading side.
    pub fn reader(&self) -> QuarantineReader {
        QuarantineReader::new(&self.0.config)
    }
}

#[async_trait]
impl Quarantine for FileQuarantine {
    async fn store(&self, mail: &Mail, verdict: &Verdict, fitted: &Fitted) -> Result<Arc<str>, QuarantineError> {
        let now = SystemTime::now();
        let record = serde_json::to_vec_pretty(&Entry::new(mail, verdict, fitted, now)).map_err(io::Error::from)?;
        let id: Arc<str> = mail.id.as_str().into();
        let (store, content, name) = (Arc::clone(&self.0), mail.content.clone(), Arc::clone(&id));
        blocking(move || store.keep(&name, &content, &record)).await?;
        Ok(id)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QuarantineError> + Send + 'static,
) -> Result<T, QuarantineError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

impl Store {
    fn keep(&self, id: &str, content: &Content, record: &[u8]) -> Result<(), QuarantineError> {
        let directory = &self.config.directory;
        let reserved = self.reserve(content.len() + record.len() as u64)?;
        // Dropped in the reverse order when something fails: the record goes before the mail.
        let mut mail = Scratch::create(directory, id, "eml")?;
        let mut json = Scratch::create(directory, id, "json")?;
        copy(content, &mut mail.file)?;
        mail.file.sync_all()?;
        json.file.write_all(record)?;
        json.file.sync_all()?;
        mail.rename()?;
        json.rename()?;
        File::open(directory)?.sync_all()?;
        mail.complete = true;
        json.complete = true;
        reserved.settle();
        Ok(())
    }

    /// Room for so many octets, made by removing the oldest where there is none.
    fn reserve(&self, octets: u64) -> Result<Reserved<'_>, QuarantineError> {
        let limit = self.config.max_size.as_u64();
        if octets > limit {
            return Err(QuarantineError::Full);
        }
        let mut books = self.books();
        if books.stored + books.reserved + octets > limit {
            // Some more than needed, so that not every store reads the whole directory when it is full.
            let target = limit - limit / 20;
            let swept = self.make_room(&mut books, octets, target)?;
            tracing::warn!(removed = swept, "the quarantine is at max_size: the oldest mails made room");
            if books.stored + books.reserved + octets > limit {
                return Err(QuarantineError::Full);
            }
        }
        books.reserved += octets;
        Ok(Reserved { store: self, octets })
    }

    fn sweep(&self, now: SystemTime) -> Result<Swept, QuarantineError> {
        let mut books = self.books();
        let mut swept = Swept::default();
        for held in held(&self.config.directory)? {
            // From the future (the clock was set back): it waits until its time is over.
            if now.duration_since(held.kept).is_ok_and(|age| age > self.config.keep_for.duration()) {
                held.remove(&self.config.directory)?;
                swept.old += 1;
            }
        }
        swept.over = self.make_room(&mut books, 0, self.config.max_size.as_u64())?;
        swept.left = books.stored;
        Ok(swept)
    }

    /// Counts anew, and removes the oldest until what is kept, what is being stored and `octets` more are within
    /// `target`. How many it removed.
    fn make_room(&self, books: &mut Books, octets: u64, target: u64) -> Result<usize, QuarantineError> {
        let mut held = held(&self.config.directory)?;
        held.sort_by(|a, b| (a.kept, &a.id).cmp(&(b.kept, &b.id)));
        books.stored = held.iter().map(|held| held.octets).sum();
        let mut removed = 0;
        for oldest in held {
            if books.stored + books.reserved + octets <= target {
                break;
            }
            oldest.remove(&self.config.directory)?;
            books.stored = books.stored.saturating_sub(oldest.octets);
            removed += 1;
        }
        Ok(removed)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that was promised to a store under way.
struct Reserved<'a> {
    store: &'a Store,
    octets: u64,
}

impl Reserved<'_> {
    /// The mail is there. A sweep between its renaming and now has counted it twice, until the next.
    fn settle(self) {
        self.store.books().stored += self.octets;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut books = self.store.books();
        books.reserved = books.reserved.saturating_sub(self.octets);
    }
}

/// A file on its way into the store; gone when dropped before it is complete.
struct Scratch {
    file: File,
    /// Where it is now.
    path: PathBuf,
    /// Where it is to be.
    goal: PathBuf,
    complete: bool,
}

impl Scratch {
    fn create(directory: &Path, id: &str, extension: &str) -> Result<Self, QuarantineError> {
        let goal = path(directory, id, extension)?;
        let path = directory.join(format!(".{id}.{extension}.new"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let scratch = Self { file, path, goal, complete: false };
        // A process that starts just now may take the file for a leftover before this: then the renaming fails, and
        // the mail is deferred.
        scratch.file.lock()?;
        // Only now: whoever stores the same mail has either still the name above, or this one already.
        if scratch.goal.try_exists()? {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
        }
        Ok(scratch)
    }

    fn rename(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, &self.goal)?;
        self.path.clone_from(&self.goal);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.complete
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(file = %self.path.display(), %error, "a half-written quarantine file stays until the next start");
        }
    }
}

/// A mail in the store.
struct Held {
    id: String,
    kept: SystemTime,
    octets: u64,
}

impl Held {
    /// The record first: without it the mail is a leftover, with it alone it would be listed.
    fn remove(&self, directory: &Path) -> Result<(), QuarantineError> {
        remove_if_there(&path(directory, &self.id, "json")?)?;
        remove_if_there(&path(directory, &self.id, "eml")?)?;
        Ok(())
    }
}

/// Every mail with a record, in no order.
fn held(directory: &Path) -> io::Result<Vec<Held>> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(directory)? {
        let name = file?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| is_id(id)) else {
            continue;
        };
        let record = match std::fs::symlink_metadata(directory.join(&name)) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mail = std::fs::symlink_metadata(directory.join(format!("{id}.eml"))).map_or(0, |mail| mail.len());
        all.push(Held { id: id.to_owned(), kept: record.modified()?, octets: record.len() + mail });
    }
    Ok(all)
}

/// Half-written files and mails without a record whose writer is gone. How many.
fn remove_leftovers(directory: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for file in std::fs::read_dir(directory)? {
        let name = file?.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = directory.join(name);
        let unfinished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
        let is_ours =
            |name: &str| name.rsplit_once('.').is_some_and(|(id, kind)| is_id(id) && ["eml", "json"].contains(&kind));
        let leftover = match unfinished {
            Some(name) => is_ours(name),
            None => name.strip_suffix(".eml").is_some_and(is_id) && !path.with_extension("json").try_exists()?,
        };
        if !leftover {
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            // Renamed or removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Locked: it is being written. No longer locked, and complete by now: not ours to remove.
        if file.try_lock().is_err() || (unfinished.is_none() && path.with_extension("json").try_exists()?) {
            continue;
        }
        removed += usize::from(remove_if_there(&path)?);
    }
    Ok(removed)
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn copy(content: &Content, to: &mut File) -> io::Result<()> {
    if let Some(bytes) = content.as_slice() {
        return to.write_all(bytes);
    }
    let mut reader = content.reader();
    let mut block = vec![0; BLOCK];
    let mut copied = 0;
    loop {
        match reader.read(&mut block) {
            Ok(0) => break,
            Ok(count) => {
                to.write_all(&block[..count])?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // A spool file that was cut off by somebody else: the copy would not be the mail.
    if copied == content.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests;
