//! The milter session: packets in, packets and steps out. One connection, which a mail server opens for
//! each of its own; many mails on it.
//!
//! Nothing is scanned before the end of a message, where the protocol lets us take our time; before it,
//! only rules that need no content may refuse. Edits are collected and written with the decision, all at
//! once, so that no failure of ours leaves a mail half edited.

mod client;
mod message;
mod negotiate;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use checkpost_adapter::report::{Fate, Report};
use checkpost_adapter::session::Heartbeat;
use checkpost_adapter::{Answer, Judged, Session, Side, Step, Submission};
use checkpost_core::config::Origins;
use checkpost_core::policy::{Early, Known, Policy, Stage};
use checkpost_core::{Address, Deferral, Disposition, Envelope, MailId, Origin, Rejection};
use checkpost_wire::milter::{self, Command, MAX_PACKET, Offer, Path, Reply, Steps, take_packet};

use crate::config::Settings;
use crate::map;
use client::Client;
use message::{Fault, Message};
use negotiate::{Agreed, OLDEST};
use waiting::Waiting;

/// A mail server speaks at once; who does not is none.
const FIRST_WORDS: Duration = Duration::from_secs(30);
/// Sendmail waits 10 s for a sign of life by default (libmilter/README, `R:`).
const HEARTBEAT: Heartbeat = Heartbeat { every: Duration::from_secs(4), octets: &[0, 0, 0, 1, b'p'] };
/// Read at once between commands, and within a content: a chunk and what goes with it.
const APPETITE: (usize, usize) = (4 << 10, 112 << 10);
/// What is beyond the memory limit goes to the spool in pieces of this size, in octets.
const STORE: usize = 256 << 10;

/// What a session is told of its connection.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// TCP rather than a Unix socket.
    pub tcp: bool,
    /// Every mail is put off: the reason, for the client.
    pub refuse: Option<&'static str>,
    /// Contents above this go to the spool, in octets.
    pub memory_limit: usize,
}

/// Takes the closing line of each mail.
pub type Reports = Box<dyn FnMut(Report<'_>) + Send>;

/// One connection with a mail server.
pub struct Milter {
    settings: Arc<Settings>,
    policy: Policy,
    origins: Arc<Origins>,
    link: Link,
    reports: Reports,
    input: BytesMut,
    output: BytesMut,
    /// There is no next hop, but its buffer can be asked for.
    nowhere: BytesMut,
    steps: VecDeque<Step>,
    agreed: Option<Agreed>,
    client: Client,
    /// Said at CONNECT or HELO: the answer to all that follows.
    refused: Option<Disposition>,
    message: Option<Box<Message>>,
    phase: Phase,
    draining: bool,
    now: Instant,
    waiting_since: Instant,
}

enum Phase {
    /// The next packet is waited for.
    Command,
    /// The engine is at work.
    Judging(Box<Waiting>),
    /// Over TCP: is the mail server still there? A write would succeed even if it is not.
    Probing(Box<Waiting>, Box<Judged>),
    /// The answer is on its way out; then the log has its line.
    Telling(Box<Waiting>, Vec<Fate>),
    Closing,
}

impl Milter {
    /// A session that waits for the first packet.
    pub fn new(
        settings: Arc<Settings>,
        policy: Policy,
        origins: Arc<Origins>,
        link: Link,
        now: Instant,
        reports: Reports,
    ) -> Self {
        Self {
            settings,
            policy,
            origins,
            link,
            reports,
            input: BytesMut::new(),
            output: BytesMut::new(),
            nowhere: BytesMut::new(),
            steps: VecDeque::new(),
            agreed: None,
            client: Client::default(),
            refused: None,
            message: None,
            phase: Phase::Command,
            draining: false,
            now,
            waiting_since: now,
        }
    }
}

impl Session for Milter {
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
            match self.phase {
                Phase::Closing => return Step::Close,
                Phase::Telling(..) => return Step::Flush,
                // It owes nothing now, so what it says is only kept.
                Phase::Probing(..) if self.input.is_empty() => {
                    return Step::Read { side: Side::Client, until: self.now, appetite: APPETITE.0 };
                }
                Phase::Probing(..) => self.answer(),
                // The driver always answers; to end without a decision makes the MTA try again.
                Phase::Judging(_) => {
                    debug_assert!(false, "the engine owes an answer");
                    self.phase = Phase::Closing;
                }
                Phase::Command => {
                    if let Some(step) = self.advance() {
                        return step;
                    }
                }
            }
        }
    }

    fn resolve(&mut self, answer: Answer, now: Instant) {
        self.now = now;
        match answer {
            Answer::Judged(judged) => self.judged(judged),
            Answer::NotStored(why) => self.not_stored(&why),
            Answer::Flushed => self.told(true),
            Answer::Closed(_) => self.lost(),
            Answer::TimedOut(_) if matches!(self.phase, Phase::Probing(..)) => self.answer(),
            Answer::TimedOut(_) => self.close("the peer said nothing for too long"),
            Answer::Drain => self.draining = true,
            Answer::Stored
            | Answer::NotTaken(_)
            | Answer::Opened(_)
            | Answer::NotOpened(_)
            | Answer::Sent
            | Answer::Connected { .. }
            | Answer::Unreachable(_)
            | Answer::Secured(_) => {}
        }
    }
}

