//! Random dialogues: whatever is said, in whatever order and slicing, a session comes to its end, and nothing that every rule
//! refuses is ever told to be clean.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::Slicing;
use checkpost_core::{Kind, Mail, Outcome, Verdict};
use checkpost_scan::Protocol;
use common::{Setup, by_rules, chunks, exim, finding};
use proptest::prelude::*;

/// Pieces of what clients of all three say, whole and broken.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let mail = b"Subject: a\n\nbody\n".to_vec();
    let shown = exim("a@x", &["b@x"], &mail);
    let known = vec![
        b"zPING\0".to_vec(),
        b"zIDSESSION\0".to_vec(),
        b"nVERSION\n".to_vec(),
        [&b"zINSTREAM\0"[..], &chunks(&mail, 5)].concat(),
        [&b"nINSTREAM\n"[..], &chunks(&shown, 50)].concat(),
        b"zINSTREAM\0\0\0\0\0".to_vec(),
        b"zINSTREAM\0\0\0\xff\xffabc".to_vec(),
        b"zFILDES\0\0".to_vec(),
        b"SCAN /scan/a\n".to_vec(),
        b"zSCAN /scan/none\0".to_vec(),
        b"zEND\0".to_vec(),
        b"CHECK SPAMC/1.2\r\nContent-length: 17\r\n\r\n".to_vec(),
        b"PROCESS SPAMC/1.5\r\nContent-length: 5\r\n\r\n".to_vec(),
        b"REPORT SPAMC/1.3\r\n\r\n".to_vec(),
        b"TELL SPAMC/1.5\r\n\r\n".to_vec(),
        b"POST /checkv2 HTTP/1.1\r\nContent-Length: 17\r\nRcpt: b@x\r\n\r\n".to_vec(),
        b"POST /checkv2 HTTP/1.0\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"CHECK RSPAMC/1.3\r\nContent-length: 5\r\n\r\n".to_vec(),
        b"GET /ping HTTP/1.1\r\n\r\n".to_vec(),
        mail,
        shown,
    ];
    prop_oneof![4 => prop::sample::select(known), 1 => prop::collection::vec(any::<u8>(), 0..20)]
}

/// As a client sees "it may pass".
fn is_clean(protocol: Protocol, heard: &str) -> bool {
    match protocol {
        Protocol::Clamd => heard.contains(": OK|") || heard.contains(": OK\n"),
        Protocol::Spamd => heard.contains("Spam: False"),
        Protocol::Rspamd => heard.contains("no action") && !heard.contains("\"scanned\""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_refused_is_ever_clean(
        protocol in prop::sample::select(vec![Protocol::Clamd, Protocol::Spamd, Protocol::Rspamd]),
        said in prop::collection::vec(words(), 0..8),
        lines in any::<bool>(),
        outcome in 0..4,
        seed in any::<u64>(),
        memory_limit in 1usize..40,
        disk in prop::sample::select(vec![usize::MAX, 10]),
        ends in any::<bool>(),
        drain_at in prop::option::of(0usize..20),
    ) {
        let text = if lines { "envelope_lines = true\n" } else { "" };
        let paths = if protocol == Protocol::Clamd { "paths = [\"/scan\"]\n" } else { "" };
        let mut setup = Setup::new(protocol, &format!("{text}{paths}max_size = \"200 B\"\n")).sliced(Slicing::Seeded(seed));
        setup.link.memory_limit = memory_limit;
        setup.disk = disk;
        setup.ends = ends;
        setup.drain_at = drain_at;
        setup.descriptors = vec![b"Subject: b\n\n".to_vec(); 2];
        setup.named = vec![("/scan/a".into(), b"Subject: c\n\n".to_vec())];
        let unscanned = checkpost_core::Finding::unscanned(
            &"clamd".into(), checkpost_core::finding::Unscanned::Timeout, std::time::Duration::ZERO, "no answer",
        );
        let setup = match outcome {
            0 => setup.judged(by_rules(vec![finding(Kind::Malware, "OK")])),
            1 => setup.judged(by_rules(vec![unscanned])),
            2 => setup.judged(|mail: &Mail| {
                let discard = Outcome { disposition: checkpost_core::Disposition::Discard, ..Outcome::deliver() };
                Verdict::uniform(&discard, mail.envelope.recipients.len(), Vec::new())
            }),
            _ => setup.judged(by_rules(vec![finding(Kind::Spam { score: 99.0 }, "False ; 0.0")])),
        };
        let (heard, _) = setup.say(said.concat());
        prop_assert!(!is_clean(protocol, &heard), "{heard}");
    }
}
