//! The Received: line a relay adds at the top (RFC 5321 section 4.4, RFC 3848 for `with`).
//! Only formatting: the caller says who, how and when.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a Received: line says. All text is cleaned when written: it comes from the network.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// What the client said in EHLO.
    pub helo: &'a str,
    /// The client's verified host name.
    pub client_name: Option<&'a str>,
    /// The client's address; `None` for a local client.
    pub client_address: Option<IpAddr>,
    /// Our name.
    pub by: &'a str,
    /// `ESMTP`, `ESMTPS`, `ESMTPSA`, `LMTP` … (RFC 3848).
    pub with: &'a str,
    /// Our id of the mail.
    pub id: &'a str,
    /// The recipient, only when there is exactly one: others must not learn of each other.
    pub recipient: Option<&'a str>,
    /// When we took it.
    pub time: SystemTime,
}

impl Received<'_> {
    /// The whole field, folded, with CRLF.
    #[must_use]
    pub fn field(&self) -> String {
        let mut out = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(out, "Received: from {} (", atom(self.helo));
        if let Some(name) = self.client_name {
            let _ = write!(out, "{} ", atom(name));
        }
        let _ = match self.client_address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => write!(out, "[{address}])"),
            Some(IpAddr::V6(address)) => write!(out, "[IPv6:{address}])"),
            None => write!(out, "local)"),
        };
        let _ = write!(out, "\r\n\tby {} with {} id {}", atom(self.by), atom(self.with), atom(self.id));
        if let Some(recipient) = self.recipient {
            let _ = write!(out, "\r\n\tfor <{}>", clean(recipient, |_| false));
        }
        let _ = write!(out, ";\r\n\t{}\r\n", date(self.time));
        out
    }
}

/// The time as RFC 5322 section 3.3 has it, in UTC: `Tue, 24 Nov 2026 14:03:26 +0000`.
#[must_use]
pub fn date(time: SystemTime) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // A clock before 1970 is wrong anyway, as is one after 9999, which the format cannot say.
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{}, {day} {} {year} {:02}:{:02}:{:02} +0000",
        DAYS[usize::try_from(days % 7).unwrap_or(0)],
        MONTHS[usize::try_from(month - 1).unwrap_or(0)],
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// The time as RFC 3339 section 5.6 has it, in UTC, with milliseconds: `2026-11-24T14:03:26.500Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Days since 1970-01-01 to year, month, day in the Gregorian calendar. Counts from 1 March of year 0, so that the
/// leap day comes last in its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (year + era * 400 + carry, month, day)
}

/// One word: nothing that could end a comment, fold or begin another clause.
fn atom(text: &str) -> String {
    clean(text, |c| matches!(c, ' ' | '(' | ')' | '<' | '>' | ';' | '"' | '\\' | ','))
}

/// Cleaned and bounded, so that the line stays under the 998 octets of RFC 5322.
fn clean(text: &str, is_bad: impl Fn(char) -> bool) -> String {
    let cleaned: String = text.chars().take(255).map(|c| if c.is_control() || is_bad(c) { '?' } else { c }).collect();
    if cleaned.is_empty() { "unknown".to_owned() } else { cleaned }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_000_000_000, "Sun, 9 Sep 2001 01:46:40 +0000"),
            (1_795_528_799, "Tue, 24 Nov 2026 13:59:59 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 +0000"),
        ] {
            assert_eq!(date(at(seconds)), expected);
        }
    }

    #[test]
    fn rfc3339_dates() {
        assert_eq!(rfc3339(at(951_782_400)), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(at(1_795_528_799) + Duration::from_millis(7)), "2026-11-24T13:59:59.007Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn field() {
        let received = Received {
            helo: "evil)\r\nBcc: x",
            client_name: Some("mail.example.org"),
            client_address: Some("2001:db8::1".parse().unwrap()),
            by: "checkpost.local",
            with: "ESMTPS",
            id: "01ABC",
            recipient: Some("\"a b\"@example.org"),
            time: at(0),
        };
        assert_eq!(
            received.field(),
            "Received: from evil???Bcc:?x (mail.example.org [IPv6:2001:db8::1])\r\n\tby checkpost.local with ESMTPS id 01ABC\r\n\
             \tfor <\"a b\"@example.org>;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        let local = Received { helo: "", client_name: None, client_address: None, recipient: None, ..received };
        assert!(local.field().starts_with("Received: from unknown (local)\r\n\tby"), "{}", local.field());
    }

    proptest! {
        #[test]
        fn always_one_field(text in "\\PC{0,40}[\r\n\0]?\\PC{0,9}", seconds in 0u64..400_000_000_000) {
            let received = Received {
                helo: &text, client_name: Some(&text), client_address: None, by: &text, with: &text, id: &text,
                recipient: Some(&text), time: at(seconds),
            };
            let field = received.field();
            prop_assert!(field.strip_suffix("\r\n").unwrap().split("\r\n").skip(1).all(|line| line.starts_with('\t')));
            prop_assert!(!field.replace("\r\n", "").contains(['\r', '\n', '\0']));
        }
    }
}
