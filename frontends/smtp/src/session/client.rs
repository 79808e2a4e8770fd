//! The client's side: commands and contents. What must be asked of the next hop is handed to
//! `hop.rs`, what becomes of a whole mail to `delivery.rs`.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use checkpost_adapter::Step;
use checkpost_core::content::header::{Header, MAX_HEADER};
use checkpost_wire::smtp::{
    AttributeSet, Attributes, BareNewline, BdatDecoder, BdatEvent, Body, Command, CommandError, DataDecoder, DataEvent,
    Extensions, LineEvent, Ours, Params, Path, PeerReply, ProxyHeader, write_ehlo, write_reply,
};

use super::link::Goal;
use super::transaction::{Recipient, Transaction};
use super::{Fault, Greeted, Incoming, Phase, Proxy};
use crate::config::Settings;
use crate::route::{Place, Protocol};

/// How much to read at once between commands, and within a content.
const SMALL: usize = 2 << 10;
const LARGE: usize = 128 << 10;
/// Once a content is being spooled, it goes to the disk in pieces of this size.
const STORE: usize = 256 << 10;

impl Proxy {
    /// Writes a reply to the client.
    pub(super) fn say(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        write_reply(&mut self.output, code, Some(enhanced), text);
    }

    /// A mistake of the client: counted, and after too many the session ends.
    fn fault(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        self.errors += 1;
        if self.errors > self.settings.max_errors {
            self.close_in_order(421, (4, 7, 0), "Too many errors, closing connection");
        } else {
            self.say_in_order(code, enhanced, text);
        }
    }

    /// Says goodbye behind what the next hop still owes. Its transaction then ends with the connection.
    fn close_in_order(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        if !self.hop.is_awaiting() {
            self.end_transaction();
        }
        self.say_in_order(code, enhanced, text);
        self.phase = Phase::Closing;
    }

    /// A reply that must not overtake those that the next hop still owes.
    fn say_in_order(&mut self, code: u16, enhanced: (u8, u16, u16), text: &str) {
        if self.hop.is_awaiting() {
            let mut reply = BytesMut::new();
            write_reply(&mut reply, code, Some(enhanced), text);
            self.hop.say_after(reply.freeze());
        } else {
            self.say(code, enhanced, text);
        }
    }

    pub(super) fn read_proxy_header(&mut self) -> Option<Step> {
        match ProxyHeader::parse(&mut self.input) {
            Ok(Some(header)) => {
                if let Some(source) = header.source() {
                    self.client.address = Some(source.ip().to_canonical());
                    self.client.port = Some(source.port());
                    // Trust was for the one who sent the header, not for whom it speaks.
                    self.trusted = false;
                }
                self.phase = Phase::Start;
                None
            }
            Ok(None) => Some(self.need_client(SMALL)),
            Err(_) => {
                tracing::info!(way = %self.settings.name, peer = ?self.peer.address, "no PROXY header where one must be");
                self.phase = Phase::Closing;
                None
            }
        }
    }

    pub(super) fn greet(&mut self) -> Option<Step> {
        self.waiting_since = self.now;
        if let Some(text) = self.peer.refuse {
            let line = format!("421 4.3.2 {} {text}\r\n", self.settings.hostname);
            self.output.extend_from_slice(line.as_bytes());
            self.phase = Phase::Closing;
            return None;
        }
        let word = if self.settings.protocol == Protocol::Lmtp { "LMTP" } else { "ESMTP" };
        self.output.extend_from_slice(format!("220 {} {word} Checkpost\r\n", self.settings.hostname).as_bytes());
        self.phase = Phase::Command;
        None
    }

    /// The next command, when it is here. Called while the next hop owes nothing.
    pub(super) fn read_command(&mut self) -> Option<Step> {
        if self.draining && matches!(self.phase, Phase::Command) {
            self.drain();
            return None;
        }
        match self.next_command_line() {
            Some(line) => {
                self.command(&line);
                None
            }
            None if matches!(self.phase, Phase::Closing) => None,
            None => Some(self.need_client(SMALL)),
        }
    }

