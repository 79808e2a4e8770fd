//! The session that the three protocols share: requests in, a content from wherever it comes, an answer out. What is said
//! in which words is a [`Dialect`]'s.
//!
//! A client that is told "it may pass" believes it, so every way that ends otherwise than with a verdict ends in an error
//! of the protocol, or in a closed connection.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use checkpost_adapter::report::{Fate, Report};
use checkpost_adapter::{Answer, Judged, Opening, Outgoing, Piece, Session, Side, Step, Submission, edited};
use checkpost_core::config::Origins;
use checkpost_core::content::header::Header;
use checkpost_core::{Abilities, Address, Deferral, Envelope, MailId, Origin};
use checkpost_wire::clamd::server::{Chunk, Chunks};
use checkpost_wire::head::MAX_HEAD;
use checkpost_wire::mbox::{self, Found};

use crate::config::Settings;

/// Read at once within requests, and within a content, in octets.
const APPETITE: (usize, usize) = (4 << 10, 112 << 10);
/// A content that is too large is read on for so many octets, so that the client hears why.
const EXCESS: u64 = 64 << 20;
/// What comes behind a refused request is read for so long, for the same reason.
const LINGER: Duration = Duration::from_secs(5);

/// The words of a protocol.
pub trait Dialect: Send {
    /// What of a request is needed for its answer.
    type Asked: Send;

    /// Takes the next thing that the client says.
    fn read(&mut self, input: &mut BytesMut) -> Heard<Self::Asked>;

    /// Is the changed mail (or a list of changes) part of the answer?
    fn edits(&self, asked: &Self::Asked) -> bool;

    /// Says it.
    fn answer(&mut self, asked: &Self::Asked, said: Said<'_>) -> Reply;
}

/// What a client said.
pub enum Heard<A> {
    /// Too little yet.
    More,
    /// Something that is answered at once.
    Say {
        /// The answer.
        octets: Vec<u8>,
        /// So many octets behind the request are of no use.
        skip: u64,
        /// And then.
        then: Then,
    },
    /// A mail is to be looked at.
    Look(Box<Wanted<A>>),
    /// It goes.
    Leave,
}

/// A mail to be looked at.
pub struct Wanted<A> {
    /// Where its content comes from.
    pub source: Source,
    /// Sender and recipients, where the protocol has them.
    pub envelope: Envelope,
    /// What the protocol tells of its client.
    pub about: About,
    /// What can be said to this request.
    pub abilities: Abilities,
    /// Said before the content comes.
    pub first: &'static str,
    /// For the answer.
    pub asked: A,
}

/// Who sent a mail, as a client tells.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The sending host's address.
    pub client: Option<IpAddr>,
    /// Its name.
    pub client_name: Option<String>,
    /// Its greeting.
    pub helo: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    /// The mail server's own id.
    pub queue_id: Option<String>,
    /// Did it come over TLS?
    pub tls: bool,
}

/// Where a content comes from.
#[derive(Debug)]
pub enum Source {
    /// So many octets are still to come behind the request.
    Length(u64),
    /// All that the client says until it has no more to say.
    ToEnd,
    /// In chunks with their lengths before them.
    Chunks(Chunks),
    /// From a descriptor that came with the request.
    Descriptor,
    /// From the file of this name.
    Path(PathBuf),
    /// So many octets are still to come from a file that is open.
    File(u64),
}

/// What there is to say of a mail.
#[derive(Clone, Copy)]
pub enum Said<'a> {
    /// The verdict; the header, where [`Dialect::edits`].
    Judged(&'a Judged, Option<&'a Header>),
    /// It is larger than is taken.
    TooLarge,
    /// It was not looked at: why.
    Failed(&'a str),
}

/// An answer.
pub struct Reply {
    /// Its octets.
    pub octets: Vec<u8>,
    /// Behind them.
    pub pieces: Vec<Piece>,
    /// And then.
    pub then: Then,
}

