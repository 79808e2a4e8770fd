//! The daemon, the disk and the settings when they are not as they should be.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use checkpost_tests::communigate::Reply;
use checkpost_tests::program;

use super::{Scene, mail, numbered};

fn is_later(reply: &Reply) -> bool {
    matches!(reply, Reply::Rejected(_))
}

#[test]
fn without_a_daemon_mail_waits_and_the_helper_stays() {
    let mut scene = Scene::stopped("communigate", "");
    scene.server.start(4);
    let files: Vec<String> = (0..50).map(|number| scene.server.put(numbered(number, &["b@x"]))).collect();
    files.iter().for_each(|file| drop(scene.server.ask(file)));
    scene.server.settle();
    assert!(files.iter().all(|file| is_later(&scene.server.reply(file))));
    scene.server.hear_note("mail put off");
    scene.daemon = Some(scene.start_daemon());
    assert_eq!(scene.delivered().len(), 50);
    scene.end();
}

#[test]
fn mail_passes_unchecked_only_where_that_is_wanted() {
    let mut scene = Scene::stopped("communigate", "when_down = pass");
    scene.server.start(4);
    assert_eq!(scene.reply(mail(&["b@x"])), Reply::Failure);
    scene.server.hear_note("passes UNCHECKED (when_down = pass)");
    // Our own failures are no such thing.
    scene.server.ask("Queue/missing.msg");
    scene.server.settle();
    assert!(is_later(&scene.server.reply("Queue/missing.msg")));
    // Nor is what rules put off.
    scene.daemon = Some(scene.start_daemon());
    assert_eq!(scene.reply(mail(&["b@x"])), Reply::Ok);
    assert!(is_later(&scene.reply(mail(&["later@x"]))));
    scene.end();
}

#[test]
fn a_daemon_that_hangs_is_answered_for_in_time() {
    let mut scene = Scene::new("timeout = 5s");
    scene.freeze();
    let began = Instant::now();
    let (_, reply) = scene.server.check(mail(&["b@x"]));
    assert!(is_later(&reply), "{reply:?}");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(120), "{took:?}");
    scene.server.hear_note("no answer in time");
    scene.thaw();
    assert_eq!(scene.delivered().len(), 1);
    scene.end();
}

#[test]
fn a_daemon_killed_with_a_hundred_mails_open_loses_none() {
    let mut scene = Scene::new("");
    scene.freeze();
    let to = ["b@x", "tag@x", "header@x", "gone@x"];
    let files: Vec<String> =
        (0..100).map(|number| scene.server.put(numbered(number, &[to[number % to.len()]]))).collect();
    files.iter().for_each(|file| drop(scene.server.ask(file)));
    // It gets through some of them.
    scene.thaw();
    for _ in 0..20 {
        assert!(scene.server.hear(Duration::from_secs(60)));
    }
    scene.daemon.take().unwrap().kill().unwrap();
    scene.server.settle();
    let mut later = 0;
    for (number, file) in files.iter().enumerate() {
        let reply = scene.server.reply(file);
        let is_true = match number % to.len() {
            0 => reply == Reply::Ok,
            1 | 3 => reply == Reply::Discard,
            _ => matches!(reply, Reply::AddHeader(_)),
        };
        later += usize::from(is_later(&reply));
        assert!(is_true || is_later(&reply), "{file}: {reply:?}");
    }
    scene.server.act();
    scene.daemon = Some(scene.start_daemon());
    assert_eq!(scene.delivered().len(), 75, "{later} were put off");
    scene.end();
}

