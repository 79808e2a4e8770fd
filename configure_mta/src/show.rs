//! What is shown to people: what was found, a plan, and what each way can do.

use std::fmt::Write;

use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_setup::{Change, Command, Found, Method, WHEN_DOWN, What};

use crate::compose::{Chosen, Composed};
use crate::engine::Setup;
use crate::undo::diff;

/// Without a virus scanner.
pub const NO_SCANNER: &str = "no virus scanner is used. Checkpost's own filter knows the test strings and rules for \
                              attachments only; clamav-daemon is used when it is there";

/// What was found of an MTA.
pub fn found(title: &str, found: &Found, methods: &[Method]) -> String {
    let mut text = format!("{title} {}", found.version.as_deref().unwrap_or("(version unknown)"));
    if let Some(instance) = &found.instance {
        let _ = write!(text, ", instance {instance}");
    }
    text.push_str(match found.running {
        Some(true) => ", running\n",
        Some(false) => ", not running\n",
        None => "\n",
    });
    for fact in found.facts.iter().filter(|fact| !fact.value.is_empty()) {
        let _ = writeln!(text, "  {}: {}", fact.name, fact.value);
    }
    for filter in &found.filters {
        let _ = writeln!(text, "  another filter: {filter}");
    }
    for doubt in &found.doubts {
        let _ = writeln!(text, "  NOTE: {doubt}");
    }
    let ways: Vec<&str> = methods.iter().map(|method| method.name).collect();
    let _ = writeln!(text, "  ways: {}", ways.join(", "));
    text
}

/// A whole plan: for people to judge.
pub fn plan(chosen: &Chosen, composed: &Composed) -> String {
    let Setup { parts, .. } = &composed.setup;
    let mut text = format!("Plan: {} for {}\n", chosen.method.name, chosen.mta.title());
    if composed.setup.is_empty() {
        text.push_str("Nothing is to be done: all is in place.\n");
    }
    let mut number = 0;
    for (part, changes) in parts.iter().filter(|(_, changes)| !changes.is_empty()) {
        let _ = writeln!(text, "\n{}", part.title);
        for change in changes {
            number += 1;
            let _ = writeln!(text, "{number:3}. {}", change.title());
            let _ = writeln!(text, "     {}", change.why);
            text.push_str(&details(change));
        }
        for command in &part.check {
            text.push_str(&command_lines("then check", command));
        }
        for command in &part.activate {
            text.push_str(&command_lines("then activate", command));
        }
    }
    if !composed.setup.is_empty() {
        let _ = writeln!(text, "\nMeanwhile: {}.", composed.plan.meanwhile);
        let _ = writeln!(text, "While Checkpost is down: {}.", chosen.method.when_down);
        if chosen.method.questions.contains(&WHEN_DOWN) {
            let answer = chosen.answers.to(&WHEN_DOWN);
            let about = WHEN_DOWN.choices.iter().find(|choice| choice.value == answer).map(|choice| choice.about);
            let _ = writeln!(text, "Chosen: {}.", about.unwrap_or(answer));
        }
        if composed.setup.begin.answers.get("scanner").is_none_or(|scanner| scanner != "clamd") {
            let _ = writeln!(text, "Scanners: {NO_SCANNER}");
        }
    }
    for note in &composed.plan.notes {
        let _ = writeln!(text, "Note: {note}");
    }
    for warning in &composed.plan.warnings {
        let _ = writeln!(text, "WARNING: {warning}");
    }
    text
}

fn command_lines(when: &str, command: &Command) -> String {
    let script = command.title().map(|_| format!("       {}\n", command.0[2])).unwrap_or_default();
    format!("     {when}: {}\n{script}", command.brief())
}

fn details(change: &Change) -> String {
    let indented = |text: &str| text.lines().map(|line| format!("       {line}\n")).collect::<String>();
    match &change.what {
        // A file of ours that is the same everywhere needs no telling.
        What::Write { from: None, to, .. } if to.len() > 1500 => {
            format!("       ({} lines)\n", to.iter().filter(|octet| **octet == b'\n').count())
        }
        What::Write { from, to, .. } => indented(&diff(from.as_deref(), Some(to))),
        What::Run { command, back, .. } => {
            let script = command.title().map(|_| indented(&command.0[2])).unwrap_or_default();
            let back = back.as_ref().map(|back| command_lines("taken back with", back)).unwrap_or_default();
            format!("{script}{back}")
        }
        What::ByHand { steps, .. } => indented(steps),
        _ => String::new(),
    }
}

