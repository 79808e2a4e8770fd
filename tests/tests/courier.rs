//! A real Courier with our filter in it, entered by the shipped recipe, and a real daemon: every answer by SMTP and by its
//! sendmail, several control files, and the four situations in which a filter is not there.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use checkpost_courier::setup;
use checkpost_tests::{Courier, Daemon, Root, Told, mails, program};

const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const SOON: Duration = Duration::from_secs(30);
const SOCKET: &str = "/var/lib/courier/allfilters/checkpost";

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }
[[rule]]
when = { header = { name = "Subject", contains = "come later" } }
then = { defer = "4.7.5 Not now" }
[[rule]]
when = { header = { name = "Subject", contains = "for nobody" } }
then = { discard = true }
[[rule]]
when = { recipient = "bob@example.test", header = { name = "Subject", contains = "not for bob" } }
then = { discard = true }
[[rule]]
when = { header = { name = "Subject", contains = "new body" } }
then = { replace_body = "It was taken away.\n" }
[[rule]]
when = { header = { name = "Subject", contains = "new field" } }
then = { add_header = "X-Checked: yes" }
[[rule]]
when = { header = { name = "Subject", contains = "copy to bob" } }
then = { add_recipient = "bob@example.test" }
"#;

struct Scene {
    root: Root,
    folder: tempfile::TempDir,
    daemon: Option<Daemon>,
}

/// A Courier with the filter, and the daemon; `settings` are more lines of courier.conf.
fn scene(courier: &Courier, settings: &str) -> Option<Scene> {
    let root = Root::start_or_skip(courier)?;
    std::fs::copy(program("checkpost-courier"), root.path("/usr/local/bin/checkpost-courier")).unwrap();
    std::fs::create_dir(root.path("/etc/checkpost")).unwrap();
    let mut scene = Scene { root, folder: tempfile::tempdir().unwrap(), daemon: None };
    scene.settings(settings);
    scene.start_daemon();
    Some(scene)
}

impl Scene {
    fn settings(&self, lines: &str) {
        let text = format!("# settings of the program checkpost-courier\nsocket = /lab/shared/check.sock\n{lines}\n");
        std::fs::write(self.root.path("/etc/checkpost/courier.conf"), text).unwrap();
    }

    fn start_daemon(&mut self) {
        let socket = self.root.shared().join("check.sock");
        let config = format!(
            "[daemon]\nstate = \"{}/state\"\n[[way]]\nkind = \"courierfilter\"\nlisten = \"unix:{}\"\n{RULES}",
            self.folder.path().display(),
            socket.display()
        );
        let ready = || UnixStream::connect(&socket).is_ok();
        let daemon = Daemon::start_when(Command::new(program("checkpostd")), self.folder.path(), &config, ready);
        self.daemon = Some(daemon.unwrap());
    }

    fn shell(&self, run: &str) -> Output {
        let output = self.root.command("sh").args(["-ec", run]).output().unwrap();
        assert!(output.status.success(), "{run}: {output:?} {}", self.said());
        output
    }

    /// As the recipe says.
    fn install(&self) {
        for step in setup::plans().remove(0).steps {
            self.shell(&step.run.unwrap());
        }
    }

    /// The way back, as the recipe says, from its end to its beginning.
    fn uninstall(&self) {
        for step in setup::plans().remove(0).steps.into_iter().rev() {
            if let Some(undo) = step.undo {
                self.shell(&undo);
            }
        }
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("COURIER\n{}\nCHECKPOST\n{daemon}", self.root.log())
    }

    fn socket(&self) -> PathBuf {
        self.root.path(SOCKET)
    }