    /// While the next hop owes answers to RCPT: the next RCPT of the same group, if it is here. Any
    /// other command waits.
    pub(super) fn read_more_recipients(&mut self) -> bool {
        let here = self.input.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"RCPT "));
        if !here || !matches!(self.phase, Phase::Command) {
            return false;
        }
        // One event only: behind a line that is too long may stand a command that has to wait.
        match self.next_event() {
            LineEvent::Line(line) => {
                self.command(&line);
                true
            }
            LineEvent::Incomplete => false,
            LineEvent::TooLong | LineEvent::BareLf(_) => true,
        }
    }

    fn next_command_line(&mut self) -> Option<Bytes> {
        loop {
            match self.next_event() {
                LineEvent::Line(line) => return Some(line),
                LineEvent::Incomplete => return None,
                LineEvent::TooLong | LineEvent::BareLf(_) if matches!(self.phase, Phase::Closing) => return None,
                LineEvent::TooLong | LineEvent::BareLf(_) => {}
            }
        }
    }

    /// The next line, or what is wrong with it; then the client is told.
    fn next_event(&mut self) -> LineEvent {
        let event = self.lines.next(&mut self.input);
        match &event {
            LineEvent::Line(_) => self.waiting_since = self.now,
            LineEvent::Incomplete => {}
            LineEvent::TooLong => self.fault(500, (5, 5, 2), "Line too long"),
            // What ends in LF alone may be the hidden half of somebody's content.
            LineEvent::BareLf(_) => self.close_in_order(521, (5, 5, 2), "Lines must end in CRLF"),
        }
        event
    }

    fn command(&mut self, line: &[u8]) {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => return self.refuse_command(&error),
        };
        if matches!(self.phase, Phase::BetweenChunks(..))
            && !matches!(command, Command::Bdat { .. } | Command::Rset | Command::Noop | Command::Quit)
        {
            // RFC 3030 section 2: after BDAT only BDAT, RSET, NOOP (and QUIT) make sense.
            return self.fault(503, (5, 5, 1), "BDAT under way");
        }
        let lmtp = self.settings.protocol == Protocol::Lmtp;
        match command {
            Command::Ehlo(name) if !lmtp => self.hello(&name, Greeted::Extended),
            Command::Lhlo(name) if lmtp => self.hello(&name, Greeted::Extended),
            Command::Helo(name) if !lmtp => self.hello(&name, Greeted::Helo),
            Command::Mail { path, params } => self.mail(path, params),
            Command::Rcpt { path, params } => self.recipient(path, params),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.chunk(size, last),
            Command::Rset => {
                // Chunks that were stored must not become the beginning of the next mail.
                self.forget_content();
                self.end_transaction();
                self.phase = Phase::Command;
                self.say(250, (2, 0, 0), "Ok");
            }
            Command::Noop => self.say(250, (2, 0, 0), "Ok"),
            Command::Quit => {
                self.end_transaction();
                self.close_with(221, (2, 0, 0), "Bye");
            }
            // RFC 5321 section 3.5.3: 252 for "cannot verify, but will try".
            Command::Vrfy => self.say(252, (2, 5, 2), "Send the mail and see"),
            Command::Help => self.say(214, (2, 0, 0), "See RFC 5321"),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, .. } => self.auth(&mechanism, line),
            Command::Xclient(attributes) => self.xclient(&attributes),
            Command::Xforward(attributes) => self.xforward(&attributes),
            _ => self.fault(502, (5, 5, 1), "Command not implemented"),
        }
    }

    fn refuse_command(&mut self, error: &CommandError) {
        let (code, enhanced, text) = error.reply();
        self.fault(code, enhanced, text);
    }

    fn hello(&mut self, name: &str, how: Greeted) {
        self.end_transaction();
        self.client.helo = Some(name.into());
        self.greeted = how;
        if how == Greeted::Helo {
            let line = format!("250 {}\r\n", self.settings.hostname);
            self.output.extend_from_slice(line.as_bytes());
            return;
        }
        let route = self.settings.router.default_for(self.client.address);
        self.want(Goal::Greet, route);
    }

    /// The next hop's extensions are known, or it cannot be asked.
    pub(super) fn answer_hello(&mut self, theirs: Option<&Extensions>) {
        let trusted = |set: AttributeSet| if self.trusted { set } else { AttributeSet::EMPTY };
        let ours = Ours {
            size: self.settings.max_size,
            starttls: self.settings.starttls && !self.tls,
            auth: self.settings.auth && (self.tls || self.settings.auth_without_tls) && self.client.user.is_none(),
            xclient: trusted(AttributeSet::xclient()),
            xforward: trusted(AttributeSet::xforward()),
            ..Ours::default()
        };
        let conservative = Extensions::default();
        let lines = theirs.unwrap_or(&conservative).for_client(&ours);
        write_ehlo(&mut self.output, &self.settings.hostname, lines.iter().map(String::as_str));
        self.phase = Phase::Command;
        self.waiting_since = self.now;
    }

    fn start_tls(&mut self) {
        if !self.settings.starttls || self.tls {
            return self.fault(503, (5, 5, 1), "STARTTLS not offered");
        }
        self.end_transaction();
        // RFC 3207: what came behind STARTTLS in plain text must not be taken for what comes under TLS.
        if !self.input.is_empty() {
            tracing::warn!(way = %self.settings.name, peer = ?self.peer.address, "plain text behind STARTTLS thrown away");
            self.input.clear();
        }
        self.say(220, (2, 0, 0), "Go ahead");
        self.phase = Phase::StartTls;
    }

    fn mail(&mut self, path: Path, params: Params) {
        if self.greeted == Greeted::No {
            return self.fault(503, (5, 5, 1), "Say hello first");
        }
        if self.transaction.is_some() {
            return self.fault(503, (5, 5, 1), "Sender given already");
        }
        if let Some(text) = self.peer.pressed {
            return self.say(452, (4, 3, 1), text);
        }
        if self.greeted == Greeted::Helo && !params.is_empty() {
            return self.fault(555, (5, 5, 4), "Parameters need EHLO");
        }
        if params.body() == Some(Body::BinaryMime) {
            return self.fault(555, (5, 5, 4), "BINARYMIME not offered");
        }
        if params.requiretls() {
            return self.fault(555, (5, 5, 4), "REQUIRETLS not offered");
        }
        if params.check(&known(), true).is_err() {
            return self.fault(555, (5, 5, 4), "Parameter not known");
        }
        let limit = match self.hop.known_size_limit() {
            Some(theirs) => theirs.min(self.settings.max_size),
            None => self.settings.max_size,
        };
        if params.size().is_some_and(|size| size > limit) {
            return self.say(552, (5, 3, 4), "Message too large");
        }
        self.transaction = Some(Transaction::new(path, params));
        self.say(250, (2, 1, 0), "Ok");
    }

    fn recipient(&mut self, path: Path, params: Params) {
        let Some(transaction) = &self.transaction else {
            return self.fault(503, (5, 5, 1), "Sender first");
        };
        if self.greeted == Greeted::Helo && !params.is_empty() {
            return self.fault(555, (5, 5, 4), "Parameters need EHLO");
        }
        if params.check(&known(), false).is_err() {
            return self.fault(555, (5, 5, 4), "Parameter not known");
        }
        if let Some(refused) = transaction.refused.clone() {
            return self.pass_on(&refused);
        }
        let taken = transaction.recipients.len() + transaction.pending;
        if taken >= self.settings.max_recipients {
            return self.say_in_order(452, (4, 5, 3), "Too many recipients, send the rest in another mail");
        }
        let address = checkpost_core::Address::from(path.as_str());
        let route = match self.hop.bound_route() {
            Some(bound) => bound,
            None => self.settings.router.choose(address.domain(), self.facts().address),
        };
        if transaction.route.is_some_and(|first| first != route) {
            return self.say_in_order(452, (4, 5, 3), "This recipient goes by another route, send to it separately");
        }
        // One answer for a content that an LMTP hop answers for each recipient: only one recipient
        // makes that true for all.
        let hop_lmtp = self.settings.router.hops(route).iter().any(|hop| hop.protocol == Protocol::Lmtp);
        if hop_lmtp && self.settings.protocol == Protocol::Smtp && taken >= 1 {
            return self.say_in_order(452, (4, 5, 3), "One recipient a mail here, send to the rest separately");
        }
        if self.settings.router.hops(route).iter().all(|hop| matches!(hop.place, Place::Callback(_)))
            && self.facts_for_callback().is_none()
        {
            return self.say_in_order(451, (4, 4, 1), "No way back to a client without an address");
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.route = Some(route);
            transaction.pending += 1;
        }
        self.relay_recipient(Recipient { path, params }, route);
    }

    /// The host that a callback goes to: the TCP peer itself, never what XFORWARD says.
    pub(super) fn facts_for_callback(&self) -> Option<std::net::IpAddr> {
        self.peer.address
    }

    /// Gives the client what the next hop said.
    pub(super) fn pass_on(&mut self, reply: &PeerReply) {
        if self.hop.is_awaiting() {
            let mut text = BytesMut::new();
            reply.write_to(&mut text);
            self.hop.say_after(text.freeze());
        } else {
            reply.write_to(&mut self.output);
        }
    }

    fn ready_for_content(&mut self) -> bool {
        let Some(transaction) = &self.transaction else {
            self.fault(503, (5, 5, 1), "Sender and recipients first");
            return false;
        };
        if transaction.recipients.is_empty() {
            // RFC 2033 section 4.2 asks for 503, RFC 5321 section 3.3 for 503 or 554.
            let code = if self.settings.protocol == Protocol::Lmtp { 503 } else { 554 };
            self.fault(code, (5, 5, 1), "No valid recipients");
            return false;
        }
        true
    }

    fn incoming(&self, by_chunks: bool) -> Box<Incoming> {
        let facts = self.facts();
        let normalize = Settings::in_networks(&self.settings.normalize_newlines, facts.address);
        Box::new(Incoming {
            body: BytesMut::new(),
            header: None,
            stored: 0,
            started: self.now,
            received: 0,
            fault: None,
            bare: if normalize { BareNewline::Normalize } else { BareNewline::Reject },
            by_chunks,
            storing: false,
        })
    }

    fn data(&mut self) {
        if !self.ready_for_content() {
            return;
        }
        self.output.extend_from_slice(b"354 End data with <CR><LF>.<CR><LF>\r\n");
        let incoming = self.incoming(false);
        let decoder = DataDecoder::new(incoming.bare, self.settings.max_size);
        self.waiting_since = self.now;
        self.phase = Phase::Data(incoming, decoder);
    }

    pub(super) fn read_data(&mut self) -> Option<Step> {
        let too_slow = self.too_slow();
        let memory_limit = self.settings.memory_limit;
        let Phase::Data(incoming, decoder) = &mut self.phase else { return None };
        let before = self.input.len();
        let event = decoder.decode(&mut self.input, &mut incoming.body);
        incoming.received += (before - self.input.len()) as u64;
        if before != self.input.len() {
            self.waiting_since = self.now;
        }
        if incoming.fault.is_some() {
            incoming.body.clear();
        }
        match event {
            DataEvent::End => {
                if decoder.violation().is_some() {
                    incoming.fault.get_or_insert(Fault::BareNewline);
                } else if decoder.oversize() {
                    incoming.fault.get_or_insert(Fault::TooLarge);
                }
                self.content_ended();
                None
            }
            DataEvent::More => {
                if let Some(step) = incoming.store(memory_limit) {
                    return Some(step);
                }
                if too_slow {
                    self.client_silent();
                    return None;
                }
                Some(self.need_client(LARGE))
            }
        }
    }

    /// Below the least rate, looked at after a minute.
    fn too_slow(&self) -> bool {
        let incoming = match &self.phase {
            Phase::Data(incoming, _) | Phase::Chunk(incoming, _) => incoming,
            _ => return false,
        };
        let lasted = self.now.duration_since(incoming.started);
        lasted > Duration::from_secs(60) && incoming.received / lasted.as_secs().max(1) < self.settings.min_rate
    }

    fn chunk(&mut self, size: u64, last: bool) {
        self.waiting_since = self.now;
        let (incoming, mut decoder) = match std::mem::replace(&mut self.phase, Phase::Command) {
            Phase::BetweenChunks(incoming, decoder) => (incoming, decoder),
            _ => {
                if !self.ready_for_content() {
                    if !matches!(self.phase, Phase::Closing) {
                        // RFC 3030 section 2: the octets come all the same.
                        self.phase = Phase::SkipChunk(size);
                    }
                    return;
                }
                let incoming = self.incoming(true);
                let decoder = BdatDecoder::new(incoming.bare, self.settings.max_size);
                (incoming, decoder)
            }
        };
        if decoder.begin(size, last).is_err() {
            // A last chunk ends the content at once, so there is none after it; kept for safety.
            self.phase = Phase::SkipChunk(size);
            return self.fault(503, (5, 5, 1), "BDAT after the last chunk");
        }
        self.phase = Phase::Chunk(incoming, decoder);
    }

    pub(super) fn read_chunk(&mut self) -> Option<Step> {
        let too_slow = self.too_slow();
        let memory_limit = self.settings.memory_limit;
        let before = self.input.len();
        if let Phase::SkipChunk(left) = &mut self.phase {
            let skip = before.min(usize::try_from(*left).unwrap_or(usize::MAX));
            let _ = self.input.split_to(skip);
            *left -= skip as u64;
            if *left == 0 {
                self.phase = Phase::Command;
                return None;
            }
            return Some(self.need_client(LARGE));
        }
        let Phase::Chunk(incoming, decoder) = &mut self.phase else { return None };
        let event = decoder.decode(&mut self.input, &mut incoming.body);
        incoming.received += (before - self.input.len()) as u64;
        if before != self.input.len() {
            self.waiting_since = self.now;
        }
        if decoder.violation().is_some() {
            incoming.fault.get_or_insert(Fault::BareNewline);
        } else if decoder.oversize() {
            incoming.fault.get_or_insert(Fault::TooLarge);
        }
        if incoming.fault.is_some() {
            incoming.body.clear();
        }
        if event == BdatEvent::More {
            if let Some(step) = incoming.store(memory_limit) {
                return Some(step);
            }
            if too_slow {
                self.client_silent();
                return None;
            }
            return Some(self.need_client(LARGE));
        }
        let octets = incoming.received;
        if let Phase::Chunk(incoming, decoder) = std::mem::replace(&mut self.phase, Phase::Command) {
            self.phase = Phase::BetweenChunks(incoming, decoder);
        }
        if event == BdatEvent::End {
            self.content_ended();
        } else {
            self.say(250, (2, 0, 0), &format!("{octets} octets so far"));
        }
        None
    }

    pub(super) fn content_not_stored(&mut self, why: &str) {
        tracing::error!(way = %self.settings.name, error = why, "a content could not be spooled");
        match &mut self.phase {
            Phase::Data(incoming, _) | Phase::Chunk(incoming, _) | Phase::BetweenChunks(incoming, _) => {
                incoming.fault.get_or_insert(Fault::Spool);
                incoming.body.clear();
            }
            Phase::Delivering(_) => self.not_judged(),
            _ => {}
        }
    }

    fn forget_content(&mut self) {
        if let Phase::Data(incoming, _) | Phase::Chunk(incoming, _) | Phase::BetweenChunks(incoming, _) = &self.phase
            && incoming.storing
        {
            self.hop.push_step(Step::Forget);
        }
    }

    fn xclient(&mut self, attributes: &Attributes) {
        if !self.trusted {
            return self.fault(550, (5, 7, 0), "Not authorised");
        }
        if self.transaction.is_some() {
            return self.fault(503, (5, 5, 1), "Mail transaction in progress");
        }
        self.client.learn(attributes);
        // A connection that was opened for somebody else.
        self.let_go_of_hop();
        // XCLIENT_README: the session begins anew, with the greeting.
        self.greeted = Greeted::No;
        self.forwarded = None;
        self.phase = Phase::Start;
    }

    fn xforward(&mut self, attributes: &Attributes) {
        if !self.trusted {
            return self.fault(550, (5, 7, 0), "Not authorised");
        }
        if self.transaction.is_some() {
            return self.fault(503, (5, 5, 1), "Mail transaction in progress");
        }
        // XFORWARD_README: the first one of a mail makes all others unavailable.
        self.forwarded.get_or_insert_default().learn(attributes);
        self.say(250, (2, 0, 0), "Ok");
    }

    fn auth(&mut self, mechanism: &str, line: &[u8]) {
        let offered = self.settings.auth && (self.tls || self.settings.auth_without_tls);
        if !offered {
            return self.fault(502, (5, 5, 1), "AUTH not offered");
        }
        if self.greeted != Greeted::Extended || self.transaction.is_some() || self.client.user.is_some() {
            return self.fault(503, (5, 5, 1), "AUTH not possible now");
        }
        let route = self.settings.router.default_for(self.client.address);
        self.want(
            Goal::Auth { line: Bytes::copy_from_slice(line), mechanism: mechanism.to_ascii_uppercase().into() },
            route,
        );
    }

    pub(super) fn read_auth_line(&mut self) -> Option<Step> {
        match self.next_command_line() {
            Some(line) => {
                self.relay_auth_line(&line);
                None
            }
            None if matches!(self.phase, Phase::Closing) => None,
            None => Some(self.need_client(SMALL)),
        }
    }
}

/// Extensions whose parameters are understood. Those that the next hop does not know are taken, and not
/// passed on; what nobody here knows is refused (RFC 5321 section 4.1.1.11).
fn known() -> Extensions {
    Extensions {
        eightbitmime: true,
        smtputf8: true,
        size: Some(0),
        dsn: true,
        auth: vec!["PLAIN".into()],
        mt_priority: true,
        ..Extensions::default()
    }
}

impl Incoming {
    /// When there is enough, what goes to the disk. The header is read before it leaves.
    fn store(&mut self, memory_limit: usize) -> Option<Step> {
        let enough = if self.storing { self.body.len() >= STORE } else { self.body.len() > memory_limit };
        if !enough {
            return None;
        }
        self.storing = true;
        self.stored += self.body.len() as u64;
        // Taken whole: after a split the rest of the buffer would keep all of it, and grow into it again.
        let piece = std::mem::take(&mut self.body).freeze();
        if self.header.is_none() {
            // Its own octets: a slice would hold the whole piece in memory until the mail is gone.
            self.header = Some(Header::parse(piece.slice(..piece.len().min(MAX_HEADER))).detached());
        }
        Some(Step::Store(piece))
    }
}
