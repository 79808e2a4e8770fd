//! Lines for the log. As a program of smtpserver's, standard error is the stream that verdicts go into, so they go to
//! syslog; else to standard error, which is the journal's or the router's log.

use std::fmt::Display;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

/// The system log's socket (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// Facility mail, severity warning (RFC 5424 section 6.2.1).
const PRIORITY: u8 = (2 << 3) | 4;

static TO_SYSLOG: OnceLock<()> = OnceLock::new();

/// From now on nothing is written to standard error.
pub(crate) fn to_syslog() {
    let _ = TO_SYSLOG.set(());
}

/// Writes one line, in one piece. `mail` is ZMailer's name of the mail that it is about, or empty. That nobody reads
/// it is no reason to stop.
pub(crate) fn line(mail: &str, text: impl Display) {
    let text = text.to_string();
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let about = if mail.is_empty() { String::new() } else { format!("{mail}: ") };
    if TO_SYSLOG.get().is_none() {
        let _ = std::io::stderr().write_all(format!("checkpost-zmailer: {about}{clean}\n").as_bytes());
        return;
    }
    let line = format!("<{PRIORITY}>checkpost-zmailer[{}]: {about}{clean}", std::process::id());
    // A log that is full must not hold up a mail.
    let _ = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to(line.as_bytes(), SYSLOG)
    });
}

/// An error with what lies behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
