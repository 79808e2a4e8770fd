//! What belongs to a connection rather than to a mail: TLS, who the client is, AUTH, silence, draining, an end
//! that comes too early.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use checkpost_adapter::conformance::{Does, Slicing, Then};
use checkpost_core::OriginClass;
use common::client::{Scripted, Turn};
use common::talk::{check, play, play_until};
use common::{ENVELOPE, Setup, Theatre, handed_on, nothing, plain};

#[test]
fn tls_forgets_what_came_before() {
    let secure = || {
        let mut setup = plain();
        setup.settings.starttls = true;
        setup
    };
    check(
        "STARTTLS",
        secure,
        "S: 220
        C: EHLO c
        S: 250
        C: STARTTLS
        S: 220
        C: MAIL FROM:<a@x>
        S: 503
        C: EHLO c
        S: 250
        C: STARTTLS
        S: 503
        C: MAIL FROM:<a@x>
        S: 250",
        |_| {},
    );
    let submission = || {
        let mut setup = Setup::new("auth = true\nauth_without_tls = true\n").hop(|hop| {
            hop.with("AUTH PLAIN");
            hop.reply("AUTH", "235 2.7.0 welcome");
        });
        setup.settings.starttls = true;
        setup
    };
    check(
        "user",
        submission,
        "S: 220
        C: EHLO c
        S: 250
        C: AUTH PLAIN AGpvZQBzZWNyZXQ=
        S: 235
        C: STARTTLS
        S: 220
        C: EHLO c
        S: 250
        C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: DATA
        S: 250
        S: 250
        S: 354
        C: A: 1
        C:
        C: .
        S: 250",
        |theatre| assert_eq!(theatre.closings.lock().unwrap()[0].origin.user, None),
    );
    // In one piece the session throws it away; byte by byte the handshake fails on it.
    for slicing in Slicing::ALL {
        let mut theatre = secure().sliced(slicing).theatre();
        let end = if slicing == Slicing::Whole { "C: NOOP\nS: 250\n" } else { "" };
        play(
            "injection",
            &mut theatre,
            &format!(
                "S: 220
            C: EHLO c
            S: 250
            C: STARTTLS
            C: VRFY injected
            S: 220
            {end}"
            ),
        );
    }
}

#[test]
fn who_the_client_is() {
    let class = |theatre: &Theatre| theatre.closings.lock().unwrap().last().unwrap().origin.clone();
    let send = "C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: DATA
        S: 250
        S: 250
        S: 354
        C: A: 1
        C:
        C: .
        S: 250 2.0.0
        ";
    let trusted = || Setup::new("trusted = [\"192.0.2.1/32\"]\n").hop(|hop| hop.with("XFORWARD NAME ADDR HELO"));
    let words = format!(
        "S: 220
        C: EHLO c
        S: 250
        C: XFORWARD NAME=mx.example ADDR=198.51.100.7 HELO=them
        S: 250
        {send}{send}"
    );
    check("XFORWARD", trusted, &words, |theatre| {
        let closings = theatre.closings.lock().unwrap();
        assert_eq!(closings[0].origin.client, Some("198.51.100.7".parse().unwrap()));
        assert_eq!(closings[0].origin.client_name.as_deref(), Some("mx.example"));
        assert_eq!(closings[1].origin.client, Some("192.0.2.1".parse().unwrap()), "for one mail only");
        let log = theatre.hop.lock().unwrap();
        assert!(log.heard.iter().any(|line| line.starts_with("XFORWARD") && line.contains("ADDR=198.51.100.7")));
    });
    check(
        "XCLIENT",
        trusted,
        &format!(
            "S: 220
        C: EHLO c
        S: 250
        C: XCLIENT ADDR=198.51.100.7 LOGIN=joe
        S: 220
        C: EHLO them
        S: 250
        {send}"
        ),
        |theatre| {
            let origin = class(theatre);
            assert_eq!((origin.client, origin.user.as_deref()), (Some("198.51.100.7".parse().unwrap()), Some("joe")));
            assert_eq!(origin.class, OriginClass::Submission);
        },
    );
    let proxied = || Setup::new("trusted = [\"192.0.2.1/32\"]\nproxy_protocol = true\n");
    check(
        "PROXY v1",
        proxied,
        &format!(
            "C: PROXY TCP4 198.51.100.9 192.0.2.2 5000 25
        S: 220
        C: EHLO c
        S: 250
        C: XCLIENT ADDR=10.0.0.1
        S: 550
        {send}"
        ),
        |theatre| assert_eq!(class(theatre).client, Some("198.51.100.9".parse().unwrap())),
    );
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([198, 51, 100, 10, 192, 0, 2, 2, 0x13, 0x88, 0, 25]);
    for slicing in Slicing::ALL {
        let mut theatre = proxied().sliced(slicing).theatre();
        let turns = [
            Turn { does: Does::say(&header), replies: 1 },
            Turn {
                does: Does::say("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nA: 1\r\n\r\n.\r\n"),
                replies: 5,
            },
        ];
        let (client, heard) = Scripted::new(turns, 0, Then::Finish);
        theatre.play(client);
        assert_eq!(heard.lock().unwrap().replies.last().unwrap().code, 250);
        assert_eq!(class(&theatre).client, Some("198.51.100.10".parse().unwrap()));
    }
    check("no PROXY", proxied, "C: EHLO c", nothing);
}

