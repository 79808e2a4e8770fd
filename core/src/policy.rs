//! Rules: from findings to one outcome for each recipient.
//!
//! It knows no way in: what a way cannot do, [`crate::fit()`] steps down. It reads no scanner and
//! no clock.
//!
//! # How rules are read
//!
//! `[[rule]]` tables are tried in the order of the files, for each recipient. A rule holds when all
//! conditions in its `when` hold; a list means any of its items; `any`, `all` and `not` combine. The
//! keys `finding`, `name`, `class`, `filter` and `unscanned` of one table ask for one and the same
//! finding. A rule that delivers, rejects, defers or discards stops the rules behind it, unless it
//! says `go_on = true`; any other goes on, unless it says `stop = true`. Of several dispositions the
//! last one counts. A mail that no rule disposes of is delivered.
//!
//! # Unscanned is not clean
//!
//! 1. A finding of kind `unscanned` fits only a condition that names it (`finding = "unscanned"` or
//!    `unscanned = "timeout"`). A rule `filter = "clamd"` does not hold because clamd is down.
//! 2. A mail that the rules reject, defer or discard has its outcome: nobody gets it. So malware
//!    that one filter found is refused although another filter was down.
//! 3. A mail that the rules would deliver, by a rule or because none held, is delivered only if
//!    for every unscanned finding either the rule that delivers names it, or the filter's
//!    `when_unscanned` for this origin says `deliver`. So a rule that delivers what comes from a
//!    good friend does not deliver what nobody looked at. Of several filters the strictest counts:
//!    defer before reject before deliver, since not having looked is our failure.
//! 4. Whatever is delivered unscanned carries `X-Checkpost-Unscanned: FILTER REASON`.

mod condition;
mod early;
mod evaluate;
mod load;
mod reach;
mod risks;
mod rule;
mod text;
mod trace;
mod unscanned;
mod uses;
mod written;

use std::sync::Arc;

use crate::config::{Document, Lists, Problems};
use crate::finding::Finding;
use crate::mail::Mail;
use crate::verdict::Verdict;

pub use early::{Early, Known, Stage};
pub use load::Names;
pub use risks::Risk;
pub use trace::{Asked, Recipients, Trace, Tried};
pub use unscanned::{Fate, WhenUnscanned};
pub use uses::Uses;

/// The rules that apply when the configuration has none.
pub const DEFAULT_RULES: &str = include_str!("policy/default-rules.toml");
/// What stands for a file name where these rules are shown.
pub const DEFAULT_RULES_NAME: &str = "<built-in rules>";
/// The header field that a mail delivered unscanned carries.
pub const UNSCANNED_HEADER: &str = "X-Checkpost-Unscanned";

/// The rules, checked and ready. The default has no rules but the one that is always there: what
/// was not scanned is deferred.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Arc<[rule::Rule]>,
    unscanned: Arc<[(Arc<str>, WhenUnscanned)]>,
}

impl Policy {
    /// Takes the list `[[rule]]` out of a document; the built-in rules when there is none, and they
    /// are then part of the document as if they were a file. What is wrong is in `problems`, and
    /// the policy is then of no use.
    pub fn load(document: &mut Document, names: &Names<'_>, problems: &mut Problems) -> Self {
        load::load(document, names, problems)
    }

    /// The built-in rules; what was not scanned is deferred.
    pub fn built_in() -> Self {
        let mut problems = Problems::default();
        let mut document = Document::parse(DEFAULT_RULES_NAME, DEFAULT_RULES, &mut problems);
        let names = Names { filters: &[], ways: &[], lists: &Lists::default() };
        let policy = Self::load(&mut document, &names, &mut problems);
        debug_assert!(problems.is_empty(), "{problems}");
        policy
    }

    /// One outcome per recipient.
    pub fn decide(&self, mail: &Mail, findings: Vec<Finding>) -> Verdict {
        evaluate::decide(self, mail, findings).0
    }

    /// Like [`Policy::decide`], with every rule tried and why it held or not.
    pub fn explain(&self, mail: &Mail, findings: Vec<Finding>) -> (Verdict, Trace) {
        let (verdict, groups) = evaluate::decide(self, mail, findings);
        let trace = trace::trace(self, mail, &verdict, &groups);
        (verdict, trace)
    }
}

#[cfg(test)]
mod tests;
