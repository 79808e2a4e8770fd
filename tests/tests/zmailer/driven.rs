//! With the driver in ZMailer's place.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use checkpost_tests::Daemon;
use checkpost_tests::zmailer::{Driver, Fate, Filter, Limits, Mail, Open, Told};

use crate::cases::{self, ALICE, BOB, SENDER, Server, mail, message, without_id};
use crate::{daemon, ours};

const SOON: Duration = Duration::from_secs(30);
const LATER: &str = "451 4.3.0 Content-Policy reject msg: Local problem, try again later";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Program,
}

/// A post office, our filter in it, and a daemon.
struct Scene {
    driver: Driver,
    kind: Kind,
    server: Option<Child>,
    filter: Option<Filter>,
    daemon: Option<Daemon>,
    state: tempfile::TempDir,
    told: Mutex<Vec<Told>>,
}

impl Scene {
    fn new(kind: Kind, settings: &str) -> Self {
        let (driver, state) = (Driver::new().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(state.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let run = driver.path().join("run");
        fs::create_dir(&run).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&run, Some(1), Some(1)).unwrap();
        }
        let mut scene = Self { driver, kind, server: None, filter: None, daemon: None, state, told: Mutex::default() };
        scene.settings(settings);
        scene.daemon = Some(daemon(scene.state.path(), scene.state.path()));
        scene.start();
        scene
    }

    fn settings(&self, lines: &str) {
        let text = format!(
            "postoffice = {}\nsocket = {}\nlisten = {}\n{lines}\n",
            self.driver.path().display(),
            self.state.path().join("smtp.sock").display(),
            self.socket().display(),
        );
        fs::write(self.conf(), text).unwrap();
    }

    fn conf(&self) -> PathBuf {
        self.driver.path().join("zmailer.conf")
    }

    fn socket(&self) -> PathBuf {
        self.driver.path().join("run/filter.sock")
    }

    /// The filter first, then smtpserver's look at it.
    fn start(&mut self) {
        let path = match self.kind {
            Kind::Program => ours(),
            Kind::Socket => {
                self.serve();
                self.socket()
            }
        };
        let conf = self.conf().display().to_string();
        self.filter = Some(Filter::find(&path, 20, Limits::default(), &[("CHECKPOST_ZMAILER_CONF", &conf)]));
    }

    fn serve(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.state.path().join("filter.log")).unwrap();
        let mut command = Command::new(ours());
        command.arg("serve").env("CHECKPOST_ZMAILER_CONF", self.conf()).stdin(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let end = Instant::now() + SOON;
        while UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < end, "no server: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ask(&self, mails: &[Mail]) -> (Vec<Told>, Vec<String>) {
        let (told, said) = self.driver.session(self.filter.as_ref().unwrap(), mails).unwrap();
        assert_eq!(self.driver.left().unwrap(), 0, "{}", self.said());
        (told, said)
    }

