//! Every rule tried and why it held or not: what `checkpost explain` prints. It decides nothing;
//! the decision comes from the same evaluation that real mail gets.

use std::fmt;

use serde::Serialize;

use crate::finding::{Finding, Kind};
use crate::mail::Mail;
use crate::verdict::{Disposition, Outcome, Verdict};

use super::condition::{Case, Condition, Facts, Matched};
use super::evaluate::{Group, fate, speaks_of};
use super::unscanned::Fate;
use super::{Policy, rule::Rule};

/// The whole story of one mail. `Display` is text for an administrator.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Trace {
    /// What the filters found.
    pub findings: Vec<String>,
    /// Points of all spam findings.
    pub score: f32,
    /// Recipients for whom the same happened.
    pub groups: Vec<Recipients>,
}

/// Recipients for whom the same happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipients {
    /// Their addresses.
    pub recipients: Vec<String>,
    /// Every rule tried, in order.
    pub rules: Vec<Tried>,
    /// How many rules were not tried, since an earlier one stopped.
    pub not_reached: usize,
    /// What becomes of each filter's not having scanned the mail.
    pub unscanned: Vec<String>,
    /// In words: disposition, edits, quarantine, the deciding rule.
    pub outcome: String,
}

/// One rule that was tried.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// Its name.
    pub rule: String,
    /// File and line.
    pub place: String,
    /// Did all its conditions hold?
    pub held: bool,
    /// The conditions; none: the rule holds for every mail.
    pub conditions: Vec<Asked>,
}

/// One condition that was asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// As the rule has it.
    pub condition: String,
    /// Did it hold?
    pub held: bool,
    /// What was seen.
    pub because: String,
    /// The conditions within it, of `any`, `all` and `not`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Asked>,
}

pub(super) fn trace(policy: &Policy, mail: &Mail, verdict: &Verdict, groups: &[Group]) -> Trace {
    let facts = Facts::new(mail, &verdict.findings);
    Trace {
        findings: verdict.findings.iter().map(Finding::to_string).collect(),
        score: verdict.score,
        groups: groups.iter().filter_map(|group| recipients(policy, &facts, verdict.score, group)).collect(),
    }
}

fn recipients(policy: &Policy, facts: &Facts<'_>, mut score: f32, group: &Group) -> Option<Recipients> {
    let addresses = &facts.mail.envelope.recipients;
    let recipient = &addresses[*group.members.first()?];
    let mut rules = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let held = group.held.0.iter().any(|(held, _)| *held == index);
        rules.push(tried(rule, held, facts, Case { score, recipient }));
        if held {
            score += rule.then.score;
            if rule.then.stop {
                break;
            }
        }
    }
    Some(Recipients {
        recipients: group.members.iter().map(|&member| addresses[member].to_string()).collect(),
        not_reached: policy.rules.len() - rules.len(),
        rules,
        unscanned: unscanned(policy, facts, group),
        outcome: outcome_text(&group.outcome),
    })
}

fn tried(rule: &Rule, held: bool, facts: &Facts<'_>, case: Case<'_>) -> Tried {
    Tried {
        rule: rule.name.to_string(),
        place: rule.place.file_and_line(),
        held,
        conditions: rule.conditions().map(|condition| asked(condition, facts, case)).collect(),
    }
}

fn asked(condition: &Condition, facts: &Facts<'_>, case: Case<'_>) -> Asked {
    Asked {
        condition: condition.to_string(),
        held: condition.holds(facts, case, &mut Matched::new()),
        because: condition.because(facts, case),
        parts: condition.parts().iter().map(|part| asked(part, facts, case)).collect(),
    }
}

fn unscanned(policy: &Policy, facts: &Facts<'_>, group: &Group) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, finding) in facts.findings.iter().enumerate() {
        let Kind::Unscanned(reason) = finding.kind else { continue };
        let what = if speaks_of(policy, &group.held, index) {
            "a rule that names it delivers".to_owned()
        } else {
            let word = match fate(policy, facts.mail, finding, reason) {
                Fate::Defer => "defer",
                Fate::Reject => "reject",
                Fate::Deliver => "deliver",
            };
            format!("when_unscanned for {} mail: {word}", facts.mail.origin.class)
        };
        lines.push(format!("{} did not scan ({reason}): {what}", finding.filter));
    }
    lines
}

/// `reject 550 5.7.1 text; by "no malware"; a copy is kept`.
fn outcome_text(outcome: &Outcome) -> String {
    let mut text = outcome.disposition.as_str().to_owned();
    match (&outcome.disposition, outcome.disposition.reply()) {
        (_, Some(reply)) => text.push_str(&format!(" {reply}")),
        (Disposition::Hold(reason), None) => text.push_str(&format!(" ({})", reason.as_str())),
        _ => {}
    }
    match &outcome.rule {
        Some(rule) => text.push_str(&format!("; by \"{rule}\"")),
        None => text.push_str("; no rule held"),
    }
    if outcome.disposition.is_handed_on() {
        for edit in outcome.edits.iter() {
            text.push_str(&format!("; {edit}"));
        }
    }
    if outcome.quarantine {
        text.push_str("; a copy is kept");
    }
    text
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = if self.findings.is_empty() { "nothing".to_owned() } else { self.findings.join(", ") };
        writeln!(f, "found: {findings}")?;
        writeln!(f, "score: {:.1}", self.score)?;
        for group in &self.groups {
            writeln!(f, "\nfor {}", group.recipients.join(", "))?;
            for tried in &group.rules {
                let mark = if tried.held { "held" } else { "no" };
                writeln!(f, "  {mark:<4}  {} ({})", tried.rule, tried.place)?;
                if tried.conditions.is_empty() {
                    writeln!(f, "          yes  it has no condition")?;
                }
                for asked in &tried.conditions {
                    asked.write(f, 10)?;
                }
            }
            match group.not_reached {
                0 => {}
                1 => writeln!(f, "  1 rule behind was not tried")?,
                count => writeln!(f, "  {count} rules behind were not tried")?,
            }
            for line in &group.unscanned {
                writeln!(f, "  {line}")?;
            }
            writeln!(f, "  outcome: {}", group.outcome)?;
        }
        Ok(())
    }
}

impl Asked {
    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        let answer = if self.held { "yes" } else { "no" };
        writeln!(f, "{:indent$}{answer:<3}  {}: {}", "", self.condition, self.because)?;
        self.parts.iter().try_for_each(|part| part.write(f, indent + 2))
    }
}
