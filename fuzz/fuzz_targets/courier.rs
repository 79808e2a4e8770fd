#![no_main]
use checkpost_courier::control::Control;
use checkpost_courier::map::Envelope;
use checkpost_courier::session::{MAX_REPLY_LINE, Reader, Reply};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let whole = Reader::default().take(input);
    let (mut reader, mut found) = (Reader::default(), Ok(None));
    for piece in pieces {
        found = reader.take(piece);
        if found != Ok(None) {
            break;
        }
    }
    assert_eq!(found, whole);
    if let Ok(control) = Control::parse(input) {
        let open = control.recipients.iter().filter(|recipient| !recipient.finished).count();
        let envelope = Envelope::new(vec![control.clone(), control]);
        let request = envelope.request("fuzz");
        assert_eq!(request.recipients.len(), 2 * open);
        assert!(request.encode().is_ok(), "no address has a NUL");
    }
    let printed = Reply::Refuse(String::from_utf8_lossy(input).into_owned()).print();
    for line in printed.strip_suffix(b"\n").expect("a reply ends").split(|octet| *octet == b'\n') {
        assert!(matches!(line[0], b'4' | b'5') && line.len() <= MAX_REPLY_LINE);
    }
});
