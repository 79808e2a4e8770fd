//! What goes on with the next hop: kept connections, fallbacks, TLS, lost answers, several
//! transactions for one mail.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::{Point, Slicing, Trouble, TroubleKind};
use checkpost_core::edit::HeaderField;
use checkpost_core::{Deferral, Disposition, Edit, Outcome, Rejection};
use common::talk::{check, play};
use common::{Setup, Theatre};

const MAIL: &str = "C: MAIL FROM:<a@x>
    C: RCPT TO:<b@x>
    C: DATA
    S: 250 2.1.0
    S: 250 2.1.5
    S: 354
    C: A: 1
    C:
    C: .
    ";

fn plain() -> Setup {
    Setup::new("")
}

fn session(rest: &str) -> String {
    format!("S: 220\nC: EHLO c\nS: 250\n{rest}")
}

fn taken(theatre: &Theatre) -> Vec<Vec<String>> {
    theatre.hop.lock().unwrap().mails.iter().map(|mail| mail.recipients.clone()).collect()
}

fn heard(theatre: &Theatre) -> Vec<String> {
    theatre.hop.lock().unwrap().heard.clone()
}

#[test]
fn one_connection_serves_several_sessions() {
    let mut theatre = plain().theatre();
    for count in 1..=3 {
        play("kept", &mut theatre, &session(&format!("{MAIL}S: 250 2.0.0 taken\nC: QUIT\nS: 221")));
        assert_eq!(taken(&theatre).len(), count);
    }
    assert_eq!(theatre.hop.lock().unwrap().connections, 1);
    let greetings = heard(&theatre).iter().filter(|line| line.starts_with("EHLO")).count();
    assert_eq!(greetings, 1, "what the hop offers is remembered: {:?}", heard(&theatre));
}

#[test]
fn a_kept_connection_that_died_is_tried_anew() {
    for dies in ["gone", "421 4.4.2 idle too long"] {
        for slicing in Slicing::ALL {
            // The first MAIL goes through; the second finds the connection dead.
            let setup = plain().hop(|hop| hop.reply("2 MAIL", dies)).sliced(slicing);
            let mut theatre = setup.theatre();
            let words = session(&format!("{MAIL}S: 250 2.0.0 taken\n{MAIL}S: 250 2.0.0 taken\nC: QUIT\nS: 221"));
            play(dies, &mut theatre, &words);
            assert_eq!(taken(&theatre), [["b@x"], ["b@x"]], "{dies}");
            assert_eq!(theatre.hop.lock().unwrap().connections, 2, "{dies}");
        }
    }
}

#[test]
fn a_goodbye_of_the_hop_is_not_ours() {
    let at = [("MAIL", 1), ("RCPT", 1), ("DATA", 2), ("final", 2)];
    for (command, point) in at {
        let goodbye = || plain().hop(|hop| hop.reply(command, "421 4.3.0 going down"));
        let words = if point == 1 {
            session("C: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451\nC: NOOP\nS: 250")
        } else {
            session(&format!("{MAIL}S: 451\nC: NOOP\nS: 250"))
        };
        check(command, goodbye, &words, |theatre| assert!(taken(theatre).is_empty(), "{command}"));
    }
}

#[test]
fn an_answer_before_its_time_is_no_answer() {
    let hasty = || plain().hop(|hop| hop.reply("DATA", "354 go on\r\n250 2.0.0 all fine"));
    let mut theatre = hasty().theatre();
    play("hasty", &mut theatre, &session(&format!("{MAIL}S: 451\nC: NOOP\nS: 250")));
    assert_eq!(theatre.closing_texts(), ["b@x: deferred (handed on, but the answer was lost: may come twice)"]);
}

