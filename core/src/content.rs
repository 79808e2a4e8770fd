//! A mail's bytes: in memory up to a limit, then in an unlinked spool file.
//!
//! They are stored once and shared. A [`ContentWriter`] takes them as they come, a finished
//! [`Content`] can be read as a slice, as a stream, at an offset, and as a file descriptor.

pub mod header;
pub mod mime;
pub(crate) mod zip;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustix::fs::{MemfdFlags, Mode, OFlags};

/// Where contents above the memory limit go.
#[derive(Debug, Clone)]
pub struct Spool {
    /// A directory of ours, on a disk: the files in it have no names.
    pub directory: PathBuf,
    /// Contents up to this many octets stay in memory.
    pub memory_limit: usize,
}

impl Spool {
    /// The default memory limit, 1.25 MiB: a mail with a photograph stays in memory, and fifty
    /// sessions at the limit take 64 MiB.
    pub const MEMORY_LIMIT: usize = 1280 << 10;

    /// Octets that must be free on the spool's disk: 64 MiB.
    pub const LOW: u64 = 64 << 20;

    /// With the default memory limit.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), memory_limit: Self::MEMORY_LIMIT }
    }

    /// Has the disk less than [`Spool::LOW`] free, so that no new mail should be begun? False when that
    /// cannot be told: writing will tell.
    pub fn is_low(&self) -> bool {
        rustix::fs::statvfs(&self.directory).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < Self::LOW)
    }

    /// A file without a name in the spool directory (O_TMPFILE; an unlinked one where the file
    /// system has no such thing).
    pub fn unnamed_file(&self) -> io::Result<File> {
        unnamed_file(&self.directory)
    }
}

/// Collects a mail's bytes.
#[derive(Debug)]
pub struct ContentWriter {
    spool: Arc<Spool>,
    memory: BytesMut,
    file: Option<File>,
    length: u64,
}

impl ContentWriter {
    /// An empty one.
    pub fn new(spool: Arc<Spool>) -> Self {
        Self { spool, memory: BytesMut::new(), file: None, length: 0 }
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Nothing yet?
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes more bytes. An error is the spool's: disk full, no such directory. After an error the
    /// writer is of no more use.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(bytes);
        }
        if self.memory.len() + bytes.len() <= self.spool.memory_limit {
            self.memory.extend_from_slice(bytes);
            return Ok(());
        }
        let mut file = self.spool.unnamed_file()?;
        file.write_all(&self.memory)?;
        file.write_all(bytes)?;
        self.memory = BytesMut::new();
        self.file = Some(file);
        Ok(())
    }

    /// The finished content.
    pub fn finish(self) -> Content {
        match self.file {
            Some(file) => Content(Arc::new(Stored::File { file, length: self.length })),
            None => Content::from(self.memory.freeze()),
        }
    }
}

/// A mail's bytes, finished. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Content(Arc<Stored>);

#[derive(Debug)]
enum Stored {
    Memory(Bytes),
    File { file: File, length: u64 },
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self(Arc::new(Stored::Memory(bytes)))
    }
}

impl From<&'static [u8]> for Content {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from(Bytes::from_static(bytes))
    }
}

impl Content {
    /// Octets.
    pub fn len(&self) -> u64 {
        match &*self.0 {
            Stored::Memory(bytes) => bytes.len() as u64,
            Stored::File { length, .. } => *length,
        }
    }