impl Milter {
    /// Takes one packet, or says what is needed for it.
    fn advance(&mut self) -> Option<Step> {
        if self.agreed.is_none()
            && let Some(other) = milter::guess_protocol(&self.input)
        {
            self.close(&format!("this is a milter port, and the peer speaks {other}"));
            return None;
        }
        match take_packet(&mut self.input, MAX_PACKET) {
            Ok(Some(packet)) => {
                self.waiting_since = self.now;
                match Command::parse(packet) {
                    Ok(command) => self.take(command),
                    Err(error) => self.close(&error.to_string()),
                }
                None
            }
            Ok(None) => Some(self.read()),
            Err(error) => {
                self.close(&error.to_string());
                None
            }
        }
    }

    fn read(&self) -> Step {
        let patience = if self.agreed.is_some() { self.settings.command_timeout } else { FIRST_WORDS };
        let appetite = if self.message.is_some() { APPETITE.1 } else { APPETITE.0 };
        Step::Read { side: Side::Client, until: self.waiting_since + patience, appetite }
    }

    fn take(&mut self, command: Command) {
        let negotiated = self.agreed.is_some();
        match (command, &mut self.message) {
            (Command::Options(offer), _) if !negotiated => self.negotiate(&offer),
            (Command::Quit, _) => {
                self.abandon();
                self.phase = Phase::Closing;
            }
            (_, _) if !negotiated => self.close("a command before the negotiation"),
            (Command::Macros(macros), _) => self.client.told(&macros),
            (Command::Connect { host, peer }, _) => self.connected(Client::new(&host, &peer)),
            (Command::Helo(name), _) => self.greeted(&name),
            (Command::Mail(path), _) => self.began(&path),
            (Command::Recipient(_), Some(message)) if message.started.is_some() => {
                self.close("a command out of order: a recipient within a content");
            }
            (Command::Header { .. }, Some(message)) if message.in_body => {
                self.close("a command out of order: a header field within a body");
            }
            (Command::Recipient(path), Some(_)) => self.addressed(&path),
            (Command::Data, Some(_)) => self.go_on(Steps::SILENT_DATA),
            (Command::Header { name, value }, Some(message)) => {
                message.started.get_or_insert(self.now);
                let spaced = self.agreed.as_ref().is_some_and(|agreed| agreed.has(Steps::LEADING_SPACE));
                message.add_field(&name, &value, spaced, self.settings.max_size);
                self.store();
                self.go_on(Steps::SILENT_HEADERS);
            }
            (Command::EndOfHeader, Some(message)) => {
                message.started.get_or_insert(self.now);
                message.end_header();
                self.go_on(Steps::SILENT_END_OF_HEADER);
            }
            (Command::Body(octets), Some(message)) => {
                message.started.get_or_insert(self.now);
                let held = if message.stored == 0 { self.link.memory_limit } else { STORE };
                message.make_room(octets.len(), held);
                message.add_body(&octets, self.settings.max_size);
                self.store();
                self.go_on(Steps::SILENT_BODY);
            }
            (Command::EndOfMessage(octets), Some(message)) => {
                message.end_header();
                if !octets.is_empty() {
                    message.add_body(&octets, self.settings.max_size);
                }
                self.ended();
            }
            (Command::Abort, _) => self.abandon(),
            // Asked not to be told, but old servers tell all the same.
            (Command::Unknown(_), _) => self.go_on(Steps::SILENT_UNKNOWN),
            (Command::QuitNewConnection, _) => {
                self.abandon();
                self.client = Client::default();
                self.refused = None;
            }
            (Command::Options(_), _) => self.close("a second negotiation"),
            (_, None) => self.close("a command out of order: there is no mail"),
        }
    }

