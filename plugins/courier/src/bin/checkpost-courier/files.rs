//! A mail's files in Courier's queue: opened with care, read, and changed so that they are never half-written when
//! Courier is told that all is well.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use checkpost_courier::content::Look;
use checkpost_courier::control::MAX_SIZE;
use rustix::fs::{FallocateFlags, Mode, OFlags};

/// Copied at once, in octets.
const BLOCK: usize = 64 << 10;

/// Where a mail's files may be.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Courier's folder for mails that are not queued yet.
    tmp: PathBuf,
    /// Relative names count from here: the folder in which the program was started.
    start: PathBuf,
}

impl Place {
    pub(crate) fn new(state: &Path, start: PathBuf) -> Self {
        Self { tmp: state.join("tmp"), start }
    }

    /// The path of a file that Courier names. Whoever may connect could name any file, and this program may write to
    /// all of Courier's.
    fn path(&self, name: &[u8]) -> io::Result<PathBuf> {
        let path = self.start.join(std::ffi::OsStr::from_bytes(name));
        let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
        if plain && path.starts_with(&self.tmp) && path != self.tmp {
            return Ok(path);
        }
        let why = format!("{} is not in {}", path.display(), self.tmp.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Opens a regular file, which nothing but its name leads to.
    fn open(&self, name: &[u8], flags: OFlags) -> io::Result<File> {
        let path = self.path(name)?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A pipe must not keep us waiting.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| named(error.into()))?);
        if file.metadata().map_err(named)?.is_file() {
            Ok(file)
        } else {
            Err(named(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")))
        }
    }

    /// Opens the mail, to be read.
    pub(crate) fn data(&self, name: &[u8]) -> io::Result<File> {
        self.open(name, OFlags::RDONLY)
    }

    /// Reads a control file.
    pub(crate) fn control(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        // One more than is taken, so that the reader sees that it is too large.
        self.open(name, OFlags::RDONLY)?.take(MAX_SIZE as u64 + 1).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Puts records at the end of a control file, in one write and safely on the disk.
    pub(crate) fn append(&self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut file = self.open(name, OFlags::WRONLY | OFlags::APPEND)?;
        if file.write(records)? != records.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "not all records could be written"));
        }
        file.sync_data()
    }

    /// Writes `content` over the mail `data` of this name, in place: Courier makes links to the file later. Room is
    /// made before the first octet is touched. After an error the file may be anything: the mail must be refused.
    pub(crate) fn overwrite(&self, name: &[u8], data: &File, content: &File, look: &Look) -> io::Result<()> {
        let file = self.open(name, OFlags::RDWR)?;
        let (about, same) = (file.metadata()?, data.metadata()?);
        if (about.dev(), about.ino()) != (same.dev(), same.ino()) {
            return Err(io::Error::other("the mail is another file by now"));
        }
        let end: &[u8] = if look.ends_with_line_feed() { b"" } else { b"\n" };
        let length = look.length + end.len() as u64;
        if length > about.len() {
            match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, length) {
                // Not every file system can.
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let copied = each_block(content, |octets, at| file.write_all_at(octets, at))?;
        if copied != look.length {
            return Err(io::Error::other("the content has changed while it was read"));
        }
        file.write_all_at(end, copied)?;
        file.set_len(length)?;
        file.sync_data()
    }
}

/// Reads all of a content, to know that it can be read and what is in it.
pub(crate) fn look(content: OwnedFd) -> io::Result<(File, Look)> {
    let content = File::from(content);
    let mut look = Look::default();
    each_block(&content, |octets, _| {
        look.take(octets);
        Ok(())
    })?;
    Ok((content, look))
}

/// Hands out a file's octets and where they are; returns how many there were.
fn each_block(file: &File, mut take: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<u64> {
    let (mut block, mut at) = (vec![0; BLOCK], 0);
    loop {
        match file.read_at(&mut block, at) {
            Ok(0) => return Ok(at),
            Ok(count) => {
                take(&block[..count], at)?;
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(folder: &Path) -> Place {
        fs::create_dir_all(folder.join("tmp/1")).unwrap();
        Place::new(folder, folder.to_owned())
    }

    #[test]
    fn only_regular_files_below_tmp_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let inside = |name: &str| folder.path().join(name).into_os_string().into_encoded_bytes();
        fs::write(folder.path().join("tmp/1/D1"), "x").unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../../secret", folder.path().join("tmp/1/D2")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("tmp/1/D3"), Mode::RWXU).unwrap();
        assert!(place.data(&inside("tmp/1/D1")).is_ok());
        assert!(place.data(b"tmp/1/D1").is_ok(), "relative to where the program was started");
        for wrong in ["secret", "tmp/../secret", "tmp/1/D2", "tmp/1/D3", "tmp", "tmp/1", "tmp/1/none", "../tmp/1/D1"] {
            assert!(place.data(&inside(wrong)).is_err(), "{wrong}");
        }
        assert!(place.data(b"/etc/passwd").is_err());
    }

    #[test]
    fn a_mail_is_overwritten_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let name = b"tmp/1/D1";
        let path = folder.path().join("tmp/1/D1");
        fs::write(&path, "0123456789\n").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        for (new, result) in [("short\n", "short\n"), ("", "\n"), ("no end", "no end\n"), ("a\n\nb\n", "a\n\nb\n")] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(new.as_bytes()).unwrap();
            let (content, look) = look(file.into()).unwrap();
            place.overwrite(name, &place.data(name).unwrap(), &content, &look).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), result);
        }
        let long = "x".repeat(3 * BLOCK + 7) + "\n";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(long.as_bytes()).unwrap();
        let (content, look) = look(file.into()).unwrap();
        let data = place.data(name).unwrap();
        place.overwrite(name, &data, &content, &look).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), long);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        // Another file in its place is not touched.
        fs::rename(&path, folder.path().join("tmp/1/old")).unwrap();
        fs::write(&path, "other\n").unwrap();
        assert!(place.overwrite(name, &data, &content, &look).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "other\n");
    }

    #[test]
    fn records_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        fs::write(folder.path().join("tmp/1/C1"), "s\n").unwrap();
        place.append(b"tmp/1/C1", b"ra\nR\nN\n").unwrap();
        assert_eq!(place.control(b"tmp/1/C1").unwrap(), b"s\nra\nR\nN\n");
        assert!(place.append(b"tmp/1/C2", b"x").is_err(), "none is made");
    }
}
