//! `checkpost-communigate` with a server around it that does what CommuniGate Pro's manual says, and a real daemon.

// What a test needs and does not get is the test failing; a failed one shows both logs.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod envelopes;
mod faults;
mod lines;
mod restarts;
mod verdicts;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use checkpost_tests::communigate::{Delivered, Mail, Reply, Server};
use checkpost_tests::{Daemon, program};
use rustix::process::Signal;

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "no"
when = { recipient = "no@x" }
then = { reject = "5.7.1 Not for \"you\"" }

[[rule]]
name = "later"
when = { recipient = "later@x" }
then = { defer = "4.7.1 Not now" }

[[rule]]
name = "gone"
when = { recipient = "gone@x" }
then = { discard = true }

[[rule]]
name = "header"
when = { recipient = "header@x" }
then = { add_header = ["X-One: \"1\"", "X-Two: 2"], append_header = "X-Last: 3" }

[[rule]]
name = "tag"
when = { recipient = "tag@x" }
then = { subject_tag = "[TAG]" }

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

/// A server, its helper's settings, and the daemon.
struct Scene {
    state: tempfile::TempDir,
    kind: &'static str,
    server: Server,
    daemon: Option<Daemon>,
}

impl Scene {
    /// With these lines in the helper's settings, and started.
    fn new(settings: &str) -> Self {
        Self::of_kind("communigate", settings)
    }

    fn of_kind(kind: &'static str, settings: &str) -> Self {
        let mut scene = Self::stopped(kind, settings);
        scene.daemon = Some(scene.start_daemon());
        scene.server.start(4);
        scene
    }

    /// Nothing runs yet.
    fn stopped(kind: &'static str, settings: &str) -> Self {
        let state = tempfile::Builder::new().prefix("checkpost-lab-").tempdir().unwrap();
        fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let server = Server::new(&program("checkpost-communigate"), &state.path().join("communigate.conf")).unwrap();
        let scene = Self { state, kind, server, daemon: None };
        scene.settings(settings);
        scene
    }

    fn socket(&self) -> PathBuf {
        self.state.path().join("cgp.sock")
    }

    fn settings(&self, lines: &str) {
        let state = self.server.path("checkpost-state");
        let text = format!("socket = {}\nstate = {}\n{lines}\n", self.socket().display(), state.display());
        fs::write(self.state.path().join("communigate.conf"), text).unwrap();
    }

    fn start_daemon(&self) -> Daemon {
        let config = format!(
            "[daemon]\nstate = {:?}\n[[way]]\nkind = {:?}\nlisten = \"unix:{}\"\n{RULES}",
            self.state.path(),
            self.kind,
            self.socket().display()
        );
        let ready = || UnixStream::connect(self.socket()).is_ok();
        Daemon::start_when(Command::new(program("checkpostd")), self.state.path(), &config, ready).unwrap()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// The daemon takes connections, as the kernel does that for it, and does nothing more.
    fn freeze(&self) {
        self.daemon().signal(Signal::STOP).unwrap();
        let tasks = format!("/proc/{}/task", self.daemon().id());
        // proc_pid_stat(5): the state stands behind the name in brackets.
        let is_stopped = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        let stopped = || {
            let mut stats = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path().join("stat"));
            stats.all(|stat| fs::read_to_string(stat).is_ok_and(is_stopped))
        };
        while !stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// It goes on.
    fn thaw(&self) {
        self.daemon().signal(Signal::CONT).unwrap();
    }

    /// So many mails have their closing line, and no more; it comes a little after the answer.
    fn daemon_is_done_with(&self, mails: usize) {
        let end = Instant::now() + Duration::from_secs(60);
        let count = || self.daemon().log().matches("mail done").count();
        while count() < mails {
            assert!(Instant::now() < end, "{}", self.daemon().log());
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(count(), mails, "{}", self.daemon().log());
    }

    /// The answer to a mail, acted upon.
    fn reply(&mut self, mail: Mail) -> Reply {
        let (_, reply) = self.server.check(mail);
        self.server.act();
        reply
    }

    /// All that went on, by now and by what was handed in; nothing is left anywhere.
    fn delivered(&mut self) -> Vec<Delivered> {
        self.server.run();
        assert_eq!(self.server.submitted(), Vec::<String>::new());
        assert_eq!(self.server.queued(), 0);
        std::mem::take(&mut self.server.delivered)
    }

    /// The helper ends as it should, and has been quiet.
    fn end(&mut self) {
        let ended = self.server.end();
        assert!(ended.status.success() && ended.noise == 0, "{ended:?}; {:#?}", self.server.log);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log: {:#?}", self.server.log);
            if let Some(daemon) = &self.daemon {
                eprintln!("{}", daemon.log());
            }
        }
    }
}

const MESSAGE: &[u8] = b"Received: by mx\nSubject: a\nTo: b@x\n\nbody\n.\n";

fn mail(recipients: &[&str]) -> Mail {
    Mail::new(recipients, MESSAGE)
}

/// As `mail`, so that one can be told from another.
fn numbered(number: usize, recipients: &[&str]) -> Mail {
    Mail::new(recipients, format!("Subject: number {number}\n\nbody {number}\n").as_bytes())
}

fn went_on(sender: &str, recipients: &[&str], message: &str) -> Delivered {
    Delivered {
        sender: sender.into(),
        recipients: recipients.iter().map(ToString::to_string).collect(),
        message: message.as_bytes().to_vec(),
    }
}
