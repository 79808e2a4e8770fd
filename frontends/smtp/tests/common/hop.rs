//! A scripted next hop: an SMTP or LMTP server that writes down what it hears and fails on demand.
//! It is strict where a real server is: a second MAIL in a transaction is refused, for example.

use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, HandedOn, Network, Peer, Point, Then, Trouble, TroubleKind};
use checkpost_adapter::session::Target;

/// How it behaves.
#[derive(Debug, Clone)]
pub struct HopScript {
    pub lmtp: bool,
    /// What EHLO offers.
    pub extensions: Vec<String>,
    /// Is EHLO known?
    pub extended: bool,
    /// The reply to the first command that begins so (in any case), instead of the usual one. With a
    /// number before a blank and the command: only the so-many-th time, from 1.
    pub replies: Vec<(String, String)>,
    pub trouble: Option<Trouble>,
    /// Does a TLS handshake succeed?
    pub tls: bool,
}

impl Default for HopScript {
    fn default() -> Self {
        let offered = ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 0", "DSN", "ENHANCEDSTATUSCODES"];
        Self {
            lmtp: false,
            extensions: offered.map(Into::into).into(),
            extended: true,
            replies: Vec::new(),
            trouble: None,
            tls: true,
        }
    }
}

impl HopScript {
    pub fn reply(&mut self, command: &str, reply: &str) {
        self.replies.push((command.to_owned(), reply.to_owned()));
    }

    pub fn without(&mut self, keyword: &str) {
        self.extensions.retain(|line| !line.starts_with(keyword));
    }

    pub fn with(&mut self, line: &str) {
        self.extensions.push(line.into());
    }
}

/// What all its connections heard.
#[derive(Debug, Clone, Default)]
pub struct HopLog {
    /// Command lines, in order.
    pub heard: Vec<String>,
    /// Mails that it has.
    pub mails: Vec<HandedOn>,
    /// Contents that came to their end, taken or not.
    pub ended: usize,
    pub connections: usize,
    trouble_done: bool,
}

pub struct HopNetwork {
    pub script: Arc<HopScript>,
    pub log: Arc<Mutex<HopLog>>,
}

impl HopNetwork {
    /// One connection's server.
    pub fn peer(&self) -> HopPeer {
        HopPeer {
            script: Arc::clone(&self.script),
            log: Arc::clone(&self.log),
            input: Vec::new(),
            looked: 0,
            phase: Phase::Commands,
            sender: None,
            recipients: Vec::new(),
            body: Vec::new(),
            greeted: false,
        }
    }
}

impl Network for HopNetwork {
    fn connect(&mut self, _: &Target) -> Result<Box<dyn Peer>, String> {
        let mut peer = self.peer();
        if peer.is_trouble(Point::Connect).is_some() {
            return Err("connection refused".into());
        }
        self.log.lock().unwrap().connections += 1;
        Ok(Box::new(peer))
    }
}

enum Phase {
    Commands,
    Content,
    Chunk(usize, bool),
    /// A content that was answered already.
    Swallow,
    Dead,
}

pub struct HopPeer {
    script: Arc<HopScript>,
    log: Arc<Mutex<HopLog>>,
    input: Vec<u8>,
    /// So far a content's end was looked for.
    looked: usize,
    phase: Phase,
    sender: Option<String>,
    recipients: Vec<String>,
    body: Vec<u8>,
    greeted: bool,
}

impl Peer for HopPeer {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.input.extend_from_slice(bytes);
        let mut does = Does::default();
        if !self.greeted {
            self.greeted = true;
            let usual = Does::say("220 hop.example ready\r\n");
            does = self.at(Point::Banner, usual);
        }
        while does.then == Then::Stay {
            let Some(next) = self.next() else { break };
            does.say.extend(next.say);
            does.then = next.then;
        }
        does
    }

    fn tls(&mut self) -> bool {
        self.script.tls
    }
}

impl HopPeer {
    fn is_trouble(&mut self, at: Point) -> Option<TroubleKind> {
        let trouble = self.script.trouble.filter(|trouble| trouble.at == at)?;
        let mut log = self.log.lock().unwrap();
        if log.trouble_done && !trouble.always {
            return None;
        }
        log.trouble_done = true;
        Some(trouble.kind)
    }