#[test]
fn a_lost_answer_is_never_accepted() {
    for kind in [TroubleKind::Gone, TroubleKind::Silent, TroubleKind::Garbage] {
        let lost = || {
            let trouble = Trouble { at: Point::Final, kind, always: true };
            plain().hop(|hop| hop.trouble = Some(trouble))
        };
        check("lost", lost, &session(&format!("{MAIL}S: 451 4.4.1\nC: NOOP\nS: 250")), |theatre| {
            assert_eq!(theatre.hop.lock().unwrap().ended, 1, "once only");
            assert_eq!(theatre.closing_texts(), ["b@x: deferred (handed on, but the answer was lost: may come twice)"]);
        });
    }
}

#[test]
fn the_next_one_in_the_list_is_tried() {
    let two = || {
        Setup::new("next_hop = [\"127.0.0.1:10025\", \"127.0.0.1:10026\"]\n").hop(|hop| {
            hop.trouble = Some(Trouble { at: Point::Connect, kind: TroubleKind::Gone, always: false });
        })
    };
    check("fallback", two, &session(&format!("{MAIL}S: 250 2.0.0 taken")), |theatre| {
        assert_eq!(taken(theatre), [["b@x"]]);
    });
    let none = || {
        plain().hop(|hop| {
            hop.trouble = Some(Trouble { at: Point::Banner, kind: TroubleKind::Permanent, always: true });
        })
    };
    check(
        "no hop",
        none,
        &session("C: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451 4.4.1\nC: DATA\nS: 554"),
        |_| {},
    );
}

#[test]
fn tls_to_the_hop() {
    let encrypted =
        |how: &'static str| move || Setup::new(&format!("hop_tls = \"{how}\"\n")).hop(|hop| hop.with("STARTTLS"));
    let words = session(&format!("{MAIL}S: 250 2.0.0 taken"));
    for how in ["starttls", "opportunistic"] {
        check(how, encrypted(how), &words, |theatre| {
            assert_eq!(heard(theatre)[..3], ["EHLO proxy.example", "STARTTLS", "EHLO proxy.example"]);
        });
    }
    let refuses = |how: &'static str| move || encrypted(how)().hop(|hop| hop.reply("STARTTLS", "454 4.7.0 not now"));
    check("in plain text then", refuses("opportunistic"), &words, |theatre| assert_eq!(taken(theatre).len(), 1));
    let no_mail = session("C: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451");
    let broken = || encrypted("opportunistic")().hop(|hop| hop.tls = false);
    check("broken TLS", broken, &words, |theatre| {
        assert_eq!(heard(theatre).iter().filter(|line| *line == "STARTTLS").count(), 1);
        assert_eq!(taken(theatre).len(), 1);
    });
    check(
        "broken TLS that is needed",
        || encrypted("starttls")().hop(|hop| hop.tls = false),
        &no_mail,
        |theatre| {
            assert!(taken(theatre).is_empty());
        },
    );
    check("not in plain text", refuses("starttls"), &no_mail, |theatre| {
        assert!(!heard(theatre).iter().any(|line| line.starts_with("MAIL")));
    });
    check(
        "not offered",
        || Setup::new("hop_tls = \"starttls\"\n"),
        &no_mail,
        |theatre| {
            assert!(!heard(theatre).iter().any(|line| line.starts_with("MAIL")));
        },
    );
}

fn outcomes(names: &'static [&'static str]) -> impl Fn(&checkpost_core::Mail) -> Vec<Outcome> + 'static {
    move |_| {
        let outcome = |name: &&str| match *name {
            "reject" => Disposition::Reject(Rejection::lossy(7, 1, "Message contains malware")),
            "defer" => Disposition::Defer(Deferral::lossy(7, 1, "Not now")),
            _ => Disposition::Deliver,
        };
        let edits = |name: &&str| match *name {
            "tag" => vec![Edit::AddHeader(HeaderField::parse("X-Spam: yes").unwrap())],
            _ => Vec::new(),
        };
        let make = |name| Outcome { disposition: outcome(name), edits: edits(name).into(), ..Outcome::deliver() };
        names.iter().map(make).collect()
    }
}

