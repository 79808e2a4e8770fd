//! What was handed in instead of mails that the server may ask about again: after this program was killed, it asks about
//! all that had no answer, and nobody must get those twice.
//!
//! A record is written before the first of a mail's files gets the name under which the server takes it, so a record means:
//! give the names to those that have them not yet, and tell the server to drop the mail. It is forgotten when the mail's
//! file is gone. A mail is known by its file's name, size, time and octets: the queue uses names again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use checkpost_communigate::string;
use ring::digest::{SHA256, digest};
use rustix::fs::FlockOperation;

use crate::queue::{Base, Stamp};

/// Written anew without what is forgotten when it is larger, in octets.
const LARGE: u64 = 1 << 20;
/// More records than that are a fault: no more mails are handed in until the server has taken some.
const MOST: usize = 10_000;

/// The open journal. Nobody else has it open.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    _lock: File,
    size: u64,
    /// By the name of the mail's file.
    records: HashMap<Vec<u8>, Record>,
}

/// A mail for which others are handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) stamp: Stamp,
    pub(crate) digest: [u8; 32],
    /// Files in `Submitted`, without their endings.
    pub(crate) names: Vec<String>,
}

impl Journal {
    /// Opens the journal in this folder, which is made if it is missing.
    ///
    /// # Errors
    /// It cannot be; among others, because another process of this program has it.
    pub(crate) fn open(folder: &Path, base: &Base) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Held as long as the journal is; the journal itself is replaced.
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another checkpost-communigate has it"),
            error => error.into(),
        })?;
        let path = folder.join("journal");
        let mut text = Vec::new();
        match File::open(&path) {
            Ok(mut file) => drop(file.read_to_end(&mut text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // A last line that is not whole was never acted upon.
        let records = text.split(|octet| *octet == b'\n').filter_map(read).collect();
        let mut journal = Self { path, _lock: lock, size: 0, records };
        journal.rewrite(base)?;
        Ok(journal)
    }

    /// The record of a mail, if its file has this name and stamp. Whether it is the same mail its octets say.
    pub(crate) fn find(&self, name: &[u8], stamp: Stamp) -> Option<&Record> {
        self.records.get(name).filter(|record| record.stamp == stamp)
    }

    /// All files that are spoken of.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.records.values().flat_map(|record| record.names.iter().map(String::as_str))
    }

    /// Keeps a record; it is on the disk then.
    ///
    /// # Errors
    /// It could not be written, and does not count.
    pub(crate) fn keep(&mut self, name: &[u8], record: Record, base: &Base) -> io::Result<()> {
        if self.size > LARGE || self.records.len() >= MOST {
            self.rewrite(base)?;
            if self.records.len() >= MOST {
                return Err(io::Error::other(format!("{MOST} mails wait to be dropped by the server")));
            }
        }
        let line = written(name, &record);
        let kept = append(&self.path, &line);
        if kept.is_err() {
            // Half a line at the end would spoil the next one.
            self.rewrite(base)?;
        }
        kept?;
        self.size += line.len() as u64;
        self.records.insert(name.to_vec(), record);
        Ok(())
    }

    /// Writes all anew but what is forgotten.
    fn rewrite(&mut self, base: &Base) -> io::Result<()> {
        let still = |name: &[u8], stamp: Stamp| {
            let file = match base.open(name) {
                Ok(file) => file,
                // Only what is surely gone is.
                Err(crate::queue::QueueError::Io(error)) => return error.kind() != io::ErrorKind::NotFound,
                Err(_) => return false,
            };
            Stamp::of(&file).is_ok_and(|there| there == stamp)
        };
        self.records.retain(|name, record| still(name, record.stamp));
        let text: Vec<u8> = self.records.iter().flat_map(|(name, record)| written(name, record)).collect();
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_folder(self.path.parent().unwrap_or(Path::new("/")))?;
        self.size = text.len() as u64;
        Ok(())
    }
}

/// What was done to the names in a folder is on the disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(line)?;
    file.sync_data()
}

/// `SUM SIZE MODIFIED DIGEST NAME,NAME "path"`, the sum over what follows it.
fn written(name: &[u8], record: &Record) -> Vec<u8> {
    let Record { stamp, digest, names } = record;
    let text = format!("{} {} {} {} ", stamp.size, stamp.modified, hex(digest), names.join(","));
    let text = [text.as_bytes(), &string::write(name, usize::MAX).0].concat();
    [sum(&text).as_bytes(), b" ", &text, b"\n"].concat()
}

