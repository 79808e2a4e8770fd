//! One connection to clamd, and the one request that is under way on it.
//! When to connect, how often and whether to try again is not decided here.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use checkpost_wire::clamd::{self, Answer, AnswerError, AnswerReader, Asked};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

use super::config::ClamdAddress;
use crate::content::Content;
use crate::filter::FilterError;
use crate::finding::Unscanned;

/// Octets of a chunk: few system calls, and a spooled mail is never in memory as a whole.
const CHUNK: usize = 256 << 10;

/// A connection in a session of clamd's (`IDSESSION`), so that it serves many mails.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    /// Requests so far.
    requests: u32,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    /// For the engine.
    pub error: FilterError,
    /// The connection had served before and ended before any answer: clamd closed it while it was
    /// idle, or was started anew. The request may be made once more on a new one.
    pub stale: bool,
}

impl Connection {
    /// Connects, without bound on the time. The error is the system's.
    pub(super) async fn open(address: &ClamdAddress) -> io::Result<Self> {
        let socket = match address {
            ClamdAddress::Unix(path) => {
                let mut pause = Duration::from_millis(5);
                loop {
                    match UnixStream::connect(path).await {
                        // unix(7) says EAGAIN when the listener's queue is full. There is nothing to wait on.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(Duration::from_millis(100));
                        }
                        connected => break Socket::Unix(connected?),
                    }
                }
            }
            ClamdAddress::Tcp { host, port } => {
                let socket = TcpStream::connect((host.as_str(), *port)).await?;
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
        };
        Ok(Self { socket, requests: 0 })
    }

    /// Still open, and silent as it should be?
    pub(super) fn is_idle(&self) -> bool {
        let mut byte = [0];
        matches!(self.socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Has a content scanned. After any other answer than `Clean` and `Found` the connection must be
    /// dropped; so it must when the future is dropped.
    pub(super) async fn scan(&mut self, content: &Content, asked: Asked) -> Result<Answer, Failed> {
        let mut head = Vec::with_capacity(32);
        if self.requests == 0 {
            head.extend_from_slice(clamd::IDSESSION);
        }
        self.requests += 1;
        let mut exchange = Exchange { socket: &self.socket, reader: AnswerReader::default(), whole: false };
        let sent = match asked {
            Asked::Stream => exchange.send_stream(head, content).await,
            Asked::Descriptor => exchange.send_descriptor(head, content).await,
        };
        let answered = match sent {
            Ok(()) => exchange.receive().await.map(|()| true),
            // It may have said why before it closed.
            Err(Broken::Peer(_) | Broken::Early) => exchange.receive().await.map(|()| false),
            Err(broken) => Err(broken),
        };
        let nothing_came = exchange.reader.is_empty();
        let reader = exchange.reader;
        let answer = answered.and_then(|in_turn| {
            let answer = clamd::parse_answer(reader.answer(), asked, Some(self.requests)).map_err(Broken::Answer)?;
            match answer {
                // Said before it had all of the mail.
                Answer::Clean | Answer::Found(_) if !in_turn => Err(Broken::Answer(AnswerError::Unknown)),
                answer => Ok(answer),
            }
        });
        match answer {
            Ok(Answer::IdleClosed) => Err(Failed {
                error: FilterError::new(Unscanned::ScannerError, "clamd timed out reading the request"),
                stale: self.requests > 1,
            }),
            Ok(answer) => Ok(answer),
            Err(broken) => Err(Failed {
                stale: self.requests > 1 && nothing_came && matches!(broken, Broken::Closed | Broken::Peer(_)),
                error: broken.into_error(reader.answer()),
            }),
        }
    }

    /// Asks for the versions; must be the first and only request.
    pub(super) async fn version(self) -> Result<clamd::Version, FilterError> {
        let mut exchange = Exchange { socket: &self.socket, reader: AnswerReader::default(), whole: false };
        let answered = match exchange.send(clamd::VERSION).await {
            Ok(()) => exchange.receive().await,
            Err(broken) => Err(broken),
        };
        answered
            .and_then(|()| clamd::parse_version(exchange.reader.answer()).map_err(Broken::Answer))
            .map_err(|broken| broken.into_error(exchange.reader.answer()))
    }
}

/// What went wrong within one request.
#[derive(Debug)]
enum Broken {
    /// Closed before the end of the answer.
    Closed,
    /// The connection broke.
    Peer(io::Error),
    /// An answer, or the end, before all was sent.
    Early,
    /// Not an answer.
    Answer(AnswerError),
    /// Our own side: the content could not be read.
    Local(io::Error),
}

impl Broken {
    fn into_error(self, seen: &[u8]) -> FilterError {
        let seen = String::from_utf8_lossy(&seen[..seen.len().min(80)]).escape_debug().to_string();
        match self {
            Self::Closed | Self::Early => {
                FilterError::new(Unscanned::HalfAnswer, format!("closed by clamd after answer {seen:?}"))
            }
            Self::Peer(error) => {
                FilterError::new(Unscanned::HalfAnswer, format!("connection broke after answer {seen:?}"))
                    .because(error)
            }
            Self::Answer(error) => FilterError::new(Unscanned::UnknownAnswer, format!("{error}: {seen:?}")),
            Self::Local(error) => FilterError::new(Unscanned::LocalError, "reading the mail").because(error),
        }
    }
}

/// One request and its answer.
struct Exchange<'a> {
    socket: &'a Socket,
    reader: AnswerReader,
    /// The reader has the whole answer.
    whole: bool,
}

impl Exchange<'_> {
    async fn send_stream(&mut self, mut buffer: Vec<u8>, content: &Content) -> Result<(), Broken> {
        buffer.extend_from_slice(clamd::INSTREAM);
        let mut offset = 0;
        loop {
            let count = usize::try_from(content.len() - offset).unwrap_or(CHUNK).min(CHUNK);
            if count > 0 {
                buffer.extend_from_slice(&clamd::chunk_header(count as u32));
                buffer = append(content, offset, count, buffer).await.map_err(Broken::Local)?;
                offset += count as u64;
            }
            let last = offset == content.len();
            if last {
                buffer.extend_from_slice(&clamd::END_OF_STREAM);
            }
            self.send(&buffer).await?;
            if last {
                return Ok(());
            }
            buffer.clear();
        }
    }

