//! A stand-in for qmail-smtpd, qmail-inject and qmail-send, by the name that it is called by; see `lab/qmail/stand_in.rs`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use checkpost_tests::qmail;

fn main() -> io::Result<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = Path::new(words[0]).file_name().and_then(|name| name.to_str());
    match (name, &words[1..]) {
        (Some("qmail-smtpd"), []) => qmail::smtpd().map(|()| ExitCode::SUCCESS),
        (Some("qmail-inject"), ["-f", sender, recipient]) => qmail::inject(sender, recipient).map(ExitCode::from),
        (Some("qmail-send"), []) => qmail::send().map(|()| ExitCode::SUCCESS),
        _ => Err(io::Error::other("called as qmail-smtpd, qmail-inject -f SENDER RECIPIENT, or qmail-send")),
    }
}
