//! Rules: from findings to a verdict. (The rules' language comes with its own commit.)

use crate::finding::{Finding, Kind};
use crate::mail::Mail;
use crate::reply::Deferral;
use crate::verdict::{Outcome, Verdict};

/// The rules, checked and ready. The default has no rules but the one that is always there: what
/// was not scanned is deferred.
#[derive(Debug, Clone, Default)]
pub struct Policy {}

/// Every rule tried and why it held or not.
#[derive(Debug, Clone, Default)]
pub struct Trace {}

impl Policy {
    /// One outcome per recipient.
    pub fn decide(&self, mail: &Mail, findings: Vec<Finding>) -> Verdict {
        let unscanned = findings.iter().any(|f| matches!(f.kind, Kind::Unscanned(_)));
        let outcome = if unscanned { Outcome::defer(Deferral::unchecked(), "<unscanned>") } else { Outcome::deliver() };
        Verdict::uniform(&outcome, mail.envelope.recipients.len(), findings)
    }

    /// Like [`Policy::decide`], with the trace.
    pub fn explain(&self, mail: &Mail, findings: Vec<Finding>) -> (Verdict, Trace) {
        (self.decide(mail, findings), Trace::default())
    }
}
