//! One connection to the daemon: octets and descriptors, each step within a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use checkpost_wire::check::{Answer, Changed, Finder, Form, HELLO, List, MAX_ANSWER, Response};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};

use crate::AskError;

/// Descriptors taken with one read; the kernel closes those beyond it.
const DESCRIPTORS: usize = 16;
/// Read at once, in octets.
const BLOCK: usize = 4 << 10;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    descriptors: VecDeque<OwnedFd>,
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
            Ok(stream) => Ok(Self { stream, descriptors: VecDeque::new() }),
            Err(error) if is_late(&error) => Err(AskError::Late),
            Err(error) => Err(AskError::Down(error)),
        }
    }

    /// Sends these octets; the descriptor goes with the first.
    pub(crate) fn send(&mut self, octets: &[u8], descriptor: BorrowedFd<'_>, until: Instant) -> Result<(), AskError> {
        let mut send = || -> io::Result<()> {
            set_socket_timeout(&self.stream, Timeout::Send, Some(left(until)?))?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor];
            if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let sent = rustix::io::retry_on_intr(|| {
                sendmsg(&self.stream, &[IoSlice::new(octets)], &mut ancillary, SendFlags::NOSIGNAL)
            })?;
            self.stream.write_all(&octets[sent..])
        };
        send().map_err(|error| if is_late(&error) { AskError::Late } else { AskError::Broken(error) })
    }

    /// Sends octets, with the time-out of before.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets)
    }

    /// Waits for the answer to a request for so many recipients, and for the octets that belong to its pieces. Nothing
    /// comes behind them.
    pub(crate) fn response(
        &mut self,
        recipients: usize,
        changed: Changed,
        until: Instant,
    ) -> Result<(Response, Vec<u8>), AskError> {
        let mut buffer = Vec::new();
        let mut finder = Finder::default();
        loop {
            self.receive_more(&mut buffer, until)?;
            let greeted = buffer.len().min(HELLO.len());
            if buffer[..greeted] != HELLO[..greeted] {
                return Err(AskError::Malformed("another protocol or version"));
            }
            let list = &buffer[greeted..];
            let Some(length) = finder.find(list, MAX_ANSWER).map_err(|_| AskError::Malformed("it is too long"))? else {
                continue;
            };
            let response = Response::decode(List::new(&list[..length]), recipients).map_err(AskError::Unclear)?;
            let octets = match &response {
                Response::Answer(answer) if changed == Changed::Pieces => answer.octets(),
                _ => 0,
            };
            let octets = usize::try_from(octets).ok().filter(|octets| *octets <= MAX_ANSWER);
            let octets = octets.ok_or(AskError::Malformed("it is too long"))?;
            let mut rest = buffer.split_off(greeted + length);
            while rest.len() < octets {
                self.receive_more(&mut rest, until)?;
            }
            return if rest.len() == octets {
                Ok((response, rest))
            } else {
                Err(AskError::Malformed("more than one answer"))
            };
        }
    }

    /// The descriptors that came with an answer, in the places of its contents.
    pub(crate) fn contents(&mut self, answer: &Answer, changed: Changed) -> Result<Vec<Option<OwnedFd>>, AskError> {
        let mut contents = Vec::with_capacity(answer.contents.len());
        for content in &answer.contents {
            contents.push(match content.form {
                Form::Same => None,
                Form::Descriptor if changed == Changed::Descriptor => {
                    Some(self.descriptors.pop_front().ok_or(AskError::Malformed("a descriptor is missing"))?)
                }
                Form::Pieces(_) if changed == Changed::Pieces => None,
                Form::Descriptor => return Err(AskError::Malformed("descriptors were not asked for")),
                Form::Pieces(_) => return Err(AskError::Malformed("pieces were not asked for")),
            });
        }
        if self.descriptors.is_empty() { Ok(contents) } else { Err(AskError::Malformed("too many descriptors")) }
    }

    /// Octets that are there, behind those in `buffer`; an end is an error.
    fn receive_more(&mut self, buffer: &mut Vec<u8>, until: Instant) -> Result<(), AskError> {
        match self.receive(buffer, until) {
            Ok(0) => Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) if is_late(&error) => Err(AskError::Late),
            Err(error) => Err(AskError::Broken(error)),
        }
    }

    /// Octets that are there, behind those in `buffer`; 0 at the end.
    fn receive(&mut self, buffer: &mut Vec<u8>, until: Instant) -> io::Result<usize> {
        set_socket_timeout(&self.stream, Timeout::Recv, Some(left(until)?))?;
        let start = buffer.len();
        buffer.resize(start + BLOCK, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut buffer[start..])];
            recvmsg(&self.stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let count = received.as_ref().map_or(0, |received| received.bytes);
        buffer.truncate(start + count);
        received?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        Ok(count)
    }
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
