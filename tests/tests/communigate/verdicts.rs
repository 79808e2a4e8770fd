//! What becomes of a mail, by each of the words that the server knows.

use checkpost_tests::communigate::{Mail, Reply, Sub};
use checkpost_tests::mails;

use super::{MESSAGE, Scene, mail, went_on};

fn infected() -> Vec<u8> {
    [b"Subject: x\n\n", &*mails::eicar(), b"\n"].concat()
}

#[test]
fn a_refusal_that_may_become_a_bounce_is_one_only_where_it_is_safe() {
    let mut scene = Scene::new("");
    let from = |source: &str, sender: &str, mail: Mail| Mail { source: source.into(), sender: sender.into(), ..mail };
    let user = "<u@example.test> SMTP [198.51.100.9]";
    let refused = Reply::Error("Not for \"you\"".into());
    // From outside, or malware, or nobody to tell.
    assert_eq!(scene.reply(mail(&["no@x"])), Reply::Discard);
    assert_eq!(scene.reply(from(user, "s@x", Mail::new(&["b@x"], &infected()))), Reply::Discard);
    assert_eq!(scene.reply(from(user, "", mail(&["no@x"]))), Reply::Discard);
    assert_eq!(scene.reply(from("<u@example.test> RULE", "s@x", mail(&["no@x"]))), Reply::Discard);
    scene.daemon_is_done_with(4);
    let log = scene.daemon().log();
    assert_eq!(log.matches("> quarantined").count(), 4, "{log}");
    assert_eq!(scene.reply(from(user, "s@x", mail(&["no@x"]))), refused);
    assert_eq!(scene.reply(from("PIPE", "s@x", mail(&["no@x"]))), refused);
    scene.end();
}

#[test]
fn a_server_that_takes_mail_synchronously_refuses_in_the_session() {
    let mut scene = Scene::of_kind("communigate-synchronous", "");
    let malware = Reply::Error("Message contains malware (Eicar-Test-Signature)".into());
    assert_eq!(scene.reply(Mail::new(&["b@x"], &infected())), malware);
    assert_eq!(scene.reply(mail(&["no@x"])), Reply::Error("Not for \"you\"".into()));
    for source in ["RPOP [192.0.2.7]", "<u@x> RULE", "PIPE", "NEW"] {
        let mail = Mail { source: source.into(), ..Mail::new(&["b@x"], &infected()) };
        assert_eq!(scene.reply(mail), Reply::Discard, "{source}");
    }
    let null = Mail { sender: String::new(), ..Mail::new(&["b@x"], &infected()) };
    assert_eq!(scene.reply(null), Reply::Discard);
    scene.end();
}

#[test]
fn every_word_has_its_own_meaning() {
    let mut scene = Scene::new("");
    assert_eq!(scene.reply(mail(&["b@x"])), Reply::Ok);
    assert_eq!(scene.reply(mail(&["gone@x"])), Reply::Discard);
    let added = vec!["X-Two: 2".to_owned(), "X-One: \"1\"".into(), "X-Last: 3".into()];
    assert_eq!(scene.reply(mail(&["header@x"])), Reply::AddHeader(added));
    assert_eq!(scene.reply(mail(&["b@x", "later@x"])), Reply::Rejected("Not now".into()));
    assert_eq!((scene.server.queued(), scene.server.dropped), (1, 1));
    let message = ["X-Two: 2\nX-One: \"1\"\nX-Last: 3\n", std::str::from_utf8(MESSAGE).unwrap()].concat();
    let bare = std::str::from_utf8(MESSAGE).unwrap();
    let wanted = [went_on("s@example.net", &["b@x"], bare), went_on("s@example.net", &["header@x"], &message)];
    assert_eq!(scene.server.delivered, wanted);
    scene.daemon_is_done_with(4);
    let log = scene.daemon().log();
    assert!(log.contains("<header@x> passed") && log.contains("<later@x> deferred"), "{log}");
    scene.end();
}

