//! The connection to the next hop as a session holds it: buffers, replies owed, what was offered.
//! What is said on it and why is in `hop.rs`.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use checkpost_adapter::Step;
use checkpost_wire::smtp::{Extensions, ReplyParser};

use super::transaction::Recipient;
use crate::route::RouteIndex;

/// What is kept with a connection between two sessions: its [`Extensions`].
pub(super) type Note = Arc<dyn Any + Send + Sync>;

/// A reply that the next hop owes, and what it is for.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Nothing: this is for the client, in its turn.
    Say(Bytes),
    /// The greeting.
    Banner,
    /// EHLO or LHLO.
    Hello,
    /// HELO, after EHLO was refused.
    PlainHello,
    StartTls,
    Xclient,
    Auth,
    Xforward,
    Mail,
    Rcpt(Recipient),
    Rset,
    /// MAIL and RCPT (with the recipient's index) of a transaction of `delivery.rs`.
    GroupMail,
    GroupRcpt(usize),
    Data,
    /// The answer to a content, for these recipients.
    Final(Vec<usize>),
}

/// What a connection is wanted for.
#[derive(Debug)]
pub(super) enum Goal {
    /// The client's EHLO must be answered.
    Greet,
    /// The client authenticates: its AUTH line.
    Auth { line: Bytes, mechanism: Box<str> },
    /// These recipients are to be asked about; replies of our own stand between them in order.
    Recipients(Vec<Awaited>),
    /// A group of recipients gets the mail.
    Group,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Down,
    Preparing,
    Ready,
}

/// The next hop's side of a session.
pub(super) struct HopState {
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    pub(super) parser: ReplyParser,
    pub(super) link: Link,
    pub(super) steps: VecDeque<Step>,
    pub(super) awaited: VecDeque<Awaited>,
    /// For a next hop without PIPELINING: what is sent once it has answered.
    pub(super) held: VecDeque<(Bytes, Awaited)>,
    pub(super) extensions: Arc<Extensions>,
    pub(super) goal: Option<Goal>,
    pub(super) route: Option<RouteIndex>,
    /// Which of the route's hops.
    pub(super) attempt: usize,
    pub(super) tls: bool,
    pub(super) xclient_sent: bool,
    /// Used before, and not heard since: it may have died meanwhile.
    pub(super) unproved: bool,
    /// Belongs to this client alone: AUTH or XCLIENT was spoken on it.
    pub(super) bound: bool,
    pub(super) authenticating: Option<Box<str>>,
    /// Whom the client claims to be; true once the next hop says so.
    pub(super) claimed: Option<Box<str>>,
    /// AUTH succeeded on this connection.
    pub(super) authenticated: bool,
    /// A connection on which AUTH had succeeded is gone.
    pub(super) auth_lost: bool,
    /// This hop offers TLS, and it did not come about.
    pub(super) tls_broken: Option<(RouteIndex, usize)>,
    pub(super) since: Option<Instant>,
    /// MAIL was sent and not undone.
    pub(super) mail_sent: bool,
    /// Recipients accepted since then.
    pub(super) accepted: usize,
}

impl Default for HopState {
    fn default() -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            parser: ReplyParser::default(),
            link: Link::Down,
            steps: VecDeque::new(),
            awaited: VecDeque::new(),
            held: VecDeque::new(),
            extensions: Arc::default(),
            goal: None,
            route: None,
            attempt: 0,
            tls: false,
            xclient_sent: false,
            unproved: false,
            bound: false,
            authenticating: None,
            claimed: None,
            authenticated: false,
            auth_lost: false,
            tls_broken: None,
            since: None,
            mail_sent: false,
            accepted: 0,
        }
    }
}

impl HopState {
    pub(super) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    pub(super) fn take_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    pub(super) fn push_step(&mut self, step: Step) {
        self.steps.push_back(step);
    }

    pub(super) fn is_awaiting(&self) -> bool {
        !self.awaited.is_empty() || !self.held.is_empty()
    }

    /// A reply of our own, behind those that are awaited.
    pub(super) fn say_after(&mut self, text: Bytes) {
        if self.held.is_empty() {
            self.awaited.push_back(Awaited::Say(text));
        } else {
            self.held.push_back((Bytes::new(), Awaited::Say(text)));
        }
    }

    /// The size limit of the next hop last spoken to.
    pub(super) fn known_size_limit(&self) -> Option<u64> {
        self.extensions.size.filter(|size| *size > 0)
    }

    /// A connection that belongs to this client fixes the route.
    pub(super) fn bound_route(&self) -> Option<RouteIndex> {
        if self.bound { self.route } else { None }
    }

    /// Nobody can authenticate in the client's stead.
    pub(super) fn auth_is_lost(&self) -> bool {
        self.auth_lost
    }

    pub(super) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Exactly so many recipients stand in the open transaction, and the connection is up.
    pub(super) fn has_open(&self, recipients: usize) -> bool {
        self.link == Link::Ready && self.mail_sent && self.accepted == recipients
    }

    /// A transaction is open at the next hop, of whatever recipients.
    pub(super) fn mail_is_sent(&self) -> bool {
        self.mail_sent
    }

    /// The last content was answered: the next hop is between two mails.
    pub(super) fn transaction_done(&mut self) {
        self.mail_sent = false;
        self.accepted = 0;
    }

    /// Before the end: what must happen with the connection.
    pub(super) fn close_or(&mut self, end: Step) -> Step {
        if self.link == Link::Down {
            return end;
        }
        self.link = Link::Down;
        if self.mail_sent || self.bound || self.is_awaiting() {
            Step::DropHop
        } else {
            Step::KeepHop(Arc::clone(&self.extensions) as Note)
        }
    }

    /// Sends a command, or holds it until the next hop has answered the one before.
    pub(super) fn send(&mut self, command: Bytes, awaited: Awaited, now: Instant) {
        if self.awaited.is_empty() && self.held.is_empty() || self.extensions.pipelining && self.held.is_empty() {
            self.output.extend_from_slice(&command);
            self.awaited.push_back(awaited);
            self.since = Some(now);
        } else {
            self.held.push_back((command, awaited));
        }
    }

    pub(super) fn await_also(&mut self, awaited: Awaited, now: Instant) {
        self.awaited.push_back(awaited);
        self.since = Some(now);
    }

    pub(super) fn release_held(&mut self, now: Instant) {
        while self.awaited.is_empty() {
            let Some((command, awaited)) = self.held.pop_front() else { return };
            self.output.extend_from_slice(&command);
            self.awaited.push_back(awaited);
            self.since = Some(now);
        }
    }

    pub(super) fn reset_link(&mut self) {
        self.input.clear();
        self.output.clear();
        self.parser = ReplyParser::default();
        self.link = Link::Down;
        self.tls = false;
        self.xclient_sent = false;
        self.unproved = false;
        self.authenticated = false;
        self.mail_sent = false;
        self.accepted = 0;
    }

    pub(super) fn is_relaying_recipients(&self) -> bool {
        self.link == Link::Ready
            && self.extensions.pipelining
            && self.held.is_empty()
            && self.awaited.iter().all(|awaited| {
                matches!(awaited, Awaited::Xforward | Awaited::Mail | Awaited::Rcpt(_) | Awaited::Say(_))
            })
    }
}
