//! The real qmail-queue: found, never mistaken for ourselves, and started with the message and the envelope as files.
//!
//! In our own place wherever that can be: `qp` in the caller's answer is then the process that qmail-send logs, and
//! the real user stays who the original writes into its Received line (qmail-queue.c).

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use checkpost_client::spool::{in_memory, write_all};
use checkpost_qmail::map::Exit;
use checkpost_qmail::session::Envelope;
use nix::errno::Errno;
use rustix::fs::{Access, SeekFrom, access, seek, stat};
use rustix::process::{Pid, getpid, getppid};
use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::place::Place;

/// What we were called by, where qmail can be told; nobody whom we start may come back here.
const HOOK: &str = "QMAILQUEUE";

/// Holds the process id of who became the original. If we find ourselves there, the original is us under another name.
const MARK: &str = "CHECKPOST_QMAIL_QUEUE";

pub(crate) struct Original {
    path: PathBuf,
}

impl Original {
    /// Looks whether it can be started.
    pub(crate) fn at(path: &Path, place: &Place) -> Result<Self, (Exit, String)> {
        let name = path.display();
        let is = stat(path).map_err(|error| (Exit::NoOriginal, format!("the original {name}: {error}")))?;
        if (is.st_dev, is.st_ino) == (place.is.st_dev, place.is.st_ino) {
            return Err((Exit::Internal, format!("the original {name} is this program itself")));
        }
        access(path, Access::EXEC_OK).map_err(|error| (Exit::NoOriginal, format!("the original {name}: {error}")))?;
        // A copy is another file. It becomes us by exec, or is started by what did.
        let mark = std::env::var(MARK).ok().and_then(|mark| mark.parse::<i32>().ok());
        if mark.is_some_and(|mark| [Some(getpid()), getppid()].map(Pid::as_raw).contains(&mark)) {
            let hint = if is.st_mode & 0o4000 == 0 { "; it is not set-uid, as a real one is" } else { "" };
            return Err((Exit::Internal, format!("the original {name} leads back to this program{hint}")));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Runs it beside us: its exit code.
    pub(crate) fn run(&self, message: OwnedFd, envelope: &Envelope) -> io::Result<u8> {
        let (message, envelope) = (File::from(rewound(message)?), File::from(written(envelope)?));
        let mut command = Command::new(&self.path);
        command.env_remove(HOOK).env(MARK, std::process::id().to_string());
        let status = command.stdin(message).stdout(envelope).status()?;
        let code = status.code().ok_or_else(|| io::Error::other(status.to_string()))?;
        u8::try_from(code).map_err(io::Error::other)
    }

    /// Becomes it. Comes back only when it cannot be started.
    pub(crate) fn become_it(&self, message: OwnedFd, envelope: &Envelope) -> io::Error {
        self.replace(message, envelope).err().unwrap_or_else(|| io::Error::other("it was started and was not"))
    }

    fn replace(&self, message: OwnedFd, envelope: &Envelope) -> io::Result<()> {
        dup2_stdin(rewound(message)?)?;
        dup2_stdout(written(envelope)?)?;
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os().filter(|(name, _)| name != HOOK && name != MARK) {
            environment.push(variable(name, &value.into_vec())?);
        }
        environment.push(variable(MARK.into(), std::process::id().to_string().as_bytes())?);
        // Not by std, which would give SIGPIPE its default back. Callers ignore it.
        match nix::unistd::execve(&path, &[&path], &environment) {
            Ok(never) => match never {},
            Err(errno) => Err(errno_error(errno)),
        }
    }
}

fn errno_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

fn variable(name: OsString, value: &[u8]) -> io::Result<CString> {
    let mut all = name.into_vec();
    all.push(b'=');
    all.extend_from_slice(value);
    Ok(CString::new(all)?)
}

/// To its first byte. A content of the daemon's may stand anywhere.
fn rewound(message: OwnedFd) -> io::Result<OwnedFd> {
    seek(&message, SeekFrom::Start(0))?;
    Ok(message)
}

fn written(envelope: &Envelope) -> io::Result<OwnedFd> {
    let file = in_memory()?;
    write_all(file.as_fd(), envelope.as_bytes())?;
    rewound(file)
}
