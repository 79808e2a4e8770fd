//! A real Exim with our local_scan library in it, entered by the shipped recipe, and a real daemon: every answer by SMTP and
//! by its sendmail, and what Exim does without the daemon or the library.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::Duration;

use checkpost_exim::setup::local_scan::RECIPES;
use checkpost_tests::{Daemon, Exim, Root, mails, program};

const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const SOON: Duration = Duration::from_secs(30);
const LIBRARY: &str = "/usr/lib/exim4/local_scan/checkpost.so";

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }
[[rule]]
when = { score = ">= 15" }
then = { reject = "5.7.1 Message looks like spam" }
[[rule]]
when = { header = { name = "Subject", contains = "come later" } }
then = { defer = "4.7.5 Not now" }
[[rule]]
when = { header = { name = "Subject", contains = "for nobody" } }
then = { discard = true }
[[rule]]
when = { header = { name = "Subject", contains = "keep it" } }
then = { hold = "looks odd" }
[[rule]]
when = { recipient = "bob@example.test", header = { name = "Subject", contains = "not for bob" } }
then = { discard = true }
[[rule]]
when = { header = { name = "Subject", contains = "new body" } }
then = { replace_body = "It was taken away.\n" }
[[rule]]
when = { header = { name = "Subject", contains = "new field" } }
then = { add_header = "X-Checked: yes", remove_header = "X-Old", subject_tag = "[checked]", append_header = "X-Last: yes" }
[[rule]]
when = { header = { name = "Subject", contains = "copy to bob" } }
then = { add_recipient = "bob@example.test" }
"#;

struct Scene {
    root: Root,
    folder: tempfile::TempDir,
    daemon: Option<Daemon>,
}

impl Scene {
    /// An Exim with the library, and the daemon. `None`: there is no lab here.
    fn new(exim: &Exim) -> Option<Self> {
        let root = Root::start_or_skip(exim)?;
        for folder in ["/usr/lib/checkpost", "/etc/checkpost"] {
            std::fs::create_dir_all(root.path(folder)).unwrap();
        }
        let name = "libcheckpost_exim_local_scan.so";
        std::fs::copy(program(name), root.path("/usr/lib/checkpost").join(name)).unwrap();
        let mut scene = Self { root, folder: tempfile::tempdir().unwrap(), daemon: None };
        scene.settings("");
        scene.start_daemon();
        Some(scene)
    }

    fn settings(&self, lines: &str) {
        let text = format!("socket = /lab/shared/check.sock\n{lines}\n");
        std::fs::write(self.root.path("/etc/checkpost/exim.conf"), text).unwrap();
    }

    fn start_daemon(&mut self) {
        let socket = self.root.shared().join("check.sock");
        let config = format!(
            "[daemon]\nstate = \"{}/state\"\n[[way]]\nkind = \"exim-local-scan\"\nlisten = \"unix:{}\"\n{RULES}",
            self.folder.path().display(),
            socket.display()
        );
        let ready = || UnixStream::connect(&socket).is_ok();
        let daemon = Daemon::start_when(Command::new(program("checkpostd")), self.folder.path(), &config, ready);
        self.daemon = Some(daemon.unwrap());
    }

    fn stop_daemon(&mut self) {
        self.daemon.take().unwrap().stop().unwrap();
    }

    fn shell(&self, run: &str) -> Output {
        let output = self.root.command("sh").args(["-ec", run]).output().unwrap();
        assert!(output.status.success(), "{run}: {output:?} {}", self.said());
        output
    }

