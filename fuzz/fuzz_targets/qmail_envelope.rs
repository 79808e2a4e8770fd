#![no_main]
use checkpost_qmail::session::{EnvelopeReader, MAX_ADDRESS};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let read = |pieces: &[&[u8]]| {
        let mut reader = EnvelopeReader::default();
        for piece in pieces {
            if reader.feed(piece)? {
                break;
            }
        }
        reader.finish()
    };
    let whole = read(&[input]);
    assert_eq!(read(&pieces), whole);
    if let Ok(envelope) = whole {
        assert!(input.starts_with(envelope.as_bytes()));
        assert!(envelope.recipients().chain([envelope.sender()]).all(|address| address.len() <= MAX_ADDRESS));
    }
});
