//! What the front end's tests share: settings, a client that says octets, and the closing reports.

// Each test program uses its own part of it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use checkpost_adapter::Session;
use checkpost_adapter::conformance::{Does, Judge, NoNetwork, Peer, Slicing, Stage, Then};
use checkpost_adapter::report::Report;
use checkpost_core::config::{Document, Lists, Located, Origins, Problems};
use checkpost_core::policy::{Names, Policy};
use checkpost_core::{Abilities, Finding, Kind, Mail, Outcome, Verdict};
use checkpost_scan::{Clamd, Defaults, Link, Protocol, Rspamd, Scan, Settings, Spamd, Written, kinds};

/// Clean, as the default.
pub fn deliver(mail: &Mail) -> Verdict {
    Verdict::uniform(&Outcome::deliver(), mail.envelope.recipients.len(), Vec::new())
}

/// As Checkpost's own rules have it, with these findings.
pub fn by_rules(findings: Vec<Finding>) -> impl Fn(&Mail) -> Verdict {
    let (mut problems, lists) = (Problems::default(), Lists::default());
    let mut empty = Document::parse("rules.toml", "", &mut problems);
    let names = Names { filters: &[], ways: &[], lists: &lists };
    let policy = Policy::load(&mut empty, &names, &mut problems);
    move |mail| policy.decide(mail, findings.clone())
}

pub fn finding(kind: Kind, name: &str) -> Finding {
    Finding::new(kind, &"built-in".into(), name)
}

/// A closing report, kept.
#[derive(Debug, Clone)]
pub struct Closing {
    /// `<r@x>: fate, …`
    pub text: String,
    pub sender: String,
    pub class: String,
    pub client: Option<String>,
    pub size: u64,
}

/// What a session needs.
pub struct Setup {
    pub protocol: Protocol,
    pub abilities: Abilities,
    pub settings: Settings,
    pub link: Link,
    pub judge: Option<Judge>,
    pub slicing: Slicing,
    pub drain_at: Option<usize>,
    pub disk: usize,
    pub descriptors: Vec<Vec<u8>>,
    pub named: Vec<(PathBuf, Vec<u8>)>,
    pub ends: bool,
}

impl Setup {
    /// With these lines in the way's configuration.
    pub fn new(protocol: Protocol, lines: &str) -> Self {
        let (settings, abilities) = settings(protocol, lines).unwrap();
        Self {
            protocol,
            abilities,
            settings,
            link: Link { memory_limit: 1 << 20, ..Link::default() },
            judge: None,
            slicing: Slicing::Whole,
            drain_at: None,
            disk: usize::MAX,
            descriptors: Vec::new(),
            named: Vec::new(),
            ends: false,
        }
    }

    #[must_use]
    pub fn judged(mut self, verdict: impl Fn(&Mail) -> Verdict + 'static) -> Self {
        self.judge = Some(Box::new(verdict));
        self
    }

    #[must_use]
    pub fn sliced(mut self, slicing: Slicing) -> Self {
        self.slicing = slicing;
        self
    }

    /// Says these octets at once on one connection: what was answered, and the closing reports.
    pub fn say(mut self, octets: impl AsRef<[u8]>) -> (String, Vec<Closing>) {
        let mut stage = self.stage();
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let ends = self.ends;
        let peer = Octets { octets: octets.as_ref().to_vec(), heard: Arc::clone(&heard), ends };
        let closings = self.session(&mut stage, Box::new(peer));
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).replace('\0', "|");
        (heard, closings)
    }

    pub fn stage(&mut self) -> Stage {
        let judge = self.judge.take().unwrap_or_else(|| Box::new(deliver));
        let mut stage = Stage::new(self.abilities, judge, Box::new(NoNetwork), self.slicing);
        stage.drain_at = self.drain_at;
        stage.disk = self.disk;
        self.descriptors.drain(..).for_each(|content| stage.files.send(content));
        stage.named.extend(self.named.drain(..));
        stage
    }

    pub fn session(&self, stage: &mut Stage, peer: Box<dyn Peer>) -> Vec<Closing> {
        let closings: Arc<Mutex<Vec<Closing>>> = Arc::default();
        let kept = Arc::clone(&closings);
        let reports = Box::new(move |report: Report<'_>| {
            assert_eq!(report.recipients.len(), report.fates.len());
            let fates = report.recipients.iter().zip(report.fates).map(|(to, fate)| format!("{to}: {fate}"));
            kept.lock().unwrap().push(Closing {
                text: fates.collect::<Vec<_>>().join(", "),
                sender: report.sender.to_string(),
                class: report.origin.class.to_string(),
                client: report.origin.client.map(|client| client.to_string()),
                size: report.size,
            });
        });
        let (settings, link, now) = (Arc::new(self.settings.clone()), self.link.clone(), stage.now());
        let required = self.settings.required;
        let origins = Arc::new(Origins::default());
        let mut session: Box<dyn Session> = match self.protocol {
            Protocol::Clamd => Box::new(Scan::new(Clamd::default(), settings, origins, link, now, reports)),
            Protocol::Spamd => {
                Box::new(Scan::new(Spamd::new(required, self.abilities), settings, origins, link, now, reports))
            }
            Protocol::Rspamd => {
                let rspamd = Rspamd::new(required, self.abilities, Arc::default());
                Box::new(Scan::new(rspamd, settings, origins, link, now, reports))
            }
        };
        stage.play(&mut *session, peer);
        closings.lock().unwrap().clone()
    }
}

