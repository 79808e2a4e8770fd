//! The mails that the load generator sends: built once, realistic in shape, different only in their Message-ID.
//! Not test mails: nothing in them is meant to be found by any filter.

use std::fmt::Write as _;

/// Sixteen digits stand for the message's number.
const NUMBER: &str = "0000000000000000";

/// A mail ready for DATA: CRLF line ends, no line begins with a dot, no final dot.
#[derive(Clone)]
pub(super) struct Mail {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Mail {
    /// A mail of about `size` bytes: plain text up to 16 KiB, above that text and HTML with a JPEG and a PDF in base64,
    /// which is what large mails are made of. The same size always gives the same bytes.
    pub(super) fn of_size(size: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ size as u64);
        let mut mail = headers();
        let number_at = mail.find(NUMBER).unwrap_or_default();
        if size <= 16 * 1024 {
            mail.push_str("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n");
            prose(&mut mail, size, &mut random);
        } else {
            mail.push_str("Content-Type: multipart/mixed; boundary=\"outer-5f2c\"\r\n\r\n");
            mail.push_str("--outer-5f2c\r\nContent-Type: multipart/alternative; boundary=\"inner-81d0\"\r\n\r\n");
            mail.push_str("--inner-81d0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
            let text_ends = mail.len() + 2048;
            prose(&mut mail, text_ends, &mut random);
            mail.push_str("\r\n--inner-81d0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>\r\n");
            let html_ends = mail.len() + 3072;
            prose(&mut mail, html_ends, &mut random);
            mail.push_str("</p></body></html>\r\n\r\n--inner-81d0--\r\n");
            // The first characters decode to the files' own magic bytes, so that name, declared and real type agree.
            let jpeg_ends = mail.len() + (size - mail.len()) / 4;
            attachment(&mut mail, "image/jpeg", "photo.jpg", "/9j/4AAQSkZJRgABAQAAAQABAAD/", jpeg_ends, &mut random);
            attachment(&mut mail, "application/pdf", "offer.pdf", "JVBERi0xLjcKJeLj", size - 16, &mut random);
            mail.push_str("--outer-5f2c--\r\n");
        }
        Self { bytes: mail.into_bytes(), number_at }
    }

    /// Gives the mail its own Message-ID.
    pub(super) fn set_number(&mut self, number: u64) {
        let digits = format!("{number:016x}");
        self.bytes[self.number_at..self.number_at + NUMBER.len()].copy_from_slice(digits.as_bytes());
    }

    /// The sixteen digits that the mail has at this moment.
    pub(super) fn number(&self) -> &[u8] {
        &self.bytes[self.number_at..self.number_at + NUMBER.len()]
    }

    /// The content as it goes over the wire, without the final dot.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Content and final dot in one piece, as a sending MTA flushes them.
    pub(super) fn with_final_dot(mut self) -> Self {
        self.bytes.extend_from_slice(b".\r\n");
        self
    }
}

fn headers() -> String {
    format!(
        "Received: from client.example ([192.0.2.7]) by sender.example with ESMTP id 4f2b;\r\n\
         \tTue, 24 Nov 2026 12:00:00 +0000\r\n\
         From: Ada Example <ada@sender.example>\r\n\
         To: Ben Example <ben@receiver.example>\r\n\
         Subject: The figures for November\r\n\
         Date: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{NUMBER}.bench@sender.example>\r\n\
         MIME-Version: 1.0\r\n"
    )
}

const WORDS: [&str; 24] = [
    "the", "figures", "for", "November", "are", "ready", "and", "will", "be", "sent", "to", "all", "partners",
    "before", "Friday", "please", "look", "at", "second", "page", "where", "we", "changed", "prices",
];

/// Lines of words until the mail is `until` bytes long.
fn prose(mail: &mut String, until: usize, random: &mut Random) {
    while mail.len() + 2 < until {
        let line_ends = (mail.len() + 70).min(until - 2);
        while mail.len() < line_ends {
            let word = WORDS[random.below(WORDS.len())];
            mail.push_str(&word[..word.len().min(line_ends - mail.len())]);
            if mail.len() < line_ends {
                mail.push(' ');
            }
        }
        mail.push_str("\r\n");
    }
}

/// One attachment whose base64 lines end near `until`.
fn attachment(mail: &mut String, kind: &str, name: &str, magic: &str, until: usize, random: &mut Random) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let _ = write!(
        mail,
        "--outer-5f2c\r\nContent-Type: {kind}; name=\"{name}\"\r\nContent-Disposition: attachment; \
         filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{magic}"
    );
    let mut column = magic.len();
    while mail.len() + 6 < until {
        for _ in 0..4 {
            mail.push(char::from(ALPHABET[random.below(64)]));
        }
        column += 4;
        if column == 76 {
            mail.push_str("\r\n");
            column = 0;
        }
    }
    if column > 0 {
        mail.push_str("\r\n");
    }
}

/// xorshift64: the content must only look random to a compressor and be the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_as_large_as_asked_and_fit_for_data() {
        for size in [4 << 10, 64 << 10, 1 << 20, 10 << 20] {
            let mail = Mail::of_size(size);
            assert!(mail.bytes().len().abs_diff(size) < 100, "{size}: {}", mail.bytes().len());
            let text = std::str::from_utf8(mail.bytes()).unwrap();
            assert!(text.ends_with("\r\n"));
            for line in text.split("\r\n") {
                assert!(!line.starts_with('.') && !line.contains(['\r', '\n']) && line.len() < 200, "{line:?}");
            }
        }
    }

    #[test]
    fn only_the_message_id_differs() {
        let (mut one, mut two) = (Mail::of_size(4096), Mail::of_size(4096));
        assert_eq!(one.bytes(), two.bytes());
        one.set_number(1);
        two.set_number(0xabc);
        let different = one.bytes().iter().zip(two.bytes()).filter(|(a, b)| a != b).count();
        assert_eq!(different, 3);
        assert!(String::from_utf8_lossy(two.bytes()).contains("Message-ID: <0000000000000abc.bench@"));
        assert!(two.with_final_dot().bytes().ends_with(b"\r\n.\r\n"));
    }
}