    fn negotiate(&mut self, offer: &Offer) {
        if offer.version < OLDEST {
            let version = offer.version;
            return self
                .close(&format!("the mail server speaks milter version {version}, and 2 is the oldest we speak"));
        }
        let (agreed, choice) = Agreed::new(offer, &self.policy, &self.settings, &self.link);
        if let Some(missing) = &agreed.missing {
            tracing::error!(
                way = %self.settings.name,
                missing,
                "every mail is put off: the mail server does not offer what rules need"
            );
        } else if !agreed.abilities.edit_headers {
            tracing::warn!(way = %self.settings.name, "the mail server does not offer header edits: they are left out");
        }
        choice.encode(&mut self.output);
        self.agreed = Some(agreed);
    }

    fn connected(&mut self, client: Client) {
        self.abandon();
        self.client = client;
        self.refused = None;
        self.refuse_session(Stage::Connect, Steps::SILENT_CONNECT);
    }

    fn greeted(&mut self, name: &bytes::Bytes) {
        // STARTTLS brings a second greeting, and what was begun before it is void (RFC 3207 section 4.2).
        self.abandon();
        self.client.greeted(name);
        self.refuse_session(Stage::Helo, Steps::SILENT_HELO);
    }

    /// A refusal at CONNECT or HELO holds until the session ends.
    fn refuse_session(&mut self, stage: Stage, silent: Steps) {
        match self.early(stage, silent, MailId::new, None, None) {
            Some((early, origin)) => {
                tracing::info!(
                    way = %self.settings.name,
                    client = origin.client.map(tracing::field::display),
                    helo = origin.helo.as_deref(),
                    rule = %early.rule,
                    reply = early.disposition.reply().map(tracing::field::display),
                    "session refused"
                );
                map::refuse(&early.disposition, &mut self.output);
                self.refused = Some(early.disposition);
            }
            None => self.go_on(silent),
        }
    }

    fn began(&mut self, path: &Path) {
        self.abandon_but_facts();
        self.client.began();
        let refusal = self.refused.clone().or_else(|| self.unable());
        let message = Box::new(Message::new(path));
        if let Some(refusal) = refusal {
            return self.refuse_sender(&message, &refusal, None);
        }
        let early = self.early(Stage::Sender, Steps::SILENT_MAIL, || message.id, Some(&message.sender), None);
        if let Some((early, _)) = early {
            return self.refuse_sender(&message, &early.disposition, Some(&early.rule));
        }
        self.message = Some(message);
        self.go_on(Steps::SILENT_MAIL);
    }

    /// Nobody is addressed yet: the closing line names the sender alone.
    fn refuse_sender(&mut self, message: &Message, disposition: &Disposition, rule: Option<&str>) {
        tracing::info!(
            mail = %message.id,
            way = %self.settings.name,
            client = self.client.address().map(tracing::field::display),
            sender = %message.sender,
            rule,
            fate = %Fate::of(disposition),
            "sender refused"
        );
        map::refuse(disposition, &mut self.output);
    }

    /// Why no mail can be taken now.
    fn unable(&self) -> Option<Disposition> {
        let missing = self.agreed.as_ref().is_some_and(|agreed| agreed.missing.is_some());
        let deferral = match self.link.refuse {
            Some(why) => Deferral::lossy(3, 2, why),
            None if missing => {
                Deferral::lossy(3, 5, "Mail filter and mail server do not fit together, try again later")
            }
            // 421 ends the session, which is what a program that ends needs.
            None if self.draining => Deferral::parse("421 4.3.2 Mail filter restarts, try again").ok()?,
            None => return None,
        };
        Some(Disposition::Defer(deferral))
    }

