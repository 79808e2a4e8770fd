//! What the front end's tests share: a scripted mail server that speaks milter, and settings.

// Each test program uses its own part of it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod mta;
pub mod talk;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use checkpost_adapter::conformance::{Judge, NoNetwork, Peer, Slicing, Stage};
use checkpost_adapter::report::Report;
use checkpost_core::config::{Document, Lists, Located, Origins, Problems};
use checkpost_core::policy::{Names, Policy};
use checkpost_core::{Mail, Origin, Outcome, Verdict};
use checkpost_milter::{Defaults, Link, MILTER, Milter, Settings, Written};

/// As in Postfix and Sendmail.
pub const DEFAULTS: Defaults = Defaults { mta_timeout: std::time::Duration::from_secs(300), removes_mailboxes: false };

/// A closing report, kept.
#[derive(Debug, Clone)]
pub struct Closing {
    pub origin: Origin,
    pub sender: String,
    /// `r@x: fate, …`
    pub text: String,
    pub size: u64,
}

/// What a session needs.
pub struct Setup {
    pub settings: Settings,
    pub policy: Policy,
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
            policy: Policy::default(),
            link: Link { tcp: false, refuse: None, memory_limit: 1 << 20 },
            judge: None,
            slicing: Slicing::Whole,
            drain_at: None,
            disk: usize::MAX,
        }
    }

    /// With these rules; the engine finds nothing, and they decide.
    #[must_use]
    pub fn rules(mut self, rules: &str) -> Self {
        let mut problems = Problems::default();
        let mut document = Document::parse("test.toml", rules, &mut problems);
        let names = Names { filters: &[], ways: &["milter"], lists: &Lists::default() };
        self.policy = Policy::load(&mut document, &names, &mut problems);
        problems.into_result().unwrap_or_else(|error| panic!("{rules}\n{error:?}"));
        let policy = self.policy.clone();
        self.judge = Some(Box::new(move |mail| policy.decide(mail, Vec::new())));
        self
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

    /// Plays one connection from this mail server; the closing reports.
    pub fn play(self, mta: Box<dyn Peer>) -> Vec<Closing> {
        let judge = self.judge.unwrap_or_else(|| {
            Box::new(|mail: &Mail| Verdict::uniform(&Outcome::deliver(), mail.envelope.recipients.len(), Vec::new()))
        });
        let mut stage = Stage::new(MILTER, judge, Box::new(NoNetwork), self.slicing);
        stage.drain_at = self.drain_at;
        stage.disk = self.disk;
        let closings: Arc<Mutex<Vec<Closing>>> = Arc::default();
        let kept = Arc::clone(&closings);
        let reports = Box::new(move |report: Report<'_>| {
            assert_eq!(report.recipients.len(), report.fates.len());
            let fates = report.recipients.iter().zip(report.fates).map(|(to, fate)| format!("{to}: {fate}"));
            kept.lock().unwrap().push(Closing {
                origin: report.origin.clone(),
                sender: report.sender.as_str().to_owned(),
                text: fates.collect::<Vec<_>>().join(", "),
                size: report.size,
            });
        });
        let origins = Arc::new(Origins::default());
        let now: Instant = stage.now();
        let mut session = Milter::new(Arc::new(self.settings), self.policy, origins, self.link, now, reports);
        stage.play(&mut session, mta);
        let all = closings.lock().unwrap();
        all.clone()
    }
}

pub fn settings(lines: &str) -> Result<Settings, String> {
    let text = format!("[[way]]\nkind = \"milter\"\nlisten = \"127.0.0.1:25\"\n{lines}");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("test.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().map_err(|error| format!("{text}\n{error:?}"))?;
    Settings::new(&written.remove(0).value, &DEFAULTS).map_err(|error| error.to_string())
}
