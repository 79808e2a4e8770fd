//! What policy wants done with a mail, for each recipient, in words that no MTA owns.

use std::sync::Arc;

use crate::edit::{Edit, HeaderText};
use crate::finding::Finding;
use crate::reply::{Deferral, Rejection, Reply};

/// The outcome for every recipient, and what led to it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// One per recipient, in the envelope's order. A mail without recipients has none.
    pub outcomes: Vec<Outcome>,
    /// Everything the filters found.
    pub findings: Arc<[Finding]>,
    /// The mail's score: the sum over spam findings, before rules added to it.
    pub score: f32,
}

/// What one recipient gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The mail's fate.
    pub disposition: Disposition,
    /// What to change on the way to this recipient; shared, so that equal lists are cheap.
    pub edits: Arc<[Edit]>,
    /// Keep a copy.
    pub quarantine: bool,
    /// The rule that decided, for logs. `None`: no rule held, the mail is delivered.
    pub rule: Option<Arc<str>>,
}

/// A mail's fate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Hand it on.
    Deliver,
    /// Refuse it for good.
    Reject(Rejection),
    /// Refuse it for now.
    Defer(Deferral),
    /// Take it and hand it to nobody.
    Discard,
    /// Let the MTA take it and keep it in its own quarantine, with the edits; the reason, not empty.
    Hold(HeaderText),
}

impl Disposition {
    /// One word, for logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Reject(_) => "reject",
            Self::Defer(_) => "defer",
            Self::Discard => "discard",
            Self::Hold(_) => "hold",
        }
    }

    /// What a peer is told of it, when it is refused.
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Reject(rejection) => Some(rejection.reply()),
            Self::Defer(deferral) => Some(deferral.reply()),
            Self::Deliver | Self::Discard | Self::Hold(_) => None,
        }
    }

    /// Does the MTA get the mail, to deliver or to hold it?
    pub fn is_handed_on(&self) -> bool {
        matches!(self, Self::Deliver | Self::Hold(_))
    }
}

impl Outcome {
    /// Delivered as it is; no rule held.
    pub fn deliver() -> Self {
        Self { disposition: Disposition::Deliver, edits: Arc::from([]), quarantine: false, rule: None }
    }

    /// Deferred by this rule (or by the program itself, then its name is in angle brackets).
    pub fn defer(reply: Deferral, rule: &str) -> Self {
        Self {
            disposition: Disposition::Defer(reply),
            edits: Arc::from([]),
            quarantine: false,
            rule: Some(rule.into()),
        }
    }
}

impl Verdict {
    /// The same outcome for each of so many recipients.
    pub fn uniform(outcome: &Outcome, recipients: usize, findings: Vec<Finding>) -> Self {
        let score = findings.iter().map(Finding::score).sum::<f32>() + 0.0;
        Self { outcomes: vec![outcome.clone(); recipients], findings: findings.into(), score }
    }
}
