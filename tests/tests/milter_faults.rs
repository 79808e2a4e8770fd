//! The milter gone or late, and what the mail servers make of it. What is found here stands in the
//! plug-ins' READMEs.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use checkpost_tests::mock_mta::Wire;
use checkpost_tests::{Answer, Client, CrashLoad, Daemon, Postfix, Root, Sendmail, StuckClamd, mails, program};

const SOON: Duration = Duration::from_secs(60);
const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";

/// A mail server with our milter, and the daemon that serves it or not.
struct Site {
    daemon: Option<Daemon>,
    folder: tempfile::TempDir,
    kind: &'static str,
    root: Root,
}

impl Site {
    fn new(root: Root, kind: &'static str) -> Self {
        Self { daemon: None, folder: tempfile::tempdir().unwrap(), kind, root }
    }

    fn socket(&self) -> PathBuf {
        self.root.shared().join("milter/milter.sock")
    }

    /// Starts the daemon with `more` behind its way.
    fn start(&mut self, more: &str) {
        self.daemon = Some(self.started(more));
    }

    fn started(&self, more: &str) -> Daemon {
        let (folder, socket) = (self.folder.path(), self.socket());
        let config = format!(
            "[daemon]\nstate = \"{}/state\"\ndrain_time = \"30s\"\n\n[[way]]\nkind = \"{}\"\nlisten = \"unix:{}\"\n\
             socket_mode = \"0666\"\n\n{more}",
            folder.display(),
            self.kind,
            socket.display()
        );
        let ready = || Wire::unix(&socket).is_ok_and(|mut wire| wire.negotiates());
        Daemon::start_when(Command::new(program("checkpostd")), folder, &config, ready).unwrap()
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().kill().unwrap();
    }

    /// What became of a mail: the code with which it was refused, or where it is now.
    fn fate(&self, told: io::Result<Answer>, before: (usize, usize)) -> String {
        let Ok(told) = told else { return "closed".into() };
        if !told.is_positive() {
            return told.code.to_string();
        }
        assert!(self.root.wait_delivered(SOON), "{}", self.root.log());
        match (self.root.mailbox("alice").len() - before.0, self.root.held_len() - before.1) {
            (1, 0) => "delivered".into(),
            (0, 1) => "held".into(),
            other => panic!("neither delivered nor held: {other:?} {}", self.said()),
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.root.mailbox("alice").len(), self.root.held_len())
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("server:\n{}\ncheckpostd:\n{daemon}", self.root.log())
    }
}

fn infected() -> Vec<u8> {
    mails::with_attachment(SENDER, ALICE, "infected", "invoice.zip", &mails::eicar_in_nested_zip())
}

fn clean() -> Vec<u8> {
    mails::plain(SENDER, ALICE, "clean", "text\n")
}

/// The answer that decides; a server that says 421 at first and closes has decided.
fn decided(client: &mut Client, mail: &[u8]) -> io::Result<Answer> {
    if client.greeting.code == 421 {
        return Ok(client.greeting.clone());
    }
    client.mail(SENDER, &[ALICE], mail).map(|told| told.last().clone())
}

/// The fates of an infected mail: the daemon gone before the session; killed behind RCPT; killed at the
/// end of the mail, while it was being looked at; and of the next mail of that last session, with the
/// daemon back.
fn fates(site: &mut Site) -> [String; 4] {
    let mail = infected();
    let stuck = StuckClamd::start().unwrap();

    site.start("");
    site.kill();
    let before = site.counts();
    let told = site.root.client().and_then(|mut client| decided(&mut client, &mail));
    let down = site.fate(told, before);

    site.start("");
    let before = site.counts();
    let mut client = site.root.client().unwrap();
    assert!(client.envelope(SENDER, &[ALICE]).unwrap().recipients[0].1.is_positive());
    site.kill();
    let told = client.content(&mail);
    let within = site.fate(told, before);

    site.start(&stuck.config("defer"));
    let before = site.counts();
    let mut client = site.root.client().unwrap();
    let told = std::thread::scope(|scope| {
        let sending = scope.spawn(|| decided(&mut client, &mail));
        assert!(stuck.wait_asked(SOON), "nobody asks the scanner");
        site.kill();
        sending.join().unwrap()
    });
    let at_end = site.fate(told, before);
    site.start("");
    let before = site.counts();
    let told = decided(&mut client, &mail);
    let next = site.fate(told, before);
    drop(client);

    // A new session is as if nothing had been.
    let told = site.root.send(SENDER, &[ALICE], &mail).unwrap();
    assert_eq!(told.last().code, 550, "{told:?} {}", site.said());
    assert!(site.root.send(SENDER, &[ALICE], &clean()).unwrap().accepted(), "{}", site.said());
    [down, within, at_end, next]
}

