//! What Sendmail and Postfix do that is easily got wrong, and what neither does but somebody may.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, Peer, Then};
use checkpost_core::edit::{Edit, HeaderField, HeaderName};
use checkpost_core::{Disposition, Mail, Outcome, Rejection};
use common::Setup;
use common::mta::{OFFER, connect, negotiation, packet};
use common::talk::{ANSWERED, Talk};

fn edits(edits: &[Edit]) -> Outcome {
    Outcome { edits: edits.into(), ..Outcome::deliver() }
}

fn discard() -> Outcome {
    Outcome { disposition: Disposition::Discard, ..Outcome::deliver() }
}

/// What the engine was shown.
type Seen = Arc<Mutex<Vec<Mail>>>;

fn seeing(lines: &str) -> (Setup, Seen) {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let setup = Setup::new(lines).judged(move |mail| {
        kept.lock().unwrap().push(mail.clone());
        vec![Outcome::deliver(); mail.envelope.recipients.len()]
    });
    (setup, seen)
}

#[test]
fn a_user_is_not_carried_over_to_a_mail_without_macros() {
    let early = "[[rule]]\nwhen = { sender = 'bad@example.net' }\nthen = { reject = 'no' }\n";
    let authenticated = packet(b'D', b"Mi\x004711\0{auth_authen}\0me\0");
    for bad_end in [Talk::greeted().say(&authenticated).command(b'M', b"<bad@example.net>\0"), {
        // Given up without ABORT: Sendmail on a second MAIL.
        Talk::greeted().say(&authenticated).command(b'M', b"<other@example.net>\0")
    }] {
        let heard = bad_end.mail(&["a@example.org"]).play(Setup::new("").rules(early));
        assert!(!heard.cut, "{}", heard.codes());
        let origin = &heard.closings.last().unwrap().origin;
        assert_eq!((origin.user.as_deref(), origin.queue_id.as_deref()), (None, None));
    }
}

#[test]
fn a_recipient_that_is_removed_for_itself_and_added_by_another_gets_the_mail() {
    let add = || edits(&[Edit::AddRecipient("b@example.org".into())]);
    let uses = "[[rule]]\nwhen = { recipient = 'x@*', size = '> 1 GiB' }\nthen = { add_recipient = 'b@example.org' }\n";
    let setup = Setup::new("").rules(uses).judged(move |_| vec![add(), discard()]);
    let heard = Talk::greeted().mail(&["a@example.org", "b@example.org"]).play(setup);
    let codes: Vec<u8> = heard.answers.last().unwrap().iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, b"-2c", "an addition before the deletion would be deleted");
}

#[test]
fn who_is_removed_with_another_address_of_the_mailbox_is_added_again() {
    let uses = "[[rule]]\nwhen = { recipient = 'x@*', size = '> 1 GiB' }\nthen = { reject = 'no' }\n";
    let to = ["info@one.example", "Info@two.example", "other@one.example"];
    for (removes_mailboxes, answers) in [
        (false, vec!["-<info@one.example>\0", "c"]),
        (true, vec!["-<info@one.example>\0", "+<Info@two.example>\0", "c"]),
    ] {
        let mut setup = Setup::new("");
        setup.settings.removes_mailboxes = removes_mailboxes;
        let setup = setup.rules(uses).judged(|_| vec![discard(), Outcome::deliver(), Outcome::deliver()]);
        let heard = Talk::greeted().mail(&to).play(setup);
        let line = |(code, data): &(u8, Vec<u8>)| format!("{}{}", *code as char, String::from_utf8_lossy(data));
        let last: Vec<String> = heard.answers.last().unwrap().iter().map(line).collect();
        assert_eq!(last, answers);
    }
}

