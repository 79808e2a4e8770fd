//! Files below a root, safely: every name is opened in its folder, and only links that root made are followed.
//! A file gets its content by a new file that takes its name (temp, fsync, rename, fsync of the folder), so whoever
//! looks sees the old one or the new one, whole. It knows no MTA and keeps no copies.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use checkpost_setup::{About, FileKind, LookError};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

/// No configuration file is larger; a program may be.
const LIMIT: u64 = 16 << 20;
/// Programs, where they are read to be copied or compared.
const PROGRAM_LIMIT: u64 = 1 << 30;
/// Links followed for one name.
const LINKS: usize = 20;

/// A folder that is `/` for all that is done through it.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// What a file has beside its content.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Extended attributes, access lists among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extended: Vec<(String, Vec<u8>)>,
}

/// A file: content and the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Its octets.
    pub content: Vec<u8>,
    /// All else that is kept.
    pub attributes: Attributes,
}

impl Tree {
    /// `/`, or a folder that holds a system.
    ///
    /// # Errors
    /// When it is no folder that can be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Is it this machine's own `/`?
    pub fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    /// A regular file whole; `None`: nothing is of that name.
    ///
    /// # Errors
    /// When it is no regular file, is larger than 16 MiB, or cannot be read.
    pub fn read(&self, path: &str) -> io::Result<Option<Whole>> {
        self.read_up_to(path, LIMIT)
    }