#[test]
fn a_mail_is_dropped_only_when_others_are_handed_in() {
    let mut scene = Scene::new("");
    let folder = scene.server.path("Submitted");
    fs::remove_dir(&folder).unwrap();
    let (file, reply) = scene.server.check(mail(&["tag@x"]));
    assert!(is_later(&reply), "{reply:?}");
    // What needs no folder goes on.
    assert_eq!(scene.server.check(mail(&["b@x"])).1, Reply::Ok);
    fs::write(&folder, "no folder").unwrap();
    scene.server.ask(&file);
    scene.server.settle();
    assert!(is_later(&scene.server.reply(&file)));
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    // A journal that cannot be written.
    let state = scene.server.path("checkpost-state");
    fs::rename(state.join("journal"), state.join("kept")).unwrap();
    fs::create_dir(state.join("journal")).unwrap();
    scene.server.ask(&file);
    scene.server.settle();
    assert!(is_later(&scene.server.reply(&file)));
    assert_eq!(scene.server.submitted(), Vec::<String>::new());
    fs::remove_dir(state.join("journal")).unwrap();
    fs::rename(state.join("kept"), state.join("journal")).unwrap();
    scene.daemon_is_done_with(4);
    let log = scene.daemon().log();
    assert_eq!(log.matches("<tag@x> deferred (not handed on: ").count(), 3, "{log}");
    scene.server.act();
    let delivered = scene.delivered();
    assert_eq!(delivered.len(), 2);
    scene.end();
}

#[test]
fn a_mail_that_is_gone_before_its_answer() {
    let mut scene = Scene::new("");
    for (recipient, unchanged) in [("b@x", true), ("tag@x", false)] {
        scene.freeze();
        let file = scene.server.put(mail(&[recipient]));
        scene.server.ask(&file);
        let is_open = |scene: &mut Scene| scene.server.helper().descriptors().iter().any(|open| open.ends_with(&file));
        while !is_open(&mut scene) {
            std::thread::sleep(Duration::from_millis(2));
        }
        fs::remove_file(scene.server.path(&file)).unwrap();
        scene.thaw();
        scene.server.settle();
        let reply = scene.server.reply(&file);
        assert!(if unchanged { reply == Reply::Ok } else { is_later(&reply) }, "{reply:?}");
        assert_eq!(scene.server.submitted(), Vec::<String>::new(), "nobody waits for it any more");
        scene.server.forget(&file);
    }
    scene.end();
}

#[test]
fn settings_are_mended_without_a_restart() {
    let mut scene = Scene::new("timeout = never");
    assert!(is_later(&scene.reply(mail(&["b@x"]))));
    scene.server.hear_note("communigate.conf:3: timeout: \"never\" is not understood; accepted: 5s to 600s");
    scene.settings("");
    assert_eq!(scene.delivered().len(), 1);
    scene.end();
}

#[test]
fn two_helpers_do_not_hand_in_the_same_mail() {
    let mut scene = Scene::new("");
    let state = scene.server.path("checkpost-state");
    scene.end();
    // One that was left behind, by whatever.
    let lock = fs::File::options().write(true).open(state.join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    scene.server.start(4);
    scene.server.hear_note("another checkpost-communigate has it");
    assert!(is_later(&scene.reply(mail(&["tag@x"]))));
    assert_eq!(scene.reply(mail(&["b@x"])), Reply::Ok);
    drop(lock);
    assert_eq!(scene.delivered().len(), 2);
    scene.end();
}

#[test]
fn what_the_server_did_not_take_is_told() {
    let mut scene = Scene::new("");
    scene.end();
    let look = |scene: &Scene| {
        let output = Command::new(program("checkpost-communigate"))
            .arg("--look")
            .arg(scene.server.base())
            .arg(scene.state.path().join("communigate.conf"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = look(&scene);
    assert!(code == Some(0) && !text.contains("WRONG"), "{text}");
    fs::write(scene.server.path("Submitted/checkpost-7-0123456789abcdef.bad"), "").unwrap();
    fs::write(scene.server.path("Submitted/somebody.bad"), "").unwrap();
    scene.server.start(4);
    scene.server.hear_note("did not take Submitted/checkpost-7-0123456789abcdef.bad");
    assert!(!scene.server.log.iter().any(|line| line.contains("somebody.bad")));
    let (code, text) = look(&scene);
    assert!(code == Some(1) && text.contains("WRONG the server did not take"), "{text}");
    scene.daemon.take().unwrap().kill().unwrap();
    assert!(look(&scene).1.contains("WRONG the daemon at "));
    scene.end();
}
