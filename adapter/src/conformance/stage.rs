//! A driver without I/O for tests: scripted peers, a scripted engine, a clock that only moves when
//! somebody waits. It knows no protocol.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkpost_core::{Abilities, Content, Mail, Verdict, fit};
use checkpost_wire::smtp::Stuffer;

use crate::descriptors::Unfit;
use crate::files::Unopened;
use crate::host::Judged;
use crate::session::{Answer, Opening, Outgoing, Piece, Session, Side, Step, Submission, Target};

/// How many octets a session is fed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slicing {
    /// All that is there.
    Whole,
    /// One.
    Bytes,
    /// 1 to 40, by a generator with this seed.
    Seeded(u64),
}

impl Slicing {
    /// The three that every test is run with.
    pub const ALL: [Self; 3] = [Self::Whole, Self::Bytes, Self::Seeded(7)];
}

/// What a peer does next.
#[derive(Debug, Clone, Default)]
pub struct Does {
    /// Says this.
    pub say: Vec<u8>,
    /// Not before so long.
    pub after: Duration,
    /// And then.
    pub then: Then,
}

/// What comes after a peer's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// It waits.
    #[default]
    Stay,
    /// It will say no more, but still hears.
    Finish,
    /// It is gone: writing to it fails.
    Hangup,
}

impl Does {
    /// Says something and waits.
    pub fn say(text: impl AsRef<[u8]>) -> Self {
        Self { say: text.as_ref().to_vec(), ..Self::default() }
    }

    /// Is gone without a word.
    pub fn hangup() -> Self {
        Self { then: Then::Hangup, ..Self::default() }
    }
}

/// The other end of a connection.
pub trait Peer {
    /// Hears these bytes. Called once with none when the connection begins.
    fn hear(&mut self, bytes: &[u8]) -> Does;

    /// The session waits for a word, and none is on its way. Saying nothing lets the session's time
    /// run out.
    fn idle(&mut self) -> Does {
        Does::default()
    }

    /// Does TLS come about?
    fn tls(&mut self) -> bool {
        true
    }
}

/// Who answers when a session connects to a next hop.
pub trait Network {
    /// A new connection, or why there is none.
    fn connect(&mut self, target: &Target) -> Result<Box<dyn Peer>, String>;
}

/// For ways that have no next hop.
#[derive(Debug, Default)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn connect(&mut self, _: &Target) -> Result<Box<dyn Peer>, String> {
        Err("there is no next hop".into())
    }
}

/// What a scripted engine says of a mail.
pub type Judge = Box<dyn FnMut(&Mail) -> Verdict>;

/// One end of a connection, and what it said that the session has not read yet.
struct Line {
    peer: Box<dyn Peer>,
    waiting: VecDeque<u8>,
    /// The first of `waiting` is not there before.
    ready: Option<Instant>,
    then: Then,
}

impl Line {
    fn new(peer: Box<dyn Peer>, now: Instant) -> Self {
        let mut line = Self { peer, waiting: VecDeque::new(), ready: None, then: Then::Stay };
        line.hear(&[], now);
        line
    }

    /// False when nobody hears.
    fn hear(&mut self, bytes: &[u8], now: Instant) -> bool {
        match self.then {
            Then::Hangup => return false,
            Then::Finish => {
                self.peer.hear(bytes);
            }
            Then::Stay => {
                let does = self.peer.hear(bytes);
                self.take(does, now);
            }
        }
        true
    }

    fn take(&mut self, does: Does, now: Instant) {
        if !does.after.is_zero() {
            self.ready = Some(now + does.after);
        }
        self.waiting.extend(does.say);
        self.then = does.then;
    }
}

/// A connection kept for another session, with the session's note.
struct Kept {
    target: Target,
    line: Line,
    note: std::sync::Arc<dyn std::any::Any + Send + Sync>,
}

/// Contents that go over as descriptors. Shared, so that a peer can have it, too.
#[derive(Debug, Clone, Default)]
pub struct Files(Arc<Mutex<Exchange>>);

#[derive(Debug, Default)]
struct Exchange {
    coming: VecDeque<Vec<u8>>,
    going: VecDeque<Vec<u8>>,
}

