//! What a client says and hears: order, wrong words, wrong content, limits.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::Slicing;
use common::talk::{check, play};
use common::{ENVELOPE, Setup, check_after_envelope, handed_on, mail, nothing, plain};

#[test]
fn all_in_one_write() {
    let words = "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: RCPT TO:<c@x>
        C: DATA
        C: Subject: 1
        C:
        C: ..dot
        C: .
        C: MAIL FROM:<>
        C: RCPT TO:<d@x>
        C: BDAT 8
        C: A: 1
        C:
        C: BDAT 5 LAST
        C: two{CR}{LF}QUIT
        S: 250 2.1.0
        S: 250 2.1.5
        S: 250 2.1.5
        S: 354
        S: 250 2.0.0 taken
        S: 250 2.1.0
        S: 250 2.1.5
        S: 250 2.0.0 8 octets
        S: 250 2.0.0 taken
        S: 221";
    check("pipelined", plain, words, |theatre| {
        let first = mail("a@x", &["b@x", "c@x"], "Subject: 1\r\n\r\n.dot\r\n");
        assert_eq!(handed_on(theatre), [first, mail("", &["d@x"], "A: 1\r\n\r\ntwo\r\n")]);
        assert_eq!(theatre.closing_texts()[0], "b@x: delivered (250 2.0.0 taken), c@x: delivered (250 2.0.0 taken)");
    });
}

#[test]
fn replies_to_recipients_come_in_order() {
    let setup = || {
        Setup::new(
            "next_hop = \"127.0.0.1:10025\"\n[[way.route]]\ndomains = [\"other\"]\nnext_hop = \"127.0.0.1:10026\"\n",
        )
        .hop(|hop| {
            hop.reply("RCPT TO:<no@x>", "550 5.1.1 no such user");
            hop.reply("RCPT TO:<later@x>", "450 4.2.0 later");
        })
    };
    let words = "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: RCPT TO:<no@x>
        C: RCPT TO:<b@other>
        C: RCPT nonsense
        C: RCPT TO:<later@x>
        C: RCPT TO:<c@x>
        C: RCPT TO:<d@x>
        C: RCPT TO:<e@x>
        C: NOOP
        C: DATA
        S: 250 2.1.0
        S: 250 2.1.5
        S: 550 5.1.1 no such user
        S: 452 4.5.3 This recipient
        S: 501
        S: 450 4.2.0 later
        S: 250 2.1.5
        S: 250 2.1.5
        S: 250 2.1.5
        S: 250 2.0.0 Ok
        S: 354
        C: A: 1
        C:
        C: x
        C: .
        S: 250 2.0.0 taken";
    check("order", setup, words, |theatre| {
        assert_eq!(handed_on(theatre), [mail("a@x", &["b@x", "c@x", "d@x", "e@x"], "A: 1\r\n\r\nx\r\n")]);
    });
}

#[test]
fn a_command_behind_an_overlong_recipient_waits_its_turn() {
    let long = format!("RCPT TO:<{}@x>", "y".repeat(13_000));
    let words = format!(
        "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: {long}
        C: DATA
        S: 250 2.1.0
        S: 250 2.1.5
        S: 500 5.5.2
        S: 354
        C: A: 1
        C:
        C: .
        S: 250"
    );
    check("overlong", plain, &words, |theatre| {
        assert_eq!(handed_on(theatre), [mail("a@x", &["b@x"], "A: 1\r\n\r\n")]);
    });
}

#[test]
fn internationalised_mail_goes_only_where_it_is_taken() {
    let words = "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x> SMTPUTF8
        S: 250 2.1.0
        C: RCPT TO:<b@x>
        S: 550 5.6.7
        C: RSET
        S: 250";
    let setup = || plain().hop(|hop| hop.without("SMTPUTF8"));
    check("utf8", setup, words, nothing);
}