#[test]
fn what_is_out_of_order_ends_the_connection() {
    let begun = || Talk::greeted().command(b'M', b"<s@example.net>\0").command(b'R', b"<a@example.org>\0");
    let header = || begun().command(b'L', b"A\0 b\0");
    for (title, talk, code) in [
        ("a recipient of no mail", Talk::greeted(), b'R'),
        ("a header of no mail", Talk::greeted(), b'L'),
        ("the end of no mail", Talk::greeted(), b'E'),
        ("a field behind the header", header().command(b'N', b""), b'L'),
        ("a field behind the body", header().command(b'N', b"").command(b'B', b"x"), b'L'),
        ("a recipient behind a field", header(), b'R'),
        ("a recipient behind the header", header().command(b'N', b""), b'R'),
        ("a second negotiation", begun(), b'O'),
        ("nothing that is known", begun(), b'?'),
    ] {
        let data: &[u8] = if code == b'O' { &[0; 12] } else { b"<b@example.org>\0 x\0" };
        let heard = talk.command(code, data).mail(&["a@example.org"]).play(Setup::new(""));
        assert!(heard.cut && heard.answers.last().unwrap().is_empty(), "{title}: {}", heard.codes());
        assert!(heard.closings.iter().all(|closing| !closing.text.contains("passed")), "{title}");
    }
}

#[test]
fn what_is_no_milter_packet_ends_the_connection() {
    for octets in [
        &b"\0\0\0\0"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0\x05O\0\0\0\x06",
        b"EHLO client\r\n",
        b"zPING\0",
        b"\x16\x03\x01\x02\0\x01",
        b"\0\0\0\x01Z",
        b"\0\0\0\x0dO\0\0\0\x01\0\0\0\0\0\0\0\0",
    ] {
        let heard = Talk::default().ask(octets).ask(b"").play(Setup::new(""));
        assert!(heard.cut && heard.codes().is_empty() && heard.closings.is_empty(), "{octets:?}: {}", heard.codes());
    }
    // The end in the middle of a packet, and before any.
    for octets in [&b""[..], b"\0\0\0\x0dO\0\0"] {
        let heard = Talk::default().say(octets).play(Setup::new(""));
        assert!(heard.codes().is_empty() && heard.closings.is_empty());
    }
}

#[test]
fn a_refusal_stays_one_where_the_header_cannot_be_edited() {
    // More than is looked at, and a field to take away.
    let long = vec![b'x'; 60_000];
    let mut talk = Talk::greeted().command(b'M', b"<s@example.net>\0").command(b'R', b"<a@example.org>\0");
    talk = talk.command(b'L', b"X-Checkpost-Forged\0 x\0");
    for _ in 0..75 {
        talk = talk.command(b'L', [b"Long\0 ", &long[..], b"\0"].concat());
    }
    let setup = Setup::new("").judged(|_| {
        let disposition = Disposition::Reject(Rejection::parse("no").unwrap());
        vec![Outcome { disposition, ..Outcome::deliver() }]
    });
    let heard = talk.command(b'N', b"").command(b'E', b"").play(setup);
    assert_eq!(heard.last_text(), "550 5.7.1 no");
    assert_eq!(heard.closings[0].text, "<a@example.org>: rejected (550 5.7.1 no)");
}

#[test]
fn a_long_header_is_edited() {
    let long = vec![b'x'; 60_000];
    let mut talk = Talk::greeted().command(b'M', b"<s@example.net>\0").command(b'R', b"<a@example.org>\0");
    for _ in 0..9 {
        talk = talk.command(b'L', [b"Long\0 ", &long[..], b"\0"].concat());
    }
    talk = talk.command(b'L', b"Last\0 x\0").command(b'N', b"").command(b'B', b"Last: y\r\n").command(b'E', b"");
    for memory_limit in [10 << 20, 100 << 10] {
        let mut setup = Setup::new("").judged(|_| vec![edits(&[Edit::RemoveHeader(HeaderName::new("Last").unwrap())])]);
        setup.link.memory_limit = memory_limit;
        let heard = talk.clone().play(setup);
        let last = heard.answers.last().unwrap();
        assert_eq!(last[0], (b'm', b"\0\0\0\x01Last\0\0".to_vec()), "{}", heard.last_text());
        assert_eq!(heard.closings[0].text, "<a@example.org>: passed");
    }
}

