//! The next hop's side: getting a connection ready, relaying commands, and what its replies mean.
//! The connection itself is in `link.rs`, whole mails are in `delivery.rs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use checkpost_adapter::{Side, Step};
use checkpost_wire::smtp::extensions::Extensions;
use checkpost_wire::smtp::reply::PeerReply;

use super::delivery::proper;
use super::link::{Awaited, Goal, Link, Note};
use super::transaction::{Recipient, Transaction};
use super::{Phase, Proxy};
use crate::route::{Hop, HopTls, Protocol, RouteIndex};

impl Proxy {
    /// A connection is wanted. When there is one for this route, the goal is gone for at once.
    pub(super) fn want(&mut self, goal: Goal, route: RouteIndex) {
        if matches!(goal, Goal::Greet | Goal::Auth { .. }) {
            self.phase = Phase::Waiting;
        }
        // A second kept connection may be as dead as the first was.
        let fresh = matches!(goal, Goal::Auth { .. }) || self.is_second_try();
        self.hop.goal = Some(goal);
        if self.hop.link == Link::Ready && self.hop.route == Some(route) && !fresh {
            return self.hop_ready();
        }
        self.let_go_of_hop();
        self.hop.route = Some(route);
        self.hop.attempt = 0;
        self.connect_hop(!fresh);
    }

    pub(super) fn let_go_of_hop(&mut self) {
        if self.hop.link != Link::Down {
            let step = self.hop.close_or(Step::DropHop);
            self.hop.push_step(step);
        }
        // Only a RSET can be left, and a connection that is dropped forgets all by itself.
        self.hop.awaited.clear();
        self.hop.held.clear();
        self.hop.reset_link();
        self.hop.bound = false;
    }

    fn connect_hop(&mut self, reuse: bool) {
        let Some(hop) = self.current_hop() else { return self.goal_failed("no next hop") };
        let auth = matches!(self.hop.goal, Some(Goal::Auth { .. }));
        let reuse = reuse && !self.settings.xclient && !auth;
        match hop.target(self.facts_for_callback(), reuse) {
            Some(target) => {
                self.hop.link = Link::Preparing;
                self.hop.tls = target.implicit_tls;
                self.hop.push_step(Step::Connect(Box::new(target)));
            }
            None => self.hop_unreachable("a client without an address cannot be called back"),
        }
    }

    fn current_hop(&self) -> Option<&Hop> {
        self.settings.router.hops(self.hop.route?).get(self.hop.attempt)
    }

    pub(super) fn hop_is_lmtp(&self) -> bool {
        self.current_hop().is_some_and(|hop| hop.protocol == Protocol::Lmtp)
    }

    pub(super) fn hop_connected(&mut self, kept: Option<Note>) {
        match kept.map(Arc::downcast::<Extensions>) {
            Some(Ok(extensions)) => {
                self.hop.extensions = extensions;
                self.hop.unproved = true;
                self.hop_ready();
            }
            _ => {
                self.hop.extensions = Arc::default();
                self.hop.await_also(Awaited::Banner, self.now);
            }
        }
    }

    /// This one cannot be reached or does not want us: the route's next one, or the goal fails.
    pub(super) fn hop_unreachable(&mut self, why: &str) {
        let place = self.current_hop().map(|hop| format!("{:?}", hop.place)).unwrap_or_default();
        tracing::warn!(way = %self.settings.name, hop = place, why, "next hop not reached");
        self.hop.reset_link();
        self.hop.attempt += 1;
        if self.current_hop().is_some() {
            self.connect_hop(true);
        } else {
            self.hop.attempt = 0;
            self.goal_failed("next hop not reached");
        }
    }

    pub(super) fn hop_secured(&mut self) {
        self.hop.input.clear();
        self.hop.tls = true;
        self.hop.tls_broken = None;
        self.say_hello_to_hop();
    }

    fn say_hello_to_hop(&mut self) {
        let word = if self.hop_is_lmtp() { "LHLO" } else { "EHLO" };
        let line = format!("{word} {}\r\n", self.settings.hostname);
        self.hop.send(line.into(), Awaited::Hello, self.now);
    }