/// What comes after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Another request.
    Stay,
    /// The end.
    Close,
}

/// What a session is told of its connection.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Every mail is put off: the reason.
    pub refuse: Option<&'static str>,
    /// Contents above this go to the spool, in octets.
    pub memory_limit: usize,
}

/// Takes the closing line of each mail.
pub type Reports = Box<dyn FnMut(Report<'_>) + Send>;

/// One connection.
pub struct Scan<D: Dialect> {
    dialect: D,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    link: Link,
    reports: Reports,
    input: BytesMut,
    output: BytesMut,
    /// What was read of a file that is open.
    file: BytesMut,
    nowhere: BytesMut,
    steps: VecDeque<Step>,
    phase: Phase<D::Asked>,
    requests: usize,
    draining: bool,
    now: Instant,
    waiting_since: Instant,
}

enum Phase<A> {
    /// A request is waited for.
    Request,
    /// Octets that are of no use: so many, until then; and then.
    Skipping(u64, Instant, Then),
    /// A content comes.
    Content(Box<Asked<A>>),
    /// It is taken from a descriptor, or its file is being opened.
    Fetching(Box<Asked<A>>),
    /// The engine is at work.
    Judging(Box<Asked<A>>),
    /// The answer is on its way out; and then.
    Telling(Box<Asked<A>>, Then),
    Closing,
}

/// A mail that is looked at.
struct Asked<A> {
    id: MailId,
    wanted: Wanted<A>,
    origin: Option<Origin>,
    started: Instant,
    body: BytesMut,
    /// Octets of it that are not in `body`.
    stored: u64,
    /// The lines before the mail were looked for.
    lines_read: bool,
    refused: Option<Refused>,
    /// Octets read after it was refused.
    excess: u64,
    judged: Option<Box<Judged>>,
    fates: Vec<Fate>,
}

#[derive(Clone)]
enum Refused {
    TooLarge,
    Failed(String),
}

impl<D: Dialect> Scan<D> {
    /// A session that waits for the first request.
    pub fn new(
        dialect: D,
        settings: Arc<Settings>,
        origins: Arc<Origins>,
        link: Link,
        now: Instant,
        reports: Reports,
    ) -> Self {
        Self {
            dialect,
            settings,
            origins,
            link,
            reports,
            input: BytesMut::new(),
            output: BytesMut::new(),
            file: BytesMut::new(),
            nowhere: BytesMut::new(),
            steps: VecDeque::new(),
            phase: Phase::Request,
            requests: 0,
            draining: false,
            now,
            waiting_since: now,
        }
    }
}

impl<D: Dialect> Session for Scan<D> {
    fn input(&mut self, side: Side) -> &mut BytesMut {
        if side == Side::Client { &mut self.input } else { &mut self.file }
    }

    fn output(&mut self, side: Side) -> &mut BytesMut {
        if side == Side::Client { &mut self.output } else { &mut self.nowhere }
    }

    fn step(&mut self, now: Instant) -> Step {
        self.now = now;
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            let step = match &self.phase {
                Phase::Closing => Some(Step::Close),
                Phase::Telling(..) => Some(Step::Flush),
                Phase::Request => self.listen(),
                Phase::Skipping(..) => self.skip(),
                Phase::Content(_) => self.collect(),
                // The driver always answers; to end without an answer makes the client try again.
                Phase::Fetching(_) | Phase::Judging(_) => {
                    debug_assert!(false, "the driver owes an answer");
                    self.phase = Phase::Closing;
                    None
                }
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn resolve(&mut self, answer: Answer, now: Instant) {
        self.now = now;
        match answer {
            Answer::Judged(judged) => self.judged(judged),
            Answer::Stored => self.stored(),
            Answer::NotStored(why) => self.not_stored(&why),
            Answer::NotTaken(unfit) => {
                let why = unfit.map_or_else(|| "No file descriptor received".to_owned(), |unfit| unfit.to_string());
                self.not_fetched(why);
            }
            Answer::Opened(length) => self.opened(length),
            Answer::NotOpened(why) => self.not_fetched(why.to_string()),
            Answer::Flushed | Answer::Sent => self.told(),
            Answer::Closed(side) => self.closed(side),
            Answer::TimedOut(_) => self.late(),
            Answer::Drain => self.draining = true,
            Answer::Connected { .. } | Answer::Unreachable(_) | Answer::Secured(_) => {}
        }
    }
}

impl<D: Dialect> Scan<D> {
    /// Takes one request, or says what is needed for it.
    fn listen(&mut self) -> Option<Step> {
        if self.draining && self.input.is_empty() {
            self.phase = Phase::Closing;
            return None;
        }
        match self.dialect.read(&mut self.input) {
            Heard::More => {
                let until = self.waiting_since + self.settings.command_timeout;
                return Some(Step::Read { side: Side::Client, until, appetite: APPETITE.0 });
            }
            Heard::Leave => self.phase = Phase::Closing,
            Heard::Say { octets, skip, then } => {
                self.output.extend_from_slice(&octets);
                let then = self.after(then);
                self.phase = match (skip, then) {
                    (0, Then::Stay) => Phase::Request,
                    (0, Then::Close) => Phase::Closing,
                    (skip, then) => Phase::Skipping(skip, self.now + LINGER, then),
                };
            }
            Heard::Look(wanted) => self.begin(*wanted),
        }
        None
    }

    /// Another request on this connection?
    fn after(&mut self, then: Then) -> Then {
        self.requests += 1;
        self.waiting_since = self.now;
        if self.requests >= self.settings.max_requests { Then::Close } else { then }
    }

    /// Reads what is of no use. What is closed with octets unread takes our answer along (RFC 9112 section 9.6).
    fn skip(&mut self) -> Option<Step> {
        let Phase::Skipping(left, until, then) = &mut self.phase else { return None };
        let here = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        self.input.advance(here);
        *left -= here as u64;
        if *left > 0 {
            return Some(Step::Read { side: Side::Client, until: *until, appetite: APPETITE.1 });
        }
        self.phase = if *then == Then::Stay { Phase::Request } else { Phase::Closing };
        None
    }

    fn begin(&mut self, wanted: Wanted<D::Asked>) {
        self.output.extend_from_slice(wanted.first.as_bytes());
        self.waiting_since = self.now;
        let failed = |why: &str| Some(Refused::Failed(why.to_owned()));
        let refused = match &wanted.source {
            _ if self.draining => failed("The filter is ending, try again later"),
            _ if self.link.refuse.is_some() => self.link.refuse.and_then(failed),
            _ if wanted.envelope.recipients.len() > self.settings.max_recipients => failed("Too many recipients"),
            Source::Length(length) if *length > self.settings.max_size => Some(Refused::TooLarge),
            _ => None,
        };
        let fetch = match &wanted.source {
            Source::Descriptor => Some(Step::Take { skip: 0, limit: self.settings.max_size }),
            Source::Path(path) => Some(Step::Open(Box::new(Opening {
                path: path.clone(),
                beneath: Arc::clone(&self.settings.paths),
                limit: self.settings.max_size,
            }))),
            _ => None,
        };
        let asked = Box::new(Asked {
            id: MailId::new(),
            wanted,
            origin: None,
            started: self.now,
            body: BytesMut::new(),
            stored: 0,
            lines_read: !self.settings.envelope_lines,
            refused,
            excess: 0,
            judged: None,
            fates: Vec::new(),
        });
        match fetch {
            None => self.phase = Phase::Content(asked),
            Some(Step::Open(_)) if asked.refused.is_some() => self.decline(asked),
            Some(step) => {
                self.steps.push_back(step);
                self.phase = Phase::Fetching(asked);
            }
        }
    }

    /// Takes what has come of a content.
    fn collect(&mut self) -> Option<Step> {
        // The lines before a mail must be in memory when they are read.
        let bound =
            if self.settings.envelope_lines { self.link.memory_limit.max(MAX_HEAD) } else { self.link.memory_limit };
        let Phase::Content(asked) = &mut self.phase else { return None };
        let side = if matches!(asked.wanted.source, Source::File(_)) { Side::Hop } else { Side::Client };
        let input = if side == Side::Client { &mut self.input } else { &mut self.file };
        let whole = asked.take(input, bound);
        if asked.refused.is_none() && asked.stored + asked.body.len() as u64 > self.settings.max_size {
            asked.refuse(Refused::TooLarge);
        }
        if whole || asked.excess > EXCESS {
            let Phase::Content(mut asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return None };
            if side == Side::Hop {
                self.steps.push_back(Step::DropHop);
                self.file.clear();
            }
            asked.read_lines(true);
            if !whole {
                self.decline_and_close(asked);
            } else {
                self.judge(asked);
            }
            return None;
        }
        if asked.body.len() > bound {
            asked.read_lines(false);
            if asked.refused.is_none() {
                asked.stored += asked.body.len() as u64;
                return Some(Step::Store(asked.body.split().freeze()));
            }
        }
        let until = self.waiting_since + self.settings.command_timeout;
        Some(Step::Read { side, until, appetite: APPETITE.1 })
    }

    fn judge(&mut self, mut asked: Box<Asked<D::Asked>>) {
        if asked.wanted.envelope.recipients.len() > self.settings.max_recipients && asked.refused.is_none() {
            asked.refuse(Refused::Failed("Too many recipients".into()));
        }
        if asked.refused.is_some() {
            return self.decline(asked);
        }
        let envelope = &mut asked.wanted.envelope;
        if envelope.recipients.is_empty() {
            // Nobody in particular: rules for certain recipients do not hold, all others do.
            envelope.recipients.push(Address::null());
        }
        let origin = self.origin(&asked.wanted.about, &asked.wanted.envelope.sender);
        let mut submission =
            Submission::new(asked.id, asked.wanted.envelope.clone(), origin.clone(), asked.body.split().freeze());
        submission.abilities = Some(asked.wanted.abilities);
        asked.origin = Some(origin);
        self.steps.push_back(Step::Judge(Box::new(submission)));
        self.phase = Phase::Judging(asked);
    }

    fn origin(&self, about: &About, sender: &Address) -> Origin {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        Origin {
            way: Arc::clone(&self.settings.name),
            class: self.origins.classify(about.client, about.user.is_some(), sender, Some(self.settings.origin)),
            client: about.client,
            client_name: text(&about.client_name),
            helo: text(&about.helo),
            user: text(&about.user),
            tls: about.tls,
            queue_id: text(&about.queue_id),
        }
    }

    fn judged(&mut self, judged: Box<Judged>) {
        let Phase::Judging(mut asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        asked.fates = Fate::all(&judged);
        let header = match self.dialect.edits(&asked.wanted.asked).then(|| edited::header(&judged.mail.content)) {
            None => None,
            Some(Ok(header)) => Some(header),
            Some(Err(error)) => {
                tracing::error!(mail = %asked.id, error, "the header cannot be edited, so the mail is deferred");
                asked.judged = Some(judged);
                asked.refused = Some(Refused::Failed("Local problem, try again later".into()));
                return self.decline(asked);
            }
        };
        let reply = self.dialect.answer(&asked.wanted.asked, Said::Judged(&judged, header.as_ref()));
        asked.judged = Some(judged);
        self.tell(asked, reply);
    }

    /// Says why there is no verdict.
    fn decline(&mut self, mut asked: Box<Asked<D::Asked>>) {
        let refused = asked.refused.clone().unwrap_or_else(|| Refused::Failed("Local problem, try again later".into()));
        let recipients = &mut asked.wanted.envelope.recipients;
        if recipients.is_empty() {
            recipients.push(Address::null());
        }
        let fate = match &refused {
            Refused::TooLarge => Fate::Deferred(Deferral::lossy(3, 4, "Message too large for the filter")),
            Refused::Failed(why) => Fate::Deferred(Deferral::lossy(3, 0, why)),
        };
        asked.fates = vec![fate; recipients.len()];
        let said = match &refused {
            Refused::TooLarge => Said::TooLarge,
            Refused::Failed(why) => Said::Failed(why),
        };
        let reply = self.dialect.answer(&asked.wanted.asked, said);
        // Nothing of it may be taken for the start of the next one.
        self.steps.push_back(Step::Forget);
        self.tell(asked, reply);
    }

    /// There is more to come of the content, and nobody reads it.
    fn decline_and_close(&mut self, asked: Box<Asked<D::Asked>>) {
        self.decline(asked);
        if let Phase::Telling(_, then) = &mut self.phase {
            *then = Then::Close;
        }
    }

    fn tell(&mut self, asked: Box<Asked<D::Asked>>, reply: Reply) {
        if reply.pieces.is_empty() {
            // In one write: some clients read once.
            self.output.extend_from_slice(&reply.octets);
        } else {
            self.steps.push_back(Step::Send(Box::new(Outgoing {
                to: Side::Client,
                head: reply.octets.into(),
                pieces: reply.pieces,
                dots: false,
                stall: self.settings.command_timeout,
            })));
        }
        self.phase = Phase::Telling(asked, reply.then);
    }

    /// The answer is out.
    fn told(&mut self) {
        if !matches!(self.phase, Phase::Telling(..)) {
            return;
        }
        let Phase::Telling(asked, then) = std::mem::replace(&mut self.phase, Phase::Closing) else { return };
        self.report(*asked, None);
        if self.after(then) == Then::Stay {
            self.phase = Phase::Request;
        }
    }

    fn stored(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Request) {
            Phase::Fetching(asked) => self.judge(asked),
            phase => self.phase = phase,
        }
    }

    fn not_stored(&mut self, why: &str) {
        let refused = || Refused::Failed("Insufficient storage, try again later".into());
        match std::mem::replace(&mut self.phase, Phase::Request) {
            Phase::Content(mut asked) => {
                tracing::error!(mail = %asked.id, why, "the content could not be kept");
                asked.stored = 0;
                asked.refused = Some(refused());
                self.phase = Phase::Content(asked);
            }
            Phase::Fetching(mut asked) | Phase::Judging(mut asked) => {
                tracing::error!(mail = %asked.id, why, "the content could not be kept");
                asked.refused = Some(refused());
                self.decline(asked);
            }
            phase => self.phase = phase,
        }
    }

    fn opened(&mut self, length: u64) {
        let Phase::Fetching(mut asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        asked.wanted.source = Source::File(length);
        self.phase = Phase::Content(asked);
    }

    fn not_fetched(&mut self, why: String) {
        let Phase::Fetching(mut asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        tracing::warn!(way = %self.settings.name, mail = %asked.id, why, "the content could not be had");
        asked.refused.get_or_insert(Refused::Failed(why));
        self.decline(asked);
    }

    fn closed(&mut self, side: Side) {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            // That it has no more to say is the end of the content.
            Phase::Content(mut asked) if side == Side::Client && matches!(asked.wanted.source, Source::ToEnd) => {
                asked.read_lines(true);
                self.judge(asked);
            }
            Phase::Content(mut asked) if side == Side::Hop => {
                self.steps.push_back(Step::DropHop);
                self.file.clear();
                asked.refused = Some(Refused::Failed("the file became shorter while it was read".into()));
                self.decline(asked);
            }
            phase => {
                self.phase = phase;
                self.lost("the client was gone before it had our answer");
            }
        }
    }

    fn late(&mut self) {
        match &self.phase {
            // Nothing was begun: a client may keep its connection, but not for ever.
            Phase::Request if self.input.is_empty() => self.phase = Phase::Closing,
            _ => self.lost("the client sent nothing for too long"),
        }
    }

    fn lost(&mut self, why: &'static str) {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Content(asked) | Phase::Fetching(asked) | Phase::Judging(asked) | Phase::Telling(asked, _) => {
                self.report(*asked, Some(Fate::NotHandedOn(why)));
            }
            Phase::Request if !self.input.is_empty() => {
                tracing::warn!(way = %self.settings.name, "connection closed in the middle of a request");
            }
            Phase::Request | Phase::Skipping(..) | Phase::Closing => {}
        }
    }

    /// Writes the closing line: with the fates that are known, or with this one for all.
    fn report(&mut self, mut asked: Asked<D::Asked>, all: Option<Fate>) {
        let origin = asked.origin.take();
        let origin = origin.unwrap_or_else(|| self.origin(&asked.wanted.about, &asked.wanted.envelope.sender));
        let envelope = &mut asked.wanted.envelope;
        if envelope.recipients.is_empty() {
            envelope.recipients.push(Address::null());
        }
        let fates = all.map_or(asked.fates, |fate| vec![fate; envelope.recipients.len()]);
        (self.reports)(Report {
            id: asked.id,
            origin: &origin,
            sender: &envelope.sender,
            recipients: &envelope.recipients,
            fates: &fates,
            size: asked.judged.as_ref().map_or(0, |judged| judged.mail.content.len()),
            judged: asked.judged.as_deref(),
            took: self.now.duration_since(asked.started),
        });
    }
}

impl<A> Asked<A> {
    /// Moves what has come from `input`, as soon as it is all, or `bound` octets. True: that was all.
    fn take(&mut self, input: &mut BytesMut, bound: usize) -> bool {
        loop {
            let (octets, whole) = match &mut self.wanted.source {
                Source::Length(missing) | Source::File(missing) => {
                    let here = usize::try_from(*missing).unwrap_or(usize::MAX).min(input.len());
                    let whole = here as u64 == *missing;
                    if !whole && here <= bound && self.refused.is_none() {
                        return false;
                    }
                    *missing -= here as u64;
                    (input.split_to(here), whole)
                }
                Source::ToEnd => (input.split(), false),
                Source::Chunks(chunks) => match chunks.take(input, if self.refused.is_some() { 1 } else { bound }) {
                    Chunk::More => return false,
                    Chunk::Octets(octets) => {
                        self.add(octets);
                        // More than may be held must not be taken before it was stored.
                        if self.body.len() > bound {
                            return false;
                        }
                        continue;
                    }
                    Chunk::End => (BytesMut::new(), true),
                },
                Source::Descriptor | Source::Path(_) => return true,
            };
            self.add(octets);
            return whole;
        }
    }

    fn add(&mut self, octets: BytesMut) {
        if self.refused.is_some() {
            self.excess += octets.len() as u64;
        } else if self.body.is_empty() {
            self.body = octets;
        } else {
            self.body.extend_from_slice(&octets);
        }
    }

    fn refuse(&mut self, refused: Refused) {
        self.refused = Some(refused);
        self.body = BytesMut::new();
        self.stored = 0;
    }

    /// Takes the lines that stand before the mail off it.
    fn read_lines(&mut self, whole: bool) {
        if std::mem::replace(&mut self.lines_read, true) || self.refused.is_some() {
            return;
        }
        match mbox::find(&self.body, whole) {
            Found::Lines(lines) => {
                self.body.advance(lines.length);
                let envelope = &mut self.wanted.envelope;
                // What the protocol itself says of the envelope comes first.
                if envelope.recipients.is_empty() {
                    envelope.sender = Address::new(lines.sender);
                    envelope.recipients = lines.recipients.into_iter().map(Address::new).collect();
                }
            }
            Found::Nothing => {}
            Found::More | Found::TooLong => {
                self.refuse(Refused::Failed("The lines with the envelope are too long".into()));
            }
        }
    }
}
