//! The report to the sender of a mail that the rules refuse behind the queue (RFC 3461, 3464): a message without a
//! sender of its own, with the refused mail's header and no more. Whether it is safe to make one is the daemon's to say.

use std::fmt::Write;

/// More of a header is not returned, in octets.
pub const MAX_HEADER: usize = 32 << 10;

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub struct Refused<'a> {
    /// Whom the report goes to.
    pub sender: &'a str,
    /// Who does not get the mail.
    pub recipients: &'a [Vec<u8>],
    /// As the daemon says it: `550 5.7.1 text`.
    pub reply: &'a str,
    /// This host.
    pub host: &'a str,
    /// The mail's header, or its beginning.
    pub header: &'a [u8],
    /// Unlikely in a header, and different each time.
    pub boundary: &'a str,
}

/// The report. Its `From` is completed with the host's domain, and its date added, by the router.
pub fn report(refused: &Refused<'_>) -> Vec<u8> {
    let Refused { sender, reply, host, boundary, .. } = refused;
    let (sender, reply, host) = (clean(sender.as_bytes()), clean(reply.as_bytes()), clean(host.as_bytes()));
    let status = status(&reply);
    let recipients: Vec<String> = refused.recipients.iter().map(|recipient| clean(recipient)).collect();
    let mut text = format!(
        "From: Mail Delivery System <MAILER-DAEMON>\nTo: <{sender}>\nSubject: Undeliverable: your mail was refused\n\
         Auto-Submitted: auto-replied\nMIME-Version: 1.0\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"{boundary}\"\n\n\
         --{boundary}\nContent-Type: text/plain; charset=us-ascii\n\n\
         Your mail was not delivered to\n\n"
    );
    for recipient in &recipients {
        let _ = writeln!(text, "    <{recipient}>");
    }
    let _ = write!(
        text,
        "\nsince the mail system at {host} refuses it:\n\n    {reply}\n\n\
         --{boundary}\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; {host}\n"
    );
    for recipient in &recipients {
        let _ = write!(
            text,
            "\nFinal-Recipient: rfc822; {recipient}\nAction: failed\nStatus: {status}\nDiagnostic-Code: smtp; {reply}\n"
        );
    }
    let _ = write!(text, "\n--{boundary}\nContent-Type: text/rfc822-headers\n\n");
    let mut report = text.into_bytes();
    report.extend_from_slice(whole_lines(refused.header));
    report.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    report
}

/// The lines of a message before its empty one, of what there is of it.
pub fn header_of(start: &[u8]) -> &[u8] {
    let mut length = 0;
    for line in start.split_inclusive(|octet| *octet == b'\n') {
        if matches!(line, b"\n" | b"\r\n") || length + line.len() > MAX_HEADER {
            break;
        }
        length += line.len();
    }
    &start[..length]
}

fn whole_lines(header: &[u8]) -> &[u8] {
    let end = header.iter().rposition(|octet| *octet == b'\n').map_or(0, |at| at + 1);
    &header[..end]
}

/// RFC 3463: the reply's own code, or "security or policy".
fn status(reply: &str) -> &str {
    let word = reply.split(' ').nth(1).unwrap_or_default();
    let is_code =
        word.starts_with("5.") && word.split('.').count() == 3 && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_code { word } else { "5.7.0" }
}

fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_who_why_and_what() {
        let report = report(&Refused {
            sender: "bob@example.test",
            recipients: &[b"a@x".to_vec(), b"b\n@x".to_vec()],
            reply: "550 5.7.1 Not\r\nfor you",
            host: "mail.example.test",
            header: b"Subject: x\nFrom: y\nbroken",
            boundary: "=_b",
        });
        let report = mail_parser::MessageParser::new().parse(&report).unwrap().into_owned();
        assert_eq!(report.to().unwrap().first().unwrap().address(), Some("bob@example.test"));
        assert_eq!(report.parts.len(), 4);
        let part = |index: usize| String::from_utf8_lossy(report.parts[index].contents()).into_owned();
        assert!(
            part(1).contains("    <a@x>\n    <b?@x>\n") && part(1).contains("    550 5.7.1 Not??for you\n"),
            "{}",
            part(1)
        );
        let status = part(2);
        assert!(
            status.starts_with("Reporting-MTA: dns; mail.example.test\n\nFinal-Recipient: rfc822; a@x\n"),
            "{status}"
        );
        assert_eq!(
            status.matches("Action: failed\nStatus: 5.7.1\nDiagnostic-Code: smtp; 550 5.7.1 Not??for you\n").count(),
            2
        );
        assert_eq!(part(3), "Subject: x\nFrom: y\n");
    }

    #[test]
    fn codes_and_headers_are_taken_as_far_as_they_go() {
        for (reply, code) in [("550 5.7.12 a", "5.7.12"), ("550 no", "5.7.0"), ("", "5.7.0"), ("550 4.7.1 a", "5.7.0")]
        {
            assert_eq!(status(reply), code);
        }
        assert_eq!(header_of(b"A: 1\r\nB: 2\r\n\r\nbody\n"), b"A: 1\r\nB: 2\r\n");
        assert_eq!(header_of(b"\nbody\n"), b"");
        let long = b"A: 1\n".repeat(MAX_HEADER);
        assert!(header_of(&long).len() <= MAX_HEADER && header_of(&long).len() > MAX_HEADER - 5);
    }
}
