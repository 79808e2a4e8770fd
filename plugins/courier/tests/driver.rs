//! The program as courierfilter starts and stops it, with a queue in a folder and a daemon of the test's own: no Courier is
//! needed. What a real one does with it is in the workspace's `tests`.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use checkpost_wire::check::{Answer, Content, Decision, Form, Outcome, Request, Response};
use common::daemon::{self, Said};
use common::{Courier, NAME, reply};

const LATER: &str = "451 4.3.0 Local problem, try again later\n";
const MAIL: &str = "From: a\nSubject: x\n\ntext\n";

fn accept(outcomes: Vec<Outcome>, form: Form, added: &[&str]) -> Response {
    let added = added.iter().map(ToString::to_string).collect();
    let contents = vec![Content { form, sender: None, added }];
    Response::Answer(Answer { id: "1".into(), decision: Decision::Accept, outcomes, contents })
}

fn fine(request: &Request) -> Said {
    Some((accept(vec![Outcome::Deliver(0); request.recipients.len()], Form::Same, &[]), None))
}

/// By the sender's wish, which is the mail's subject.
fn by_subject(request: &Request, mail: &[u8]) -> Said {
    let mail = String::from_utf8_lossy(mail);
    let subject = mail.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
    let all = request.recipients.len();
    let refuse = |decision| Response::Answer(Answer { id: "1".into(), decision, outcomes: vec![], contents: vec![] });
    let deliver = || vec![Outcome::Deliver(0); all];
    let changed = |text: &str| Some((accept(deliver(), Form::Descriptor, &[]), Some(text.as_bytes().to_vec())));
    match subject {
        "reject" => Some((refuse(Decision::Reject("550 5.7.1 no thanks".into())), None)),
        "defer" => Some((refuse(Decision::Defer("451 4.7.5 not now".into())), None)),
        "discard" => Some((accept(vec![Outcome::Discard; all], Form::Same, &[]), None)),
        "drop last" => {
            let mut outcomes = deliver();
            outcomes[all - 1] = Outcome::Quarantine;
            Some((accept(outcomes, Form::Same, &[]), None))
        }
        "add" => Some((accept(deliver(), Form::Same, &["new@x", "a@x"]), None)),
        "body" => changed("From: a\nSubject: body\n\nnew"),
        "eight bit" => changed("From: a\nSubject: \u{e9}\n\n\u{e9}\n"),
        "hold" => Some((accept(vec![Outcome::Hold(0, "odd".into()); all], Form::Same, &[]), None)),
        "gone" => None,
        "error" => Some((Response::Error("no".into()), None)),
        _ => fine(request),
    }
}

fn started(settings: &str, judge: impl Fn(&Request, &[u8]) -> Said + Send + Sync + 'static) -> Courier {
    let mut courier = Courier::new(settings);
    daemon::listen(&courier.path("check.sock"), judge);
    courier.start();
    courier
}

#[test]
fn its_start_is_told_when_it_can_be_asked() {
    let mut courier = Courier::new("");
    daemon::listen(&courier.path("check.sock"), |request, _| fine(request));
    // From a run that was killed, in both folders.
    for folder in ["allfilters", "filters"] {
        drop(std::os::unix::net::UnixListener::bind(courier.path(folder).join(NAME)).unwrap());
    }
    courier.start();
    // Pipe 3 is closed: the socket is there, whole, under its own name and no other.
    let about = fs::metadata(courier.socket()).unwrap();
    assert!(about.file_type().is_socket());
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    assert_eq!(fs::read_dir(courier.path("allfilters")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(courier.path("filters")).unwrap().count(), 0);
    assert_eq!(courier.ask(&courier.mail(MAIL, &[&["a@x"]])), "200 Ok\n");
    // Nor does it keep what courierfilter forgot: its own pipe for sessions that end is the only other one.
    let open = fs::read_dir(format!("/proc/{}/fd", courier.id())).unwrap().flatten();
    let pipes: Vec<_> = open
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2)
        .filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned))
        .filter(|target| target.starts_with("pipe:"))
        .collect();
    assert!(pipes.len() == 2 && pipes[0] == pipes[1], "{pipes:?}");
    assert_eq!(courier.log(), "");
    courier.stop();
    let (well, _) = courier.ended();
    assert!(well && !courier.socket().exists(), "{}", courier.log());
}

#[test]
fn nothing_is_answered_before_the_empty_line() {
    let courier = started("", |request, _| fine(request));
    let files = courier.mail(MAIL, &[&["a@x"], &["b@x"]]);
    let request = files.request();
    let mut stream = courier.connect();
    stream.set_nonblocking(true).unwrap();
    for (at, octet) in request.iter().enumerate() {
        let said = stream.read(&mut [0; 1]);
        assert_eq!(said.unwrap_err().kind(), ErrorKind::WouldBlock, "after {at} octets");
        stream.write_all(&[*octet]).unwrap();
    }
    stream.set_nonblocking(false).unwrap();
    // To its end: Courier waits for the close.
    assert_eq!(reply(stream), "200 Ok\n");
}