#[test]
fn too_many_recipients() {
    let words = "C: RCPT TO:<c@x>
        S: 250
        C: RCPT TO:<d@x>
        S: 452 4.5.3 Too many
        C: DATA
        S: 354
        C: A: 1
        C:
        C: .
        S: 250";
    check_after_envelope(
        "two",
        || Setup::new("max_recipients = 2\n"),
        words,
        |theatre| {
            assert_eq!(handed_on(theatre), [mail("a@x", &["b@x", "c@x"], "A: 1\r\n\r\n")]);
        },
    );
}

#[test]
fn recipients_by_hops_without_pipelining_and_without_ehlo() {
    let words = "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x> SIZE=10 BODY=8BITMIME
        C: RCPT TO:<b@x> NOTIFY=NEVER
        C: RCPT TO:<no@x>
        C: RCPT TO:<c@x>
        C: DATA
        S: 250 2.1.0
        S: 250 2.1.5
        S: 550 5.1.1 no such user
        S: 250 2.1.5
        S: 354
        C: A: 1
        C:
        C: x
        C: .
        C: QUIT
        S: 250 2.0.0 taken
        S: 221";
    let slow = || plain().hop(|hop| hop.reply("RCPT TO:<no@x>", "550 5.1.1 no such user"));
    let got = [mail("a@x", &["b@x", "c@x"], "A: 1\r\n\r\nx\r\n")];
    check(
        "no PIPELINING",
        || slow().hop(|hop| hop.without("PIPELINING")),
        words,
        |theatre| {
            assert_eq!(handed_on(theatre), got);
        },
    );
    check(
        "no EHLO",
        || slow().hop(|hop| hop.extended = false),
        words,
        |theatre| {
            assert_eq!(handed_on(theatre), got);
            let log = theatre.hop.lock().unwrap();
            assert!(log.heard.contains(&"HELO proxy.example".to_owned()), "{:?}", log.heard);
            assert!(log.heard.contains(&"MAIL FROM:<a@x>".to_owned()), "no parameters: {:?}", log.heard);
        },
    );
}

#[test]
fn a_sender_refused_by_the_hop_is_the_answer_to_every_recipient() {
    let refuses = || plain().hop(|hop| hop.reply("MAIL FROM:<bad", "550 5.7.1 not you"));
    let words = "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<bad@x>
        C: RCPT TO:<b@x>
        C: RCPT TO:<c@x>
        C: DATA
        S: 250 2.1.0
        S: 550 5.7.1 not you
        S: 550 5.7.1 not you
        S: 554 5.5.1
        C: RCPT TO:<d@x>
        S: 550 5.7.1 not you
        C: RSET
        C: MAIL FROM:<good@x>
        C: RCPT TO:<b@x>
        S: 250
        S: 250
        S: 250 2.1.5
        C: DATA
        S: 354
        C: A: 1
        C:
        C: .
        S: 250 2.0.0";
    check("sender", refuses, words, |theatre| {
        assert_eq!(handed_on(theatre), [mail("good@x", &["b@x"], "A: 1\r\n\r\n")]);
    });
}

#[test]
fn smuggled_ends_are_refused_and_not_handed_on() {
    for end in [
        "{LF}.{LF}",
        "{LF}.{CR}{LF}",
        "{CR}{LF}.{LF}",
        "{CR}{LF}.{CR}",
        "{CR}.{CR}",
        "{CR}.{CR}{LF}",
        "x{CR}y",
        "x{LF}y",
    ] {
        let words = format!(
            "C: DATA
            S: 354
            C: A: 1
            C:
            C: one{end}MAIL FROM:<evil@x>
            C: .
            C: QUIT
            S: 550 5.5.2
            S: 221"
        );
        check_after_envelope(end, plain, &words, |theatre| {
            nothing(theatre);
            assert!(!theatre.hop.lock().unwrap().heard.iter().any(|line| line.contains("evil")));
        });
    }
    check_after_envelope(
        "BDAT",
        plain,
        "C: BDAT 9 LAST
            C: A: 1{CR}{LF}{LF}.{LF}{NOEND}
            S: 550 5.5.2
            C: NOOP
            S: 250",
        nothing,
    );
    // Normalised, and stuffed anew, for those who are listed.
    let lax = || Setup::new("normalize_newlines = [\"192.0.2.0/24\"]\n");
    check_after_envelope(
        "normalised",
        lax,
        "C: DATA
            S: 354
            C: A: 1{LF}
            C: one{LF}.{LF}MAIL FROM:<evil@x>
            C: .
            C: QUIT
            S: 250 2.0.0 taken
            S: 221",
        |theatre| {
            assert_eq!(handed_on(theatre), [mail("a@x", &["b@x"], "A: 1\r\n\r\none\r\n.\r\nMAIL FROM:<evil@x>\r\n")]);
        },
    );
}

