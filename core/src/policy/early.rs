//! Refusals that are sure before there is a content: at connect, HELO, MAIL and RCPT.
//!
//! It decides nothing of its own: it tells what [`Policy::decide`] will come to in any case, so that
//! a way in may say it sooner. It reads no content and no clock.
//!
//! A condition holds, does not hold, or is not known yet (Kleene's logic of three values). A rule
//! that may hold splits the walk through the rules in two; a refusal is sure when all walks end with
//! the same one. Walks are told apart by no more than what they end with, so two rules that can only
//! hold together count as independent: that can cost an early word, never make it wrong.

use std::sync::Arc;

use crate::mail::{Address, Origin};
use crate::verdict::Disposition;

use super::Policy;
use super::condition::Condition;
use super::rule::{Actions, Fate, Rule};
use super::text::Names;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// A client has connected.
    Connect,
    /// It has said its name.
    Helo,
    /// It has named the sender of a mail.
    Sender,
    /// It has named a recipient.
    Recipient,
}

/// What is known of a mail so far.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What of the rest counts.
    pub stage: Stage,
    /// As it will be in the mail. Way and client count from [`Stage::Connect`] on, HELO from
    /// [`Stage::Helo`], direction and user from [`Stage::Sender`].
    pub origin: &'a Origin,
    /// Counts from [`Stage::Sender`] on. `None`: not known.
    pub sender: Option<&'a Address>,
    /// The one that was just named; counts at [`Stage::Recipient`]. `None`: not known.
    pub recipient: Option<&'a Address>,
    /// Put in for `{id}`.
    pub id: &'a str,
}

/// A refusal that the mail would meet in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early {
    /// [`Disposition::Reject`] or [`Disposition::Defer`].
    pub disposition: Disposition,
    /// The rule that decides, for logs.
    pub rule: Arc<str>,
}

impl Policy {
    /// The refusal that [`Policy::decide`] would come to whatever the content, the findings and all
    /// else that is not known yet: at [`Stage::Recipient`] for this recipient, before it for every one.
    /// (Only where a rule asks for the header, and it cannot be read, would the mail be deferred.)
    ///
    /// `None` where a copy could be wanted, since that needs the content; and where the text has the
    /// score or something of a finding.
    pub fn early(&self, known: &Known<'_>) -> Option<Early> {
        let mut walks = vec![Walk::default()];
        let mut end: Option<Walk> = None;
        for (index, rule) in self.rules.iter().enumerate() {
            let mut after = match all(rule.conditions().map(|condition| condition.known(known))) {
                Some(false) => continue,
                Some(true) => Vec::new(),
                None => walks.clone(),
            };
            for walk in walks {
                let walk = walk.held(index, &rule.then);
                if !rule.then.stop {
                    if !after.contains(&walk) {
                        after.push(walk);
                    }
                } else if *end.get_or_insert(walk) != walk {
                    return None;
                }
            }
            walks = after;
            if walks.is_empty() {
                break;
            }
        }
        for walk in walks {
            if *end.get_or_insert(walk) != walk {
                return None;
            }
        }
        let Walk { decided_by: Some(index), quarantine: false } = end? else { return None };
        let rule = &self.rules[index];
        if !rule.refuses_early() {
            return None;
        }
        let names = Names { finding: None, rule: &rule.name, id: known.id, score: 0.0 };
        let disposition = rule.then.fate.as_ref()?.disposition(&names);
        Some(Early { disposition, rule: Arc::clone(&rule.name) })
    }

    /// May [`Policy::early`] say something at this stage that it could not say at an earlier one? Ways
    /// that find it `false` need not ask, nor have their MTA tell them of that stage. It may be `true`
    /// in vain.
    pub fn asks_at(&self, stage: Stage) -> bool {
        let asks = |rule: &Rule| rule.conditions().any(|condition| condition.is_first_known_at(stage));
        let anywhere = self.rules.iter().any(asks);
        let mut news = stage == Stage::Connect;
        for rule in &*self.rules {
            news = news || asks(rule);
            // What stops depends on the rules up to it, what goes on on all.
            let depends = if rule.then.stop { news } else { news || anywhere };
            if depends && rule.may_refuse(stage) {
                return true;
            }
            if rule.then.stop && !rule.conditions().any(|condition| condition.values(stage).fails) {
                // It holds or may hold in any case, so no walk is sure to come to the rules behind it.
                return false;
            }
        }
        false
    }
}