    /// As the recipe says.
    fn install(&self, method: usize) {
        for step in RECIPES[method].plan().steps {
            match (step.run, step.lines) {
                (Some(run), _) => {
                    self.shell(&run);
                }
                (None, Some((_, lines))) => {
                    let file = self.root.path(step.file.unwrap());
                    let before = std::fs::read_to_string(&file).unwrap_or_default();
                    std::fs::write(&file, before.replace(lines, "") + lines).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        self.wait_port();
    }

    /// The way back: what was entered goes, and what the steps say.
    fn uninstall(&self, method: usize) {
        for step in RECIPES[method].plan().steps.into_iter().rev() {
            if let Some(undo) = step.undo {
                self.shell(&undo);
            }
            if let Some((_, lines)) = step.lines {
                let file = self.root.path(step.file.unwrap());
                let before = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, before.replace(lines, "")).unwrap();
            }
        }
        self.wait_port();
    }

    fn wait_port(&self) {
        let end = std::time::Instant::now() + SOON;
        while self.root.connect(25).is_err() {
            assert!(std::time::Instant::now() < end, "{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn said(&self) -> String {
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("EXIM\n{}\nCHECKPOST\n{daemon}", self.root.log())
    }

    #[track_caller]
    fn check(&self, from: &str, to: &[&str], message: &[u8], told: &str) {
        let answer = self.root.send(from, to, message).unwrap().last().to_string();
        assert!(answer.starts_with(told), "{answer:?} instead of {told:?} {}", self.said());
    }

    #[track_caller]
    fn plain(&self, to: &[&str], subject: &str, told: &str) {
        self.check(SENDER, to, &mails::plain(SENDER, to[0], subject, "text\n"), told);
    }

    /// By a program of alice's, to bob.
    fn submit(&self, subject: &str, text: &str) -> Output {
        let message = format!("Subject: {subject}\n\n{text}");
        self.root.submit(ALICE, &[BOB], message.as_bytes()).unwrap()
    }

    /// The one mail with this subject in a mailbox; `None`: there is none, and nothing is on its way.
    #[track_caller]
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
fn exim_does_what_the_daemon_answers() {
    let Some(scene) = Scene::new(&Exim::new().alias("staff: alice, bob")) else { return };
    scene.install(1);
    // Once more: nothing fails, nothing is there twice.
    scene.install(1);

    let infected = mails::with_attachment(SENDER, ALICE, "virus", "a.zip", &mails::eicar_in_nested_zip());
    scene.check(SENDER, &[ALICE, BOB], &infected, "550 5.7.1 Message contains malware (");
    scene.check("", &[ALICE], &infected, "550 5.7.1 Message contains malware (");
    let spam = mails::plain(SENDER, ALICE, "spam", &mails::gtube());
    scene.check(SENDER, &[ALICE], &spam, "550 5.7.1 Message looks like spam");
    scene.plain(&[ALICE], "come later", "451 4.7.5 Not now");
    scene.plain(&[ALICE, BOB], "for nobody", "250 ");
    scene.plain(&[ALICE, BOB], "not for bob", "250 ");
    scene.plain(&[ALICE], "copy to bob", "250 ");
    // The body cannot be changed, so a rule that wants that comes to something else, and not to the mail as it was.
    scene.root.send(SENDER, &[ALICE], &mails::plain(SENDER, ALICE, "new body", "text\n")).unwrap();
    for user in ["alice", "bob"] {
        for subject in ["virus", "spam", "come later", "for nobody", "new body"] {
            assert_eq!(scene.delivered(user, subject), None, "{user} {subject}");
        }
        assert!(scene.delivered(user, "copy to bob").is_some(), "{user} {}", scene.said());
    }
    assert!(scene.delivered("alice", "not for bob").is_some());
    assert_eq!(scene.delivered("bob", "not for bob"), None);
    assert!(scene.root.log().contains("=> blackhole discarded by Checkpost, mail "), "{}", scene.said());

    // To the octet, small and large, and nobody as its sender.
    let text = format!("Gr\u{fc}\u{df}e\n.\n..\nFrom me\n{}", "0123456789 0123456789 0123456789\n".repeat(60_000));
    for (from, subject, text) in [(SENDER, "clean", "text\n"), ("", "null sender", "text\n"), (SENDER, "large", &text)]
    {
        let message = mails::plain(SENDER, ALICE, subject, text);
        scene.check(from, &[ALICE], &message, "250 ");
        let mail = scene.delivered("alice", subject).unwrap();
        let stored = String::from_utf8(mails::as_stored(&message)).unwrap();
        assert!(mail.ends_with(&stored), "{subject}: {}", &mail[..1000.min(mail.len())]);
    }

    // The header, and an alias: one mail, asked about once.
    let message = mails::plain(SENDER, "staff@example.test", "new field", "text\n");
    let message = [b"X-Old: 1\r\nX-Kept: 1\r\nx-old: 2\r\n".to_vec(), message].concat();
    scene.check(SENDER, &["staff@example.test"], &message, "250 ");
    for user in ["alice", "bob"] {
        let mail = scene.delivered(user, "[checked] new field").unwrap();
        let (header, body) = mail.split_once("\n\n").unwrap();
        assert_eq!((header.matches("X-Checked: yes").count(), body), (1, "text\n"), "{mail}");
        assert!(!header.to_lowercase().contains("x-old") && header.contains("\nX-Kept: 1\n"), "{mail}");
        assert!(header.ends_with("\nX-Last: yes") && header.find("X-Checked") < header.find("Received:"), "{mail}");
    }
    let asked = scene.daemon.as_ref().unwrap().log();
    assert_eq!(asked.matches("staff@example.test").count(), 1, "{asked}");
}

#[test]
fn exim_holds_and_takes_mail_of_local_programs() {
    let Some(scene) = Scene::new(&Exim::new().split()) else { return };
    scene.install(0);
    scene.plain(&[ALICE], "keep it", "250 ");
    assert!(scene.root.wait_log("is held: looks odd", SOON), "{}", scene.said());
    assert_eq!(scene.root.held_len(), 1, "{}", scene.said());
    assert!(scene.root.log().contains("frozen by local_scan()"), "{}", scene.said());
    // Thawed by the administrator it is delivered, and not asked about again.
    scene.shell("exim4 -M $(exiqgrep -zi)");
    assert!(scene.delivered("alice", "keep it").is_some(), "{}", scene.said());

    assert!(scene.submit("local", "text\n").status.success(), "{}", scene.said());
    assert!(scene.delivered("bob", "local").unwrap().ends_with("\n\ntext\n"));
    let refused = scene.submit("local virus", &String::from_utf8(mails::eicar()).unwrap());
    assert!(!refused.status.success(), "{refused:?} {}", scene.said());
    assert!(scene.root.log().contains("rejected by local_scan(): 5.7.1 Message contains malware"), "{}", scene.said());
    assert_eq!(scene.delivered("bob", "local virus"), None);

    // CRLF in the queue's files (spool_wireformat), and nothing but CHUNKING leads there.
    let file = scene.root.path("/etc/exim4/conf.d/main/020_wire");
    std::fs::write(file, "spool_wireformat = true\n").unwrap();
    Exim::restart(&scene.root).unwrap();
    let chunk = |message: &[u8]| {
        let mut client = scene.root.client().unwrap();
        assert!(client.envelope(SENDER, &[ALICE]).unwrap().recipients[0].1.is_positive());
        client.write(format!("BDAT {} LAST\r\n", message.len()).as_bytes()).unwrap();
        client.write(message).unwrap();
        client.answer().unwrap().to_string()
    };
    let infected = mails::with_attachment(SENDER, ALICE, "wire virus", "a.zip", &mails::eicar_in_nested_zip());
    let told = chunk(&infected);
    assert!(told.starts_with("550 5.7.1 Message contains malware ("), "{told} {}", scene.said());
    let told = chunk(&mails::plain(SENDER, ALICE, "wire format, new field", "text\n"));
    assert!(told.starts_with("250"), "{told} {}", scene.said());
    // Exim 4.96 delivers such mail without its body, with and without a library, so there is nothing to see of that.
    let mail = scene.delivered("alice", "[checked] wire format, new field").unwrap();
    assert!(mail.contains("\nX-Checked: yes\n") && mail.contains("\nX-Last: yes\n"), "{mail}");
    // Several mails in one session, one of them refused.
    let mut client = scene.root.client().unwrap();
    for (subject, told) in [("first", "250 "), ("come later", "451 4.7.5 "), ("second, new field", "250 ")] {
        let answer = client.mail(SENDER, &[ALICE], &mails::plain(SENDER, ALICE, subject, "text\n")).unwrap();
        assert!(answer.last().to_string().starts_with(told), "{answer:?} {}", scene.said());
    }
    client.quit();
    assert!(scene.delivered("alice", "[checked] second, new field").is_some());

    scene.uninstall(0);
    scene.plain(&[ALICE], "come later", "250 ");
    assert!(scene.delivered("alice", "come later").is_some());
    assert!(!scene.root.path(LIBRARY).exists());
}

#[test]
fn exim_without_the_daemon_or_the_library() {
    let Some(mut scene) = Scene::new(&Exim::new()) else { return };
    scene.install(1);
    scene.stop_daemon();
    scene.plain(&[ALICE], "daemon down", "451 4.3.0 Local problem, try again later");
    assert!(scene.root.log().contains("mail put off: /lab/shared/check.sock: no connection"), "{}", scene.said());
    // Exim has no "later" for a program: what it refused would be lost where nobody looks at exit codes.
    assert!(scene.submit("daemon down, local", "text\n").status.success(), "{}", scene.said());
    assert!(scene.root.log().contains("kept frozen and UNCHECKED"), "{}", scene.said());
    assert_eq!(scene.root.held_len(), 1, "{}", scene.said());
    scene.shell("exim4 -M $(exiqgrep -zi)");
    assert!(scene.delivered("bob", "daemon down, local").is_some(), "{}", scene.said());
    scene.settings("local_defer = refuse");
    assert!(!scene.submit("daemon down, local, refused", "text\n").status.success(), "{}", scene.said());
    assert_eq!(scene.delivered("bob", "daemon down, local, refused"), None);
    scene.settings("when_down = pass");
    scene.plain(&[ALICE], "unscanned", "250 ");
    assert!(scene.delivered("alice", "unscanned").is_some(), "{}", scene.said());
    assert!(scene.root.log().contains("mail passes UNCHECKED (when_down = pass)"), "{}", scene.said());
    scene.settings("when_down = open");
    scene.plain(&[ALICE], "settings wrong", "451 4.3.0 ");
    assert!(scene.root.log().contains("exim.conf:2: when_down"), "{}", scene.said());
    scene.settings("");
    scene.start_daemon();
    scene.plain(&[ALICE], "daemon back", "250 ");
    assert!(scene.delivered("alice", "daemon back").is_some());

    // Exim itself, when it cannot load the library. It is not taken, whatever the words; that of a local program is lost.
    scene.shell(&format!("mv {LIBRARY} {LIBRARY}.away"));
    scene.plain(&[ALICE], "no library", "451");
    assert!(scene.root.log().contains("local_scan() library open failed"), "{}", scene.said());
    assert!(!scene.submit("no library, local", "text\n").status.success());
    // One that Exim can load, and that is none: 4.96 crashes in its own error path, and catches that.
    scene.shell(&format!("cp $(ls /lib/x86_64-linux-gnu/libz.so.1 /lib/*/libz.so.1 | head -1) {LIBRARY}"));
    scene.plain(&[ALICE], "another library", "4");
    assert!(scene.root.log().contains("doesn't contain local_scan_version_major()"), "{}", scene.said());
    scene.shell(&format!("mv {LIBRARY}.away {LIBRARY}"));
    scene.plain(&[ALICE], "library back", "250 ");
    for subject in ["daemon down", "settings wrong", "no library", "another library"] {
        assert_eq!(scene.delivered("alice", subject), None, "{subject} {}", scene.said());
    }
    assert!(scene.delivered("alice", "library back").is_some());
}