    fn kill_server(&mut self) {
        let server = self.server.as_mut().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Server for Scene {
    fn session(&self, mails: &[Mail]) -> Vec<String> {
        let (told, _) = self.ask(mails);
        let replies = told.iter().map(|told| without_id(&told.reply)).collect();
        for told in told {
            assert_eq!(told.open, None, "{}", self.said());
            self.told.lock().unwrap().push(told);
        }
        replies
    }

    fn delivered(&self, _: usize) -> Vec<(String, String)> {
        let mut told = self.told.lock().unwrap();
        let mut delivered = Vec::new();
        for routed in told.extract_if(.., |told| matches!(told.fate, Fate::Routed(_))) {
            let mail = Driver::routed(&routed).unwrap();
            let text = String::from_utf8(mail.message).unwrap();
            let user = |to: &String| (to.split('@').next().unwrap().to_owned(), text.clone());
            delivered.extend(mail.recipients.iter().map(user));
        }
        delivered
    }

    fn frozen(&self) -> Vec<String> {
        let mut told = self.told.lock().unwrap();
        let frozen = told.extract_if(.., |told| matches!(told.fate, Fate::Frozen(_)));
        let read = |told: Told| match told.fate {
            Fate::Frozen(path) => fs::read_to_string(path).unwrap(),
            _ => unreachable!("only those in the freezer"),
        };
        frozen.map(read).collect()
    }

    fn said(&self) -> String {
        let filter = fs::read_to_string(self.state.path().join("filter.log")).unwrap_or_default();
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("FILTER\n{filter}\nCHECKPOST\n{daemon}")
    }
}

#[test]
fn every_answer_by_socket() {
    cases::every_answer(&Scene::new(Kind::Socket, ""));
}

#[test]
fn every_answer_by_program() {
    cases::every_answer(&Scene::new(Kind::Program, ""));
}

#[test]
fn several_mails_in_a_session() {
    cases::one_session(&Scene::new(Kind::Socket, ""));
    cases::one_session(&Scene::new(Kind::Program, ""));
}

/// What was said, with the spool file's own name left out.
fn transcript(said: &[String], scene: &Scene) -> String {
    let public = scene.driver.path().join("public").display().to_string();
    let line = |line: &String| match line.split_once(&public) {
        Some((start, _)) => format!("{start}$POSTOFFICE/public/NAME\n"),
        None => format!("{line}\n"),
    };
    said.iter().map(line).collect()
}

#[test]
fn the_talk_is_as_it_always_was() {
    let golden = include_str!("../../cases/zmailer/session.txt");
    let subjects = ["clean", "no thanks", "come later", "for nobody", "look at it", "new body", "not for bob", "clean"];
    for kind in [Kind::Socket, Kind::Program] {
        let scene = Scene::new(kind, "");
        let mails = subjects.map(|subject| mail(subject, &[ALICE, BOB]));
        let (_, said) = scene.ask(&mails);
        let said = transcript(&said, &scene);
        assert_eq!(said, golden, "{kind:?}");
    }
}

#[test]
fn mails_of_every_shape_stay_as_they_are_or_are_changed_to_the_byte() {
    let scene = Scene::new(Kind::Socket, "");
    let many: Vec<String> = (0..1000).map(|number| format!("user{number}@example.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let shapes: [(&[&str], Vec<u8>); 8] = [
        (&[ALICE], b"Subject: x\n\nenv-end\nto <x@y>\nfrom <z@y>\n.\n".to_vec()),
        (&[ALICE], b"Subject: \xe4\n\n\xff\xfe 8 bit\n".to_vec()),
        (&[ALICE], b"Subject: x\n\nNUL \0, CR \r, CR LF \r\n".to_vec()),
        (&[ALICE], b"Subject: x\n".to_vec()),
        (&[ALICE], b"Subject: x\n\n".to_vec()),
        (&[ALICE], b"\nno header\n".to_vec()),
        (&many, message("x", "to many").into_bytes()),
        (&[ALICE, BOB], message("x", &"0123456789\n".repeat(500_000)).into_bytes()),
    ];
    for (recipients, text) in shapes {
        let plain = Mail::new(SENDER, recipients, &text);
        let dropped = [b"X: y\nSubject: not for bob\n", &text[..]].concat();
        let dropped = Mail::new(SENDER, &[&[BOB], recipients].concat(), &dropped);
        let (told, _) = scene.ask(&[plain.clone(), dropped.clone()]);
        let what = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        assert!(
            told.iter().all(|told| told.open.is_none() && told.reply.starts_with("250 2.0.0 Ok")),
            "{what}: {told:?}"
        );
        let Fate::Routed(path) = &told[0].fate else { panic!("{told:?}") };
        assert!(fs::read(path).unwrap() == plain.spooled(), "{what}");
        let routed = Driver::routed(&told[1]).unwrap();
        assert!(routed.message == dropped.message, "{what}: {}", String::from_utf8_lossy(&routed.message));
        assert_eq!(routed.recipients.iter().filter(|to| *to == BOB).count(), 0);
        assert_eq!(routed.recipients.len(), recipients.iter().filter(|to| **to != BOB).count());
    }
}

#[test]
fn without_a_daemon_clients_are_told_to_come_again() {
    for kind in [Kind::Socket, Kind::Program] {
        let mut scene = Scene::new(kind, "");
        scene.daemon.take().unwrap().kill().unwrap();
        let reply = |scene: &Scene| scene.session(&[mail("clean", &[ALICE])]).remove(0);
        assert_eq!(reply(&scene), LATER);
        scene.settings("when_down = pass");
        assert_eq!(reply(&scene), "250 2.0.0 Ok");
        scene.settings("when_down = sometimes");
        assert_eq!(reply(&scene), LATER);
        scene.settings("postoffice = /somewhere");
        assert_eq!(reply(&scene), LATER, "twice set");
        scene.settings("");
        scene.daemon = Some(daemon(scene.state.path(), scene.state.path()));
        assert_eq!(reply(&scene), "250 2.0.0 Ok");
        if kind == Kind::Socket {
            let said = scene.said();
            for part in [
                "mail put off: ",
                "smtp.sock: no connection",
                "mail passes UNCHECKED (when_down = pass): ",
                "zmailer.conf:4: when_down: \"sometimes\" is not understood",
                "postoffice: set twice",
            ] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }
}

#[test]
fn a_daemon_that_hangs_has_its_time_and_the_session_hears_of_us() {
    // Long enough for a heartbeat at the socket.
    for (kind, settings, busy) in
        [(Kind::Socket, "timeout = 28s", true), (Kind::Program, "program_timeout = 5s", false)]
    {
        let mut scene = Scene::new(kind, settings);
        scene.daemon.take().unwrap().kill().unwrap();
        fs::remove_file(scene.state.path().join("smtp.sock")).unwrap();
        let stuck = UnixListener::bind(scene.state.path().join("smtp.sock")).unwrap();
        fs::set_permissions(scene.state.path().join("smtp.sock"), PermissionsExt::from_mode(0o666)).unwrap();
        let begin = Instant::now();
        let (told, said) = scene.ask(&[mail("clean", &[ALICE])]);
        assert_eq!((without_id(&told[0].reply).as_str(), told[0].open), (LATER, None), "{said:?}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
        assert_eq!(said.iter().any(|line| line == "F: #busy"), busy, "{said:?}");
        drop(stuck);
    }
}

#[test]
fn twenty_sessions_at_once_and_more() {
    for kind in [Kind::Socket, Kind::Program] {
        let scene = Scene::new(kind, "");
        std::thread::scope(|threads| {
            for number in 0..24 {
                let scene = &scene;
                threads.spawn(move || {
                    let subject = ["clean", "no thanks", "come later", "new field"][number % 4];
                    let code = ["250", "550", "451", "250"][number % 4];
                    let (told, _) = scene
                        .driver
                        .session(scene.filter.as_ref().unwrap(), &vec![mail(subject, &[ALICE]); 3])
                        .unwrap();
                    assert!(told.iter().all(|told| told.open.is_none() && told.reply.starts_with(code)), "{told:?}");
                });
            }
        });
    }
}

/// This is ZMailer's way, and nothing that a filter can do about it: the README says so.
#[test]
fn a_filter_that_is_gone_lets_mail_pass() {
    let mut scene = Scene::new(Kind::Socket, "");
    scene.kill_server();
    let (told, _) = scene.ask(&[mail("no thanks", &[ALICE])]);
    assert_eq!(told[0].open, Some(Open::Absent));
    assert!(told[0].reply.starts_with("250 ") && matches!(told[0].fate, Fate::Routed(_)));
    // Started again, under the name of the dead one's socket: smtpserver need not be.
    scene.serve();
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), ["550 5.7.0 Content-Policy reject msg: No thanks"]);
    // A socket that smtpserver does not believe in.
    fs::set_permissions(scene.socket(), PermissionsExt::from_mode(0o660)).unwrap();
    scene.filter = Some(Filter::find(&scene.socket(), 1, Limits::default(), &[]));
    let (told, _) = scene.ask(&[mail("no thanks", &[ALICE])]);
    assert_eq!(told[0].open, Some(Open::Off));
}

#[test]
fn an_end_that_is_asked_for_waits_for_sessions() {
    let mut scene = Scene::new(Kind::Socket, "");
    let mut stream = UnixStream::connect(scene.socket()).unwrap();
    let mut hungry = [0; 8];
    std::io::Read::read_exact(&mut stream, &mut hungry).unwrap();
    let id = rustix::process::Pid::from_raw(i32::try_from(scene.server.as_ref().unwrap().id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    // Who is connected is served on, and so is who comes.
    for _ in 0..3 {
        assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), ["550 5.7.0 Content-Policy reject msg: No thanks"]);
    }
    drop(stream);
    let server = scene.server.as_mut().unwrap();
    let end = Instant::now() + SOON;
    while server.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!scene.said().contains("UNCHECKED"), "{}", scene.said());
}

#[test]
fn a_program_is_killed_replaced_and_never_talks_out_of_turn() {
    let mut scene = Scene::new(Kind::Program, "");
    let copy = scene.driver.path().join("checkpost-zmailer");
    let install = || {
        let new = copy.with_extension("new");
        fs::copy(ours(), &new).unwrap();
        fs::rename(&new, &copy).unwrap();
    };
    install();
    let conf = scene.conf().display().to_string();
    scene.filter = Some(Filter::find(&copy, 1, Limits::default(), &[("CHECKPOST_ZMAILER_CONF", &conf)]));
    let refused = ["550 5.7.0 Content-Policy reject msg: No thanks"];
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), refused);
    let first = scene.filter.as_ref().unwrap().copies();
    assert_eq!(first.len(), 1);
    if rustix::process::geteuid().is_root() {
        let status = fs::read_to_string(format!("/proc/{}/status", first[0])).unwrap();
        for line in ["Uid:\t1\t1\t1\t1\n", "Gid:\t1\t1\t1\t1\n", "Groups:\t \n"] {
            assert!(status.contains(line), "{line:?}: {status}");
        }
    }
    // Nothing but verdicts can get into their stream.
    let other = |number: u32| fs::read_link(format!("/proc/{}/fd/{number}", first[0])).unwrap();
    assert_ne!(other(1), other(2));
    // Idle, killed: a new one at the next mail.
    let id = rustix::process::Pid::from_raw(i32::try_from(first[0]).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    let end = Instant::now() + SOON;
    while fs::read_to_string(format!("/proc/{}/status", first[0])).is_ok_and(|status| !status.contains("State:\tZ")) {
        assert!(Instant::now() < end);
    }
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), refused);
    let second = scene.filter.as_ref().unwrap().copies();
    assert_ne!(first, second);
    // Replaced on the disk: the next mail starts the new one.
    install();
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), refused);
    assert_ne!(scene.filter.as_ref().unwrap().copies(), second);
    assert!(fs::metadata(&copy).unwrap().mode() & 0o111 != 0);
}

