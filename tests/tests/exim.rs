//! Checkpost after the queue of a real Exim, by the shipped entries in both of Debian's layouts: the way of a mail is
//!
//!     client ── 25 ── Exim ── 10025 ── checkpostd ── 10026 ── Exim ── ~/Maildir
//!     client ── 25 ── Exim ── checkpost-pipe ── exim4 -oMr ── Exim ── ~/Maildir
//!                                   └── pipe.sock ── checkpostd

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checkpost_exim::setup::after_queue::RECIPES;
use checkpost_tests::{Daemon, Exim, Root, Told, mails, program};

const SOON: Duration = Duration::from_secs(60);
const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
/// What the built-in rules refuse, and a recipient who gets nothing.
const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "no spam"
when = { score = ">= 15" }
then = { reject = "5.7.1 Message looks like spam" }

[[rule]]
name = "not for bob"
when = { recipient = "bob@example.test" }
then = { discard = true }
"#;

/// Each way, and the layout in which it is tried: number of the recipe, and whether LMTP becomes SMTP.
const WAYS: [(usize, bool); 4] = [(0, true), (1, false), (2, false), (3, false)];

/// Everything in one place, ended in this order.
struct Around {
    daemon: Option<Daemon>,
    folder: tempfile::TempDir,
    config: String,
    root: Root,
    pipe: bool,
}

