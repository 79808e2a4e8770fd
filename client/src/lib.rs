//! The check socket for small programs that a mail server starts: blocking, one mail, no runtime, no threads. With the
//! feature `tokio` there is another client for programs that have many mails at once.
//!
//! It decides nothing: what a failure means is for the program to say, and the only safe reading of every
//! [`AskError`] is "not checked, try again later".

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod connection;
mod exchange;
#[cfg(feature = "fake")]
pub mod fake;
pub mod inherited;
pub mod runs;
pub mod serve;
pub mod settings;
pub mod spool;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use checkpost_wire::check::{Answer, Changed, Done, Form, ListError, Request, Response};

use connection::Connection;

/// The daemon's answer, and the connection it came on.
#[derive(Debug)]
pub struct Reply {
    /// What is to be done.
    pub answer: Answer,
    /// For each content of the answer: its octets if they are others than those sent, to be read from offset 0.
    pub contents: Vec<Option<OwnedFd>>,
    /// With [`ask_pieces`]: the new octets of all pieces, one behind the other.
    pub octets: Vec<u8>,
    connection: Connection,
}

/// Why a mail was not checked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody answers at the socket.
    #[error("no connection")]
    Down(#[source] io::Error),
    /// No whole answer in time.
    #[error("no answer in time")]
    Late,
    /// The connection ended, or broke, before the answer was whole.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// What came is not understood.
    #[error("an answer that is not understood")]
    Unclear(#[source] ListError),
    /// What came is no answer of this protocol: longer than any, or without its descriptors.
    #[error("not an answer: {0}")]
    Malformed(&'static str),
    /// The daemon says that it cannot check this mail now.
    #[error("the daemon could not check it: {0}")]
    Refused(String),
    /// The request cannot be sent.
    #[error("the request cannot be sent")]
    Request(#[source] ListError),
}

/// Asks the daemon at `socket` about one mail. `content` is a regular file, readable, whose offset is neither used nor
/// moved. What [`Request`] says of how contents are carried does not count: both ways they go as descriptors.
///
/// # Errors
/// All but a whole answer within the time.
pub fn ask(socket: &Path, request: Request, content: BorrowedFd<'_>, within: Duration) -> Result<Reply, AskError> {
    ask_for(Changed::Descriptor, socket, request, content, within)
}

/// As [`ask`], but changed contents come back as pieces of the old one and at most 8 MiB of new octets: for who does
/// not hand on whole contents.
///
/// # Errors
/// All but a whole answer within the time.
pub fn ask_pieces(
    socket: &Path,
    request: Request,
    content: BorrowedFd<'_>,
    within: Duration,
) -> Result<Reply, AskError> {
    ask_for(Changed::Pieces, socket, request, content, within)
}

fn ask_for(
    changed: Changed,
    socket: &Path,
    request: Request,
    content: BorrowedFd<'_>,
    within: Duration,
) -> Result<Reply, AskError> {
    let until = Instant::now() + within;
    let recipients = request.recipients.len();
    let said = exchange::words(request, changed, within)?;
    let mut connection = Connection::open(socket, until)?;
    // A daemon that refuses before it has read all closes, and what it said can still be read.
    let sent = connection.send(&said, content, until);
    match connection.response(recipients, until) {
        Ok((Response::Answer(answer), octets)) => {
            let contents = connection.contents(&answer, changed)?;
            Ok(Reply { answer, contents, octets, connection })
        }
        Ok((Response::Error(why), _)) => Err(AskError::Refused(why)),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

impl AskError {
    /// Is nobody there who could have answered? Else the daemon had its say, if not in an answer, and an administrator's
    /// "let pass while it is down" is not about that.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Down(_) | Self::Late | Self::Broken(_))
    }

    /// It and its cause, for a log.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and what lies behind it, for a log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl Reply {
    /// What each of these contents of the answer is, given the message that was sent: descriptors of their own. A content
    /// can be taken once. `None`: there is no such content, or no descriptor to be had.
    pub fn take_contents(
        &mut self,
        numbers: impl IntoIterator<Item = usize>,
        message: BorrowedFd<'_>,
    ) -> Option<Vec<OwnedFd>> {
        let mut take = |number: usize| match self.contents.get_mut(number)?.take() {
            Some(changed) => Some(changed),
            None if self.answer.contents.get(number)?.form == Form::Same => message.try_clone_to_owned().ok(),
            None => None,
        };
        numbers.into_iter().map(&mut take).collect()
    }

    /// Tells the daemon what becomes of its answer; to be said at the last moment. Nothing hangs on it but the
    /// daemon's log, so a failure is of no consequence.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn done(&mut self, done: &Done) -> io::Result<()> {
        self.connection.write(&done.encode())
    }
}