    fn addressed(&mut self, path: &Path) {
        let Some(message) = &self.message else { return };
        let to = message::address(path);
        // Postfix takes a refusal of a recipient of sendmail(1) for a mistake in its configuration: such
        // a mail is judged at its end.
        let early = if self.client.is_local {
            None
        } else {
            self.early(Stage::Recipient, Steps::SILENT_RECIPIENT, || message.id, Some(&message.sender), Some(&to))
        };
        let limit = self.settings.max_recipients;
        let Some(message) = &mut self.message else { return };
        match early {
            Some((early, _)) => {
                if message.refused.len() < limit {
                    message.refused.push((to, Fate::of(&early.disposition)));
                }
                map::refuse(&early.disposition, &mut self.output);
            }
            None => {
                message.add_recipient(path, limit);
                self.go_on(Steps::SILENT_RECIPIENT);
            }
        }
    }

    /// Moves to the spool what memory shall not hold.
    fn store(&mut self) {
        let Some(message) = &mut self.message else { return };
        let held = message.content.len();
        let first = message.stored == 0 && held > self.link.memory_limit;
        if first || (message.stored > 0 && held >= STORE) {
            message.stored += held as u64;
            self.steps.push_back(Step::Store(message.content.split().freeze()));
        }
    }

    fn ended(&mut self) {
        let Some(mut message) = self.message.take() else { return };
        let origin = self.origin(&message.sender);
        let envelope = Envelope { sender: message.sender.clone(), recipients: message.addresses() };
        let (waiting, tail) = Waiting::new(&mut message, origin.clone(), self.now);
        // Nobody was shown to us: to answer for nobody would be to discard it for all.
        let fault = message.fault.or(waiting.recipients.is_empty().then_some(Fault::NoRecipients));
        if let Some(fault) = fault {
            self.steps.push_back(Step::Forget);
            return self.decline(waiting, &fault_reply(fault));
        }
        let abilities = self.agreed.as_ref().map(|agreed| agreed.abilities);
        let submission =
            Submission { abilities, heartbeat: Some(HEARTBEAT), ..Submission::new(waiting.id, envelope, origin, tail) };
        self.phase = Phase::Judging(waiting);
        self.steps.push_back(Step::Judge(Box::new(submission)));
    }

    fn judged(&mut self, judged: Box<Judged>) {
        let Phase::Judging(waiting) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        self.phase = Phase::Probing(waiting, judged);
        if !self.link.tcp {
            self.answer();
        }
    }

    /// The mail is judged, and the mail server is there.
    fn answer(&mut self) {
        let Phase::Probing(mut waiting, judged) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        let Ok(header) = waiting.header_to_edit(&judged) else {
            waiting.judged = Some(judged);
            return self.decline(waiting, &Disposition::Defer(Deferral::local_problem()));
        };
        let agreed = self.agreed.as_ref();
        let has = |action| agreed.is_some_and(|agreed| agreed.actions.contains(action));
        let known = map::Known {
            header: header.as_ref().filter(|_| agreed.is_some_and(|agreed| agreed.abilities.edit_headers)),
            raw: waiting.recipients.iter().map(|recipient| &*recipient.raw).collect(),
            recipients: &judged.mail.envelope.recipients,
            spaced: agreed.is_some_and(|agreed| agreed.has(Steps::LEADING_SPACE)),
            removes_mailboxes: self.settings.removes_mailboxes && has(milter::Actions::ADD_RECIPIENTS),
            with_parameters: has(milter::Actions::ADD_RECIPIENTS_WITH_PARAMETERS),
        };
        map::write(&judged.fitted, &known, &mut self.output);
        let fates = Fate::all(&judged);
        waiting.judged = Some(judged);
        self.phase = Phase::Telling(waiting, fates);
    }

    /// The same answer for everybody, without a verdict.
    fn decline(&mut self, waiting: Box<Waiting>, disposition: &Disposition) {
        map::refuse(disposition, &mut self.output);
        let fates = vec![Fate::of(disposition); waiting.recipients.len()];
        self.phase = Phase::Telling(waiting, fates);
    }

