#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::{BareNewline, DataDecoder, DataEvent, Stuffer};
use libfuzzer_sys::fuzz_target;

mod slices;

fn decode(policy: BareNewline, limit: u64, pieces: &[&[u8]]) -> (DataDecoder, BytesMut, BytesMut) {
    let mut decoder = DataDecoder::new(policy, limit);
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        if decoder.decode(&mut input, &mut out) == DataEvent::More {
            assert!(input.is_empty());
        }
    }
    (decoder, out, input)
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    for (policy, limit) in [(BareNewline::Reject, 0), (BareNewline::Normalize, 0), (BareNewline::Normalize, 20)] {
        let (whole, content, rest) = decode(policy, limit, &[input]);
        let (sliced, sliced_content, sliced_rest) = decode(policy, limit, &pieces);
        assert_eq!((&content, &rest), (&sliced_content, &sliced_rest));
        assert_eq!(
            (whole.ended(), whole.violation(), whole.octets(), whole.oversize(), whole.normalized()),
            (sliced.ended(), sliced.violation(), sliced.octets(), sliced.oversize(), sliced.normalized()),
        );
        if whole.ended() {
            let consumed = &input[..input.len() - rest.len()];
            assert!(consumed == b".\r\n" || consumed.ends_with(b"\r\n.\r\n"));
        }
        if limit == 0 && whole.ended() && whole.violation().is_none() {
            // No bare newline is left, and the content survives the way out.
            for (at, &octet) in content.iter().enumerate() {
                assert!(octet != b'\n' || (at > 0 && content[at - 1] == b'\r'));
                assert!(octet != b'\r' || content.get(at + 1) == Some(&b'\n'));
            }
            let mut stuffer = Stuffer::new();
            let mut wire: Vec<u8> = stuffer.stuff(&content).flatten().copied().collect();
            wire.extend_from_slice(stuffer.finish());
            let (again, again_content, again_rest) = decode(BareNewline::Reject, 0, &[&wire]);
            assert!(again.ended() && again.violation().is_none() && again_rest.is_empty());
            assert_eq!(again_content, content);
        }
    }
});