#[test]
fn what_the_server_cannot_change_is_handed_in_again_once() {
    let mut scene = Scene::new("");
    let bare = std::str::from_utf8(MESSAGE).unwrap();
    let tagged = bare.replace("Subject: a", "Subject: [TAG] a");
    let removed = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\
                   Received: by mx\nSubject: a\nTo: b@x\n\nIt was removed.\n";
    let s = "s@example.net";
    for (recipients, wanted) in [
        (&["tag@x"][..], vec![went_on(s, &["tag@x"], &tagged)]),
        (&["body@x"], vec![went_on(s, &["body@x"], removed)]),
        (&["b@x", "no@x", "gone@x", "\"c >\"@x"], vec![went_on(s, &["b@x", "\"c >\"@x"], bare)]),
        (&["copied@x", "b@x"], vec![went_on(s, &["copied@x", "archive@x"], bare), went_on(s, &["b@x"], bare)]),
        (&["b@x", "tag@x", "c@x"], vec![went_on(s, &["b@x", "c@x"], bare), went_on(s, &["tag@x"], &tagged)]),
        (&["tag@x", "from@x"], vec![went_on(s, &["tag@x"], &tagged), went_on("other@x", &["from@x"], bare)]),
    ] {
        let (file, reply) = scene.server.check(mail(recipients));
        assert_eq!(reply, Reply::Discard, "{recipients:?}");
        // They were there when the server read that it may drop the mail.
        let there = scene.server.submitted_at(&file).to_vec();
        assert!(!there.is_empty() && there.iter().all(|name| name.ends_with(".sub")), "{there:?}");
        scene.server.act();
        let mut delivered = scene.delivered();
        for delivered in &mut delivered {
            // What the server put on top, and our mark.
            let text = String::from_utf8(std::mem::take(&mut delivered.message)).unwrap();
            let (received, rest) = text.split_once('\n').unwrap();
            let (mark, rest) = rest.split_once('\n').unwrap();
            assert!(received.contains("(PIPE)") && mark.starts_with("X-Checkpost-Mark: "), "{text}");
            delivered.message = rest.as_bytes().to_vec();
        }
        let key = |one: &checkpost_tests::communigate::Delivered| one.recipients.clone();
        delivered.sort_by_key(key);
        let mut wanted = wanted;
        wanted.sort_by_key(key);
        assert_eq!(delivered, wanted);
    }
    let null = Mail { sender: String::new(), ..mail(&["tag@x"]) };
    assert_eq!(scene.reply(null), Reply::Discard);
    assert_eq!(scene.delivered()[0].sender, "");
    // Each was asked of the daemon once: what came back was known by its mark.
    scene.daemon_is_done_with(7);
    scene.end();
}

#[test]
fn many_recipients_are_handed_in_with_all_their_names() {
    let mut scene = Scene::new("");
    let many: Vec<String> = (0..1000).map(|number| format!("user{number}@x")).collect();
    let mut recipients: Vec<&str> = many.iter().map(String::as_str).collect();
    recipients.push("gone@x");
    assert_eq!(scene.reply(mail(&recipients)), Reply::Discard);
    assert_eq!(scene.delivered()[0].recipients, many);
    scene.end();
}

#[test]
fn fields_that_do_not_fit_into_a_line_are_handed_in() {
    let mut scene = Scene::new("");
    let config = scene.daemon().config().to_owned();
    let fields: Vec<String> = (0..5).map(|number| format!("\"X-Long-{number}: {}\"", "y".repeat(900))).collect();
    let rule = format!("[[rule]]\nname = \"long\"\nthen = {{ add_header = [{}] }}\n", fields.join(", "));
    let text = std::fs::read_to_string(&config).unwrap() + &rule;
    std::fs::write(&config, text).unwrap();
    scene.daemon().signal(rustix::process::Signal::HUP).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while scene.reply(mail(&["b@x"])) == Reply::Ok {
        assert!(std::time::Instant::now() < end, "{}", scene.daemon().log());
    }
    let last = scene.delivered().pop().unwrap();
    let text = String::from_utf8(last.message).unwrap();
    assert!(text.contains(&format!("X-Long-4: {}\n", "y".repeat(900))) && text.contains("X-Checkpost-Mark"), "{text}");
    scene.end();
}

