#![no_main]
use bytes::BytesMut;
use checkpost_wire::smtp::Command;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    match Command::parse(line) {
        // XCLIENT and XFORWARD may be cut or split when written: the target `attributes` has them.
        Ok(Command::Xclient(_) | Command::Xforward(_)) => {}
        Ok(command) => {
            let mut out = BytesMut::new();
            command.write_to(&mut out);
            let line = out.strip_suffix(b"\r\n").expect("ends in CRLF");
            assert!(!line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
            assert_eq!(Command::parse(line), Ok(command));
        }
        Err(error) => assert_eq!(error.reply().0 / 100, 5),
    }
});
