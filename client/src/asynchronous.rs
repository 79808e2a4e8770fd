//! The check socket from an event loop: as many mails at once as there are connections, on one thread.
//!
//! Changed contents come as pieces of the old one, so that no file goes to and fro.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use checkpost_wire::check::{Answer, Changed, Done, Request, Response};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::AskError;
use crate::exchange::{self, Heard};

/// The listener's queue is full: then a blocking connect would wait, and this one tries again.
const BREATH: Duration = Duration::from_millis(10);

/// The daemon's answer, and the connection it came on.
#[derive(Debug)]
pub struct Reply {
    /// What is to be done.
    pub answer: Answer,
    /// The octets of all [`Part::Put`](checkpost_wire::check::Part::Put), one behind the other.
    pub octets: Vec<u8>,
    stream: UnixStream,
}

/// Asks the daemon at `socket` about one mail, as [`crate::ask`] does. What [`Request`] says of how contents are carried
/// does not count: the message goes as a descriptor, and what is changed of it comes in pieces.
///
/// # Errors
/// All but a whole answer within the time.
pub async fn ask(
    socket: &Path,
    request: Request,
    content: BorrowedFd<'_>,
    within: Duration,
) -> Result<Reply, AskError> {
    let until = Instant::now() + within;
    let recipients = request.recipients.len();
    let said = exchange::words(request, Changed::Pieces, within)?;
    let exchange = async {
        let mut stream = connect(socket).await.map_err(AskError::Down)?;
        // A daemon that refuses before it has read all closes, and what it said can still be read.
        let sent = send(&mut stream, &said, content).await;
        let mut heard = Heard::default();
        match response(&stream, &mut heard, recipients).await {
            Ok((Response::Answer(answer), octets)) => {
                heard.contents(&answer, Changed::Pieces)?;
                Ok(Reply { answer, octets, stream })
            }
            Ok((Response::Error(why), _)) => Err(AskError::Refused(why)),
            Err(error) => Err(sent.map_err(AskError::Broken).err().unwrap_or(error)),
        }
    };
    timeout_at(until, exchange).await.unwrap_or(Err(AskError::Late))
}

impl Reply {
    /// Tells the daemon what becomes of its answer; to be said at the last moment, and without waiting. Nothing hangs on
    /// it but the daemon's log, so a failure is of no consequence.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn done(&self, done: &Done) -> io::Result<()> {
        // Nothing else was said since the request, so there is room.
        self.stream.try_write(&done.encode()).map(drop)
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BREATH).await,
            connected => return connected,
        }
    }
}

async fn send(stream: &mut UnixStream, octets: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let sent = stream.async_io(Interest::WRITABLE, || exchange::send(stream.as_fd(), octets, descriptor)).await?;
    stream.write_all(&octets[sent..]).await
}

async fn response(stream: &UnixStream, heard: &mut Heard, recipients: usize) -> Result<(Response, Vec<u8>), AskError> {
    loop {
        let received = stream.async_io(Interest::READABLE, || heard.receive(stream.as_fd())).await;
        if received.map_err(AskError::Broken)? == 0 {
            return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(whole) = heard.response(recipients)? {
            return Ok(whole);
        }
    }
}