    /// Replies that are here; else bytes from the next hop are needed.
    pub(super) fn advance_hop(&mut self) -> Option<Step> {
        self.hop.release_held(self.now);
        while let Some(Awaited::Say(_)) = self.hop.awaited.front() {
            if let Some(Awaited::Say(text)) = self.hop.awaited.pop_front() {
                self.output.extend_from_slice(&text);
            }
            self.hop.release_held(self.now);
        }
        if self.hop.awaited.is_empty() {
            return None;
        }
        if self.hop.is_relaying_recipients() && self.read_more_recipients() {
            return None;
        }
        match self.hop.parser.push(&mut self.hop.input) {
            // RFC 5321 section 3.8: it closes now. Nothing was done, so it is as if it had closed without a
            // word; only behind a content it is an answer.
            Ok(Some(reply)) if reply.code == 421 && !matches!(self.hop.awaited.front(), Some(Awaited::Final(_))) => {
                tracing::info!(way = %self.settings.name, reply = reply.text(), "next hop says goodbye");
                self.hop_lost("the next hop closes the connection");
                None
            }
            Ok(Some(reply)) => {
                self.hop.unproved = false;
                self.hop.since = Some(self.now);
                if let Some(awaited) = self.hop.awaited.pop_front() {
                    self.hop_replied(awaited, reply);
                }
                None
            }
            Ok(None) => {
                let limit = match self.hop.awaited.front() {
                    Some(Awaited::Final(_)) => self.settings.hop_final_timeout,
                    // Nobody's mail depends on it, but the client's next command waits for it.
                    Some(Awaited::Rset) => self.settings.hop_timeout.min(Duration::from_secs(10)),
                    _ => self.settings.hop_timeout,
                };
                let until = self.hop.since.unwrap_or(self.now) + limit;
                Some(Step::Read { side: Side::Hop, until, appetite: 2 << 10 })
            }
            Err(error) => {
                tracing::warn!(way = %self.settings.name, %error, "the next hop does not speak the protocol");
                self.hop_lost("the next hop does not speak the protocol");
                None
            }
        }
    }

    fn hop_replied(&mut self, awaited: Awaited, reply: PeerReply) {
        match awaited {
            Awaited::Say(_) => {}
            Awaited::Banner if reply.code == 220 => self.say_hello_to_hop(),
            Awaited::Hello if reply.class() == 2 => {
                self.hop.extensions = Arc::new(Extensions::parse(&reply));
                self.hop_greeted();
            }
            // Not extended: HELO, and no extensions. There is no such thing in LMTP.
            Awaited::Hello if reply.class() == 5 && !self.hop_is_lmtp() => {
                let line = format!("HELO {}\r\n", self.settings.hostname);
                self.hop.send(line.into(), Awaited::PlainHello, self.now);
            }
            Awaited::PlainHello if reply.class() == 2 => self.hop_greeted(),
            Awaited::StartTls if reply.code == 220 => {
                self.hop.input.clear();
                // True until it has come about.
                self.hop.tls_broken = self.hop.route.map(|route| (route, self.hop.attempt));
                self.hop.push_step(Step::StartTls(Side::Hop));
            }
            Awaited::StartTls if self.current_hop().is_some_and(|hop| hop.tls == HopTls::Opportunistic) => {
                self.hop_greeted_finally();
            }
            Awaited::Xclient if reply.code == 220 => self.say_hello_to_hop(),
            // Not taken: the mail is checked and handed on all the same, only the hop knows less.
            Awaited::Xclient => {
                tracing::warn!(way = %self.settings.name, reply = reply.text(), "XCLIENT refused");
                self.hop_greeted_finally();
            }
            Awaited::Banner | Awaited::Hello | Awaited::PlainHello | Awaited::StartTls => {
                self.hop.push_step(Step::DropHop);
                self.hop_unreachable(&format!("{} {}", reply.code, reply.text()));
            }
            Awaited::Auth => self.auth_replied(&reply),
            // Only for the next hop's log.
            Awaited::Xforward => {}
            Awaited::Rset => {
                if reply.class() != 2 {
                    self.hop_lost("RSET was refused");
                } else if self.transaction.is_none() && !self.hop.bound {
                    self.keep_hop();
                }
            }
            Awaited::Mail => {
                if reply.class() != 2
                    && let Some(transaction) = &mut self.transaction
                {
                    self.hop.mail_sent = false;
                    transaction.refused = Some(proper(reply));
                }
            }
            Awaited::Rcpt(recipient) => self.recipient_replied(recipient, reply),
            Awaited::GroupMail => self.group_sender_replied(reply),
            Awaited::GroupRcpt(index) => self.group_recipient_replied(index, reply),
            Awaited::Data => self.data_replied(reply),
            Awaited::Final(members) => self.content_replied(&members, &reply),
        }
    }

