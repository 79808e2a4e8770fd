//! One connection to the daemon, blocking: each step within a time.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use checkpost_wire::check::{Answer, Changed, Response};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::AskError;
use crate::exchange::{self, Heard};

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    heard: Heard,
}

impl Connection {
    pub(crate) fn open(socket: &Path, until: Instant) -> Result<Self, AskError> {
        let open = || -> io::Result<UnixStream> {
            let address = SocketAddrUnix::new(socket)?;
            let descriptor =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            // unix(7): a connect waits for room in the listener's queue, for the send time-out at most.
            set_socket_timeout(&descriptor, Timeout::Send, Some(left(until)?))?;
            rustix::net::connect(&descriptor, &address)?;
            Ok(descriptor.into())
        };
        match open() {
            Ok(stream) => Ok(Self { stream, heard: Heard::default() }),
            Err(error) if is_late(&error) => Err(AskError::Late),
            Err(error) => Err(AskError::Down(error)),
        }
    }

    /// Sends these octets; the descriptor goes with the first.
    pub(crate) fn send(&mut self, octets: &[u8], descriptor: BorrowedFd<'_>, until: Instant) -> Result<(), AskError> {
        let mut send = || -> io::Result<()> {
            set_socket_timeout(&self.stream, Timeout::Send, Some(left(until)?))?;
            let sent = exchange::send(self.stream.as_fd(), octets, descriptor)?;
            self.stream.write_all(&octets[sent..])
        };
        send().map_err(failed)
    }

    /// Sends octets, with the time-out of before.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Waits for the answer to a request for so many recipients, and for the octets that belong to its pieces.
    pub(crate) fn response(&mut self, recipients: usize, until: Instant) -> Result<(Response, Vec<u8>), AskError> {
        loop {
            let receive = |heard: &mut Heard| -> io::Result<usize> {
                set_socket_timeout(&self.stream, Timeout::Recv, Some(left(until)?))?;
                heard.receive(self.stream.as_fd())
            };
            if receive(&mut self.heard).map_err(failed)? == 0 {
                return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(whole) = self.heard.response(recipients)? {
                return Ok(whole);
            }
        }
    }

    /// The descriptors that came with an answer, in the places of its contents.
    pub(crate) fn contents(&mut self, answer: &Answer, changed: Changed) -> Result<Vec<Option<OwnedFd>>, AskError> {
        self.heard.contents(answer, changed)
    }
}

fn failed(error: io::Error) -> AskError {
    if is_late(&error) { AskError::Late } else { AskError::Broken(error) }
}

/// A time-out of zero would be none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}

/// socket(7): a time-out that has passed is EAGAIN.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
