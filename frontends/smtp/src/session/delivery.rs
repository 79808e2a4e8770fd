//! What becomes of a whole mail: judged, handed on to each group of recipients, answered, reported.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use checkpost_adapter::{Judged, Outgoing, Side, Step, Submission};
use checkpost_core::content::header::{Header, MAX_HEADER};
use checkpost_core::fit::Answer;
use checkpost_core::reply::{Deferral, Rejection};
use checkpost_core::{Disposition, Edit, Envelope, MailId};
use checkpost_wire::smtp::received::Received;
use checkpost_wire::smtp::reply::{PeerReply, write_reply};

use super::link::{Awaited, Goal};
use super::{Fault, Greeted, Incoming, Phase, Proxy};
use crate::route::Protocol;
use checkpost_adapter::edited;
use checkpost_adapter::report::{Fate, Report};

/// A mail whose content is here.
pub(super) struct Delivery {
    id: MailId,
    stage: Stage,
    header: Header,
    by_chunks: bool,
    size: u64,
    started: Instant,
    judged: Option<Box<Judged>>,
    groups: VecDeque<Group>,
    current: Option<Group>,
    /// What became of each recipient that gets the mail.
    fates: Vec<Option<Fate>>,
    /// A content was sent whole, so somebody may have it.
    handed_on: bool,
}

/// Recipients that get the same content.
struct Group {
    edits: Arc<[Edit]>,
    members: Vec<usize>,
    /// Those accepted in the group's own transaction.
    accepted: Vec<usize>,
    refused: Option<PeerReply>,
    /// Tried on a second connection after the first broke.
    retried: bool,
    sent: bool,
}

enum Stage {
    Submit(Box<Submission>),
    Judging,
    /// Is the client still there? Asked once, before anything is handed on.
    Probe,
    Next,
    /// The next hop is at work on a group.
    Group,
    Send(Box<Outgoing>),
}

impl Delivery {
    /// Nothing was handed on, so it may be dropped without making two mails of one.
    pub(super) fn may_be_given_up(&self) -> bool {
        !self.handed_on && matches!(self.stage, Stage::Probe | Stage::Next)
    }

    fn set_fate(&mut self, members: &[usize], fate: &Fate) {
        for &index in members {
            self.fates[index] = Some(fate.clone());
        }
    }
}

impl Proxy {
    /// The content has come to its end.
    pub(super) fn content_ended(&mut self) {
        let incoming = match std::mem::replace(&mut self.phase, Phase::Waiting) {
            Phase::Data(incoming, _) | Phase::BetweenChunks(incoming, _) => incoming,
            other => {
                self.phase = other;
                return;
            }
        };
        let Some(transaction) = &self.transaction else {
            self.phase = Phase::Command;
            return;
        };
        let Incoming { body, header, stored, started, by_chunks, .. } = *incoming;
        let tail = body.freeze();
        let header = header.unwrap_or_else(|| Header::parse(tail.slice(..tail.len().min(MAX_HEADER))));
        let size = stored + tail.len() as u64;
        let recipients = transaction.recipients.len();
        let fault = incoming.fault.map(|fault| match fault {
            Fault::BareNewline => refusal(550, (5, 5, 2), "Bare CR or LF in the content, lines must end in CRLF"),
            Fault::TooLarge => refusal(552, (5, 3, 4), "Message too large"),
            Fault::Spool => refusal(452, (4, 3, 1), "Insufficient storage, try again later"),
        });
        let hops = header.named("Received").count();
        let fault = fault.or_else(|| {
            (hops > self.settings.max_hops as usize)
                .then(|| refusal(554, (5, 4, 6), "Too many hops, this mail is in a loop"))
        });
        let sender = transaction.sender_address();
        let envelope = Envelope { sender: sender.clone(), recipients: transaction.addresses() };
        let submission = Submission::new(transaction.id, envelope, self.origin(&sender), tail);
        let mut delivery = Box::new(Delivery {
            id: transaction.id,
            stage: Stage::Next,
            header,
            by_chunks,
            size,
            started,
            judged: None,
            groups: VecDeque::new(),
            current: None,
            fates: vec![None; recipients],
            handed_on: false,
        });
        if let Some(reply) = fault {
            self.hop.push_step(Step::Forget);
            let everyone: Vec<usize> = (0..recipients).collect();
            delivery.set_fate(&everyone, &Fate::Answered(reply));
            self.phase = Phase::Delivering(delivery);
            return self.finish();
        }
        delivery.stage = Stage::Submit(Box::new(submission));
        self.phase = Phase::Delivering(delivery);
    }

