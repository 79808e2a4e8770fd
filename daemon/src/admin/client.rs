//! The asking side, blocking, for programs of one question.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{MAX_LINE, Request, Response};

/// A connection to a daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection broke, or nothing came in time.
    #[error("the daemon cannot be asked")]
    Io(#[from] io::Error),
    /// The daemon closed the connection without an answer.
    #[error("the daemon closed the connection without an answer")]
    NoAnswer,
    /// The answer cannot be read: another version of the program, probably.
    #[error("the daemon's answer cannot be read; is it of another version?")]
    Answer(#[from] serde_json::Error),
    /// The daemon did not do it.
    #[error("the daemon says: {0}")]
    Refused(String),
}

impl Client {
    /// Connects. An error means that no daemon is there, or that it may not be asked.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self { stream: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Asks, with the octets that the request announces, and waits so long for the answer.
    pub fn ask(
        &mut self,
        request: &Request,
        message: Option<&mut dyn Read>,
        patience: Duration,
    ) -> Result<Response, ClientError> {
        let stream = self.stream.get_mut();
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A daemon that refuses answers and closes before it has read everything: its answer matters
        // more than that writing failed.
        let written = stream.write_all(&line).and_then(|()| match message {
            Some(message) => io::copy(message, stream).map(|_| ()),
            None => Ok(()),
        });
        let mut answer = Vec::new();
        let read = (&mut self.stream).take(MAX_LINE as u64).read_until(b'\n', &mut answer);
        if answer.is_empty() {
            written?;
            read?;
            return Err(ClientError::NoAnswer);
        }
        match serde_json::from_slice(&answer)? {
            Response::Problem(problem) => Err(ClientError::Refused(problem)),
            response => Ok(response),
        }
    }
}
