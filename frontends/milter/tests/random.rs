//! Whatever a mail server sends: the same answers in any slicing, and none that it must not get.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, Peer, Slicing, Then};
use common::Setup;
use common::mta::{OFFER, negotiation, packet};
use common::talk::{ANSWERED, Talk};
use proptest::prelude::*;

proptest! {
    #[test]
    fn nothing_is_taken_that_was_not_offered(version in 2u32..9, actions: u32, steps: u32, tcp: bool) {
        let mut setup = Setup::new("");
        setup.link.tcp = tcp;
        let heard = Talk::default().ask(negotiation((version, actions, steps))).play(setup);
        let data = &heard.answers[0][0].1;
        let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        // Zeros stand for what version 1 had.
        let offered = |bits: u32, old: u32| if bits == 0 { old } else { bits };
        prop_assert!(number(0) <= version.min(6));
        prop_assert_eq!(number(4) & !offered(actions, 0x0f), 0);
        prop_assert_eq!(number(8) & !offered(steps, 0x3f), 0);
        prop_assert_eq!(number(8) & 0xf000_4000, 0, "larger packets, and MAIL unanswered");
        prop_assert!(!tcp || number(8) & 0x1_0200 == 0, "DATA unanswered makes Postfix stall");
    }

    #[test]
    fn any_packets_are_answered_alike_in_any_slicing(
        mails in prop::collection::vec(mail_packets(), 1..4),
        seed: u64,
        spooled: bool,
        offer in prop::sample::select(vec![OFFER, ANSWERED, (2, 0x3f, 0x7f)]),
    ) {
        let rules = "[[rule]]\nwhen = { recipient = 'no@*' }\nthen = { reject = 'no' }\n\
            [[rule]]\nwhen = { sender = 'no@*' }\nthen = { defer = 'later' }\n\
            [[rule]]\nwhen = { header = { name = 'A', exists = true }, recipient = 'b@*' }\nthen = { discard = true }\n\
            [[rule]]\nwhen = { header = { name = 'A', exists = true } }\nthen = { hold = 'a', replace_body = 'new', add_header = 'B: c', remove_header = 'A' }\n";
        let mut octets = negotiation(offer);
        for (code, which) in mails.concat() {
            let data: &[u8] = match code {
                b'M' => [&b"<s@example.net>\0"[..], b"<no@example.net>\0", b"<>\0", b"\0"][which],
                b'R' => [&b"<a@example.org>\0"[..], b"<b@example.org>\0", b"<no@example.org>\0", b""][which],
                b'L' => [&b"A\0 b\0"[..], b"X\0\0", b"X-Checkpost-A\0 b\n\tc\0", b"Y\0 d"][which],
                b'B' => [&b"text\r\n"[..], b"A: b\r", b"\n", b""][which],
                b'E' => [&b""[..], b"", b"", b"last\r\n"][which],
                b'C' => [&b"x\x004\x04\x01192.0.2.7\0"[..], b"x\0U", b"x\x004\0\x00127.0.0.1\0", b"x"][which],
                b'D' => [&b"Mi\x001\0"[..], b"M{auth_authen}\0me\0", b"R", b"Ei\0"][which],
                b'H' => b"client\0",
                _ => b"",
            };
            octets.extend(packet(code, data));
        }
        let play = |slicing| {
            let heard = Arc::<Mutex<Vec<u8>>>::default();
            let peer = Deaf { say: octets.clone(), heard: Arc::clone(&heard) };
            let mut setup = Setup::new("").rules(rules).sliced(slicing);
            setup.link.memory_limit = if spooled { 0 } else { 1 << 20 };
            let closings = setup.play(Box::new(peer));
            let heard = heard.lock().unwrap().clone();
            (heard, closings.into_iter().map(|closing| (closing.sender, closing.text, closing.origin, closing.size)).collect::<Vec<_>>())
        };
        let whole = play(Slicing::Whole);
        prop_assert_eq!(&play(Slicing::Bytes), &whole);
        prop_assert_eq!(&play(Slicing::Seeded(seed)), &whole);
        // No more answers than questions, and edits only right before "go on".
        let codes = codes(&whole.0);
        let is_edit = |code: &u8| b"imb-+2eq".contains(code);
        prop_assert!(codes.iter().all(|code| is_edit(code) || b"Ocdty".contains(code)), "{:?}", codes);
        prop_assert!(codes.windows(2).all(|pair| !is_edit(&pair[0]) || is_edit(&pair[1]) || pair[1] == b'c'));
        prop_assert!(!codes.last().is_some_and(is_edit));
        let mut asked = octets.clone();
        asked.drain(..17);
        let questions = self::codes(&asked).iter().filter(|code| !b"DAKQ".contains(code)).count();
        prop_assert!(codes.iter().filter(|code| !is_edit(code)).count() <= questions + 1);
    }
}

/// A mail, sometimes cut short, sometimes with something else in it: codes, and which of the data for each.
fn mail_packets() -> impl Strategy<Value = Vec<(u8, usize)>> {
    let some = |code: u8, range: std::ops::Range<usize>| {
        prop::collection::vec((0usize..4).prop_map(move |which| (code, which)), range)
    };
    let odd = (prop::sample::select(b"MRTLNBEHCDAKUDAKUO?".to_vec()), 0usize..4, any::<prop::sample::Index>());
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let parts = (some(b'D', 0..2), 0usize..4, some(b'R', 1..4), some(b'L', 0..4), some(b'B', 0..3), 0usize..4);
    (parts, cut, prop::option::weighted(0.3, odd)).prop_map(|((macros, from, to, fields, body, end), cut, odd)| {
        let mut packets = [macros, vec![(b'M', from)], to, fields, vec![(b'N', 0)], body, vec![(b'E', end)]].concat();
        if let Some(cut) = cut {
            packets.truncate(cut.index(packets.len()));
        }
        if let Some((code, which, at)) = odd {
            packets.insert(at.index(packets.len() + 1), (code, which));
        }
        packets
    })
}

/// Says all at once and answers nothing.
struct Deaf {
    say: Vec<u8>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Peer for Deaf {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.heard.lock().unwrap().extend_from_slice(bytes);
        let say = std::mem::take(&mut self.say);
        let then = if say.is_empty() { Then::Stay } else { Then::Finish };
        Does { say, then, ..Does::default() }
    }
}

/// The codes of whole packets.
fn codes(mut octets: &[u8]) -> Vec<u8> {
    let mut codes = Vec::new();
    while let Some((head, rest)) = octets.split_first_chunk::<4>() {
        codes.push(rest[0]);
        octets = &rest[u32::from_be_bytes(*head) as usize..];
    }
    codes
}

proptest! {
    #[test]
    fn no_packets_make_it_panic(
        packets in prop::collection::vec(
            (prop::sample::select(b"ODCHMRTLNBEAUQK?".to_vec()), prop::collection::vec(any::<u8>(), 0..20), any::<bool>()), 0..30),
    ) {
        let mut octets = negotiation(OFFER);
        for (code, data, plain) in packets {
            let data = if plain { b"<a@example.org>\0x\0".to_vec() } else { data };
            octets.extend(packet(code, &data));
        }
        Setup::new("").play(Box::new(Deaf { say: octets, heard: Arc::default() }));
    }
}
