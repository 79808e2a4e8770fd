//! The helper is killed, by whoever, in the middle of everything: each mail is delivered, once.

use std::collections::HashMap;
use std::time::Duration;

use checkpost_tests::communigate::Reply;
use rustix::process::Signal;

use super::{Scene, mail, numbered};

/// How often each of the numbered mails reached each of its recipients.
fn counted(scene: &mut Scene) -> HashMap<(String, String), usize> {
    let mut counted = HashMap::new();
    for delivered in scene.delivered() {
        let text = String::from_utf8(delivered.message).unwrap();
        let number = text.lines().find_map(|line| line.strip_prefix("body ")).unwrap().to_owned();
        for recipient in delivered.recipients {
            *counted.entry((number.clone(), recipient)).or_default() += 1;
        }
    }
    counted
}

fn each_once(scene: &mut Scene, many: usize, recipients: &[&str]) {
    let counted = counted(scene);
    assert_eq!(counted.len(), many * recipients.len());
    let wrong: Vec<_> = counted.iter().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn killed_with_open_requests_each_mail_is_delivered_once() {
    let recipients = ["b@x", "tag@x"];
    for signal in [Signal::KILL, Signal::TERM] {
        let mut scene = Scene::new("");
        let many = 60;
        let files: Vec<String> = (0..many).map(|number| scene.server.put(numbered(number, &recipients))).collect();
        files.iter().for_each(|file| drop(scene.server.ask(file)));
        let mut kills = 0;
        // After the first answers, and again and again a little later.
        while scene.server.open() > 0 && kills < 12 {
            for _ in 0..3 * kills + 1 {
                if scene.server.open() > 0 {
                    assert!(scene.server.hear(Duration::from_secs(60)));
                }
            }
            // The server goes on with what it has an answer about, and takes what is handed in, helper or not.
            scene.server.act();
            scene.server.poll();
            if scene.server.open() > 0 {
                let ended = scene.server.kill(signal);
                assert_eq!(ended.noise, 0);
                kills += 1;
                scene.server.start(4);
            }
        }
        assert!(kills > 2, "{kills} kills");
        scene.server.settle();
        scene.server.act();
        each_once(&mut scene, many, &recipients);
        scene.end();
    }
}

#[test]
fn a_mail_that_was_handed_in_before_the_kill_is_only_dropped() {
    let mut scene = Scene::new("");
    let file = scene.server.put(mail(&["tag@x"]));
    scene.server.ask(&file);
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Discard);
    // The answer was lost: killed before the server had read it. What was handed in is taken meanwhile.
    scene.server.forget(&file);
    scene.server.kill(Signal::KILL);
    assert_eq!(scene.server.poll().len(), 1);
    scene.daemon.take().unwrap().kill().unwrap();
    scene.server.start(4);
    // Nobody needs to be asked again.
    scene.server.ask(&file);
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Discard);
    scene.server.hear_note("others were handed in for it before");
    scene.daemon = Some(scene.start_daemon());
    scene.server.act();
    assert_eq!(scene.delivered().len(), 1);
    // The same name for another mail is another mail.
    std::fs::write(scene.server.path(&file), mail(&["b@x", "c@x"]).file()).unwrap();
    scene.server.ask(&file);
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Ok);
    scene.server.act();
    scene.end();
}

#[test]
fn what_was_written_and_not_handed_in_is_finished_or_removed() {
    let mut scene = Scene::new("");
    let file = scene.server.put(mail(&["tag@x"]));
    scene.server.ask(&file);
    scene.server.settle();
    scene.server.forget(&file);
    scene.server.kill(Signal::KILL);
    // As if it had been killed between the journal and the rename, with another mail half written.
    let name = scene.server.submitted().remove(0);
    let folder = scene.server.path("Submitted");
    std::fs::rename(folder.join(&name), folder.join(name.replace(".sub", ".tmp"))).unwrap();
    std::fs::write(folder.join("checkpost-9-0123456789abcdef.tmp"), "Return-Pa").unwrap();
    assert!(scene.server.poll().is_empty());
    scene.server.start(4);
    scene.server.hear_note("1 unfinished files removed");
    assert_eq!(scene.server.submitted(), [name.replace(".sub", ".tmp")]);
    scene.server.ask(&file);
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Discard);
    assert_eq!(scene.server.submitted(), [name]);
    scene.server.act();
    assert_eq!(scene.delivered().len(), 1);
    scene.end();
}

#[test]
fn asked_about_twice_at_once_it_is_handed_in_once() {
    let mut scene = Scene::new("");
    for number in 0..20 {
        let file = scene.server.put(numbered(number, &["tag@x"]));
        for _ in 0..4 {
            scene.server.ask(&file);
        }
        scene.server.settle();
        assert_eq!(scene.server.reply(&file), Reply::Discard);
        scene.server.act();
    }
    each_once(&mut scene, 20, &["tag@x"]);
    scene.end();
}

#[test]
fn it_ends_as_the_server_wants() {
    // QUIT with open requests, then the end of its lines; the end alone; and neither in time.
    for quit in [true, false] {
        let mut scene = Scene::new("");
        scene.freeze();
        let files: Vec<String> = (0..30).map(|number| scene.server.put(numbered(number, &["b@x"]))).collect();
        files.iter().for_each(|file| drop(scene.server.ask(file)));
        if quit {
            scene.server.say("QUIT", "OK");
        }
        scene.server.helper().end();
        assert!(!scene.server.hear(Duration::from_millis(200)), "all is open");
        scene.thaw();
        scene.server.settle();
        assert!(files.iter().all(|file| scene.server.reply(file) == Reply::Ok));
        scene.end();
    }
    let mut scene = Scene::new("");
    scene.freeze();
    let file = scene.server.put(mail(&["b@x"]));
    scene.server.ask(&file);
    assert_eq!(scene.server.kill(Signal::TERM).noise, 0);
    scene.thaw();
    scene.server.start(4);
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Ok);
    scene.server.act();
    scene.end();
}
