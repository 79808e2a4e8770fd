//! One client's session as the filter sees it: negotiation, the stages of each mail, the end. Which of
//! the filter's answers a server takes where, and what it tells its own client then, is decided here.

use std::net::IpAddr;

use super::packets::{CHUNK, Data, Packet, Wire, packet, reply, step, strings};
use super::{Fault, Message, MockMta, Peer, Style, answer};
use crate::{Answer, Told};

/// A client of the mock server, with the methods of a real one's [`Client`](crate::Client).
#[derive(Debug)]
pub struct MockClient<'a> {
    mta: &'a mut MockMta,
    peer: Peer,
    /// `None` once the filter needs no more for this session.
    filter: Option<Filter>,
    /// The filter has refused the whole session: the answer to everything.
    refused: Option<Answer>,
    /// Addresses go to the filter without angle brackets.
    pub(super) bare_addresses: bool,
    /// Whether a MAIL came since the last ABORT.
    in_mail: bool,
    /// What the server said at first.
    pub greeting: Answer,
    /// What it said to EHLO.
    pub hello: Answer,
}

#[derive(Debug)]
struct Filter {
    wire: Wire,
    style: Style,
    version: u32,
    actions: u32,
    steps: u32,
    /// Names of macros that the filter asked for, by stage.
    macros: [Option<Vec<String>>; 7],
}

/// What the filter said about one stage.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Continue,
    Accept,
    Discard,
    Skip,
    Refuse(Answer),
}

/// What has become of a mail so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Asked,
    Unfiltered,
    Discarded,
}

impl<'a> MockClient<'a> {
    pub(super) fn open(mta: &'a mut MockMta, mut wire: Wire, peer: &Peer) -> Result<Self, Fault> {
        wire.set_patience(mta.patience)?;
        let filter = Filter::negotiate(wire, mta)?;
        let mut client = Self {
            mta,
            peer: peer.clone(),
            filter: Some(filter),
            refused: None,
            bare_addresses: false,
            in_mail: false,
            greeting: answer(220, "mock.example.test ESMTP"),
            hello: answer(250, "mock.example.test"),
        };
        let connected = client.connected()?;
        client.for_the_session(connected)?;
        if let Some(refused) = &client.refused {
            if refused.code / 100 == 5 {
                client.greeting = answer(554, "mock.example.test ESMTP not accepting connections");
            }
            // Sendmail drops the filter's own text here.
            if client.mta.style == Style::Sendmail {
                let told = if refused.code / 100 == 5 { (550, "5.0.0 Command rejected") } else { LATER[1] };
                client.refused = Some(answer(told.0, told.1));
            }
        }
        let hello = client.said_hello()?;
        client.for_the_session(hello)?;
        Ok(client)
    }

    /// Sends one mail, as far as server and filter let it come.
    pub fn mail(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<Told, Fault> {
        let (mut told, course) = self.start(from, to)?;
        let taken = |(to, answer): &(String, Answer)| answer.is_positive().then(|| to.clone());
        let recipients: Vec<String> = told.recipients.iter().filter_map(taken).collect();
        if !recipients.is_empty() {
            let id = self.mta.queue_id();
            let sender = from.split('>').next().unwrap_or_default();
            let received = format!(" from {}\n\tby mock.example.test id {id}", self.peer.helo);
            let message = Message::new(sender, recipients, content, &received);
            told.end = Some(self.content(message, course, &id)?);
        }
        self.over()?;
        Ok(told)
    }

    /// Sends MAIL and RCPT, and nothing behind them; [`MockClient::reset`] ends that.
    pub fn envelope(&mut self, from: &str, to: &[&str]) -> Result<Told, Fault> {
        self.start(from, to).map(|(told, _)| told)
    }

    /// RSET.
    pub fn reset(&mut self) -> Result<(), Fault> {
        self.over()
    }

    /// QUIT.
    pub fn quit(mut self) -> Result<(), Fault> {
        let Some(mut filter) = self.filter.take() else { return Ok(()) };
        let last: &[u8] = if filter.style == Style::Postfix { b"AAQ" } else { b"Q" };
        let octets: Vec<u8> = last.iter().flat_map(|code| packet(*code, b"")).collect();
        // A filter that has closed already did nothing wrong.
        let _ = filter.wire.send(&octets);
        Ok(())
    }

    /// The client is gone without a word, and so is the connection to the filter.
    pub fn vanish(self) {}

    fn connected(&mut self) -> Result<Said, Fault> {
        let Some(filter) = &mut self.filter else { return Ok(Said::Continue) };
        let mut data = strings(&[self.peer.host.as_bytes()]);
        match self.peer.address {
            Some(address) => {
                let text = match (address, filter.style) {
                    // Sendmail has its prefix on the wire and writes all eight groups.
                    (IpAddr::V6(address), Style::Sendmail) => {
                        let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:x}")).collect();
                        format!("IPv6:{}", groups.join(":"))
                    }
                    _ => address.to_string(),
                };
                data.push(if address.is_ipv4() { b'4' } else { b'6' });
                data.extend_from_slice(&self.peer.port.to_be_bytes());
                data.extend(strings(&[text.as_bytes()]));
            }
            None => data.push(b'U'),
        }
        let address = self.peer.address.map(|address| address.to_string()).unwrap_or_default();
        let host = self.peer.host.as_str();
        let known = [
            ("j", "mock.example.test"),
            ("_", host),
            ("{daemon_name}", "mock.example.test"),
            ("{daemon_addr}", "127.0.0.1"),
            ("v", "Mock 1.0"),
            ("{client_addr}", &address),
            ("{client_name}", host),
        ];
        filter.ask(0, &known, b'C', &data, step::NO_CONNECT, step::NR_CONNECT)
    }