/// What a walk through the rules has come to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Walk {
    /// The last rule with a disposition.
    decided_by: Option<usize>,
    quarantine: bool,
}

impl Walk {
    fn held(self, index: usize, then: &Actions) -> Self {
        Self {
            decided_by: then.fate.as_ref().map(|_| index).or(self.decided_by),
            quarantine: then.quarantine.unwrap_or(self.quarantine),
        }
    }
}

impl Rule {
    /// Can it be known at this stage that it holds, and is it a refusal then? What other rules do is not
    /// looked at.
    fn may_refuse(&self, stage: Stage) -> bool {
        let copies = self.then.stop && self.then.quarantine == Some(true);
        self.refuses_early() && !copies && self.conditions().all(|condition| condition.values(stage).holds)
    }

    fn refuses_early(&self) -> bool {
        match &self.then.fate {
            Some(Fate::Reject(say)) => say.template().is_of_session(),
            Some(Fate::Defer(say)) => say.template().is_of_session(),
            _ => false,
        }
    }
}

/// What a condition can turn out to be, if all that it asks for is free.
#[derive(Debug, Clone, Copy)]
struct Values {
    holds: bool,
    fails: bool,
}

impl Condition {
    /// The stage at which it is known. `None`: only with the content, or it is made of others.
    fn stage(&self) -> Option<Stage> {
        match self {
            Self::Way(_) | Self::Client(_) => Some(Stage::Connect),
            Self::Helo(_) => Some(Stage::Helo),
            Self::Origin(_) | Self::Authenticated(_) | Self::Sender(_) => Some(Stage::Sender),
            Self::Recipient(_) => Some(Stage::Recipient),
            Self::Finding(_) | Self::Score(_) | Self::Size(_) | Self::Header(_) => None,
            Self::All(_) | Self::Any(_) | Self::Not(_) => None,
        }
    }

    /// Is it or something in it known from this stage on, and not before?
    fn is_first_known_at(&self, stage: Stage) -> bool {
        self.stage() == Some(stage) || self.parts().iter().any(|part| part.is_first_known_at(stage))
    }

    /// Does it hold? `None`: that is not known yet.
    fn known(&self, known: &Known<'_>) -> Option<bool> {
        match self {
            Self::All(conditions) => all(conditions.iter().map(|condition| condition.known(known))),
            Self::Any(conditions) => any(conditions.iter().map(|condition| condition.known(known))),
            Self::Not(condition) => condition.known(known).map(|holds| !holds),
            _ if self.stage().is_none_or(|stage| stage > known.stage) => None,
            Self::Sender(addresses) => known.sender.map(|sender| addresses.contains(sender)),
            Self::Recipient(addresses) => known.recipient.map(|recipient| addresses.contains(recipient)),
            _ => Some(self.fits_origin(known.origin)),
        }
    }

    /// What [`Condition::known`] can say at this stage.
    fn values(&self, stage: Stage) -> Values {
        match self {
            Self::All(conditions) => Values {
                holds: conditions.iter().all(|condition| condition.values(stage).holds),
                fails: conditions.iter().any(|condition| condition.values(stage).fails),
            },
            Self::Any(conditions) => Values {
                holds: conditions.iter().any(|condition| condition.values(stage).holds),
                fails: conditions.iter().all(|condition| condition.values(stage).fails),
            },
            Self::Not(condition) => {
                let Values { holds, fails } = condition.values(stage);
                Values { holds: fails, fails: holds }
            }
            _ => {
                let known = self.stage().is_some_and(|own| own <= stage);
                Values { holds: known, fails: known }
            }
        }
    }
}

fn all(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    for value in values {
        match value {
            Some(true) => {}
            Some(false) => return Some(false),
            None => all = None,
        }
    }
    all
}

fn any(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(values.map(|value| value.map(|holds| !holds))).map(|none| !none)
}
