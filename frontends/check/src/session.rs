//! The check session: lists in, lists and steps out. One connection of one client; any number of mails on it, one after
//! another.
//!
//! The client speaks first. A mail's closing line waits until the client has said that it does what the answer says, or
//! has gone: only then is it known what became of the mail.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use checkpost_adapter::descriptors::Unfit;
use checkpost_adapter::host::{Gauge, Ticket};
use checkpost_adapter::report::{Fate, Report};
use checkpost_adapter::{Answer, Judged, Session, Side, Step, Submission, edited};
use checkpost_core::config::Origins;
use checkpost_core::content::header::Header;
use checkpost_core::{Abilities, Address, Deferral, Disposition, Envelope, MailId, Origin, Rejection};
use checkpost_wire::check::{Carried, Done, Finder, HELLO, List, Request, Response};

use crate::config::Settings;
use crate::map;

/// A program on this machine speaks at once.
const FIRST_WORDS: Duration = Duration::from_secs(30);
/// Read at once within lists, and within a content, in octets.
const APPETITE: (usize, usize) = (4 << 10, 112 << 10);
/// What is beyond the memory limit goes to the spool in pieces of this size, in octets.
const STORE: usize = 256 << 10;
/// The longest list: so much for each recipient that is allowed, and for the rest.
const LIST: (usize, usize) = (1100, 64 << 10);
/// Of a longer list, each further stretch of so many octets is counted against all that sessions hold together.
const STRETCH: usize = 64 << 10;
/// So many stretches may be held at once: 64 MiB.
const STRETCHES: usize = 1024;

/// What a session is told of its connection.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// Every mail is put off: the reason.
    pub refuse: Option<&'static str>,
    /// Contents above this go to the spool, in octets.
    pub memory_limit: usize,
    /// Counts what long lists of all sessions hold.
    pub lists: Arc<Gauge>,
}

