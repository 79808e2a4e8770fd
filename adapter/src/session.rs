//! One protocol without I/O: bytes in, steps out.
//!
//! A [`Session`] never reads a socket, a file or a clock. A driver feeds it, asks it for the next
//! [`Step`], takes it, and tells how it went by an [`Answer`]. The same session runs under tokio,
//! in a blocking helper, and in a test that feeds it one byte at a time. "Need more" is a step
//! ([`Step::Read`]), not an error.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use checkpost_core::{Abilities, Content, Envelope, MailId, Origin};

use crate::address::SocketAddress;
use crate::descriptors::Unfit;
use crate::files::Unopened;
use crate::host::Judged;

/// One connection's protocol.
///
/// The driver's loop: call [`Session::step`]; write out what both [`Session::output`]s hold; take
/// the step; put what was read into [`Session::input`], or tell the outcome by
/// [`Session::resolve`]; again, until [`Step::Close`].
pub trait Session: Send {
    /// Where the driver puts what it read from this side.
    fn input(&mut self, side: Side) -> &mut BytesMut;

    /// What is to be written to this side. The driver empties it before it takes a step.
    fn output(&mut self, side: Side) -> &mut BytesMut;

    /// What to do next. Called again after each input and each answer.
    fn step(&mut self, now: Instant) -> Step;

    /// How the last step went, or what happened meanwhile.
    fn resolve(&mut self, answer: Answer, now: Instant);
}

/// The two peers of a session. A way that has no next hop never names [`Side::Hop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who came to us.
    Client,
    /// Who we hand the mail to; or, after [`Step::Open`], the file that the mail is read from.
    Hop,
}

/// What a session asks of its driver.
#[derive(Debug)]
pub enum Step {
    /// Bytes from this side are needed. Answered by more input, [`Answer::Closed`] or
    /// [`Answer::TimedOut`].
    Read {
        /// From whom.
        side: Side,
        /// At the latest by then.
        until: Instant,
        /// How much to read at once, in octets: small between commands, large within a content.
        appetite: usize,
    },
    /// Connect to the next hop. Answered by [`Answer::Connected`] or [`Answer::Unreachable`].
    Connect(Box<Target>),
    /// Start TLS on this side, in the middle of the stream. Both buffers of that side are empty.
    /// Answered by [`Answer::Secured`] or [`Answer::Closed`].
    StartTls(Side),
    /// Take these bytes of the content out of memory. Answered by [`Answer::Stored`] or
    /// [`Answer::NotStored`]. What was stored belongs to the next [`Step::Judge`].
    Store(Bytes),
    /// Take the next descriptor that came with the bytes for the whole content, if it is a file of at most so many
    /// octets. Answered by [`Answer::Stored`] or [`Answer::NotTaken`].
    Take {
        /// So many octets at its start do not belong to the content.
        skip: u64,
        /// The largest content, in octets.
        limit: u64,
    },
    /// Forget what was stored: the mail was given up.
    Forget,
    /// A whole mail is here. Answered by [`Answer::Judged`], [`Answer::NotStored`], or
    /// [`Answer::Closed`] when the client did not take the heartbeat.
    Judge(Box<Submission>),
    /// Open a file by its name, to be read as [`Side::Hop`] until [`Step::DropHop`]. Answered by [`Answer::Opened`] or
    /// [`Answer::NotOpened`].
    Open(Box<Opening>),
    /// Send a content to the next hop, or to the client. Answered by [`Answer::Sent`] or [`Answer::Closed`].
    Send(Box<Outgoing>),
    /// Put this content into a file, and let its descriptor go with the first of the bytes that are written next.
    /// Answered by [`Answer::Stored`] or [`Answer::NotStored`].
    Enclose(Vec<Piece>),
    /// Keep the next hop's connection for another session: it is between two mails, nothing is under
    /// way. The note comes back with [`Answer::Connected`].
    KeepHop(Arc<dyn Any + Send + Sync>),
    /// Close the next hop's connection at once. What was sent so far must not be ended by it.
    DropHop,
    /// Tell when all that is in the outputs is written. Answered by [`Answer::Flushed`] or
    /// [`Answer::Closed`].
    Flush,
    /// Write out what is left and close the client's connection (and the hop's).
    Close,
}

