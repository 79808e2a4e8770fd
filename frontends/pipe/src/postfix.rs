//! Postfix: how it takes a mail back, and how a circle is seen.
//!
//! The mail is given to sendmail(1), as a local program would (FILTER_README, "Simple content filter"). What local
//! programs send must not be filtered then, or a mail would come here again and again. Postfix writes into the topmost
//! Received field which user gave it a mail, and nobody else can write there: so a circle is seen in its first round.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use checkpost_client::runs::Run;
use memchr::memmem;

/// Why a mail must not be handed back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this mail was checked and came again: content_filter must not hold for mail of local programs, set it for smtpd \
     in master.cf"
)]
pub struct Circle;

/// The part of a mail that [`came_back`] needs, from its start, in octets.
pub const HEAD: usize = 4 << 10;

/// Is this the head of a mail that `user` gave to Postfix?
pub fn came_back(head: &[u8], user: u32) -> bool {
    // With flag R or D of pipe(8) there are other fields on top.
    let mut lines = head.split(|octet| *octet == b'\n');
    let Some(received) = lines.find(|line| starts_with(line, b"received:")) else { return false };
    let mut field = received.to_vec();
    for line in lines.take_while(|line| matches!(line.first(), Some(b' ' | b'\t'))) {
        field.extend_from_slice(line);
    }
    memmem::find(&field, format!("(Postfix, from userid {user})").as_bytes()).is_some()
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The words behind `sendmail` that make it take back a mail on its standard input.
pub fn words(run: &Run) -> Vec<OsString> {
    // -G: passed on, not composed here, so no address is completed; -i: a line with a dot alone is no end.
    let mut words: Vec<OsString> = vec!["-G".into(), "-i".into(), "-f".into(), path(&run.sender), "--".into()];
    words.extend(run.recipients.iter().map(|recipient| path(recipient)));
    words
}

/// In angle brackets an address is one, whatever it begins with.
fn path(address: &[u8]) -> OsString {
    OsString::from_vec([b"<", address, b">"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postfix_is_given_paths() {
        let run = Run { content: 0, sender: Vec::new(), recipients: vec![b"-x@a.b".to_vec(), b"c@d".to_vec()] };
        let words = words(&run);
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["-G", "-i", "-f", "<>", "--", "<-x@a.b>", "<c@d>"]);
    }

    #[test]
    fn a_mail_that_came_back_is_known_by_its_topmost_received() {
        let ours = "Received: by mail.example.test (Postfix, from userid 999)\n\tid 7C1; Fri, 27 Nov 2026\n";
        let folded = "Return-Path: <a@b>\nReceived: by mail.example.test\n\t(Postfix, from userid 999) id 7C1\n";
        let from_outside = "Received: from c ([192.0.2.7])\n\tby mail.example.test (Postfix) with ESMTP id 7C1\n";
        for (head, back) in [
            (ours.to_owned(), true),
            (folded.to_owned(), true),
            (format!("{from_outside}{ours}"), false),
            (ours.replace("999", "9990"), false),
            (ours.replace("999", "99"), false),
            ("Subject: (Postfix, from userid 999)\n".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(came_back(head.as_bytes(), 999), back, "{head}");
        }
    }
}