const THREE: &str = "C: MAIL FROM:<a@x>
    C: RCPT TO:<b@x>
    C: RCPT TO:<c@x>
    C: RCPT TO:<d@x>
    C: DATA
    S: 250
    S: 250
    S: 250
    S: 250
    S: 354
    C: A: 1
    C:
    C: .
    ";

#[test]
fn each_recipient_gets_its_own_over_lmtp() {
    let lmtp = || Setup::new("protocol = \"lmtp\"\n").judged(outcomes(&["reject", "deliver", "defer"]));
    let words = format!("S: 220\nC: LHLO c\nS: 250\n{THREE}S: 550 5.7.1 Message contains\nS: 250\nS: 45");
    check("lmtp", lmtp, &words, |theatre| {
        assert_eq!(taken(theatre), [["c@x"]]);
        let closing = theatre.closing_texts();
        for word in ["b@x: rejected", "c@x: delivered", "d@x: deferred"] {
            assert!(closing[0].contains(word), "{closing:?}");
        }
    });
    let by_hop = || {
        Setup::new("protocol = \"lmtp\"\n").hop(|hop| {
            hop.reply("final c@x", "550 5.2.2 mailbox full");
            hop.reply("final d@x", "450 4.2.2 busy");
        })
    };
    let words = format!("S: 220\nC: LHLO c\nS: 250\n{THREE}S: 250\nS: 550 5.2.2\nS: 450 4.2.2");
    check("by the hop", by_hop, &words, |theatre| assert_eq!(taken(theatre), [["b@x"]]));
}

#[test]
fn each_content_gets_its_own_transaction_over_smtp() {
    let differing = || plain().judged(outcomes(&["deliver", "tag", "deliver"]));
    check("two contents", differing, &session(&format!("{THREE}S: 250 2.0.0 taken")), |theatre| {
        let mails = theatre.hop.lock().unwrap().mails.clone();
        assert_eq!(
            (mails[0].recipients.clone(), &mails[0].content[..]),
            (vec!["b@x".into(), "d@x".into()], &b"A: 1\r\n\r\n"[..])
        );
        assert_eq!(
            (mails[1].recipients.clone(), &mails[1].content[..]),
            (vec!["c@x".into()], &b"X-Spam: yes\r\nA: 1\r\n\r\n"[..])
        );
    });
    let mixed = || plain().judged(outcomes(&["reject", "deliver", "reject"]));
    check("mixed", mixed, &session(&format!("{THREE}S: 250 2.0.0 taken")), |theatre| {
        assert_eq!(taken(theatre), [["c@x"]]);
        let closing = theatre.closing_texts();
        assert_eq!(closing, ["b@x: quarantined, c@x: delivered (250 2.0.0 taken), d@x: quarantined"]);
    });
    // The second content is refused for now: the sender must come again, though the first has its mail.
    let half = || differing().hop(|hop| hop.reply("2 DATA", "451 4.3.0 full"));
    check("half", half, &session(&format!("{THREE}S: 451 4.3.0 full")), |theatre| {
        assert_eq!(taken(theatre), [["b@x", "d@x"]]);
        assert!(theatre.closing_texts()[0].contains("c@x: refused (451"), "{:?}", theatre.closing_texts());
    });
    let reset_fails = |reply: &'static str| move || differing().hop(|hop| hop.reply("1 RSET", reply));
    for reply in ["gone", "500 5.5.1 what?", "nonsense", "421 4.0.0 bye"] {
        check(reply, reset_fails(reply), &session(&format!("{THREE}S: 250 2.0.0 taken")), |theatre| {
            assert_eq!(taken(theatre), [vec!["b@x", "d@x"], vec!["c@x"]], "{reply}");
        });
    }
}