    /// What it does at this point: the usual, or its trouble.
    fn at(&mut self, at: Point, usual: Does) -> Does {
        match self.is_trouble(at) {
            None => usual,
            Some(kind) => self.fail(kind),
        }
    }

    fn fail(&mut self, kind: TroubleKind) -> Does {
        match kind {
            TroubleKind::Temporary => Does::say("451 4.3.0 trouble\r\n"),
            TroubleKind::Permanent => Does::say("554 5.3.0 trouble\r\n"),
            TroubleKind::Garbage => Does::say("this is no reply\r\n"),
            TroubleKind::Gone => Does::hangup(),
            TroubleKind::Silent => {
                self.phase = Phase::Dead;
                Does::default()
            }
        }
    }

    fn next(&mut self) -> Option<Does> {
        match self.phase {
            Phase::Dead => None,
            Phase::Commands => {
                let end = self.input.windows(2).position(|two| two == b"\r\n")?;
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line[..end]).into_owned();
                self.log.lock().unwrap().heard.push(line.clone());
                Some(self.command(&line))
            }
            Phase::Content | Phase::Swallow => {
                if self.input.is_empty() {
                    return None;
                }
                if matches!(self.phase, Phase::Content)
                    && let Some(kind) = self.is_trouble(Point::Content)
                {
                    self.phase = Phase::Swallow;
                    return Some(self.fail(kind));
                }
                let end = if self.input.starts_with(b".\r\n") {
                    0
                } else {
                    let from = self.looked;
                    self.looked = self.input.len().saturating_sub(4);
                    from + self.input[from..].windows(5).position(|five| five == b"\r\n.\r\n")? + 2
                };
                self.looked = 0;
                let stuffed: Vec<u8> = self.input.drain(..end + 3).take(end).collect();
                let swallowed = matches!(self.phase, Phase::Swallow);
                self.phase = Phase::Commands;
                if swallowed {
                    self.reset();
                    return Some(Does::default());
                }
                self.body = unstuffed(&stuffed);
                Some(self.content_ended())
            }
            Phase::Chunk(size, last) => {
                if self.input.len() < size {
                    return None;
                }
                self.body.extend(self.input.drain(..size));
                self.phase = Phase::Commands;
                Some(if last { self.content_ended() } else { Does::say("250 2.0.0 chunk\r\n") })
            }
        }
    }

    fn scripted(&self, line: &str) -> Option<String> {
        let line = line.to_ascii_uppercase();
        self.script.replies.iter().find_map(|(command, reply)| {
            let command = command.to_ascii_uppercase();
            let (nth, command) = match command.split_once(' ') {
                Some((number, rest)) if number.parse::<usize>().is_ok() => (number.parse::<usize>().ok(), rest),
                _ => (None, &*command),
            };
            let log = self.log.lock().unwrap();
            let count = log.heard.iter().filter(|heard| heard.to_ascii_uppercase().starts_with(command)).count();
            (line.starts_with(command) && nth.is_none_or(|nth| nth == count)).then(|| reply.clone())
        })
    }

    fn command(&mut self, line: &str) -> Does {
        let upper = line.to_ascii_uppercase();
        if let Some(reply) = self.scripted(line) {
            return match &*reply {
                "gone" => Does::hangup(),
                _ => {
                    if reply.starts_with("354") {
                        self.phase = Phase::Content;
                    }
                    if reply.starts_with('2') && upper.starts_with("STARTTLS") {
                        self.sender = None;
                    }
                    Does::say(format!("{reply}\r\n"))
                }
            };
        }
        let word = upper.split(' ').next().unwrap_or_default();
        match word {
            "EHLO" | "LHLO" if (word == "LHLO") != self.script.lmtp => Does::say("500 5.5.1 not here\r\n"),
            "EHLO" | "LHLO" if !self.script.extended => self.at(Point::Hello, Does::say("502 5.5.1 what?\r\n")),
            "EHLO" | "LHLO" => {
                self.reset();
                let mut lines = vec!["hop.example".to_owned()];
                lines.extend(self.script.extensions.iter().cloned());
                let last = lines.len() - 1;
                let text: String = lines
                    .iter()
                    .enumerate()
                    .map(|(index, line)| format!("250{}{line}\r\n", if index == last { ' ' } else { '-' }))
                    .collect();
                self.at(Point::Hello, Does::say(text))
            }
            "HELO" => Does::say("250 hop.example\r\n"),
            "STARTTLS" => Does::say("220 2.0.0 go on\r\n"),
            "XFORWARD" => Does::say("250 2.0.0 noted\r\n"),
            "XCLIENT" => Does::say("220 hop.example ready\r\n"),
            "MAIL" if self.sender.is_some() => Does::say("503 5.5.1 nested MAIL\r\n"),
            "MAIL" => {
                let does = self.at(Point::Sender, Does::say("250 2.1.0 sender\r\n"));
                if does.say.starts_with(b"250") {
                    self.sender = Some(address(line));
                }
                does
            }
            "RCPT" if self.sender.is_none() => Does::say("503 5.5.1 no MAIL\r\n"),
            "RCPT" => {
                let does = self.at(Point::Recipient, Does::say("250 2.1.5 recipient\r\n"));
                if does.say.starts_with(b"250") {
                    self.recipients.push(address(line));
                }
                does
            }
            "DATA" if self.recipients.is_empty() => Does::say("503 5.5.1 no recipients\r\n"),
            "DATA" => {
                let does = self.at(Point::Data, Does::say("354 go on\r\n"));
                if does.say.starts_with(b"354") {
                    self.phase = Phase::Content;
                }
                does
            }
            "BDAT" => {
                let size = line.split(' ').nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
                self.phase = Phase::Chunk(size, upper.ends_with("LAST"));
                Does::default()
            }
            "RSET" => {
                self.reset();
                self.at(Point::Reset, Does::say("250 2.0.0 forgotten\r\n"))
            }
            "QUIT" => Does { then: Then::Hangup, ..Does::say("221 2.0.0 bye\r\n") },
            _ => Does::say("502 5.5.1 what?\r\n"),
        }
    }

    fn content_ended(&mut self) -> Does {
        self.log.lock().unwrap().ended += 1;
        let recipients = std::mem::take(&mut self.recipients);
        let sender = self.sender.take().unwrap_or_default();
        let content = std::mem::take(&mut self.body);
        let mut taken = Vec::new();
        let mut all = Does::default();
        let count = if self.script.lmtp { recipients.len() } else { 1 };
        let mut broken = false;
        for recipient in recipients.iter().take(count) {
            // One that fails after it has the mail has it.
            let kind = self.is_trouble(Point::Final);
            let refuses = matches!(kind, Some(TroubleKind::Temporary | TroubleKind::Permanent));
            let line = if self.script.lmtp { format!("final {recipient}") } else { "final".into() };
            let scripted = self.scripted(&line);
            if !refuses && scripted.as_ref().is_none_or(|reply| reply.starts_with('2')) {
                taken.push(recipient.clone());
                if !self.script.lmtp {
                    taken.clone_from(&recipients);
                }
            }
            if !broken {
                let usual = scripted.unwrap_or_else(|| "250 2.0.0 taken".into());
                let does = match kind {
                    Some(kind) => self.fail(kind),
                    None => Does::say(format!("{usual}\r\n")),
                };
                all.say.extend(does.say);
                all.then = does.then;
                broken = does.then != Then::Stay || matches!(self.phase, Phase::Dead);
            }
        }
        if !taken.is_empty() {
            self.log.lock().unwrap().mails.push(HandedOn { sender, recipients: taken, content, held: false });
        }
        all
    }

    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
        self.body.clear();
    }
}

fn address(line: &str) -> String {
    line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.into()).unwrap_or_default()
}

/// Without the dots doubled at line starts.
fn unstuffed(stuffed: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(stuffed.len());
    let mut line_start = true;
    for &octet in stuffed {
        if !(line_start && octet == b'.') {
            content.push(octet);
        }
        line_start = octet == b'\n';
    }
    content
}
