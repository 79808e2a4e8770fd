//! The daemon down, hanging or killed again and again; settings that are wrong.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

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

/// One connection to the place where the daemon should be is answered with this, whatever it asks.
fn answered(scene: &Scene, said: &'static [u8]) -> Left {
    let _ = fs::remove_file(scene.socket());
    let listener = UnixListener::bind(scene.socket()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Its request is small, and comes at once.
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        stream.write_all(said).unwrap();
    });
    scene.caller().deliver(&mail(), &to(&["b@x"]))
}

#[test]
fn an_answer_that_is_none_is_never_taken_for_clean() {
    let mut scene = Scene::new("");
    scene.daemon.take().unwrap().kill().unwrap();
    let later = "451 mail server temporarily rejected message (#4.3.0)";
    let failed = "451 communication with mail server failed (#4.4.2)";
    for (settings, said, reply) in [
        ("", &b"checkpost-check 1\0error=busy\0\0"[..], later),
        // There is a daemon, and it says that it cannot: that is not "down".
        ("when_down = pass", b"checkpost-check 1\0error=busy\0\0", later),
        ("when_down = pass", b"checkpost-check 2\0", failed),
        ("when_down = pass", b"HTTP/1.0 200 OK\r\n\r\n", failed),
        ("when_down = pass", b"checkpost-check 1\0answer=1\0decision=accept\0content=same\0\0", failed),
        ("when_down = pass", b"checkpost-check 1\0answer=1\0decision=reject 250 fine\0\0", failed),
        // One that breaks down is.
        ("", b"checkpost-check 1\0answer=1\0decision=accept\0content=same\0outcome=deliver 0\0", failed),
    ] {
        scene.settings(settings);
        let left = answered(&scene, said);
        let what = String::from_utf8_lossy(said);
        assert_eq!((&*left.reply, scene.home.started()), (reply, 0), "{settings} {what}: {left:?}");
    }
    scene.settings("when_down = pass");
    let left = answered(&scene, b"checkpost-check 1\0answer=1\0decision=acc");
    assert!(left.reply.starts_with("250 ") && left.log.contains("passed without a check"), "{left:?}");
    assert_eq!(scene.home.calls().len(), 1);
}

#[test]
fn killed_while_it_waits_it_leaves_no_file_and_no_mail() {
    let mut scene = Scene::new("");
    scene.daemon.take().unwrap().kill().unwrap();
    fs::remove_file(scene.socket()).unwrap();
    let listener = UnixListener::bind(scene.socket()).unwrap();
    let mut running = scene.caller().start().unwrap();
    running.message(&large(3));
    running.envelope(&to(&["b@x"]));
    let _asked = listener.accept().unwrap();
    // It has a file in the folder, without a name.
    let spool = scene.home.path().join("spool");
    let open = fs::read_dir(format!("/proc/{}/fd", running.id())).unwrap().flatten();
    let spooled = open.filter_map(|entry| fs::read_link(entry.path()).ok()).filter(|file| file.starts_with(&spool));
    assert_eq!(spooled.count(), 1);
    running.kill();
    assert_eq!(running.finish().reply, "451 qq crashed (#4.3.0)");
    assert_eq!(scene.home.started(), 0);
    scene.clean();
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
fn five_hundred_at_once_survive_a_daemon_that_is_killed() {
    let mut scene = Scene::new("text = auto");
    let envelope_of = |number: usize| to(&[&*format!("user{number}@x")]);
    let message_of = |number: usize| format!("Subject: {number}\n\n{}", "body\n".repeat(number)).into_bytes();
    let mut daemon = scene.daemon.take();
    let (through, ended) = mpsc::channel();
    let lefts: Vec<Left> = std::thread::scope(|threads| {
        let scene = &scene;
        let callers: Vec<_> = (0..500)
            .map(|number| {
                let through = through.clone();
                threads.spawn(move || {
                    let left = scene.caller().deliver(&message_of(number), &envelope_of(number));
                    through.send(()).unwrap();
                    left
                })
            })
            .collect();
        drop(through);
        // Whenever some more have ended, it dies, and comes back.
        for more in [20, 100, 130] {
            ended.iter().take(more).for_each(drop);
            daemon.take().unwrap().kill().unwrap();
            daemon = Some(scene.start());
        }
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let calls = scene.home.calls();
    let mut deferred = 0;
    for (number, left) in lefts.iter().enumerate() {
        let (message, envelope) = (message_of(number), envelope_of(number));
        let times = calls.iter().filter(|call| call.envelope == envelope && call.message == message).count();
        if left.reply.starts_with("250 ") {
            assert_eq!(times, 1, "{number}: {left:?}");
        } else {
            assert!(left.reply.starts_with("451 "), "{number}: {left:?}");
            assert_eq!(times, 0, "{number}: {left:?}");
            deferred += 1;
        }
    }
    assert_eq!((calls.len(), scene.home.started()), (500 - deferred, 500 - deferred));
    assert!(deferred > 0, "no kill hit a mail");
    scene.clean();
}
