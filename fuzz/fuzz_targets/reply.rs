#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::{Extensions, Ours, PeerReply, ReplyParser, ReplySyntax};
use libfuzzer_sys::fuzz_target;

mod slices;

fn replies(pieces: &[&[u8]]) -> (Vec<PeerReply>, Option<ReplySyntax>) {
    let mut parser = ReplyParser::new();
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.push(&mut buffer) {
                Ok(Some(reply)) => seen.push(reply),
                Ok(None) => break,
                Err(error) => return (seen, Some(error)),
            }
        }
    }
    (seen, None)
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let whole = replies(&[input]);
    assert_eq!(replies(&pieces), whole);
    for reply in whole.0 {
        let _ = (reply.enhanced(), reply.text());
        for line in Extensions::parse(&reply).for_client(&Ours { auth: true, ..Ours::default() }) {
            assert!(!line.bytes().any(|octet| octet.is_ascii_control()));
        }
        let mut out = BytesMut::new();
        reply.write_to(&mut out);
        let (again, error) = replies(&[&out]);
        // Writing adds the CR and blank that a peer may leave out: only then can a line at the limit get too long.
        if error.is_none() {
            assert_eq!((again.len(), again[0].code, again[0].lines.len()), (1, reply.code, reply.lines.len()));
        } else {
            assert_eq!(error, Some(ReplySyntax::TooLong));
        }
    }
});