#[test]
fn the_hop_goes_between_verified_recipients_and_content() {
    for command in ["1 DATA", "2 RCPT"] {
        let goes = || plain().hop(|hop| hop.reply(command, "gone"));
        let words = if command == "1 DATA" {
            session(&format!("{THREE}S: 250 2.0.0 taken"))
        } else {
            session(
                "C: MAIL FROM:<a@x>
                S: 250
                C: RCPT TO:<b@x>
                S: 250 2.1.5
                C: RCPT TO:<c@x>
                S: 451 4.4.1
                C: RCPT TO:<c@x>
                S: 250 2.1.5
                C: DATA
                S: 354
                C: A: 1
                C:
                C: .
                S: 250 2.0.0 taken",
            )
        };
        check(command, goes, &words, |theatre| {
            assert_eq!(taken(theatre).len(), 1, "{command}");
            assert!(taken(theatre)[0].starts_with(&["b@x".into(), "c@x".into()]), "{command}");
        });
    }
}

#[test]
fn an_authenticated_connection_that_is_lost_ends_the_session() {
    for command in ["2 MAIL", "1 DATA"] {
        let lost = || {
            Setup::new("auth = true\nauth_without_tls = true\n").hop(|hop| {
                hop.with("AUTH PLAIN");
                hop.reply("AUTH", "235 2.7.0 welcome");
                hop.reply(command, "gone");
            })
        };
        let second = if command == "1 DATA" {
            format!("{MAIL}S: 451 4.4.1\nS: 421 4.3.2")
        } else {
            format!("{MAIL}S: 250\nC: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451 4.4.1\nS: 421 4.3.2")
        };
        check(command, lost, &session(&format!("C: AUTH PLAIN AGpvZQBzZWNyZXQ=\nS: 235\n{second}")), |theatre| {
            assert_eq!(theatre.hop.lock().unwrap().connections, 2, "no stranger's connection for this user's mail");
        });
    }
}

#[test]
fn an_odd_answer_to_the_sender_is_no_answer() {
    let odd = || plain().hop(|hop| hop.reply("MAIL", "334 odd"));
    let words = "C: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451\nC: RCPT TO:<b@x>\nS: 451";
    check("odd", odd, &session(words), |theatre| assert!(taken(theatre).is_empty()));
}

#[test]
fn nobody_is_left_when_the_hop_changes_its_mind() {
    // Refused in the second transaction, which a differing content makes necessary.
    let turns = || {
        plain()
            .judged(outcomes(&["tag", "deliver", "deliver"]))
            .hop(|hop| hop.reply("2 RCPT TO:<b@x>", "550 5.1.1 gone"))
    };
    check("refused later", turns, &session(&format!("{THREE}S: 550 5.1.1 gone\nC: NOOP\nS: 250")), |theatre| {
        assert_eq!(taken(theatre), [["c@x", "d@x"]]);
    });
}

#[test]
fn the_hop_is_told_about_the_client_where_it_asks() {
    let tells = || Setup::new("xclient = true\n").hop(|hop| hop.with("XCLIENT NAME ADDR HELO"));
    check("XCLIENT", tells, &session(&format!("{MAIL}S: 250 2.0.0 taken")), |theatre| {
        let heard = heard(theatre);
        assert!(heard.iter().any(|line| line.starts_with("XCLIENT") && line.contains("ADDR=192.0.2.1")), "{heard:?}");
        assert!(!theatre.stage.steps.contains(&"keep hop"), "it belongs to this client alone");
    });
    let callback = || Setup::new("next_hop = \"callback:10026\"\n");
    check("callback", callback, &session(&format!("{MAIL}S: 250 2.0.0 taken")), |theatre| {
        assert_eq!(taken(theatre).len(), 1);
    });
    let nobody = || {
        let mut setup = callback();
        setup.peer.address = None;
        setup
    };
    check("callback to nobody", nobody, &session("C: MAIL FROM:<a@x>\nC: RCPT TO:<b@x>\nS: 250\nS: 451 4.4.1"), |_| {});
}
