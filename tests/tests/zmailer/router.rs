//! Before a real ZMailer's router: mail of every origin, with what it means that its sender is not in a session any more.

use std::fs;
use std::os::unix::fs::MetadataExt;

use checkpost_tests::mails;
use checkpost_zmailer::setup;

use crate::cases::{ALICE, BOB, SENDER, Server, body, mail, message};
use crate::real::{Scene, scene};

const ROUTER: &str = "/var/spool/postoffice/router";
const FREEZER: &str = "/var/spool/postoffice/freezer";

fn submit(scene: &Scene, from: &str, to: &[&str], text: &str) {
    let output = scene.root.submit(from, to, text.as_bytes()).unwrap();
    assert!(output.status.success(), "{output:?} {}", scene.said());
}

/// Who got it.
fn users(delivered: &[(String, String)]) -> Vec<&str> {
    let mut users: Vec<&str> = delivered.iter().map(|(user, _)| &**user).collect();
    users.sort_unstable();
    users
}

/// Files of mails in a folder.
fn files(scene: &Scene, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(scene.root.path(folder)).unwrap().flatten();
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Puts a file of root's into the router's folder, under its own number.
fn drop_in(scene: &Scene, text: &str) -> String {
    let public = scene.root.path("/var/spool/postoffice/public/test");
    fs::write(&public, text).unwrap();
    let number = fs::metadata(&public).unwrap().ino().to_string();
    fs::rename(&public, scene.root.path(ROUTER).join(&number)).unwrap();
    number
}

#[test]
fn mail_of_every_origin_is_asked_about_and_changed() {
    let Some(scene) = scene(Some(2)) else { return };
    let both = [ALICE, BOB];
    // From a stranger, from a local program, with and without recipients of its own.
    assert_eq!(scene.session(&[mail("clean", &both)]), ["250 2.0.0 accepted"]);
    assert_eq!(users(&scene.delivered(2)), ["alice", "bob"], "{}", scene.said());
    submit(&scene, BOB, &[ALICE], &message("clean", "from bob"));
    let delivered = scene.delivered(1);
    assert_eq!((users(&delivered), body(&delivered[0].1)), (vec!["alice"], "from bob"));
    let log = scene.daemon.as_ref().unwrap().log();
    assert!(log.contains("origin=submission") && log.contains("origin=inbound client=203.0.113.5"), "{log}");

    submit(&scene, BOB, &both, &message("new body", "text"));
    let changed = scene.delivered(2);
    assert_eq!(users(&changed), ["alice", "bob"], "{}", scene.said());
    for (_, text) in &changed {
        assert_eq!(body(text), "It was taken away.");
        assert!(!text.contains("checkpost-mark"), "the mark leaves with the envelope: {text}");
    }
    // Once each: what was handed in again is known.
    assert_eq!(scene.daemon.as_ref().unwrap().log().matches("new body").count(), 0);

    submit(&scene, BOB, &both, &message("not for bob", "text"));
    assert_eq!(users(&scene.delivered(1)), ["alice"], "{}", scene.said());
    submit(&scene, BOB, &[ALICE], &message("copy to bob", "text"));
    assert_eq!(users(&scene.delivered(2)), ["alice", "bob"], "{}", scene.said());
    submit(&scene, SENDER, &both, &message("bob's field", "text"));
    for (user, text) in scene.delivered(2) {
        assert_eq!(text.contains("X-Checked: for bob\n"), user == "bob", "{user}: {text}");
    }
    // Nobody in the envelope: those of the header.
    scene.shell("printf 'From: bob@example.test\\nTo: alice@example.test\\nCc: bob@example.test\\nSubject: not for bob\\n\\ntext\\n' | /usr/sbin/sendmail -t");
    assert_eq!(users(&scene.delivered(1)), ["alice"], "{}", scene.said());
    assert_eq!((files(&scene, ROUTER), files(&scene, FREEZER)), (vec![], vec![]));
}

#[test]
fn a_refusal_behind_the_queue_is_a_report_or_a_copy() {
    let Some(scene) = scene(Some(2)) else { return };
    submit(&scene, ALICE, &[BOB], &message("no thanks", "text"));
    let reports = scene.delivered(1);
    assert_eq!(users(&reports), ["alice"], "{}", scene.said());
    let report = &reports[0].1;
    for part in [
        "auto-replied\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Final-Recipient: rfc822; bob@example.test\nAction: failed\nStatus: 5.7.12\nDiagnostic-Code: smtp; 550 5.7.12 No thanks\n",
        "Subject: no thanks\n",
    ] {
        assert!(report.contains(part), "{part:?}: {report}");
    }
    assert!(!report.contains("\ntext\n"), "the header and no more: {report}");
    // A stranger may be forged, and malware is nobody's business: a copy, and no report.
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), ["250 2.0.0 accepted"]);
    submit(&scene, ALICE, &[BOB], &message("x", &String::from_utf8(mails::eicar()).unwrap()));
    submit(&scene, ALICE, &[BOB], &message("for nobody", "text"));
    scene.wait("all three", || scene.daemon.as_ref().unwrap().log().matches("mail done").count() >= 4);
    assert_eq!(scene.delivered(0), [], "{}", scene.said());
    let log = scene.daemon.as_ref().unwrap().log();
    assert_eq!(log.matches("quarantined").count(), 2, "{log}");
    // ZMailer's own report of an unknown recipient is asked about, as all else, and passes.
    submit(&scene, ALICE, &["nobody-here@example.test"], &message("clean", "text"));
    let reports = scene.delivered(1);
    assert_eq!(users(&reports), ["alice"], "{}", scene.said());
    assert!(scene.daemon.as_ref().unwrap().log().contains("origin=internal"), "{}", scene.said());
}

