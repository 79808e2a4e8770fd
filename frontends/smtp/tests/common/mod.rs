//! What the proxy's tests share: settings, a scripted next hop, clients.

// Each test program uses its own part of it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::type_complexity)]

pub mod client;
pub mod hop;
pub mod talk;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use checkpost_adapter::conformance::{HandedOn, Judge, Peer, Slicing, Stage};
use checkpost_adapter::report::{Fate, Report};
use checkpost_core::abilities::Replies;
use checkpost_core::config::{Document, Located, Origins, Problems};
use checkpost_core::{Abilities, Mail, MailId, Origin, Outcome, Verdict};
use checkpost_smtp::{Defaults, Protocol, Proxy, SMTP, Settings, Written};
use hop::{HopLog, HopNetwork, HopScript};

/// A closing report, kept.
#[derive(Debug, Clone)]
pub struct Closing {
    pub id: MailId,
    pub origin: Origin,
    pub sender: String,
    pub recipients: Vec<String>,
    pub fates: Vec<Fate>,
}

impl Closing {
    /// `r@x: fate, …`
    pub fn text(&self) -> String {
        let fates = self.recipients.iter().zip(&self.fates).map(|(to, fate)| format!("{to}: {fate}"));
        fates.collect::<Vec<_>>().join(", ")
    }
}

/// What a session needs, and what came of it.
pub struct Setup {
    pub settings: Settings,
    pub peer: checkpost_smtp::Peer,
    pub script: HopScript,
    pub slicing: Slicing,
    pub judge: Option<Judge>,
    pub drain_at: Option<usize>,
    pub disk: usize,
    pub bound: usize,
}

impl Setup {
    /// With these lines of configuration beside the necessary ones.
    pub fn new(lines: &str) -> Self {
        Self {
            settings: settings(lines),
            peer: checkpost_smtp::Peer {
                address: Some("192.0.2.1".parse().unwrap()),
                port: Some(4711),
                tls: false,
                refuse: None,
                pressed: None,
            },
            script: HopScript::default(),
            slicing: Slicing::Whole,
            judge: None,
            drain_at: None,
            disk: usize::MAX,
            bound: 100_000,
        }
    }

    #[must_use]
    pub fn hop(mut self, change: impl FnOnce(&mut HopScript)) -> Self {
        change(&mut self.script);
        self
    }

    #[must_use]
    pub fn sliced(mut self, slicing: Slicing) -> Self {
        self.slicing = slicing;
        self
    }

    #[must_use]
    pub fn judged(mut self, outcomes: impl Fn(&Mail) -> Vec<Outcome> + 'static) -> Self {
        self.judge =
            Some(Box::new(move |mail| Verdict { outcomes: outcomes(mail), findings: Vec::new().into(), score: 0.0 }));
        self
    }

    /// A stage, and what is written down while sessions play on it.
    pub fn theatre(self) -> Theatre {
        let mut script = self.script;
        script.lmtp |= self.settings.router.all_hops().all(|hop| hop.protocol == Protocol::Lmtp);
        let log = Arc::new(Mutex::new(HopLog::default()));
        let network = HopNetwork { script: Arc::new(script), log: Arc::clone(&log) };
        let judge = self.judge.unwrap_or_else(|| {
            Box::new(|mail: &Mail| Verdict::uniform(&Outcome::deliver(), mail.envelope.recipients.len(), Vec::new()))
        });
        let mut stage = Stage::new(abilities(self.settings.protocol), judge, Box::new(network), self.slicing);
        stage.drain_at = self.drain_at;
        stage.disk = self.disk;
        stage.bound = self.bound;
        Theatre { settings: Arc::new(self.settings), peer: self.peer, stage, hop: log, closings: Arc::default() }
    }
}

pub struct Theatre {
    pub settings: Arc<Settings>,
    pub peer: checkpost_smtp::Peer,
    pub stage: Stage,
    pub hop: Arc<Mutex<HopLog>>,
    pub closings: Arc<Mutex<Vec<Closing>>>,
}

impl Theatre {
    /// One session with this client.
    pub fn play(&mut self, client: Box<dyn Peer>) {
        let mut session = self.session(self.stage.now());
        self.stage.play(&mut session, client);
    }

    fn session(&self, now: Instant) -> Proxy {
        let closings = Arc::clone(&self.closings);
        let reports = Box::new(move |report: Report<'_>| {
            assert_eq!(report.recipients.len(), report.fates.len());
            closings.lock().unwrap().push(Closing {
                id: report.id,
                origin: report.origin.clone(),
                sender: report.sender.as_str().to_owned(),
                recipients: report.recipients.iter().map(|to| to.as_str().to_owned()).collect(),
                fates: report.fates.to_vec(),
            });
        });
        Proxy::new(Arc::clone(&self.settings), Arc::new(Origins::default()), self.peer.clone(), now, reports)
    }

    pub fn closing_texts(&self) -> Vec<String> {
        self.closings.lock().unwrap().iter().map(Closing::text).collect()
    }
}

/// What the proxy declares towards clients of this protocol.
pub fn abilities(protocol: Protocol) -> Abilities {
    let replies = if protocol == Protocol::Lmtp { Replies::PerRecipient } else { Replies::PerMessage };
    Abilities { replies, ..SMTP }
}

pub fn settings(lines: &str) -> Settings {
    let next_hop = if lines.contains("next_hop =") { "" } else { "next_hop = \"127.0.0.1:10025\"\n" };
    let received = if lines.contains("received =") { "" } else { "received = false\n" };
    let text = format!(
        "[[way]]\nkind = \"smtp-proxy\"\nlisten = \"127.0.0.1:25\"\nhostname = \"proxy.example\"\n{next_hop}{received}{lines}"
    );
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("test.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    Settings::new(&written.remove(0).value, &Defaults::default()).unwrap()
}

pub fn plain() -> Setup {
    Setup::new("")
}

pub fn mail(sender: &str, recipients: &[&str], content: &str) -> HandedOn {
    HandedOn {
        sender: sender.into(),
        recipients: recipients.iter().map(ToString::to_string).collect(),
        content: content.as_bytes().to_vec(),
        held: false,
    }
}

pub fn handed_on(theatre: &Theatre) -> Vec<HandedOn> {
    theatre.hop.lock().unwrap().mails.clone()
}

pub fn nothing(theatre: &Theatre) {
    assert_eq!(handed_on(theatre), []);
}

/// A greeting and an envelope that is taken.
pub const ENVELOPE: &str = "S: 220
    C: EHLO c
    S: 250
    C: MAIL FROM:<a@x>
    S: 250 2.1.0
    C: RCPT TO:<b@x>
    S: 250 2.1.5
    ";

/// After the envelope.
pub fn check_after_envelope(name: &str, setup: impl Fn() -> Setup, rest: &str, then: impl Fn(&Theatre)) {
    talk::check(name, setup, &format!("{ENVELOPE}{rest}"), then);
}