impl Files {
    /// The client sends one.
    pub fn send(&self, content: Vec<u8>) {
        self.with(|files| files.coming.push_back(content));
    }

    /// The client takes one.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.with(|files| files.going.pop_front())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Exchange) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics while it holds this"))
    }
}

/// The stage that a session plays on.
pub struct Stage {
    abilities: Abilities,
    judge: Judge,
    network: Box<dyn Network>,
    slicing: Slicing,
    random: u64,
    now: Instant,
    hop: Option<(Target, Line)>,
    /// The file that is open, in the hop's place.
    file: Option<Line>,
    kept: Vec<Kept>,
    stored: Option<Vec<u8>>,
    /// The disk holds so much: more is [`Answer::NotStored`].
    pub disk: usize,
    /// What stands for descriptors: to be put there before the session asks, and taken when it has answered.
    pub files: Files,
    /// Files that can be opened by their names.
    pub named: HashMap<PathBuf, Vec<u8>>,
    /// Drain when the session has been asked for so many steps.
    pub drain_at: Option<usize>,
    /// The names of the steps taken, for messages of failed tests and for what has no other trace.
    pub steps: Vec<&'static str>,
    /// More steps than this are a loop.
    pub bound: usize,
}

impl Stage {
    /// With this engine and next hop.
    pub fn new(abilities: Abilities, judge: Judge, network: Box<dyn Network>, slicing: Slicing) -> Self {
        let random = if let Slicing::Seeded(seed) = slicing { seed.wrapping_mul(2).wrapping_add(1) } else { 1 };
        Self {
            abilities,
            judge,
            network,
            slicing,
            random,
            now: Instant::now(),
            hop: None,
            file: None,
            kept: Vec::new(),
            stored: None,
            disk: usize::MAX,
            files: Files::default(),
            named: HashMap::new(),
            drain_at: None,
            steps: Vec::new(),
            bound: 100_000,
        }
    }

    /// The time on stage.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Plays a session with this client to its end. Connections that it keeps are there for the next.
    ///
    /// # Panics
    /// When the session takes more steps than [`Stage::bound`], or breaks the driver's contract.
    pub fn play(&mut self, session: &mut dyn Session, client: Box<dyn Peer>) {
        let mut client = Line::new(client, self.now);
        for count in 0.. {
            assert!(count < self.bound, "no end after {count} steps; the last: {:?}", &self.steps[count - 20..]);
            let step = session.step(self.now);
            let lost = self.flush(session, &mut client);
            self.steps.push(name(&step));
            match step {
                Step::Close => break,
                Step::Read { .. } | Step::Flush if lost.is_some() => {}
                Step::Read { .. } if self.drain_at.is_some_and(|at| count >= at) => {
                    self.drain_at = None;
                    session.resolve(Answer::Drain, self.now);
                }
                Step::Read { side, until, .. } => {
                    if let Some(answer) = self.read(session, &mut client, side, until) {
                        session.resolve(answer, self.now);
                    }
                }
                step => {
                    if let Some(answer) = self.take(session, &mut client, step) {
                        session.resolve(answer, self.now);
                    }
                }
            }
            if let Some(side) = lost {
                session.resolve(Answer::Closed(side), self.now);
            }
        }
        self.hop = None;
        self.file = None;
        self.stored = None;
    }

    fn flush(&mut self, session: &mut dyn Session, client: &mut Line) -> Option<Side> {
        let mut lost = None;
        for side in [Side::Hop, Side::Client] {
            let bytes = session.output(side).split();
            if bytes.is_empty() {
                continue;
            }
            let line = match side {
                Side::Client => Some(&mut *client),
                Side::Hop => self.hop.as_mut().map(|(_, line)| line),
            };
            if !line.is_some_and(|line| line.hear(&bytes, self.now)) {
                lost = lost.or(Some(side));
            }
        }
        lost
    }

