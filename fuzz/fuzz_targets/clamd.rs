#![no_main]
use checkpost_wire::clamd::{Answer, AnswerReader, Asked, parse_answer, parse_version};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let read = |pieces: &[&[u8]]| {
        let mut reader = AnswerReader::default();
        for (index, piece) in pieces.iter().enumerate() {
            match reader.feed(piece) {
                Ok(false) => {}
                // Bytes behind the end are trailing, in this piece or the next.
                Ok(true) if pieces[index + 1..].iter().all(|rest| rest.is_empty()) => return Some(reader.answer().to_vec()),
                Ok(true) | Err(_) => return None,
            }
        }
        None
    };
    let whole = read(&[input]);
    assert_eq!(read(&pieces), whole);
    for asked in [Asked::Stream, Asked::Descriptor] {
        let said = parse_answer(input, asked, None);
        if said == Ok(Answer::Clean) {
            assert!(input == b"stream: OK" || input.starts_with(b"fd[") && input.ends_with(b"]: OK"));
        }
    }
    let _ = parse_version(input);
});