#[test]
fn a_value_is_rebuilt_as_it_was_where_no_blank_was_taken() {
    let old = (2, 0x3f, 0x7f);
    for (spaced, value, rebuilt) in [
        (true, "  two", "A:  two"),
        (true, "", "A:"),
        (true, "x", "A:x"),
        (false, "x", "A: x"),
        (false, " x", "A:  x"),
        (false, "\tx", "A:\tx"),
        (false, "\n x", "A:\r\n x"),
        (true, "\n x\n\ty", "A:\r\n x\r\n\ty"),
    ] {
        let (setup, seen) = seeing("");
        Talk::new(if spaced { ANSWERED } else { old })
            .ask(connect())
            .command(b'M', b"<s@example.net>\0")
            .command(b'R', b"<a@example.org>\0")
            .command(b'L', format!("A\0{value}\0"))
            .command(b'N', b"")
            .command(b'B', b"a\r")
            .command(b'B', b"\nb")
            .command(b'E', b"\r\nlast")
            .play(setup);
        let mail = &seen.lock().unwrap()[0];
        let wanted = format!("{rebuilt}\r\n\r\na\r\nb\r\nlast");
        assert_eq!(mail.content.as_slice().unwrap(), wanted.as_bytes(), "{spaced} {value:?}");
    }
}

#[test]
fn clients_and_addresses_come_in_many_forms() {
    for (data, address, name) in [
        (&b"mx.example.net\x004\x04\x01192.0.2.7\0"[..], Some("192.0.2.7"), Some("mx.example.net")),
        (b"[192.0.2.7]\x004\x04\x01192.0.2.7\0", Some("192.0.2.7"), None),
        (b"[IPv6:0:0:0:0:0:0:0:1]\x006\x04\x01IPv6:0:0:0:0:0:0:0:1\0", Some("::1"), None),
        (b"[::1]\x006\x04\x01::1\0", Some("::1"), None),
        (b"x\x006\x04\x01::ffff:192.0.2.7\0", Some("192.0.2.7"), Some("x")),
        (b"localhost\0U", None, Some("localhost")),
        (b"localhost\0", None, Some("localhost")),
        (b"x\0L\0\0/run/socket\0", None, Some("x")),
        (b"x\x004\x04\x01nonsense\0", None, Some("x")),
    ] {
        let (setup, seen) = seeing("");
        let heard = Talk::new(ANSWERED).command(b'C', data).mail(&["a@example.org"]).play(setup);
        assert!(!heard.cut, "{data:?}");
        let origin = &seen.lock().unwrap()[0].origin;
        assert_eq!(origin.client, address.map(|text| text.parse().unwrap()), "{data:?}");
        assert_eq!(origin.client_name.as_deref(), name, "{data:?}");
    }
    for (data, address) in [
        (&b"<a@b.example>\0SIZE=5\0BODY=8BITMIME\0"[..], "a@b.example"),
        (b"a@b.example\0", "a@b.example"),
        (b"<>\0", ""),
        (b"\0", ""),
        (b"<\"a b\"@b.example>\0", "\"a b\"@b.example"),
        ("<gr\u{fc}n@b.example>\0SMTPUTF8\0".as_bytes(), "gr\u{fc}n@b.example"),
    ] {
        let (setup, seen) = seeing("");
        let to = if address.is_empty() { &b"<x@example.org>\0"[..] } else { data };
        Talk::greeted().command(b'M', data).command(b'R', to).content().play(setup);
        let mails = seen.lock().unwrap();
        assert_eq!(mails[0].envelope.sender.as_str(), address, "{data:?}");
        assert!(address.is_empty() || mails[0].envelope.recipients[0].as_str() == address, "{data:?}");
    }
}