#[test]
fn every_answer_is_carried_out() {
    let courier = started("", by_subject);
    let check = |subject: &str, said: &str, text: Option<&str>, first: &str, second: &str| {
        let mail = MAIL.replace("Subject: x", &format!("Subject: {subject}"));
        let files = courier.mail(&mail, &[&["a@x", "b@x"], &["c@x"]]);
        assert_eq!(courier.ask(&files), said, "{subject}: {}", courier.log());
        assert_eq!(files.text(), text.unwrap_or(&mail), "{subject}");
        // The time is the only thing that changes.
        let records = |file| -> String {
            let lines = files.records(file);
            lines.lines().map(|line| if line.starts_with('S') { &line[..2] } else { line }.to_owned() + "\n").collect()
        };
        assert_eq!((&*records(0), &*records(1)), (first, second), "{subject}");
    };
    let gone = |index: usize| format!("I{index} R 250 Ok - not delivered, by policy\nS{index}\n");
    check("fine", "200 Ok\n", None, "", "");
    check("reject", "550 5.7.1 no thanks\n", None, "", "");
    check("defer", "451 4.7.5 not now\n", None, "", "");
    check("discard", "200 Ok\n", None, &(gone(0) + &gone(1)), &gone(0));
    check("drop last", "200 Ok\n", None, "", &gone(0));
    check("add", "200 Ok\n", None, "", "rnew@x\nR\nN\n");
    // The last line gets its end.
    check("body", "200 Ok\n", Some("From: a\nSubject: body\n\nnew\n"), "", "");
    check("eight bit", "200 Ok\n", Some("From: a\nSubject: \u{e9}\n\n\u{e9}\n"), "8\nm\n", "8\nm\n");
    // What it has not said it can do, and no answer at all.
    for subject in ["hold", "gone", "error"] {
        check(subject, LATER, None, "", "");
    }
}

#[test]
fn files_that_are_not_the_queue_s_are_not_touched() {
    let courier = started("", by_subject);
    let files = courier.mail(&MAIL.replace("Subject: x", "Subject: body"), &[&["a@x"]]);
    let outside = courier.path("D");
    fs::copy(&files.data, &outside).unwrap();
    let control = files.controls[0].display();
    for data in [outside.display().to_string(), format!("{}/tmp/../D", courier.path("").display()), "tmp".into()] {
        let mut stream = courier.connect();
        stream.write_all(format!("{data}\n{control}\n\n").as_bytes()).unwrap();
        assert_eq!(reply(stream), LATER);
    }
    assert!(!fs::read_to_string(outside).unwrap().contains("new"));
    for wrong in ["\n", "x\n\n", "x\n \n\n", "\0\n"] {
        let mut stream = courier.connect();
        stream.write_all(wrong.as_bytes()).unwrap();
        assert_eq!(reply(stream), LATER, "{wrong:?}");
    }
    // A data file that cannot be written is no accept of the old one.
    let data = courier.mail(&MAIL.replace("Subject: x", "Subject: add"), &[&["b@x"]]);
    fs::remove_file(&data.controls[0]).unwrap();
    assert_eq!(courier.ask(&data), LATER);
}

#[test]
fn without_a_daemon_or_settings_it_is_there_and_says_later() {
    let mut courier = Courier::new("when_down = sometimes");
    courier.start();
    let ask = |courier: &Courier| courier.ask(&courier.mail(MAIL, &[&["a@x"]]));
    assert_eq!(ask(&courier), LATER);
    assert!(courier.log().contains("courier.conf:2: when_down: \"sometimes\" is not understood"), "{}", courier.log());
    // Repaired while it runs; still nobody listens.
    courier.settings("");
    assert_eq!(ask(&courier), LATER);
    assert!(courier.log().contains("check.sock: no connection"), "{}", courier.log());
    courier.settings("when_down = pass");
    assert_eq!(ask(&courier), "200 Ok\n");
    assert!(courier.log().contains(": mail passes UNCHECKED (when_down = pass): "), "{}", courier.log());
    courier.settings("");
    daemon::listen(&courier.path("check.sock"), |request, _| fine(request));
    assert_eq!(ask(&courier), "200 Ok\n");
    for line in courier.log().lines() {
        assert!(line.starts_with("checkpost: "), "{line}");
    }
}

