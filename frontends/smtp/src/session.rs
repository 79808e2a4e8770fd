//! The proxy's session: SMTP or LMTP with a client on one side, with the next hop on the other,
//! and one mail at a time in between. No I/O.
//!
//! The client's side is a `Phase`; the next hop's side is a queue of replies that are awaited
//! (`link::Awaited`). What the client asked that the next hop must answer waits there, so replies
//! go back in order whatever was pipelined. We own no mail: the client hears 250 for a content only
//! after the next hop said so.

mod client;
mod delivery;
mod hop;
mod link;
mod transaction;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use checkpost_adapter::{Answer, Session, Side, Step};
use checkpost_core::Origin;
use checkpost_core::config::Origins;
use checkpost_wire::smtp::{Attribute, Attributes, BareNewline, BdatDecoder, DataDecoder, Lines};

use crate::config::Settings;
use checkpost_adapter::report::Report;
use link::HopState;
use transaction::Transaction;

/// RFC 5321 section 4.5.3.1.4 says 512 octets for a command, and extensions add to it; a line of an
/// AUTH exchange may have 12288 (RFC 4954 section 4).
const MAX_COMMAND: usize = 12_288;

/// What a session needs to know of its connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address; `None` over a Unix socket.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// Is TLS up already?
    pub tls: bool,
    /// Refuse the whole session: too many are under way, for example. The text of a 421.
    pub refuse: Option<&'static str>,
    /// Refuse mails for now: the spool's disk is low, for example. The text of a 452.
    pub pressed: Option<&'static str>,
}

/// One connection through the proxy.
pub struct Proxy {
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    /// Where replies about mails go: the closing log lines.
    reports: Box<dyn FnMut(Report<'_>) + Send>,
    input: BytesMut,
    output: BytesMut,
    phase: Phase,
    peer: Peer,
    trusted: bool,
    /// What is known of the client: by the connection, by PROXY, XCLIENT or XFORWARD.
    client: ClientFacts,
    /// By XFORWARD, for the next mail only (Postfix's XFORWARD_README).
    forwarded: Option<ClientFacts>,
    greeted: Greeted,
    tls: bool,
    errors: u32,
    draining: bool,
    lines: Lines,
    transaction: Option<Transaction>,
    hop: HopState,
    /// The time of the last [`Session::step`] or [`Session::resolve`].
    now: Instant,
    /// Since when the client is expected to say something.
    waiting_since: Instant,
}

/// What is known of the sending client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ClientFacts {
    address: Option<IpAddr>,
    port: Option<u16>,
    name: Option<Box<str>>,
    helo: Option<Box<str>>,
    user: Option<Box<str>>,
    protocol: Option<Box<str>>,
    queue_id: Option<Box<str>>,
    /// From the MTA's own host (XFORWARD SOURCE=LOCAL).
    local: bool,
}

impl ClientFacts {
    /// What XCLIENT or XFORWARD says replaces what was known; the rest stays.
    fn learn(&mut self, attributes: &Attributes) {
        for (attribute, _) in attributes.iter() {
            let text = || attributes.text(attribute).map(|text| Box::from(&*text));
            match attribute {
                Attribute::Name => self.name = text(),
                Attribute::Addr => self.address = attributes.address(),
                Attribute::Port => self.port = attributes.port(),
                Attribute::Helo => self.helo = text(),
                Attribute::Proto => self.protocol = text(),
                Attribute::Ident => self.queue_id = text(),
                Attribute::Login => self.user = text(),
                Attribute::Source => self.local = text().is_some_and(|source| source.eq_ignore_ascii_case("LOCAL")),
                Attribute::DestAddr | Attribute::DestPort | Attribute::ReverseName => {}
            }
        }
    }

    /// What the next hop may be told, as far as it is known.
    fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::new();
        let port = self.port.map(|port| port.to_string());
        attributes.set(Attribute::Name, self.name.as_deref());
        match self.address {
            Some(address) => attributes.set_address(Attribute::Addr, address),
            None => attributes.set(Attribute::Addr, None),
        }
        attributes.set(Attribute::Port, port.as_deref());
        attributes.set(Attribute::Proto, Some(self.protocol.as_deref().unwrap_or("ESMTP")));
        attributes.set(Attribute::Helo, self.helo.as_deref());
        attributes.set(Attribute::Ident, self.queue_id.as_deref());
        attributes.set(Attribute::Source, Some(if self.local { "LOCAL" } else { "REMOTE" }));
        attributes.set(Attribute::Login, self.user.as_deref());
        attributes
    }
}

