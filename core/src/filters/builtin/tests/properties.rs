//! Mails made by chance.

use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::super::*;
use super::evasions::*;
use super::{base64, eicar};
use crate::content::mime::budget::Budget;
use crate::content::mime::{self, Item, Problem, Visitor};

/// How an octet string is written into a part.
#[derive(Debug, Clone, Copy)]
enum Coding {
    Plain,
    Base64,
    Quoted,
}

fn part(coding: Coding, bytes: &[u8]) -> String {
    match coding {
        Coding::Plain => format!("Content-Type: text/plain\r\n\r\n{}", String::from_utf8_lossy(bytes)),
        Coding::Base64 => format!("Content-Transfer-Encoding: base64\r\n\r\n{}", base64(bytes)),
        Coding::Quoted => {
            let text: String = bytes.iter().map(|o| format!("={o:02X}")).collect();
            let lines: Vec<_> = text.as_bytes().chunks(72).map(String::from_utf8_lossy).collect();
            format!("Content-Transfer-Encoding: Quoted-Printable\r\n\r\n{}", lines.join("=\r\n"))
        }
    }
}

/// A wrapping of a part into a larger one.
#[derive(Debug, Clone, Copy)]
enum Wrap {
    Multipart,
    Message,
    EncodedMessage,
    Zip,
}

fn codings() -> impl Strategy<Value = Coding> {
    prop_oneof![Just(Coding::Plain), Just(Coding::Base64), Just(Coding::Quoted)]
}

fn wraps() -> impl Strategy<Value = Wrap> {
    prop_oneof![Just(Wrap::Multipart), Just(Wrap::Message), Just(Wrap::EncodedMessage), Just(Wrap::Zip)]
}

fn wrap(wrap: Wrap, depth: usize, inner: &str) -> String {
    match wrap {
        Wrap::Multipart => format!(
            "Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n\r\nx\r\n--b{depth}\r\n{inner}\r\n--b{depth}--\r\n"
        ),
        Wrap::Message => format!("Content-Type: message/rfc822\r\n\r\n{inner}"),
        Wrap::EncodedMessage => attachment("mail", format!("Subject: x\r\n{inner}").as_bytes())
            .replace("application/octet-stream", "message/rfc822"),
        Wrap::Zip => attachment(
            "a.zip",
            &zip(&[(
                "m.eml",
                format!(
                    "MIME-Version: 1.0\r\nContent-Type: multipart/x; boundary=z{depth}\r\n\r\n--z{depth}\r\n{inner}"
                )
                .as_bytes(),
            )]),
        ),
    }
}

struct Collected(Vec<(String, Vec<u8>)>);

impl Visitor for Collected {
    fn item(&mut self, item: &Item<'_>) {
        self.0.push((item.path.to_owned(), Vec::new()));
    }
    fn data(&mut self, _item: &Item<'_>, data: &[u8], offset: u64) {
        let (_, bytes) = self.0.last_mut().unwrap();
        bytes.truncate(offset as usize);
        bytes.extend_from_slice(data);
    }
    fn raw(&mut self, _path: &str, _data: &[u8]) {}
    fn macros(&mut self, _item: &Item<'_>) {}
    fn problem(&mut self, path: &str, problem: Problem) {
        panic!("{path}: {problem:?}");
    }
}

fn parts(mail: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut collected = Collected(Vec::new());
    let mut budget = Budget::new(Unpacking::default(), Instant::now() + Duration::from_secs(60), Arc::default());
    mime::walk(&Bytes::copy_from_slice(mail).into(), &mut budget, &mut collected).unwrap();
    collected.0
}

/// Line ends as they may differ between readers at a part's end.
fn trimmed(bytes: &[u8]) -> Vec<u8> {
    bytes.trim_ascii_end().to_vec()
}

fn oracle(message: &mail_parser::Message<'_>, leaves: &mut Vec<Vec<u8>>) {
    for part in &message.parts {
        match &part.body {
            PartType::Multipart(_) => {}
            PartType::Message(inner) => oracle(inner, leaves),
            _ => leaves.push(trimmed(part.contents())),
        }
        // Only the walk is compared here: names have their own table.
        let _ = part.attachment_name();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn arbitrary_octets_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        findings(&bytes);
        findings(&mixed(&[attachment("a.zip", &bytes)]));
    }

    #[test]
    fn a_small_alphabet_never_panics(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("Content-Type: multipart/mixed; boundary=b\r\n"), Just("Content-Type: message/rfc822\n"),
                Just("Content-Transfer-Encoding: base64\n"), Just("Content-Transfer-Encoding: quoted-printable\r\n"),
                Just("\r\n"), Just("\n"), Just("--b"), Just("--b--"), Just("\n--b\n"), Just("="), Just("=\n"), Just("PK\u{3}\u{4}"),
                Just("PK\u{5}\u{6}"), Just("QUJD"), Just("begin 644 x\n"), Just("end\n"), Just("\0"), Just(" "),
            ],
            0..60,
        )
    ) {
        findings(pieces.concat().as_bytes());
    }

    #[test]
    fn a_damaged_archive_never_panics_and_is_never_endless(
        at in 0usize..400, octet in any::<u8>(), cut in 0usize..400,
    ) {
        let mut bytes = zip(&[("a.txt", &[b'a'; 300]), ("b", b"xyz"), ("c/d.zip", &zip(&[("e", b"f")]))]);
        let length = bytes.len();
        bytes[at % length] = octet;
        bytes.truncate(length - cut % 3 * (cut % length) / 3);
        findings(&mixed(&[attachment("a.zip", &bytes)]));
    }

    #[test]
    fn what_is_put_in_is_found(
        coding in codings(), around in proptest::collection::vec(wraps(), 0..6), before in 0usize..400, block in 0usize..3,
    ) {
        // At the borders of what decoders and windows take at a time, too.
        let before = before + [0, (48 << 10) / 4 * 3 - 200, (256 << 10) - 600][block];
        let bytes = [vec![b'y'; before], eicar().into_bytes(), b"zz".to_vec()].concat();
        let mut mail = part(coding, &bytes);
        for (depth, with) in around.iter().enumerate() {
            mail = wrap(*with, depth, &mail);
        }
        let mail = format!("Subject: x\r\n{mail}\r\n");
        let found = findings(mail.as_bytes());
        prop_assert!(found.iter().any(|f| f.kind == crate::finding::Kind::Malware), "{:?} {:?}", around, shown(&found));
    }

    #[test]
    fn what_mail_parser_decodes_is_decoded_here(
        bodies in proptest::collection::vec((codings(), "[a-zA-Z0-9 .,=]{0,200}"), 1..5),
        nest in any::<bool>(),
    ) {
        let parts_in: Vec<String> = bodies.iter().map(|(coding, body)| part(*coding, body.as_bytes())).collect();
        let mut mail = mixed(&parts_in);
        if nest {
            let inner = String::from_utf8(mail).unwrap().replace("=_b", "=_inner");
            mail = mixed(&[text(), format!("Content-Type: message/rfc822\r\n\r\n{inner}")]);
        }
        let mut expected = Vec::new();
        oracle(&MessageParser::default().parse(&mail).unwrap(), &mut expected);
        let ours: Vec<Vec<u8>> = parts(&mail).iter().map(|(_, bytes)| trimmed(bytes)).collect();
        for leaf in &expected {
            prop_assert!(ours.contains(leaf), "{:?} not in {:?}", String::from_utf8_lossy(leaf), ours);
        }
        prop_assert_eq!(ours.len(), expected.len());
    }
}