    /// As [`Tree::read`], for programs of up to a GiB.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn read_program(&self, path: &str) -> io::Result<Option<Whole>> {
        self.read_up_to(path, PROGRAM_LIMIT)
    }

    fn read_up_to(&self, path: &str, limit: u64) -> io::Result<Option<Whole>> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, &*name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(trouble(path, "it is a symbolic link, which is not followed")),
            Err(Errno::NXIO) => return Err(trouble(path, "it is no regular file")),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(trouble(path, "it is no regular file"));
        }
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) > limit && !path.starts_with("/proc/") {
            return Err(trouble(path, "it is too large for a configuration file"));
        }
        let extended = extended(&file);
        let mut content = Vec::new();
        std::fs::File::from(file).take(limit + 1).read_to_end(&mut content)?;
        let attributes = Attributes { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, extended };
        Ok(Some(Whole { content, attributes }))
    }

    /// What is of that name.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn about(&self, path: &str) -> io::Result<Option<About>> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(None) };
        let stat = match rustix::fs::statat(&folder, &*name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Folder,
            FileType::Socket => FileKind::Socket,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&folder, &*name, Vec::new())?;
                FileKind::Link(target.to_string_lossy().into_owned())
            }
            _ => FileKind::Other,
        };
        Ok(Some(About {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            identity: (stat.st_dev, stat.st_ino),
        }))
    }

    /// The number of the file system that a file of this name is, or would be, on; `None`: there is no such folder.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    pub fn device(&self, path: &str) -> io::Result<Option<u64>> {
        let Some((folder, _)) = self.parent(path)? else { return Ok(None) };
        Ok(Some(rustix::fs::fstat(&folder)?.st_dev))
    }

    /// Takes room on the disk by a new file that nobody else reads.
    ///
    /// # Errors
    /// When there is none; then the file is not there either.
    pub fn reserve(&self, path: &str, octets: u64) -> io::Result<()> {
        let (folder, name) = self.parent(path)?.ok_or_else(|| trouble(path, "there is no such folder"))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &*name, flags, Mode::RUSR | Mode::WUSR)?;
        let done = fill(&std::fs::File::from(file), octets);
        if done.is_err() {
            let _ = unlink(&folder, &name);
        }
        done
    }

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, path: &str) -> io::Result<Vec<String>> {
        let Some(folder) = self.folder(path)? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        let open =
            rustix::fs::openat(&folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(open)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Gives a file this content and these attributes, at one blow; it need not be there.
    ///
    /// # Errors
    /// When that cannot be; then nothing has changed.
    pub fn replace(&self, path: &str, whole: &Whole) -> io::Result<()> {
        let (folder, name) = self.parent(path)?.ok_or_else(|| trouble(path, "there is no such folder"))?;
        let temporary = format!(".{name}.checkpost-new");
        // Of a run that was cut off.
        unlink(&folder, &temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &*temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let written = (|| -> io::Result<()> {
            let mut file = std::fs::File::from(file);
            file.write_all(&whole.content)?;
            let Attributes { mode, uid, gid, extended } = &whole.attributes;
            let stat = rustix::fs::fstat(&file)?;
            if (stat.st_uid, stat.st_gid) != (*uid, *gid) {
                rustix::fs::fchown(&file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
            for (name, value) in extended {
                rustix::fs::fsetxattr(&file, &**name, value, rustix::fs::XattrFlags::empty())?;
            }
            file.sync_all()?;
            Ok(rustix::fs::renameat(&folder, &*temporary, &folder, &*name)?)
        })();
        if written.is_err() {
            let _ = unlink(&folder, &temporary);
        }
        written?;
        sync(&folder)
    }

    /// Takes a file away; there need be none.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(()) };
        unlink(&folder, &name)?;
        unlink(&folder, &format!(".{name}.checkpost-new"))?;
        sync(&folder)
    }

    /// Removes what a run that was cut off has left beside a file.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn tidy(&self, path: &str) -> io::Result<()> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(()) };
        unlink(&folder, &format!(".{name}.checkpost-new"))
    }

    /// Makes a folder.
    ///
    /// # Errors
    /// When that cannot be, or something is of that name.
    pub fn make_folder(&self, path: &str, attributes: &Attributes) -> io::Result<()> {
        let (folder, name) =
            self.parent(path)?.ok_or_else(|| trouble(path, "there is no such folder to make it in"))?;
        rustix::fs::mkdirat(&folder, &*name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&folder, &*name, flags, Mode::empty())?;
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        let stat = rustix::fs::fstat(&made)?;
        if (stat.st_uid, stat.st_gid) != (attributes.uid, attributes.gid) {
            rustix::fs::fchown(&made, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&made, Mode::from_raw_mode(attributes.mode))?;
        sync(&folder)
    }

    /// Takes a folder away if it is empty; false if it is not. There need be none.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn remove_folder(&self, path: &str) -> io::Result<bool> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(true) };
        match rustix::fs::unlinkat(&folder, &*name, AtFlags::REMOVEDIR) {
            Ok(()) => sync(&folder).map(|()| true),
            Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file a second name in any folder of the same file system.
    ///
    /// # Errors
    /// When that cannot be, or something is of that name.
    pub fn link(&self, path: &str, name: &str) -> io::Result<()> {
        let (from, old) = self.parent(path)?.ok_or_else(|| trouble(path, "there is no such folder"))?;
        let (to, new) = self.parent(name)?.ok_or_else(|| trouble(name, "there is no such folder"))?;
        rustix::fs::linkat(&from, &*old, &to, &*new, AtFlags::empty())?;
        sync(&to)
    }

    /// Lets one name take the place of another, at one blow.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn rename(&self, path: &str, name: &str) -> io::Result<()> {
        let (from, old) = self.parent(path)?.ok_or_else(|| trouble(path, "there is no such folder"))?;
        let (to, new) = self.parent(name)?.ok_or_else(|| trouble(name, "there is no such folder"))?;
        rustix::fs::renameat(&from, &*old, &to, &*new)?;
        sync(&to)
    }

    /// The folder of a name, and the name in it; `None`: there is no such folder.
    pub(crate) fn parent(&self, path: &str) -> io::Result<Option<(OwnedFd, String)>> {
        let (folder, name) = path.rsplit_once('/').ok_or_else(|| trouble(path, "not an absolute path"))?;
        if name.is_empty() || name == "." || !path.starts_with('/') || path.split('/').any(|name| name == "..") {
            return Err(trouble(path, "not an absolute path of a file"));
        }
        Ok(self.folder(folder)?.map(|folder| (folder, name.to_owned())))
    }

    /// Opens a folder, name by name. A link in it is followed if root (or who runs this) made it in a folder where
    /// nobody else may; it leads no further than our root.
    fn folder(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut here = self.root.try_clone()?;
        let mut left: Vec<String> = names(path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                here = above.pop().map_or_else(|| self.root.try_clone(), Ok)?;
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = match rustix::fs::openat(&here, &*name, flags, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&next)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => above.push(std::mem::replace(&mut here, next)),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS || !is_trusted(&stat, &rustix::fs::fstat(&here)?) {
                        return Err(trouble(path, &format!("{name} is a symbolic link that others could have made")));
                    }
                    let target = rustix::fs::readlinkat(&here, &*name, Vec::new())?;
                    let target = target.to_str().map_err(|_| trouble(path, "a link to an odd name"))?;
                    if target.starts_with('/') {
                        above.clear();
                        here = self.root.try_clone()?;
                    }
                    left.extend(names(target));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(here))
    }
}

/// The names in a path, last first.
fn names(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !name.is_empty() && *name != ".").map(str::to_owned).collect()
}

/// May a link be followed?
fn is_trusted(link: &Stat, folder: &Stat) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let ours = |uid: u32| uid == 0 || uid == own;
    ours(link.st_uid) && ours(folder.st_uid) && folder.st_mode & 0o022 == 0
}

fn extended(file: &OwnedFd) -> Vec<(String, Vec<u8>)> {
    // Not every file system has them.
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::flistxattr(file, &mut names[..]) else { return Vec::new() };
    let names = names[..length].split(|octet| *octet == 0).filter_map(|name| std::str::from_utf8(name).ok());
    let value = |name: &str| {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..]).ok()?;
        Some((name.to_owned(), value[..length].to_vec()))
    };
    names.filter(|name| !name.is_empty()).filter_map(value).collect()
}

fn unlink(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a file take this much room on the disk.
fn fill(file: &std::fs::File, octets: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, octets) {
        // Not every file system has it.
        Err(Errno::OPNOTSUPP) => {
            io::copy(&mut io::repeat(0xa5).take(octets), &mut &*file)?;
            file.sync_all()
        }
        done => Ok(done?),
    }
}