    fn not_stored(&mut self, why: &str) {
        let reply = fault_reply(Fault::Spool);
        match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::Judging(waiting) => {
                tracing::error!(mail = %waiting.id, why, "the content could not be kept");
                self.decline(waiting, &reply);
            }
            phase => {
                self.phase = phase;
                if let Some(message) = &mut self.message {
                    tracing::error!(mail = %message.id, why, "the content could not be kept");
                    message.fault = Some(Fault::Spool);
                    message.content = BytesMut::new();
                }
            }
        }
    }

    /// The answer was written, or could not be.
    fn told(&mut self, written: bool) {
        let Phase::Telling(waiting, mut fates) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        if !written {
            fates.fill(Fate::NotHandedOn("the mail server was gone before it had our answer"));
        }
        self.report(*waiting, fates);
        self.client.forget_message();
        self.waiting_since = self.now;
    }

    fn report(&mut self, waiting: Waiting, fates: Vec<Fate>) {
        waiting.report(fates, self.now, &mut self.reports);
    }

    /// The mail under way is void. A content that had begun has its line in the log, and so have
    /// recipients that we refused.
    fn abandon(&mut self) {
        self.abandon_but_facts();
        self.client.forget_message();
    }

    /// As [`Milter::abandon`], when the macros of the mail that begins are here already.
    fn abandon_but_facts(&mut self) {
        let Some(mut message) = self.message.take() else { return };
        self.steps.push_back(Step::Forget);
        if message.started.is_none() && message.refused.is_empty() {
            return;
        }
        let fates = vec![Fate::NotHandedOn("the mail server gave it up"); message.recipients.len()];
        let origin = self.origin(&message.sender);
        let (waiting, _) = Waiting::new(&mut message, origin, self.now);
        self.report(*waiting, fates);
    }

    fn lost(&mut self) {
        match &self.phase {
            Phase::Telling(..) => self.told(false),
            Phase::Judging(_) | Phase::Probing(..) => {
                if let Phase::Judging(waiting) | Phase::Probing(waiting, _) =
                    std::mem::replace(&mut self.phase, Phase::Closing)
                {
                    let why = Fate::NotHandedOn("the mail server was gone before it had our answer");
                    let fates = vec![why; waiting.recipients.len()];
                    self.report(*waiting, fates);
                }
            }
            Phase::Command | Phase::Closing => {
                if !self.input.is_empty() {
                    tracing::warn!(way = %self.settings.name, "connection closed in the middle of a packet");
                } else if self.agreed.is_none() {
                    tracing::info!(way = %self.settings.name, "connection closed without a word");
                }
                self.abandon();
            }
        }
        self.phase = Phase::Closing;
    }

    /// Something is wrong with this peer: one line, and the end.
    fn close(&mut self, why: &str) {
        tracing::warn!(way = %self.settings.name, why, "connection closed");
        self.abandon();
        self.phase = Phase::Closing;
    }

    /// What the rules say at this stage, and whom it is about; nothing is looked at where no answer is
    /// waited for, or no rule could say anything.
    fn early(
        &self,
        stage: Stage,
        silent: Steps,
        id: impl FnOnce() -> MailId,
        sender: Option<&Address>,
        recipient: Option<&Address>,
    ) -> Option<(Early, Origin)> {
        if self.is_silent(silent) || !self.policy.asks_at(stage) {
            return None;
        }
        let origin = self.origin(sender.unwrap_or(&Address::null()));
        let early = self.policy.early(&Known { stage, origin: &origin, sender, recipient, id: id().as_str() })?;
        Some((early, origin))
    }

    fn origin(&self, sender: &Address) -> Origin {
        self.client.origin(&self.settings.name, &self.origins, sender, self.settings.origin)
    }

    fn is_silent(&self, step: Steps) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.has(step))
    }

    /// CONTINUE, where an answer is waited for.
    fn go_on(&mut self, silent: Steps) {
        if !self.is_silent(silent) {
            Reply::Continue.encode(&mut self.output);
        }
    }
}

fn fault_reply(fault: Fault) -> Disposition {
    match fault {
        Fault::TooLarge => Disposition::Reject(
            Rejection::parse("552 5.3.4 Message too large")
                .unwrap_or_else(|_| Rejection::lossy(3, 4, "Message too large")),
        ),
        Fault::TooManyRecipients => Disposition::Defer(Deferral::lossy(5, 3, "Too many recipients")),
        Fault::NoRecipients => Disposition::Defer(Deferral::local_problem()),
        Fault::Spool => Disposition::Defer(Deferral::lossy(3, 1, "Insufficient storage, try again later")),
    }
}
