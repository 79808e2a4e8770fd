//! Mail handed in to ZMailer's router, as mail_close(3) of ZMailer does it (libc/mail.c): a file in `public`, complete
//! and on the disk, then renamed to its own number in `router`. The number must be the file's own: what has another
//! one's name is written over once that number is given out again.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use checkpost_mark::Key;
use checkpost_zmailer::spool::mark_line;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::files::Prepared;

/// ZMailer's folders.
#[derive(Debug)]
pub(crate) struct Office {
    root: PathBuf,
    /// The router's files lie in folders of one letter.
    hashed: bool,
}

/// A file that has no name that anybody looks at yet. It goes when this is dropped.
#[derive(Debug)]
pub(crate) struct New {
    path: PathBuf,
    number: u64,
}

impl Office {
    pub(crate) fn new(root: PathBuf, hashed: bool) -> Self {
        Self { root, hashed }
    }

    /// The path of a held mail of this name.
    pub(crate) fn held(&self, name: &str) -> PathBuf {
        let digits: String = name.chars().filter(char::is_ascii_digit).collect();
        self.root.join("freezer").join(format!("{digits}checkpost"))
    }

    /// Writes a file with this content and our mark, for the owner of another one.
    pub(crate) fn make(&self, made: &Prepared, owner: &Metadata, key: &Key) -> io::Result<New> {
        let mark = key.mark(made.octets(), SystemTime::now())?;
        self.write(&made.with_line(&mark_line(&mark))?, owner)
    }

    /// Writes a file with this content, for the owner of another one.
    pub(crate) fn write(&self, made: &Prepared, owner: &Metadata) -> io::Result<New> {
        // Everybody may make files in `public`, under any name.
        let (path, file) = (0..100)
            .find_map(|count| {
                let path = self.root.join(format!("public/checkpost:{}.{count}", std::process::id()));
                let mut options = OpenOptions::new();
                options
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
                match options.open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    opened => Some(opened.map(|file| (path, file))),
                }
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))?;
        let new = New { path, number: file.metadata()?.ino() };
        made.write_to(&file)?;
        // ZMailer believes some lines of files of trusted users only.
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(owner.mode() & 0o660))?;
        file.sync_all()?;
        Ok(new)
    }

    /// The name of a file in `router`, by its number.
    fn name(&self, number: u64) -> String {
        let letter = char::from(b'A' + u8::try_from(number % 26).unwrap_or(0));
        if self.hashed { format!("{letter}/{number}") } else { number.to_string() }
    }

    fn in_router(&self, name: &str) -> PathBuf {
        self.root.join("router").join(name)
    }

    /// Hands it in, safely on the disk.
    pub(crate) fn hand_in(&self, new: &New) -> io::Result<()> {
        let name = self.name(new.number);
        rename_to_free(&new.path, &self.in_router(&name))?;
        self.settle(&name)?;
        self.notify(&name);
        Ok(())
    }

    /// Puts it in the place of the router's file `name`, at one blow, and hands it in under its own number.
    pub(crate) fn replace(&self, name: &str, new: &New) -> io::Result<()> {
        let own = self.name(new.number);
        fs::rename(&new.path, self.in_router(name))?;
        self.settle(name)?;
        // Should we end here, the router renames it itself.
        rename_to_free(&self.in_router(name), &self.in_router(&own))?;
        self.notify(&own);
        Ok(())
    }

    /// Puts it into the freezer under this path.
    pub(crate) fn hold(&self, new: &New, held: &Path) -> io::Result<()> {
        rename_to_free(&new.path, held)?;
        sync_folder(held)
    }

    /// Moves the router's file to the freezer.
    pub(crate) fn freeze(&self, name: &str) -> io::Result<()> {
        rename_to_free(&self.in_router(name), &self.held(name))
    }

    /// Takes the router's file away.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.in_router(name))
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        sync_folder(&self.in_router(name))
    }

    /// Tells the router that there is a new file; it looks by itself, too, every ten seconds or so.
    fn notify(&self, name: &str) {
        let socket = std::env::var_os("ROUTERNOTIFY").map_or_else(|| self.root.join(".router.notify"), PathBuf::from);
        let _ = UnixDatagram::unbound().and_then(|from| {
            from.set_nonblocking(true)?;
            from.send_to(format!("NEW router {name}").as_bytes(), socket)
        });
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Where it was renamed there is nothing.
        let _ = fs::remove_file(&self.path);
    }
}