#[test]
fn macros_come_for_anything_and_need_no_command() {
    let (setup, seen) = seeing("");
    let heard = Talk::greeted()
        .say(packet(b'D', b"H{tls_version}\0TLSv1.3\0"))
        .command(b'H', b"again\0")
        .say(packet(b'D', b"M{auth_authen}\0me\0"))
        .command(b'M', b"<s@example.net>\0")
        .say(packet(b'D', b"R{rcpt_mailer}\0error\0"))
        .say(packet(b'D', b"Ri\x004711\0"))
        .command(b'R', b"<a@example.org>\0")
        .say([packet(b'D', b"T"), packet(b'D', b"?x\0y\0"), packet(b'D', b"B{x}\0")].concat())
        .content()
        .play(setup);
    assert!(!heard.cut, "{}", heard.codes());
    let mail = &seen.lock().unwrap()[0];
    assert_eq!(mail.envelope.recipients.len(), 1);
    let origin = &mail.origin;
    assert_eq!((origin.user.as_deref(), origin.queue_id.as_deref(), origin.tls), (Some("me"), Some("4711"), true));
    assert_eq!(origin.helo.as_deref(), Some("again"));
}

#[test]
fn an_abort_anywhere_leaves_nothing_behind() {
    let commands: [(u8, &[u8]); 7] = [
        (b'M', b"<old@example.net>\0"),
        (b'R', b"<old@example.org>\0"),
        (b'T', b""),
        (b'L', b"Old\0 x\0"),
        (b'N', b""),
        (b'B', b"old"),
        (b'E', b""),
    ];
    let next_client = [packet(b'K', b""), connect()].concat();
    for length in 0..=commands.len() {
        for gives_up in
            [packet(b'A', b""), [packet(b'A', b""), packet(b'A', b"")].concat(), Vec::new(), next_client.clone()]
        {
            let (setup, seen) = seeing("");
            let begun = commands[..length].iter().fold(Talk::greeted(), |talk, (code, data)| talk.command(*code, data));
            // MAIL within a mail voids it; a second HELO does so, too.
            let given_up = match gives_up.len() {
                0 => begun.command(b'H', b"client.example.net\0"),
                _ if gives_up == next_client => begun.ask(&gives_up),
                _ => begun.say(&gives_up),
            };
            let heard = given_up.mail(&["a@example.org"]).play(setup);
            assert!(!heard.cut, "{length}: {}", heard.codes());
            let mails = seen.lock().unwrap();
            assert_eq!(mails.len(), if length == commands.len() { 2 } else { 1 });
            let mail = mails.last().unwrap();
            assert_eq!(mail.content.as_slice().unwrap(), b"Subject: x\r\n\r\nx\r\n", "{length}");
            assert_eq!((mail.envelope.sender.as_str(), mail.envelope.recipients.len()), ("s@example.net", 1));
            // One line for each mail whose content had begun.
            assert_eq!(heard.closings.len(), if length >= 4 { 2 } else { 1 }, "{length}");
        }
    }
}

