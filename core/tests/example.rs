//! The shipped example file says what the core parts read, as it stands and with every setting that
//! is commented out switched on.

use std::path::Path;
use std::sync::Arc;

use checkpost_core::config::{Document, Lists, Origins, Problems};
use checkpost_core::filters::clamd::ClamdConfig;
use checkpost_core::policy::{Names, Policy, WhenUnscanned};
use checkpost_core::quarantine::QuarantineConfig;

const EXAMPLE: &str = include_str!("../../docs/checkpost.toml");

/// Reads the sections of the core; the others belong to other parts, and only their TOML is checked.
fn problems_of(text: &str) -> String {
    let mut problems = Problems::default();
    // The list's file is not shipped.
    let text = text.replace("file = \"tag-spam.txt\"", "");
    let mut document = Document::parse(Path::new("checkpost.toml"), &text, &mut problems);
    Origins::take(&mut document, &mut problems);
    let lists = Lists::take(&mut document, &mut problems);
    let mut filters: Vec<(Arc<str>, WhenUnscanned)> = Vec::new();
    for name in document.names("filter") {
        let mut item = document.take_item(&format!("filter.{name}"), &mut problems).expect("it is a table");
        filters.push((name.as_str().into(), item.take_key("when_unscanned", &mut problems).unwrap_or_default()));
        if name == "clamd" {
            // What is shown is the default, as the text says.
            assert_eq!(item.finish(&mut problems), Some(ClamdConfig::default()));
        }
    }
    Policy::load(&mut document, &Names { filters: &filters, ways: &[], lists: &lists }, &mut problems);
    let quarantine: QuarantineConfig = document.take_section_or_default("quarantine", &mut problems);
    assert_eq!(quarantine, QuarantineConfig::default());
    for others in ["way", "daemon", "unpacking"] {
        if others == "way" {
            document.take_items(others, &mut problems);
        } else {
            document.take_item(others, &mut problems);
        }
    }
    document.finish(&mut problems);
    problems.to_string()
}

#[test]
fn the_example_is_right_as_it_stands() {
    assert_eq!(problems_of(EXAMPLE), "");
}

#[test]
fn the_example_is_right_with_everything_switched_on() {
    let mut switched = 0;
    let lines: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                switched += 1;
                setting
            }
            _ => line,
        })
        .collect();
    assert!(switched > 30, "{switched}");
    assert_eq!(problems_of(&lines.join("\n")), "");
}