/// Never over somebody else's file.
fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn sync_folder(of: &Path) -> io::Result<()> {
    File::open(of.parent().unwrap_or(of))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::*;
    use crate::files::{self, FileFrom};

    const MAIL: &[u8] = b"to <a@x>\nenv-end\nSubject: x\n\nbody\n";

    fn office(hashed: bool) -> (tempfile::TempDir, Office, Key) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["public", "router", "freezer"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for letter in b'A'..=b'Z' {
            fs::create_dir(folder.path().join(format!("router/{}", char::from(letter)))).unwrap();
        }
        let key = folder.path().join("key");
        Key::ensure(&key).unwrap();
        let office = Office::new(folder.path().to_owned(), hashed);
        (folder, office, Key::read(&key).unwrap())
    }

    fn prepared(text: &[u8]) -> Prepared {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Prepared::new(b"to <a@x>\nenv-end\n".to_vec(), file, 0).unwrap()
    }

    #[test]
    fn what_is_handed_in_has_its_own_number_and_our_mark() {
        for hashed in [false, true] {
            let (folder, office, key) = office(hashed);
            let owner = folder.path().metadata().unwrap();
            let new = office.make(&prepared(b"Subject: x\n\nbody\n"), &owner, &key).unwrap();
            assert_eq!(fs::read_dir(folder.path().join("public")).unwrap().count(), 1);
            office.hand_in(&new).unwrap();
            let number = new.number;
            drop(new);
            let path = office.in_router(&office.name(number));
            let file = files::open(&path).unwrap();
            assert_eq!(file.metadata().unwrap().ino(), number);
            assert_eq!(fs::read_dir(folder.path().join("public")).unwrap().count(), 0);
            let envelope = files::envelope(&file).unwrap();
            let (mark, at) = envelope.mark().unwrap();
            let below = FileFrom { file: &file, at };
            assert!(key.holds(&mark.parse().unwrap(), below, SystemTime::now(), Duration::from_secs(60)).unwrap());
            assert_eq!(&fs::read(&path).unwrap()[usize::try_from(at).unwrap()..], MAIL);
        }
    }

    #[test]
    fn a_replaced_file_is_never_missing_and_gets_its_own_number() {
        let (folder, office, key) = office(false);
        fs::write(folder.path().join("router/123"), "old").unwrap();
        let owner = folder.path().join("router/123").metadata().unwrap();
        let new = office.make(&prepared(b"A: 1\n\nnew\n"), &owner, &key).unwrap();
        office.replace("123", &new).unwrap();
        assert!(!folder.path().join("router/123").exists());
        let text = fs::read_to_string(office.in_router(&new.number.to_string())).unwrap();
        assert!(text.ends_with("A: 1\n\nnew\n"), "{text}");
    }

    #[test]
    fn nobodys_file_is_written_over() {
        let (folder, office, key) = office(false);
        let owner = folder.path().metadata().unwrap();
        let new = office.make(&prepared(b"\n"), &owner, &key).unwrap();
        fs::write(office.in_router(&new.number.to_string()), "another's").unwrap();
        assert_eq!(office.hand_in(&new).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::write(folder.path().join("router/7"), "x").unwrap();
        fs::write(office.held("7"), "held").unwrap();
        assert!(office.freeze("7").is_err());
        assert_eq!(fs::read(folder.path().join("router/7")).unwrap(), b"x");
        drop(new);
        assert_eq!(fs::read_dir(folder.path().join("public")).unwrap().count(), 0, "it goes with its owner");
    }
}
