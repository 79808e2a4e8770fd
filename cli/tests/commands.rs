//! `checkpost` as a program: exit codes and output, without a daemon.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn checkpost(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_checkpost"))
        .arg("--config")
        .arg(folder.join("checkpost.toml"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read is no failure of the test.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn folder(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[daemon]\nstate = {:?}\n{more}", folder.path().join("state"));
    std::fs::write(folder.path().join("checkpost.toml"), config).unwrap();
    std::fs::write(folder.path().join("clean"), "Subject: x\n\nhello\n").unwrap();
    let gtube = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat();
    std::fs::write(folder.path().join("spam"), format!("Subject: x\n\n{gtube}\n")).unwrap();
    folder
}

/// The exit code, and a text that the output must have.
fn check(folder: &tempfile::TempDir, arguments: &[&str], code: i32, has: &str) {
    let output = checkpost(folder.path(), arguments, "Subject: from stdin\n\nx\n");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(has), "{arguments:?}: {has:?} is not in: {text}");
}

#[test]
fn check_and_explain_tell_by_their_exit_code() {
    let folder = folder("");
    check(&folder, &["check", "clean"], 0, "clean: deliverable");
    check(&folder, &["check", "-"], 0, "-: deliverable");
    check(&folder, &["check", "spam"], 1, "would be refused or changed");
    check(&folder, &["check", "clean", "spam"], 1, "would be refused or changed");
    check(&folder, &["check", "absent"], 2, "absent: No such file");
    check(&folder, &["check", "spam", "absent"], 2, "would be refused or changed");
    check(&folder, &["check"], 2, "Usage");
    check(&folder, &["check", "--json", "spam"], 1, "\"outlook\":\"refused-or-changed\"");
    check(&folder, &["explain", "clean"], 0, "no malware");
    check(&folder, &["explain", "spam"], 1, "yes");
    check(&folder, &["check", "--socket", "/nonexistent", "clean"], 2, "no daemon answers at /nonexistent");
}

#[test]
fn rules_see_the_circumstances() {
    let folder =
        folder("[[rule]]\nname = 'not for b'\nwhen = { recipient = 'b@example.org' }\nthen = { reject = 'no' }\n");
    check(&folder, &["check", "--recipient", "a@example.org", "clean"], 0, "<a@example.org>: deliver");
    check(
        &folder,
        &["check", "--recipient", "a@example.org", "--recipient", "b@example.org", "clean"],
        1,
        "<b@example.org>: reject, 550 5.7.1 no (rule \"not for b\")",
    );
}

#[test]
fn config_is_checked_and_shown() {
    let right = folder("[[way]]\nkind = 'smtp-proxy'\nlisten = '127.0.0.1:1'\nnext_hop = '127.0.0.1:2'\n");
    check(&right, &["config", "check"], 0, "nothing is wrong");
    check(&right, &["config", "show", "--origin"], 0, "kind = \"smtp-proxy\"  # ");
    check(&right, &["explain", "spam"], 1, "by the way \"smtp-proxy\"");
    let wrong = folder("x = 1\n[[way]]\nkind = 'smtp-prxy'\n");
    check(&wrong, &["config", "check"], 1, "checkpost.toml:3:1: daemon.x: unknown key");
    check(&wrong, &["config", "check"], 1, "did you mean \"smtp-proxy\"?");
    check(&wrong, &["check", "clean"], 2, "the configuration is wrong");
}

#[test]
fn ways_are_listed_with_what_fit_makes_of_them() {
    let folder = folder("");
    check(&folder, &["ways"], 0, "smtp-proxy");
    check(&folder, &["ways"], 0, "reject, malware: ");
    check(&folder, &["ways", "--json"], 0, "\"name\":\"postfix-after-queue\"");
}

#[test]
fn without_a_daemon_status_says_so() {
    let folder = folder("");
    check(&folder, &["status"], 2, "no daemon answers at ");
    check(&folder, &["reload"], 2, "no daemon answers at ");
}

#[test]
fn quarantined_mails_are_listed_shown_and_exported() {
    use checkpost_core::quarantine::{FileQuarantine, Quarantine, QuarantineConfig};
    use checkpost_core::{Content, Envelope, Mail, MailId, Origin, Outcome, Verdict, fit};
    let folder = folder("");
    check(&folder, &["quarantine", "list"], 0, "");
    let mail = Mail {
        id: MailId::new(),
        envelope: Envelope { sender: "s@example.net".into(), recipients: vec!["r@example.org".into()] },
        origin: Origin::inbound("way"),
        content: Content::from(&b"Subject: kept\r\n\r\nx\r\n"[..]),
    };
    let verdict = Verdict::uniform(&Outcome { quarantine: true, ..Outcome::deliver() }, 1, Vec::new());
    let fitted = fit(&mail, &verdict, &checkpostd::ways::KINDS[0].kind.abilities);
    let store = FileQuarantine::open(QuarantineConfig::below(&folder.path().join("state"))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let id = runtime.block_on(store.store(&mail, &verdict, &fitted)).unwrap();
    check(&folder, &["quarantine", "list"], 0, &format!("{id} "));
    check(&folder, &["quarantine", "show", &id], 0, "\"sender\": \"s@example.net\"");
    check(&folder, &["quarantine", "export", &id], 0, "Subject: kept\r\n\r\nx\r\n");
    check(&folder, &["quarantine", "show", "0000000000000"], 1, "no mail 0000000000000");
    check(&folder, &["quarantine", "export", "../x"], 2, "not the id of a mail");
}