#[test]
fn a_skipped_ability_bit_is_answered_in_its_place() {
    let offers = [OFFER, ANSWERED, (2, 0x3f, 0x7f), (4, 0x3f, 0x3ff), (6, 0, 0), (7, 0x1ff, 0x3f1f_ffff)];
    for offer in offers {
        let (setup, seen) = seeing("");
        let heard = Talk::new(offer).play(setup);
        let data = &heard.answers[0][0].1;
        let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        let steps = number(8);
        let silent = |bit: u32| steps & bit != 0;
        let mut talk = Talk::new(offer);
        let mut add = |octets: Vec<u8>, bit: u32| {
            let taken = std::mem::take(&mut talk);
            talk = if silent(bit) { taken.say(octets) } else { taken.ask(octets) };
        };
        add(connect(), 0x1000);
        add(packet(b'H', b"x\0"), 0x2000);
        add(packet(b'M', b"<s@example.net>\0"), 0x4000);
        add(packet(b'R', b"<a@example.org>\0"), 0x8000);
        if offer.0 >= 4 && !silent(0x200) {
            add(packet(b'T', b""), 0x1_0000);
        }
        add(packet(b'L', b"A\0b\0"), 0x80);
        add(packet(b'N', b""), 0x4_0000);
        add(packet(b'B', b"x"), 0x8_0000);
        add(packet(b'E', b""), 0);
        let (setup, _) = (seeing("").0, seen);
        let heard = talk.play(setup);
        assert!(!heard.cut && heard.codes().ends_with('c'), "{offer:x?}: {}", heard.codes());
        assert_eq!(heard.closings[0].text, "<a@example.org>: passed", "{offer:x?}");
    }
}

#[test]
fn it_asks_for_what_it_uses() {
    let plain = "";
    let many = "[[rule]]\nwhen = { recipient = 'x@*', helo = 'x', client = '192.0.2.9' }\nthen = { reject = 'no' }\n\
        [[rule]]\nwhen = { client = '192.0.2.9' }\nthen = { reject = 'no' }\n\
        [[rule]]\nwhen = { helo = 'x' }\nthen = { reject = 'no' }\n\
        [[rule]]\nwhen = { size = '> 1 GiB' }\nthen = { hold = 'x', change_sender = 'x@example.org', replace_body = 'x' }\n";
    for (rules, tcp, actions, steps) in
        [(plain, false, 0x111, 0x1c_b380), (plain, true, 0x111, 0x1c_b180), (many, false, 0x17b, 0x1c_0380)]
    {
        let mut setup = Setup::new("");
        setup.link.tcp = tcp;
        let setup = if rules.is_empty() { setup } else { setup.rules(rules) };
        let heard = Talk::new(OFFER).play(setup);
        let data = &heard.answers[0][0].1;
        let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(4), number(8)), (6, actions, steps), "{rules} {:x} {:x}", number(4), number(8));
        // Sendmail 8.17.1 looks for the list of EOH before it uses that of EOM; a list of 60 breaks its greeting.
        let lists: Vec<&[u8]> = data[12..].split_inclusive(|octet| *octet == 0).collect();
        let text = String::from_utf8_lossy(&data[12..]);
        assert!(text.contains("\0\0\0\u{5}i\0") && text.contains("\0\0\0\u{6}i\0"), "{text:?}");
        assert!(lists.iter().all(|list| list.split(|octet| *octet == b' ').count() < 50));
    }
}

#[test]
fn a_refusal_comes_as_early_as_it_is_sure_and_no_earlier() {
    let rule =
        |when: &str| format!("[[rule]]\nname = 'r'\nwhen = {{ {when} }}\nthen = {{ reject = '554 5.7.0 no' }}\n");
    // Answers to: negotiation, CONNECT, HELO, MAIL, RCPT, …
    for (when, codes) in [
        ("client = '192.0.2.7'", "O y"),
        ("helo = 'client.*'", "O c y"),
        ("sender = 's@*'", "O c c y"),
        ("recipient = 'a@*'", "O c c c y c"),
        ("sender = 'x@*'", "O c c c c c"),
    ] {
        let heard = Talk::greeted()
            .command(b'M', b"<s@example.net>\0")
            .command(b'R', b"<a@example.org>\0")
            .command(b'R', b"<b@example.org>\0")
            .play(Setup::new("").rules(&rule(when)));
        assert!(heard.codes().starts_with(codes), "{when}: {}", heard.codes());
        let refusal = heard.answers.iter().flatten().find(|(code, _)| *code == b'y');
        assert_eq!(refusal.is_some_and(|(_, data)| data == b"554 5.7.0 no\0"), codes.contains('y'), "{when}");
    }
    // Who was refused at RCPT is in the log and not in the mail.
    let heard = Talk::greeted()
        .mail(&["a@example.org", "b@example.org"])
        .play(Setup::new("").rules(&rule("recipient = 'a@*'")));
    assert_eq!(heard.closings.len(), 1);
    assert_eq!(heard.closings[0].text, "<b@example.org>: passed, <a@example.org>: rejected (554 5.7.0 no)");
    // sendmail(1) through Postfix: no recipient may be refused by itself.
    let local = packet(b'C', b"localhost\x004\0\x00127.0.0.1\0");
    let heard = Talk::new(ANSWERED)
        .ask(&local)
        .command(b'H', b"localhost\0")
        .mail(&["a@example.org"])
        .play(Setup::new("").rules(&rule("recipient = 'a@*'")));
    assert!(heard.codes().starts_with("O c c c c c") && heard.codes().ends_with('y'), "{}", heard.codes());
}