#[test]
fn auth_is_relayed_and_names_the_user() {
    let offers = |reply: &'static str| {
        move || {
            Setup::new("auth = true\nauth_without_tls = true\n").hop(|hop| {
                hop.with("AUTH PLAIN LOGIN");
                hop.reply("AUTH PLAIN AGpvZQBzZWNyZXQ=", reply);
                hop.reply("AUTH", "334 ");
                hop.reply("am9l", "334 UGFzc3dvcmQ6");
                hop.reply("AGpvZQBzZWNyZXQ=", reply);
                hop.reply("c2VjcmV0", reply);
                hop.reply("*", "501 5.7.0 cancelled");
            })
        }
    };
    let send = "C: MAIL FROM:<a@x>
        C: RCPT TO:<b@x>
        C: DATA
        S: 250
        S: 250
        S: 354
        C: A: 1
        C:
        C: .
        S: 250 2.0.0
        ";
    let user = |theatre: &Theatre| theatre.closings.lock().unwrap().last().unwrap().origin.user.clone();
    let exchanges = [
        ("initial", "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 235\n"),
        ("plain", "C: AUTH PLAIN\nS: 334\nC: AGpvZQBzZWNyZXQ=\nS: 235\n"),
        ("login", "C: AUTH LOGIN\nS: 334\nC: am9l\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\nS: 235\n"),
    ];
    for (name, exchange) in exchanges {
        let words = format!("S: 220\nC: EHLO c\nS: 250\n{exchange}{send}{send}");
        check(name, offers("235 2.7.0 welcome"), &words, |theatre| {
            assert_eq!(user(theatre).as_deref(), Some("joe"));
            assert_eq!(theatre.hop.lock().unwrap().connections, 2, "one for EHLO, one for this client alone");
        });
    }
    let failed = [
        ("refused", "535 5.7.8 no", "C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 535\n"),
        ("cancelled", "235 welcome", "C: AUTH LOGIN\nS: 334\nC: *\nS: 501 5.7.0 cancelled\n"),
        ("lost", "gone", "C: AUTH PLAIN\nS: 334\nC: AGpvZQBzZWNyZXQ=\nS: 454\n"),
    ];
    for (name, reply, exchange) in failed {
        let words = format!("S: 220\nC: EHLO c\nS: 250\n{exchange}{send}");
        check(name, offers(reply), &words, |theatre| assert_eq!(user(theatre), None, "{name}"));
    }
}

