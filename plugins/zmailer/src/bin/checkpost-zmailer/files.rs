//! Spool files: opened with care, read, and written over so that none is half-written when "accept" is said.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use checkpost_client::spool::Spool;
use checkpost_zmailer::spool::{Envelope, Reader, SpoolError};
use rustix::fs::{FallocateFlags, Mode, OFlags};

/// Copied at once, in octets.
const BLOCK: usize = 64 << 10;

/// smtpserver's folder for mails that are not queued yet.
#[derive(Debug)]
pub(crate) struct Public(PathBuf);

impl Public {
    pub(crate) fn of(postoffice: &Path) -> Self {
        Self(postoffice.join("public"))
    }

    /// Opens the spool file that smtpserver names. Everybody may make files in that folder, so only one that has no
    /// other name, and is no link, counts.
    pub(crate) fn open(&self, name: &[u8]) -> io::Result<File> {
        let path = Path::new(OsStr::from_bytes(name));
        if path.parent() != Some(&self.0) || path.file_name().is_none() {
            let why = format!("{} is not in {}; see `postoffice`", path.display(), self.0.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        open(path)
    }
}

/// Opens a regular file that this is the only name of, to be read and written.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // A pipe must not keep us waiting.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| named(error.into()))?);
    let about = file.metadata().map_err(named)?;
    if about.is_file() && about.nlink() == 1 {
        Ok(file)
    } else {
        Err(named(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file of one name")))
    }
}

/// Reads the envelope at a file's start.
pub(crate) fn envelope(file: &File) -> io::Result<Envelope> {
    let wrong = |error: SpoolError| io::Error::new(io::ErrorKind::InvalidData, error);
    let (mut reader, mut found) = (Reader::default(), false);
    let mut refused = None;
    each_block(file, 0, |octets, _| {
        match reader.take(octets) {
            Ok(whole) => found = whole,
            Err(error) => refused = Some(error),
        }
        Ok(!found && refused.is_none())
    })?;
    match refused {
        Some(error) => Err(wrong(error)),
        None => reader.finish(found).map_err(wrong),
    }
}

/// What a spool file is to hold, all of it at hand.
#[derive(Debug)]
pub(crate) struct Prepared {
    envelope: Vec<u8>,
    message: File,
    /// The message's first octet in its file.
    start: u64,
    /// Its octets.
    length: u64,
    /// ZMailer's files end with a line feed.
    line_feed: bool,
}

impl Prepared {
    /// Of this envelope and a message from an offset of a file to its end.
    pub(crate) fn new(envelope: Vec<u8>, message: File, start: u64) -> io::Result<Self> {
        let end = message.metadata()?.len();
        let length = end.checked_sub(start).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut last = [b'\n'];
        if length > 0 {
            message.read_exact_at(&mut last, end - 1)?;
        }
        Ok(Self { envelope, message, start, length, line_feed: last != *b"\n" })
    }

    /// With this line before its envelope.
    pub(crate) fn with_line(&self, line: &str) -> io::Result<Self> {
        let envelope = [line.as_bytes(), &self.envelope].concat();
        Ok(Self { envelope, message: self.message.try_clone()?, ..*self })
    }

    /// Octets of the whole file.
    fn total(&self) -> u64 {
        self.envelope.len() as u64 + self.length + u64::from(self.line_feed)
    }

    /// Writes it over the file, in place: the file's number is its name in ZMailer's queue. Room is made before the
    /// first octet is touched. After an error the file may be anything: the mail must be refused.
    pub(crate) fn write_over(&self, file: &File) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, self.total()) {
            // Not every file system can.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        self.write_to(file)?;
        file.set_len(self.total())?;
        file.sync_data()
    }

    /// Writes it to the file's start.
    pub(crate) fn write_to(&self, file: &File) -> io::Result<()> {
        let head = self.envelope.len() as u64;
        let mut copied = 0;
        each_block(&self.message, self.start, |octets, at| {
            file.write_all_at(octets, head + at - self.start)?;
            copied += octets.len() as u64;
            Ok(copied <= self.length)
        })?;
        if copied != self.length {
            return Err(io::Error::other("the content has changed while it was read"));
        }
        if self.line_feed {
            file.write_all_at(b"\n", head + copied)?;
        }
        file.write_all_at(&self.envelope, 0)
    }

    /// All of it, as a stream.
    pub(crate) fn octets(&self) -> impl io::Read {
        let message = FileFrom { file: &self.message, at: self.start };
        io::Read::chain(io::Read::chain(&self.envelope[..], message), if self.line_feed { &b"\n"[..] } else { b"" })
    }
}

/// Puts a spool file together that takes the place of `file`. `content`: the message, if it is another one.
pub(crate) fn prepare(file: &File, old: &Envelope, new: &[u8], content: Option<&File>) -> io::Result<Prepared> {
    match content {
        Some(content) => Prepared::new(new.to_vec(), content.try_clone()?, 0),
        // Its own message moves within the file: a copy is needed, and made before anything is touched.
        None => Prepared::new(new.to_vec(), copy(file, old.length())?, 0),
    }
}

/// A copy without a name.
fn copy(file: &File, start: u64) -> io::Result<File> {
    let length = file.metadata()?.len().checked_sub(start).ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut copy = Spool::new(Path::new("/var/tmp"))?;
    copy.copy(file.as_fd(), start, length)?;
    Ok(copy.into_descriptor().into())
}

/// A file from an offset on, without moving its own.
pub(crate) struct FileFrom<'a> {
    pub(crate) file: &'a File,
    pub(crate) at: u64,
}

impl io::Read for FileFrom<'_> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(block, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Hands out a file's octets and where they are, until it is at its end or `take` has enough.
fn each_block(file: &File, start: u64, mut take: impl FnMut(&[u8], u64) -> io::Result<bool>) -> io::Result<()> {
    let (mut block, mut at) = (vec![0; BLOCK], start);
    loop {
        match file.read_at(&mut block, at) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                if !take(&block[..count], at)? {
                    return Ok(());
                }
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
    use std::io::{Read, Write};

    use super::*;

    fn temporary(text: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file
    }

    #[test]
    fn only_files_of_one_name_in_public_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("public")).unwrap();
        let public = Public::of(folder.path());
        let inside = |name: &str| folder.path().join(name).into_os_string().into_encoded_bytes();
        for name in ["public/mail:1", "public/mail:2", "secret"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::hard_link(folder.path().join("public/mail:2"), folder.path().join("public/mail:3")).unwrap();
        std::os::unix::fs::symlink("../secret", folder.path().join("public/mail:4")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("public/mail:5"), Mode::RWXU).unwrap();
        assert!(public.open(&inside("public/mail:1")).is_ok());
        for wrong in [
            "public/mail:2",
            "public/mail:3",
            "public/mail:4",
            "public/mail:5",
            "secret",
            "public/../secret",
            "public",
            "public/..",
            "public/none",
        ] {
            assert!(public.open(&inside(wrong)).is_err(), "{wrong}");
        }
        assert!(public.open(b"public/mail:1").is_err() && public.open(b"/etc/passwd").is_err());
    }

    #[test]
    fn an_envelope_is_read_to_its_border() {
        let many = format!("external\n{}env-end\nSubject: x\n\nto <c@x>\n", "to <a@example.test>\n".repeat(10_000));
        let read = envelope(&temporary(many.as_bytes())).unwrap();
        assert_eq!(read.recipients().len(), 10_000);
        assert!(many[usize::try_from(read.length()).unwrap()..].starts_with("Subject: x\n"));
        for wrong in ["", "to a\n", "to a\n b\nenv-end\n"] {
            assert_eq!(envelope(&temporary(wrong.as_bytes())).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_file_that_has_no_room_is_not_touched() {
        use rustix::fs::{MemfdFlags, SealFlags};
        let file = File::from(rustix::fs::memfd_create("full", MemfdFlags::ALLOW_SEALING).unwrap());
        let text = b"to <a@x>\nto <b@x>\nenv-end\nSubject: x\n\nold\n";
        file.write_all_at(text, 0).unwrap();
        // As a full disk is: what is there can be written over, and nothing comes to it.
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        let old = envelope(&file).unwrap();
        let check = |content: &[u8], fits: bool| {
            let made = prepare(&file, &old, b"to <a@x>\nenv-end\n", Some(&temporary(content))).unwrap();
            assert_eq!(made.write_over(&file).is_ok(), fits);
        };
        check(&b"y".repeat(10_000), false);
        let mut read = Vec::new();
        FileFrom { file: &file, at: 0 }.read_to_end(&mut read).unwrap();
        assert_eq!(read, text);
        check(b"A: 1\n\nshort\n", true);
    }

    #[test]
    fn a_file_is_written_over_in_place() {
        let long = "y".repeat(3 * BLOCK + 7);
        for (message, content, wanted) in [
            ("A: 1\n\nold\n", None, "A: 1\n\nold\n"),
            ("A: 1\n\nold", None, "A: 1\n\nold\n"),
            (&*long, None, &*format!("{long}\n")),
            ("A: 1\n\nold\n", Some("B: 2\n\nnew, longer\n"), "B: 2\n\nnew, longer\n"),
            ("A: 1\n\nold\n", Some(""), ""),
            ("", Some(&*long), &*format!("{long}\n")),
        ] {
            let file = temporary(format!("to <a@x>\nto <b@x>\nenv-end\n{message}").as_bytes());
            let old = envelope(&file).unwrap();
            for new in ["to <b@x>\nenv-end\n", "to <a@x>\nto <b@x>\nto <c@x>\nto <d@x>\nenv-end\n"] {
                let file = temporary(format!("to <a@x>\nto <b@x>\nenv-end\n{message}").as_bytes());
                let inode = file.metadata().unwrap().ino();
                let content = content.map(|content| temporary(content.as_bytes()));
                let made = prepare(&file, &old, new.as_bytes(), content.as_ref()).unwrap();
                let mut read = Vec::new();
                made.octets().read_to_end(&mut read).unwrap();
                made.write_over(&file).unwrap();
                let mut written = String::new();
                FileFrom { file: &file, at: 0 }.read_to_string(&mut written).unwrap();
                assert_eq!(written, format!("{new}{wanted}"));
                assert_eq!(read, written.as_bytes());
                assert_eq!(file.metadata().unwrap().ino(), inode);
            }
        }
    }
}