    pub(super) fn advance_delivery(&mut self) -> Option<Step> {
        let Phase::Delivering(delivery) = &mut self.phase else { return None };
        match std::mem::replace(&mut delivery.stage, Stage::Group) {
            Stage::Submit(submission) => {
                delivery.stage = Stage::Judging;
                Some(Step::Judge(submission))
            }
            Stage::Send(outgoing) => Some(Step::Send(outgoing)),
            Stage::Probe => {
                delivery.stage = Stage::Next;
                // Data that is here, or nothing: both mean that the client is there.
                Some(Step::Read { side: Side::Client, until: self.now, appetite: 512 })
            }
            Stage::Next => {
                self.next_group();
                None
            }
            // The driver or the next hop always answers, so this is a fault of ours: to try again is safe.
            Stage::Judging | Stage::Group => {
                debug_assert!(false, "waiting for nothing");
                self.not_judged();
                None
            }
        }
    }

    pub(super) fn judged(&mut self, judged: Judged) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        for (edits, members) in judged.fitted.deliveries() {
            let group = Group { edits, members, accepted: Vec::new(), refused: None, retried: false, sent: false };
            delivery.groups.push_back(group);
        }
        if matches!(judged.fitted.answer, Answer::Refuse(_)) {
            delivery.groups.clear();
        }
        delivery.judged = Some(Box::new(judged));
        delivery.stage = if delivery.groups.is_empty() { Stage::Next } else { Stage::Probe };
    }

    /// The content could not be stored or judged: try again later.
    pub(super) fn not_judged(&mut self) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        let everyone: Vec<usize> = (0..delivery.fates.len()).collect();
        delivery.set_fate(&everyone, &Fate::Answered(refusal(452, (4, 3, 1), "Insufficient storage, try again later")));
        delivery.judged = None;
        self.finish();
    }

    fn next_group(&mut self) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        let Some(group) = delivery.groups.pop_front() else { return self.finish() };
        let everyone = group.members.len() == delivery.fates.len();
        let mut group = group;
        if everyone && self.hop.has_open(group.members.len()) {
            // The transaction that verified the recipients is the one that they get the mail by.
            group.accepted.clone_from(&group.members);
            delivery.current = Some(group);
            return self.send_content();
        }
        delivery.current = Some(group);
        self.want_group();
    }

    fn want_group(&mut self) {
        let Some(route) = self.transaction.as_ref().and_then(|transaction| transaction.route) else {
            return self.group_failed("no route");
        };
        self.want(Goal::Group, route);
    }

    /// A connection is ready: the group gets a transaction of its own.
    pub(super) fn open_group(&mut self) {
        if self.hop.mail_is_sent() {
            self.hop.send(Bytes::from_static(b"RSET\r\n"), Awaited::Rset, self.now);
            self.hop.transaction_done();
        }
        let Some(transaction) = self.transaction.take() else { return };
        let members = match &self.phase {
            Phase::Delivering(delivery) => delivery.current.as_ref().map(|group| group.members.clone()),
            _ => None,
        };
        self.send_sender(&transaction, Awaited::GroupMail);
        for index in members.unwrap_or_default() {
            if let Some(recipient) = transaction.recipients.get(index) {
                self.send_group_recipient(index, recipient);
            }
        }
        self.transaction = Some(transaction);
    }

    pub(super) fn group_sender_replied(&mut self, reply: PeerReply) {
        if let Some(group) = self.current_group()
            && !reply.is_positive()
        {
            group.refused = Some(reply);
        }
    }

    pub(super) fn group_recipient_replied(&mut self, index: usize, reply: PeerReply) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        let Some(group) = &mut delivery.current else { return };
        let reply = group.refused.clone().unwrap_or(reply);
        if reply.is_positive() {
            group.accepted.push(index);
        } else {
            delivery.set_fate(&[index], &Fate::Answered(proper(reply)));
        }
        if self.hop.is_awaiting() {
            return;
        }
        let nobody = self.current_group().is_none_or(|group| group.accepted.is_empty());
        if nobody {
            self.group_done();
        } else {
            self.send_content();
        }
    }

    fn send_content(&mut self) {
        let by_chunks = match &self.phase {
            Phase::Delivering(delivery) => delivery.by_chunks,
            _ => return,
        };
        if by_chunks && self.hop.extensions().chunking {
            let outgoing = self.outgoing(true);
            self.stage(Stage::Send(outgoing));
        } else {
            self.stage(Stage::Group);
            self.hop.send(Bytes::from_static(b"DATA\r\n"), Awaited::Data, self.now);
        }
    }

    pub(super) fn data_replied(&mut self, reply: PeerReply) {
        if reply.is_intermediate() {
            let outgoing = self.outgoing(false);
            return self.stage(Stage::Send(outgoing));
        }
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        if let Some(group) = &delivery.current {
            let members = group.accepted.clone();
            delivery.set_fate(&members, &Fate::Answered(proper(reply)));
        }
        self.group_done();
    }

    fn outgoing(&mut self, by_chunks: bool) -> Box<Outgoing> {
        let received = self.settings.received.then(|| self.received_field());
        let mut pieces = Vec::new();
        if let Phase::Delivering(delivery) = &self.phase
            && let Some(judged) = &delivery.judged
            && let Some(group) = &delivery.current
        {
            pieces = edited::pieces(
                &judged.mail.content,
                &delivery.header,
                &group.edits,
                received.as_deref().unwrap_or_default(),
                "\r\n",
            );
        }
        let head = if by_chunks {
            let size: u64 = pieces.iter().map(checkpost_adapter::Piece::len).sum();
            format!("BDAT {size} LAST\r\n").into()
        } else {
            Bytes::new()
        };
        Box::new(Outgoing { to: Side::Hop, head, pieces, dots: !by_chunks, stall: self.settings.data_timeout })
    }

    fn received_field(&self) -> String {
        let facts = self.facts();
        let lmtp = self.settings.protocol == Protocol::Lmtp;
        // RFC 3848; a client that said HELO spoke plain SMTP.
        let with = match (lmtp, self.tls, facts.user.is_some()) {
            (true, true, true) => "LMTPSA",
            (true, true, false) => "LMTPS",
            (true, false, true) => "LMTPA",
            (true, false, false) => "LMTP",
            (false, true, true) => "ESMTPSA",
            (false, true, false) => "ESMTPS",
            (false, false, true) => "ESMTPA",
            (false, false, false) if self.greeted == Greeted::Helo => "SMTP",
            (false, false, false) => "ESMTP",
        };
        let id = match &self.phase {
            Phase::Delivering(delivery) => delivery.id,
            _ => MailId::new(),
        };
        let recipient = match self.transaction.as_ref().map(|transaction| &*transaction.recipients) {
            Some([only]) => Some(only.path.as_str()),
            _ => None,
        };
        let field = Received {
            helo: facts.helo.as_deref().unwrap_or("unknown"),
            client_name: facts.name.as_deref(),
            client_address: facts.address,
            by: &self.settings.hostname,
            with,
            id: id.as_str(),
            recipient,
            time: SystemTime::now(),
        };
        field.field()
    }

    pub(super) fn content_sent(&mut self) {
        // What came before the content was sent is no answer to it, and would be taken for one.
        let out_of_turn = !self.hop.input().is_empty();
        let lmtp = self.hop_is_lmtp();
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        delivery.handed_on = true;
        delivery.stage = Stage::Group;
        let Some(group) = &mut delivery.current else { return };
        group.sent = true;
        let accepted = group.accepted.clone();
        // RFC 2033 section 4.2: one reply for each accepted recipient, in order.
        if lmtp {
            for index in accepted {
                self.hop.await_also(Awaited::Final(vec![index]), self.now);
            }
        } else {
            self.hop.await_also(Awaited::Final(accepted), self.now);
        }
        if out_of_turn {
            self.hop_lost("the next hop spoke out of turn");
        }
    }

    pub(super) fn content_replied(&mut self, members: &[usize], reply: &PeerReply) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        let fate =
            if reply.is_positive() { Fate::Delivered(reply.clone()) } else { Fate::Answered(proper(reply.clone())) };
        delivery.set_fate(members, &fate);
        if !self.hop.is_awaiting() {
            self.hop.transaction_done();
            self.group_done();
        }
    }

    fn group_done(&mut self) {
        if let Phase::Delivering(delivery) = &mut self.phase {
            delivery.current = None;
            delivery.stage = Stage::Next;
        }
    }

    /// No connection for this group.
    pub(super) fn group_failed(&mut self, why: &'static str) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        if let Some(group) = delivery.current.take() {
            let left: Vec<usize> =
                group.members.iter().copied().filter(|&index| delivery.fates[index].is_none()).collect();
            delivery.set_fate(&left, &Fate::NotHandedOn(why));
        }
        // Without a next hop the other groups fare no better, and what waits longer is more likely sent twice.
        while let Some(group) = delivery.groups.pop_front() {
            delivery.set_fate(&group.members, &Fate::NotHandedOn(why));
        }
        delivery.stage = Stage::Next;
    }

    /// The connection broke before the content was sent whole: nobody can have it (RFC 5321 section
    /// 4.1.1.4), so once more on a new connection, but only once.
    pub(super) fn group_interrupted(&mut self, why: &'static str) {
        let again = !self.hop.auth_is_lost();
        let Some(group) = self.current_group() else { return };
        if group.retried || !again {
            return self.group_failed(why);
        }
        group.retried = true;
        group.accepted.clear();
        group.refused = None;
        self.want_group();
    }

    /// The connection broke after the content was sent whole and before all answers were here: who was
    /// not answered for may have the mail or not. Never "accepted".
    pub(super) fn content_unanswered(&mut self) {
        let Phase::Delivering(delivery) = &mut self.phase else { return };
        if let Some(group) = delivery.current.take() {
            let left: Vec<usize> =
                group.accepted.iter().copied().filter(|&index| delivery.fates[index].is_none()).collect();
            delivery.set_fate(&left, &Fate::Unknown);
        }
        delivery.stage = Stage::Next;
    }

    /// The mail is given up before it was handed on; there may be nobody to tell.
    pub(super) fn give_up(&mut self, why: &'static str) {
        self.hop.push_step(Step::Forget);
        let Some(transaction) = &self.transaction else { return };
        let recipients = transaction.addresses();
        let fates = vec![Fate::NotHandedOn(why); recipients.len()];
        let sender = transaction.sender_address();
        let origin = self.origin(&sender);
        let id = transaction.id;
        let started = match &self.phase {
            Phase::Delivering(delivery) => delivery.started,
            Phase::Data(incoming, _) | Phase::Chunk(incoming, ..) | Phase::BetweenChunks(incoming, _) => {
                incoming.started
            }
            _ => self.now,
        };
        let report = Report {
            id,
            origin: &origin,
            sender: &sender,
            recipients: &recipients,
            fates: &fates,
            size: 0,
            judged: None,
            took: self.now.duration_since(started),
        };
        (self.reports)(report);
        self.end_transaction();
    }

    /// Everything is decided: the client is answered, the log has its line, the next hop is let go.
    fn finish(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Command);
        let Phase::Delivering(delivery) = phase else {
            self.phase = phase;
            return;
        };
        let Some(transaction) = self.transaction.take() else { return };
        let fates = final_fates(&delivery);
        let one_answer = self.settings.protocol == Protocol::Smtp;
        if one_answer {
            self.answer_once(&delivery, &fates);
        } else {
            // One write for all: two would cost the peer a delayed acknowledgement.
            for fate in &fates {
                write_fate(&mut self.output, fate, delivery.id);
            }
        }
        let sender = transaction.sender_address();
        let origin = self.origin(&sender);
        let recipients = transaction.addresses();
        let report = Report {
            id: delivery.id,
            origin: &origin,
            sender: &sender,
            recipients: &recipients,
            fates: &fates,
            size: delivery.size,
            judged: delivery.judged.as_deref(),
            took: self.now.duration_since(delivery.started),
        };
        (self.reports)(report);
        self.waiting_since = self.now;
        self.end_transaction();
        if self.draining {
            self.drain();
        }
    }

    /// The single reply for all recipients. Accepted only if every recipient is accounted for; a
    /// temporary failure goes before a permanent one, since the mail is then tried again.
    fn answer_once(&mut self, delivery: &Delivery, fates: &[Fate]) {
        let temporary = fates.iter().find(|fate| fate.is_temporary());
        let permanent = || fates.iter().find(|fate| fate.is_permanent());
        let delivered = || fates.iter().find(|fate| matches!(fate, Fate::Delivered(_)));
        let kept = || fates.iter().find(|fate| matches!(fate, Fate::Discarded | Fate::Quarantined));
        let Some(fate) = temporary.or_else(permanent).or_else(delivered).or_else(kept) else {
            return self.say(451, (4, 3, 0), "Local problem, try again later");
        };
        write_fate(&mut self.output, fate, delivery.id);
    }

    fn stage(&mut self, stage: Stage) {
        if let Phase::Delivering(delivery) = &mut self.phase {
            delivery.stage = stage;
        }
    }

    /// The group under way is on its second connection.
    pub(super) fn is_second_try(&self) -> bool {
        match &self.phase {
            Phase::Delivering(delivery) => delivery.current.as_ref().is_some_and(|group| group.retried),
            _ => false,
        }
    }

    fn current_group(&mut self) -> Option<&mut Group> {
        match &mut self.phase {
            Phase::Delivering(delivery) => delivery.current.as_mut(),
            _ => None,
        }
    }
}

