//! The questions at a terminal, as a person sees them: the program in a pseudo-terminal, its screens as golden files in
//! `tests/screens` (`UPDATE_SCREENS=1` writes them anew).

#![allow(clippy::unwrap_used)]

mod fixtures;

use std::fs;
use std::process::Command;

use checkpost_tests::Terminal;
use fixtures::Fixture;

const DOWN: &str = "\x1b[B";

/// A qmail, which is set up without any program of its own, and no init system.
fn qmail() -> Fixture {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.method == "qmail-queue").unwrap();
    fs::remove_dir_all(fixture.at("/sbin")).unwrap();
    // Beside the program there must be the one that it copies.
    let bin = fixture.at("/opt");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_configure_mta"), bin.join("configure_mta")).unwrap();
    fs::write(bin.join("checkpost-qmail-queue"), "our program").unwrap();
    fixture
}

fn start(fixture: &Fixture) -> Terminal {
    let bin = fixture.at("/opt");
    let mut command = Command::new(bin.join("configure_mta"));
    command.arg("--root").arg(fixture.folder.path());
    Terminal::start(&command, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/screens")).unwrap()
}

#[test]
fn a_person_is_led_to_the_end() {
    let fixture = qmail();
    let mut terminal = start(&fixture);
    terminal.shows("How is Checkpost to get its mail?", "1-method");
    terminal.types(DOWN);
    terminal.until(|screen| screen.contains("> qmail-queue/variable"));
    terminal.types("\x1b[A");
    terminal.until(|screen| screen.contains("> qmail-queue\n"));
    terminal.types("\r");
    terminal.shows("What becomes of mail", "2-when-down");
    terminal.types("\r");
    terminal.shows("Make these changes?", "3-plan");
    terminal.types("y\r");
    assert_eq!(terminal.ends(), Some(0));
    terminal.golden("4-done");
    assert_eq!(fs::read(fixture.at("/var/qmail/bin/qmail-queue")).unwrap(), b"our program");
    assert_eq!(fs::read(fixture.at("/var/qmail/bin/qmail-queue.orig")).unwrap(), b"the original");
}

#[test]
fn leaving_at_any_question_changes_nothing() {
    let questions = ["How is Checkpost", "What becomes of mail", "Make these changes?"];
    for stop in questions {
        for key in ["\x1b", "\x03"] {
            let fixture = qmail();
            let before = fixture.snapshot();
            let mut terminal = start(&fixture);
            for question in questions {
                terminal.until(|screen| screen.contains(question));
                if question == stop {
                    break;
                }
                terminal.types("\r");
            }
            terminal.types(key);
            assert_eq!(terminal.ends(), Some(1), "{stop} {key:?}");
            let mut after = fixture.snapshot();
            // The folders of the lock.
            after.retain(|path, _| before.contains_key(path) || !path.starts_with("var/lib"));
            assert_eq!(after, before, "{stop} {key:?}");
        }
    }
}

#[test]
fn who_has_a_scanner_is_asked_whether_to_use_it() {
    let fixture = qmail();
    fs::create_dir_all(fixture.at("/run/clamav")).unwrap();
    let _clamd = std::os::unix::net::UnixListener::bind(fixture.at("/run/clamav/clamd.ctl")).unwrap();
    let mut terminal = start(&fixture);
    terminal.until(|screen| screen.contains("How is Checkpost"));
    terminal.types("\r");
    terminal.until(|screen| screen.contains("What becomes of mail"));
    terminal.types("\r");
    terminal.shows("Which virus scanner?", "scanner");
    terminal.types("\r");
    terminal.until(|screen| screen.contains("Make these changes?"));
    assert!(terminal.lines().contains("+[filter.clamd]"), "{terminal:?}");
    terminal.types("n\r");
    assert_eq!(terminal.ends(), Some(1));
}
