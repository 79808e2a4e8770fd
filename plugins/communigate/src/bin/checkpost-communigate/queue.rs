//! Mails in the server's queue: opened with care, read, never changed, never locked.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use checkpost_communigate::envelope::{self, Envelope, EnvelopeError};
use ring::digest::{Context, SHA256};
use rustix::fs::{Mode, OFlags};

/// Read at once, in octets; the start of most messages is within it.
pub(crate) const BLOCK: usize = 64 << 10;

/// The server's base directory.
#[derive(Debug, Clone)]
pub(crate) struct Base(PathBuf);

/// An open mail.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) file: File,
    pub(crate) envelope: Envelope,
    /// Where the message begins.
    pub(crate) offset: u64,
    /// How long it is.
    pub(crate) length: u64,
    /// Its start.
    pub(crate) start: Vec<u8>,
    pub(crate) stamp: Stamp,
}

/// What of a file does not change while the server leaves it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: i128,
}

/// Why a mail cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueueError {
    #[error("its path leads out of {}", .0.display())]
    Outside(PathBuf),
    #[error("its file is no regular file")]
    NoFile,
    #[error("its file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
}

impl Base {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Opens a file that the server names. Its first folder may be a link, for administrators move queues to other
    /// disks; below it nothing is.
    pub(crate) fn open(&self, name: &[u8]) -> Result<File, QueueError> {
        let name = Path::new(std::ffi::OsStr::from_bytes(name));
        let outside = || QueueError::Outside(self.0.clone());
        let relative = if name.is_absolute() { name.strip_prefix(&self.0).map_err(|_| outside())? } else { name };
        let mut names = Vec::new();
        for part in relative.components() {
            match part {
                Component::Normal(part) => names.push(part),
                Component::CurDir => {}
                _ => return Err(outside()),
            }
        }
        let (file, folders) = names.split_last().ok_or_else(outside)?;
        let mut folder: OwnedFd = File::open(&self.0)?.into();
        for (depth, name) in folders.iter().enumerate() {
            let link = if depth == 0 { OFlags::empty() } else { OFlags::NOFOLLOW };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | link;
            folder = rustix::fs::openat(&folder, *name, flags, Mode::empty()).map_err(io::Error::from)?;
        }
        // A pipe must not keep us waiting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder.as_fd(), *file, flags, Mode::empty()).map_err(io::Error::from)?;
        let file = File::from(file);
        if file.metadata()?.is_file() { Ok(file) } else { Err(QueueError::NoFile) }
    }

    /// Opens a mail and reads its envelope.
    pub(crate) fn mail(&self, name: &[u8]) -> Result<Mail, QueueError> {
        let file = self.open(name)?;
        let stamp = Stamp::of(&file)?;
        let (mut start, mut seen) = (Vec::new(), 0);
        let length = loop {
            let before = start.len();
            start.resize(before + BLOCK, 0);
            let count = read_at(&file, &mut start[before..], before as u64)?;
            start.truncate(before + count);
            if let Some(length) = envelope::length(&start, &mut seen) {
                break length;
            }
            if count == 0 {
                return Err(EnvelopeError::Open.into());
            }
            if start.len() > envelope::MAX_SIZE {
                return Err(EnvelopeError::TooLarge.into());
            }
        };
        let envelope = Envelope::parse(&start[..length])?;
        start.drain(..length);
        start.shrink_to_fit();
        let offset = length as u64;
        let length = stamp.size.checked_sub(offset).ok_or_else(|| io::Error::other("it became shorter"))?;
        Ok(Mail { file, envelope, offset, length, start, stamp })
    }
}

impl Mail {
    /// Is the file of this name still this one, and as it was?
    pub(crate) fn is_still(&self, base: &Base, name: &[u8]) -> bool {
        let same = || -> Result<bool, QueueError> {
            let there = base.open(name)?;
            let (mine, theirs) = (self.file.metadata()?, there.metadata()?);
            Ok((mine.dev(), mine.ino()) == (theirs.dev(), theirs.ino()) && Stamp::of(&there)? == self.stamp)
        };
        same().unwrap_or(false)
    }

