#![no_main]
use bytes::BytesMut;
use checkpost_wire::milter::{Command, CommandError, FrameError, MAX_PACKET, guess_protocol, take_packet};
use libfuzzer_sys::fuzz_target;

mod slices;

type Seen = (Vec<Result<Command, CommandError>>, Option<FrameError>, usize);

fuzz_target!(|data: &[u8]| {
    let (input, pieces) = slices::cut(data);
    let whole = read(&[input]);
    assert_eq!(read(&pieces), whole);
    if guess_protocol(input).is_some() {
        // What is certainly something else is refused before anything of it is waited for.
        assert!(matches!(whole, (ref seen, Some(FrameError::TooLong(_)), _) if seen.is_empty()));
    }
    for command in whole.0.into_iter().flatten() {
        match &command {
            Command::Macros(macros) => {
                for (name, _) in macros.iter() {
                    if let Ok(name) = std::str::from_utf8(name) {
                        assert!(macros.get(name).is_some());
                    }
                }
            }
            Command::Mail(path) | Command::Recipient(path) => {
                assert!(path.address().len() <= path.raw.len());
                assert!(path.parameters.iter().all(|parameter| !parameter.is_empty()));
                let _ = path.parameter("SIZE");
            }
            _ => {}
        }
        let mut written = BytesMut::new();
        command.encode(&mut written);
        let packet = take_packet(&mut written, MAX_PACKET + 8).expect("a packet").expect("a whole one");
        assert!(written.is_empty());
        assert_eq!(Command::parse(packet), Ok(command));
    }
});

/// All commands, the error that ended them, and how much is left over.
fn read(pieces: &[&[u8]]) -> Seen {
    let mut input = BytesMut::new();
    let mut seen = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        input.extend_from_slice(piece);
        loop {
            match take_packet(&mut input, MAX_PACKET) {
                Ok(Some(packet)) => seen.push(Command::parse(packet)),
                Ok(None) => break,
                Err(error) => {
                    let unread: usize = pieces[at + 1..].iter().map(|piece| piece.len()).sum();
                    return (seen, Some(error), input.len() + unread);
                }
            }
        }
    }
    (seen, None, input.len())
}