    /// No octets at all?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, when it is in memory. A spooled content has no slice: see [`Content::reader`],
    /// [`Content::read_at`] and, for a bounded piece, [`Content::prefix`].
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &*self.0 {
            Stored::Memory(bytes) => Some(bytes),
            Stored::File { .. } => None,
        }
    }

    /// All of it as shared bytes, when it is in memory.
    pub fn as_bytes(&self) -> Option<Bytes> {
        match &*self.0 {
            Stored::Memory(bytes) => Some(bytes.clone()),
            Stored::File { .. } => None,
        }
    }

    /// The first octets, at most `limit`: borrowed from memory, or read from the spool file.
    pub fn prefix(&self, limit: usize) -> io::Result<Bytes> {
        match &*self.0 {
            Stored::Memory(bytes) => Ok(bytes.slice(..bytes.len().min(limit))),
            Stored::File { length, .. } => {
                let mut buffer = vec![0; limit.min(usize::try_from(*length).unwrap_or(usize::MAX))];
                let read = self.read_full_at(&mut buffer, 0)?;
                buffer.truncate(read);
                Ok(buffer.into())
            }
        }
    }

    /// Reads at an offset, moving no position: any number of readers at once. 0 at the end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &*self.0 {
            Stored::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let count = buffer.len().min(bytes.len() - start);
                buffer[..count].copy_from_slice(&bytes[start..start + count]);
                Ok(count)
            }
            Stored::File { file, length } => {
                let left = length.saturating_sub(offset);
                let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                file.read_at(&mut buffer[..count], offset)
            }
        }
    }

    /// Like [`Content::read_at`], until the buffer is full or the content ends.
    pub fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// A stream over all of it, with a position of its own.
    pub fn reader(&self) -> Reader {
        Reader { content: self.clone(), position: 0 }
    }

    /// A descriptor to read all of it from its start, with a file position of its own, for a
    /// scanner that takes one. A spooled content is opened again read-only; one in memory is put
    /// into a sealed memfd, the one case where it is copied.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        match &*self.0 {
            Stored::Memory(bytes) => {
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
                let mut file = File::from(rustix::fs::memfd_create("checkpost-mail", flags)?);
                file.write_all(bytes)?;
                rustix::fs::fcntl_add_seals(
                    &file,
                    rustix::fs::SealFlags::SEAL
                        | rustix::fs::SealFlags::SHRINK
                        | rustix::fs::SealFlags::GROW
                        | rustix::fs::SealFlags::WRITE,
                )?;
                reopen(&file)
            }
            Stored::File { file, .. } => reopen(file),
        }
    }

    /// Is it in a spool file, so that reading it may wait for a disk?
    pub fn is_spooled(&self) -> bool {
        matches!(&*self.0, Stored::File { .. })
    }
}

/// A stream over a [`Content`].
#[derive(Debug, Clone)]
pub struct Reader {
    content: Content,
    position: u64,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.content.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The same file once more, read-only and with a position of its own: dup(2) would share it.
fn reopen(file: &File) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn unnamed_file(directory: &Path) -> io::Result<File> {
    // tempfile tries O_TMPFILE first and falls back to create-and-unlink.
    tempfile::tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(bytes: &[u8]) -> [(Content, tempfile::TempDir); 2] {
        [1 << 20, 4].map(|memory_limit| {
            let directory = tempfile::tempdir().unwrap();
            let spool = Arc::new(Spool { directory: directory.path().into(), memory_limit });
            let mut writer = ContentWriter::new(spool);
            for chunk in bytes.chunks(3) {
                writer.append(chunk).unwrap();
            }
            assert_eq!(writer.len(), bytes.len() as u64);
            (writer.finish(), directory)
        })
    }

    #[test]
    fn memory_and_spool_read_alike() {
        let bytes = b"0123456789";
        let [memory, file] = both(bytes);
        assert!(!memory.0.is_spooled() && file.0.is_spooled());
        assert_eq!(std::fs::read_dir(file.1.path()).unwrap().count(), 0, "the spool file has a name");
        for (content, _directory) in [memory, file] {
            let mut all = Vec::new();
            content.reader().read_to_end(&mut all).unwrap();
            assert_eq!(all, bytes);
            assert_eq!(&content.prefix(4).unwrap()[..], b"0123");
            let mut middle = [0; 4];
            assert_eq!(content.read_full_at(&mut middle, 8).unwrap(), 2);
            assert_eq!(content.read_at(&mut middle, 99).unwrap(), 0);
            for _ in 0..2 {
                let mut through_descriptor = Vec::new();
                File::from(content.descriptor().unwrap()).read_to_end(&mut through_descriptor).unwrap();
                assert_eq!(through_descriptor, bytes);
            }
            assert!(File::from(content.descriptor().unwrap()).write_all(b"x").is_err());
        }
    }

    #[test]
    fn a_spool_that_is_not_there_is_an_error_and_no_panic() {
        let spool = Arc::new(Spool { directory: "/nonexistent".into(), memory_limit: 2 });
        assert!(ContentWriter::new(spool).append(b"123").is_err());
    }
}