    fn hop_greeted(&mut self) {
        let Some(hop) = self.current_hop() else { return };
        let tls = hop.tls;
        let broken = self.hop.route.is_some_and(|route| self.hop.tls_broken == Some((route, self.hop.attempt)));
        if broken && tls == HopTls::Opportunistic {
            return self.hop_greeted_finally();
        }
        if !self.hop.tls && matches!(tls, HopTls::Opportunistic | HopTls::Starttls) {
            if self.hop.extensions.starttls {
                self.hop.send(Bytes::from_static(b"STARTTLS\r\n"), Awaited::StartTls, self.now);
                return;
            }
            if tls == HopTls::Starttls {
                self.hop.push_step(Step::DropHop);
                return self.hop_unreachable("STARTTLS is needed and not offered");
            }
        }
        self.hop_greeted_finally();
    }

    fn hop_greeted_finally(&mut self) {
        if self.settings.xclient && !self.hop.xclient_sent && !self.hop.extensions.xclient.is_empty() {
            self.hop.xclient_sent = true;
            self.hop.bound = true;
            let commands = self.client.attributes().commands("XCLIENT", self.hop.extensions.xclient);
            // One command: a second one is not taken any more once ADDR has changed (XCLIENT_README).
            if let Some(command) = commands.into_iter().next() {
                self.hop.send(command.into(), Awaited::Xclient, self.now);
                return;
            }
        }
        self.hop_ready();
    }

    /// The connection can be used for what it is wanted for.
    fn hop_ready(&mut self) {
        self.hop.link = Link::Ready;
        match self.hop.goal.take() {
            None => {}
            Some(Goal::Greet) => {
                let extensions = Arc::clone(&self.hop.extensions);
                self.answer_hello(Some(&extensions));
                if !self.hop.bound {
                    // A client that takes its time holds no connection of the next hop.
                    self.keep_hop();
                }
            }
            Some(Goal::Auth { line, mechanism }) => {
                self.hop.bound = true;
                self.hop.authenticating = Some(mechanism);
                self.hop.claimed = None;
                // AUTH, mechanism, initial response (RFC 4954 section 4).
                if let Some(initial) = line.split(|octet| *octet == b' ').filter(|word| !word.is_empty()).nth(2) {
                    self.note_claim(initial);
                }
                let mut command = BytesMut::from(&line[..]);
                command.extend_from_slice(b"\r\n");
                self.hop.send(command.freeze(), Awaited::Auth, self.now);
            }
            Some(Goal::Recipients(entries)) => {
                for entry in entries {
                    match entry {
                        Awaited::Rcpt(recipient) => self.send_recipient(recipient),
                        Awaited::Say(text) => self.hop.say_after(text),
                        _ => {}
                    }
                }
            }
            Some(Goal::Group) => self.open_group(),
        }
    }

    /// What it was wanted for cannot be had now.
    fn goal_failed(&mut self, why: &'static str) {
        match self.hop.goal.take() {
            None => {}
            Some(Goal::Greet) => self.answer_hello(None),
            Some(Goal::Auth { .. }) => {
                self.phase = Phase::Command;
                self.say(454, (4, 7, 0), "Temporary authentication failure");
            }
            Some(Goal::Recipients(entries)) => self.recipients_failed(entries),
            Some(Goal::Group) => self.group_failed(why),
        }
    }

