//! The same against a real qmail: one for tests, whose home `CHECKPOST_QMAIL_HOME` names, with a `qmail-queue` that is set-uid
//! and no qmail-send that would deliver what is queued. What is queued is taken out again.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use checkpost_tests::{Skip, skip};
use rustix::process::{Pid, Signal, kill_process};

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
            // The service's log.
            .stderr(Stdio::null())
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

    /// A local program of an ordinary user's, without a variable.
    fn inject(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.qmail.join("bin/qmail-inject"));
        command.args(words).env_clear().uid(self.user).gid(self.group);
        command
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
                walk(&self.qmail.join("queue").join(folder)).into_iter().find(|file| file.file_name() == Some(&number))
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
    assert!(queued[0].message.starts_with(received.as_bytes()), "{:?}", String::from_utf8_lossy(&queued[0].message));

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
fn a_real_qmail_hands_on_mails_of_every_shape() {
    let Some(real) = Real::new("") else { return };
    let bodies = [String::new(), "\n".into(), "x\n".into(), "Subject: \u{e9}\n\n.\n..\n\0\n".into()];
    let large =
        [65_535, 65_536, 10 << 20].map(|size| "Subject: x\n\n".to_owned() + &"0123456789abcde\n".repeat(size / 16));
    for body in bodies.iter().chain(&large) {
        let answer = real.send("s@x", &["b@x"], body.as_bytes());
        assert!(answer.starts_with("250 ok "), "{} octets: {answer}", body.len());
        let queued = real.queued();
        assert_eq!(queued.len(), 1, "{} octets", body.len());
        assert!(queued[0].message.ends_with(body.as_bytes()), "{} octets", body.len());
    }
    // The longest that qmail-smtpd takes, and more recipients than a pipe holds.
    let long = format!("{}@x", "a".repeat(890));
    let many: Vec<String> = (0..5000).map(|number| format!("user-with-a-longer-name-{number}@x")).collect();
    let to: Vec<&str> = many.iter().chain([&long]).map(String::as_str).collect();
    let answer = real.send(&long, &to, b"x\n");
    assert!(answer.starts_with("250 ok "), "{answer}");
    let queued = real.queued();
    let wanted: BTreeSet<String> = to.iter().map(|to| format!("T{to}")).chain([format!("F{long}")]).collect();
    assert!(parts(&queued[0]).is_superset(&wanted));
    real.scene.clean();
}

#[test]
fn a_real_qmail_loses_nothing_while_the_daemon_is_killed() {
    let Some(mut real) = Real::new("") else { return };
    let mut daemon = real.scene.daemon.take();
    let (through, ended) = mpsc::channel();
    let answers: Vec<String> = std::thread::scope(|threads| {
        let real = &real;
        // Ten clients, twenty mails each.
        let clients: Vec<_> = (0..10)
            .map(|client| {
                let through = through.clone();
                let mail = move |number: usize| {
                    let answer = real.send("s@x", &[&*format!("{client}.{number}@x")], b"Subject: a\n\nx\n");
                    through.send(()).unwrap();
                    answer
                };
                threads.spawn(move || (0..20).map(mail).collect::<Vec<_>>())
            })
            .collect();
        drop(through);
        for more in [30, 50, 40] {
            ended.iter().take(more).for_each(drop);
            daemon.take().unwrap().kill().unwrap();
            daemon = Some(real.scene.start());
        }
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let queued = real.queued();
    let mut deferred = 0;
    for (index, answer) in answers.iter().enumerate() {
        let to = format!("T{}.{}@x", index / 20, index % 20);
        let times = queued.iter().filter(|queued| parts(queued).contains(&to)).count();
        let taken = answer.starts_with("250 ");
        assert!(taken || answer.starts_with("451 "), "{to}: {answer}");
        assert_eq!(times, usize::from(taken), "{to}: {answer}");
        deferred += usize::from(!taken);
    }
    assert!(deferred > 0, "no kill hit a mail");
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

/// Of what a real qmail-send logs when it cannot return a mail, nothing may be "will try later": that would be for ever.
#[test]
fn a_bounce_of_a_real_qmail_send_is_kept_in_quarantine_and_done() {
    let Some(real) = Real::new("text = auto") else { return };
    // Past us into the queue: a mail that we would refuse, for somebody whom there is not.
    assert_eq!(fed(real.inject(&["-f", "s@mx.example", "nosuchuser@mx.example"]), &infected()), Some(0));
    let log = real.scene.home.path().join("log/send");
    let written = fs::File::create(&log).unwrap();
    let sending = Command::new(real.qmail.join("bin/qmail-start"))
        .arg("./Mailbox")
        .env_clear()
        .env("PATH", real.qmail.join("bin"))
        .env("QMAILQUEUE", &real.scene.program)
        // qmail-send's log, where there is no program for it.
        .stdin(written.try_clone().unwrap())
        .stdout(written.try_clone().unwrap())
        .stderr(written)
        .spawn()
        .unwrap();
    // It ends when this is dropped, whatever fails here.
    let mut sending = Sending(sending);
    let logged = || fs::read_to_string(&log).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while !logged().contains("end msg ") {
        assert!(Instant::now() < end && !logged().contains("will try later"), "{}", logged());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(logged().contains("bounce msg "), "{}", logged());
    let done = real.scene.log();
    let line = done.lines().find(|line| line.contains("mail done")).unwrap();
    assert!(line.contains("sender=<>") && line.contains("<s@mx.example> quarantined"), "{line}");
    sending.end();
    assert!(real.queued().is_empty());
}

/// A qmail-send. It hears SIGTERM.
struct Sending(std::process::Child);

impl Sending {
    fn end(&mut self) {
        if let Some(id) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.end();
    }
}

/// The exit code of a program that reads this.
fn fed(mut command: Command, message: &[u8]) -> Option<i32> {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(message).unwrap();
    child.wait().unwrap().code()
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
    let inject = |to: &str, message: &[u8]| fed(real.inject(&[to]), message);
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