#[test]
fn silence_and_slowness_end_a_session() {
    check(
        "between commands",
        plain,
        "S: 220
        C: EHLO c
        S: 250
        C: NOOP{NOEND}
        S: 421 4.4.2",
        nothing,
    );
    let slow = Setup::new("min_rate = \"1 KiB\"\n");
    let mut theatre = slow.theatre();
    let mut turns =
        vec![Turn { does: Does::say("EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n"), replies: 4 }];
    for _ in 0..5 {
        let does = Does { after: Duration::from_secs(30), ..Does::say("A: 1\r\n") };
        turns.push(Turn { does, replies: 0 });
    }
    let (client, heard) = Scripted::new(turns, 1, Then::Stay);
    theatre.play(client);
    assert_eq!(heard.lock().unwrap().replies.last().unwrap().code, 421);
    nothing(&theatre);
    assert!(theatre.closing_texts()[0].contains("silent too long"), "{:?}", theatre.closing_texts());
}

#[test]
fn draining_finishes_the_mail_under_way() {
    // At every read of the session: 421 comes once, at the end, and what was accepted was handed on.
    for at in 0..60 {
        let mut setup = plain();
        setup.drain_at = Some(at);
        let mut theatre = setup.theatre();
        let (client, heard) = Scripted::new(
            [
                ("EHLO c\r\n", 1),
                ("MAIL FROM:<a@x>\r\n", 1),
                ("RCPT TO:<b@x>\r\n", 1),
                ("DATA\r\n", 1),
                ("A: 1\r\n\r\n.\r\n", 1),
                ("NOOP\r\n", 1),
            ]
            .map(|(say, replies)| Turn { does: Does::say(say), replies }),
            1,
            Then::Stay,
        );
        theatre.play(client);
        let replies = heard.lock().unwrap().replies.clone();
        let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
        assert_eq!(codes.iter().filter(|code| **code == 421).count(), 1, "{at}: {codes:?}");
        assert_eq!(codes.last(), Some(&421), "{at}: {codes:?}");
        let accepted = codes.iter().position(|code| *code == 354).is_some_and(|at| codes.get(at + 1) == Some(&250));
        assert_eq!(handed_on(&theatre).len(), usize::from(accepted), "{at}: {codes:?}");
        assert_eq!(codes.contains(&354), accepted, "{at}: a content under way is finished: {codes:?}");
    }
}

#[test]
fn a_client_gone_at_any_octet_leaves_no_half_mail() {
    let session = "EHLO c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\nA: 1\r\n\r\n.x\r\n.\r\n\
        MAIL FROM:<a@x>\r\nRCPT TO:<c@x>\r\nBDAT 4\r\nA: 1BDAT 6 LAST\r\n\r\n\r\nx\nQUIT\r\n";
    for slicing in Slicing::ALL {
        for length in 0..=session.len() {
            for then in [Then::Finish, Then::Hangup] {
                let mut theatre = plain().sliced(slicing).theatre();
                let does = Does { then, ..Does::say(&session[..length]) };
                let (client, _) = Scripted::new([Turn { does, replies: 0 }], 1, then);
                theatre.play(client);
                let whole = session[..length].contains("\r\n.\r\n");
                let log = theatre.hop.lock().unwrap();
                let place = format!("{length} octets, {slicing:?}, {then:?}: {:?}", log.heard);
                assert!(log.ended <= usize::from(whole), "{place}");
                for mail in &log.mails {
                    assert_eq!(mail.content, b"A: 1\r\n\r\nx\r\n", "{place}");
                }
            }
        }
    }
}

#[test]
fn quit_behind_a_mail_and_a_closed_half_are_no_abort() {
    for slicing in Slicing::ALL {
        let mut theatre = plain().sliced(slicing).theatre();
        let words = format!(
            "{ENVELOPE}
            C: DATA
            S: 354
            C: A: 1
            C:
            C: .
            C: QUIT
            S: 250 2.0.0 taken
            S: 221"
        );
        play_until("half closed", &mut theatre, &words, Then::Finish);
        assert_eq!(handed_on(&theatre).len(), 1);
    }
}