#[test]
fn milter_gone_postfix_does_what_its_default_action_says() {
    // Debian 12 has no action `shutdown`; newer ones have it as their default.
    for (action, wanted) in [
        ("tempfail", ["451", "451", "451", "451"]),
        ("accept", ["delivered", "delivered", "delivered", "delivered"]),
        ("reject", ["550", "550", "550", "550"]),
        ("quarantine", ["held", "held", "held", "held"]),
    ] {
        let Some(root) = Root::start_or_skip(&Postfix::new().milter(Postfix::MILTER, action)) else { return };
        let mut site = Site::new(root, "postfix-milter");
        assert_eq!(fates(&mut site), wanted, "{action}: {}", site.said());
    }
}

#[test]
fn milter_gone_sendmail_does_what_its_flag_says() {
    for (flags, wanted) in [
        ("", ["delivered", "delivered", "delivered", "delivered"]),
        ("F=T", ["451", "451", "451", "451"]),
        ("F=R", ["550", "554", "554", "550"]),
        ("F=4", ["421", "421", "421", "closed"]),
    ] {
        let Some(root) = Root::start_or_skip(&Sendmail::new().milter(Sendmail::MILTER, flags)) else { return };
        let mut site = Site::new(root, "sendmail-milter");
        assert_eq!(fates(&mut site), wanted, "{flags}: {}", site.said());
    }
}

/// Asked to end, the daemon first ends what it has begun: the answer is its own, and not the server's
/// default action, which would let the mail through here.
#[test]
fn milter_stopped_while_it_looks_still_answers() {
    for (kind, root) in both("accept", "T=R:30s") {
        let Some(root) = root else { return };
        let mut site = Site::new(root, kind);
        let stuck = StuckClamd::start().unwrap();
        site.start(&stuck.config("defer"));
        let told = std::thread::scope(|scope| {
            let sending = scope.spawn(|| site.root.send(SENDER, &[ALICE], &clean()));
            assert!(stuck.wait_asked(SOON), "nobody asks the scanner");
            site.daemon.as_ref().unwrap().signal(rustix::process::Signal::TERM).unwrap();
            stuck.give_up();
            sending.join().unwrap().unwrap()
        });
        assert_eq!(told.last().code, 451, "{kind}: {told:?} {}", site.said());
        assert!(site.daemon.take().unwrap().stop().unwrap().success());
        assert!(site.root.mailbox("alice").is_empty());
    }
}

/// Asked to end within a session, it serves the mail under way and puts the next one off: also where the
/// server's own setting would let it through.
#[test]
fn milter_stopped_within_a_session_ends_at_a_border() {
    for (kind, root) in both("accept", "T=R:30s") {
        let Some(root) = root else { return };
        let mut site = Site::new(root, kind);
        site.start("");
        let mut client = site.root.client().unwrap();
        assert!(client.mail(SENDER, &[ALICE], &clean()).unwrap().accepted(), "{}", site.said());
        assert!(client.envelope(SENDER, &[ALICE]).unwrap().recipients[0].1.is_positive());
        let daemon = site.daemon.take().unwrap();
        daemon.signal(rustix::process::Signal::TERM).unwrap();
        let end = Instant::now() + SOON;
        while !daemon.log().contains(" ending: ") {
            assert!(Instant::now() < end, "{}", daemon.log());
            std::thread::yield_now();
        }
        let told = client.content(&infected()).unwrap();
        assert_eq!(told.code, 550, "{kind}: {told} {} {}", site.said(), daemon.log());
        let told = client.mail(SENDER, &[ALICE], &infected()).unwrap();
        assert_eq!(told.last().code, 421, "{kind}: {told:?} {} {}", site.said(), daemon.log());
        drop(client);
        assert!(daemon.stop().unwrap().success());
        assert!(site.root.wait_queue_empty(SOON));
        assert_eq!(site.root.mailbox("alice").len(), 1, "{kind}");
    }
}

/// Sendmail gives up on a filter that says nothing for 10 s, unless the configuration says otherwise.
#[test]
fn milter_with_a_slow_scanner_is_waited_for_by_sendmail() {
    let Some(root) = Root::start_or_skip(&Sendmail::new().milter(Sendmail::MILTER, "F=T")) else { return };
    slow(Site::new(root, "sendmail-milter"), Duration::from_secs(13));
}

#[test]
fn milter_with_a_slow_scanner_is_waited_for_by_postfix() {
    let postfix = Postfix::new().milter(Postfix::MILTER, "tempfail").main_cf("milter_content_timeout", "10s");
    let Some(root) = Root::start_or_skip(&postfix) else { return };
    slow(Site::new(root, "postfix-milter"), Duration::from_secs(13));
}