fn read(line: &[u8]) -> Option<(Vec<u8>, Record)> {
    let (head, text) = line.split_at_checked(17)?;
    (head.strip_suffix(b" ")? == sum(text).as_bytes()).then_some(())?;
    let (fields, name) = text.split_at(text.iter().position(|octet| *octet == b'"')?);
    let (name, _) = string::read(name).ok()?;
    let mut fields = std::str::from_utf8(fields).ok()?.split(' ');
    let stamp = Stamp { size: fields.next()?.parse().ok()?, modified: fields.next()?.parse().ok()? };
    let digest = from_hex(fields.next()?)?;
    let names = fields.next()?.split(',').map(str::to_owned).collect();
    Some((name, Record { stamp, digest, names }))
}

fn sum(text: &[u8]) -> String {
    hex(&digest(&SHA256, text).as_ref()[..8])
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut octets = [0; 32];
    for (at, octet) in octets.iter_mut().enumerate() {
        *octet = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    (text.len() == 64).then_some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        base: Base,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("Queue")).unwrap();
            let base = Base::new(folder.path().to_owned());
            Self { folder, base }
        }

        fn mail(&self, name: &str) -> Stamp {
            let path = self.folder.path().join(name);
            fs::write(&path, name).unwrap();
            Stamp::of(&File::open(path).unwrap()).unwrap()
        }

        fn open(&self) -> io::Result<Journal> {
            Journal::open(&self.folder.path().join("state"), &self.base)
        }

        fn journal(&self) -> PathBuf {
            self.folder.path().join("state/journal")
        }
    }

    fn record(stamp: Stamp) -> Record {
        Record { stamp, digest: [7; 32], names: vec!["a".into(), "b".into()] }
    }

    #[test]
    fn records_outlive_the_program_and_not_their_mails() {
        let scene = Scene::new();
        let (one, two) = (scene.mail("Queue/1.msg"), scene.mail("Queue/2 \"x\".msg"));
        {
            let mut journal = scene.open().unwrap();
            journal.keep(b"Queue/1.msg", record(one), &scene.base).unwrap();
            journal.keep(b"Queue/2 \"x\".msg", record(two), &scene.base).unwrap();
            assert!(scene.open().unwrap_err().to_string().contains("another checkpost-communigate"));
        }
        // Half a record, as of a machine that lost its power.
        let mut file = OpenOptions::new().append(true).open(scene.journal()).unwrap();
        let half = written(b"Queue/3.msg", &record(one));
        file.write_all(&half[..half.len() - 4]).unwrap();
        {
            let journal = scene.open().unwrap();
            assert_eq!(journal.find(b"Queue/1.msg", one), Some(&record(one)));
            assert_eq!(journal.find(b"Queue/2 \"x\".msg", two), Some(&record(two)));
            assert_eq!(journal.find(b"Queue/1.msg", Stamp { size: 0, ..one }), None);
            assert_eq!((journal.records.len(), journal.names().count()), (2, 4));
        }
        // One is dropped by the server, and the other's name is used again.
        fs::remove_file(scene.folder.path().join("Queue/1.msg")).unwrap();
        fs::write(scene.folder.path().join("Queue/2 \"x\".msg"), "another mail").unwrap();
        let journal = scene.open().unwrap();
        assert_eq!(journal.records.len(), 0);
        assert_eq!(fs::read(scene.journal()).unwrap(), b"");
    }

    #[test]
    fn it_stays_small() {
        let scene = Scene::new();
        let mut journal = scene.open().unwrap();
        let stamp = scene.mail("Queue/1.msg");
        let line = written(b"Queue/1.msg", &record(stamp)).len() as u64;
        for _ in 0..2 * LARGE / line {
            journal.size += line;
            if journal.size > LARGE {
                journal.keep(b"Queue/1.msg", record(stamp), &scene.base).unwrap();
                break;
            }
        }
        assert!(journal.size < 3 * line && fs::metadata(scene.journal()).unwrap().len() < 3 * line);
        let many = (0..MOST).map(|number| (format!("Queue/{number}.msg").into_bytes(), record(stamp)));
        journal.records.extend(many);
        // None but the first has a file.
        journal.keep(b"Queue/1.msg", record(stamp), &scene.base).unwrap();
        assert_eq!(journal.records.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in proptest::collection::vec(1u8.., 1..20), size: u64, modified: i64, digest: [u8; 32]) {
            let record = Record { stamp: Stamp { size, modified: modified.into() }, digest, names: vec!["x-1".into()] };
            let line = written(&name, &record);
            let line = line.strip_suffix(b"\n").unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(read(line), Some((name, record)));
            prop_assert_eq!(read(&line[..line.len() - 1]), None);
        }

        #[test]
        fn no_line_panics(line in "[0-9a-f ,\"\\\\]{0,120}") {
            prop_assert_eq!(read(line.as_bytes()), None);
        }
    }
}