    /// The message, to be read once.
    pub(crate) fn message(&self) -> impl Read + '_ {
        Section { file: &self.file, at: self.offset, end: self.offset + self.length }
    }

    /// A digest of the whole file, envelope and message.
    pub(crate) fn digest(&self) -> io::Result<[u8; 32]> {
        let mut context = Context::new(&SHA256);
        let mut whole = Section { file: &self.file, at: 0, end: self.stamp.size };
        let mut block = vec![0; BLOCK];
        loop {
            match whole.read(&mut block) {
                Ok(0) => break,
                Ok(count) => context.update(&block[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Ok(digest)
    }
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let about = file.metadata()?;
        let modified = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
        Ok(Self { size: about.len(), modified })
    }
}

/// A part of a file, which its offset does not matter to.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    pub(crate) file: &'a File,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(block.len());
        let count = self.file.read_at(&mut block[..left], self.at)?;
        if count == 0 && left > 0 {
            return Err(io::Error::other("the file became shorter while it was read"));
        }
        self.at += count as u64;
        Ok(count)
    }
}

fn read_at(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(block, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn base() -> (tempfile::TempDir, Base) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("Queue/01-09")).unwrap();
        let base = Base::new(folder.path().to_owned());
        (folder, base)
    }

    #[test]
    fn only_regular_files_below_the_base_are_opened() {
        let (folder, base) = base();
        let path = |name: &str| folder.path().join(name);
        let outside = tempfile::tempdir().unwrap();
        for file in ["Queue/1.msg", "Queue/01-09/2.msg", "top"] {
            fs::write(path(file), "x").unwrap();
        }
        fs::write(outside.path().join("3.msg"), "secret").unwrap();
        symlink("1.msg", path("Queue/link.msg")).unwrap();
        symlink(outside.path(), path("Queue/elsewhere")).unwrap();
        symlink(outside.path(), path("Moved")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("Queue/pipe.msg"), Mode::RWXU).unwrap();
        let absolute = path("Queue/1.msg").into_os_string().into_encoded_bytes();
        for name in [&b"Queue/1.msg"[..], b"./Queue//01-09/2.msg", b"top", b"Moved/3.msg", &absolute] {
            assert!(base.open(name).is_ok(), "{}", name.escape_ascii());
        }
        let wrong: [&[u8]; 13] = [
            b"/etc/passwd",
            b"../x",
            b"Queue/../top",
            b"Queue/link.msg",
            b"Queue/elsewhere/3.msg",
            b"Queue/pipe.msg",
            b"Queue",
            b"Queue/01-09",
            b"Queue/4.msg",
            b"",
            b"/",
            b".",
            b"Queue/1.msg/x",
        ];
        for name in wrong {
            assert!(base.open(name).is_err(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn envelopes_of_any_length_are_read() {
        let (folder, base) = base();
        let file = folder.path().join("Queue/1.msg");
        let message = "Subject: x\n\nbody\n";
        for recipients in [0, 1, 1000, 20_000] {
            let lines = "R W 26-04-2019 15:57:14 0000 ____ _FY_ <someone@example.net>\n".repeat(recipients);
            let text = format!("S SMTP [192.0.2.1]\nP I <a@x>\n{lines}\n");
            fs::write(&file, format!("{text}{message}")).unwrap();
            let mail = base.mail(b"Queue/1.msg").unwrap();
            assert_eq!(mail.envelope.recipients.len(), recipients);
            assert_eq!((mail.offset, mail.length), (text.len() as u64, message.len() as u64));
            assert!(message.as_bytes().starts_with(&mail.start));
            let mut read = String::new();
            mail.message().read_to_string(&mut read).unwrap();
            assert_eq!(read, message);
            assert!(mail.is_still(&base, b"Queue/1.msg"));
        }
        let mail = base.mail(b"Queue/1.msg").unwrap();
        let digest = mail.digest().unwrap();
        fs::write(folder.path().join("Queue/2.msg"), fs::read(&file).unwrap()).unwrap();
        assert_eq!(base.mail(b"Queue/2.msg").unwrap().digest().unwrap(), digest);
        fs::rename(folder.path().join("Queue/2.msg"), &file).unwrap();
        assert!(!mail.is_still(&base, b"Queue/1.msg"), "another file of the same octets");
        fs::remove_file(&file).unwrap();
        assert!(!mail.is_still(&base, b"Queue/1.msg"));
        for (text, error) in [
            ("", EnvelopeError::Open),
            ("P I <a@x>\nR W <b@x>\n", EnvelopeError::Open),
            ("\nbody", EnvelopeError::Unknown),
        ] {
            fs::write(&file, text).unwrap();
            assert!(matches!(base.mail(b"Queue/1.msg"), Err(QueueError::Envelope(is)) if is == error), "{text:?}");
        }
        fs::write(&file, "X\n".repeat(envelope::MAX_SIZE / 2 + BLOCK)).unwrap();
        assert!(matches!(base.mail(b"Queue/1.msg"), Err(QueueError::Envelope(EnvelopeError::TooLarge))));
    }
}
