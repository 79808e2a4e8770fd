//! What the mail server sends on standard input, to its end, into a file without a name.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use checkpost_client::spool::Spool;
use checkpost_pipe::Envelope;
use checkpost_pipe::bsmtp::{BsmtpError, Reader};
use rustix::io::{pread, read, retry_on_intr};

/// Read at once, in octets.
const BLOCK: usize = 32 << 10;

/// Why there is no mail.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IncomingError {
    #[error("the mail cannot be read")]
    Read(#[source] io::Error),
    #[error("the mail cannot be stored")]
    Store(#[source] io::Error),
    #[error(transparent)]
    Bsmtp(#[from] BsmtpError),
}

/// A mail as Postfix sends it: the message and nothing else.
pub(crate) fn plain(folder: &Path) -> Result<OwnedFd, IncomingError> {
    let mut spool = Spool::new(folder).map_err(IncomingError::Store)?;
    each_block(|block| spool.write(block).map_err(IncomingError::Store))?;
    Ok(spool.into_descriptor())
}

/// A mail as Exim sends it: with its envelope.
pub(crate) fn bsmtp(folder: &Path) -> Result<(OwnedFd, Envelope), IncomingError> {
    let mut spool = Spool::new(folder).map_err(IncomingError::Store)?;
    let mut reader = Reader::default();
    each_block(|block| reader.feed(block, |content| spool.write(content).map_err(IncomingError::Store)))?;
    Ok((spool.into_descriptor(), reader.finish()?))
}

/// The first octets of a message.
pub(crate) fn head(message: BorrowedFd<'_>, length: usize) -> Result<Vec<u8>, IncomingError> {
    let mut head = vec![0; length];
    let count = retry_on_intr(|| pread(message, &mut head, 0)).map_err(|error| IncomingError::Read(error.into()))?;
    head.truncate(count);
    Ok(head)
}

fn each_block(mut take: impl FnMut(&[u8]) -> Result<(), IncomingError>) -> Result<(), IncomingError> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = retry_on_intr(|| read(rustix::stdio::stdin(), &mut block))
            .map_err(|error| IncomingError::Read(error.into()))?;
        if count == 0 {
            return Ok(());
        }
        take(&block[..count])?;
    }
}
