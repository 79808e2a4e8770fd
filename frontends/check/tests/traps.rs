//! What a client that is wrong, late, gone or greedy gets, and what the log says of its mail.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::Slicing;
use checkpost_core::{Deferral, Outcome};
use common::Setup;

const HELLO: &str = "checkpost-check 1\0";
const ASK: &str = "check=t 1\0sender=a@x\0recipient=b@x\0content=inline 6\0\0A: 1\n\n";

fn check(octets: &str, answered: &str, closing: Option<&str>) {
    for slicing in Slicing::ALL {
        let (heard, closings) = Setup::new("").sliced(slicing).play_octets(octets.as_bytes(), None);
        let heard = heard.replace(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit(), "#");
        assert!(heard.ends_with(answered), "{octets:?}: {heard}");
        assert_eq!(closings.first().map(|closing| &*closing.text), closing, "{octets:?}: {heard}");
        assert_eq!(closings.len(), usize::from(closing.is_some()), "{octets:?}");
    }
}

#[test]
fn an_answer_counts_when_the_client_says_that_it_is_done() {
    let accepted = "decision=accept|content=same|outcome=deliver #||";
    let ask = format!("{HELLO}{ASK}");
    check(&format!("{ask}done=carried\0\0"), accepted, Some("<b@x>: passed"));
    let failed = Some("<b@x>: deferred (not handed on: the client could not do what it was told)");
    check(&format!("{ask}done=failed disk full\0\0"), accepted, failed);
    let unknown = Some("<b@x>: deferred (handed on, but the answer was lost: may come twice)");
    check(&ask, accepted, unknown);
    check(&format!("{ask}done=well\0\0"), "error=done=well: not understood||", unknown);
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    check("GET / HTTP/1.0\r\n", "error=this is the check socket, which speaks \"checkpost-check #\"||", None);
    check("checkpost-check 2\0", "error=this is the check socket, which speaks \"checkpost-check #\"||", None);
    check(&format!("{HELLO}\0"), "error=sender is missing||", None);
    check(&format!("{HELLO}check=x\0sender=\0recipient=a\0\0"), "error=content is missing||", None);
    check(
        &format!("{HELLO}check=x\0sender=\0recipient=a\0content=descriptor\0\0"),
        "error=no descriptor came with the request||",
        Some("<a>: deferred (not handed on: its content could not be had)"),
    );
    // Half a request, then nothing.
    check(&format!("{HELLO}check=x\0sender="), "", None);
    check("checkpost-ch", "", None);
    let gone = Some("<b@x>: deferred (not handed on: the client was gone before it had our answer)");
    check(&format!("{HELLO}{}", ASK.trim_end()), "", gone);
}

#[test]
fn what_is_refused_at_once_is_read_to_its_end() {
    let small = ASK.replace("inline 6\0\0A: 1\n\n", "inline 1\0\0A");
    let both = format!("{HELLO}{ASK}done=carried\0\0{small}done=carried\0\0");
    for slicing in Slicing::ALL {
        let setup = Setup::new("max_size = \"5 B\"").sliced(slicing);
        let (heard, closings) = setup.play_octets(both.as_bytes(), None);
        assert!(heard.contains("|decision=reject 552 5.3.4 Message too large||answer="), "{heard}");
        assert!(heard.ends_with("|decision=accept|content=same|outcome=deliver 0||"), "{heard}");
        assert_eq!(closings.len(), 2);
    }
    let mut many = Setup::new("max_recipients = 1");
    many.slicing = Slicing::Bytes;
    let two = ASK.replace("recipient", "recipient=c@x\0recipient");
    let (heard, closings) = many.play_octets(format!("{HELLO}{two}").as_bytes(), None);
    assert!(heard.contains("|decision=defer 451 4.5.3 Too many recipients||"), "{heard}");
    assert!(closings[0].text.starts_with("<c@x>: "), "{closings:?}");
    let mut low = Setup::new("");
    low.link.refuse = Some("Insufficient storage");
    let (heard, _) = low.play_octets(format!("{HELLO}{ASK}").as_bytes(), None);
    assert!(heard.contains("|decision=defer 451 4.3.2 Insufficient storage||"), "{heard}");
}

