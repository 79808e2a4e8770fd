//! Which files are trusted: those that nobody but root and our own user could have written.
//! It reads no file's content.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use crate::error::FileError;

/// Names one file, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// A file that may be loaded, held open: whatever its path may lead to later, it is this one.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    /// What changes when the file is written over.
    pub(crate) stamp: Stamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: i64,
    changed: (i64, u64),
}

/// Opens first and looks at what was opened, so nobody can exchange it in between.
pub(crate) fn open(path: &Path) -> Result<Trusted, FileError> {
    if !path.is_absolute() {
        return Err(FileError::Relative);
    }
    // NONBLOCK: a FIFO would wait for somebody to write. It means nothing for regular files.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened: OwnedFd =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| FileError::Open(error.into()))?;
    let stat = rustix::fs::fstat(&opened).map_err(|error| FileError::Open(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular);
    }
    // The kernel's own word for what was opened: no link in it.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(FileError::Open)?;
    // As octets: `Path` would take "/a//b" and "/a/b" for equal.
    if real.as_os_str() != path.as_os_str() {
        return Err(FileError::Indirect(real));
    }
    if !is_ours(&stat) {
        return Err(FileError::Owner(stat.st_uid));
    }
    if others_write(&stat) {
        return Err(FileError::Writable(mode(&stat)));
    }
    for (nearest, folder) in real.ancestors().skip(1).enumerate().map(|(index, folder)| (index == 0, folder)) {
        check_folder(folder, nearest)?;
    }
    Ok(Trusted {
        file: File::from(opened),
        identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        stamp: Stamp { size: stat.st_size, changed: (stat.st_mtime, stat.st_mtime_nsec) },
    })
}

/// In a folder with the sticky bit (`/tmp`) nobody exchanges what is not his own; that will do for a folder further up, but
/// not for the one where libraries are.
fn check_folder(folder: &Path, nearest: bool) -> Result<(), FileError> {
    let own = || PathBuf::from(folder);
    let stat = rustix::fs::stat(folder).map_err(|error| FileError::Folder(own(), error.into()))?;
    let sticky = mode(&stat) & Mode::SVTX.as_raw_mode() != 0;
    if !is_ours(&stat) {
        return Err(FileError::FolderOwner(own(), stat.st_uid));
    }
    if others_write(&stat) && (nearest || !sticky) {
        return Err(FileError::FolderWritable(own(), mode(&stat)));
    }
    Ok(())
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()
}

fn others_write(stat: &Stat) -> bool {
    mode(stat) & 0o022 != 0
}

fn mode(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn check(path: &Path, expected: &str) {
        let found = match open(path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(if expected.is_empty() { found.is_empty() } else { found.contains(expected) }, "{path:?}: {found}");
    }

    #[test]
    fn only_what_nobody_else_could_have_written_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        // Where temporary folders are reached by a link.
        let root = folder.path().canonicalize().unwrap();
        let (sub, file) = (root.join("a"), root.join("a/x.so"));
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(&file, "").unwrap();
        set(&sub, 0o755);
        set(&file, 0o644);
        check(&file, "");
        check(Path::new("a/x.so"), "not an absolute path");
        check(&root.join("a/y.so"), "cannot open it: No such file");
        check(&sub, "not a regular file");
        check(Path::new("/dev/null"), "not a regular file");
        check(Path::new(&format!("{}//x.so", sub.display())), &format!("write {file:?}"));
        check(&root.join("a/../a/x.so"), &format!("write {file:?}"));
        symlink(&file, root.join("link.so")).unwrap();
        symlink(&sub, root.join("b")).unwrap();
        check(&root.join("link.so"), &format!("write {file:?}"));
        check(&root.join("b/x.so"), &format!("write {file:?}"));
        for mode in [0o664, 0o646] {
            set(&file, mode);
            check(&file, &format!("group or others can write it (mode {mode:04o})"));
        }
        set(&file, 0o644);
        for mode in [0o775, 0o757, 0o1777] {
            set(&sub, mode);
            check(&file, &format!("can write the folder {sub:?} (mode {mode:04o})"));
        }
        set(&sub, 0o755);
        set(&root, 0o777);
        check(&file, &format!("can write the folder {root:?} (mode 0777)"));
        // As /tmp is.
        set(&root, 0o1777);
        check(&file, "");
    }

    #[test]
    fn what_belongs_to_others_is_refused() {
        if !rustix::process::geteuid().is_root() {
            checkpost_filter_fixtures::skip("not root, so no file can be given to another user");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (sub, file) = (root.join("a"), root.join("a/x.so"));
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
        check(&file, "it belongs to user 12345");
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        std::os::unix::fs::chown(&sub, Some(12345), None).unwrap();
        check(&file, &format!("the folder {sub:?} belongs to user 12345"));
    }
}
