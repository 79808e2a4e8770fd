//! What the caller sends: the message at descriptor 0 to its end, then the envelope at descriptor 1.
//!
//! In this order only: the caller closes the message before it begins with the envelope, and waits for each to be
//! read (qmail.c). What it is is decided when both are whole.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use checkpost_qmail::map::Exit;
use checkpost_qmail::session::{self, Envelope, EnvelopeReader};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open, openat, unlinkat};
use rustix::io::{Errno, pread, read, retry_on_intr, write};

/// A message up to this size stays in memory, and not in ours: the descriptor's.
const IN_MEMORY: u64 = 1 << 20;

/// Read at once.
const BLOCK: usize = 32 << 10;

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum MessageError {
    Read(Errno),
    Write(io::Error),
}

impl MessageError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Read(_) => Exit::Read,
            Self::Write(_) => Exit::Write,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Write(error) => write!(f, "cannot be stored: {error}"),
        }
    }
}

/// Why there is no envelope.
pub(crate) enum EnvelopeError {
    Wrong(session::EnvelopeError),
    Read(Errno),
}

/// The whole message in a file without a name. A large one is put into `spool`.
pub(crate) fn message(spool: &Path) -> Result<OwnedFd, MessageError> {
    let mut store = in_memory().map_err(MessageError::Write)?;
    let mut size = 0;
    let mut spilled = false;
    let mut block = vec![0; BLOCK];
    loop {
        let count = retry_on_intr(|| read(rustix::stdio::stdin(), &mut block)).map_err(MessageError::Read)?;
        if count == 0 {
            return Ok(store);
        }
        if !spilled && size + count as u64 > IN_MEMORY {
            store = spill(&store, spool).map_err(MessageError::Write)?;
            spilled = true;
        }
        write_all(store.as_fd(), &block[..count]).map_err(MessageError::Write)?;
        size += count as u64;
    }
}

/// The envelope to its last NUL.
pub(crate) fn envelope() -> Result<Envelope, EnvelopeError> {
    let mut reader = EnvelopeReader::default();
    let mut block = vec![0; BLOCK];
    loop {
        let count = retry_on_intr(|| read(rustix::stdio::stdout(), &mut block)).map_err(EnvelopeError::Read)?;
        if count == 0 || reader.feed(&block[..count]).map_err(EnvelopeError::Wrong)? {
            return reader.finish().map_err(EnvelopeError::Wrong);
        }
    }
}

/// An empty file in memory, readable and writable.
pub(crate) fn in_memory() -> io::Result<OwnedFd> {
    Ok(memfd_create("checkpost-qmail-queue", MemfdFlags::CLOEXEC)?)
}

/// Writes all of it.
pub(crate) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry_on_intr(|| write(to, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

fn spill(from: &OwnedFd, spool: &Path) -> io::Result<OwnedFd> {
    let file = unnamed(spool).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", spool.display())))?;
    let mut block = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        let count = retry_on_intr(|| pread(from, &mut block, offset))?;
        if count == 0 {
            return Ok(file);
        }
        write_all(file.as_fd(), &block[..count])?;
        offset += count as u64;
    }
}

/// A file that is gone when the last descriptor is, however that comes about.
fn unnamed(folder: &Path) -> io::Result<OwnedFd> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match open(folder, flags | OFlags::TMPFILE, mode) {
        Ok(file) => return Ok(file),
        // A file system, or a kernel, without that.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut number = u64::from(std::process::id());
    loop {
        let name = format!(".checkpost-{number}");
        match openat(&folder, name.as_str(), flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(file) => {
                unlinkat(&folder, name.as_str(), rustix::fs::AtFlags::empty())?;
                return Ok(file);
            }
            Err(Errno::EXIST) => number += 1 << 32,
            Err(error) => return Err(error.into()),
        }
    }
}
