//! Rules that can never be reached, where that can be told at a glance. A rule is reached when no
//! earlier rule stops every mail that it would hold for.

use crate::config::{Problem, Problems};

use super::condition::Condition;
use super::rule::Rule;

pub(super) fn check(rules: &[Rule], problems: &mut Problems) {
    for (index, rule) in rules.iter().enumerate() {
        let Some(before) = (0..index).find(|&before| takes_all(&rules[before..=index])) else { continue };
        let Rule { name, place, .. } = &rules[before];
        let mails = if rules[before].conditions().next().is_none() { "every mail" } else { "every mail it holds for" };
        let message = format!("the rule is never reached: \"{name}\" at {} stops {mails}", place.file_and_line());
        problems.push(
            Problem::at(&rule.place, format!("rule[{}]", rule.index), message)
                .hint("put it before that rule, or let that rule go on with go_on = true"),
        );
    }
}

/// Does the first rule stop everything that the last one holds for?
fn takes_all(rules: &[Rule]) -> bool {
    let [first, between @ .., last] = rules else { return false };
    if !first.then.stop {
        return false;
    }
    let score_changes = between.iter().any(|rule| rule.then.score != 0.0);
    if score_changes && first.mentions(|condition| matches!(condition, Condition::Score(_))) {
        return false;
    }
    first.conditions().all(|wanted| last.conditions().any(|given| given.implies(wanted)))
}