    async fn send_descriptor(&mut self, mut head: Vec<u8>, content: &Content) -> Result<(), Broken> {
        let Socket::Unix(socket) = self.socket else {
            return Err(Broken::Local(io::Error::other("a descriptor cannot be passed over TCP")));
        };
        let descriptor = content.descriptor().map_err(Broken::Local)?;
        head.extend_from_slice(clamd::FILDES);
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let descriptors = [descriptor.as_fd()];
                if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
                    return Err(io::Error::other("no room for a descriptor"));
                }
                Ok(rustix::net::sendmsg(socket, &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await
            .map_err(Broken::Peer)?;
        self.send(&head[sent..]).await
    }

    /// Sends all, unless clamd answers or closes before it has all.
    async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.socket.try_write(bytes) {
                Ok(0) => return Err(Broken::Peer(io::ErrorKind::WriteZero.into())),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let ready = self.socket.ready(Interest::READABLE | Interest::WRITABLE).await;
                    if ready.map_err(Broken::Peer)?.is_readable() && self.take_available()? {
                        return Err(Broken::Early);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Broken::Peer(error)),
            }
        }
        Ok(())
    }

    /// Reads until the answer is whole.
    async fn receive(&mut self) -> Result<(), Broken> {
        while !self.whole {
            self.socket.ready(Interest::READABLE).await.map_err(Broken::Peer)?;
            self.take_available()?;
        }
        // A second answer that came with the first is seen now, a later one before the next request.
        self.take_available()?;
        Ok(())
    }

    /// Takes what is there without waiting. `Ok(true)`: there was something.
    fn take_available(&mut self) -> Result<bool, Broken> {
        let mut buffer = [0; 1024];
        match self.socket.try_read(&mut buffer) {
            Ok(0) if self.whole => Ok(false),
            Ok(0) => Err(Broken::Closed),
            Ok(_) if self.whole => Err(Broken::Answer(AnswerError::Trailing)),
            Ok(count) => {
                self.whole = self.reader.feed(&buffer[..count]).map_err(Broken::Answer)?;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(_) if self.whole => Ok(false),
            Err(error) => Err(Broken::Peer(error)),
        }
    }
}

impl Socket {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_read(buffer),
            Self::Tcp(socket) => socket.try_read(buffer),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.try_write(bytes),
            Self::Tcp(socket) => socket.try_write(bytes),
        }
    }

    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Unix(socket) => socket.ready(interest).await,
            Self::Tcp(socket) => socket.ready(interest).await,
        }
    }
}

/// The buffer with `count` octets of the content more. A content that turns out shorter is an error: what
/// was announced must come.
async fn append(content: &Content, offset: u64, count: usize, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let start = buffer.len();
    if let Some(bytes) = content.as_slice() {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        buffer.extend_from_slice(&bytes[from..from + count]);
        return Ok(buffer);
    }
    let content = content.clone();
    let read = tokio::task::spawn_blocking(move || {
        buffer.resize(start + count, 0);
        let read = content.read_full_at(&mut buffer[start..], offset)?;
        if read == count { Ok(buffer) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof)) }
    });
    read.await.map_err(io::Error::other)?
}
