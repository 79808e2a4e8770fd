#![no_main]
use checkpost_communigate::session::{Event, MAX_LINE, Reply, Session};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let mut session = Session::default();
    let whole = session.take(input);
    let mut sliced = Session::default();
    let events: Vec<Event> = pieces.iter().flat_map(|piece| sliced.take(piece)).collect();
    assert_eq!(events, whole);
    let text = String::from_utf8_lossy(input).into_owned();
    for event in whole {
        let lines = match event {
            Event::Say(line) => vec![line],
            Event::Check(number, path) => {
                assert!(!path.is_empty() && !path.contains(&0));
                session.answer(&number, &Reply::Error(text.clone()))
            }
        };
        for line in lines {
            assert!(line.len() <= MAX_LINE && line.ends_with(b"\n"));
            assert!(line[..line.len() - 1].iter().all(|octet| (b' '..=b'~').contains(octet)));
        }
    }
    assert_eq!(session.open(), 0);
});
