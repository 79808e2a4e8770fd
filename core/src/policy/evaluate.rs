//! The rules, one after the other, for each recipient; recipients of the same result share it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::edit::{Edit, HeaderField, HeaderName, HeaderText};
use crate::finding::{Finding, Kind, Unscanned};
use crate::mail::{Address, Mail};
use crate::reply::{Deferral, Rejection};
use crate::verdict::{Disposition, Outcome, Verdict};

use super::condition::{Case, Condition, Facts, Matched};
use super::text::Names;
use super::unscanned::Fate;
use super::{Policy, UNSCANNED_HEADER};

/// What the rules made of one recipient: which rules held, and for which findings.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Held(pub(super) Vec<(usize, Matched)>);

/// Recipients that the same rules hold for.
pub(super) struct Group {
    pub(super) held: Held,
    pub(super) outcome: Outcome,
    /// Indices of the recipients.
    pub(super) members: Vec<usize>,
}

/// Whether the fixed conditions of a rule hold, once that was asked.
type Cache = Vec<Option<(bool, Matched)>>;

pub(super) fn decide(policy: &Policy, mail: &Mail, findings: Vec<Finding>) -> (Verdict, Vec<Group>) {
    // The sum of nothing is -0.0, which nobody wants to read.
    let score = findings.iter().map(Finding::score).sum::<f32>() + 0.0;
    let facts = Facts::new(mail, &findings);
    let recipients = &mail.envelope.recipients;
    let mut groups: Vec<Group> = Vec::new();
    let by_recipient = recipients.len() > 1
        && policy.rules.iter().any(|rule| rule.mentions(|condition| matches!(condition, Condition::Recipient(_))));
    let mut cache: Cache = if by_recipient { vec![None; policy.rules.len()] } else { Vec::new() };
    let asked: &[Address] = if by_recipient { recipients } else { &recipients[..recipients.len().min(1)] };
    for (index, recipient) in asked.iter().enumerate() {
        let held = run(policy, &facts, score, recipient, &mut cache);
        if let Some(group) = groups.iter_mut().find(|group| group.held == held) {
            group.members.push(index);
        } else {
            let outcome = outcome(policy, &facts, score, &held);
            groups.push(Group { held, outcome, members: vec![index] });
        }
    }
    if facts.header_failed() {
        // A rule asked for the header, and the spool cannot be read: no rule's answer is worth anything.
        let deferred = Outcome::defer(Deferral::local_problem(), "<unreadable>");
        groups.iter_mut().for_each(|group| group.outcome = deferred.clone());
    }
    if !by_recipient && let [group] = &mut groups[..] {
        group.members = (0..recipients.len()).collect();
    }
    let outcomes = match &groups[..] {
        [only] => vec![only.outcome.clone(); recipients.len()],
        groups => {
            let mut outcomes = vec![None; recipients.len()];
            for group in groups {
                group.members.iter().for_each(|&member| outcomes[member] = Some(group.outcome.clone()));
            }
            // Every recipient is in a group; were one not, it would be deferred.
            let otherwise = || Outcome::defer(Deferral::local_problem(), "<policy>");
            outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(otherwise)).collect()
        }
    };
    drop(facts);
    (Verdict { outcomes, findings: findings.into(), score }, groups)
}

/// The walk through the rules. [`super::early`] foresees it: what changes here changes there.
fn run(policy: &Policy, facts: &Facts<'_>, mut score: f32, recipient: &Address, cache: &mut Cache) -> Held {
    let mut held = Held::default();
    for (index, rule) in policy.rules.iter().enumerate() {
        let case = Case { score, recipient };
        let mut matched = Matched::new();
        let fixed = match cache.get_mut(index) {
            None => rule.fixed_hold(facts, case, &mut matched),
            Some(cached) => {
                let (holds, found) = cached.get_or_insert_with(|| {
                    let mut found = Matched::new();
                    (rule.fixed_hold(facts, case, &mut found), found)
                });
                matched.extend_from_slice(found);
                *holds
            }
        };
        if !fixed || !rule.varying_hold(facts, case, &mut matched) {
            continue;
        }
        score += rule.then.score;
        held.0.push((index, matched));
        if rule.then.stop {
            break;
        }
    }
    held
}

