//! The filter as a server: a socket with the mode and owner that smtpserver needs, and a thread for each of its sessions.
//!
//! A session that we leave has its next mail taken unchecked. So at the end there is no hurry: who is connected is
//! served on, and so is who comes.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use checkpost_client::serve::{self, Ending};
use checkpost_zmailer::config::Config;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::mail::Desk;
use crate::{log, start, talk};

/// smtpserver connects as ZMailer's user, and wants an execute bit before it believes in a filter.
const SOCKET_MODE: u32 = 0o700;
/// The kernel may make it less (SOMAXCONN).
const BACKLOG: i32 = 4096;
/// Descriptors of one mail: its connection, its file, the daemon, a changed content, a copy.
const DESCRIPTORS: u64 = 6;
/// smtpserver reads at once; this is for one that was stopped.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Until sessions that are still open are left. systemd waits 90 s.
const DRAIN: Duration = Duration::from_secs(80);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(settings: PathBuf) -> ExitCode {
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::line("", format_args!("ended, and mail passes UNCHECKED: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: PathBuf) -> io::Result<()> {
    let config = Config::read(&settings).unwrap_or_else(|error| {
        log::line("", format_args!("all mail is put off: the settings are wrong: {error}"));
        Config::default()
    });
    // Before there is a second thread.
    let end = signals()?;
    let disabled =
        start::drop_privileges(&config.user).err().map(|error| format!("cannot become {}: {error}", config.user));
    if let Some(why) = &disabled {
        log::line("", format_args!("all mail is put off: {why}"));
    }
    start::raise_limit(config.sessions as u64 * DESCRIPTORS + 32);
    let listener = match start::handed_over() {
        Some(listener) => listener,
        None => listen(&config.listen).map_err(|error| named(&config.listen, &error))?,
    };
    listener.set_nonblocking(true)?;
    let desk = Arc::new(Desk { settings, is_program: false, disabled });
    let session = move |stream: &UnixStream| {
        // However it ends: smtpserver is gone.
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_write_timeout(Some(WRITE_TIME));
        let _ = talk::talk(stream, stream, &desk);
    };
    let ending = Ending::Drain(DRAIN);
    let left = serve::serve(&listener, (&end, || true), ending, config.sessions, |text| log::line("", text), session)?;
    if left > 0 {
        log::line("", format_args!("ends with {left} sessions open: the next mail of each passes UNCHECKED"));
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Readable once we are to end.
fn signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Makes the socket, under the name of one that was left behind. It is bound under another name and gets its own when it
/// can be used, so that at no moment there is none.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody serves there already"));
    }
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(".new");
    let hidden = PathBuf::from(hidden);
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let address = SocketAddrUnix::new(&hidden)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // No other file is made here, and no thread runs yet.
    let before = rustix::process::umask(Mode::from_raw_mode(0o777 & !SOCKET_MODE));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    fs::rename(&hidden, path)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_socket_has_the_bits_that_smtpserver_needs_and_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("filter.sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(UnixListener::bind(folder.path().join("filter.sock.new")).unwrap());
        let listener = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(listen(&path).is_ok());
    }
}