#[test]
fn no_stranger_chooses_who_gets_a_mail_that_is_handed_in() {
    let mut scene = Scene::new("");
    let hostile = b"Received: by mx\nEnvelope-To: <victim1@x>\nSubject: a\rEnvelope-To: <victim2@x>\n\
        ENVELOPE-TO : <victim3@x>,\n <victim4@x>\nReturn-Path: <forged@x>\nEnvelope-Ignore: yes\nBcc: victim5@x\n\r\n\
        Envelope-To: <victim6@x>\n\nEnvelope-To: <in the body>\n";
    let (file, reply) = scene.server.check(Mail::new(&["b@x", "gone@x"], hostile));
    assert_eq!(reply, Reply::Discard);
    let name = scene.server.submitted_at(&file)[0].clone();
    let text = std::fs::read(scene.server.path("Submitted").join(name)).unwrap();
    let sub = Sub::read(&text).unwrap();
    assert_eq!((sub.sender, sub.recipients), (b"s@example.net".to_vec(), vec![b"b@x".to_vec()]));
    let text = String::from_utf8(text).unwrap();
    let (header, body) = text.rsplit_once("\n\n").unwrap();
    assert!(!header.contains("victim1") && !header.contains("victim6") && header.contains("Bcc: victim5"), "{text}");
    assert!(!header.to_lowercase().replace('\r', "\n").contains("\nenvelope-to: <v"), "{text}");
    assert_eq!(body, "Envelope-To: <in the body>\n");
    scene.server.act();
    assert_eq!(scene.delivered().len(), 1);
    scene.end();
}

#[test]
fn a_mark_that_is_not_ours_is_of_no_use() {
    let mut scene = Scene::new("");
    assert_eq!(scene.reply(mail(&["tag@x"])), Reply::Discard);
    let ours = scene.delivered().remove(0).message;
    scene.daemon_is_done_with(1);
    let from = |source: &str, message: &[u8]| Mail { source: source.into(), ..Mail::new(&["no@x"], message) };
    // Whoever has got a marked mail can send it; by SMTP it is nothing to us.
    assert_eq!(scene.reply(from("SMTP [192.0.2.7]", &ours)), Reply::Discard);
    scene.daemon_is_done_with(2);
    // Copied to another content.
    let other = String::from_utf8(ours.clone()).unwrap().replace("body\n.", "other\n.");
    assert_eq!(scene.reply(from("PIPE", other.as_bytes())), Reply::Error("Not for \"you\"".into()));
    // Invented.
    let forged = [b"X-Checkpost-Mark: 1795739000-0123456789abcdef0123456789abcdef\n", MESSAGE].concat();
    assert_eq!(scene.reply(from("PIPE", &forged)), Reply::Error("Not for \"you\"".into()));
    scene.daemon_is_done_with(4);
    scene.end();
}

#[test]
fn a_server_that_changes_what_is_handed_in_does_not_loop() {
    let mut scene = Scene::new("");
    assert_eq!(scene.reply(mail(&["tag@x"])), Reply::Discard);
    for round in 1.. {
        assert!(round <= 3, "it goes round");
        let folder = scene.server.path("Submitted");
        // A body that is not as it was: the mark does not hold.
        for name in scene.server.submitted() {
            let text = std::fs::read_to_string(folder.join(&name)).unwrap().replace("Subject: [TAG] a", "Subject: a");
            std::fs::write(folder.join(&name), text).unwrap();
        }
        let files = scene.server.poll();
        assert_eq!(files.len(), 1);
        scene.server.ask(&files[0]);
        scene.server.settle();
        match scene.server.reply(&files[0]) {
            Reply::Discard => scene.server.act(),
            Reply::Rejected(_) => {
                assert_eq!(round, 2);
                break;
            }
            reply => panic!("{reply:?}"),
        }
    }
    scene.server.hear_note("a loop");
    scene.server.act();
    assert_eq!(scene.server.queued(), 1);
    assert_eq!(scene.server.submitted(), Vec::<String>::new());
    scene.end();
}
