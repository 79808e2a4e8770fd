//! The daemon's answers: refusals in every qmail's way, contents and envelopes that change, bounces.

use checkpost_tests::qmail::{Flavour, TextFd};
use checkpost_tests::{Skip, skip};

use super::*;

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
    for (uid, sender, recipient, message, wanted) in [
        // Taken, kept in quarantine, and nobody is told.
        (65_534, "", "b@x", &infected, "250 ok"),
        (65_534, "#@[]", "b@x", &infected, "250 ok"),
        (65_534, "", "no@x", &mail(), "250 ok"),
        (65_534, "", "later@x", &mail(), "451 Not now"),
        (65_534, "s@x", "b@x", &infected, "554 Message contains malware"),
        (65_533, "", "b@x", &infected, "554 Message contains malware"),
    ] {
        caller.uid = Some(uid);
        let left = caller.deliver(message, &envelope(sender.as_bytes(), &[recipient.as_bytes()]));
        assert!(left.reply.starts_with(wanted), "{uid} {sender:?}: {left:?}");
        assert_eq!(scene.home.started(), 0);
    }
}
