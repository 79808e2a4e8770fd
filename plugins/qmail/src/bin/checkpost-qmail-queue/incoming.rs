//! What the caller sends: the message at descriptor 0 to its end, then the envelope at descriptor 1.
//!
//! In this order only: the caller closes the message before it begins with the envelope, and waits for each to be
//! read (qmail.c). What it is is decided when both are whole.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use checkpost_client::spool::Spool;
use checkpost_qmail::map::Exit;
use checkpost_qmail::session::{self, Envelope, EnvelopeReader};
use rustix::io::{Errno, read, retry_on_intr};

/// Read at once.
const BLOCK: usize = 32 << 10;

/// Why there is no message.
#[derive(Debug)]
pub(crate) enum MessageError {
    Read(Errno),
    Write(io::Error),
}

impl MessageError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Read(_) => Exit::Read,
            Self::Write(_) => Exit::Write,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Write(error) => write!(f, "cannot be stored: {error}"),
        }
    }
}

/// Why there is no envelope.
pub(crate) enum EnvelopeError {
    Wrong(session::EnvelopeError),
    Read(Errno),
}

/// The whole message in a file without a name. A large one is put into `spool`.
pub(crate) fn message(spool: &Path) -> Result<OwnedFd, MessageError> {
    let mut store = Spool::new(spool).map_err(MessageError::Write)?;
    let mut block = vec![0; BLOCK];
    loop {
        match retry_on_intr(|| read(rustix::stdio::stdin(), &mut block)).map_err(MessageError::Read)? {
            0 => return Ok(store.into_descriptor()),
            count => store.write(&block[..count]).map_err(MessageError::Write)?,
        }
    }
}

/// The envelope to its last NUL.
pub(crate) fn envelope() -> Result<Envelope, EnvelopeError> {
    let mut reader = EnvelopeReader::default();
    let mut block = vec![0; BLOCK];
    loop {
        let count = retry_on_intr(|| read(rustix::stdio::stdout(), &mut block)).map_err(EnvelopeError::Read)?;
        if count == 0 || reader.feed(&block[..count]).map_err(EnvelopeError::Wrong)? {
            return reader.finish().map_err(EnvelopeError::Wrong);
        }
    }
}
