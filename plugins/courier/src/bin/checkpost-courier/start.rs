//! How Courier starts a filter, and what a filter must do in return: the socket first, complete before anybody sees
//! it, then a word that we are there. courierfilter(8).

use std::fs;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The write end of the start-up pipe.
const STARTED: RawFd = 3;
/// Courier's submits connect all at once, and those that wait for a free session wait here. The kernel may make it
/// less (SOMAXCONN).
const BACKLOG: i32 = 4096;
/// Group courier may connect, as it may in the folder itself: local mail comes from programs of that group.
const SOCKET_MODE: u32 = 0o660;

/// A filter that is asked by nobody else answers at once.
const PROBE_TIME: Duration = Duration::from_secs(10);

/// What courierfilter waits for.
#[derive(Debug)]
pub(crate) struct Waiting(Option<RawFd>);

impl Waiting {
    /// To be called before anything is opened: descriptors above the pipe's are courierfilter's and are closed (on a
    /// start by SIGHUP it forgets one).
    pub(crate) fn take() -> Self {
        let Ok(open) = fs::read_dir("/proc/self/fd") else {
            // Without a look at them: the lowest free number tells whether 3 is taken.
            let taken = fs::File::open("/dev/null").is_ok_and(|file| file.as_raw_fd() != STARTED);
            return Self(taken.then_some(STARTED));
        };
        let numbers: Vec<RawFd> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The folder itself was one of them, and is closed by now.
        for number in numbers.iter().copied().filter(|number| *number > STARTED) {
            let _ = nix::unistd::close(number);
        }
        let is_pipe = |path: &str| fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
        let waits = numbers.contains(&STARTED) && is_pipe("/proc/self/fd/3");
        Self(waits.then_some(STARTED))
    }

    /// Is this program courierfilter's child, rather than started by hand?
    pub(crate) fn is_courierfilter(&self) -> bool {
        self.0.is_some()
    }

    /// Lets courierfilter go on.
    pub(crate) fn started(self) {
        if let Some(pipe) = self.0 {
            let _ = nix::unistd::close(pipe);
        }
    }
}

/// The socket that Courier asks at. It stays when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket `name` among the mandatory filters of the Courier whose folders are in `state`. It is bound
    /// under a name that Courier overlooks, and gets its own when it can be used.
    pub(crate) fn create(state: &Path, name: &str) -> io::Result<Self> {
        let (all, some) = (state.join("allfilters"), state.join("filters"));
        let (path, hidden) = (all.join(name), all.join(format!(".{name}")));
        for stale in [&path, &hidden, &some.join(name)] {
            match fs::remove_file(stale) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", stale.display())));
                }
                _ => {}
            }
        }
        let listener = bind(&hidden).and_then(|listener| {
            fs::set_permissions(&hidden, fs::Permissions::from_mode(SOCKET_MODE))?;
            fs::rename(&hidden, &path)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => Ok(Self { listener, path }),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        }
    }

    /// Takes the socket away: Courier does not ask any more, and mail passes.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Does a filter answer at its socket? For whoever sets it up: a socket alone may be left from one that was killed.
pub(crate) fn probe(state: &Path, name: &str) -> io::Result<()> {
    let path = state.join("allfilters").join(name);
    let ask = || -> io::Result<()> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PROBE_TIME))?;
        // A request that ends before it has begun gets a refusal.
        stream.shutdown(Shutdown::Write)?;
        stream.read_exact(&mut [0; 4])
    };
    ask().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Never wider than it is to be, not for a moment. No other file is made here, and no thread runs yet.
    let before = rustix::process::umask(Mode::from_raw_mode(0o777 & !SOCKET_MODE));
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_appears_complete_and_replaces_stale_ones() {
        let state = tempfile::tempdir().unwrap();
        for folder in ["allfilters", "filters"] {
            fs::create_dir(state.path().join(folder)).unwrap();
            drop(UnixListener::bind(state.path().join(folder).join("checkpost")).unwrap());
        }
        drop(UnixListener::bind(state.path().join("allfilters/.checkpost")).unwrap());
        let socket = Socket::create(state.path(), "checkpost").unwrap();
        let path = state.path().join("allfilters/checkpost");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::read_dir(state.path().join("filters")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(state.path().join("allfilters")).unwrap().count(), 1);
        socket.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_cannot_be_is_an_error_with_its_path() {
        let error = Socket::create(Path::new("/nonexistent"), "checkpost").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/allfilters/checkpost"), "{error}");
    }
}
