//! Filters in shared libraries, through the real daemon: the examples, and those that would end or hold up a process.
//! What the host makes of what libraries say is tested in `filter-abi/host/tests/libraries.rs`.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod harness;

use std::path::Path;
use std::time::{Duration, Instant};

use checkpost_filter_fixtures::{Libraries, has_compiler, skip};
use checkpostd::admin::{Client, Request, Response};
use checkpostd::report::{Circumstances, Outlook, Report};
use rustix::process::Signal;

use harness::{Daemon, PATIENCE};

const MAIL: &str = "From: a@example.org\nSubject: You won the LOTTERY\n\nA confidential text\n";

fn filter(name: &str, path: &Path, more: &str) -> String {
    format!("[filter.{name}]\nkind = 'library'\npath = {path:?}\n{more}\n")
}

fn request(octets: usize, sender: &str) -> Request {
    let circumstances = Circumstances { sender: sender.to_owned(), ..Circumstances::default() };
    Request::Check { octets: octets as u64, circumstances }
}

fn check(daemon: &Daemon, mail: &str, sender: &str) -> Report {
    let mut client = Client::connect(&daemon.socket()).unwrap();
    match client.ask(&request(mail.len(), sender), Some(&mut mail.as_bytes()), PATIENCE).unwrap() {
        Response::Report(report) => *report,
        other => panic!("{other:?}"),
    }
}

/// Kind, name and filter of each finding.
fn found(report: &Report) -> Vec<[&str; 3]> {
    report.findings.iter().map(|finding| [&*finding.kind, &*finding.name, &*finding.filter]).collect()
}

/// The daemon does not start, and says this of line and key.
fn refused(filters: &str, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[daemon]\nstate = {:?}\n{filters}", folder.path().join("state"));
    let (status, log) = Daemon::start_with(&config, folder).end();
    assert_eq!(status.code(), Some(78), "{log}");
    for expected in expected {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
}

#[test]
fn the_examples_look_at_mails_beside_each_other() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let (rust, c) = (libraries.example_rust(), libraries.example_c());
    let filters = [
        filter("words", &rust, "settings = { words = ['prince', 'lottery'], score = 20 }"),
        filter("other-words", &rust, "settings = { words = ['prince'] }"),
        filter("body", &c, "settings = { word = 'confidential' }\nthreads = 1"),
        filter("off", Path::new("/nonexistent.so"), "enabled = false"),
        "[[rule]]\nname = 'r'\nwhen = { filter = 'body', class = 'word' }\nthen = { reject = 'no {name}' }\n"
            .to_owned(),
    ];
    let daemon = Daemon::start("", &filters.concat());
    let report = check(&daemon, MAIL, "");
    assert_eq!(found(&report), [["spam", "Subject.Word", "words"], ["policy", "Body.Word", "body"]]);
    assert_eq!((report.outlook, report.score), (Outlook::RefusedOrChanged, 20.0));
    assert_eq!(report.outcomes[0].rule.as_deref(), Some("r"));
    // Above the limit for memory, so it is read from the spool.
    let large = format!("Subject: x\n\n{}confidential\n", "0123456789\n".repeat(200_000));
    assert_eq!(found(&check(&daemon, &large, "")), [["policy", "Body.Word", "body"]]);
    // Could not look is not clean.
    let report = check(&daemon, &format!("Subject: x\nX: {}\n\nx\n", "x".repeat(300_000)), "");
    assert_eq!(found(&report)[0], ["unscanned", "unreadable", "words"]);
    assert_eq!(report.outlook, Outlook::NotJudged);
    let versions: Vec<_> =
        daemon.status().filters.into_iter().map(|filter| (filter.name, filter.version)).skip(1).collect();
    let subject = Some(format!("subject words (example) {}", env!("CARGO_PKG_VERSION")));
    let expected =
        [("words", subject.clone()), ("other-words", subject), ("body", Some("body word (example) 1.0".into()))];
    assert_eq!(versions, expected.map(|(name, version)| (name.to_owned(), version)));
}