/// What a driver tells a session.
#[derive(Debug)]
pub enum Answer {
    /// The next hop is connected.
    Connected {
        /// The note of [`Step::KeepHop`], when the connection was used before.
        kept: Option<Arc<dyn Any + Send + Sync>>,
    },
    /// No connection to the next hop: why, for the log.
    Unreachable(String),
    /// TLS is up on this side.
    Secured(Side),
    /// The bytes are on disk.
    Stored,
    /// The bytes could not be kept: disk full, for example. Nothing is stored any more.
    NotStored(String),
    /// The descriptor was not taken: why. `None`: none came.
    NotTaken(Option<Unfit>),
    /// The file is open, and so many octets long.
    Opened(u64),
    /// The file was not opened: why.
    NotOpened(Unopened),
    /// The mail was judged.
    Judged(Box<Judged>),
    /// The content was written out.
    Sent,
    /// Everything was written out.
    Flushed,
    /// This side closed its connection, or it broke.
    Closed(Side),
    /// [`Step::Read`]'s time has passed.
    TimedOut(Side),
    /// The program is to end (or this way is to be closed): finish the mail under way, take no other.
    Drain,
}

/// The next hop to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where.
    pub address: SocketAddress,
    /// TLS from the first byte.
    pub implicit_tls: bool,
    /// The name to ask a certificate for; `None`: the address's host.
    pub tls_name: Option<Arc<str>>,
    /// Is a certificate that cannot be verified refused?
    pub tls_verify: bool,
    /// May a kept connection be used?
    pub reuse: bool,
    /// What is said on a kept connection before it is closed, in the protocol's own words.
    pub farewell: &'static [u8],
    /// Until the connection (and TLS) must stand.
    pub timeout: Duration,
}

/// A whole mail from a session: its last bytes in memory, what came before by [`Step::Store`].
#[derive(Debug)]
pub struct Submission {
    /// Given by the session when the transaction began.
    pub id: MailId,
    /// Sender and recipients.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// The bytes that were not stored.
    pub tail: Bytes,
    /// What this connection can do, when that is less than the way can; `None`: as the way.
    pub abilities: Option<Abilities>,
    /// The verdict is of use that long, when that is less than the way's time.
    pub within: Option<Duration>,
    /// Said to the client as long as the check takes, so that its time does not run out.
    pub heartbeat: Option<Heartbeat>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// How often.
    pub every: Duration,
    /// In the protocol's own words.
    pub octets: &'static [u8],
}

impl Submission {
    /// With the way's own abilities and without a heartbeat.
    pub fn new(id: MailId, envelope: Envelope, origin: Origin, tail: Bytes) -> Self {
        Self { id, envelope, origin, tail, abilities: None, within: None, heartbeat: None }
    }
}

/// A file to be opened by its name, with our rights and not with those of whoever named it: so only beneath folders that
/// the configuration allows.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Absolute.
    pub path: PathBuf,
    /// The folders. No name leads out of them, by no symbolic link either.
    pub beneath: Arc<[PathBuf]>,
    /// The longest that is taken, in octets.
    pub limit: u64,
}

/// A content on its way to the next hop, or to the client.
#[derive(Debug)]
pub struct Outgoing {
    /// To whom.
    pub to: Side,
    /// Sent before, as it is: a command that announces the content.
    pub head: Bytes,
    /// The content, piece by piece.
    pub pieces: Vec<Piece>,
    /// Stuff dots and end with CRLF.CRLF (RFC 5321 section 4.5.2); else send the octets as they are.
    pub dots: bool,
    /// How long that side may take no byte at all.
    pub stall: Duration,
}

/// A piece of a content.
#[derive(Debug, Clone)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// A range of the mail's own content: offset and length in octets.
    Range(Content, u64, u64),
}

impl Piece {
    /// Octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Range(_, _, length) => *length,
        }
    }

    /// No octets?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
