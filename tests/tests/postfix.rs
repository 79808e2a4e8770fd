//! Checkpost around a real Postfix with a real clamd: the way of a mail is
//!
//!     client ── 25 ── Postfix ── 10025 ── checkpostd ── 10026 ── Postfix ── ~/Maildir
//!                                             └── clamd.sock ── clamd
//!
//! before the queue (the client waits) or after it.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_postfix::setup;
use checkpost_tests::{Clamd, Daemon, Postfix, Root, mails, program};

const SOON: Duration = Duration::from_secs(60);
const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";

/// Everything in one place, ended in this order.
struct Around {
    daemon: Option<Daemon>,
    folder: tempfile::TempDir,
    config: String,
    postfix: Root,
    clamd: Option<Root>,
}

impl Around {
    /// `None` if the test was skipped.
    fn start(postfix: &Postfix, way: &str, more: &str) -> Option<Self> {
        let postfix = Root::start_or_skip(postfix)?;
        let clamd = Root::start_or_skip(&Clamd::new())?;
        let folder = tempfile::tempdir().unwrap();
        let socket = clamd.shared().join("clamd.sock");
        let config = config(folder.path(), way, &socket, more);
        let mut around = Self { daemon: None, folder, config, postfix, clamd: Some(clamd) };
        around.start_daemon();
        Some(around)
    }

    fn start_daemon(&mut self) {
        let command = self.postfix.net_command(program("checkpostd"));
        let connect = || self.postfix.connect(10025);
        self.daemon = Some(Daemon::start_in(command, self.folder.path(), &self.config, connect).unwrap());
    }

    fn send(&self, mail: &[u8]) -> checkpost_tests::Told {
        self.postfix.send(SENDER, &[ALICE], mail).unwrap()
    }

    /// The mailbox of alice is exactly `mails`, in any order, byte for byte below the Received fields.
    fn delivered(&self, mails: &[&[u8]]) {
        let there = self.postfix.wait_mailbox("alice", mails.len(), SOON);
        assert!(self.postfix.wait_queue_empty(SOON), "{}", self.said());
        assert_eq!(there.len(), mails.len(), "{}", self.said());
        for mail in mails {
            let stored = mails::as_stored(mail);
            assert!(there.iter().any(|there| there.ends_with(&stored)), "{}", self.said());
        }
        assert!(self.postfix.mailbox("bob").is_empty());
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("Postfix:\n{}\ncheckpostd:\n{daemon}", self.postfix.log())
    }
}

fn config(folder: &Path, way: &str, clamd: &Path, more: &str) -> String {
    let (folder, clamd) = (folder.display(), clamd.display());
    format!(
        r#"
[daemon]
state = "{folder}/state"

[[way]]
kind = "{way}"
listen = "127.0.0.1:10025"
next_hop = "127.0.0.1:10026"
{more}

# What is found is found by clamd.
[filter.built-in]
enabled = false

[filter.clamd]
address = "unix:{clamd}"
"#
    )
}

fn clean() -> Vec<u8> {
    mails::plain(SENDER, ALICE, "clean", "Grüße\n\n.\n..dots\n \ttrailing blanks  \nlast line\n")
}

fn infected() -> Vec<u8> {
    mails::with_attachment(SENDER, ALICE, "infected", "invoice.zip", &mails::eicar_in_nested_zip())
}

#[test]
fn before_queue_refuses_eicar_in_session() {
    let postfix = Postfix::new().before_queue("127.0.0.1:10025");
    let Some(around) = Around::start(&postfix, "postfix-before-queue", "") else { return };
    let clean = clean();
    assert!(around.send(&clean).accepted(), "{}", around.said());
    let told = around.send(&infected());
    let end = told.end.clone().unwrap();
    assert_eq!(end.code / 100, 5, "{told:?} {}", around.said());
    assert!(end.text.starts_with("5.7.1"), "{end}");
    // The next mail is no worse for it.
    let again = self::clean();
    assert!(around.send(&again).accepted(), "{}", around.said());
    around.delivered(&[&clean, &again]);
    assert!(around.daemon.unwrap().stop().unwrap().success());
}

#[test]
fn after_queue_stops_eicar_without_a_bounce() {
    for (lmtp, next_hop, more) in
        [(false, "[127.0.0.1]:10025", ""), (true, "127.0.0.1:10025", "protocol = \"lmtp\"\nhop_protocol = \"smtp\"")]
    {
        let postfix = Postfix::new().after_queue(next_hop, lmtp);
        let Some(around) = Around::start(&postfix, "postfix-after-queue", more) else { return };
        let clean = clean();
        assert!(around.send(&infected()).accepted(), "Postfix takes it before anybody looks");
        assert!(around.send(&clean).accepted(), "{}", around.said());
        around.delivered(&[&clean]);
        // A bounce would go to a sender who is most likely forged.
        assert!(!around.postfix.log().contains("sender non-delivery notification"), "{}", around.said());
    }
}