fn slow(mut site: Site, time: Duration) {
    let stuck = StuckClamd::start().unwrap();
    site.start(&stuck.config("deliver"));
    let began = Instant::now();
    let told = std::thread::scope(|scope| {
        let sending = scope.spawn(|| site.root.send(SENDER, &[ALICE], &clean()));
        assert!(stuck.wait_asked(SOON), "nobody asks the scanner");
        // Not a wait for readiness: the length of the silence is what is tested.
        std::thread::sleep(time.saturating_sub(began.elapsed()));
        stuck.give_up();
        sending.join().unwrap().unwrap()
    });
    assert!(told.accepted(), "{told:?} {}", site.said());
    let there = site.root.wait_mailbox("alice", 1, SOON);
    let mail = String::from_utf8_lossy(&there[0]).into_owned();
    assert!(mail.contains("\nX-Checkpost-Unscanned: clamd "), "{mail}");
}

/// It is late by its own clock before the mail server's runs out: the answer is ours.
#[test]
fn milter_that_is_late_says_so_before_the_server_gives_up() {
    for (kind, root) in both("accept", "T=R:30s") {
        let Some(root) = root else { return };
        let mut site = Site::new(root, kind);
        let stuck = StuckClamd::start().unwrap();
        site.start(&format!("check_timeout = \"2s\"\n\n{}", stuck.config("defer")));
        let told = site.root.send(SENDER, &[ALICE], &clean()).unwrap();
        let end = told.end.clone().unwrap();
        assert!(end.code == 451 && end.text.contains("could not be checked"), "{kind}: {told:?} {}", site.said());
        assert!(stuck.wait_asked(SOON));
        assert!(site.root.mailbox("alice").is_empty());
    }
}

/// A daemon that is there and does nothing at all, from within a session and before the next.
#[test]
fn milter_frozen_the_server_gives_up_and_puts_off() {
    let postfix = Postfix::new().milter(Postfix::MILTER, "tempfail");
    let postfix = postfix.main_cf("milter_command_timeout", "2s").main_cf("milter_content_timeout", "2s");
    let sendmail = Sendmail::new().milter(Sendmail::MILTER, "F=T, T=C:2s;S:2s;R:2s;E:4s");
    let sites =
        [("postfix-milter", Root::start_or_skip(&postfix)), ("sendmail-milter", Root::start_or_skip(&sendmail))];
    for (kind, root) in sites {
        let Some(root) = root else { return };
        let mut site = Site::new(root, kind);
        site.start("");
        let mut client = site.root.client().unwrap();
        assert!(client.envelope(SENDER, &[ALICE]).unwrap().recipients[0].1.is_positive());
        let signal = |signal| site.daemon.as_ref().unwrap().signal(signal).unwrap();
        signal(rustix::process::Signal::STOP);
        assert_eq!(client.content(&clean()).unwrap().code, 451, "{kind}: {}", site.said());
        let told = site.root.send(SENDER, &[ALICE], &clean()).unwrap();
        assert_eq!(told.last().code, 451, "{kind}: {told:?} {}", site.said());
        signal(rustix::process::Signal::CONT);
        assert!(site.root.send(SENDER, &[ALICE], &clean()).unwrap().accepted(), "{kind}: {}", site.said());
        assert_eq!(site.root.wait_mailbox("alice", 1, SOON).len(), 1);
        assert!(site.root.wait_queue_empty(SOON));
        assert_eq!(site.root.mailbox("alice").len(), 1, "{kind}");
    }
}

/// Both servers with our milter, with these settings for when it is gone.
fn both(action: &str, flags: &str) -> [(&'static str, Option<Root>); 2] {
    [
        ("postfix-milter", Root::start_or_skip(&Postfix::new().milter(Postfix::MILTER, action))),
        ("sendmail-milter", Root::start_or_skip(&Sendmail::new().milter(Sendmail::MILTER, flags))),
    ]
}

#[test]
fn milter_killed_under_load_postfix_loses_nothing() {
    let Some(root) = Root::start_or_skip(&Postfix::new().milter(Postfix::MILTER, "tempfail")) else { return };
    killed_under_load(&Site::new(root, "postfix-milter"), 1000);
}

#[test]
fn milter_killed_under_load_sendmail_loses_nothing() {
    let sendmail = Sendmail::new().milter(Sendmail::MILTER, "F=T");
    let Some(root) = Root::start_or_skip(&sendmail) else { return };
    killed_under_load(&Site::new(root, "sendmail-milter"), 300);
}

/// What a client was told 250 for is delivered, whole; what is infected is not.
fn killed_under_load(site: &Site, mails: usize) {
    let load = CrashLoad {
        mails,
        lives: 20..200,
        start: || site.started(""),
        send: |from: &str, to: &[&str], mail: &[u8]| site.root.send(from, to, mail),
    };
    load.run();
    assert!(site.root.wait_queue_empty(SOON), "{}", site.root.log());
    // A mail server answers before anybody could break off: never twice.
    load.check(&site.root.mailbox("alice"), false);
}
