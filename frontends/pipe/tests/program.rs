//! The program itself between a stand-in for the daemon and one for the mail server's own program, which writes down what it
//! is given.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use checkpost_client::fake::{Said, listen};
use checkpost_wire::check::{Answer, Content, Decision, Form, Outcome, Response};

const MAIL: &str = "Subject: x\n\n.\nFrom x\nGr\u{fc}\u{df}e\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// The mail server's program does `then` when it has written down the call.
    fn new(then: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let path = place.folder.path().display().to_string();
        let script = format!(
            "#!/bin/sh\nn=$(ls {path}/calls | wc -l)\nmkdir {path}/calls/$n\nfor word in \"$@\"; do echo \"$word\"; done \
             >{path}/calls/$n/words\nenv >{path}/calls/$n/env\nls /proc/self/fd >{path}/calls/$n/open\n{then}\n"
        );
        fs::create_dir(place.folder.path().join("calls")).unwrap();
        let program = place.folder.path().join("mta");
        fs::write(&program, script.replace("$IN", &format!("{path}/calls/$n/mail"))).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        place.settings("");
        place
    }

    fn settings(&self, more: &str) {
        let path = self.folder.path().display();
        let text = format!(
            "socket = {path}/sock\nexim = {path}/mta\nsendmail = {path}/mta\nspool = {path}\ncheck_time = 5s\n{more}"
        );
        fs::write(self.folder.path().join("pipe.conf"), text).unwrap();
    }

    fn answers(&self, decision: Decision, outcomes: &[Outcome], contents: &[Content], changed: Option<&str>) {
        let answer = Answer { id: "T1".into(), decision, outcomes: outcomes.to_vec(), contents: contents.to_vec() };
        let changed = changed.map(|changed| changed.as_bytes().to_vec());
        listen(&self.folder.path().join("sock"), move |_| {
            let response = Response::Answer(answer.clone());
            match &changed {
                Some(changed) => Said::Changed(response, changed.clone()),
                None => Said::Response(response),
            }
        });
    }

    /// Exit code and what it said.
    fn run(&self, words: &[&str], input: &[u8]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_checkpost-pipe"));
        command.arg("--config").arg(self.folder.path().join("pipe.conf")).args(words).env("MAIL_CONFIG", "/x");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // It may end before it has read all.
        let _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    fn postfix(&self, recipients: &[&str]) -> (i32, String) {
        self.run(&[&["postfix", "-f", "", "--"], recipients].concat(), MAIL.as_bytes())
    }

    fn calls(&self) -> usize {
        fs::read_dir(self.folder.path().join("calls")).unwrap().count()
    }

    fn call(&self, number: usize, what: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("calls/{number}/{what}"))).unwrap()
    }
}

fn same() -> Content {
    Content { form: Form::Same, sender: None, added: Vec::new() }
}

fn deliver() -> Outcome {
    Outcome::Deliver(0)
}

#[test]
fn a_clean_mail_is_handed_back_as_it_came() {
    let place = Place::new("cat >$IN");
    place.answers(Decision::Accept, &[deliver(), deliver()], &[same()], None);
    assert_eq!(place.postfix(&["-x@a.b", "b@c.d"]), (0, String::new()));
    assert_eq!(place.call(0, "words"), "-G\n-i\n-f\n<>\n--\n<-x@a.b>\n<b@c.d>\n");
    assert_eq!(place.call(0, "mail"), MAIL);
    assert!(!place.call(0, "env").contains("MAIL_CONFIG"));
    // Standard input, output and error, and the listing.
    assert_eq!(place.call(0, "open").lines().count(), 4, "{}", place.call(0, "open"));

    let batch = format!(
        "XFORWARD ADDR=192.0.2.7 IDENT=1x PROTO=esmtp\nMAIL FROM:<s@x>\nRCPT TO:<a@b>\nRCPT TO:<c@d>\nDATA\n{}.\n",
        MAIL.replace("\n.\n", "\n..\n")
    );
    // root is trusted; whoever else runs this test says that Exim is himself.
    let user = rustix::process::geteuid().as_raw().to_string();
    assert_eq!(place.run(&["exim", "--exim-uid", &user, "--caller-uid", "0"], batch.as_bytes()), (0, String::new()));
    assert_eq!(
        place.call(1, "words"),
        "-oMr\ncheckpost\n-oi\n-bnq\n-oep\n-oMa\n192.0.2.7\n-f\n<s@x>\n--\n<a@b>\n<c@d>\n"
    );
    assert_eq!(place.call(1, "mail"), MAIL);
}

#[test]
fn a_large_mail_leaves_nothing_behind() {
    let place = Place::new("cat >$IN");
    place.answers(Decision::Accept, &[deliver()], &[same()], None);
    let mail = "a line of a large mail\n".repeat(200_000);
    assert_eq!(place.run(&["postfix", "-f", "s@x", "--", "a@b"], mail.as_bytes()), (0, String::new()));
    assert!(place.call(0, "mail") == mail);
    let mut left: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["calls", "mta", "pipe.conf", "sock"]);
}