/// Did the client introduce itself, and how?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeted {
    No,
    Helo,
    Extended,
}

/// What the client's side is doing.
enum Phase {
    /// A PROXY header must come first.
    ProxyHeader,
    /// The greeting is to be sent.
    Start,
    /// A command is expected.
    Command,
    /// A line of an AUTH exchange is expected.
    AuthLine,
    /// The next hop must answer before the client is heard again.
    Waiting,
    /// Content by DATA.
    Data(Box<Incoming>, DataDecoder),
    /// Within a BDAT chunk.
    Chunk(Box<Incoming>, BdatDecoder),
    /// Between two BDAT chunks.
    BetweenChunks(Box<Incoming>, BdatDecoder),
    /// In a chunk that was refused: so many octets are read and thrown away.
    SkipChunk(u64),
    /// A mail is being judged or handed on.
    Delivering(Box<delivery::Delivery>),
    /// TLS begins.
    StartTls,
    /// All is said.
    Closing,
}

/// A content on its way in.
struct Incoming {
    body: BytesMut,
    /// The header section, parsed once its end is here.
    header: Option<checkpost_core::content::header::Header>,
    /// Octets given to the driver's spool.
    stored: u64,
    started: Instant,
    received: u64,
    fault: Option<Fault>,
    bare: BareNewline,
    by_chunks: bool,
    storing: bool,
}

/// Why a content that was read to its end is not taken.
#[derive(Debug, Clone)]
enum Fault {
    BareNewline,
    TooLarge,
    Spool,
}

impl Proxy {
    /// A session that begins now. `reports` gets the closing report of each mail.
    pub fn new(
        settings: Arc<Settings>,
        origins: Arc<Origins>,
        peer: Peer,
        now: Instant,
        reports: Box<dyn FnMut(Report<'_>) + Send>,
    ) -> Self {
        let trusted = peer.address.is_none() || Settings::in_networks(&settings.trusted, peer.address);
        let phase = if settings.proxy_protocol && trusted { Phase::ProxyHeader } else { Phase::Start };
        let client = ClientFacts { address: peer.address, port: peer.port, ..ClientFacts::default() };
        Self {
            settings,
            origins,
            reports,
            input: BytesMut::new(),
            output: BytesMut::new(),
            phase,
            tls: peer.tls,
            peer,
            trusted,
            client,
            forwarded: None,
            greeted: Greeted::No,
            errors: 0,
            draining: false,
            lines: Lines::new(MAX_COMMAND),
            transaction: None,
            hop: HopState::default(),
            now,
            waiting_since: now,
        }
    }

    /// The facts that count for the mail under way.
    fn facts(&self) -> &ClientFacts {
        self.forwarded.as_ref().unwrap_or(&self.client)
    }

    fn origin(&self, sender: &checkpost_core::Address) -> Origin {
        let facts = self.facts();
        let way_default = if facts.local { checkpost_core::OriginClass::Internal } else { self.settings.origin };
        let class = self.origins.classify(facts.address, facts.user.is_some(), sender, Some(way_default));
        Origin {
            way: Arc::clone(&self.settings.name),
            class,
            client: facts.address,
            client_name: facts.name.clone(),
            helo: facts.helo.clone(),
            user: facts.user.clone(),
            tls: self.tls,
            queue_id: facts.queue_id.clone(),
        }
    }

    /// What is next, as long as nothing has to be waited for.
    fn advance(&mut self) -> Option<Step> {
        if let Some(step) = self.hop.take_step() {
            return Some(step);
        }
        if self.hop.is_awaiting() {
            return self.advance_hop();
        }
        match self.phase {
            Phase::ProxyHeader => self.read_proxy_header(),
            Phase::Start => self.greet(),
            Phase::Command | Phase::BetweenChunks(..) => self.read_command(),
            Phase::AuthLine => self.read_auth_line(),
            Phase::Data(..) => self.read_data(),
            Phase::Chunk(..) | Phase::SkipChunk(_) => self.read_chunk(),
            Phase::Delivering(_) => self.advance_delivery(),
            Phase::StartTls => Some(Step::StartTls(Side::Client)),
            // Nobody is awaited, so somebody forgot to go on: to close is safe, the client tries again.
            Phase::Waiting => {
                debug_assert!(false, "waiting for nothing");
                Some(Step::Close)
            }
            Phase::Closing => Some(self.hop.close_or(Step::Close)),
        }
    }

    /// Bytes from the client are needed.
    fn need_client(&self, appetite: usize) -> Step {
        let limit = match self.phase {
            Phase::Data(..) | Phase::Chunk(..) | Phase::SkipChunk(_) => self.settings.data_timeout,
            _ => self.settings.command_timeout,
        };
        Step::Read { side: Side::Client, until: self.waiting_since + limit, appetite }
    }

    /// Says goodbye, in the middle of anything.
    fn close_with(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        self.say(code, enhanced, text);
        self.phase = Phase::Closing;
    }
}

impl Session for Proxy {
    fn input(&mut self, side: Side) -> &mut BytesMut {
        match side {
            Side::Client => &mut self.input,
            Side::Hop => self.hop.input(),
        }
    }

