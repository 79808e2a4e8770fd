#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::ProxyHeader;
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let mut whole = BytesMut::from(input);
    let expected = ProxyHeader::parse(&mut whole);
    let mut buffer = BytesMut::new();
    let mut seen = Ok(None);
    let mut fed = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        fed += piece.len();
        seen = ProxyHeader::parse(&mut buffer);
        match seen {
            Ok(None) => assert!(buffer.len() <= 536, "unbounded"),
            _ => break,
        }
    }
    assert_eq!(seen, expected);
    if let Ok(Some(_)) = seen {
        buffer.extend_from_slice(&input[fed..]);
        assert_eq!(buffer, whole);
    }
});