/// What became of each recipient: by the next hop, or by the verdict.
fn final_fates(delivery: &Delivery) -> Vec<Fate> {
    let refused_for_all = delivery.judged.as_ref().and_then(|judged| match &judged.fitted.answer {
        Answer::Refuse(disposition) => Some(disposition),
        _ => None,
    });
    let by_verdict = |index: usize| {
        let judged = delivery.judged.as_ref()?;
        let outcome = judged.fitted.outcomes.get(index)?;
        let disposition = refused_for_all.unwrap_or(&outcome.disposition);
        Some(match disposition {
            Disposition::Reject(rejection) => Fate::Rejected(rejection.clone()),
            Disposition::Defer(deferral) => Fate::Deferred(deferral.clone()),
            Disposition::Discard if outcome.quarantine => Fate::Quarantined,
            Disposition::Discard => Fate::Discarded,
            // `fit` turns a hold into something that this way can do.
            Disposition::Deliver | Disposition::Hold(_) => return None,
        })
    };
    let fates = delivery.fates.iter().enumerate();
    fates
        .map(|(index, fate)| fate.clone().or_else(|| by_verdict(index)).unwrap_or(Fate::NotHandedOn("never tried")))
        .collect()
}

fn write_fate(out: &mut BytesMut, fate: &Fate, id: MailId) {
    match fate {
        Fate::Delivered(reply) | Fate::Answered(reply) => reply.write_to(out),
        Fate::Rejected(rejection) => write_own(out, rejection),
        Fate::Deferred(deferral) => {
            let reply = deferral.reply();
            write_reply(out, reply.code(), Some(reply.enhanced()), reply.text());
        }
        Fate::Discarded | Fate::Quarantined | Fate::Passed | Fate::Held(_) => {
            write_reply(out, 250, Some((2, 0, 0)), &format!("Ok: taken as {id}"));
        }
        Fate::NotHandedOn(_) | Fate::Unknown => {
            let reply = Deferral::lossy(4, 1, "Next mail server does not answer, try again later");
            let reply = reply.reply();
            write_reply(out, reply.code(), Some(reply.enhanced()), reply.text());
        }
    }
}

fn write_own(out: &mut BytesMut, rejection: &Rejection) {
    let reply = rejection.reply();
    write_reply(out, reply.code(), Some(reply.enhanced()), reply.text());
}

fn refusal(code: u16, (class, subject, detail): (u8, u16, u16), text: &str) -> PeerReply {
    PeerReply::new(code, &format!("{class}.{subject}.{detail} {text}"))
}

/// 4xx and 5xx go on as they are; anything else where a refusal or "accepted" must be is no answer. 421
/// would say that we close.
pub(super) fn proper(mut reply: PeerReply) -> PeerReply {
    if reply.code == 421 {
        reply.code = 451;
    }
    if reply.is_transient() || reply.is_permanent() {
        reply
    } else {
        refusal(451, (4, 3, 0), "Next mail server gave no proper answer, try again later")
    }
}
