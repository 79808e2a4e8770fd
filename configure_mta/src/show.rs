//! What is shown to people: what was found, a plan, and what each way can do.

use std::fmt::Write;

use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_setup::{Change, Command, Found, Method, What};

use crate::compose::{Chosen, Composed};
use crate::engine::Setup;
use crate::undo::diff;

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
        if composed.setup.begin.answers.get("scanner").is_none_or(|scanner| scanner != "clamd") {
            text.push_str(
                "Scanners: none was chosen. Checkpost's own filter knows the test strings and attachment rules only; \
                 install clamav-daemon for viruses.\n",
            );
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

/// The table of what each way can do.
pub fn abilities(methods: &[Method]) -> String {
    let yes = |has: bool| if has { "yes" } else { "no" };
    type Row = (&'static str, fn(&Abilities) -> &'static str);
    let rows: [Row; 9] = [
        ("refused mail", |a| match a.refusal {
            Refusal::InSession => "told in session",
            Refusal::Bounces => "bounce or quarantine",
        }),
        ("answers", |a| match a.replies {
            Replies::PerMessage => "one a mail",
            Replies::PerRecipient => "one a recipient",
        }),
        ("edit header fields", |_| ""),
        ("edit the body", |_| ""),
        ("leave recipients out", |_| ""),
        ("add recipients", |_| ""),
        ("contents by recipient", |_| ""),
        ("discard", |_| ""),
        ("hold in the MTA's queue", |_| ""),
    ];
    let has = |abilities: &Abilities, row: usize| match row {
        2 => yes(abilities.edit_headers),
        3 => yes(abilities.edit_body),
        4 => yes(abilities.drop_recipients),
        5 => yes(abilities.add_recipients),
        6 => yes(abilities.contents_by_recipient),
        7 => yes(abilities.discard),
        _ => yes(abilities.hold),
    };
    let width = methods.iter().map(|method| method.name.len()).max().unwrap_or(0).max(20);
    let mut table = String::new();
    // More columns do not fit into a window.
    for methods in methods.chunks(3) {
        let _ = write!(table, "{}{:24}", if table.is_empty() { "" } else { "\n\n" }, "");
        for method in methods {
            let _ = write!(table, " {:width$}", method.name);
        }
        for (i, (title, word)) in rows.iter().enumerate() {
            let _ = write!(table, "\n{title:24}");
            for method in methods {
                let word = word(&method.abilities);
                let _ = write!(table, " {:width$}", if word.is_empty() { has(&method.abilities, i) } else { word });
            }
        }
    }
    let mut text: String = table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    for method in methods {
        let _ = writeln!(text, "\n{}: {}\n  while Checkpost is down: {}", method.name, method.about, method.when_down);
    }
    text
}