    fn read(&mut self, session: &mut dyn Session, client: &mut Line, side: Side, until: Instant) -> Option<Answer> {
        let line = match side {
            Side::Client => client,
            Side::Hop => match self.hop.as_mut().map(|(_, line)| line).or(self.file.as_mut()) {
                Some(line) => line,
                None => return Some(Answer::Closed(side)),
            },
        };
        // A look at what is there already lets nobody wait, so it makes nobody speak.
        if line.waiting.is_empty() && line.then == Then::Stay && until > self.now {
            let does = line.peer.idle();
            line.take(does, self.now);
        }
        if line.waiting.is_empty() && line.then != Then::Stay {
            return Some(Answer::Closed(side));
        }
        let ready = line.ready.unwrap_or(self.now);
        if line.waiting.is_empty() || ready > until {
            self.now = self.now.max(until);
            return Some(Answer::TimedOut(side));
        }
        self.now = self.now.max(ready);
        line.ready = None;
        let most = line.waiting.len();
        let count = match self.slicing {
            Slicing::Whole => most,
            Slicing::Bytes => 1,
            Slicing::Seeded(_) => {
                self.random =
                    self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                most.min(1 + (self.random >> 33) as usize % 40)
            }
        };
        let bytes: Vec<u8> = line.waiting.drain(..count).collect();
        session.input(side).extend_from_slice(&bytes);
        None
    }

    fn take(&mut self, session: &mut dyn Session, client: &mut Line, step: Step) -> Option<Answer> {
        match step {
            Step::Read { .. } | Step::Close => None,
            Step::Flush => Some(Answer::Flushed),
            Step::Connect(target) => Some(self.connect(*target)),
            Step::StartTls(side) => {
                assert!(session.input(side).is_empty(), "plain text would be taken for what came under TLS");
                let line = match side {
                    Side::Client => Some(client),
                    Side::Hop => self.hop.as_mut().map(|(_, line)| line),
                };
                // Plain text where a handshake must be makes the handshake fail.
                let up = line.is_some_and(|line| line.waiting.is_empty() && line.then == Then::Stay && line.peer.tls());
                Some(if up { Answer::Secured(side) } else { Answer::Closed(side) })
            }
            Step::Store(bytes) => Some(self.store(&bytes)),
            Step::Take { skip, limit } => Some(self.take_descriptor(skip, limit)),
            Step::Enclose(pieces) => {
                let content = pieces.iter().flat_map(piece_bytes).collect();
                self.files.with(|files| files.going.push_back(content));
                Some(Answer::Stored)
            }
            Step::Forget => {
                self.stored = None;
                None
            }
            Step::Judge(submission) => Some(self.judge(*submission)),
            Step::Open(opening) => Some(self.open(&opening)),
            Step::Send(outgoing) => {
                Some(if self.send(&outgoing, client) { Answer::Sent } else { Answer::Closed(outgoing.to) })
            }
            Step::KeepHop(note) => {
                let (target, line) = self.hop.take().expect("a session keeps only what it has");
                self.kept.push(Kept { target, line, note });
                None
            }
            Step::DropHop => {
                self.hop = None;
                self.file = None;
                None
            }
        }
    }

    fn connect(&mut self, target: Target) -> Answer {
        assert!(self.hop.is_none(), "a session lets go of a connection before it wants another");
        if target.reuse {
            while let Some(at) = self.kept.iter().rposition(|kept| kept.target == target) {
                let Kept { target, line, note } = self.kept.remove(at);
                // As the real pool: closed or talkative ones are not handed out.
                if line.then == Then::Stay && line.waiting.is_empty() {
                    self.hop = Some((target, line));
                    return Answer::Connected { kept: Some(note) };
                }
            }
        }
        match self.network.connect(&target) {
            Ok(peer) => {
                self.hop = Some((target, Line::new(peer, self.now)));
                Answer::Connected { kept: None }
            }
            Err(why) => Answer::Unreachable(why),
        }
    }

    fn store(&mut self, bytes: &[u8]) -> Answer {
        let mut stored = self.stored.take().unwrap_or_default();
        stored.extend_from_slice(bytes);
        if stored.len() > self.disk {
            return Answer::NotStored("no space left on device".into());
        }
        self.stored = Some(stored);
        Answer::Stored
    }

    fn take_descriptor(&mut self, skip: u64, limit: u64) -> Answer {
        self.stored = None;
        let behind = |file: Vec<u8>| file.get(usize::try_from(skip).ok()?..).map(<[u8]>::to_vec);
        match self.files.with(|files| files.coming.pop_front()).map(behind) {
            None => Answer::NotTaken(None),
            Some(None) => Answer::NotTaken(Some(Unfit::Shrunk(skip))),
            Some(Some(content)) => self.keep_descriptor(&content, limit),
        }
    }