#[test]
fn several_contents_go_in_their_order() {
    let place = Place::new("cat >$IN");
    let changed = Content { form: Form::Descriptor, sender: Some("new@x".into()), added: vec!["d@x".into()] };
    let outcomes = [Outcome::Deliver(1), Outcome::Discard, deliver()];
    place.answers(Decision::Accept, &outcomes, &[same(), changed], Some("another\n"));
    assert_eq!(place.postfix(&["a@x", "b@x", "c@x"]), (0, String::new()));
    assert_eq!(
        (place.call(0, "words").as_str(), place.call(0, "mail").as_str()),
        ("-G\n-i\n-f\n<>\n--\n<c@x>\n", MAIL)
    );
    let words = "-G\n-i\n-f\n<new@x>\n--\n<a@x>\n<d@x>\n";
    assert_eq!((place.call(1, "words").as_str(), place.call(1, "mail").as_str()), (words, "another\n"));
}

#[test]
fn what_fails_half_way_stays_in_the_queue() {
    let place = Place::new("cat >$IN; [ $n = 0 ] || { echo no room >&2; exit 69; }");
    let changed = Content { form: Form::Descriptor, ..same() };
    place.answers(Decision::Accept, &[deliver(), Outcome::Deliver(1)], &[same(), changed], Some("another\n"));
    let (code, said) = place.postfix(&["a@x", "b@x"]);
    // Not its code: 69 would be a bounce.
    assert_eq!(code, 75);
    assert!(said.contains("did not take the mail back (exit status: 69): no room"), "{said}");
    assert!(said.contains("number 2 of 2 contents; those before it are on their way"), "{said}");
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn refusals_are_told_and_discards_are_not() {
    let place = Place::new("cat >$IN");
    place.answers(Decision::Reject("550 5.7.1 Message contains malware (X)".into()), &[], &[], None);
    assert_eq!(place.postfix(&["a@x"]), (77, "5.7.1 Message contains malware (X)\n".into()));
    let place = Place::new("cat >$IN");
    place.answers(Decision::Defer("451 4.7.1 Later".into()), &[], &[], None);
    assert_eq!(place.postfix(&["a@x"]), (75, "4.7.1 Later\n".into()));
    let place = Place::new("cat >$IN");
    place.answers(Decision::Accept, &[Outcome::Quarantine], &[], None);
    assert_eq!(place.postfix(&["a@x"]), (0, String::new()));
    assert_eq!(place.calls(), 0);
}

/// Nothing of this is a bounce, and nothing is handed back.
#[test]
fn whatever_goes_wrong_keeps_the_mail_in_the_queue() {
    let check = |place: &Place, words: &[&str], input: &[u8], expected: &str| {
        let (code, said) = place.run(words, input);
        assert_eq!(code, 75, "{said}");
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
        assert_eq!(place.calls(), 0, "{said}");
    };
    let postfix = ["postfix", "-f", "s@x", "--", "a@b"];
    let place = Place::new("cat >$IN");
    check(&place, &postfix, MAIL.as_bytes(), "not checked: ");
    check(&place, &["sendmail"], b"", "wrong arguments: \"sendmail\"");
    check(&place, &["exim", "--exim-uid", "0"], MAIL.as_bytes(), "not batched SMTP: \"Subject: x\"");
    let ours = format!("Received: by x (Postfix, from userid {})\n{MAIL}", rustix::process::geteuid().as_raw());
    check(&place, &postfix, ours.as_bytes(), "came again: content_filter must not hold");
    let again = b"XFORWARD PROTO=checkpost\nMAIL FROM:<>\nRCPT TO:<a@b>\nDATA\nx\n.\n";
    check(&place, &["exim"], again, "came again: the router must have condition");
    place.settings("spool = relative\n");
    check(&place, &postfix, MAIL.as_bytes(), "spool: set twice");
    for said in [Said::Nothing, Said::Octets(b"nonsense".to_vec()), Said::Response(Response::Error("busy".into()))] {
        let place = Place::new("cat >$IN");
        listen(&place.folder.path().join("sock"), move |_| said.clone());
        check(&place, &postfix, MAIL.as_bytes(), "not checked: ");
    }
    let place = Place::new("cat >$IN");
    place.answers(Decision::Accept, &[deliver(), deliver()], &[same()], None);
    check(&place, &postfix, MAIL.as_bytes(), "not checked: ");
    let place = Place::new("cat >$IN");
    place.answers(Decision::Accept, &[deliver()], &[same()], None);
    fs::remove_file(place.folder.path().join("mta")).unwrap();
    check(&place, &postfix, MAIL.as_bytes(), "No such file or directory");
}

/// The mail server's program ends without reading: no signal ends us, and it counts for what it says.
#[test]
fn a_program_that_does_not_read_is_heard() {
    let place = Place::new("exit 1");
    place.answers(Decision::Accept, &[deliver()], &[same()], None);
    let mail = "a line of a large mail\n".repeat(200_000);
    let (code, said) = place.run(&["postfix", "-f", "s@x", "--", "a@b"], mail.as_bytes());
    assert_eq!(code, 75);
    assert!(said.contains("(exit status: 1)"), "{said}");
}

#[test]
fn without_a_daemon_mail_passes_only_if_it_is_told_to() {
    let place = Place::new("cat >$IN");
    place.settings("when_down = pass\n");
    let (code, said) = place.postfix(&["a@x"]);
    assert_eq!((code, place.call(0, "mail").as_str()), (0, MAIL));
    assert!(said.starts_with("passed without a check: no connection"), "{said}");
    // Who answers, and cannot check it, is not down.
    listen(&place.folder.path().join("sock"), |_| Said::Response(Response::Error("busy".into())));
    assert_eq!(place.postfix(&["a@x"]).0, 75);
}
