//! Rules that an enabled way in cannot carry out as written: what `config check` warns of. It tells
//! what [`crate::fit()`] will do instead.

use std::fmt;

use crate::abilities::{Abilities, Refusal, Replies};
use crate::config::Place;
use crate::edit::Edit;
use crate::mail::OriginClass;

use super::Policy;
use super::condition::Condition;
use super::rule::{Fate, Rule, TextEdit};

/// Something that is allowed, and that the administrator should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// Where the rule stands; `None` when it is no rule's.
    pub place: Option<Place>,
    /// The rule or the key.
    pub subject: String,
    /// What will happen.
    pub message: String,
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.subject, self.message)
    }
}

impl Policy {
    /// What the enabled ways, by name, cannot do as the rules want it.
    pub fn risks(&self, ways: &[(&str, Abilities)]) -> Vec<Risk> {
        let mut risks = Vec::new();
        for rule in self.rules.iter() {
            of_rule(rule, ways, &mut risks);
        }
        for (filter, when) in self.unscanned.iter() {
            if when.may_deliver(OriginClass::Inbound) {
                risks.push(Risk {
                    place: None,
                    subject: format!("filter.{filter}.when_unscanned"),
                    message: "mail from outside may be delivered although this filter did not scan it".into(),
                });
            }
        }
        risks
    }
}

fn of_rule(rule: &Rule, ways: &[(&str, Abilities)], risks: &mut Vec<Risk>) {
    let ways: Vec<&(&str, Abilities)> = ways.iter().filter(|(name, _)| may_hold_for(rule, name)).collect();
    let by_recipient = rule.mentions(|condition| matches!(condition, Condition::Recipient(_)));
    let mut risk = |message: String| {
        risks.push(Risk { place: Some(rule.then.place.clone()), subject: format!("rule \"{}\"", rule.name), message });
    };
    let mut lacking = |wanted: bool, lacks: fn(&Abilities) -> bool, what: &str| {
        let names: Vec<&str> = ways.iter().filter(|(_, abilities)| lacks(abilities)).map(|(name, _)| *name).collect();
        if wanted && !names.is_empty() {
            let none = if names.len() == ways.len() { "no enabled way can do this: " } else { "" };
            risk(format!("{none}{what} (by {})", names.join(", ")));
        }
    };
    let rejects = matches!(rule.then.fate, Some(Fate::Reject(_)));
    let discards = matches!(rule.then.fate, Some(Fate::Discard));
    let makes = |wanted: fn(&TextEdit) -> bool| rule.then.edits.iter().any(wanted);
    let body = makes(|edit| matches!(edit, TextEdit::ReplaceBody(_)));
    let edits = makes(|edit| !matches!(edit, TextEdit::Fixed(edit) if !edit.is_of_content()));
    lacking(edits && !body, |a| !a.edit_headers, "header edits are left out");
    lacking(
        body,
        |a| !(a.edit_body && a.edit_headers),
        "a body cannot be replaced: the recipient does not get the mail, and a copy is kept in quarantine",
    );
    lacking(
        body && by_recipient,
        |a| a.edit_body && a.edit_headers && !a.contents_by_recipient,
        "all recipients of a mail get one body: where others keep theirs, the recipient does not get the mail, and a \
         copy is kept in quarantine",
    );
    lacking(
        makes(|edit| matches!(edit, TextEdit::Fixed(Edit::AddRecipient(_)))),
        |a| !a.add_recipients,
        "no recipient can be added",
    );
    lacking(
        makes(|edit| matches!(edit, TextEdit::Fixed(Edit::ChangeSender(_)))),
        |a| !a.change_sender,
        "the sender cannot be changed",
    );
    lacking(
        matches!(rule.then.fate, Some(Fate::Hold(_))),
        |a| !a.hold,
        "the mail system cannot be told to hold a mail: nobody gets it, and a copy is kept in quarantine",
    );
    lacking(
        edits && by_recipient,
        |a| a.edit_headers && !a.contents_by_recipient,
        "only the edits that all recipients of a mail get are made",
    );
    lacking(
        rejects && by_recipient,
        |a| a.replies == Replies::PerMessage && a.drop_recipients,
        "one answer serves all recipients: when others get the mail, a refused recipient does not, a copy is kept in \
         quarantine, and the sender is told that it was accepted",
    );
    lacking(
        (rejects || discards) && by_recipient,
        |a| a.replies == Replies::PerMessage && !a.drop_recipients,
        "recipients cannot be left out: when others get the mail, all of it is deferred",
    );
    lacking(
        discards,
        |a| !a.discard,
        "a mail cannot be taken and handed to nobody: it is refused, and the sender is told",
    );
    lacking(
        matches!(rule.then.fate, Some(Fate::Defer(_))) && by_recipient,
        |a| a.replies == Replies::PerMessage,
        "one answer serves all recipients: all of them are deferred",
    );
    lacking(
        rejects,
        |a| a.refusal == Refusal::Bounces,
        "the mail is queued already: it bounces where that is safe, else a copy is kept in quarantine and nobody is told",
    );
    if discards && rule.then.quarantine != Some(true) {
        risk("the mail is gone without a copy; quarantine = true keeps one".into());
    }
}

/// Does a condition on the way leave this one in?
fn may_hold_for(rule: &Rule, way: &str) -> bool {
    rule.conditions().all(|condition| match condition {
        Condition::Way(names) => names.iter().any(|name| name == way),
        _ => true,
    })
}