#[test]
fn what_cannot_be_loaded_is_told_with_its_line() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let missing = libraries.folder().join("missing.so");
    let wrong = libraries.misbehaving("WRONG_VERSION");
    let refuses = libraries.misbehaving("CREATE_REFUSES");
    let writable = libraries.misbehaving("GOOD");
    std::fs::set_permissions(&writable, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    refused(
        &[
            filter("a", &missing, ""),
            filter("b", &wrong, ""),
            filter("c", &refuses, "settings = { x = 1 }"),
            filter("d", &writable, ""),
            "[filter.e]\nkind = 'libary'\npath = '/x'\n[filter.'f g']\nkind = 'library'\n[filter.clamdd]\n".to_owned(),
        ]
        .concat(),
        &[
            ":5:8: filter.a.path: cannot use the library",
            "cannot open it: No such file or directory (os error 2); accepted: a library made with checkpost_filter.h",
            ":9:8: filter.b.path: cannot use the library",
            "it was made for version 99 of the filter ABI; this program has version 1",
            ":14:12: filter.c.settings: the library",
            "says: the setting \"rules\" is missing",
            "group or others can write it (mode 0666); chmod go-w it",
            "filter.e.kind: unknown kind of filter \"libary\"; accepted: library;",
            "not a name for a filter: \"f g\"",
            "filter.clamdd: unknown section \"clamdd\"; did you mean \"clamd\"?",
        ],
    );
}

#[test]
fn a_crash_or_a_hang_while_it_is_loaded_is_told_and_harms_nobody() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    for (variant, expected) in [
        ("ABORT_AT_LOAD", "it crashed (signal 6) the process that tried it"),
        ("SEGFAULT_AT_LOAD", "it crashed (signal 11) the process that tried it"),
        ("EXIT_AT_LOAD", "it ended (exit code 0) the process that tried it"),
        ("CREATE_ABORTS", "it crashed (signal 6) the process that tried it"),
        ("HANG_AT_LOAD", "loading it and making an instance has not ended in 0.5s (start_time)"),
    ] {
        refused(
            &filter("x", &libraries.misbehaving(variant), "start_time = '500ms'"),
            &[":5:8: filter.x.path:", expected],
        );
    }
    // The same in a daemon that serves: the old configuration stays in force.
    let mut daemon = Daemon::start("", &filter("good", &libraries.misbehaving("GOOD"), ""));
    let old = std::fs::read_to_string(daemon.config()).unwrap();
    let bad = filter("bad", &libraries.misbehaving("ABORT_AT_LOAD"), "");
    std::fs::write(daemon.config(), format!("{old}{bad}")).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration not reloaded; the old one stays in force");
    assert_eq!(found(&check(&daemon, MAIL, "")), [["malware", "Right", "good"]]);
}

#[test]
fn a_reload_makes_new_instances_and_loads_nothing_twice() {
    let libraries = Libraries::new();
    let path = libraries.example_rust();
    let words = |word: &str| filter("words", &path, &format!("settings = {{ words = [{word:?}] }}"));
    let mut daemon = Daemon::start("", &words("lottery"));
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    let mapped = |daemon: &Daemon| {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.child.id())).unwrap();
        let from_its_beginning = |line: &&str| line.split(' ').nth(2) == Some("00000000");
        maps.lines().filter(from_its_beginning).filter(|line| line.contains("libcheckpost_filter_example.so")).count()
    };
    assert_eq!(found(&check(&daemon, MAIL, "")).len(), 1);
    let reload = |daemon: &mut Daemon, config: &str, expected: usize| {
        std::fs::write(daemon.config(), config).unwrap();
        daemon.signal(Signal::HUP);
        daemon.wait_for("configuration reloaded");
        assert_eq!(found(&check(daemon, MAIL, "")).len(), expected);
    };
    reload(&mut daemon, &config.replace("lottery", "prince"), 0);
    reload(&mut daemon, &config, 1);
    assert_eq!(mapped(&daemon), 1);
    // Off and on again: it stays loaded.
    reload(&mut daemon, &config.replace("kind =", "enabled = false\nkind ="), 0);
    assert_eq!(mapped(&daemon), 1);
    reload(&mut daemon, &config, 1);
    assert_eq!(mapped(&daemon), 1);
    // A new file in its place is a new library; of the old one sessions under way may still have instances.
    let new = libraries.folder().join("new");
    std::fs::copy(&path, &new).unwrap();
    std::fs::rename(&new, &path).unwrap();
    reload(&mut daemon, &config, 1);
    assert_eq!(mapped(&daemon), 2);
}

