//! Lines for the log: on standard error, which courierfilter hands to syslog.

use std::fmt::Display;
use std::io::Write;

/// Writes one line, in one piece. `mail` is Courier's id of the mail that it is about, or empty. That nobody reads it
/// is no reason to stop.
pub(crate) fn line(mail: &str, text: impl Display) {
    let text = text.to_string();
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let line = if mail.is_empty() { format!("checkpost: {clean}\n") } else { format!("checkpost: {mail}: {clean}\n") };
    let _ = std::io::stderr().write_all(line.as_bytes());
}