/// What was done to names in a folder is on the disk.
fn sync(folder: &impl AsFd) -> io::Result<()> {
    let open = rustix::fs::openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(open)?)
}

pub(crate) fn trouble(path: &str, what: &str) -> io::Error {
    io::Error::other(format!("{path}: {what}"))
}

/// For [`checkpost_setup::Look`].
pub(crate) fn look_error(path: &str) -> impl FnOnce(io::Error) -> LookError + '_ {
    move |error| LookError::new(path, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    fn whole(content: &str, mode: u32) -> Whole {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Whole { content: content.into(), attributes: Attributes { mode, uid, gid, extended: Vec::new() } }
    }

    #[test]
    fn a_file_is_replaced_with_its_attributes_and_nothing_is_left_over() {
        let (folder, tree) = tree();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        assert_eq!(tree.read("/etc/x").unwrap(), None);
        tree.replace("/etc/x", &whole("one", 0o4640)).unwrap();
        assert_eq!(tree.read("/etc/x").unwrap(), Some(whole("one", 0o4640)));
        std::fs::write(folder.path().join("etc/.x.checkpost-new"), "of a run that was cut off").unwrap();
        tree.replace("/etc/x", &whole("two", 0o600)).unwrap();
        assert_eq!(tree.names("/etc").unwrap(), ["x"]);
        std::fs::write(folder.path().join("etc/.x.checkpost-new"), "of a run that was cut off").unwrap();
        tree.tidy("/etc/x").unwrap();
        assert_eq!(tree.names("/etc").unwrap(), ["x"]);
        tree.remove("/etc/x").unwrap();
        tree.remove("/etc/x").unwrap();
        assert_eq!(tree.about("/etc/x").unwrap(), None);
        assert!(tree.replace("/nowhere/x", &whole("", 0o600)).is_err());
    }

    #[test]
    fn what_a_file_has_beside_its_content_is_kept() {
        let (folder, tree) = tree();
        let path = folder.path().join("file");
        std::fs::write(&path, "content").unwrap();
        // An access list, as setfacl(1) writes it: u::rw-, u:1234:r--, g::r--, m::r--, o::---; see acl(5) and the kernel's
        // posix_acl_xattr.h.
        let list = [(1u16, 6u16, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
        let mut access = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in list {
            access.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        let none = rustix::fs::XattrFlags::empty();
        for (name, value) in [("system.posix_acl_access", &*access), ("user.note", b"mine")] {
            rustix::fs::setxattr(&path, name, value, none).unwrap();
        }
        let before = tree.read("/file").unwrap().unwrap();
        assert_eq!(before.attributes.extended.len(), 2, "{before:?}");
        tree.replace("/file", &whole("new", 0o600)).unwrap();
        assert_eq!(tree.read("/file").unwrap().unwrap().attributes.extended, []);
        tree.replace("/file", &before).unwrap();
        assert_eq!(tree.read("/file").unwrap().unwrap(), before);
    }

    #[test]
    fn room_is_taken_and_not_from_others() {
        let (folder, tree) = tree();
        tree.reserve("/room", 100_000).unwrap();
        let about = std::fs::metadata(folder.path().join("room")).unwrap();
        assert_eq!((about.len(), about.permissions().mode() & 0o777), (100_000, 0o600));
        assert!(tree.reserve("/room", 1).is_err(), "somebody's file of that name");
        assert!(tree.reserve("/too-much", 1 << 60).is_err());
        assert_eq!(tree.names("/").unwrap(), ["room"]);
        let same = tree.device("/room").unwrap();
        assert!(same.is_some() && same == tree.device("/not-there").unwrap());
        assert_eq!(tree.device("/nowhere/x").unwrap(), None);
    }

    #[test]
    fn links_lead_nowhere_else() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "secret").unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), "inside").unwrap();
        // Within the root, made by us in a folder of ours: followed.
        symlink("real", at("relative")).unwrap();
        symlink("/real", at("absolute")).unwrap();
        symlink("../../../real", at("real/up")).unwrap();
        for path in ["/relative/file", "/absolute/file", "/real/up/file"] {
            assert_eq!(tree.read(path).unwrap().unwrap().content, b"inside", "{path}");
        }
        // Out of it: nowhere.
        symlink(outside.path(), at("out")).unwrap();
        assert_eq!(tree.read("/out/secret").unwrap(), None);
        // The file itself is never a link.
        symlink("file", at("real/link")).unwrap();
        assert!(tree.read("/real/link").unwrap_err().to_string().contains("symbolic link"));
        tree.replace("/real/link", &whole("new", 0o600)).unwrap();
        assert_eq!(tree.read("/real/file").unwrap().unwrap().content, b"inside");
        // In a folder where others may write: not followed.
        std::fs::create_dir(at("open")).unwrap();
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
        symlink("../real", at("open/link")).unwrap();
        assert!(tree.read("/open/link/file").is_err());
        symlink("loop", at("loop")).unwrap();
        assert!(tree.read("/loop/x").is_err());
    }
}