    fn has_socket(&self) -> bool {
        self.socket().metadata().is_ok_and(|about| about.file_type().is_socket())
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !done() {
            assert!(Instant::now() < end, "{what} {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The filter's process, as in the root. One that has ended does not count, though Courier has not looked at it yet.
    fn filter(&self) -> String {
        let output = self.root.command("pgrep").args(["-r", "R,S,D", "-x", "checkpost"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn mail(&self, to: &[&str], subject: &str) -> Told {
        self.root.send(SENDER, to, &mails::plain(SENDER, to[0], subject, "text\n")).unwrap()
    }

    fn check(&self, to: &[&str], subject: &str, told: &str) {
        let answer = self.mail(to, subject).last().to_string();
        assert!(answer.starts_with(told), "{subject}: {answer:?} instead of {told:?} {}", self.said());
    }

    /// The one mail with this subject in a mailbox; `None`: there is none, and nothing is on its way.
    fn delivered(&self, user: &str, subject: &str) -> Option<String> {
        assert!(self.root.wait_queue_empty(SOON), "{}", self.said());
        let line = format!("\nSubject: {subject}\n");
        let mails = self.root.mailbox(user).into_iter().map(|mail| String::from_utf8_lossy(&mail).into_owned());
        let mut mails: Vec<String> = mails.filter(|mail| mail.contains(&line)).collect();
        assert!(mails.len() < 2, "{user} has {subject:?} {} times: {}", mails.len(), self.said());
        mails.pop()
    }
}

#[test]
fn courier_does_what_the_daemon_answers() {
    let Some(scene) = scene(&Courier::new(), "") else { return };
    scene.install();
    // Once more: nothing fails, nothing is done twice.
    let filter = scene.filter();
    scene.install();
    assert_eq!(scene.filter(), filter, "the filter runs on");
    let modules = std::fs::read_to_string(scene.root.path("/etc/courier/enablefiltering")).unwrap();
    assert_eq!(modules, "esmtp local\n");

    let infected = mails::with_attachment(SENDER, ALICE, "virus", "a.zip", &mails::eicar_in_nested_zip());
    let told = scene.root.send(SENDER, &[ALICE, BOB], &infected).unwrap();
    assert!(told.last().to_string().starts_with("550 5.7.1 Message contains malware ("), "{told:?} {}", scene.said());
    scene.check(&[ALICE], "come later", "451 4.7.5 Not now");
    scene.check(&[ALICE, BOB], "for nobody", "250 ");
    scene.check(&[ALICE, BOB], "not for bob", "250 ");
    scene.check(&[ALICE, BOB], "new body", "250 ");
    scene.check(&[ALICE], "new field", "250 ");
    scene.check(&[ALICE], "copy to bob", "250 ");
    scene.check(&[ALICE, BOB], "copy to bob, who has it", "250 ");
    for user in ["alice", "bob"] {
        for subject in ["virus", "come later", "for nobody"] {
            assert_eq!(scene.delivered(user, subject), None, "{user} {subject}");
        }
        let body = scene.delivered(user, "new body").unwrap_or_else(|| panic!("{user} {}", scene.said()));
        assert!(body.contains("\n\nIt was taken away.\n") && !body.contains("\ntext\n"), "{body}");
        assert!(scene.delivered(user, "copy to bob").is_some(), "{user} {}", scene.said());
        assert!(scene.delivered(user, "copy to bob, who has it").is_some(), "{user} {}", scene.said());
    }
    assert!(scene.delivered("alice", "not for bob").is_some());
    assert_eq!(scene.delivered("bob", "not for bob"), None);
    let field = scene.delivered("alice", "new field").unwrap();
    assert!(field.contains("\nX-Checked: yes\n") && field.ends_with("\ntext\n"), "{field}");

    // Octets beyond ASCII, lines of dots, more than a pipe or a block holds, and nobody as its sender.
    let text = format!("Gr\u{fc}\u{df}e\n.\n..\n{}", "0123456789 0123456789 0123456789\n".repeat(6000));
    for (from, subject) in [("", "null sender"), (SENDER, "large, with a new field")] {
        let told = scene.root.send(from, &[ALICE], &mails::plain(SENDER, ALICE, subject, &text)).unwrap();
        assert!(told.accepted(), "{told:?} {}", scene.said());
        let mail = scene.delivered("alice", subject).unwrap();
        assert!(mail.ends_with(&format!("\n\n{text}")), "{subject}: {}", &mail[..1000.min(mail.len())]);
    }
    // What the daemon knows of a mail.
    let log = scene.daemon.as_ref().unwrap().log();
    assert!(log.contains("client.example.net") || log.contains("127.0.0.1"), "{log}");

    // A local program's mail.
    let output = scene.root.submit(ALICE, &["bob"], &mails::as_stored(&infected)).unwrap();
    assert!(!output.status.success(), "{output:?} {}", scene.said());
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(words.contains("Message contains malware"), "{words} {}", scene.said());
    let output = scene.root.submit(ALICE, &["bob"], b"Subject: local, with a new field\n\ntext\n").unwrap();
    assert!(output.status.success(), "{output:?} {}", scene.said());
    let local = scene.delivered("bob", "local, with a new field").unwrap();
    assert!(local.contains("\nX-Checked: yes\n"), "{local}");
}

#[test]
fn courier_with_several_control_files() {
    let courier = Courier::new().filtered("esmtp local").batch_size(1).alias("staff: alice, bob");
    let Some(scene) = scene(&courier, "") else { return };
    scene.install();
    scene.check(&[ALICE, BOB], "for nobody", "250 ");
    scene.check(&[ALICE, BOB], "not for bob", "250 ");
    scene.check(&[ALICE, BOB], "new body", "250 ");
    scene.check(&["staff@example.test"], "new field", "250 ");
    scene.check(&[ALICE], "copy to bob", "250 ");
    let output = scene.root.submit(ALICE, &["staff"], b"Subject: not for bob, local\n\ntext\n").unwrap();
    assert!(output.status.success(), "{output:?} {}", scene.said());
    for (subject, alice, bob) in [
        ("for nobody", false, false),
        ("not for bob", true, false),
        ("new body", true, true),
        ("new field", true, true),
        ("copy to bob", true, true),
        ("not for bob, local", true, false),
    ] {
        let has = |user| scene.delivered(user, subject).is_some();
        assert_eq!((has("alice"), has("bob")), (alice, bob), "{subject} {}", scene.said());
    }
    assert!(scene.delivered("bob", "new body").unwrap().contains("It was taken away"));
}

/// Courier itself: no socket, nobody is asked; a socket with nobody behind it, nothing is taken.
#[test]
fn courier_without_its_filter() {
    let Some(scene) = scene(&Courier::new(), "") else { return };
    scene.install();
    let infected = mails::with_attachment(SENDER, ALICE, "x", "a.zip", &mails::eicar_in_nested_zip());
    let send = || scene.root.send(SENDER, &[ALICE], &infected).unwrap().last().to_string();
    assert!(send().starts_with("550 5.7.1 "), "{}", scene.said());

    // Killed: closed, and neither a signal nor a second start brings it back; stop and start does.
    scene.shell("kill -9 $(pgrep -x checkpost)");
    scene.wait("the filter dies", || scene.filter().is_empty());
    assert!(scene.has_socket(), "{}", scene.said());
    assert!(send().starts_with("432 Mail filters temporarily unavailable"), "{}", scene.said());
    scene.shell("kill -HUP $(cat /run/courier/courierfilter.pid)");
    assert!(send().starts_with("432 "), "{}", scene.said());
    scene.shell("filterctl stop checkpost");
    scene.wait("the socket goes", || !scene.has_socket());
    // Stopped: open. This is Courier's way; the README says so.
    scene.check(&[ALICE], "while it is stopped", "250 ");
    assert!(send().starts_with("250 "), "{}", scene.said());
    scene.install();
    assert!(send().starts_with("550 5.7.1 "), "{}", scene.said());

    // A second name over the first: an upgrade without a gap.
    scene.shell(
        "cp /usr/lib/courier/filters/checkpost /usr/lib/courier/filters/checkpost2; filterctl start checkpost2; \
         while [ ! -S /var/lib/courier/allfilters/checkpost2 ]; do sleep 0.1; done; filterctl stop checkpost; \
         while [ -e /var/lib/courier/allfilters/checkpost ]; do sleep 0.1; done",
    );
    assert!(send().starts_with("550 5.7.1 "), "{}", scene.said());
    scene.shell("filterctl start checkpost; filterctl stop checkpost2");
    scene.wait("the socket comes", || scene.has_socket());

    // Wrong settings are no reason not to be there; their repair needs no restart.
    scene.settings("when_down = accept");
    assert!(send().starts_with("451 4.3.0 "), "{}", scene.said());
    assert!(scene.root.wait_log("courier.conf:3: when_down", SOON), "{}", scene.said());
    scene.shell("courierfilter stop");
    scene.wait("the socket goes", || !scene.has_socket());
    assert!(send().starts_with("250 "), "stopped is open {}", scene.said());
    scene.shell("courierfilter start");
    assert!(scene.has_socket(), "courierfilter waits for the socket {}", scene.said());
    assert!(send().starts_with("451 4.3.0 "), "started with wrong settings {}", scene.said());
    scene.settings("");
    assert!(send().starts_with("550 5.7.1 "), "{}", scene.said());

    // Something in the folder that is no socket of a filter's: closed.
    scene.shell("touch /var/lib/courier/allfilters/stray");
    scene.check(&[ALICE], "while a stray file is there", "432 ");
    scene.shell("rm /var/lib/courier/allfilters/stray");

    // A filter that ends before it has made its socket: open, and courierfilter does not mind.
    scene.shell("filterctl stop checkpost");
    scene.wait("the socket goes", || !scene.has_socket());
    scene.shell("mkdir -p /var/lib/courier/allfilters/.checkpost/x; filterctl start checkpost");
    assert!(scene.root.wait_log("no socket, so mail passes UNCHECKED", SOON), "{}", scene.said());
    assert!(send().starts_with("250 "), "{}", scene.said());
    scene.shell("courierfilter stop; courierfilter start");
    assert!(send().starts_with("250 "), "{}", scene.said());
    // The recipe does not take that for well.
    let verify = setup::plans().remove(0).steps.pop().unwrap().run.unwrap();
    let output = scene.root.command("sh").args(["-ec", &verify]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("mail passes unchecked"));
    scene.shell("rm -r /var/lib/courier/allfilters/.checkpost");
    scene.install();
    assert!(send().starts_with("550 5.7.1 "), "{}", scene.said());

    // Nobody is asked about a source that is not listed.
    let submit = || scene.root.submit(ALICE, &["bob"], &mails::as_stored(&infected)).unwrap().status.success();
    assert!(!submit(), "{}", scene.said());
    scene.shell("echo esmtp > /etc/courier/enablefiltering");
    assert!(submit() && send().starts_with("550 5.7.1 "), "{}", scene.said());
}

#[test]
fn the_recipe_repairs_what_was_killed_and_can_be_taken_back() {
    let Some(scene) = scene(&Courier::new(), "") else { return };
    // Every file and link that the recipe may touch, but for what courierfilter makes and removes by itself.
    let tree = || {
        let list = "find /etc/courier /usr/lib/courier/filters -printf '%p %M %u %g %l\\n' | sort; \
                    cat /etc/courier/enablefiltering";
        String::from_utf8(scene.shell(list).stdout).unwrap()
    };
    // Debian has no such file; the default is written down.
    scene.shell("[ -e /etc/courier/enablefiltering ] || echo esmtp > /etc/courier/enablefiltering");
    let before = tree();
    scene.install();
    let filter = scene.filter();
    scene.shell("kill -9 $(pgrep -x checkpost)");
    scene.wait("the filter dies", || scene.filter().is_empty());
    scene.install();
    assert!(!scene.filter().is_empty() && scene.filter() != filter, "{}", scene.said());
    scene.check(&[ALICE], "come later", "451 4.7.5 Not now");
    scene.uninstall();
    assert_eq!(tree(), before);
    assert!(!scene.has_socket() && scene.filter().is_empty());
    scene.check(&[ALICE], "come later", "250 ");
    scene.uninstall();
    assert_eq!(tree(), before);
}

#[test]
fn courier_while_the_daemon_is_down() {
    let Some(mut scene) = scene(&Courier::new(), "") else { return };
    scene.install();
    scene.check(&[ALICE], "before", "250 ");
    scene.daemon.take().unwrap().kill().unwrap();
    scene.check(&[ALICE], "while it is down", "451 4.3.0 ");
    assert!(scene.root.wait_log("mail put off: /lab/shared/check.sock", SOON), "{}", scene.said());
    scene.settings("when_down = pass");
    scene.check(&[ALICE], "unchecked", "250 ");
    assert!(scene.root.wait_log("mail passes UNCHECKED (when_down = pass)", SOON), "{}", scene.said());
    scene.settings("");
    scene.start_daemon();
    scene.check(&[ALICE], "come later", "451 4.7.5 Not now");
    assert!(scene.delivered("alice", "unchecked").is_some());
    assert!(scene.delivered("alice", "while it is down").is_none());
}

#[test]
fn courier_with_forty_sessions_at_once() {
    let Some(scene) = scene(&Courier::new(), "sessions = 20") else { return };
    scene.install();
    let ready = std::sync::Barrier::new(40);
    std::thread::scope(|threads| {
        for number in 0..40 {
            let (scene, ready) = (&scene, &ready);
            threads.spawn(move || {
                let subject = format!("{} number {number}", if number % 2 == 0 { "fine" } else { "for nobody" });
                let mail = mails::plain(SENDER, ALICE, &subject, "text\n");
                let mut client = scene.root.client().unwrap();
                client.envelope(SENDER, &[ALICE]).unwrap();
                ready.wait();
                let answer = client.content(&mail).unwrap();
                assert!(answer.is_positive(), "{number}: {answer} {}", scene.said());
                client.quit();
            });
        }
    });
    assert!(scene.root.wait_queue_empty(SOON), "{}", scene.said());
    assert_eq!(scene.root.mailbox("alice").len(), 20, "{}", scene.said());
}
