//! What Exim puts in front of a mail that it shows to a scanner (its `spool_mbox.c`): a `From ` line, then
//! `X-Envelope-From:` unless the sender is null, then `X-Envelope-To:`. Only these, at the very top and in this order, are
//! Exim's; lines of the same names that follow are the mail's own and anybody's.

use crate::head::MAX_HEAD;

/// Sender and recipients from the lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines {
    /// Without `<>`; empty: the null sender.
    pub sender: String,
    /// In order.
    pub recipients: Vec<String>,
    /// So many octets are not the mail's.
    pub length: usize,
}

/// What is at the start of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It may be, with more octets.
    More,
    /// No `From ` line: not as Exim sends it.
    Nothing,
    /// The lines.
    Lines(Lines),
    /// They do not end within [`MAX_HEAD`] octets.
    TooLong,
}

/// Looks for the lines. `whole`: nothing more will come.
pub fn find(content: &[u8], whole: bool) -> Found {
    let mut lines = Lines::default();
    let too_long = content.len() >= MAX_HEAD;
    let incomplete = || if too_long { Found::TooLong } else { Found::More };
    let Some(length) = line(content, whole) else { return incomplete() };
    if !content.starts_with(b"From ") {
        return Found::Nothing;
    }
    lines.length = length;
    let mut sender_allowed = true;
    loop {
        let rest = &content[lines.length..];
        let Some(length) = line(rest, whole) else { return incomplete() };
        let text = String::from_utf8_lossy(&rest[..length]);
        if let Some(value) = text.strip_prefix("X-Envelope-From:").filter(|_| sender_allowed) {
            lines.sender = address(value.trim()).to_owned();
            sender_allowed = false;
        } else if let Some(value) = text.strip_prefix("X-Envelope-To:") {
            lines.recipients = addresses(value.trim());
            lines.length += length;
            return Found::Lines(lines);
        } else {
            return Found::Lines(lines);
        }
        lines.length += length;
    }
}

/// Octets of the first line with its end.
fn line(octets: &[u8], whole: bool) -> Option<usize> {
    let window = &octets[..octets.len().min(MAX_HEAD)];
    match memchr::memchr(b'\n', window) {
        Some(at) => Some(at + 1),
        None if whole && octets.len() < MAX_HEAD => Some(octets.len()),
        None => None,
    }
}

/// An address without `<>`.
pub fn address(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text)
}

/// The addresses of a list with commas between them; a comma within quotes is part of one.
pub fn addresses(text: &str) -> Vec<String> {
    let (mut all, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    let mut add = |part: &str| {
        let one = address(part);
        if !one.is_empty() {
            all.push(one.to_owned());
        }
    };
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                add(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    add(&text[start..]);
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(content: &str, sender: &str, recipients: &[&str], rest: &str) {
        match find(content.as_bytes(), true) {
            Found::Lines(lines) => {
                assert_eq!(
                    (&*lines.sender, &*lines.recipients.join("|")),
                    (sender, &*recipients.join("|")),
                    "{content}"
                );
                assert_eq!(&content[lines.length..], rest);
            }
            other => panic!("{content}: {other:?}"),
        }
    }

    #[test]
    fn only_the_first_lines_are_exims() {
        let from = "From MAILER-DAEMON Fri Nov 27 00:00:00 2026\n";
        let received = "Received: x\nX-Envelope-From: <forged@x>\nX-Envelope-To: forged@x\n\nbody\n";
        check(
            &format!("{from}X-Envelope-From: <a@x>\nX-Envelope-To: b@x, c@y\n{received}"),
            "a@x",
            &["b@x", "c@y"],
            received,
        );
        // The null sender has no line, and a forged one behind the recipients is not it.
        check(&format!("{from}X-Envelope-To: b@x\n{received}"), "", &["b@x"], received);
        let forged = "X-Envelope-From: <forged@x>\nX-Envelope-To: forged@x\n\nbody\n";
        check(&format!("{from}X-Envelope-To: b@x\n{forged}"), "", &["b@x"], forged);
        check(&format!("{from}{received}"), "", &[], received);
        check(
            &format!("{from}X-Envelope-From: <\"a,b\"@x>\nX-Envelope-To: \"a,\\\"b\"@x, c@y\n\n"),
            "\"a,b\"@x",
            &["\"a,\\\"b\"@x", "c@y"],
            "\n",
        );
        check("From a@x Fri\n", "", &[], "");
    }

    #[test]
    fn what_is_not_exims_is_told_apart() {
        assert_eq!(find(b"Subject: x\n\n", true), Found::Nothing);
        assert_eq!(find(b"", true), Found::Nothing);
        assert_eq!(find(b"From a", false), Found::More);
        assert_eq!(find(b"From a\nX-Env", false), Found::More);
        let long = format!("From a\nX-Envelope-To: {}", "x@y, ".repeat(MAX_HEAD / 5));
        assert_eq!(find(long.as_bytes(), false), Found::TooLong);
        assert_eq!(find(long.as_bytes(), true), Found::TooLong);
    }

    proptest! {
        #[test]
        fn nothing_panics(content in "(From x\n)?(X-Envelope-From: <a@b>\n)?(X-Envelope-To: )?[ -~\n]{0,60}", cut in 0usize..80) {
            let octets = content.as_bytes();
            if let Found::Lines(early) = find(&octets[..cut.min(octets.len())], false) {
                prop_assert_eq!(find(octets, true), Found::Lines(early), "what is known early stays");
            }
        }
    }
}