#[test]
fn fields_are_changed_from_the_last_to_the_first_and_added_after_that() {
    let edits = [
        Edit::RemoveHeader(HeaderName::new("x").unwrap()),
        Edit::AddHeader(HeaderField::parse("X: new").unwrap()),
        Edit::AddHeader(HeaderField::parse("Y: newer").unwrap()),
        Edit::AppendHeader(HeaderField::parse("Z: end").unwrap()),
    ];
    let outcome = Outcome { edits: edits.to_vec().into(), ..Outcome::deliver() };
    let heard = Talk::greeted()
        .command(b'M', b"<s@example.net>\0")
        .command(b'R', b"<a@example.org>\0")
        .command(b'L', b"X\0 1\0")
        .command(b'L', b"Subject\0 s\0")
        .command(b'L', b"x\0 2\0")
        .command(b'N', b"")
        .command(b'E', b"")
        .play(Setup::new("").judged(move |_| vec![outcome.clone()]));
    let last: Vec<_> = heard
        .answers
        .last()
        .unwrap()
        .iter()
        .map(|(code, data)| format!("{}{}", *code as char, data.escape_ascii()))
        .collect();
    assert_eq!(
        last,
        [
            r"m\x00\x00\x00\x02x\x00\x00",
            r"m\x00\x00\x00\x01X\x00\x00",
            r"i\x00\x00\x00\x01X\x00 new\x00",
            r"i\x00\x00\x00\x01Y\x00 newer\x00",
            r"i\x00\x0fB@Z\x00 end\x00",
            "c"
        ]
    );
}

/// Says the next group at each answer, and is gone behind the last.
struct Dies(std::vec::IntoIter<Vec<u8>>);

impl Peer for Dies {
    fn hear(&mut self, _: &[u8]) -> Does {
        let say = self.0.next().unwrap_or_default();
        let then = if self.0.len() == 0 { Then::Finish } else { Then::Stay };
        Does { say, then, ..Does::default() }
    }
}

/// The first write to a TCP connection whose other end is gone succeeds.
#[test]
fn a_mail_server_that_died_in_the_check_is_not_said_to_have_the_mail() {
    let mail = [packet(b'L', b"Subject\0 x\0"), packet(b'N', b""), packet(b'B', b"x\r\n"), packet(b'E', b"")].concat();
    let said = vec![
        negotiation(OFFER),
        [connect(), packet(b'H', b"c\0"), packet(b'M', b"<s@example.net>\0")].concat(),
        [packet(b'R', b"<a@example.org>\0"), packet(b'T', b"")].concat(),
        mail,
    ];
    let mut setup = Setup::new("");
    setup.link.tcp = true;
    let closings = setup.play(Box::new(Dies(said.into_iter())));
    let texts: Vec<&str> = closings.iter().map(|closing| &*closing.text).collect();
    let gone = "<a@example.org>: deferred (not handed on: the mail server was gone before it had our answer)";
    assert_eq!(texts, [gone]);
}