/// Each way in a paragraph: what it is, what it can and cannot do, and what becomes of mail without Checkpost.
pub fn ways(methods: &[Method]) -> String {
    let all: Vec<_> = methods.iter().map(|method| abilities_of(&method.abilities)).collect();
    // What all of them can is said once.
    let common = |name: &str| methods.len() > 1 && all.iter().flatten().all(|(other, has)| *other != name || *has);
    let names = |list: &[(&'static str, bool)], wanted: bool| {
        let names = list.iter().filter(|(name, has)| *has == wanted && !common(name)).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let mut text = String::new();
    for (i, method) in methods.iter().enumerate() {
        let advice = if i == 0 && methods.len() > 1 { " (take this unless there is a reason)" } else { "" };
        text.push_str(&wrapped("", &format!("{}{advice}: {}", method.name, method.about)));
        text.push_str(&wrapped("  refused:", refused(&method.abilities)));
        for (title, wanted) in [("  can:", true), ("  cannot:", false)] {
            let names = names(&all[i], wanted);
            if !names.is_empty() {
                text.push_str(&wrapped(title, &names));
            }
        }
        text.push_str(&wrapped("  down:", method.when_down));
    }
    let shared: Vec<&str> = all.iter().take(1).flatten().map(|(name, _)| *name).filter(|name| common(name)).collect();
    if !shared.is_empty() {
        text.push_str(&wrapped("all of them can:", &shared.join(", ")));
    }
    text
}

/// What becomes of mail that is refused.
fn refused(abilities: &Abilities) -> &'static str {
    match abilities.refusal {
        Refusal::InSession => "the sending server is told in its session",
        Refusal::Bounces => "it was taken already: a bounce where that is safe, else quarantine",
    }
}

/// What a way can do or not, in the order in which it is told.
fn abilities_of(abilities: &Abilities) -> [(&'static str, bool); 8] {
    [
        ("an answer for each recipient", abilities.replies == Replies::PerRecipient),
        ("edit header fields", abilities.edit_headers),
        ("edit the body", abilities.edit_body),
        ("leave recipients out", abilities.drop_recipients),
        ("add recipients", abilities.add_recipients),
        ("other contents for other recipients", abilities.contents_by_recipient),
        ("discard", abilities.discard),
        ("hold in the mail server's queue", abilities.hold),
    ]
}

/// A paragraph of at most 80 columns, behind a title.
fn wrapped(title: &str, words: &str) -> String {
    let (mut text, mut line) = (String::new(), title.to_owned());
    for word in words.split(' ') {
        if line.len() + 1 + word.len() > 80 {
            text.push_str(&line);
            text.push('\n');
            line = "   ".into();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    format!("{text}{line}\n")
}

/// The table of what each way can do.
pub fn abilities(methods: &[Method]) -> String {
    let refusal = |abilities: &Abilities| match abilities.refusal {
        Refusal::InSession => "in session",
        Refusal::Bounces => "by bounce",
    };
    let word = |has| if has { "yes" } else { "no" };
    let columns: Vec<Vec<&str>> = methods
        .iter()
        .map(|method| {
            let rest = abilities_of(&method.abilities).map(|(_, has)| word(has));
            [method.name, refusal(&method.abilities)].into_iter().chain(rest).collect()
        })
        .collect();
    let titles = ["", "refused mail"].into_iter();
    let titles: Vec<&str> = titles
        .chain(methods.iter().take(1).flat_map(|method| abilities_of(&method.abilities)).map(|(title, _)| title))
        .collect();
    let width = |column: &[&str]| column.iter().map(|cell| cell.len()).max().unwrap_or(0);
    let mut text = String::new();
    // More columns do not fit into a window.
    for columns in columns.chunks(3) {
        for (row, title) in titles.iter().enumerate() {
            let mut line = format!("{title:first$}", first = width(&titles));
            for column in columns {
                let _ = write!(line, "  {:width$}", column[row], width = width(column));
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
    text.push_str("(by bounce: where that is safe, else the mail goes to quarantine)\n\n");
    text + &ways(methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ways_can_do_fits_into_a_window() {
        for mta in crate::compose::MTAS {
            let table = abilities(mta.methods());
            assert!(table.lines().all(|line| line.len() <= 100), "{table}");
            assert!(ways(mta.methods()).lines().all(|line| line.len() <= 80), "{}", ways(mta.methods()));
        }
    }

    #[test]
    fn paragraphs_stay_within_the_screen() {
        assert_eq!(wrapped("  can:", "one, two"), "  can: one, two\n");
        let long = wrapped("  can:", &"word ".repeat(40));
        assert!(long.lines().count() > 2 && long.lines().all(|line| line.len() <= 80), "{long}");
        assert!(long.lines().skip(1).all(|line| line.starts_with("    word")), "{long}");
    }
}
