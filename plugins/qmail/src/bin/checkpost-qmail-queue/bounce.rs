//! Does qmail-send inject a bounce? It alone must not be refused for good: it would try again for ever, and the
//! message that cannot be returned would stay in the queue (`injectbounce` in qmail-send.c).
//!
//! Users are looked up in /etc/passwd and nowhere else, which is where qmail's own are.

use std::fs;

use rustix::process::getuid;

use crate::place::Place;

/// Are we run by this user? When nobody knows that user, every caller that no network client stands behind may be it.
pub(crate) fn is_injected(user: &str, place: &Place) -> bool {
    match number(user, &fs::read_to_string("/etc/passwd").unwrap_or_default()) {
        Some(number) => number == getuid().as_raw(),
        None => place.variable("TCPREMOTEIP").is_none(),
    }
}

fn number(user: &str, users: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    let mut lines = users.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| if fields.next()? == user { fields.nth(1)?.parse().ok() } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_or_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nqmailsx:x:7:7::/:\nqmails:x:64016:64010::/var/qmail:/bin/false\n";
        for (user, expected) in [("qmails", Some(64016)), ("12", Some(12)), ("nobody", None), ("", None)] {
            assert_eq!(number(user, users), expected, "{user}");
        }
    }
}
