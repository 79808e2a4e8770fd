#![no_main]
use checkpost_communigate::envelope::{self, Envelope, MAX_RECIPIENTS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut from = 0;
    let Some(length) = envelope::length(data, &mut from) else { return };
    let mut sliced = 0;
    let found = (0..=data.len()).step_by(7).chain([data.len()]).find_map(|end| envelope::length(&data[..end], &mut sliced));
    assert_eq!(found, Some(length));
    if let Ok(envelope) = Envelope::parse(&data[..length]) {
        assert!(envelope.recipients.len() <= MAX_RECIPIENTS);
        let addresses = envelope.recipients.iter().chain(&envelope.sender);
        assert!(addresses.flatten().all(|octet| !octet.is_ascii_control()));
    }
});