impl Around {
    /// `None` if the test was skipped. `change` is made to every text of the recipe, `way` and `rules` are added to the
    /// daemon's configuration.
    fn start(number: usize, change: impl Fn(&str) -> String, way: &str, rules: &str) -> Option<Self> {
        let recipe = &RECIPES[number];
        let plan = recipe.plan();
        let split = number.is_multiple_of(2);
        let mut exim = Exim::new().alias("staff: alice, bob");
        if split {
            exim = exim.split();
        }
        for step in &plan.steps {
            let Some((place, lines)) = step.lines else { continue };
            let file = step.file.unwrap().strip_prefix("/etc/exim4/").unwrap();
            let lines = change(lines);
            exim = match place.split('"').nth(1) {
                Some(line) => exim.insert(file, line, &lines),
                None => exim.file(file, &lines),
            };
        }
        let root = Root::start_or_skip(&exim)?;
        let pipe = recipe.kind == "exim-pipe";
        if pipe {
            std::fs::copy(program("checkpost-pipe"), root.path("/usr/bin/checkpost-pipe")).unwrap();
            std::fs::create_dir_all(root.path("/etc/checkpost")).unwrap();
            std::fs::write(root.path("/etc/checkpost/pipe.conf"), "socket = /lab/shared/pipe.sock\n").unwrap();
        }
        for step in &plan.steps {
            if let Some(run) = &step.run {
                let output = root.command("sh").args(["-ec", run]).output().unwrap();
                assert!(output.status.success(), "{run}: {output:?}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = root.shared().join("pipe.sock");
        let written = change(plan.checkpost_toml).replace("/run/checkpost/pipe.sock", &socket.display().to_string());
        let config = format!("[daemon]\nstate = \"{}/state\"\n\n{written}{way}\n{rules}", folder.path().display());
        let mut around = Self { daemon: None, folder, config, root, pipe };
        around.start_daemon();
        around.wait_until(|around| around.root.connect(25).is_ok());
        Some(around)
    }

    fn way((number, smtp): (usize, bool), way: &str, rules: &str) -> Option<Self> {
        let change = |text: &str| match smtp {
            true => text
                .replace("  protocol = lmtp\n", "")
                .replace("protocol = \"lmtp\"\n", "")
                .replace("hop_protocol = \"smtp\"\n", ""),
            false => text.to_owned(),
        };
        Self::start(number, change, way, rules)
    }

    fn start_daemon(&mut self) {
        self.daemon = Some(self.new_daemon());
    }

    fn new_daemon(&self) -> Daemon {
        let command = self.root.net_command(program("checkpostd"));
        let socket = self.root.shared().join("pipe.sock");
        let ready = || match self.pipe {
            true => UnixStream::connect(&socket).is_ok(),
            false => self.root.connect(10025).is_ok(),
        };
        Daemon::start_when(command, self.folder.path(), &self.config, ready).unwrap()
    }

    fn wait_until(&self, done: impl Fn(&Self) -> bool) {
        let end = std::time::Instant::now() + SOON;
        while !done(self) {
            assert!(std::time::Instant::now() < end, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn send(&self, from: &str, to: &[&str], mail: &[u8]) {
        let told: Told = self.root.send(from, to, mail).unwrap();
        assert!(told.accepted(), "{told:?} {}", self.said());
    }

    /// The mailbox of `user` is exactly `mails`, in any order, byte for byte below what servers put on top.
    fn delivered(&self, user: &str, mails: &[&[u8]]) {
        let there = self.root.wait_mailbox(user, mails.len(), SOON);
        assert!(self.root.wait_queue_empty(SOON), "{}", self.said());
        let there = if there.len() < mails.len() { self.root.mailbox(user) } else { there };
        assert_eq!(there.len(), mails.len(), "{user}: {}", self.said());
        for mail in mails {
            let stored = mails::as_stored(mail);
            assert!(there.iter().any(|there| there.ends_with(&stored)), "{}", self.said());
        }
    }

    fn closing_lines(&self) -> usize {
        self.daemon.as_ref().map(Daemon::log).unwrap_or_default().matches(" mail done ").count()
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("Exim:\n{}\ncheckpostd:\n{daemon}", self.root.log())
    }
}

fn plain(subject: &str) -> Vec<u8> {
    mails::plain(SENDER, ALICE, subject, "text\n")
}

fn infected() -> Vec<u8> {
    mails::with_attachment(SENDER, ALICE, "infected", "invoice.zip", &mails::eicar_in_nested_zip())
}

#[test]
fn what_comes_in_is_checked_once_by_each_way() {
    for way in WAYS {
        let Some(around) = Around::way(way, "", RULES) else { return };
        let long = "long ".repeat(190);
        let text = format!("Gr\u{fc}\u{df}e\n\n.\n..dots\nFrom here on\n \ttrailing blanks  \n{long}\nlast line\n");
        let clean = mails::plain(SENDER, ALICE, "clean", &text);
        around.send(SENDER, &[ALICE], &clean);
        around.send(SENDER, &[ALICE], &infected());
        around.send(SENDER, &[ALICE], &mails::plain(SENDER, ALICE, "spam", &format!("{}\n", mails::gtube())));
        let (two, bounce) = (plain("for two"), plain("from nobody"));
        around.send(SENDER, &[ALICE, BOB], &two);
        around.send("", &[ALICE], &bounce);
        around.delivered("alice", &[&clean, &two, &bounce]);
        around.delivered("bob", &[]);
        // Each was shown once; nobody was sent a bounce, as most senders of such mail are forged.
        assert_eq!(around.closing_lines(), 5, "{}", around.said());
        assert!(!around.root.log().contains("<= <> R="), "{}", around.said());
        assert!(around.daemon.unwrap().stop().unwrap().success());
    }
}

#[test]
fn local_mail_aliases_and_exims_own_bounces_are_checked_once() {
    for way in WAYS {
        let Some(around) = Around::way(way, "", "") else { return };
        // Two mails by one connection, and more than Exim delivers at once of one connection's by default.
        let mut client = around.root.client().unwrap();
        let many: Vec<Vec<u8>> = (0..13).map(|number| plain(&format!("number {number}"))).collect();
        for mail in &many {
            assert!(client.mail(SENDER, &[ALICE], mail).unwrap().accepted(), "{}", around.said());
        }
        let mut mails: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        Exim::run_queue(&around.root).unwrap();
        around.delivered("alice", &mails);

        let staff = plain("for staff");
        around.send(SENDER, &["staff@example.test"], &staff);
        around.delivered("bob", &[&staff]);
        mails.push(&staff);
        around.delivered("alice", &mails);
        assert_eq!(around.closing_lines(), 14, "{}", around.said());

        let local = b"Subject: local\n\n.\nFrom a program\n";
        let output = around.root.submit(ALICE, &[BOB, "nobody-here@example.test"], local).unwrap();
        assert!(output.status.success(), "{output:?}");
        // The second recipient is none: Exim finds that out behind us, and its bounce is checked as well.
        let there = around.root.wait_mailbox("alice", 15, SOON);
        let bounce = there.iter().map(|mail| String::from_utf8_lossy(mail).into_owned());
        let bounce = bounce.filter(|mail| mail.contains("\nX-Failed-Recipients: nobody-here@example.test\n"));
        assert_eq!(bounce.count(), 1, "{}", around.said());
        assert!(around.root.wait_queue_empty(SOON), "{}", around.said());
        let there = around.root.mailbox("bob");
        assert!(there.iter().any(|mail| mail.ends_with(b"\n\n.\nFrom a program\n")), "{}", around.said());
        assert_eq!((there.len(), around.closing_lines()), (2, 16), "{}", around.said());
    }
}

#[test]
fn daemon_gone_keeps_mail_until_it_is_back() {
    for way in WAYS {
        let Some(mut around) = Around::way(way, "", "") else { return };
        around.daemon.take().unwrap().kill().unwrap();
        let (one, other) = (plain("one"), plain("other"));
        around.send(SENDER, &[ALICE], &one);
        assert!(around.root.wait_log(" == alice@example.test R=checkpost", SOON), "{}", around.said());
        around.start_daemon();
        // Its outage is remembered for a while; a queue run by hand does not ask for that.
        around.send(SENDER, &[ALICE], &other);
        Exim::run_queue(&around.root).unwrap();
        around.delivered("alice", &[&one, &other]);
    }
}

/// Mail of this host's own users: a refusal is theirs to know, and with LMTP each recipient has an answer of its own.
#[test]
fn recipients_have_answers_of_their_own_by_lmtp() {
    let rule = "[[rule]]\nname = \"not for bob\"\nwhen = { recipient = \"bob@example.test\" }\nthen = { reject = \"Not for Bob\" }\n";
    let Some(around) = Around::way((1, false), "origin = \"submission\"\n", rule) else { return };
    let output = around.root.submit(ALICE, &[ALICE, BOB], b"Subject: two\n\ntext\n").unwrap();
    assert!(output.status.success(), "{output:?}");
    let there = around.root.wait_mailbox("alice", 2, SOON);
    assert_eq!(there.len(), 2, "{}", around.said());
    let text = there.iter().map(|mail| String::from_utf8_lossy(mail).into_owned()).collect::<String>();
    assert!(text.contains("\nX-Failed-Recipients: bob@example.test\n") && text.contains("Not for Bob"), "{text}");
    assert!(around.root.wait_queue_empty(SOON), "{}", around.said());
    assert!(around.root.mailbox("bob").is_empty());
}

#[test]
fn a_users_refusal_is_told_to_him_by_the_program() {
    let Some(around) = Around::way((2, false), "origin = \"submission\"\n", "") else { return };
    // Else the bounce has the spam in it, and is refused as well.
    std::fs::write(around.root.path("/etc/exim4/conf.d/main/010_checkpost"), "bounce_return_body = false\n").unwrap();
    Exim::restart(&around.root).unwrap();
    let spam = format!("Subject: spam\n\n{}\n", mails::gtube());
    let output = around.root.submit(ALICE, &[BOB], spam.as_bytes()).unwrap();
    assert!(output.status.success(), "{output:?}");
    let there = around.root.wait_mailbox("alice", 1, SOON);
    let text = String::from_utf8_lossy(&there.concat()).into_owned();
    assert!(text.contains("\n5.7.1 Message looks like spam\n"), "{text} {}", around.said());
    assert!(around.root.wait_queue_empty(SOON), "{}", around.said());
    assert!(around.root.mailbox("bob").is_empty());
}

/// Exim does as if it did not hear `-oMr` from a user whom it does not trust.
#[test]
fn a_user_whom_exim_does_not_trust_begins_no_circle() {
    let change = |text: &str| {
        text.replace("  user = Debian-exim\n", "  user = checkpost\n")
            .replace("  group = Debian-exim\n", "  group = checkpost\n")
    };
    let Some(around) = Around::start(2, change, "", "") else { return };
    let mail = plain("stays");
    around.send(SENDER, &[ALICE], &mail);
    assert!(around.root.wait_log("Exim does not trust the user", SOON), "{}", around.said());
    assert_eq!((around.root.queue_len(), around.closing_lines()), (1, 0), "{}", around.said());
    std::fs::write(around.root.path("/etc/exim4/conf.d/main/010_checkpost"), "MAIN_TRUSTED_USERS = uucp : checkpost\n")
        .unwrap();
    Exim::restart(&around.root).unwrap();
    Exim::run_queue(&around.root).unwrap();
    around.delivered("alice", &[&mail]);
}

#[test]
fn a_router_without_its_condition_begins_no_circle() {
    let change = |text: &str| text.replace("  condition = ${if !eq{$received_protocol}{checkpost}}\n", "");
    let Some(around) = Around::start(2, change, "", "") else { return };
    around.send(SENDER, &[ALICE], &plain("stays"));
    assert!(around.root.wait_log("was checked and came again", SOON), "{}", around.said());
    assert_eq!((around.root.queue_len(), around.closing_lines()), (1, 1), "{}", around.said());
}

/// Exim would bounce it: a program that cannot be started, or that is killed.
#[test]
fn a_broken_program_bounces_nothing() {
    let Some(around) = Around::way((2, false), "", "") else { return };
    let program = around.root.path("/usr/bin/checkpost-pipe");
    let mail = plain("later");
    let good = std::fs::read(&program).unwrap();
    for (tries, broken) in
        ["#!/bin/sh\nkill -9 $$\n", "#!/bin/sh\nexit 101\n", "#!/nonexistent\n"].into_iter().enumerate()
    {
        std::fs::write(&program, broken).unwrap();
        around.send(SENDER, &[ALICE], &mail);
        let deferred = |around: &Around| around.root.log().matches(" == alice@example.test R=checkpost").count();
        around.wait_until(|around| deferred(around) > tries);
    }
    assert!(!around.root.log().contains(" ** "), "{}", around.said());
    std::fs::write(&program, good).unwrap();
    let thaw = "for id in $(exiqgrep -z -i); do exim4 -Mt $id; done";
    assert!(around.root.command("sh").args(["-ec", thaw]).output().unwrap().status.success());
    Exim::run_queue(&around.root).unwrap();
    assert!(around.root.wait_queue_empty(SOON), "{}", around.said());
    let (there, stored) = (around.root.mailbox("alice"), mails::as_stored(&mail));
    assert_eq!(there.iter().filter(|there| there.ends_with(&stored)).count(), 3, "{}", around.said());
}

/// The daemon is killed again and again while mail comes: Exim keeps what was not answered.
#[test]
fn killed_under_load_loses_nothing() {
    const MAILS: usize = 60;
    for way in [WAYS[1], WAYS[2]] {
        let Some(mut around) = Around::way(way, "", "") else { return };
        let mut daemon = around.daemon.take();
        let (around_now, finished) = (&around, AtomicBool::new(false));
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..4)
                .map(|sender| {
                    scope.spawn(move || {
                        for number in (0..MAILS).filter(|number| number % 4 == sender) {
                            let mail = if number % 10 == 9 { infected() } else { plain(&format!("mail {number} ")) };
                            around_now.send(SENDER, &[ALICE], &mail);
                        }
                    })
                })
                .collect();
            let killer = scope.spawn(|| {
                let mut kills = 0;
                while !finished.load(Ordering::Relaxed) || kills < 5 {
                    std::thread::sleep(Duration::from_millis(150));
                    daemon.take().unwrap().kill().unwrap();
                    daemon = Some(around_now.new_daemon());
                    kills += 1;
                }
            });
            let sent: Vec<_> = senders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            finished.store(true, Ordering::Relaxed);
            killer.join().unwrap();
            sent.into_iter().for_each(|sent| sent.unwrap());
        });
        around.daemon = daemon;
        around.wait_until(|around| {
            Exim::run_queue(&around.root).unwrap();
            around.root.queue_len() == 0
        });
        let there = around.root.mailbox("alice");
        for number in 0..MAILS {
            let subject = format!("\nSubject: mail {number} \n");
            let copies = there.iter().filter(|mail| String::from_utf8_lossy(mail).contains(&subject)).count();
            assert_eq!(copies > 0, number % 10 != 9, "mail {number}: {copies} times; {}", around.said());
        }
        assert!(!there.iter().any(|mail| String::from_utf8_lossy(mail).contains("\nSubject: infected\n")));
        assert!(!around.root.log().contains("<= <> R="), "{}", around.said());
    }
}

#[test]
fn the_address_list_can_be_taken_back() {
    let Some(around) = Around::way((1, false), "", "") else { return };
    let conf = || std::fs::read_to_string(around.root.path("/etc/exim4/update-exim4.conf.conf")).unwrap();
    assert!(conf().contains("\ndc_local_interfaces='127.0.0.1 ; 127.0.0.1.10026'\n"), "{}", conf());
    let plan = RECIPES[1].plan();
    let listen = plan.steps.iter().find(|step| step.undo.is_some()).unwrap();
    let run = |script: &str| {
        let output = around.root.command("sh").args(["-ec", script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(listen.run.as_deref().unwrap());
    assert_eq!(conf().matches("10026").count(), 1, "once is enough");
    run(listen.undo.as_deref().unwrap());
    assert!(conf().contains("\ndc_local_interfaces='127.0.0.1'\n"), "{}", conf());
    // All addresses, and all of them again.
    run("sed -i \"s/^dc_local_interfaces=.*/dc_local_interfaces=''/\" /etc/exim4/update-exim4.conf.conf");
    run(listen.run.as_deref().unwrap());
    assert!(conf().contains("\ndc_local_interfaces='0.0.0.0 ; ::0 ; 127.0.0.1.10026'\n"), "{}", conf());
    run(listen.undo.as_deref().unwrap());
    assert!(conf().contains("\ndc_local_interfaces=''\n"), "{}", conf());
}