/// What the rules that held add up to: of several dispositions and several words on quarantine the
/// last one counts, edits are made in their order, and then comes what was not scanned.
fn outcome(policy: &Policy, facts: &Facts<'_>, mut score: f32, held: &Held) -> Outcome {
    if held.0.is_empty() && !facts.findings.iter().any(is_unscanned) {
        return Outcome::deliver();
    }
    let mut disposition = Disposition::Deliver;
    let mut decided_by = None;
    let mut quarantine = false;
    let mut edits: Vec<Edit> = Vec::new();
    let mut last = None;
    for (index, matched) in &held.0 {
        let rule = &policy.rules[*index];
        score += rule.then.score;
        let finding = matched.first().map(|&first| &facts.findings[first]);
        let names = Names { finding, rule: &rule.name, id: facts.mail.id.as_str(), score };
        if let Some(fate) = &rule.then.fate {
            disposition = fate.disposition(&names);
            decided_by = Some(Arc::clone(&rule.name));
        }
        quarantine = rule.then.quarantine.unwrap_or(quarantine);
        for edit in &rule.then.edits {
            let edit = edit.edit(&names);
            if !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        last = Some(&rule.name);
    }
    let rule = decided_by.or_else(|| last.cloned());
    let mut outcome = Outcome { disposition, edits: Arc::from([]), quarantine, rule };
    if outcome.disposition.is_handed_on() {
        unscanned(policy, facts, held, &mut outcome, &mut edits);
    }
    outcome.edits = edits.into();
    outcome
}

/// A mail that would be delivered and was not scanned by some filter.
fn unscanned(policy: &Policy, facts: &Facts<'_>, held: &Held, outcome: &mut Outcome, edits: &mut Vec<Edit>) {
    let mut notes: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut worst = Fate::Deliver;
    for (index, finding) in facts.findings.iter().enumerate() {
        let Kind::Unscanned(reason) = finding.kind else { continue };
        notes.insert((&finding.filter, reason.as_str()));
        if !speaks_of(policy, held, index) {
            worst = match (worst, fate(policy, facts.mail, finding, reason)) {
                (Fate::Defer, _) | (_, Fate::Defer) => Fate::Defer,
                (Fate::Reject, _) | (_, Fate::Reject) => Fate::Reject,
                (Fate::Deliver, Fate::Deliver) => Fate::Deliver,
            };
        }
    }
    let rule = || Some(Arc::from("<unscanned>"));
    match worst {
        Fate::Deliver => edits.extend(notes.into_iter().filter_map(|(filter, reason)| {
            let name = HeaderName::new(UNSCANNED_HEADER).ok()?;
            Some(Edit::AddHeader(HeaderField { name, value: HeaderText::lossy(&format!("{filter} {reason}")) }))
        })),
        Fate::Defer => {
            outcome.disposition = Disposition::Defer(Deferral::unchecked());
            outcome.rule = rule();
            // It comes again: a copy each time would fill the store.
            outcome.quarantine = false;
        }
        Fate::Reject => {
            outcome.disposition = Disposition::Reject(Rejection::lossy(7, 1, "Message could not be checked"));
            outcome.rule = rule();
        }
    }
}

/// Did a rule that delivers hold because of this very finding? Then the administrator has decided.
pub(super) fn speaks_of(policy: &Policy, held: &Held, finding: usize) -> bool {
    held.0.iter().any(|(index, matched)| {
        matches!(policy.rules[*index].then.fate, Some(super::rule::Fate::Deliver)) && matched.contains(&finding)
    })
}

pub(super) fn fate(policy: &Policy, mail: &Mail, finding: &Finding, reason: Unscanned) -> Fate {
    let filter = policy.unscanned.iter().find(|(name, _)| *name == finding.filter);
    filter.map_or(Fate::Defer, |(_, when)| when.fate(mail.origin.class, reason))
}

fn is_unscanned(finding: &Finding) -> bool {
    matches!(finding.kind, Kind::Unscanned(_))
}
