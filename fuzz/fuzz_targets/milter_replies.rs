#![no_main]
use bytes::{Bytes, BytesMut};
use checkpost_wire::milter::{Choice, MAX_DATA, Packet, Reply, Said, take_packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&[kind, cut, index], octets)) = data.split_first_chunk::<3>() else { return };
    let (first, second) = octets.split_at(usize::from(cut).min(octets.len()));
    let index = u32::from(index) << 23;

    // As a mail server: whatever comes.
    let packet = Packet { code: kind, data: Bytes::copy_from_slice(octets) };
    let _ = Said::parse(packet);
    if let Some(choice) = Choice::parse(&Bytes::copy_from_slice(octets)) {
        let mut out = BytesMut::new();
        choice.encode(&mut out);
        let packet = take_packet(&mut out, MAX_DATA).expect("a packet").expect("a whole one");
        assert_eq!(Choice::parse(&packet.data), Some(choice));
    }

    // As a filter: whatever is said is one reply that keeps to its lines.
    let repeated;
    let (first, second) = if kind >= 0x80 && !octets.is_empty() {
        // Long enough to be cut.
        repeated = octets.repeat(MAX_DATA / octets.len() + 1);
        (first, &repeated[..])
    } else {
        (first, second)
    };
    let text = String::from_utf8_lossy(octets);
    match kind % 8 {
        0 => {
            for said in said(Reply::Code(&text)) {
                match said {
                    Said::Plain(code) => assert_eq!(code, b't'),
                    Said::Code(lines) => is_refusal(&lines),
                    other => panic!("{other:?}"),
                }
            }
        }
        1 => is_field(said(Reply::AddHeader { name: first, value: second }), 0),
        2 => is_field(said(Reply::InsertHeader { index, name: first, value: second }), index),
        3 => is_field(said(Reply::ChangeHeader { index, name: first, value: second }), index),
        4 => {
            let pieces = said(Reply::ReplaceBody(second));
            assert_eq!(pieces.len(), second.len().div_ceil(MAX_DATA).max(1));
            let joined: Vec<u8> = pieces
                .into_iter()
                .flat_map(|said| match said {
                    Said::Body(piece) => piece.to_vec(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(joined, second);
        }
        5 => is_words(said(Reply::AddRecipient { address: first, parameters: Some(second) })),
        6 => is_words(said(Reply::ChangeSender { address: first, parameters: Some(second) })),
        _ => {
            is_words(said(Reply::DeleteRecipient(first)));
            is_words(said(Reply::Quarantine(second)));
        }
    }
});

fn said(reply: Reply<'_>) -> Vec<Said> {
    let mut out = BytesMut::new();
    reply.encode(&mut out);
    let mut said = Vec::new();
    while let Some(packet) = take_packet(&mut out, MAX_DATA + 1).expect("a packet of ours") {
        said.push(Said::parse(packet).expect("a reply that Postfix takes"));
    }
    assert!(out.is_empty());
    said
}

fn is_refusal(lines: &[u8]) {
    let lines = std::str::from_utf8(lines).expect("ASCII");
    let all: Vec<&str> = lines.split("\r\n").collect();
    let code = &lines[..3];
    assert!(matches!(code.as_bytes(), [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']) && all.len() <= 32);
    for (at, line) in all.iter().enumerate() {
        assert!(line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
        assert_eq!((&line[..3], &line[3..4]), (code, if at + 1 == all.len() { " " } else { "-" }));
        assert!(!line.replace("%%", "").contains('%'));
        let first = line.as_bytes().get(4);
        assert!(first.is_none_or(|first| !first.is_ascii_digit() || *first == code.as_bytes()[0]), "{line:?}");
    }
}

fn is_field(said: Vec<Said>, index: u32) {
    let [Said::Field(_, found, name, value)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(*found, index);
    is_word(name);
    assert!(!value.contains(&b'\r'));
    for (at, _) in value.iter().enumerate().filter(|(_, octet)| **octet == b'\n') {
        assert!(matches!(value.get(at + 1), Some(b' ' | b'\t')), "{value:?}");
    }
}

fn is_words(said: Vec<Said>) {
    let [Said::Text(_, first, parameters)] = &said[..] else { panic!("{said:?}") };
    is_word(first);
    if let Some(parameters) = parameters {
        is_word(parameters);
    }
}

fn is_word(text: &[u8]) {
    assert!(!text.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)), "{text:?}");
}