#[test]
fn forty_are_served_at_once_and_more_wait() {
    // Nobody is answered before all forty have asked.
    let all = Arc::new(Barrier::new(40));
    let courier = started("", move |request, _| {
        all.wait();
        fine(request)
    });
    let ask_forty = |courier: &Courier| {
        thread::scope(|threads| {
            for _ in 0..40 {
                threads.spawn(|| assert_eq!(courier.ask(&courier.mail(MAIL, &[&["a@x"]])), "200 Ok\n"));
            }
        });
    };
    ask_forty(&courier);
    let most = Arc::new(Mutex::new((0, 0)));
    let seen = Arc::clone(&most);
    let few = started("sessions = 3", move |request, _| {
        let mut count = seen.lock().unwrap();
        *count = (count.0 + 1, count.1.max(count.0 + 1));
        drop(count);
        thread::sleep(Duration::from_millis(10));
        seen.lock().unwrap().0 -= 1;
        fine(request)
    });
    ask_forty(&few);
    assert!((1..=3).contains(&most.lock().unwrap().1), "{most:?}");
}

#[test]
fn at_its_end_open_mails_get_their_answer() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (asked, is_asked) = std::sync::mpsc::channel();
    let inside = Arc::clone(&gate);
    let mut courier = started("", move |request, _| {
        asked.send(()).unwrap();
        let open = inside.0.lock().unwrap();
        drop(inside.1.wait_while(open, |open| !*open).unwrap());
        fine(request)
    });
    let files = courier.mail(MAIL, &[&["a@x"]]);
    let mut stream = courier.connect();
    stream.write_all(&files.request()).unwrap();
    is_asked.recv().unwrap();
    courier.stop();
    assert!(courier.is_running() && courier.socket().exists(), "Courier is not let past while mails are open");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(reply(stream), "200 Ok\n");
    let (well, _) = courier.ended();
    assert!(well && !courier.socket().exists());
}

#[test]
fn its_end_does_not_wait_for_ever() {
    let mut courier = started("", |_, _| {
        loop {
            thread::park();
        }
    });
    let files = courier.mail(MAIL, &[&["a@x"]]);
    let mut stream = courier.connect();
    stream.write_all(&files.request()).unwrap();
    let mut silent = courier.connect();
    silent.write_all(b"/half").unwrap();
    courier.stop();
    let (well, time) = courier.ended();
    assert!(well && time < Duration::from_secs(10), "{time:?}");
    assert!(!courier.socket().exists());
    // No line: Courier says "temporarily unavailable".
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
}

#[test]
fn a_stuck_client_and_a_stuck_daemon_have_their_time() {
    let courier = started("timeout = 5s", |_, _| {
        loop {
            thread::park();
        }
    });
    let begin = Instant::now();
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut stream = courier.connect();
            stream.write_all(b"/half a na").unwrap();
            assert_eq!(reply(stream), LATER);
        });
        threads.spawn(|| assert_eq!(courier.ask(&courier.mail(MAIL, &[&["a@x"]])), LATER));
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert!(courier.log().contains("no whole request within 5 s") && courier.log().contains("no answer in time"));
}

#[test]
fn killed_it_leaves_its_socket() {
    let mut courier = started("", |request, _| fine(request));
    assert!(courier.probe(), "{}", courier.log());
    courier.kill();
    assert!(courier.socket().exists() && !courier.probe());
    assert_eq!(UnixStream::connect(courier.socket()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    courier.start();
    assert!(courier.probe());
    assert_eq!(courier.ask(&courier.mail(MAIL, &[&["a@x"]])), "200 Ok\n");
}

#[test]
fn after_a_fault_mail_is_put_off_or_passes_as_set() {
    for (settings, stays, said) in [
        ("", true, "until filterctl stop and start, mail is put off"),
        ("when_broken = open", false, "until filterctl stop and start, mail passes UNCHECKED (when_broken = open)"),
    ] {
        let mut courier = Courier::new(settings);
        // Enough for its socket, and not for what comes then.
        courier.start_limited(Some(5));
        let (well, _) = courier.ended();
        assert_eq!((well, courier.socket().exists()), (false, stays), "{}", courier.log());
        assert!(courier.log().contains(said), "{}", courier.log());
        assert!(!courier.probe());
    }
}

#[test]
fn without_a_socket_it_ends_and_says_that_mail_passes() {
    let mut courier = Courier::new("");
    // Nobody can remove it.
    fs::create_dir_all(courier.path("allfilters/.checkpost/x")).unwrap();
    courier.start();
    let (well, _) = courier.ended();
    assert!(!well && !courier.socket().exists());
    assert!(courier.log().contains("no socket, so mail passes UNCHECKED: "), "{}", courier.log());
}

#[test]
fn started_by_hand_it_works_and_says_so() {
    let mut courier = Courier::new("");
    daemon::listen(&courier.path("check.sock"), |request, _| fine(request));
    courier.start_by_hand();
    assert_eq!(courier.ask(&courier.mail(MAIL, &[&["a@x"]])), "200 Ok\n");
    assert!(courier.log().contains("started by hand"), "{}", courier.log());
}
