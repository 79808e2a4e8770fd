//! A stand-in for ZMailer's smtpserver and router, by the name that it is called by; see `lab/zmailer`.

use std::io;
use std::path::PathBuf;

use checkpost_tests::zmailer;

fn main() -> io::Result<()> {
    let mut words = std::env::args_os().map(PathBuf::from);
    let name = words.next().unwrap_or_default();
    let words: Vec<PathBuf> = words.collect();
    match (name.file_name().and_then(|name| name.to_str()), &words[..]) {
        (Some("smtpserver"), [flag]) if flag.as_os_str() == "-V" => zmailer::version(),
        (Some("smtpserver"), []) => zmailer::smtpserver(),
        (Some("router"), []) => zmailer::router(),
        (Some("router"), [file]) => zmailer::deliver(file),
        _ => Err(io::Error::other("called as smtpserver, smtpserver -V, router or router FILE")),
    }
}
