#![no_main]
use checkpost_wire::smtp::Stuffer;
use libfuzzer_sys::fuzz_target;

mod slices;

fn stuffed(chunks: &[&[u8]]) -> Vec<u8> {
    let mut stuffer = Stuffer::new();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(stuffer.stuff(chunk).flatten());
    }
    out.extend_from_slice(stuffer.finish());
    out
}

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let wire = stuffed(&[input]);
    assert_eq!(stuffed(&pieces), wire);
    // Whatever the content: a server that takes LF alone for a line end sees one lone dot, at the very end.
    assert!(wire == b".\r\n" || wire.ends_with(b"\r\n.\r\n"));
    let mut lines = wire.split(|octet| *octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.position(|line| line == b".").expect("a final dot");
    assert!(lines.next() == Some(b"") && lines.next().is_none(), "lone dot in line {first}");
});
