#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::{BareNewline, BdatDecoder, BdatEvent};
use libfuzzer_sys::fuzz_target;

mod slices;

fn decode(policy: BareNewline, limit: u64, chunks: &[&[u8]]) -> (BdatDecoder, BytesMut) {
    let mut decoder = BdatDecoder::new(policy, limit);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for (at, chunk) in chunks.iter().enumerate() {
        let last = at + 1 == chunks.len();
        decoder.begin(chunk.len() as u64, last).expect("in order");
        input.extend_from_slice(chunk);
        input.extend_from_slice(b"NOOP\r\n");
        assert_eq!(decoder.decode(&mut input, &mut out), if last { BdatEvent::End } else { BdatEvent::ChunkEnd });
        assert_eq!(&input[..], b"NOOP\r\n");
        input.clear();
    }
    (decoder, out)
}

fuzz_target!(|data: &[u8]| {
    let (input, mut chunks) = slices::cut(data);
    if chunks.is_empty() {
        chunks.push(input);
    }
    for (policy, limit) in [(BareNewline::Reject, 0), (BareNewline::Normalize, 0), (BareNewline::Normalize, 20)] {
        let (whole, content) = decode(policy, limit, &[input]);
        let (chunked, chunked_content) = decode(policy, limit, &chunks);
        assert_eq!(content, chunked_content);
        assert_eq!(
            (whole.violation(), whole.octets_so_far(), whole.oversize(), whole.normalized()),
            (chunked.violation(), chunked.octets_so_far(), chunked.oversize(), chunked.normalized()),
        );
        if policy == BareNewline::Reject && whole.violation().is_none() {
            assert_eq!(&content[..], input);
        }
    }
});
