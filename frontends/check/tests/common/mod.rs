//! What the front end's tests share: a scripted client, and settings.

// Each test program uses its own part of it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod client;

use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Judge, NoNetwork, Peer, Slicing, Stage};
use checkpost_adapter::report::Report;
use checkpost_check::{CHECK, Check, Link, Settings, Written};
use checkpost_core::config::{Document, Located, Origins, Problems};
use checkpost_core::{Mail, Outcome, Verdict};
use client::Client;

/// A closing report, kept.
#[derive(Debug, Clone)]
pub struct Closing {
    /// `<r@x>: fate, …`
    pub text: String,
    pub class: String,
    pub user: Option<String>,
    pub size: u64,
}

/// What a session needs.
pub struct Setup {
    pub settings: Settings,
    pub link: Link,
    pub judge: Option<Judge>,
    pub slicing: Slicing,
    pub drain_at: Option<usize>,
    pub disk: usize,
}

impl Setup {
    /// With these lines in the way's configuration.
    pub fn new(lines: &str) -> Self {
        Self {
            settings: settings(lines).unwrap(),
            link: Link { memory_limit: 1 << 20, ..Link::default() },
            judge: None,
            slicing: Slicing::Whole,
            drain_at: None,
            disk: usize::MAX,
        }
    }

    #[must_use]
    pub fn judged(mut self, outcomes: impl Fn(&Mail) -> Vec<Outcome> + 'static) -> Self {
        self.judge =
            Some(Box::new(move |mail| Verdict { outcomes: outcomes(mail), findings: Vec::new().into(), score: 0.0 }));
        self
    }

    #[must_use]
    pub fn sliced(mut self, slicing: Slicing) -> Self {
        self.slicing = slicing;
        self
    }

    /// Plays a client on one connection. The closing reports.
    pub fn play(mut self, client: &Client) -> Vec<Closing> {
        let mut stage = self.stage();
        let connection = client.connect(&stage.files);
        self.session(&mut stage, connection)
    }

    /// Plays octets, with or without a descriptor, on one connection: what was answered, and the closing reports.
    pub fn play_octets(mut self, octets: &[u8], descriptor: Option<&[u8]>) -> (String, Vec<Closing>) {
        let mut stage = self.stage();
        descriptor.into_iter().for_each(|content| stage.files.send(content.to_vec()));
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let peer = client::Octets { octets: octets.to_vec(), heard: Arc::clone(&heard) };
        let closings = self.session(&mut stage, Box::new(peer));
        let heard = String::from_utf8_lossy(&heard.lock().unwrap()).replace('\0', "|");
        (heard, closings)
    }

    fn stage(&mut self) -> Stage {
        let judge = self.judge.take().unwrap_or_else(|| {
            Box::new(|mail: &Mail| Verdict::uniform(&Outcome::deliver(), mail.envelope.recipients.len(), Vec::new()))
        });
        let mut stage = Stage::new(CHECK.abilities, judge, Box::new(NoNetwork), self.slicing);
        stage.drain_at = self.drain_at;
        stage.disk = self.disk;
        stage
    }

    fn session(&mut self, stage: &mut Stage, peer: Box<dyn Peer>) -> Vec<Closing> {
        let closings: Arc<Mutex<Vec<Closing>>> = Arc::default();
        let kept = Arc::clone(&closings);
        let reports = Box::new(move |report: Report<'_>| {
            assert_eq!(report.recipients.len(), report.fates.len());
            let fates = report.recipients.iter().zip(report.fates).map(|(to, fate)| format!("{to}: {fate}"));
            kept.lock().unwrap().push(Closing {
                text: fates.collect::<Vec<_>>().join(", "),
                class: report.origin.class.to_string(),
                user: report.origin.user.as_deref().map(str::to_owned),
                size: report.size,
            });
        });
        let origins = Arc::new(Origins::default());
        let (settings, link, now) = (Arc::new(self.settings.clone()), self.link.clone(), stage.now());
        let mut session = Check::new(settings, CHECK.abilities, origins, link, now, reports);
        stage.play(&mut session, peer);
        closings.lock().unwrap().clone()
    }
}

pub fn settings(lines: &str) -> Result<Settings, String> {
    let text = format!("[[way]]\nkind = \"check\"\nlisten = \"unix:/run/check.sock\"\n{lines}");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("test.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().map_err(|error| format!("{text}\n{error:?}"))?;
    Settings::new(&written.remove(0).value).map_err(|error| error.to_string())
}