/// Takes the closing line of each mail.
pub type Reports = Box<dyn FnMut(Report<'_>) + Send>;

/// One connection with a client.
pub struct Check {
    settings: Arc<Settings>,
    abilities: Abilities,
    origins: Arc<Origins>,
    link: Link,
    reports: Reports,
    input: BytesMut,
    output: BytesMut,
    /// There is no next hop, but its buffer can be asked for.
    nowhere: BytesMut,
    steps: VecDeque<Step>,
    finder: Finder,
    stretches: Vec<Ticket>,
    greeted: bool,
    answered: bool,
    phase: Phase,
    draining: bool,
    now: Instant,
    waiting_since: Instant,
}

enum Phase {
    /// A request is waited for.
    Request,
    /// Its content comes behind it: so many octets are missing, so many are in the spool.
    Content(Box<Asked>, u64, u64),
    /// Its content is being taken from a descriptor.
    Taking(Box<Asked>),
    /// The engine is at work.
    Judging(Box<Asked>),
    /// Changed contents are being made, so many are missing; the answer is here.
    Enclosing(Box<Asked>, usize, Vec<u8>),
    /// The answer is on its way out.
    Telling(Box<Asked>),
    /// The client does what it was told.
    Doing(Box<Asked>),
    Closing,
}

/// A mail that a client asked about.
struct Asked {
    id: MailId,
    request: Request,
    envelope: Envelope,
    origin: Origin,
    started: Instant,
    judged: Option<Box<Judged>>,
    fates: Vec<Fate>,
    /// The answer, when there is one before the content is here.
    refused: Option<Disposition>,
}

impl Check {
    /// A session that waits for the first words; `abilities` are the way's.
    pub fn new(
        settings: Arc<Settings>,
        abilities: Abilities,
        origins: Arc<Origins>,
        link: Link,
        now: Instant,
        reports: Reports,
    ) -> Self {
        Self {
            settings,
            abilities,
            origins,
            link,
            reports,
            input: BytesMut::new(),
            output: BytesMut::new(),
            nowhere: BytesMut::new(),
            steps: VecDeque::new(),
            finder: Finder::default(),
            stretches: Vec::new(),
            greeted: false,
            answered: false,
            phase: Phase::Request,
            draining: false,
            now,
            waiting_since: now,
        }
    }
}

impl Session for Check {
    fn input(&mut self, side: Side) -> &mut BytesMut {
        if side == Side::Client { &mut self.input } else { &mut self.nowhere }
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
                Phase::Telling(_) => Some(Step::Flush),
                Phase::Request | Phase::Doing(_) => self.advance(),
                Phase::Content(..) => self.collect(),
                // The driver always answers; to end without an answer makes the client try again.
                Phase::Taking(_) | Phase::Judging(_) | Phase::Enclosing(..) => {
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
            Answer::NotTaken(unfit) => self.not_taken(unfit.as_ref()),
            Answer::Flushed => self.told(),
            Answer::Closed(_) => self.lost("the client was gone before it had our answer"),
            Answer::TimedOut(_) => self.late(),
            Answer::Drain => self.draining = true,
            Answer::Sent
            | Answer::Opened(_)
            | Answer::NotOpened(_)
            | Answer::Connected { .. }
            | Answer::Unreachable(_)
            | Answer::Secured(_) => {}
        }
    }
}

impl Check {
    /// Takes one list, or says what is needed for it.
    fn advance(&mut self) -> Option<Step> {
        if !self.greeted {
            let said = self.input.len().min(HELLO.len());
            if self.input[..said] != HELLO[..said] {
                self.complain("this is the check socket, which speaks \"checkpost-check 1\"");
                return None;
            }
            if said < HELLO.len() {
                return Some(self.read(APPETITE.0));
            }
            self.input.advance(said);
            self.greeted = true;
        }
        let limit = LIST.0 * self.settings.max_recipients + LIST.1;
        match self.finder.find(&self.input, limit) {
            Ok(Some(length)) => {
                let list = self.input.split_to(length);
                self.stretches.clear();
                self.waiting_since = self.now;
                self.take(List::new(&list));
                None
            }
            Ok(None) if self.has_room() => Some(self.read(APPETITE.0)),
            Ok(None) => {
                self.complain("too many long envelopes at once, try again later");
                None
            }
            Err(error) => {
                self.complain(&error.to_string());
                None
            }
        }
    }

    /// Is there room for a list as long as what has come of it?
    fn has_room(&mut self) -> bool {
        while self.input.len() / STRETCH > self.stretches.len() {
            match self.link.lists.enter(STRETCHES) {
                Some(ticket) => self.stretches.push(ticket),
                None => return false,
            }
        }
        true
    }

    fn read(&self, appetite: usize) -> Step {
        let patience = if self.greeted { self.settings.command_timeout } else { FIRST_WORDS };
        Step::Read { side: Side::Client, until: self.waiting_since + patience, appetite }
    }

    fn take(&mut self, list: List<'_>) {
        match std::mem::replace(&mut self.phase, Phase::Request) {
            Phase::Doing(asked) => match Done::decode(list) {
                Ok(done) => self.done(*asked, &done),
                Err(error) => {
                    self.report(*asked, Some(Fate::Unknown));
                    self.complain(&error.to_string());
                }
            },
            _ => match Request::decode(list) {
                Ok(request) => self.asked(request),
                Err(error) => self.complain(&error.to_string()),
            },
        }
    }

    fn asked(&mut self, request: Request) {
        if self.draining {
            return self.complain("the program ends, try again");
        }
        let envelope = map::envelope(&request);
        let (name, default) = (&self.settings.name, self.settings.origin);
        let origin = map::origin(&request, name, default, &self.origins, &envelope.sender);
        let carried = request.content;
        let too_many = request.recipients.len() > self.settings.max_recipients;
        let mut asked = Box::new(Asked {
            id: MailId::new(),
            request,
            envelope,
            origin,
            started: self.now,
            judged: None,
            fates: Vec::new(),
            refused: None,
        });
        asked.refused = match carried {
            _ if self.link.refuse.is_some() => self.link.refuse.map(|why| defer(Deferral::lossy(3, 2, why))),
            _ if too_many => Some(defer(Deferral::lossy(5, 3, "Too many recipients"))),
            Carried::Inline(length) if length > self.settings.max_size => Some(too_large()),
            _ => None,
        };
        match carried {
            Carried::Inline(length) => self.phase = Phase::Content(asked, length, 0),
            Carried::Descriptor => {
                self.steps.push_back(Step::Take { skip: asked.request.skip, limit: self.settings.max_size });
                self.phase = Phase::Taking(asked);
            }
        }
    }

    /// Takes what has come of a content that comes behind its request.
    fn collect(&mut self) -> Option<Step> {
        let Phase::Content(asked, missing, stored) = &mut self.phase else { return None };
        let held = self.input.len();
        if held as u64 >= *missing {
            // Within what is held, so it fits.
            let tail = self.input.split_to(usize::try_from(*missing).unwrap_or(held));
            let Phase::Content(asked, ..) = std::mem::replace(&mut self.phase, Phase::Request) else { return None };
            self.judge(asked, tail);
            return None;
        }
        let bound = if *stored == 0 { self.link.memory_limit } else { STORE };
        if asked.refused.is_some() {
            // Read to its end all the same: what comes behind it is another request.
            *missing -= held as u64;
            self.input.clear();
        } else if held > bound {
            *missing -= held as u64;
            *stored += held as u64;
            return Some(Step::Store(self.input.split().freeze()));
        }
        Some(self.read(APPETITE.1))
    }

    fn judge(&mut self, asked: Box<Asked>, tail: BytesMut) {
        if let Some(disposition) = asked.refused.clone() {
            self.steps.push_back(Step::Forget);
            return self.decline(asked, &disposition);
        }
        let submission = Submission {
            abilities: Some(map::abilities(asked.request.can, &self.abilities)),
            within: asked.request.within,
            ..Submission::new(asked.id, asked.envelope.clone(), asked.origin.clone(), tail.freeze())
        };
        self.steps.push_back(Step::Judge(Box::new(submission)));
        self.phase = Phase::Judging(asked);
    }

    fn judged(&mut self, judged: Box<Judged>) {
        let Phase::Judging(mut asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        let header = if asked.request.can.contains(checkpost_wire::check::Can::EDIT_HEADERS)
            && self.abilities.edit_headers
        {
            match header(&judged) {
                Ok(header) => header,
                Err(error) => {
                    tracing::error!(mail = %asked.id, error, "the header cannot be edited, so the mail is deferred");
                    asked.judged = Some(judged);
                    return self.decline(asked, &defer(Deferral::local_problem()));
                }
            }
        } else {
            None
        };
        let prepared = map::prepare(&judged, header.as_ref(), asked.request.changed);
        asked.fates = Fate::all(&judged);
        asked.judged = Some(judged);
        let mut answer = Response::Answer(prepared.answer).encode();
        answer.extend_from_slice(&prepared.octets);
        if prepared.enclosed.is_empty() {
            self.say(&answer);
            self.phase = Phase::Telling(asked);
        } else {
            self.phase = Phase::Enclosing(asked, prepared.enclosed.len(), answer);
            self.steps.extend(prepared.enclosed.into_iter().map(Step::Enclose));
        }
    }

    fn stored(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Request) {
            Phase::Taking(asked) => self.judge(asked, BytesMut::new()),
            Phase::Enclosing(asked, 1, answer) => {
                self.say(&answer);
                self.phase = Phase::Telling(asked);
            }
            Phase::Enclosing(asked, missing, answer) => self.phase = Phase::Enclosing(asked, missing - 1, answer),
            phase => self.phase = phase,
        }
    }

    fn not_stored(&mut self, why: &str) {
        let reply = "Insufficient storage, try again later";
        match std::mem::replace(&mut self.phase, Phase::Request) {
            Phase::Content(mut asked, missing, _) => {
                tracing::error!(mail = %asked.id, why, "the content could not be kept");
                asked.refused = Some(defer(Deferral::lossy(3, 1, reply)));
                self.phase = Phase::Content(asked, missing, 0);
            }
            Phase::Judging(asked) => {
                tracing::error!(mail = %asked.id, why, "the content could not be kept");
                self.decline(asked, &defer(Deferral::lossy(3, 1, reply)));
            }
            Phase::Enclosing(asked, ..) => {
                tracing::error!(mail = %asked.id, why, "the changed content could not be kept");
                self.report(*asked, Some(Fate::NotHandedOn("the changed content could not be kept")));
                // Descriptors of other contents may be on their way already.
                self.steps.clear();
                self.complain(reply);
            }
            phase => self.phase = phase,
        }
    }

    fn not_taken(&mut self, unfit: Option<&Unfit>) {
        let Phase::Taking(asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        match (asked.refused.clone(), unfit) {
            (Some(disposition), _) => self.decline(asked, &disposition),
            (None, Some(Unfit::TooLarge(_))) => self.decline(asked, &too_large()),
            (None, unfit) => {
                self.report(*asked, Some(Fate::NotHandedOn("its content could not be had")));
                match unfit {
                    Some(unfit) => self.complain(&unfit.to_string()),
                    None => self.complain("no descriptor came with the request"),
                }
            }
        }
    }

    /// The same answer for everybody, without a verdict or in spite of it.
    fn decline(&mut self, mut asked: Box<Asked>, disposition: &Disposition) {
        asked.fates = vec![Fate::of(disposition); asked.envelope.recipients.len()];
        self.say(&Response::Answer(map::refusal(asked.id.as_str(), disposition)).encode());
        self.phase = Phase::Telling(asked);
    }

    /// The answer is out.
    fn told(&mut self) {
        let Phase::Telling(asked) = std::mem::replace(&mut self.phase, Phase::Request) else { return };
        self.waiting_since = self.now;
        self.phase = Phase::Doing(asked);
    }

    fn done(&mut self, asked: Asked, done: &Done) {
        match done {
            Done::Carried => self.report(asked, None),
            Done::Failed(why) => {
                tracing::warn!(mail = %asked.id, program = asked.request.program, why, "the client could not do it");
                self.report(asked, Some(Fate::NotHandedOn("the client could not do what it was told")));
            }
        }
    }

    fn say(&mut self, list: &[u8]) {
        if !std::mem::replace(&mut self.answered, true) {
            self.output.extend_from_slice(HELLO);
        }
        self.output.extend_from_slice(list);
    }

    /// Something is wrong with this client, or nothing can be done for it: it is told, and that is the end.
    fn complain(&mut self, why: &str) {
        tracing::warn!(way = %self.settings.name, why, "connection closed");
        self.say(&Response::Error(why.to_owned()).encode());
        self.phase = Phase::Closing;
    }

    fn late(&mut self) {
        match &self.phase {
            // Nothing was begun: a client may keep its connection, but not for ever.
            Phase::Request if self.input.is_empty() => self.phase = Phase::Closing,
            Phase::Request | Phase::Content(..) => self.lost("the client sent nothing for too long"),
            _ => self.lost("the client did not say what became of it"),
        }
    }

    fn lost(&mut self, why: &'static str) {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Doing(asked) => self.report(*asked, Some(Fate::Unknown)),
            Phase::Content(asked, ..)
            | Phase::Taking(asked)
            | Phase::Judging(asked)
            | Phase::Enclosing(asked, ..)
            | Phase::Telling(asked) => self.report(*asked, Some(Fate::NotHandedOn(why))),
            Phase::Request if !self.input.is_empty() => {
                tracing::warn!(way = %self.settings.name, "connection closed in the middle of a request");
            }
            Phase::Request | Phase::Closing => {}
        }
    }

    /// Writes the closing line: with the fates that are known, or with this one for all.
    fn report(&mut self, asked: Asked, all: Option<Fate>) {
        let recipients: &[Address] = &asked.envelope.recipients;
        let fates = all.map_or(asked.fates, |fate| vec![fate; recipients.len()]);
        (self.reports)(Report {
            id: asked.id,
            origin: &asked.origin,
            sender: &asked.envelope.sender,
            recipients,
            fates: &fates,
            size: asked.judged.as_ref().map_or(0, |judged| judged.mail.content.len()),
            judged: asked.judged.as_deref(),
            took: self.now.duration_since(asked.started),
        });
        self.waiting_since = self.now;
    }
}

fn defer(deferral: Deferral) -> Disposition {
    Disposition::Defer(deferral)
}

fn too_large() -> Disposition {
    let rejection = Rejection::parse("552 5.3.4 Message too large");
    Disposition::Reject(rejection.unwrap_or_else(|_| Rejection::lossy(3, 4, "Message too large")))
}

/// The header; `None`: nobody gets the mail. An error is for the log.
fn header(judged: &Judged) -> Result<Option<Header>, String> {
    if !judged.fitted.outcomes.iter().any(|outcome| outcome.disposition.is_handed_on()) {
        return Ok(None);
    }
    edited::header(&judged.mail.content).map(Some)
}