#[test]
fn wrong_words() {
    check(
        "overlong",
        plain,
        &format!(
            "S: 220
        C: EHLO c
        S: 250
        C: NOOP {}
        C: NOOP
        S: 500 5.5.2
        S: 250",
            "x".repeat(13_000)
        ),
        nothing,
    );
    check(
        "bare LF",
        plain,
        "S: 220
        C: EHLO c
        S: 250
        C: NOOP{LF}{NOEND}
        S: 521 5.5.2",
        nothing,
    );
    check(
        "too early",
        plain,
        "S: 220
        C: MAIL FROM:<a@x>
        S: 503
        C: RCPT TO:<a@x>
        S: 503
        C: DATA
        S: 503
        C: LHLO c
        S: 502
        C: STARTTLS
        S: 503
        C: AUTH PLAIN
        S: 502
        C: XCLIENT ADDR=10.0.0.1
        S: 550
        C: XFORWARD ADDR=10.0.0.1
        S: 550
        C: EHLO
        S: 501
        C: BLA
        S: 50",
        nothing,
    );
    check(
        "LMTP",
        || Setup::new("protocol = \"lmtp\"\n"),
        "S: 220
        C: EHLO c
        S: 50
        C: HELO c
        S: 50
        C: LHLO c
        S: 250
        C: MAIL FROM:<a@x>
        S: 250
        C: DATA
        S: 503",
        nothing,
    );
    check(
        "parameters",
        plain,
        "S: 220
        C: HELO c
        S: 250
        C: MAIL FROM:<a@x> SIZE=1
        S: 555
        C: MAIL FROM:<a@x>
        S: 250
        C: RCPT TO:<b@x> NOTIFY=NEVER
        S: 555
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x> REQUIRETLS
        S: 555
        C: MAIL FROM:<a@x> BODY=BINARYMIME
        S: 555
        C: MAIL FROM:<a@x> FOO=1
        S: 555
        C: MAIL FROM:<a@x> SIZE=999999999999
        S: 552
        C: MAIL FROM:<a@x>
        S: 250
        C: RCPT TO:<b@x> FOO=1
        S: 555",
        nothing,
    );
    check_after_envelope(
        "a goodbye does not overtake",
        || Setup::new("max_errors = 1\n"),
        "C: RCPT TO:<c@x>
        C: RCPT bad
        C: RCPT TO:<d@x>
        C: RCPT bad
        C: RCPT TO:<e@x>
        S: 250 2.1.5
        S: 501
        S: 250 2.1.5
        S: 421 4.7.0",
        nothing,
    );
    check(
        "too many mistakes",
        || Setup::new("max_errors = 2\n"),
        "S: 220
        C: X
        C: X
        C: X
        C: NOOP
        S: 50
        S: 50
        S: 421 4.7.0",
        nothing,
    );
}

