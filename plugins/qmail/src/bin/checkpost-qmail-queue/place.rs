//! The process that the caller made for us: its program, environment and descriptors, all found in /proc.
//!
//! A descriptor that somebody else opened is known by its number only; here is all that deals with those.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, lstat, open, stat};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getegid, geteuid, getgid, getpid, getuid, pidfd_getfd, pidfd_open};

/// What is the same from the start to the end.
pub(crate) struct Place {
    /// The program's own file, whatever name it was called by.
    pub program: PathBuf,
    /// That file, to be compared.
    pub is: Stat,
    /// Do we have more rights than the caller? Then nothing in its environment counts.
    pub privileged: bool,
}

impl Place {
    /// Must not leave anything open: the numbers that are free now are looked at later.
    pub(crate) fn find() -> io::Result<Self> {
        let program = present(&fs::read_link("/proc/self/exe")?);
        let is = stat("/proc/self/exe")?;
        let privileged = getuid() != geteuid() || getgid() != getegid();
        Ok(Self { program, is, privileged })
    }

    /// A variable of the caller's.
    pub(crate) fn variable(&self, name: &str) -> Option<Vec<u8>> {
        if self.privileged { None } else { std::env::var_os(name).map(OsString::into_vec) }
    }
}

/// The path without the word that the kernel adds when another file has taken its name, as in an upgrade (proc_pid_exe(5)).
fn present(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    OsString::from_vec(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes).to_vec()).into()
}

/// Is this descriptor a pipe that is open for writing?
pub(crate) fn is_pipe(number: u32) -> bool {
    let path = format!("/proc/self/fd/{number}");
    // proc_pid_fd(5): the link's own mode tells how it is open.
    let open_for_writing = lstat(&path).is_ok_and(|link| link.st_mode & 0o200 != 0);
    open_for_writing && stat(&path).is_ok_and(|is| FileType::from_raw_mode(is.st_mode) == FileType::Fifo)
}

/// Writes a text into a pipe that is not ours.
pub(crate) fn write(number: u32, text: &[u8]) -> io::Result<()> {
    fs::File::from(duplicate(number)?).write_all(text)
}

fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
    let own = || pidfd_getfd(pidfd_open(getpid(), PidfdFlags::empty())?, raw, PidfdGetfdFlags::empty());
    // Some containers forbid that. Opened anew it needs rights of its own, and without a reader there would be no end
    // to the waiting.
    let anew =
        || open(format!("/proc/self/fd/{number}"), OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
    Ok(own().or_else(|_| anew())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_is_where_it_was() {
        for (path, place) in [("/b/qmail-queue", "/b/qmail-queue"), ("/b/qmail-queue (deleted)", "/b/qmail-queue")] {
            assert_eq!(present(Path::new(path)), Path::new(place));
        }
    }
}
