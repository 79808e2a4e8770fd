//! Descriptors that come and go with the bytes of a Unix socket (unix(7), SCM_RIGHTS), and what is taken from one.
//!
//! A descriptor from outside is a file of somebody else's: it is looked at before it is read, read once, and never
//! kept. Nothing is opened by its name, which would be done with our rights.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use checkpost_core::ContentWriter;
use rustix::fs::{FileType, OFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// So many may wait to be taken. A peer that sends more is cut off.
const WAITING: usize = 4;
/// So many go out with one write (the kernel's bound is 253).
const AT_ONCE: usize = 64;
/// Read at once from a file, in octets.
const BLOCK: usize = 256 << 10;
/// `FUSE_SUPER_MAGIC` (statfs(2)): a file there answers a read when the user behind it likes.
const FUSE: i64 = 0x6573_5546;
/// `TMPFS_MAGIC`.
const TMPFS: i64 = 0x0102_1994;

/// Those of one connection: what came and was not taken yet, and what goes out with the next bytes.
#[derive(Debug, Clone, Default)]
pub struct Descriptors(Arc<Mutex<Queues>>);

#[derive(Debug, Default)]
struct Queues {
    came: VecDeque<OwnedFd>,
    going: Vec<OwnedFd>,
}

impl Descriptors {
    /// The first that came.
    pub fn take(&self) -> Option<OwnedFd> {
        self.with(|queues| queues.came.pop_front())
    }

    /// Goes out with the first of the bytes that are written next.
    pub fn send(&self, descriptor: OwnedFd) {
        self.with(|queues| queues.going.push(descriptor));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Queues) -> T) -> T {
        // Queues of descriptors are whole at every moment, so a panic elsewhere breaks nothing.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a descriptor is not taken for a content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// A pipe, a socket, a folder.
    #[error("the descriptor is no regular file")]
    NoFile,
    /// Opened for writing only, or for no access at all.
    #[error("the descriptor is not open for reading")]
    NotReadable,
    /// On a file system that an ordinary user can be behind.
    #[error("the file is on a FUSE file system, which may let us wait; send the octets instead")]
    Fuse,
    /// More than is taken.
    #[error("the file is larger than the limit of {0} octets")]
    TooLarge(u64),
    /// It became shorter while it was read.
    #[error("the file ended at octet {0}, before its length")]
    Shrunk(u64),
    /// There is more than its length says.
    #[error("the file goes on behind octet {0}, its length")]
    Grew(u64),
    /// Reading it, or keeping it, failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A file that may be read.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: File,
    /// Where the content begins and ends.
    start: u64,
    end: u64,
    in_memory: bool,
}

impl Incoming {
    /// Looks at a descriptor. Whoever can name a file can have a descriptor of it without the right to read it
    /// (open(2), O_PATH), so its access mode counts, and it is never opened anew.
    pub(crate) fn new(descriptor: OwnedFd, skip: u64, limit: u64) -> Result<Self, Unfit> {
        let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(io::Error::from)?;
        if flags.contains(OFlags::PATH) || flags & OFlags::ACCMODE == OFlags::WRONLY {
            return Err(Unfit::NotReadable);
        }
        let stat = rustix::fs::fstat(&descriptor).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Unfit::NoFile);
        }
        let file_system = rustix::fs::fstatfs(&descriptor).map_err(io::Error::from)?.f_type as i64;
        if file_system == FUSE {
            return Err(Unfit::Fuse);
        }
        let end = u64::try_from(stat.st_size).unwrap_or(0);
        match end.checked_sub(skip) {
            None => Err(Unfit::Shrunk(end)),
            Some(length) if length > limit => Err(Unfit::TooLarge(limit)),
            Some(_) => Ok(Self { file: File::from(descriptor), start: skip, end, in_memory: file_system == TMPFS }),
        }
    }

    /// Octets.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Is it on no disk (memfd_create(2), tmpfs), so that reading it takes no waiting?
    pub(crate) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Copies all of it, whatever its offset is: its owner may change it at any time, and scanners need descriptors with
    /// offsets of their own.
    pub(crate) fn copy(&self, writer: &mut ContentWriter) -> Result<(), Unfit> {
        // One octet more than there should be, so that the end shows itself.
        let mut block = vec![0; BLOCK.min(usize::try_from(self.len()).unwrap_or(BLOCK).saturating_add(1))];
        let mut offset = self.start;
        loop {
            match self.file.read_at(&mut block, offset) {
                Ok(0) if offset == self.end => return Ok(()),
                Ok(0) => return Err(Unfit::Shrunk(offset)),
                Ok(count) => {
                    offset += count as u64;
                    if offset > self.end {
                        return Err(Unfit::Grew(self.end));
                    }
                    writer.append(&block[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A Unix stream with descriptors.
pub(crate) struct Passing {
    stream: UnixStream,
    descriptors: Descriptors,
}

impl Passing {
    /// The stream, and the handle to what comes and goes with it.
    pub(crate) fn new(stream: UnixStream) -> (Self, Descriptors) {
        let descriptors = Descriptors::default();
        (Self { stream, descriptors: descriptors.clone() }, descriptors)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(WAITING))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let received = recvmsg(self.stream.as_fd(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let too_many = self.descriptors.with(|queues| {
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    queues.came.extend(descriptors);
                }
            }
            queues.came.len() > WAITING
        });
        if too_many || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("more descriptors than messages"));
        }
        Ok(received.bytes)
    }

    fn transmit(&self, slices: &[IoSlice<'_>], going: &[OwnedFd]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<_> = going.iter().map(AsFd::as_fd).collect();
        if !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::other("more descriptors than go with one write"));
        }
        Ok(sendmsg(self.stream.as_fd(), slices, &mut ancillary, SendFlags::NOSIGNAL)?)
    }
}

impl AsyncRead for Passing {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            match self.stream.try_io(Interest::READABLE, || self.receive(unfilled)) {
                Ok(count) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Passing {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let going = self.descriptors.with(|queues| std::mem::take(&mut queues.going));
        if going.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        loop {
            let written = match self.stream.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => self.stream.try_io(Interest::WRITABLE, || self.transmit(slices, &going)),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => {
                    self.descriptors.with(|queues| queues.going = going);
                    return Poll::Pending;
                }
            };
            match written {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
