//! `checkpost-qmail-queue` between a caller that does what qmail-smtpd does and an original that does what qmail-queue
//! does, with a real daemon. `real` has the same against a real qmail, where there is one.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod answers;
mod down;
mod process;
mod real;
mod shapes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use checkpost_tests::qmail::{Caller, Home, Left};
use checkpost_tests::{Daemon, mails, program};

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "no"
when = { recipient = "no@x" }
then = { reject = "5.7.1 Not for you" }

[[rule]]
name = "later"
when = { recipient = "later@*" }
then = { defer = "4.7.1 Not now" }

[[rule]]
name = "gone"
when = { recipient = "gone@x" }
then = { discard = true }

[[rule]]
name = "tag"
when = { recipient = "tag@x" }
then = { subject_tag = "[TAG]", add_header = "X-Checked: yes" }

[[rule]]
name = "body"
when = { recipient = "body@x" }
then = { replace_body = "It was removed." }

[[rule]]
name = "copy"
when = { recipient = "copied@x" }
then = { add_recipient = "archive@x" }

[[rule]]
name = "sender"
when = { recipient = "from@x" }
then = { change_sender = "other@x" }
"#;

/// A qmail's home with our program in it, and the daemon.
struct Scene {
    home: Home,
    program: PathBuf,
    state: tempfile::TempDir,
    daemon: Option<Daemon>,
}

fn stub() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_stub-qmail-queue"))
}

impl Scene {
    /// With these lines in the program's settings.
    fn new(settings: &str) -> Self {
        let home = Home::new(&stub()).unwrap();
        let program = home.install(&program("checkpost-qmail-queue"), "checkpost-qmail-queue").unwrap();
        let state = tempfile::Builder::new().prefix("checkpost-lab-").tempdir().unwrap();
        fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut scene = Self { home, program, state, daemon: None };
        scene.settings(settings);
        scene.daemon = Some(scene.start());
        scene
    }

    fn socket(&self) -> PathBuf {
        self.state.path().join("qmail.sock")
    }

    fn settings(&self, lines: &str) {
        let text = format!(
            "socket = {}\noriginal = {}\nspool = {}\n{lines}\n",
            self.socket().display(),
            self.home.bin("qmail-queue").display(),
            self.home.path().join("spool").display(),
        );
        fs::write(self.home.bin("checkpost-qmail.conf"), text).unwrap();
    }

    fn start(&self) -> Daemon {
        let config = format!(
            "[daemon]\nstate = {:?}\n[[way]]\nkind = \"qmail-queue\"\nlisten = \"unix:{}\"\n{RULES}",
            self.state.path(),
            self.socket().display()
        );
        let ready = || UnixStream::connect(self.socket()).is_ok();
        Daemon::start_when(Command::new(program("checkpostd")), self.state.path(), &config, ready).unwrap()
    }

    fn caller(&self) -> Caller {
        Caller::new(&self.program, self.home.path())
    }

    fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    /// Nothing is left in the spool.
    fn clean(&self) {
        assert_eq!(self.home.spooled(), Vec::<String>::new());
    }
}

fn envelope(sender: &[u8], recipients: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [b"F", sender, b"\0"].concat();
    recipients.iter().for_each(|to| bytes.extend_from_slice(&[b"T", *to, b"\0"].concat()));
    bytes.push(0);
    bytes
}

fn to(recipients: &[&str]) -> Vec<u8> {
    envelope(b"s@x", &recipients.iter().map(|to| to.as_bytes()).collect::<Vec<_>>())
}

fn mail() -> Vec<u8> {
    b"Received: by mx\nSubject: a\nTo: b@x\n\nbody\n.\n".to_vec()
}

fn infected() -> Vec<u8> {
    [b"Subject: x\n\n", &*mails::eicar(), b"\n"].concat()
}

/// Of so many MiB.
fn large(size: usize) -> Vec<u8> {
    [b"Subject: x\n\n".to_vec(), b"0123456789abcde\n".repeat(size << 16)].concat()
}

/// Taken, handed to the original once, both to the byte.
fn passes(scene: &Scene, caller: &Caller, message: &[u8], envelope: &[u8]) {
    let left = caller.deliver(message, envelope);
    let what = format!("{} octets, envelope {:?}…: {left:?}", message.len(), &envelope[..envelope.len().min(20)]);
    assert_eq!(left.reply, format!("250 ok qp {}", left.id), "{what}");
    let calls = scene.home.calls();
    assert_eq!((calls.len(), scene.home.started()), (1, 1), "{what}");
    assert!(calls[0].message == message, "{what}");
    assert!(calls[0].envelope == envelope, "{what}");
    assert_eq!(calls[0].about("pid"), Some(&*left.id.to_string()), "in place: {what}");
    scene.home.forget().unwrap();
    scene.clean();
}

/// Refused with this, and the original was never started.
fn refused(scene: &Scene, left: &Left, reply: &str) {
    assert_eq!(left.reply, reply, "{left:?}");
    assert_eq!(scene.home.started(), 0, "{left:?}");
    scene.clean();
}