    fn output(&mut self, side: Side) -> &mut BytesMut {
        match side {
            Side::Client => &mut self.output,
            Side::Hop => self.hop.output(),
        }
    }

    fn step(&mut self, now: Instant) -> Step {
        self.now = now;
        loop {
            if let Some(step) = self.advance() {
                return step;
            }
        }
    }

    fn resolve(&mut self, answer: Answer, now: Instant) {
        self.now = now;
        match answer {
            Answer::Connected { kept } => self.hop_connected(kept),
            Answer::Unreachable(why) => self.hop_unreachable(&why),
            Answer::Secured(Side::Hop) => self.hop_secured(),
            Answer::Secured(Side::Client) => self.client_secured(),
            Answer::Stored | Answer::NotTaken(_) | Answer::Opened(_) | Answer::NotOpened(_) | Answer::Flushed => {}
            Answer::NotStored(why) => self.content_not_stored(&why),
            Answer::Judged(judged) => self.judged(*judged),
            Answer::Sent => self.content_sent(),
            Answer::Closed(Side::Hop) => self.hop_lost("the next hop closed the connection"),
            Answer::TimedOut(Side::Hop) => self.hop_lost("the next hop did not answer in time"),
            Answer::Closed(Side::Client) => self.client_lost(),
            Answer::TimedOut(Side::Client) => self.client_silent(),
            Answer::Drain => self.drain(),
        }
    }
}

impl Proxy {
    fn client_lost(&mut self) {
        match &self.phase {
            // Gone before we handed the mail on: the client does not know its fate and sends it again,
            // so to hand it on now would make it two. It may have said QUIT behind its mail, though.
            Phase::Delivering(delivery) if delivery.may_be_given_up() && !self.has_said_quit() => {
                self.give_up("the client is gone");
                self.phase = Phase::Closing;
            }
            // Under way to the next hop: its answer is still wanted, for the log (and for a client that
            // said QUIT and closed its half only).
            Phase::Delivering(_) => {
                if !self.has_said_quit() {
                    self.input.clear();
                }
            }
            _ => {
                if matches!(self.phase, Phase::Data(..) | Phase::Chunk(..) | Phase::BetweenChunks(..)) {
                    self.give_up("the client is gone");
                }
                self.end_transaction();
                self.phase = Phase::Closing;
            }
        }
    }

    fn has_said_quit(&self) -> bool {
        self.input.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"QUIT"))
    }

    fn client_silent(&mut self) {
        if matches!(self.phase, Phase::Delivering(_)) {
            // It was only asked whether it is still there, and it is.
            return;
        }
        if matches!(self.phase, Phase::Data(..) | Phase::Chunk(..) | Phase::BetweenChunks(..)) {
            self.give_up("the client was silent too long");
        }
        self.end_transaction();
        self.close_with(421, (4, 4, 2), "Timeout, closing connection");
    }

    fn drain(&mut self) {
        self.draining = true;
        // What the next hop still owes goes out first; then the next command finds us draining.
        let idle = matches!(self.phase, Phase::Command | Phase::AuthLine | Phase::Start | Phase::ProxyHeader);
        if idle && !self.hop.is_awaiting() {
            self.end_transaction();
            self.close_with(421, (4, 3, 2), "Going down, try again");
        }
    }

    fn client_secured(&mut self) {
        // RFC 3207 section 4.2: everything learned before is forgotten, everything sent before too.
        self.input.clear();
        self.lines = Lines::new(MAX_COMMAND);
        self.tls = true;
        self.greeted = Greeted::No;
        self.client.helo = None;
        if !self.trusted {
            // What a trusted peer said by XCLIENT was not about itself.
            self.client.user = None;
        }
        self.let_go_of_hop();
        self.end_transaction();
        self.phase = Phase::Command;
        self.waiting_since = self.now;
    }
}