/// The entries that the program prints and the README shows, entered by a shell in the root.
#[test]
fn the_entries_that_are_shipped_work() {
    for plan in setup::plans() {
        let Some(postfix) = Root::start_or_skip(&Postfix::new()) else { return };
        let pipe = install_pipe(&postfix);
        for step in &plan.steps {
            let run = step.run.as_deref().unwrap();
            let output = postfix.command("sh").args(["-ec", run]).output().unwrap();
            assert!(output.status.success(), "{run}: {output:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        // Where Postfix sees checkpost/milter.sock; its users are not this machine's.
        let socket = postfix.shared().join("milter/milter.sock");
        let way =
            plan.checkpost_toml.replace("/var/spool/postfix/checkpost/milter.sock", &socket.display().to_string());
        let way = way.replace("/run/checkpost/pipe.sock", &pipe.display().to_string());
        let way = if way == plan.checkpost_toml { way } else { format!("{way}socket_mode = \"0666\"\n") };
        let config = format!("[daemon]\nstate = \"{}/state\"\n\n{way}", folder.path().display());
        let command = postfix.net_command(program("checkpostd"));
        let listens = || {
            postfix.connect(10025).is_ok() || [&socket, &pipe].iter().any(|socket| UnixStream::connect(socket).is_ok())
        };
        let daemon = Daemon::start_when(command, folder.path(), &config, listens).unwrap();
        let mut around = Around { daemon: Some(daemon), folder, config, postfix, clamd: None };
        let clean = clean();
        assert!(around.send(&clean).accepted(), "{}", around.said());
        let told = around.send(&infected());
        let after_queue = ["postfix-after-queue", "postfix-pipe"].contains(&plan.way);
        assert_eq!(told.accepted(), after_queue, "{told:?} {}", around.said());
        around.delivered(&[&clean]);
        assert!(around.daemon.take().unwrap().stop().unwrap().success());
    }
}

#[test]
fn clamd_gone_defers_and_loses_nothing() {
    let postfix = Postfix::new().after_queue("[127.0.0.1]:10025", false);
    let Some(mut around) = Around::start(&postfix, "postfix-after-queue", "") else { return };
    around.clamd = None;
    let clean = clean();
    assert!(around.send(&clean).accepted());
    assert!(around.postfix.wait_log("status=deferred", SOON), "{}", around.said());
    assert!(around.postfix.mailbox("alice").is_empty());
    assert_eq!(around.postfix.queue_len(), 1);
}

#[test]
fn daemon_gone_before_queue_is_a_temporary_failure() {
    let postfix = Postfix::new().before_queue("127.0.0.1:10025");
    let Some(mut around) = Around::start(&postfix, "postfix-before-queue", "") else { return };
    around.daemon.take().unwrap().kill().unwrap();
    let clean = clean();
    let told = around.send(&clean);
    assert_eq!(told.last().code / 100, 4, "{told:?}");
    around.start_daemon();
    assert!(around.send(&clean).accepted(), "{}", around.said());
    // Of the failures Postfix tells its postmaster, who is nobody here: only alice's box counts.
    assert_eq!(around.postfix.wait_mailbox("alice", 1, SOON).len(), 1);
}

#[test]
fn daemon_gone_after_queue_keeps_mail_until_it_is_back() {
    let postfix = Postfix::new().after_queue("[127.0.0.1]:10025", false);
    let Some(mut around) = Around::start(&postfix, "postfix-after-queue", "") else { return };
    around.daemon.take().unwrap().kill().unwrap();
    let clean = clean();
    assert!(around.send(&clean).accepted());
    assert!(around.postfix.wait_log("status=deferred", SOON), "{}", around.said());
    around.start_daemon();
    assert!(around.postfix.command("postqueue").arg("-f").status().unwrap().success());
    around.delivered(&[&clean]);
}

#[test]
fn second_recipient_of_a_mail_is_spared() {
    let postfix = Postfix::new().before_queue("127.0.0.1:10025");
    let rule =
        "\n[[rule]]\nname = \"not for bob\"\nwhen = { recipient = \"bob@example.test\" }\nthen = { discard = true }\n";
    let Some(around) = Around::start(&postfix, "postfix-before-queue", rule) else { return };
    let clean = clean();
    let told = around.postfix.send(SENDER, &[ALICE, BOB], &clean).unwrap();
    assert!(told.accepted(), "{told:?} {}", around.said());
    around.delivered(&[&clean]);
}

/// The program and its settings in the root; the socket as this machine sees it.
fn install_pipe(postfix: &Root) -> PathBuf {
    std::fs::copy(program("checkpost-pipe"), postfix.path("/usr/bin/checkpost-pipe")).unwrap();
    std::fs::create_dir_all(postfix.path("/etc/checkpost")).unwrap();
    std::fs::write(postfix.path("/etc/checkpost/pipe.conf"), "socket = /lab/shared/pipe.sock\n").unwrap();
    postfix.shared().join("pipe.sock")
}

/// The pipe way by its shipped entries; `more` are keys of the way, and rules.
fn pipe(more: &str) -> Option<Around> {
    let plan = setup::plans().into_iter().find(|plan| plan.way == "postfix-pipe").unwrap();
    let postfix = Root::start_or_skip(&Postfix::new().alias("staff: alice, bob"))?;
    let socket = install_pipe(&postfix);
    for step in &plan.steps {
        let output = postfix.command("sh").args(["-ec", step.run.as_deref().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let way = plan.checkpost_toml.replace("/run/checkpost/pipe.sock", &socket.display().to_string());
    let config = format!("[daemon]\nstate = \"{}/state\"\n\n{way}{more}", folder.path().display());
    let mut around = Around { daemon: None, folder, config, postfix, clamd: None };
    around.start_pipe_daemon();
    Some(around)
}

impl Around {
    fn start_pipe_daemon(&mut self) {
        let socket = self.postfix.shared().join("pipe.sock");
        let command = self.postfix.net_command(program("checkpostd"));
        let ready = || UnixStream::connect(&socket).is_ok();
        self.daemon = Some(Daemon::start_when(command, self.folder.path(), &self.config, ready).unwrap());
    }
}

#[test]
fn by_the_pipe_mail_is_checked_once_and_unchanged() {
    let rules = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "not for bob"
when = { recipient = "bob@example.test" }
then = { discard = true }
"#;
    let Some(around) = pipe(rules) else { return };
    let (clean, two, bounce, staff) = (clean(), clean(), clean(), clean());
    assert!(around.send(&clean).accepted());
    assert!(around.send(&infected()).accepted());
    for (from, to, mail) in
        [(SENDER, &[ALICE, BOB][..], &two), ("", &[ALICE], &bounce), (SENDER, &["staff@example.test"], &staff)]
    {
        assert!(around.postfix.send(from, to, mail).unwrap().accepted());
    }
    let there = around.postfix.wait_mailbox("alice", 4, SOON);
    assert!(around.postfix.wait_queue_empty(SOON), "{}", around.said());
    for mail in [&clean, &two, &bounce, &staff] {
        let stored = mails::as_stored(mail);
        assert_eq!(there.iter().filter(|there| there.ends_with(&stored)).count(), 1, "{}", around.said());
    }
    assert_eq!((there.len(), around.postfix.mailbox("bob").len()), (4, 1), "{}", around.said());
    assert!(there.iter().any(|mail| mail.starts_with(b"Return-Path: <>\n")), "the null sender stays null");
    let log = around.daemon.as_ref().unwrap().log();
    assert_eq!(log.matches(" mail done ").count(), 5, "{log}");
    assert!(log.contains("client=127.0.0.1") && log.contains("queue_id="), "{log}");
    assert!(!around.postfix.log().contains("sender non-delivery notification"), "{}", around.said());
}

#[test]
fn by_the_pipe_mail_waits_for_the_daemon() {
    let Some(mut around) = pipe("") else { return };
    around.daemon.take().unwrap().kill().unwrap();
    let clean = clean();
    assert!(around.send(&clean).accepted());
    assert!(around.postfix.wait_log("status=deferred (not checked: ", SOON), "{}", around.said());
    around.start_pipe_daemon();
    assert!(around.postfix.command("postqueue").arg("-f").status().unwrap().success());
    around.delivered(&[&clean]);
}

#[test]
fn by_the_pipe_a_refusal_is_a_bounce_in_our_words() {
    let Some(around) = pipe("origin = \"submission\"\n") else { return };
    let spam = mails::plain(ALICE, BOB, "spam", &format!("{}\n", mails::gtube()));
    assert!(around.postfix.send(ALICE, &[BOB], &spam).unwrap().accepted());
    assert!(around.postfix.wait_log("dsn=5.7.1, status=bounced (Message looks like spam", SOON), "{}", around.said());
    assert_eq!(around.postfix.wait_mailbox("alice", 1, SOON).len(), 1, "{}", around.said());
    assert!(around.postfix.mailbox("bob").is_empty());
}

/// With content_filter for local programs, too, what comes back would be sent to us again.
#[test]
fn by_the_pipe_no_circle_begins() {
    let Some(around) = pipe("") else { return };
    let script = "postconf -e content_filter=checkpost:dummy && postfix reload";
    assert!(around.postfix.command("sh").args(["-ec", script]).output().unwrap().status.success());
    assert!(around.send(&clean()).accepted());
    assert!(around.postfix.wait_log("was checked and came again", SOON), "{}", around.said());
    assert_eq!(around.postfix.queue_len(), 1, "{}", around.said());
    assert!(around.postfix.mailbox("alice").is_empty());
}
