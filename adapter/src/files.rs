//! Files that a client names and we open: with our rights, so only beneath folders that are allowed, and by a look-up that
//! the kernel keeps within them (openat2(2), RESOLVE_BENEATH). A check of the name before opening would be a race.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::session::Opening;

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unopened {
    /// Beneath none of the folders, or a link leads out of them.
    #[error("not beneath a folder that is allowed")]
    NotAllowed,
    /// Nothing is there.
    #[error("no such file")]
    Missing,
    /// We have no right to read it.
    #[error("permission denied")]
    Denied,
    /// A folder, a pipe, a socket, a device.
    #[error("not a regular file")]
    NoFile,
    /// More than is taken.
    #[error("larger than the limit of {0} octets")]
    TooLarge(u64),
    /// Something else.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Opens the file for reading: with its length in octets.
pub(crate) fn open(opening: &Opening) -> Result<(File, u64), Unopened> {
    let beneath = |folder: &std::path::PathBuf| {
        let rest = opening.path.strip_prefix(folder).ok()?;
        (!rest.as_os_str().is_empty()).then(|| (folder.clone(), rest.to_owned()))
    };
    let mut why = Unopened::NotAllowed;
    for (folder, rest) in opening.beneath.iter().filter_map(beneath) {
        match open_in(&folder, &rest, opening.limit) {
            Ok(opened) => return Ok(opened),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn open_in(folder: &Path, rest: &Path, limit: u64) -> Result<(File, u64), Unopened> {
    let folder = rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(unopened)?;
    // A pipe that nobody writes to must not hold us up before it is seen to be one.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&folder, rest, flags, Mode::empty(), resolve).map_err(unopened)?;
    let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Unopened::NoFile);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    if length > limit {
        return Err(Unopened::TooLarge(limit));
    }
    Ok((File::from(file), length))
}

fn unopened(error: Errno) -> Unopened {
    match error {
        Errno::NOENT | Errno::NOTDIR => Unopened::Missing,
        Errno::ACCESS | Errno::PERM => Unopened::Denied,
        // A link, or "..", that leads out of the folder.
        Errno::XDEV | Errno::LOOP => Unopened::NotAllowed,
        // A socket.
        Errno::NXIO => Unopened::NoFile,
        error => Unopened::Io(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_regular_files_beneath_the_folders_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["scan", "scan/id", "secret"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at("scan/id/id.eml"), "12345").unwrap();
        std::fs::write(at("secret/key"), "key").unwrap();
        symlink("id/id.eml", at("scan/inside")).unwrap();
        symlink("../secret/key", at("scan/outside")).unwrap();
        symlink("/etc/passwd", at("scan/absolute")).unwrap();
        symlink("../../secret", at("scan/id/folder")).unwrap();
        rustix::fs::mknodat(CWD, at("scan/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("scan/socket")).unwrap();
        let check = |path: PathBuf, wanted: &str| {
            let opening = Opening { path: path.clone(), beneath: Arc::from([at("none"), at("scan")]), limit: 5 };
            let said = match open(&opening) {
                Ok((_, length)) => format!("{length} octets"),
                Err(why) => why.to_string(),
            };
            assert_eq!(said, wanted, "{}", path.display());
        };
        let outside = "not beneath a folder that is allowed";
        check(at("scan/id/id.eml"), "5 octets");
        check(at("scan/inside"), "5 octets");
        check(at("scan/outside"), outside);
        check(at("scan/absolute"), outside);
        check(at("scan/id/folder/key"), outside);
        check(at("scan/../secret/key"), outside);
        check(at("secret/key"), outside);
        check(PathBuf::from("/etc/passwd"), outside);
        check(PathBuf::from("scan/id/id.eml"), outside);
        check(at("scan"), outside);
        check(at("scanned"), outside);
        check(at("scan/id"), "not a regular file");
        check(at("scan/pipe"), "not a regular file");
        check(at("scan/socket"), "not a regular file");
        check(at("scan/id/none"), "no such file");
        check(at("none/file"), "no such file");
        std::fs::write(at("scan/large"), "123456").unwrap();
        check(at("scan/large"), "larger than the limit of 5 octets");
    }
}