#[test]
fn held_mail_is_released_once() {
    let Some(scene) = scene(Some(2)) else { return };
    submit(&scene, BOB, &[ALICE], &message("look at it", "text"));
    scene.wait("a held mail", || !files(&scene, FREEZER).is_empty());
    assert_eq!(scene.delivered(0), []);
    let held = files(&scene, FREEZER).remove(0);
    assert!(held.ends_with("checkpost"), "{held}");
    // Put back by hand it is held again.
    scene.shell(&format!("cd {FREEZER}; mv {held} ../router/{}", held.trim_end_matches("checkpost")));
    scene.wait("it again", || !files(&scene, FREEZER).is_empty());
    let held = files(&scene, FREEZER).remove(0);
    scene.shell(&format!("checkpost-zmailer release {held}"));
    assert_eq!(users(&scene.delivered(1)), ["alice"], "{}", scene.said());
    assert_eq!(files(&scene, FREEZER), [""; 0]);
    // Nobody else can say that a mail was checked.
    let forged = "comment checkpost-mark 1795739000-0123456789abcdef0123456789abcdef\n";
    drop_in(&scene, &format!("{forged}from <{SENDER}>\nto <{ALICE}>\nenv-end\n{}", message("look at it", "text")));
    scene.wait("a held mail", || !files(&scene, FREEZER).is_empty());
    // What is no spool file is held, too.
    scene.frozen();
    drop_in(&scene, &format!("to <{ALICE}>\n and more\nenv-end\n{}", message("clean", "text")));
    scene.wait("a held file", || !files(&scene, FREEZER).is_empty());
    assert_eq!(scene.delivered(0), [], "{}", scene.said());
}

#[test]
fn what_cannot_be_asked_about_waits() {
    let Some(mut scene) = scene(Some(2)) else { return };
    let waits = |scene: &Scene, times: usize| {
        let log = || fs::read_to_string(scene.root.path("/var/log/mail/router")).unwrap_or_default();
        let before = log().matches("mail has to wait").count();
        scene.wait("more tries", || log().matches("mail has to wait").count() >= before + times);
        assert_eq!((scene.mailbox("alice").len(), files(scene, ROUTER).len()), (0, 1), "{}", scene.said());
    };
    scene.daemon.take().unwrap().kill().unwrap();
    submit(&scene, BOB, &[ALICE], &message("clean", "text"));
    // The router tries about every eleven seconds.
    waits(&scene, 2);
    scene.start_daemon();
    assert_eq!(users(&scene.delivered(1)), ["alice"], "{}", scene.said());
    // Put off by a rule: the same, until its time is over.
    submit(&scene, BOB, &[ALICE], &message("come later", "text"));
    waits(&scene, 1);
    scene.shell(&format!("touch -d '6 days ago' {ROUTER}/[0-9]*"));
    scene.wait("a held mail", || files(&scene, FREEZER).len() == 1);
    assert!(scene.said().contains("mail held in the freezer: put off for"), "{}", scene.said());
    scene.frozen();
    // Without the program at all.
    scene.shell("mv /usr/bin/checkpost-zmailer /usr/bin/gone");
    submit(&scene, BOB, &[ALICE], &message("clean", "text"));
    let log = || fs::read_to_string(scene.root.path("/var/log/mail/router")).unwrap_or_default();
    scene.wait("two tries", || log().matches("not found").count() >= 2);
    assert_eq!(scene.mailbox("alice").len(), 0, "{}", scene.said());
    scene.shell("mv /usr/bin/gone /usr/bin/checkpost-zmailer");
    assert_eq!(users(&scene.delivered(1)), ["alice"], "{}", scene.said());
}

/// The router at times loses an exit code. Many files, each asked about again and again, and none may pass.
#[test]
fn no_mail_slips_past_a_router_that_loses_exit_codes() {
    let Some(mut scene) = scene(Some(2)) else { return };
    scene.daemon.take().unwrap().kill().unwrap();
    for _ in 0..60 {
        drop_in(&scene, &format!("from <{SENDER}>\nto <{ALICE}>\nenv-end\n{}", message("clean", "text")));
    }
    let log = || fs::read_to_string(scene.root.path("/var/log/mail/router")).unwrap_or_default();
    scene.wait("180 tries", || log().matches("mail has to wait").count() >= 180);
    assert_eq!((scene.mailbox("alice").len(), files(&scene, ROUTER).len()), (0, 60), "{}", scene.said());
    scene.start_daemon();
    // ZMailer's scheduler may miss the word of one and come to it a minute later.
    scene.wait("60 mails", || files(&scene, ROUTER).is_empty() && scene.mailbox("alice").len() + scene.queued() == 60);
}

#[test]
fn the_recipe_can_be_taken_back() {
    let Some(scene) = scene(Some(2)) else { return };
    let plan = setup::plans().remove(2);
    let file = "/opt/zmailer/share/cf/process.cf";
    let read = |file: &str| fs::read_to_string(scene.root.path(file)).unwrap();
    assert!(read(file).contains("# checkpost begin"));
    for undo in plan.steps.iter().rev().filter_map(|step| step.undo.as_ref()) {
        scene.shell(undo);
    }
    assert_eq!(read(file), read(&format!("{file}.before-checkpost")));
    submit(&scene, BOB, &[ALICE], &message("look at it", "text"));
    assert_eq!(users(&scene.delivered(1)), ["alice"], "nobody asks any more: {}", scene.said());
}
