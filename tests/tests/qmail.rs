//! `checkpost-qmail-queue` between a caller that does what qmail-smtpd does and an original that does what qmail-queue
//! does, with a real daemon. The same cases against a real qmail are at the end, where there is one.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checkpost_tests::qmail::{Caller, Flavour, Home, Left, TextFd};
use checkpost_tests::{Daemon, Skip, mails, program, skip};

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

#[test]
fn mails_of_every_shape_go_on_to_the_byte() {
    let scene = Scene::new("");
    let caller = scene.caller();
    let one = to(&["b@x"]);
    for size in [0, 1, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 10 << 20] {
        let line = b"Subject: x\n\n0123456789\n".repeat(size / 10 + 1);
        passes(&scene, &caller, &line[..size], &one);
    }
    passes(&scene, &caller, b"Subject: \xe4\xf6\n\n\0 NUL, CR \r, no end", &one);
    for (sender, recipients) in [
        (&b""[..], vec![&b"b@x"[..]]),
        (b"#@[]", vec![b"b@x"]),
        (b"list-@[]", vec![b"b@x", b"b@x", b"\xff\xfe@x"]),
        (b"a b\"@x", vec![b"<odd> \\@x"]),
    ] {
        passes(&scene, &caller, &mail(), &envelope(sender, &recipients));
    }
    let long = [&[b'a'; 1000][..], b"@x"].concat();
    assert_eq!(long.len(), 1002);
    passes(&scene, &caller, &mail(), &envelope(&long, &[&long]));
    let many: Vec<String> = (0..10_000).map(|number| format!("user{number}@x")).collect();
    passes(&scene, &caller, &mail(), &to(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    // What stands behind the envelope is not looked at, and not handed on.
    let left = caller.deliver(&mail(), &[&one[..], b"more"].concat());
    assert_eq!(left.code, Some(0));
    assert_eq!(scene.home.calls()[0].envelope, one);
}

#[test]
fn what_is_taken_back_or_wrong_never_reaches_the_original() {
    let scene = Scene::new("");
    let caller = scene.caller();
    let longer = [&[b'a'; 1001][..], b"@x"].concat();
    for (message, envelope, code) in [
        (mail(), Vec::new(), 54),
        (Vec::new(), Vec::new(), 54),
        (mail()[..9].to_vec(), b"Fs@".to_vec(), 54),
        (mail(), b"Fs@x\0Tb@x\0".to_vec(), 54),
        (mail(), b"Fs@x\0Tb@".to_vec(), 54),
        (mail(), b"Xs@x\0Tb@x\0\0".to_vec(), 91),
        (mail(), b"Fs@x\0Bb@x\0\0".to_vec(), 91),
        (mail(), envelope(b"s@x", &[&longer]), 11),
        (mail(), envelope(&longer, &[b"b@x"]), 11),
    ] {
        let left = caller.deliver(&message, &envelope);
        assert_eq!(left.code, Some(code), "{envelope:?}: {left:?}");
        assert_eq!(scene.home.started(), 0);
    }
    // Gone in the middle of a message that has left the memory.
    let mut running = caller.start().unwrap();
    running.write(&b"x\n".repeat(2 << 20));
    running.kill();
    running.finish();
    scene.clean();
    assert!(!scene.log().contains("mail done"), "nothing was asked: {}", scene.log());
}

#[test]
fn nobody_is_there_to_get_it() {
    let scene = Scene::new("");
    passes(&scene, &scene.caller(), &mail(), b"Fs@x\0\0");
}

#[test]
fn refusals_are_exit_codes_or_texts() {
    let scene = Scene::new("");
    let infected = infected();
    let cases = [
        ("", Flavour::Notqmail, TextFd::Pipe, "554 mail server permanently rejected message (#5.3.0)"),
        (
            "text = auto",
            Flavour::Notqmail,
            TextFd::Pipe,
            "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)",
        ),
        ("text = auto", Flavour::Simscan, TextFd::Pipe, "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)"),
        ("text = auto", Flavour::Plain, TextFd::Pipe, "554 mail server permanently rejected message (#5.3.0)"),
        ("text = auto", Flavour::Notqmail, TextFd::Closed, "554 mail server permanently rejected message (#5.3.0)"),
        (
            "text = notqmail",
            Flavour::Notqmail,
            TextFd::Pipe,
            "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)",
        ),
        ("text = notqmail", Flavour::Notqmail, TextFd::Closed, "554 mail server permanently rejected message (#5.3.0)"),
        (
            "text = sagredo",
            Flavour::Sagredo,
            TextFd::Pipe,
            "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)",
        ),
        (
            "text = indimail",
            Flavour::Indimail,
            TextFd::Pipe,
            "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)",
        ),
        // A wrong guess of the administrator's: temporary, as the README says.
        ("text = sagredo", Flavour::Notqmail, TextFd::PipeAt(4), "451 qq temporary problem (#4.3.0)"),
    ];
    for (settings, flavour, text, reply) in cases {
        scene.settings(settings);
        let caller = Caller { flavour, text: text.clone(), ..scene.caller() };
        let left = caller.deliver(&infected, &to(&["b@x"]));
        assert_eq!(left.reply, reply, "{settings} {flavour:?} {text:?}: {left:?}");
        assert_eq!(scene.home.started(), 0);
    }
    // A file of somebody's at the number is not written to.
    let file = scene.home.path().join("log/stranger");
    fs::write(&file, "").unwrap();
    scene.settings("text = auto");
    let caller = Caller { text: TextFd::File(file.clone()), ..scene.caller() };
    refused(&scene, &caller.deliver(&infected, &to(&["b@x"])), "554 mail server permanently rejected message (#5.3.0)");
    assert_eq!(fs::read_to_string(file).unwrap(), "");
    let caller = scene.caller();
    refused(&scene, &caller.deliver(&mail(), &to(&["later@x"])), "451 Not now (#4.7.1)");
    scene.settings("");
    refused(
        &scene,
        &caller.deliver(&mail(), &to(&["later@x"])),
        "451 mail server temporarily rejected message (#4.3.0)",
    );
    let discarded = caller.deliver(&mail(), &to(&["gone@x"]));
    refused(&scene, &discarded, &format!("250 ok qp {}", discarded.id));
    let discarded = caller.deliver(&large(3), &to(&["gone@x"]));
    refused(&scene, &discarded, &format!("250 ok qp {}", discarded.id));
}

#[test]
fn contents_and_envelopes_change_as_rules_say() {
    let scene = Scene::new("");
    let caller = scene.caller();
    let tagged = "X-Checked: yes\nReceived: by mx\nSubject: [TAG] a\nTo: b@x\n\nbody\n.\n";
    let bare = String::from_utf8(mail()).unwrap();
    let removed = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\
                   Received: by mx\nSubject: a\nTo: b@x\n\nIt was removed.\n";
    for (recipients, wanted) in [
        (&["tag@x"][..], vec![(tagged, to(&["tag@x"]))]),
        (&["body@x"], vec![(removed, to(&["body@x"]))]),
        (&["b@x", "no@x", "gone@x", "c@x"], vec![(&*bare, to(&["b@x", "c@x"]))]),
        (&["copied@x", "b@x"], vec![(&*bare, to(&["copied@x", "archive@x", "b@x"]))]),
        (&["b@x", "tag@x", "c@x"], vec![(&*bare, to(&["b@x", "c@x"])), (tagged, to(&["tag@x"]))]),
        (&["tag@x", "from@x"], vec![(tagged, to(&["tag@x"])), (&*bare, envelope(b"other@x", &[b"from@x"]))]),
    ] {
        let left = caller.deliver(&mail(), &to(recipients));
        assert_eq!(left.reply, format!("250 ok qp {}", left.id), "{recipients:?}: {left:?}");
        let calls = scene.home.calls();
        let got: Vec<_> = calls.iter().map(|call| (&*call.message, &*call.envelope)).collect();
        let wanted: Vec<_> = wanted.iter().map(|(message, envelope)| (message.as_bytes(), &**envelope)).collect();
        assert_eq!(got, wanted, "{recipients:?}");
        assert_eq!(calls.last().unwrap().about("pid"), Some(&*left.id.to_string()));
        scene.home.forget().unwrap();
    }
    assert!(scene.log().contains("<no@x> quarantined"), "{}", scene.log());
}

#[test]
fn the_originals_exit_code_comes_back() {
    let scene = Scene::new("text = auto");
    let caller = scene.caller();
    for code in [0, 11, 31, 51, 53, 71, 81, 91, 100, 120] {
        scene.home.script(&[code]).unwrap();
        assert_eq!(caller.deliver(&mail(), &to(&["b@x"])).code, Some(code));
    }
    scene.home.forget().unwrap();
    // Of two contents the first is not taken: its own code. The second is not: some have it, so "later".
    for (codes, code, runs) in [(&[31, 0][..], 31, 1), (&[0, 53], 53, 2)] {
        scene.home.script(codes).unwrap();
        let left = caller.deliver(&mail(), &to(&["b@x", "tag@x"]));
        assert_eq!((left.code, scene.home.started()), (Some(code), runs), "{left:?}");
        scene.home.forget().unwrap();
    }
    fs::remove_file(scene.home.bin("qmail-queue")).unwrap();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert_eq!(left.reply, "451 unable to exec qq (#4.3.0)", "{left:?}");
    assert!(left.log.contains("qmail-queue"), "{left:?}");
}

#[test]
fn the_original_gets_the_process_as_the_caller_made_it() {
    let scene = Scene::new("text = auto");
    let mut caller = scene.caller().with("KEPT", "yes");
    caller.before = "umask 027; exec 9</dev/null 7</dev/null".into();
    if rustix::process::geteuid().is_root() {
        caller.uid = Some(65_534);
    }
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert_eq!(left.code, Some(0), "{left:?}");
    let call = scene.home.calls().remove(0);
    let about = |name: &str| call.about(name).unwrap_or_default();
    let uid = caller.uid.unwrap_or_else(|| rustix::process::getuid().as_raw()).to_string();
    assert_eq!((about("uid"), about("effective")), (&*uid, &*uid));
    assert_eq!((about("umask"), about("offset0"), about("offset1")), ("27", "0", "0"));
    assert_eq!(about("folder"), fs::canonicalize(scene.home.path()).unwrap().to_str().unwrap());
    assert_eq!(about("env KEPT"), "yes");
    assert_eq!(call.about("env QMAILQUEUE"), None, "it would start us again");
    for number in ["3:", "4:", "7:", "9:"] {
        assert!(!about("descriptors").split(' ').any(|one| one.starts_with(number)), "{}", about("descriptors"));
    }
}

#[test]
fn a_bounce_of_qmail_sends_is_never_refused_for_good() {
    if !rustix::process::geteuid().is_root() {
        return skip(&Skip("another user can only be played by root".into()));
    }
    let scene = Scene::new("text = auto\nbounce_user = 65534");
    let infected = infected();
    let mut caller = scene.caller();
    for variable in ["TCPREMOTEIP", "TCPREMOTEHOST", "PROTO"] {
        caller = caller.without(variable);
    }
    for (uid, sender, wanted) in [
        // Taken, kept in quarantine, and nobody is told.
        (65_534, &b""[..], "250 ok"),
        (65_534, b"#@[]", "250 ok"),
        (65_534, b"s@x", "554 Message contains malware"),
        (65_533, b"", "554 Message contains malware"),
    ] {
        caller.uid = Some(uid);
        let left = caller.deliver(&infected, &envelope(sender, &[b"b@x"]));
        assert!(left.reply.starts_with(wanted), "{uid} {sender:?}: {left:?}");
        assert_eq!(scene.home.started(), 0);
    }
}

#[test]
fn a_daemon_that_is_down_defers_or_lets_pass_as_set() {
    let mut scene = Scene::new("");
    let caller = scene.caller();
    scene.daemon.take().unwrap().kill().unwrap();
    let down = "451 communication with mail server failed (#4.4.2)";
    refused(&scene, &caller.deliver(&mail(), &to(&["b@x"])), down);
    fs::remove_file(scene.socket()).unwrap();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    refused(&scene, &left, down);
    assert!(left.log.contains("checkpost-qmail-queue: "), "{left:?}");
    scene.settings("when_down = pass");
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert!(left.log.contains("passed without a check"), "{left:?}");
    assert_eq!(scene.home.calls().len(), 1);
    scene.home.forget().unwrap();
    // One that hangs.
    let _hanging = UnixListener::bind(scene.socket()).unwrap();
    scene.settings("check_time = 1s");
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    refused(&scene, &left, "451 connection to mail server timed out (#4.4.1)");
    assert!(left.took < Duration::from_secs(10), "{left:?}");
    drop(_hanging);
    fs::remove_file(scene.socket()).unwrap();
    // And back.
    scene.settings("");
    scene.daemon = Some(scene.start());
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
}

#[test]
fn wrong_settings_defer_and_say_where() {
    let scene = Scene::new("");
    scene.settings("when_down = open");
    let left = scene.caller().deliver(&mail(), &to(&["b@x"]));
    refused(&scene, &left, "451 qq unable to read configuration (#4.3.0)");
    assert!(left.log.contains("checkpost-qmail.conf:4: when_down: \"open\" is not understood"), "{left:?}");
}

#[test]
fn in_the_originals_place_it_never_starts_itself() {
    let scene = Scene::new("");
    let conf = fs::read_to_string(scene.home.bin("checkpost-qmail.conf")).unwrap();
    let without_original: String =
        conf.lines().filter(|line| !line.starts_with("original")).map(|line| format!("{line}\n")).collect();
    fs::write(scene.home.bin("checkpost-qmail.conf"), without_original).unwrap();
    fs::rename(scene.home.bin("qmail-queue"), scene.home.bin("qmail-queue.orig")).unwrap();
    let place = scene.home.install(&scene.program, "qmail-queue").unwrap();
    let caller = Caller::new(&place, scene.home.path()).without("QMAILQUEUE");
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    // Saved over the original, linked, or named by another way: it is itself.
    let original = scene.home.bin("qmail-queue.orig");
    for make in [
        |from: &Path, to: &Path| fs::hard_link(from, to),
        |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to),
    ] {
        fs::remove_file(&original).unwrap();
        make(&place, &original).unwrap();
        let left = caller.deliver(&mail(), &to(&["b@x"]));
        refused(&scene, &left, "451 qq internal bug (#4.3.0)");
        assert!(left.log.contains("qmail-queue.orig"), "{left:?}");
    }
}

#[test]
fn it_works_under_a_tight_softlimit() {
    let scene = Scene::new("");
    let mut caller = scene.caller();
    // softlimit -m sets these four (softlimit(8)).
    caller.before = "ulimit -d 8000; ulimit -s 8000; ulimit -l 8000; ulimit -v 8000".into();
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    // The stub holds all of it.
    passes(&scene, &caller, &large(2), &to(&["b@x"]));
    // Too tight to start: temporary, whatever it is that fails.
    caller.before = "ulimit -v 500".into();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert!(left.reply.starts_with("451 ") && scene.home.started() == 0, "{left:?}");
    // A file that may not grow: nothing is half stored.
    caller.before = "ulimit -f 100".into();
    let left = caller.deliver(&large(5), &to(&["b@x"]));
    assert!(left.reply.starts_with("451 ") && scene.home.started() == 0, "{left:?}");
}

#[test]
fn five_hundred_at_once_survive_a_daemon_that_is_killed() {
    let mut scene = Scene::new("text = auto");
    let envelope_of = |number: usize| to(&[&*format!("user{number}@x")]);
    let mut daemon = scene.daemon.take();
    let through = AtomicUsize::new(0);
    let lefts: Vec<Left> = std::thread::scope(|threads| {
        let (scene, through) = (&scene, &through);
        let callers: Vec<_> = (0..500)
            .map(|number| {
                threads.spawn(move || {
                    let message = format!("Subject: {number}\n\n{}", "body\n".repeat(number));
                    let left = scene.caller().deliver(message.as_bytes(), &envelope_of(number));
                    through.fetch_add(1, Ordering::Relaxed);
                    left
                })
            })
            .collect();
        // Whenever some more have ended, it dies, and comes back.
        for ended in [20, 120, 250] {
            while through.load(Ordering::Relaxed) < ended {
                std::thread::yield_now();
            }
            daemon.take().unwrap().kill().unwrap();
            daemon = Some(scene.start());
        }
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let calls = scene.home.calls();
    let mut deferred = 0;
    for (number, left) in lefts.iter().enumerate() {
        let times = calls.iter().filter(|call| call.envelope == envelope_of(number)).count();
        if left.reply.starts_with("250 ") {
            assert_eq!(times, 1, "{number}: {left:?}");
        } else {
            assert!(left.reply.starts_with("451 "), "{number}: {left:?}");
            assert_eq!(times, 0, "{number}: {left:?}");
            deferred += 1;
        }
    }
    assert_eq!(calls.len(), scene.home.started());
    assert!(deferred > 0, "no kill hit a mail");
    scene.clean();
}

/// The cases that need a real qmail: one for tests, whose home `CHECKPOST_QMAIL_HOME` names, with a `qmail-queue` that is set-uid
/// and no qmail-send that would deliver what is queued. What is queued is taken out again.
mod real {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// As tcpserver and qmail-smtpd, with our program between them and the real qmail-queue.
    struct Real {
        scene: Scene,
        qmail: PathBuf,
        user: u32,
        group: u32,
        // They share one home.
        _alone: MutexGuard<'static, ()>,
    }

    /// A message in the queue, before qmail-send has seen it (INTERNALS.md: mess, intd, todo).
    struct Queued {
        message: Vec<u8>,
        /// `u…\0p…\0F…\0T…\0…`
        envelope: Vec<u8>,
        files: Vec<PathBuf>,
    }

    impl Real {
        fn new(settings: &str) -> Option<Self> {
            let Some(qmail) = std::env::var_os("CHECKPOST_QMAIL_HOME").map(PathBuf::from) else {
                skip(&Skip("CHECKPOST_QMAIL_HOME names no home of a qmail for tests".into()));
                return None;
            };
            static ALONE: Mutex<()> = Mutex::new(());
            let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let id = |option: &str| {
                let output = Command::new("id").args([option, "qmaild"]).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().expect("there is a user qmaild")
            };
            fs::write(qmail.join("control/me"), "mx.example\n").unwrap();
            let scene = Scene::new(settings);
            let real = Self { scene, user: id("-u"), group: id("-g"), qmail, _alone: alone };
            real.settings(settings);
            Some(real)
        }

        fn settings(&self, lines: &str) {
            self.scene.settings(lines);
            let file = self.scene.home.bin("checkpost-qmail.conf");
            let stub = self.scene.home.bin("qmail-queue");
            let real = self.qmail.join("bin/qmail-queue");
            let text = fs::read_to_string(&file).unwrap().replace(stub.to_str().unwrap(), real.to_str().unwrap());
            fs::write(file, text).unwrap();
        }

        /// What the client hears, line by line, of this dialogue.
        fn smtp(&self, variables: &[(&str, &str)], dialogue: &[u8]) -> Vec<String> {
            let mut child = Command::new(self.qmail.join("bin/qmail-smtpd"))
                .env_clear()
                .envs([("TCPREMOTEIP", "192.0.2.7"), ("TCPLOCALHOST", "mx.example"), ("RELAYCLIENT", "")])
                .env("QMAILQUEUE", &self.scene.program)
                .envs(variables.iter().copied())
                .uid(self.user)
                .gid(self.group)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let mut heard = String::new();
            std::thread::scope(|threads| {
                threads.spawn(move || input.write_all(dialogue).is_ok());
                child.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
            });
            child.wait().unwrap();
            heard.lines().map(str::to_owned).collect()
        }

        /// The answer to the mail.
        fn send(&self, from: &str, to: &[&str], message: &[u8]) -> String {
            let mut dialogue = format!("HELO client.example\r\nMAIL FROM:<{from}>\r\n").into_bytes();
            to.iter().for_each(|to| dialogue.extend_from_slice(format!("RCPT TO:<{to}>\r\n").as_bytes()));
            dialogue.extend_from_slice(b"DATA\r\n");
            for line in message.split_inclusive(|octet| *octet == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                dialogue.extend_from_slice(if text.starts_with(b".") { b"." } else { b"" });
                dialogue.extend_from_slice(text);
                dialogue.extend_from_slice(b"\r\n");
            }
            dialogue.extend_from_slice(b".\r\nQUIT\r\n");
            let heard = self.smtp(&[], &dialogue);
            heard[heard.len() - 2].clone()
        }

        /// Takes out what is in the queue.
        fn queued(&self) -> Vec<Queued> {
            let mut all = Vec::new();
            for entry in walk(&self.qmail.join("queue/todo")) {
                let number = entry.file_name().unwrap().to_owned();
                let named = |folder: &str| {
                    walk(&self.qmail.join("queue").join(folder))
                        .into_iter()
                        .find(|file| file.file_name() == Some(&number))
                };
                let message = named("mess").expect("each envelope has its message");
                let mut files = vec![entry.clone(), message.clone()];
                files.extend(named("intd"));
                all.push(Queued { message: fs::read(message).unwrap(), envelope: fs::read(&entry).unwrap(), files });
            }
            all.iter().flat_map(|queued| &queued.files).for_each(|file| fs::remove_file(file).unwrap());
            all
        }
    }

    fn walk(folder: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
        }
        files
    }

    fn parts(queued: &Queued) -> BTreeSet<String> {
        let parts = queued.envelope.split(|octet| *octet == 0).map(|part| String::from_utf8_lossy(part).into_owned());
        parts.filter(|part| part.starts_with(['F', 'T', 'u'])).collect()
    }

    #[test]
    fn a_real_qmail_takes_refuses_and_queues_as_it_is_told() {
        let Some(real) = Real::new("text = auto") else { return };
        let own = |queued: &Queued| {
            let text = String::from_utf8_lossy(&queued.message).into_owned();
            // Two fields are qmail's own: the original's and qmail-smtpd's.
            text.split_once("Subject: ").map(|(_, rest)| format!("Subject: {rest}")).unwrap_or(text)
        };
        let body = "Subject: a\n\n.dot\nbody \u{e9}\n";
        let uid = format!("u{}", real.user);

        let answer = real.send("s@x", &["b@x", "c@x"], body.as_bytes());
        assert!(answer.starts_with("250 ok ") && answer.contains(" qp "), "{answer}");
        let queued = real.queued();
        assert_eq!(queued.len(), 1);
        assert_eq!(own(&queued[0]), body);
        let wanted: BTreeSet<String> = ["Fs@x", "Tb@x", "Tc@x", &uid].map(str::to_owned).into();
        assert_eq!(parts(&queued[0]), wanted, "the caller's uid, not ours or the daemon's");
        // "qp" of the answer is the process that queued: we became the original.
        let process = answer.rsplit(' ').next().unwrap();
        assert!(String::from_utf8_lossy(&queued[0].envelope).contains(&format!("p{process}\0")), "{answer}");
        let received = format!("Received: (qmail {process} invoked from network); ");
        assert!(
            queued[0].message.starts_with(received.as_bytes()),
            "{:?}",
            String::from_utf8_lossy(&queued[0].message)
        );

        let refused = "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)";
        assert_eq!(real.send("s@x", &["b@x"], &infected()), refused);
        assert_eq!(real.send("s@x", &["later@x"], body.as_bytes()), "451 Not now (#4.7.1)");
        assert!(real.send("s@x", &["gone@x"], body.as_bytes()).starts_with("250 ok "));
        assert!(real.queued().is_empty());

        assert!(real.send("", &["tag@x"], body.as_bytes()).starts_with("250 ok "));
        let queued = real.queued();
        assert_eq!(own(&queued[0]), body.replacen("Subject: ", "Subject: [TAG] ", 1));
        assert!(parts(&queued[0]).contains("F"), "the null sender");

        assert!(real.send("s@x", &["b@x", "tag@x"], body.as_bytes()).starts_with("250 ok "));
        assert_eq!(real.queued().len(), 2, "two contents, two messages");

        assert!(real.send("s@x", &["b@x"], &large(3)).starts_with("250 ok "));
        assert_eq!(own(&real.queued()[0]).as_bytes(), large(3));
        real.scene.clean();
    }

    #[test]
    fn a_real_qmail_that_gives_up_or_is_not_understood_loses_nothing() {
        let Some(mut real) = Real::new("") else { return };
        let mail = [b"HELO c\r\nMAIL FROM:<s@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n".to_vec(), b"x\r\n".repeat(1000)].concat();
        // Over its limit: its own words, and nothing is queued.
        let whole = [&mail[..], b".\r\nQUIT\r\n"].concat();
        let heard = real.smtp(&[("DATABYTES", "100")], &whole);
        assert_eq!(heard[heard.len() - 2], "552 sorry, that message size exceeds my databytes limit (#5.3.4)");
        // The client goes within the content.
        real.smtp(&[], &mail);
        assert_eq!(real.send("s@x", &["b@x"], &infected()), "554 mail server permanently rejected message (#5.3.0)");
        assert_eq!(real.send("s@x", &["later@x"], b"x\n"), "451 mail server temporarily rejected message (#4.3.0)");
        // The convention of another qmail: a refusal becomes temporary.
        real.settings("text = sagredo");
        assert!(real.send("s@x", &["b@x"], &infected()).starts_with("554 mail server permanently"));
        real.scene.daemon.take().unwrap().kill().unwrap();
        let down = real.send("s@x", &["b@x"], b"x\n");
        assert_eq!(down, "451 communication with mail server failed (#4.4.2)");
        assert!(real.queued().is_empty());
    }

    #[test]
    fn the_recipe_takes_a_real_qmail_queues_place_and_gives_it_back() {
        let Some(real) = Real::new("") else { return };
        let bin = real.qmail.join("bin");
        let recipes = checkpost_qmail::setup::plans();
        let plan = recipes.iter().find(|plan| plan.method.is_some_and(|method| method.contains("place"))).unwrap();
        let shell = |command: &str| {
            let command = command
                .replace("/var/qmail/bin", bin.to_str().unwrap())
                .replace("/usr/bin/checkpost-qmail-queue", program("checkpost-qmail-queue").to_str().unwrap());
            let output = Command::new("sh").args(["-e", "-c", &command]).output().unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
        };
        let apply = || plan.steps.iter().filter_map(|step| step.run.as_deref()).for_each(shell);
        let restore = || plan.steps.iter().rev().filter_map(|step| step.undo.as_deref()).for_each(shell);
        let conf = bin.join("checkpost-qmail.conf");
        fs::write(&conf, format!("socket = {}\n", real.scene.socket().display())).unwrap();
        let mode = |name: &str| fs::metadata(bin.join(name)).map(|file| file.permissions().mode() & 0o7777).ok();
        assert_eq!((mode("qmail-queue"), mode("qmail-queue.orig")), (Some(0o4711), None), "not a fresh qmail");
        apply();
        apply();
        assert_eq!((mode("qmail-queue"), mode("qmail-queue.orig")), (Some(0o711), Some(0o4711)));
        // A local program, without any variable.
        let inject = |to: &str, message: &[u8]| {
            let mut command = Command::new(bin.join("qmail-inject"));
            command.arg(to).env_clear().uid(real.user).gid(real.group);
            let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(message).unwrap();
            child.wait().unwrap().code()
        };
        assert_eq!(inject("b@x", b"Subject: local\n\nx\n"), Some(0));
        assert_eq!(inject("b@x", &infected()), Some(100));
        assert_eq!(inject("later@x", b"Subject: local\n\nx\n"), Some(111));
        assert_eq!(real.queued().len(), 1);
        // An upgrade of Checkpost, and the way back, both twice.
        apply();
        restore();
        restore();
        fs::remove_file(conf).unwrap();
        assert_eq!((mode("qmail-queue"), mode("qmail-queue.orig")), (Some(0o4711), None));
        assert_eq!(inject("b@x", &infected()), Some(0));
        assert_eq!(real.queued().len(), 1);
    }
}
