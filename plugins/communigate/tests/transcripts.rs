//! Dialogues as they are written in `transcripts/`: `S:` is what the server says, `H:` what the helper says, in order, and
//! `!` an answer that has come about a mail: its number, and what it is to be.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use checkpost_communigate::session::{Event, Number, Reply, Session};

/// Plays a dialogue with the server's lines in pieces of so many octets.
fn play(name: &str, text: &str, size: usize) {
    let mut session = Session::default();
    let mut open: HashMap<String, Number> = HashMap::new();
    let (mut said, mut wanted) = (String::new(), String::new());
    for line in text.lines() {
        match line.split_at_checked(2) {
            Some(("S:", line)) => {
                let octets = format!("{}\n", line.trim_start().replace("^M", "\r"));
                for piece in octets.as_bytes().chunks(size) {
                    for event in session.take(piece) {
                        match event {
                            Event::Say(line) => said.push_str(std::str::from_utf8(&line).unwrap()),
                            Event::Check(number, path) => {
                                let path = String::from_utf8(path).unwrap();
                                assert!(open.insert(path.clone(), number).is_none(), "{name}: {path} twice");
                            }
                        }
                    }
                }
            }
            Some(("H:", line)) => {
                wanted.push_str(line.trim_start());
                wanted.push('\n');
            }
            Some(("! ", line)) => {
                let (path, reply) = line.split_once(' ').unwrap();
                let number = open.remove(path).unwrap_or_else(|| panic!("{name}: nothing is open about {path}"));
                session.answer(&number, &reply_of(reply)).iter().for_each(|line| {
                    said.push_str(std::str::from_utf8(line).unwrap());
                });
            }
            _ => assert!(line.is_empty() || line.starts_with('#'), "{name}: {line}"),
        }
    }
    assert_eq!(said, wanted, "{name}, {size} octets at once");
    assert_eq!(session.open(), open.len(), "{name}");
}

fn reply_of(text: &str) -> Reply {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "ok" => Reply::Ok,
        "error" => Reply::Error(rest.into()),
        "later" => Reply::Rejected(rest.into()),
        "discard" => Reply::Discard,
        "failure" => Reply::Failure,
        "add" => Reply::add_header(&rest.split(" | ").map(str::to_owned).collect::<Vec<_>>()).unwrap(),
        _ => panic!("{text}"),
    }
}

#[test]
fn dialogues_are_as_they_are_written() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for size in [1, 3, 1000] {
            play(&path.display().to_string(), &text, size);
        }
        count += 1;
    }
    assert!(count >= 4, "{count} dialogues");
}