    fn open(&mut self, opening: &Opening) -> Answer {
        if !opening.beneath.iter().any(|folder| opening.path.starts_with(folder)) {
            return Answer::NotOpened(Unopened::NotAllowed);
        }
        match self.named.get(&opening.path) {
            None => Answer::NotOpened(Unopened::Missing),
            Some(content) if content.len() as u64 > opening.limit => {
                Answer::NotOpened(Unopened::TooLarge(opening.limit))
            }
            Some(content) => {
                self.file = Some(Line {
                    peer: Box::new(AFile),
                    waiting: content.iter().copied().collect(),
                    ready: None,
                    then: Then::Finish,
                });
                Answer::Opened(content.len() as u64)
            }
        }
    }

    fn keep_descriptor(&mut self, content: &[u8], limit: u64) -> Answer {
        if content.len() as u64 > limit { Answer::NotTaken(Some(Unfit::TooLarge(limit))) } else { self.store(content) }
    }

    fn judge(&mut self, submission: Submission) -> Answer {
        let Submission { id, envelope, origin, tail, abilities, .. } = submission;
        if self.stored.is_some()
            && let Answer::NotStored(why) = self.store(&tail)
        {
            return Answer::NotStored(why);
        }
        let whole = self.stored.take().unwrap_or_else(|| tail.to_vec());
        let mail = Mail { id, envelope, origin, content: Content::from(Bytes::from(whole)) };
        let verdict = (self.judge)(&mail);
        let fitted = fit(&mail, &verdict, &abilities.unwrap_or(self.abilities));
        Answer::Judged(Box::new(Judged { mail, verdict, fitted, took: Duration::ZERO }))
    }

    /// Piece by piece, so that a next hop can go in the middle. False: it is gone.
    fn send(&mut self, outgoing: &Outgoing, client: &mut Line) -> bool {
        let now = self.now;
        let line = match outgoing.to {
            Side::Client => Some(client),
            Side::Hop => self.hop.as_mut().map(|(_, line)| line),
        };
        let Some(line) = line else { return false };
        let mut wire = vec![outgoing.head.to_vec()];
        let mut stuffer = Stuffer::new();
        for piece in &outgoing.pieces {
            let bytes = piece_bytes(piece);
            for part in bytes.chunks(bytes.len().div_ceil(2).max(1)) {
                if outgoing.dots {
                    wire.push(stuffer.stuff(part).flatten().copied().collect());
                } else {
                    wire.push(part.to_vec());
                }
            }
        }
        if outgoing.dots {
            wire.push(stuffer.finish().to_vec());
        }
        wire.iter().filter(|part| !part.is_empty()).all(|part| line.hear(part, now))
    }
}

/// Says what is in it, and hears nothing.
struct AFile;

impl Peer for AFile {
    fn hear(&mut self, _: &[u8]) -> Does {
        Does::default()
    }
}

/// A piece's octets.
///
/// # Panics
/// When the range is not within the content.
pub fn piece_bytes(piece: &Piece) -> Vec<u8> {
    match piece {
        Piece::Bytes(bytes) => bytes.to_vec(),
        Piece::Range(content, offset, length) => {
            let mut bytes = vec![0; usize::try_from(*length).expect("a test's content fits into memory")];
            let read = content.read_full_at(&mut bytes, *offset).expect("a content can be read");
            assert_eq!(read, bytes.len(), "the range is within the content");
            bytes
        }
    }
}

fn name(step: &Step) -> &'static str {
    match step {
        Step::Read { side: Side::Client, .. } => "read client",
        Step::Read { side: Side::Hop, .. } => "read hop",
        Step::Connect(_) => "connect",
        Step::StartTls(_) => "start TLS",
        Step::Store(_) => "store",
        Step::Take { .. } => "take descriptor",
        Step::Enclose(_) => "enclose",
        Step::Open(_) => "open",
        Step::Forget => "forget",
        Step::Judge(_) => "judge",
        Step::Send(_) => "send",
        Step::KeepHop(_) => "keep hop",
        Step::DropHop => "drop hop",
        Step::Flush => "flush",
        Step::Close => "close",
    }
}