    fn recipients_failed(&mut self, entries: impl IntoIterator<Item = Awaited>) {
        for entry in entries {
            match entry {
                Awaited::Rcpt(_) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.pending -= 1;
                    }
                    self.say(451, (4, 4, 1), "Next mail server does not answer, try again later");
                }
                Awaited::Say(text) => self.output.extend_from_slice(&text),
                _ => {}
            }
        }
    }

    /// Asks the next hop about a recipient.
    pub(super) fn relay_recipient(&mut self, recipient: Recipient, route: RouteIndex) {
        if self.hop.link == Link::Ready && self.hop.route == Some(route) {
            self.send_recipient(recipient);
        } else {
            self.want(Goal::Recipients(vec![Awaited::Rcpt(recipient)]), route);
        }
    }

    fn send_recipient(&mut self, recipient: Recipient) {
        let Some(transaction) = self.transaction.take() else { return };
        if needs_smtputf8(&transaction, &recipient) && !self.hop.extensions.smtputf8 {
            self.transaction = Some(transaction);
            if let Some(transaction) = &mut self.transaction {
                transaction.pending -= 1;
            }
            let mut text = BytesMut::new();
            let refusal = "Next mail server does not take internationalised mail";
            checkpost_wire::smtp::reply::write_reply(&mut text, 550, Some((5, 6, 7)), refusal);
            self.hop.say_after(text.freeze());
            return;
        }
        if !self.hop.mail_sent {
            self.send_sender(&transaction, Awaited::Mail);
        }
        let command = rcpt_command(&recipient, self.hop.extensions());
        self.hop.send(command, Awaited::Rcpt(recipient), self.now);
        self.transaction = Some(transaction);
    }

    /// XFORWARD where it is offered, and MAIL.
    pub(super) fn send_sender(&mut self, transaction: &Transaction, awaited: Awaited) {
        if self.settings.xforward && !self.hop.extensions.xforward.is_empty() {
            for command in self.facts().attributes().commands("XFORWARD", self.hop.extensions.xforward) {
                self.hop.send(command.into(), Awaited::Xforward, self.now);
            }
        }
        let command = mail_command(transaction, self.hop.extensions());
        self.hop.send(command, awaited, self.now);
        self.hop.mail_sent = true;
        self.hop.accepted = 0;
    }

    pub(super) fn send_group_recipient(&mut self, index: usize, recipient: &Recipient) {
        let command = rcpt_command(recipient, self.hop.extensions());
        self.hop.send(command, Awaited::GroupRcpt(index), self.now);
    }

    fn recipient_replied(&mut self, recipient: Recipient, reply: PeerReply) {
        let Some(transaction) = &mut self.transaction else { return };
        transaction.pending -= 1;
        let reply = transaction.refused.clone().unwrap_or(reply);
        // 251 means accepted as well (RFC 5321 section 3.4); anything odd is not.
        if reply.class() == 2 {
            transaction.recipients.push(recipient);
            self.hop.accepted += 1;
            reply.write_to(&mut self.output);
        } else if matches!(reply.class(), 4 | 5) {
            reply.write_to(&mut self.output);
        } else {
            self.say(451, (4, 3, 0), "Next mail server gave no proper answer, try again later");
        }
        self.waiting_since = self.now;
    }

    /// The connection broke, or its time is over.
    pub(super) fn hop_lost(&mut self, why: &'static str) {
        let again = self.hop.unproved;
        let preparing = self.hop.link == Link::Preparing;
        let mut awaited: Vec<Awaited> = self.hop.awaited.drain(..).collect();
        awaited.extend(self.hop.held.drain(..).map(|(_, awaited)| awaited));
        let shaking_hands = preparing && awaited.is_empty() && self.hop.tls_broken.is_some();
        if self.hop.authenticated {
            // The client must come and authenticate anew: on another connection the next hop would take
            // its mail for a stranger's and refuse it for good.
            self.hop.auth_lost = true;
            self.draining = true;
        }
        self.hop.push_step(Step::DropHop);
        self.hop.reset_link();
        if shaking_hands && self.current_hop().is_some_and(|hop| hop.tls == HopTls::Opportunistic) {
            tracing::warn!(way = %self.settings.name, "no TLS with the next hop, so without");
            return self.connect_hop(false);
        }
        if preparing {
            return self.hop_unreachable(why);
        }
        self.hop.bound = false;
        let first = awaited.iter().find(|awaited| !matches!(awaited, Awaited::Say(_) | Awaited::Xforward));
        match first {
            Some(Awaited::Mail | Awaited::Rcpt(_)) => {
                if again && let Some(route) = self.hop.route {
                    // A kept connection that had died: nothing was answered on it, so ask on a new one.
                    awaited.retain(|awaited| matches!(awaited, Awaited::Rcpt(_) | Awaited::Say(_)));
                    self.hop.goal = Some(Goal::Recipients(awaited));
                    self.hop.route = Some(route);
                    self.connect_hop(false);
                } else {
                    tracing::warn!(way = %self.settings.name, why, "next hop lost");
                    self.recipients_failed(awaited);
                }
            }
            Some(Awaited::Auth) => {
                self.phase = Phase::Command;
                self.say(454, (4, 7, 0), "Temporary authentication failure");
            }
            Some(Awaited::Final(_)) => self.content_unanswered(),
            _ => {
                if matches!(self.phase, Phase::Delivering(_)) {
                    self.group_interrupted(why);
                }
            }
        }
    }

    /// Gives the connection back: it is between two mails. While it owes an answer (to RSET), it is
    /// not: then that answer gives it back.
    pub(super) fn keep_hop(&mut self) {
        if self.hop.link == Link::Ready && !self.hop.bound && !self.hop.is_awaiting() {
            let note: Note = Arc::clone(&self.hop.extensions) as Note;
            self.hop.push_step(Step::KeepHop(note));
            let extensions = Arc::clone(&self.hop.extensions);
            self.hop.reset_link();
            self.hop.extensions = extensions;
        }
    }

    /// No mail is under way any more; the next hop is told so where it has begun one.
    pub(super) fn end_transaction(&mut self) {
        self.transaction = None;
        self.forwarded = None;
        self.hop.goal = None;
        if self.hop.link != Link::Ready {
            return;
        }
        if self.hop.mail_sent {
            self.hop.mail_sent = false;
            self.hop.accepted = 0;
            self.hop.send(Bytes::from_static(b"RSET\r\n"), Awaited::Rset, self.now);
        } else {
            self.keep_hop();
        }
    }

    pub(super) fn relay_auth_line(&mut self, line: &[u8]) {
        self.note_claim(line);
        let mut command = BytesMut::from(line);
        command.extend_from_slice(b"\r\n");
        self.phase = Phase::Waiting;
        self.hop.send(command.freeze(), Awaited::Auth, self.now);
    }

    /// Reads the user out of a line of the exchange, where the mechanism shows it.
    fn note_claim(&mut self, line: &[u8]) {
        match self.hop.authenticating.as_deref() {
            Some("LOGIN") if self.hop.claimed.is_none() => self.hop.claimed = decode_base64(line).map(Into::into),
            Some("PLAIN") => self.hop.claimed = plain_user(line),
            _ => {}
        }
    }

    fn auth_replied(&mut self, reply: &PeerReply) {
        self.waiting_since = self.now;
        if reply.code == 334 {
            reply.write_to(&mut self.output);
            self.phase = Phase::AuthLine;
            return;
        }
        let reply = if reply.class() == 2 { reply.clone() } else { proper(reply.clone()) };
        reply.write_to(&mut self.output);
        self.phase = Phase::Command;
        if reply.class() == 2 {
            // Who it is could not be read from every mechanism, but that it is somebody is known.
            self.hop.authenticated = true;
            self.client.user = Some(self.hop.claimed.take().unwrap_or_else(|| "authenticated".into()));
        }
        self.hop.claimed = None;
        self.hop.authenticating = None;
    }
}