    fn said_hello(&mut self) -> Result<Said, Fault> {
        let Some(filter) = &mut self.filter else { return Ok(Said::Continue) };
        let data = strings(&[self.peer.helo.as_bytes()]);
        filter.ask(1, &[], b'H', &data, step::NO_HELO, step::NR_HELO)
    }

    /// What the filter says at CONNECT and HELO is about all that follows.
    fn for_the_session(&mut self, said: Said) -> Result<(), Fault> {
        match said {
            Said::Continue => return Ok(()),
            Said::Accept => {}
            Said::Refuse(answer) => self.refused = Some(answer),
            Said::Discard | Said::Skip => return Err(Fault::filter("discard or skip about a whole session")),
        }
        // Postfix just closes, Sendmail says goodbye. Nothing more is asked.
        if let Some(mut filter) = self.filter.take()
            && filter.style == Style::Sendmail
        {
            filter.wire.send(&packet(b'Q', b""))?;
        }
        Ok(())
    }

    fn start(&mut self, from: &str, to: &[&str]) -> Result<(Told, Course), Fault> {
        let mut told = Told { sender: answer(250, "2.1.0 Ok"), recipients: Vec::new(), end: None };
        let mut course = Course::Asked;
        if let Some(refused) = &self.refused {
            told.sender = refused.clone();
            return Ok((told, course));
        }
        let (address, parameters) = from.split_once('>').unwrap_or((from, ""));
        self.in_mail = true;
        if let Some(filter) = &mut self.filter {
            let bracketed = if self.bare_addresses { address.to_owned() } else { format!("<{address}>") };
            let words: Vec<&[u8]> = parameters.split_whitespace().map(str::as_bytes).collect();
            let data = strings(&[&[bracketed.as_bytes()], &words[..]].concat());
            // Postfix has no queue id yet.
            let id = if filter.style == Style::Sendmail { "00SENDMAIL" } else { "" };
            let known = [("i", id), ("{mail_addr}", address), ("{mail_mailer}", "smtp")];
            match filter.ask(2, &known, b'M', &data, step::NO_MAIL, step::NR_MAIL)? {
                Said::Continue => {}
                Said::Accept => course = Course::Unfiltered,
                Said::Discard => course = Course::Discarded,
                Said::Skip => return Err(Fault::filter("skip about a sender")),
                Said::Refuse(answer) => {
                    told.sender = filter.with_address(answer, &bracketed);
                    return Ok((told, course));
                }
            }
        }
        for (n, recipient) in to.iter().enumerate() {
            let (answer, now) = self.recipient(recipient, course, n > 0)?;
            told.recipients.push(((*recipient).to_owned(), answer));
            course = now;
        }
        Ok((told, course))
    }

    fn recipient(&mut self, recipient: &str, course: Course, id_known: bool) -> Result<(Answer, Course), Fault> {
        let known = !self.mta.users(recipient).is_empty();
        let taken = answer(250, "2.1.5 Ok");
        let refused = || answer(550, "5.1.1 no such user here");
        let Some(filter) = self.filter.as_mut().filter(|_| course == Course::Asked) else {
            return Ok((if known { taken } else { refused() }, course));
        };
        let id = if id_known || filter.style == Style::Sendmail { "00000042" } else { "" };
        if !known {
            // Sendmail tells the macros of a recipient that it refuses itself, and then no recipient.
            if filter.style == Style::Sendmail {
                let macros = filter.macro_packet(3, b'R', &[("{rcpt_mailer}", "error"), ("{rcpt_addr}", recipient)]);
                filter.wire.send(&macros)?;
            }
            return Ok((refused(), course));
        }
        let bracketed = if self.bare_addresses { recipient.to_owned() } else { format!("<{recipient}>") };
        let data = strings(&[bracketed.as_bytes()]);
        let macros = [("i", id), ("{rcpt_addr}", recipient), ("{rcpt_mailer}", "local")];
        Ok(match filter.ask(3, &macros, b'R', &data, step::NO_RCPT, step::NR_RCPT)? {
            Said::Continue => (taken, course),
            Said::Accept => (taken, Course::Unfiltered),
            Said::Discard => (taken, Course::Discarded),
            Said::Skip => return Err(Fault::filter("skip about a recipient")),
            Said::Refuse(answer) => (filter.with_address(answer, &bracketed), course),
        })
    }

