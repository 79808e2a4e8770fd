#![no_main]
//! What clients of clamd, spamd and rspamd send, in any slicing; and Exim's lines before a mail.
use bytes::BytesMut;
use checkpost_wire::clamd::server::{Chunk, Chunks, take_command};
use checkpost_wire::mbox::{self, Found};
use checkpost_wire::{rspamd, spamd};
use libfuzzer_sys::fuzz_target;

mod slices;

fuzz_target!(|data: &[u8]| {
    let (input, cut) = slices::cut(data);

    let commands = |pieces: &[&[u8]]| {
        let (mut buffer, mut all) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Ok(Some(request)) = take_command(&mut buffer) {
                all.push(request);
            }
        }
        all
    };
    assert_eq!(commands(&[input]), commands(&cut));

    let stream = |pieces: &[&[u8]], stretch: usize| {
        let (mut buffer, mut content, mut chunks) = (BytesMut::new(), Vec::new(), Chunks::default());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match chunks.take(&mut buffer, stretch) {
                    Chunk::More => break,
                    Chunk::Octets(octets) => content.extend_from_slice(&octets),
                    Chunk::End => return (content, true),
                }
            }
        }
        (content, false)
    };
    assert_eq!(stream(&[input], 1), stream(&cut, 1));

    let (mut first, mut second) = (spamd::Reader::default(), rspamd::Reader::default());
    let (mut buffer, mut spam, mut http) = (Vec::new(), Ok(None), Ok(None));
    for piece in &cut {
        buffer.extend_from_slice(piece);
        if spam == Ok(None) {
            spam = first.read(&buffer);
        }
        if http == Ok(None) {
            http = second.read(&buffer);
        }
    }
    // A line that cannot begin a request may be told before its end has come.
    if spam.is_ok() {
        assert_eq!(spam, spamd::Reader::default().read(input));
    }
    assert_eq!(http, rspamd::Reader::default().read(input));

    if let Found::Lines(lines) = mbox::find(input, true) {
        assert!(lines.length <= input.len() && input.starts_with(b"From "));
    }
});
