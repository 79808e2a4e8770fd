#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::{LineEvent, Lines};
use libfuzzer_sys::fuzz_target;

mod slices;

const LIMIT: usize = 12;

fn events(mut lines: Lines, pieces: &[&[u8]]) -> Vec<LineEvent> {
    let mut buffer = BytesMut::new();
    let mut seen = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match lines.next(&mut buffer) {
                LineEvent::Incomplete => break,
                LineEvent::Line(line) => {
                    assert!(line.len() <= LIMIT && !line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
                    seen.push(LineEvent::Line(line));
                }
                event => seen.push(event),
            }
        }
        assert!(buffer.len() <= LIMIT + 1);
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    for lines in [Lines::new(LIMIT), Lines::accepting_lf(LIMIT)] {
        assert_eq!(events(lines.clone(), &pieces), events(lines, &[input]));
    }
});