/// Only SMTPUTF8 can carry it: addresses, or header fields, which the client says by the parameter
/// (RFC 6531 section 3.4: never to a server without it).
fn needs_smtputf8(transaction: &Transaction, recipient: &Recipient) -> bool {
    transaction.params.smtputf8() || !transaction.sender.as_str().is_ascii() || !recipient.path.as_str().is_ascii()
}

/// Room for what we may add to a mail, in the SIZE that we declare.
const SLACK: u64 = 4096;

fn mail_command(transaction: &Transaction, extensions: &Extensions) -> Bytes {
    let mut line = BytesMut::from(&b"MAIL FROM:<"[..]);
    line.extend_from_slice(transaction.sender.as_str().as_bytes());
    line.extend_from_slice(b">");
    if let Some(size) = transaction.params.size()
        && extensions.size.is_some()
    {
        line.extend_from_slice(format!(" SIZE={}", size.saturating_add(SLACK)).as_bytes());
    }
    transaction.params.write_to(&mut line, |keyword, value| {
        !keyword.eq_ignore_ascii_case("SIZE") && extensions.allows(keyword, value, true)
    });
    line.extend_from_slice(b"\r\n");
    line.freeze()
}

fn rcpt_command(recipient: &Recipient, extensions: &Extensions) -> Bytes {
    let mut line = BytesMut::from(&b"RCPT TO:<"[..]);
    line.extend_from_slice(recipient.path.as_str().as_bytes());
    line.extend_from_slice(b">");
    recipient.params.write_to(&mut line, |keyword, value| extensions.allows(keyword, value, false));
    line.extend_from_slice(b"\r\n");
    line.freeze()
}

/// The user in SASL PLAIN's `authzid NUL authcid NUL password` (RFC 4616).
pub(super) fn plain_user(line: &[u8]) -> Option<Box<str>> {
    let decoded = decode_base64(line)?;
    decoded.split('\0').nth(1).filter(|user| !user.is_empty()).map(Into::into)
}

fn decode_base64(line: &[u8]) -> Option<String> {
    let decoded = base64_simd::STANDARD.decode_to_vec(line).ok()?;
    String::from_utf8(decoded).ok().filter(|text| text.len() <= 255)
}