    fn content(&mut self, mut message: Message, course: Course, id: &str) -> Result<Answer, Fault> {
        let kept = answer(250, "2.0.0 Ok: queued");
        let said = match (&mut self.filter, course) {
            (Some(filter), Course::Asked) => filter.judge(&mut message, id)?,
            (_, Course::Discarded) => Said::Discard,
            _ => Said::Accept,
        };
        match said {
            Said::Refuse(answer) => return Ok(answer),
            Said::Discard => {}
            Said::Continue | Said::Accept | Said::Skip => self.mta.keep(message),
        }
        Ok(kept)
    }

    /// A mail is over, by its end or by RSET.
    fn over(&mut self) -> Result<(), Fault> {
        if let Some(filter) = &mut self.filter
            && self.in_mail
            && filter.style == Style::Postfix
        {
            filter.wire.send(&packet(b'A', b""))?;
        }
        self.in_mail = false;
        Ok(())
    }
}

impl Filter {
    fn negotiate(mut wire: Wire, mta: &MockMta) -> Result<Self, Fault> {
        let offer = mta.offer;
        let numbers = [offer.version, offer.actions, offer.steps];
        wire.send(&packet(b'O', &numbers.map(u32::to_be_bytes).concat()))?;
        let answer = wire.receive()?.ok_or_else(|| Fault::filter("no answer to the negotiation"))?;
        if answer.code != b'O' {
            return Err(Fault::Filter(format!("{answer:?} in answer to the negotiation")));
        }
        let mut data = Data::new(&answer.data);
        let (version, actions, steps) = (data.number()?, data.number()?, data.number()?);
        if !(2..=offer.version).contains(&version) {
            return Err(Fault::Filter(format!("version {version} in answer to {}", offer.version)));
        }
        if actions & !offer.actions != 0 || steps & !offer.steps != 0 {
            return Err(Fault::Filter(format!("more than was offered: {actions:#x} {steps:#x}")));
        }
        let mut macros = [const { None }; 7];
        while !data.is_empty() {
            if actions & super::packets::action::SET_MACROS == 0 {
                return Err(Fault::filter("a list of macros without the bit for it"));
            }
            let (stage, names) = (data.number()? as usize, data.string()?);
            let names: Vec<String> =
                names.split([' ', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            let place = macros.get_mut(stage).ok_or_else(|| Fault::filter("macros for a stage that is none"))?;
            if names.len() > 50 {
                return Err(Fault::filter("more than 50 macros for one stage"));
            }
            *place = Some(names);
        }
        data.end()?;
        // Sendmail 8.17 looks whether there is a list for the end of the header, and then uses that
        // for the end of the mail.
        if macros[5].is_some() != macros[6].is_some() {
            return Err(Fault::filter("macros for the end of the header or of the mail, and not for both"));
        }
        Ok(Self { wire, style: mta.style, version, actions, steps, macros })
    }

    /// Says one stage, with its macros before it, and hears the answer if the filter gives one.
    fn ask(
        &mut self,
        stage: usize,
        known: &[(&str, &str)],
        code: u8,
        data: &[u8],
        unwanted: u32,
        silent: u32,
    ) -> Result<Said, Fault> {
        self.say(stage, known, code, data, unwanted)?;
        if self.steps & (unwanted | silent) != 0 {
            return Ok(Said::Continue);
        }
        let answer = self.hear()?;
        let said = self.decision(&answer)?;
        let said = said.ok_or_else(|| Fault::Filter(format!("{answer:?} before the end of a mail")))?;
        // A libmilter that does not know it takes it for nonsense.
        if said == Said::Skip && (code != b'B' || self.steps & step::SKIP == 0) {
            return Err(Fault::filter("skip where it may not be said"));
        }
        Ok(said)
    }

    fn say(&mut self, stage: usize, known: &[(&str, &str)], code: u8, data: &[u8], unwanted: u32) -> Result<(), Fault> {
        let macros = self.macro_packet(stage, code, known);
        let command = if self.steps & unwanted == 0 { packet(code, data) } else { Vec::new() };
        match self.style {
            // One write for both; and macros come for what the filter does not want, too.
            Style::Postfix => self.wire.send(&[macros, command].concat())?,
            Style::Sendmail => {
                if !matches!(code, b'T' | b'L' | b'N' | b'B') || self.macros[stage].is_some() {
                    self.wire.send(&macros)?;
                }
                self.wire.send(&command)?;
            }
        }
        Ok(())
    }

    /// Macros that are known here, if the filter wants them; a server sends only those with a value.
    fn macro_packet(&self, stage: usize, code: u8, known: &[(&str, &str)]) -> Vec<u8> {
        let wanted = |name: &str| self.macros[stage].as_ref().is_none_or(|names| names.iter().any(|n| n == name));
        let mut data = vec![code];
        for (name, value) in known.iter().filter(|(name, value)| !value.is_empty() && wanted(name)) {
            data.extend(strings(&[name.as_bytes(), value.as_bytes()]));
        }
        packet(b'D', &data)
    }

    /// From DATA to the decision at the end of the mail.
    fn judge(&mut self, message: &mut Message, id: &str) -> Result<Said, Fault> {
        let known = [("i", id)];
        if self.version >= 4 {
            let said = self.ask(4, &known, b'T', b"", step::NO_DATA, step::NR_DATA)?;
            if said != Said::Continue {
                return Ok(said);
            }
        }
        if self.steps & step::NO_HEADERS == 0 {
            let spaced = self.steps & step::LEADING_SPACE != 0;
            let shown: Vec<_> = message.shown().map(|field| (field.name.clone(), field.value.clone())).collect();
            for (name, value) in shown {
                let value = if spaced { &value[..] } else { value.strip_prefix(b" ").unwrap_or(&value) };
                let data = strings(&[name.as_bytes(), value]);
                let said = self.ask(6, &known, b'L', &data, step::NO_HEADERS, step::NR_HEADER)?;
                if said != Said::Continue {
                    return Ok(said);
                }
            }
        }
        let said = self.ask(6, &known, b'N', b"", step::NO_EOH, step::NR_EOH)?;
        if said != Said::Continue {
            return Ok(said);
        }
        for chunk in message.body.chunks(CHUNK) {
            match self.ask(5, &known, b'B', chunk, step::NO_BODY, step::NR_BODY)? {
                Said::Continue => {}
                Said::Skip => break,
                said => return Ok(said),
            }
        }
        self.say(5, &known, b'E', b"", 0)?;
        loop {
            let answer = self.hear()?;
            match self.decision(&answer)? {
                Some(Said::Skip) => return Err(Fault::filter("skip at the end of a mail")),
                Some(said) => return Ok(said),
                None => message.edit(&answer, self.style, self.actions, self.steps & step::LEADING_SPACE != 0)?,
            }
        }
    }

    fn hear(&mut self) -> Result<Packet, Fault> {
        self.wire.receive()?.ok_or_else(|| Fault::filter("it closed the connection instead of an answer"))
    }

    /// What a decision means; `None` for a packet that is none.
    fn decision(&self, answer: &Packet) -> Result<Option<Said>, Fault> {
        let own = usize::from(self.style == Style::Sendmail);
        let said = match answer.code {
            b'c' => Said::Continue,
            b'a' => Said::Accept,
            b'd' => Said::Discard,
            b's' => Said::Skip,
            b'r' => Said::Refuse(super::answer(REJECTED[own].0, REJECTED[own].1)),
            b't' => Said::Refuse(super::answer(LATER[own].0, LATER[own].1)),
            b'y' => return Ok(Some(Said::Refuse(reply(&answer.data)?))),
            _ => return Ok(None),
        };
        Data::new(&answer.data).end()?;
        Ok(Some(said))
    }

    /// Sendmail puts the address before the text when it refuses a sender or recipient for good.
    fn with_address(&self, mut answer: Answer, bracketed: &str) -> Answer {
        if self.style == Style::Sendmail && answer.code / 100 == 5 {
            let (enhanced, text) = answer.text.split_once(' ').unwrap_or(("5.0.0", &answer.text));
            answer.text = format!("{enhanced} {bracketed}... {text}");
        }
        answer
    }
}

/// What the servers say when the filter has no text of its own: Postfix, Sendmail.
const REJECTED: [(u16, &str); 2] = [(550, "5.7.1 Command rejected"), (554, "5.7.1 Command rejected")];
const LATER: [(u16, &str); 2] =
    [(451, "4.7.1 Service unavailable - try again later"), (451, "4.3.2 Please try again later")];