/// Says some octets at once, and hears.
struct Octets {
    octets: Vec<u8>,
    heard: Arc<Mutex<Vec<u8>>>,
    /// Half-closes behind them.
    ends: bool,
}

impl Peer for Octets {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.heard.lock().unwrap().extend_from_slice(bytes);
        if !bytes.is_empty() {
            return Does::default();
        }
        Does { then: if self.ends { Then::Finish } else { Then::Stay }, ..Does::say(&self.octets) }
    }

    fn idle(&mut self) -> Does {
        Does::hangup()
    }
}

/// Says a request, hears its answer, says the next.
pub struct Client {
    pub requests: VecDeque<Vec<u8>>,
    /// Goes within the request that has so many before it.
    pub abort: Option<usize>,
    /// How long the first answer is, when it is whole.
    pub whole: fn(&[u8]) -> Option<usize>,
    pub answers: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Of an answer that is not whole.
    pub heard: Arc<Mutex<Vec<u8>>>,
    begun: bool,
}

impl Client {
    pub fn new(requests: Vec<Vec<u8>>, abort: Option<usize>, whole: fn(&[u8]) -> Option<usize>) -> Self {
        Self { requests: requests.into(), abort, whole, answers: Arc::default(), heard: Arc::default(), begun: false }
    }

    fn next(&mut self) -> Does {
        let Some(request) = self.requests.pop_front() else {
            return Does { then: Then::Finish, ..Does::default() };
        };
        if self.abort == Some(self.answers.lock().unwrap().len()) {
            return Does { then: Then::Hangup, ..Does::say(&request[..request.len() * 2 / 3]) };
        }
        Does::say(request)
    }
}

impl Peer for Client {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        if !std::mem::replace(&mut self.begun, true) {
            return self.next();
        }
        let mut heard = self.heard.lock().unwrap();
        heard.extend_from_slice(bytes);
        let Some(length) = (self.whole)(&heard) else { return Does::default() };
        assert_eq!(length, heard.len(), "nothing comes behind an answer");
        self.answers.lock().unwrap().push(std::mem::take(&mut *heard));
        drop(heard);
        self.next()
    }
}

pub fn settings(protocol: Protocol, lines: &str) -> Result<(Settings, Abilities), String> {
    let (kind, defaults): (_, Defaults) =
        kinds().into_iter().find(|(_, defaults)| defaults.protocol == protocol).unwrap();
    let text = format!("[[way]]\nkind = \"{}\"\nlisten = \"unix:/run/scan.sock\"\n{lines}", kind.name);
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("test.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().map_err(|error| format!("{text}\n{error:?}"))?;
    let settings = Settings::new(&written.remove(0).value, &defaults).map_err(|error| error.to_string())?;
    let abilities = settings.within(kind.abilities);
    Ok((settings, abilities))
}

/// A stream as clamd takes it, in chunks of so many octets.
pub fn chunks(content: &[u8], size: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for chunk in content.chunks(size) {
        stream.extend_from_slice(&u32::try_from(chunk.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(chunk);
    }
    stream.extend_from_slice(&[0; 4]);
    stream
}

/// A mail as Exim shows it, behind its lines.
pub fn exim(sender: &str, recipients: &[impl AsRef<str>], content: &[u8]) -> Vec<u8> {
    let mut all = b"From MAILER-DAEMON Fri Nov 27 00:00:00 2026\n".to_vec();
    if !sender.is_empty() {
        all.extend_from_slice(format!("X-Envelope-From: <{sender}>\n").as_bytes());
    }
    let recipients: Vec<&str> = recipients.iter().map(AsRef::as_ref).collect();
    all.extend_from_slice(format!("X-Envelope-To: {}\n", recipients.join(", ")).as_bytes());
    all.extend_from_slice(content);
    all
}
