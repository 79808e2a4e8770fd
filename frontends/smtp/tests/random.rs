//! Whatever the client and the next hop say, in whatever order: no panic, no loop, nothing accepted
//! that was not handed on.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use checkpost_adapter::conformance::{Does, Network, Peer, Slicing, Stage, Then};
use checkpost_adapter::session::Target;
use checkpost_core::config::Origins;
use checkpost_core::{Mail, Outcome, Verdict};
use checkpost_smtp::{Protocol, Proxy};
use common::{abilities, settings};
use proptest::prelude::*;

const CLIENT: [&str; 22] = [
    "EHLO c\r\n",
    "LHLO c\r\n",
    "HELO c\r\n",
    "MAIL FROM:<a@x>\r\n",
    "RCPT TO:<b@x>\r\n",
    "RCPT TO:<c@y>\r\n",
    "DATA\r\n",
    "BDAT 3\r\nabc",
    "BDAT 4 LAST\r\nA\r\n\r",
    "A: 1\r\n\r\nx\r\n.\r\n",
    ".\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN\r\n",
    "AUTH LOGIN am9l\r\n",
    "*\r\n",
    "XCLIENT ADDR=10.0.0.1\r\n",
    "XFORWARD NAME=a\r\n",
    "VRFY x\n",
    "\r\n",
];
const HOP: [&str; 14] = [
    "220 hop\r\n",
    "250 ok\r\n",
    "250-hop\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-AUTH PLAIN\r\n250 XFORWARD NAME ADDR\r\n",
    "250-hop\r\n250 STARTTLS\r\n",
    "354 go\r\n",
    "334 \r\n",
    "235 in\r\n",
    "421 bye\r\n",
    "450 later\r\n",
    "550 no\r\n",
    "nonsense\r\n",
    "250-half\r\n",
    "999 x\r\n",
    "2",
];

/// Says these, one at each hearing or waiting.
struct Babbler {
    words: Vec<Does>,
    next: usize,
    at_hearing: bool,
}

impl Babbler {
    fn word(&mut self) -> Does {
        let word = self.words.get(self.next).cloned().unwrap_or_else(Does::hangup);
        self.next += 1;
        word
    }
}

impl Peer for Babbler {
    fn hear(&mut self, _: &[u8]) -> Does {
        if self.at_hearing { self.word() } else { Does::default() }
    }

    fn idle(&mut self) -> Does {
        self.word()
    }
}

/// Each connection says the next of these.
struct Babel(Vec<Vec<Does>>);

impl Network for Babel {
    fn connect(&mut self, _: &Target) -> Result<Box<dyn Peer>, String> {
        let words = self.0.pop().ok_or("nobody is left")?;
        Ok(Box::new(Babbler { words, next: 0, at_hearing: true }))
    }
}

fn does(words: &'static [&'static str]) -> impl Strategy<Value = Does> {
    let word = prop_oneof![
        8 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    (word, 0..40_u8).prop_map(|(say, then)| Does {
        say,
        then: match then {
            0 => Then::Hangup,
            1 => Then::Finish,
            _ => Then::Stay,
        },
        ..Does::default()
    })
}

/// Half of them begin as they should: else they would seldom come to anything.
fn talk(
    beginning: &'static [&'static str],
    words: &'static [&'static str],
    most: usize,
) -> impl Strategy<Value = Vec<Does>> {
    (any::<bool>(), 0..=beginning.len(), prop::collection::vec(does(words), 0..most)).prop_map(
        move |(sane, count, rest)| {
            let count = if sane { count } else { 0 };
            beginning[..count].iter().map(Does::say).chain(rest).collect()
        },
    )
}

fn slicing() -> impl Strategy<Value = Slicing> {
    prop_oneof![Just(Slicing::Whole), Just(Slicing::Bytes), any::<u64>().prop_map(Slicing::Seeded)]
}

fn lines() -> impl Strategy<Value = String> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(client, hop, auth, tls)| {
        let word = |lmtp| if lmtp { "lmtp" } else { "smtp" };
        format!(
            "protocol = \"{}\"\nhop_protocol = \"{}\"\nauth = {auth}\nauth_without_tls = true\nhop_tls = \"{}\"\n\
             next_hop = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\ntrusted = [\"192.0.2.0/24\"]\nmax_size = \"100 B\"\n",
            word(client),
            word(hop),
            if tls { "opportunistic" } else { "off" }
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn babel(
        lines in lines(),
        slicing in slicing(),
        client in talk(&["EHLO c\r\n", "MAIL FROM:<a@x>\r\n", "RCPT TO:<b@x>\r\n", "RCPT TO:<c@x>\r\n", "DATA\r\n", "A: 1\r\n\r\nx\r\n.\r\n"], &CLIENT, 25),
        hops in prop::collection::vec(talk(&["220 hop\r\n", "250-hop\r\n250 PIPELINING\r\n", "250 ok\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 taken\r\n"], &HOP, 20), 0..6),
        drain_at in prop::option::of(0..60_usize),
        disk in prop::option::of(0..20_usize),
        memory_limit in 0..12_usize,
        split in any::<bool>(),
    ) {
        let mut settings = settings(&lines);
        settings.memory_limit = memory_limit;
        settings.starttls = true;
        let judge = move |mail: &Mail| {
            let mut outcomes = vec![Outcome::deliver(); mail.envelope.recipients.len()];
            if split && let Some(first) = outcomes.first_mut() {
                let field = checkpost_core::edit::HeaderField::parse("X-A: 1").unwrap();
                first.edits = vec![checkpost_core::Edit::AddHeader(field)].into();
            }
            Verdict { outcomes, findings: Vec::new().into(), score: 0.0 }
        };
        let protocol: Protocol = settings.protocol;
        let mut stage = Stage::new(abilities(protocol), Box::new(judge), Box::new(Babel(hops)), slicing);
        stage.drain_at = drain_at;
        stage.disk = disk.unwrap_or(usize::MAX);
        stage.bound = 20_000;
        let peer = checkpost_smtp::Peer {
            address: Some("192.0.2.1".parse().unwrap()), port: None, tls: false, refuse: None, pressed: None,
        };
        let reports = Box::new(|report: checkpost_adapter::report::Report<'_>| {
            assert_eq!(report.recipients.len(), report.fates.len());
        });
        let mut proxy = Proxy::new(Arc::new(settings), Arc::new(Origins::default()), peer, stage.now(), reports);
        stage.play(&mut proxy, Box::new(Babbler { words: client, next: 0, at_hearing: false }));
    }
}