#[test]
fn chunks_out_of_place() {
    check(
        "octets are skipped",
        plain,
        "S: 220
        C: EHLO c
        S: 250
        C: BDAT 16 LAST
        C: MAIL FROM:<xy>
        C: NOOP
        S: 503
        S: 250",
        nothing,
    );
    check_after_envelope(
        "after the last",
        plain,
        "C: BDAT 8 LAST
        C: A: 1
        C:
        C: BDAT 6 LAST
        C: NOOP
        C: QUIT
        S: 250 2.0.0 taken
        S: 503
        S: 221",
        |theatre| assert_eq!(handed_on(theatre), [mail("a@x", &["b@x"], "A: 1\r\n\r\n")]),
    );
    // Stored chunks of a mail that was given up are no part of the next.
    let small = || {
        let mut setup = plain();
        setup.settings.memory_limit = 4;
        setup
    };
    check_after_envelope(
        "RSET between",
        small,
        "C: BDAT 8
        C: A: 1
        C:
        S: 250
        C: DATA
        S: 503
        C: RSET
        S: 250
        C: MAIL FROM:<a@x>
        C: RCPT TO:<c@x>
        C: BDAT 8 LAST
        C: B: 2
        C:
        S: 250
        S: 250
        S: 250 2.0.0 taken",
        |theatre| assert_eq!(handed_on(theatre), [mail("a@x", &["c@x"], "B: 2\r\n\r\n")]),
    );
}

#[test]
fn hello_within_a_transaction_begins_anew() {
    check_after_envelope(
        "EHLO again",
        plain,
        "C: EHLO c
        S: 250
        C: DATA
        S: 503
        C: MAIL FROM:<a@x>
        C: RCPT TO:<c@x>
        C: DATA
        S: 250 2.1.0
        S: 250 2.1.5
        S: 354
        C: A: 1
        C:
        C: .
        S: 250 2.0.0",
        |theatre| assert_eq!(handed_on(theatre), [mail("a@x", &["c@x"], "A: 1\r\n\r\n")]),
    );
}

#[test]
fn limits_of_content() {
    let content = "C: DATA
        S: 354
        C: Received: 1
        C: Received: 2
        C: Received: 3
        C:
        C: .
        ";
    check_after_envelope("a loop", || Setup::new("max_hops = 2\n"), &format!("{content}S: 554 5.4.6"), nothing);
    check_after_envelope("no loop", || Setup::new("max_hops = 3\n"), &format!("{content}S: 250"), |_| {});
    check_after_envelope("too large", || Setup::new("max_size = \"20 B\"\n"), &format!("{content}S: 552"), nothing);
    let full = || {
        let mut setup = Setup::new("");
        setup.settings.memory_limit = 8;
        setup.disk = 16;
        setup
    };
    let long = format!("C: DATA\nS: 354\n{}C: .\n", "C: Subject: more than the disk holds\n".repeat(9));
    for slicing in [Slicing::Bytes, Slicing::Seeded(7)] {
        let mut theatre = full().sliced(slicing).theatre();
        let again = "C: MAIL FROM:<a@x>\nS: 250\nC: RCPT TO:<b@x>\nS: 250\nC: DATA\nS: 354\nC: A: 1\nC:\nC: .\nS: 250";
        play("disk full", &mut theatre, &format!("{ENVELOPE}{long}S: 452 4.3.1\n{again}"));
        assert_eq!(handed_on(&theatre), [mail("a@x", &["b@x"], "A: 1\r\n\r\n")]);
    }
    let pressed = || {
        let mut setup = plain();
        setup.peer.pressed = Some("Insufficient storage, try again later");
        setup
    };
    check(
        "pressed",
        pressed,
        "S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x>
        S: 452 4.3.1",
        nothing,
    );
    let refused = || {
        let mut setup = plain();
        setup.peer.refuse = Some("Too many connections");
        setup
    };
    check("refused", refused, "S: 421 4.3.2", nothing);
}

#[test]
fn lmtp_hop_behind_smtp_takes_one_recipient() {
    check_after_envelope(
        "one",
        || Setup::new("hop_protocol = \"lmtp\"\n"),
        "C: RCPT TO:<c@x>
        C: DATA
        S: 452 4.5.3 One recipient
        S: 354
        C: A: 1
        C:
        C: .
        S: 250 2.0.0",
        |theatre| assert_eq!(handed_on(theatre), [mail("a@x", &["b@x"], "A: 1\r\n\r\n")]),
    );
}
