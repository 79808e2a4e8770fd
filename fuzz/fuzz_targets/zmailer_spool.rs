#![no_main]
use checkpost_zmailer::spool::{Change, Envelope, MAX_ENVELOPE, Reader, SpoolError};
use checkpost_zmailer::{bounce, session};
use libfuzzer_sys::fuzz_target;

mod slices;

fn read(pieces: &[&[u8]]) -> Result<Envelope, SpoolError> {
    let (mut reader, mut found) = (Reader::default(), false);
    for piece in pieces {
        found = reader.take(piece)?;
        if found {
            break;
        }
    }
    reader.finish(found)
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let whole = read(&[input]);
    assert_eq!(read(&pieces), whole);
    if let Ok(envelope) = &whole {
        assert!(input.starts_with(envelope.as_bytes()) && envelope.as_bytes().len() <= MAX_ENVELOPE + data.len());
        let _ = (envelope.origin(), envelope.mark());
        // What is written is read back.
        let changed = envelope.changed(&Change::default()).expect("nothing was added");
        let again = read(&[&changed]).expect("an envelope of ours");
        assert_eq!(again.as_bytes(), changed);
        assert!(again.recipients().eq(envelope.recipients()) && again.sender() == envelope.sender());
    }
    // The same octets as smtpserver's words, and as a refusal's.
    let mut reader = session::Reader::default();
    let asked: Vec<_> = pieces.iter().flat_map(|piece| reader.take(piece)).collect();
    assert_eq!(asked, session::Reader::default().take(input));
    let printed = session::Verdict::Refuse(String::from_utf8_lossy(input).into_owned()).print();
    let verdict = printed.strip_suffix(b"\n#hungry\n").expect("a whole reply");
    assert!(verdict.starts_with(b"-1 ") && !verdict.contains(&b'\n') && matches!(verdict[3], b'4' | b'5'));
    assert!(bounce::header_of(input).len() <= bounce::MAX_HEADER);
});
