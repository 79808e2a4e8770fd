//! What the two say to each other, whatever the mail.

use std::time::Duration;

use checkpost_tests::communigate::Reply;

use super::{Scene, mail, numbered};

#[test]
fn it_greets_and_answers_in_all_versions() {
    for interface in [1, 2, 3, 4, 5] {
        let mut scene = Scene::stopped("communigate", "");
        scene.daemon = Some(scene.start_daemon());
        scene.server.start(interface);
        assert!(scene.server.log[0].starts_with("checkpost-communigate ") && scene.server.log[0].ends_with(" ready"));
        assert_eq!(scene.reply(mail(&["b@x"])), Reply::Ok);
        // Read as this version has it: with a final word or without.
        let added = vec!["X-Two: 2".to_owned(), "X-One: \"1\"".into(), "X-Last: 3".into()];
        assert_eq!(scene.reply(mail(&["header@x"])), Reply::AddHeader(added));
        scene.end();
    }
}

#[test]
fn lines_of_every_shape() {
    let mut scene = Scene::new("");
    let file = scene.server.put(mail(&["b@x"]));
    for words in [
        format!("FILE {file}\r"),
        format!("file {file}"),
        format!("FILE \"{file}\""),
        format!("FILE {file} HEADERS"),
        format!("FILE \"{file}\" HEADERS more"),
        format!("FILE   {file}  "),
    ] {
        scene.server.ask_as(&file, &words);
        scene.server.settle();
        assert_eq!(scene.server.reply(&file), Reply::Ok, "{words}");
    }
    for (words, due) in
        [("KEY abc", "OK"), ("NEWCOMMAND x", "FAILURE"), ("key", "OK"), ("intf 2", "INTF 2"), ("INTF 9", "INTF 3")]
    {
        scene.server.say(words, due);
    }
    scene.server.settle();
    for words in ["FILE".to_owned(), "FILE \"".into(), format!("FILE {}", "x".repeat(9000))] {
        scene.server.ask_as("none", &words);
        scene.server.settle();
        assert!(matches!(scene.server.reply("none"), Reply::Rejected(_)), "{words}");
    }
    scene.server.helper().send(b"no request\n\n");
    scene.server.hear_note("no request is left alone");
    scene.server.act();
    scene.end();
}

#[test]
fn hundreds_at_once_have_one_answer_each() {
    let mut scene = Scene::new("requests = 20");
    for many in [10, 100, 500] {
        let files: Vec<String> = (0..many).map(|number| scene.server.put(numbered(number, &["b@x"]))).collect();
        files.iter().for_each(|file| drop(scene.server.ask(file)));
        scene.server.settle();
        assert!(files.iter().all(|file| scene.server.reply(file) == Reply::Ok));
        scene.server.act();
        assert_eq!(scene.delivered().len(), many);
    }
    scene.end();
}

#[test]
fn a_hundred_open_mails_are_no_hundred_threads() {
    let mut scene = Scene::new("");
    // A daemon that has them all and says nothing.
    scene.freeze();
    let files: Vec<String> = (0..100).map(|number| scene.server.put(numbered(number, &["b@x"]))).collect();
    files.iter().for_each(|file| drop(scene.server.ask(file)));
    let count = |scene: &mut Scene, what: &str| {
        scene.server.helper().descriptors().iter().filter(|open| open.contains(what)).count()
    };
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while count(&mut scene, "/Queue/") < 100 || count(&mut scene, "socket:") < 100 {
        assert!(std::time::Instant::now() < end, "{:?}", scene.server.helper().descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(scene.server.open(), 100);
    let threads = scene.server.helper().threads();
    assert!(threads <= 7, "{threads} threads");
    scene.thaw();
    scene.server.settle();
    assert!(files.iter().all(|file| scene.server.reply(file) == Reply::Ok));
    // Nothing is kept open after the answers.
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while count(&mut scene, "/Queue/") > 0 {
        assert!(std::time::Instant::now() < end, "{:?}", scene.server.helper().descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
    scene.server.act();
    scene.end();
}

#[test]
fn what_is_over_the_bound_waits_or_comes_later() {
    let mut scene = Scene::new("requests = 5\ntimeout = 600s");
    scene.freeze();
    let file = scene.server.put(mail(&["b@x"]));
    let many = 1500;
    // One file under many names is enough.
    let names: Vec<String> = (0..many).map(|number| format!("{}{file}", "./".repeat(number % 7 + 1))).collect();
    let mut asked = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let key = format!("{number}");
        scene.server.ask_as(&key, &format!("FILE {name}"));
        asked.push(key);
    }
    // So many do not even wait.
    while scene.server.open() > 1005 {
        assert!(scene.server.hear(Duration::from_secs(60)));
    }
    let open = scene.server.helper().descriptors().iter().filter(|open| open.contains("/Queue/")).count();
    assert!(open <= 5, "{open} files are open");
    scene.thaw();
    scene.server.settle();
    let later = asked.iter().filter(|key| matches!(scene.server.reply(key), Reply::Rejected(_))).count();
    let fine = asked.iter().filter(|key| scene.server.reply(key) == Reply::Ok).count();
    assert_eq!((later, fine), (495, 1005));
    scene.end();
}