#[test]
fn a_hang_is_a_timeout_and_when_all_threads_hang_mail_does_not_wait() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let hang = filter("hang", &libraries.misbehaving("HANG_ON_WORD"), "threads = 2");
    let mut daemon = Daemon::start("check_time = '500ms'", &hang);
    // It hangs for as long as this file is there.
    let word = libraries.folder().join("word");
    std::fs::write(&word, "").unwrap();
    for _ in 0..2 {
        let report = check(&daemon, MAIL, word.to_str().unwrap());
        assert_eq!(found(&report), [["unscanned", "timeout", "hang"]]);
        assert_eq!(report.outlook, Outlook::NotJudged);
    }
    let begin = Instant::now();
    for _ in 0..5 {
        assert_eq!(found(&check(&daemon, MAIL, "")), [["unscanned", "busy", "hang"]]);
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "they waited: {:?}", begin.elapsed());
    // A reload does not let more threads go the same way.
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration reloaded");
    assert_eq!(found(&check(&daemon, MAIL, "")), [["unscanned", "busy", "hang"]]);
    // The calls return after all, and it looks again.
    std::fs::remove_file(&word).unwrap();
    let begin = Instant::now();
    while found(&check(&daemon, MAIL, "")) != [["malware", "Right", "hang"]] {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn garbage_is_unscanned_and_what_is_right_counts() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let panicking = libraries.panicking();
    let filters = [
        filter("kind", &libraries.misbehaving("BAD_KIND"), ""),
        filter("code", &libraries.misbehaving("UNKNOWN_CODE"), ""),
        filter("panic", &panicking, "settings = { panics = 'check' }"),
        filter("could-not", &libraries.misbehaving("COULD_NOT"), ""),
    ];
    let daemon = Daemon::start("", &filters.concat());
    let expected = [
        ["malware", "Right", "kind"],
        ["unscanned", "unknown-answer", "kind"],
        ["malware", "Right", "code"],
        ["unscanned", "unknown-answer", "code"],
        ["malware", "Found.Before", "panic"],
        ["unscanned", "panicked", "panic"],
        ["malware", "Right", "could-not"],
        ["unscanned", "unreadable", "could-not"],
    ];
    assert_eq!(found(&check(&daemon, MAIL, "")), expected);
}

/// Foreign code never runs as root when the daemon is not to: what only its own user's word makes good is taken at start, when
/// the daemon is still root, and at a reload, when it is not any more.
#[test]
fn a_library_runs_as_the_user_of_the_daemon() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        return skip("not root, so the daemon cannot become another user");
    }
    if !has_compiler() {
        return;
    }
    let (libraries, folder) = (Libraries::new(), tempfile::tempdir().unwrap());
    for folder in [libraries.folder(), folder.path().to_owned()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let (own, crash) = (libraries.misbehaving("GOOD"), libraries.misbehaving("ABORT_AT_LOAD"));
    chown(&own, Some(65534), None).unwrap();
    let config = format!("[daemon]\nstate = {:?}\n", folder.path().join("state"));
    let as_nobody = format!("{config}user = '65534'\ngroup = '65534'\n{}", filter("own", &own, ""));
    let mut daemon = Daemon::start_with(&as_nobody, folder);
    daemon.wait_for("serving");
    assert_eq!(found(&check(&daemon, MAIL, "")), [["malware", "Right", "own"]]);
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration reloaded");
    assert_eq!(found(&check(&daemon, MAIL, "")), [["malware", "Right", "own"]]);
    std::fs::write(daemon.config(), format!("{as_nobody}{}", filter("crash", &crash, ""))).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("it crashed (signal 6) the process that tried it");
    // Of root, it is somebody else's file.
    refused(&filter("own", &own, ""), &["it belongs to user 65534"]);
}

/// As documented: a library is code in the process. Nothing was answered for the mail, so it is sent again.
#[test]
fn a_crash_in_check_ends_the_daemon_and_nothing_was_answered() {
    use std::os::unix::process::ExitStatusExt;
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let daemon = Daemon::start("", &filter("crash", &libraries.misbehaving("CRASH_ON_WORD"), ""));
    assert_eq!(found(&check(&daemon, MAIL, "")), [["malware", "Right", "crash"]]);
    let mut client = Client::connect(&daemon.socket()).unwrap();
    let answer = client.ask(&request(MAIL.len(), "/crash"), Some(&mut MAIL.as_bytes()), PATIENCE);
    assert!(answer.is_err(), "{answer:?}");
    let (status, log) = daemon.end();
    assert_eq!(status.signal(), Some(6), "{log}");
}