/// The driver fails open where the real one does; without that the tests above would show nothing.
#[test]
fn the_driver_takes_what_it_does_not_understand_for_accept() {
    let driver = Driver::new().unwrap();
    let limits = Limits { start: Duration::from_secs(2), silence: Duration::from_secs(2) };
    let check = |script: &str, open: Option<Open>, reply: &str| {
        let path = driver.path().join("stub");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let filter = Filter::find(&path, 1, limits, &[]);
        let (told, said) = driver.session(&filter, &[mail("x", &[ALICE])]).unwrap();
        assert_eq!((without_id(&told[0].reply).as_str(), told[0].open), (reply, open), "{script}: {said:?}");
    };
    let passed = "250 2.0.0 accepted";
    let refused = "550 5.7.1 Content-Policy reject msg: t";
    let reject = "-1 550 5.7.1 t\\n";
    let with = |lines: &str| format!("printf '#hungry\\n'; read path; printf -- '{lines}'; read path");
    check(&with(&format!("{reject}#hungry\\n")), None, refused);
    check(&with(&format!("0 250 2.0.0 x\\nnoise\\n{reject}more noise\\n#hungry\\n")), None, refused);
    check(&with(&format!("#busy\\n{reject}#hungry\\n")), None, refused);
    check(&format!("echo early; {}", with(&format!("{reject}#hungry\\n"))), None, refused);
    check(&with(&format!("{reject}\\n#hungry\\n")), Some(Open::Ended), passed);
    check(&with("-1 Infected\\n#hungry\\n"), Some(Open::NoVerdict), passed);
    check(&with("#hungry\\n"), Some(Open::NoVerdict), passed);
    check(&with(reject), Some(Open::Silent), passed);
    check(&with(&format!("{reject}#hungry \\n")), Some(Open::Silent), passed);
    check(&with(&format!("warning: {reject}#hungry\\n")), Some(Open::NoVerdict), passed);
    check(&format!("printf '#hungry\\n'; read path; printf -- '{reject}'"), Some(Open::Ended), passed);
    check("sleep 30", Some(Open::Silent), passed);
    check("printf '#hungry\\r\\n'; sleep 30", Some(Open::Silent), passed);
}
