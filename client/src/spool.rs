//! A message while it is checked: in a file without a name, which is gone when the last descriptor is, however that
//! comes about. Small ones stay in memory, and not in the program's: the descriptor's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, memfd_create, open, openat, sendfile, unlinkat};
use rustix::io::{Errno, pread, retry_on_intr, write};

/// Up to this size, in octets, a message stays in memory.
const IN_MEMORY: u64 = 1 << 20;

/// Copied at once where the kernel does not do it, in octets.
const BLOCK: usize = 32 << 10;

/// A message that is being written.
#[derive(Debug)]
pub struct Spool<'a> {
    folder: &'a Path,
    file: OwnedFd,
    size: u64,
    spilled: bool,
}

impl<'a> Spool<'a> {
    /// An empty message. A large one will be put into `folder`.
    ///
    /// # Errors
    /// There is no file in memory to be had.
    pub fn new(folder: &'a Path) -> io::Result<Self> {
        Ok(Self { folder, file: in_memory()?, size: 0, spilled: false })
    }

    /// Octets so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds octets.
    ///
    /// # Errors
    /// They cannot be stored; the message is to be given up.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.make_room(octets.len() as u64)?;
        write_all(self.file.as_fd(), octets)
    }

    /// Adds `length` octets of another file from `offset` on. That file's own offset is neither used nor moved.
    ///
    /// # Errors
    /// They cannot be read or stored, or there are fewer; the message is to be given up.
    pub fn copy(&mut self, from: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<()> {
        self.make_room(length)?;
        copy(self.file.as_fd(), from, offset, length)
    }

    /// The whole message. Where the descriptor's own offset stands is not said.
    pub fn into_descriptor(self) -> OwnedFd {
        self.file
    }

    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let size = self.size.saturating_add(more);
        if !self.spilled && size > IN_MEMORY {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.folder.display()));
            let file = unnamed(self.folder).map_err(named)?;
            copy(file.as_fd(), self.file.as_fd(), 0, self.size)?;
            (self.file, self.spilled) = (file, true);
        }
        self.size = size;
        Ok(())
    }
}

/// An empty file in memory, readable and writable.
///
/// # Errors
/// The kernel has none to give.
pub fn in_memory() -> io::Result<OwnedFd> {
    Ok(memfd_create("checkpost", MemfdFlags::CLOEXEC)?)
}

/// Writes all of it.
///
/// # Errors
/// Of the file.
pub fn write_all(to: BorrowedFd<'_>, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        match retry_on_intr(|| write(to, octets))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => octets = &octets[count..],
        }
    }
    Ok(())
}

/// By the kernel, without a way through this program's memory, where the file systems can.
fn copy(to: BorrowedFd<'_>, from: BorrowedFd<'_>, mut offset: u64, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match retry_on_intr(|| sendfile(to, from, Some(&mut offset), most)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => left = left.saturating_sub(count as u64),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return copy_through(to, from, offset, left),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through(to: BorrowedFd<'_>, from: BorrowedFd<'_>, mut offset: u64, mut left: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        match retry_on_intr(|| pread(from, &mut block[..most], offset))? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                write_all(to, &block[..count])?;
                offset += count as u64;
                left -= count as u64;
            }
        }
    }
    Ok(())
}

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
                unlinkat(&folder, name.as_str(), AtFlags::empty())?;
                return Ok(file);
            }
            Err(Errno::EXIST) => number += 1 << 32,
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn text_of(message: OwnedFd) -> Vec<u8> {
        let file = File::from(message);
        let mut text = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut text, 0).unwrap();
        text
    }

    #[test]
    fn a_message_is_written_and_copied_however_large() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, 100_000, IN_MEMORY as usize - 2, IN_MEMORY as usize - 1, 3 << 20] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut other = tempfile::tempfile().unwrap();
            other.write_all(b"19 octets before it").unwrap();
            other.write_all(&body).unwrap();
            other.seek(io::SeekFrom::Start(7)).unwrap();
            let mut spool = Spool::new(folder.path()).unwrap();
            spool.write(b"a\n").unwrap();
            spool.copy(other.as_fd(), 19, length as u64).unwrap();
            assert_eq!(spool.size(), length as u64 + 2);
            assert_eq!(other.stream_position().unwrap(), 7);
            let message = spool.into_descriptor();
            let on_disk = File::from(message.try_clone().unwrap()).metadata().unwrap().dev();
            assert_eq!(on_disk == folder.path().metadata().unwrap().dev(), length + 2 > IN_MEMORY as usize);
            assert_eq!(text_of(message), [b"a\n", &body[..]].concat());
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_there_is_not_made_up() {
        let folder = tempfile::tempdir().unwrap();
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(b"short").unwrap();
        let mut spool = Spool::new(folder.path()).unwrap();
        assert_eq!(spool.copy(other.as_fd(), 3, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let missing = folder.path().join("none");
        let mut spool = Spool::new(&missing).unwrap();
        let error = spool.write(&vec![0; IN_MEMORY as usize + 1]).unwrap_err();
        assert!(error.to_string().contains("none: "), "{error}");
    }

    #[test]
    fn the_way_without_the_kernel_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..100_000).map(|at| (at % 253) as u8).collect();
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&body).unwrap();
        let to = unnamed(folder.path()).unwrap();
        copy_through(to.as_fd(), other.as_fd(), 1, 99_999).unwrap();
        assert_eq!(text_of(to), &body[1..]);
        let to = in_memory().unwrap();
        assert!(copy_through(to.as_fd(), other.as_fd(), 1, 100_000).is_err());
    }
}
