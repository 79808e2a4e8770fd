#![no_main]
use checkpost_communigate::string;
use checkpost_communigate::submitted::Strip;
use libfuzzer_sys::fuzz_target;

mod slices;

fn strip(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut strip, mut out) = (Strip::new(&[b"x-mark"]), Vec::new());
    pieces.iter().for_each(|piece| strip.take(piece, &mut out));
    strip.finish(&mut out);
    out
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let _ = string::read(input);
    let (written, whole) = string::write(input, 100);
    let (read, rest) = string::read(&written).expect("what is written can be read");
    assert!(written.len() <= 100 && rest.is_empty() && input.starts_with(&read) && whole == (read == input));
    // Whoever reads a header of LF lines finds no envelope in what is left.
    let left = strip(&[input]);
    assert_eq!(strip(&pieces), left);
    for line in left.split(|octet| *octet == b'\n').take_while(|line| !matches!(*line, b"" | b"\r")) {
        assert!(!line.to_ascii_lowercase().starts_with(b"envelope-to:"));
    }
});
