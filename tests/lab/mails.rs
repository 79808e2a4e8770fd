//! The mails that tests and the demo send. The harmless test strings for scanners are put together
//! here, so that no scanner objects to this file.

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The EICAR test file: 68 bytes that every virus scanner reports.
pub fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}", "$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!", "$H+H*"].concat().into_bytes()
}

/// The GTUBE line: every spam filter reports it.
pub fn gtube() -> String {
    ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-", "UBE-TEST-EMAIL*C.34X"].concat()
}

/// A mail of one text part. `text` has CRLF or LF line ends; the mail has CRLF.
pub fn plain(from: &str, to: &str, subject: &str, text: &str) -> Vec<u8> {
    let mut mail = headers(from, to, subject);
    mail.push_str("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
    mail.push_str(&text.replace("\r\n", "\n").replace('\n', "\r\n"));
    if !mail.ends_with("\r\n") {
        mail.push_str("\r\n");
    }
    mail.into_bytes()
}

/// A mail of one text part and one attachment, the attachment in base64.
pub fn with_attachment(from: &str, to: &str, subject: &str, file: &str, content: &[u8]) -> Vec<u8> {
    const BOUNDARY: &str = "=_checkpost_lab_";
    let mut mail = headers(from, to, subject);
    mail.push_str(&format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n\
         --{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nSee the attachment.\r\n\r\n\
         --{BOUNDARY}\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename=\"{file}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    ));
    let encoded = base64_simd::STANDARD.encode_to_string(content);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(76));
        mail.push_str(line);
        mail.push_str("\r\n");
        rest = more;
    }
    mail.push_str(&format!("\r\n--{BOUNDARY}--\r\n"));
    mail.into_bytes()
}

/// A zip archive with one deflated member.
pub fn zip(member: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    archive
        .start_file(member, SimpleFileOptions::default())
        .and_then(|()| Ok(archive.write_all(content)?))
        .expect("writing to memory works");
    archive.finish().expect("writing to memory works").into_inner()
}

/// EICAR in a zip in a zip.
pub fn eicar_in_nested_zip() -> Vec<u8> {
    zip("inner.zip", &zip("eicar.com", &eicar()))
}

/// How a mail looks where it is stored with LF line ends, as in a Maildir. A stored mail that
/// [ends with](slice::ends_with) this is the one that was sent, byte for byte, below what the
/// servers on its way put on top.
pub fn as_stored(message: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(message.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(text) => {
                stored.extend_from_slice(text);
                stored.push(b'\n');
            }
            None => stored.extend_from_slice(line),
        }
    }
    stored
}

fn headers(from: &str, to: &str, subject: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = std::process::id();
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{id}.{n}@client.example.net>\r\nMIME-Version: 1.0\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_changes_line_ends_only() {
        fn check(sent: &str, stored: &str) {
            assert_eq!(String::from_utf8_lossy(&as_stored(sent.as_bytes())), stored);
        }
        check("", "");
        check("a\r\nb\r\n", "a\nb\n");
        check("a\rb\nc\r\n", "a\rb\nc\n");
        check("end", "end");
    }

    #[test]
    fn nested_zip_shows_nothing_outside() {
        let archive = eicar_in_nested_zip();
        assert!(archive.starts_with(b"PK\x03\x04"));
        assert!(!archive.windows(16).any(|bytes| eicar().starts_with(bytes)));
    }
}