#[test]
fn a_descriptor_is_taken_within_the_limit() {
    let ask = "check=t 1\0sender=\0recipient=b@x\0content=descriptor\0\0";
    let both = format!("{HELLO}{ask}done=carried\0\0{ASK}done=carried\0\0");
    let (heard, closings) = Setup::new("max_size = \"8 B\"").play_octets(both.as_bytes(), Some(b"A: 1\n\nbody\n"));
    assert!(heard.contains("|decision=reject 552 5.3.4 Message too large||answer="), "{heard}");
    assert!(heard.ends_with("|decision=accept|content=same|outcome=deliver 0||"), "{heard}");
    assert_eq!(closings.len(), 2, "the connection goes on: the descriptor was taken");
}

#[test]
fn a_content_above_the_memory_limit_goes_to_the_disk_or_is_put_off() {
    let body = "x\n".repeat(1000);
    let ask = format!("{HELLO}check=t 1\0sender=\0recipient=b@x\0content=inline {}\0\0{body}", body.len());
    for (disk, slicing) in [(usize::MAX, Slicing::Whole), (usize::MAX, Slicing::Bytes), (700, Slicing::Seeded(3))] {
        let mut setup = Setup::new("").sliced(slicing);
        setup.link.memory_limit = 500;
        setup.disk = disk;
        let (heard, closings) = setup.play_octets(ask.as_bytes(), None);
        let wanted = if disk == 700 { "|decision=defer 451 4.3.1 Insufficient storage" } else { "|decision=accept" };
        assert!(heard.contains(wanted), "{heard}");
        assert_eq!(closings.len(), 1);
    }
}

#[test]
fn a_list_is_bounded_and_so_is_what_all_lists_hold() {
    let long = format!("{HELLO}check=t 1\0sender={}", "x".repeat(80 << 10));
    let (heard, _) = Setup::new("max_recipients = 1").play_octets(long.as_bytes(), None);
    assert!(heard.ends_with("|error=a list of more than 66636 octets||"), "{heard}");
    let setup = Setup::new("");
    let taken: Vec<_> = (0..1024).map(|_| setup.link.lists.enter(1024).unwrap()).collect();
    let (heard, _) = setup.play_octets(long.as_bytes(), None);
    assert!(heard.ends_with("|error=too many long envelopes at once, try again later||"), "{heard}");
    drop(taken);
}

#[test]
fn edits_keep_the_line_ends_of_the_mail() {
    let tagged = || {
        let tag = checkpost_core::edit::HeaderText::new("[SPAM]").unwrap();
        Outcome { edits: vec![checkpost_core::Edit::TagSubject(tag)].into(), ..Outcome::deliver() }
    };
    for (mail, wanted) in [
        ("Subject: a\n\nx\n", "content=pieces|put=18|keep=11 3|outcome=deliver 0||Subject: [SPAM] a\n"),
        ("Subject: a\r\n\r\nx\r\n", "content=pieces|put=19|keep=12 5|outcome=deliver 0||Subject: [SPAM] a\r\n"),
        ("no header", "content=pieces|put=16|keep=0 9|outcome=deliver 0||Subject: [SPAM]\n"),
    ] {
        let length = mail.len();
        let ask = format!("{HELLO}check=t\0sender=\0recipient=b\0can=edit-headers\0content=inline {length}\0\0{mail}");
        let (heard, _) = Setup::new("").judged(move |_| vec![tagged()]).play_octets(ask.as_bytes(), None);
        assert!(heard.ends_with(wanted), "{heard:?}");
    }
}

#[test]
fn what_the_client_cannot_do_is_not_asked_of_it() {
    let later = Outcome::defer(Deferral::lossy(7, 1, "later"), "rule");
    let ask = "check=t\0sender=a@x\0recipient=b@x\0recipient=c@x\0content=inline 0\0\0";
    let outcomes = move |_: &checkpost_core::Mail| vec![Outcome::deliver(), later.clone()];
    let (heard, closings) = Setup::new("").judged(outcomes).play_octets(format!("{HELLO}{ask}").as_bytes(), None);
    assert!(heard.contains("|decision=defer 451 4.7.1 later||"), "{heard}");
    assert_eq!(closings.len(), 1);
}
