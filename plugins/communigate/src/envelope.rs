//! The envelope of a mail in CommuniGate's queue: lines with their kind in the first octet, up to an empty line, and
//! behind it the message.
//!
//! It opens no file. The order of lines differs between versions, and lines may be missing or new, so nothing counts
//! them; what is not known is left alone.

use std::net::IpAddr;

/// The longest envelope, in octets.
pub const MAX_SIZE: usize = 8 << 20;
/// The most recipients.
pub const MAX_RECIPIENTS: usize = 50_000;

/// What is known of a mail before its message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The sender (`P`) without angle brackets; empty: the null sender; `None`: no line says.
    pub sender: Option<Vec<u8>>,
    /// The recipients (`R`), in their order.
    pub recipients: Vec<Vec<u8>>,
    /// Where it came from (`S`).
    pub source: Source,
}

/// The line `S <user@domain> SMTP [192.0.2.1]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// On whose behalf: an authenticated user, but also whose rule made a mail.
    pub account: Option<String>,
    /// The module that took it, in capitals: `SMTP`, `RPOP`, `PIPE`, `RULE`. Empty: not known.
    pub module: String,
    /// The address of the peer.
    pub client: Option<IpAddr>,
}

/// Why there is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than any.
    #[error("an envelope of more than {MAX_SIZE} octets")]
    TooLarge,
    /// More recipients than any.
    #[error("more than {MAX_RECIPIENTS} recipients")]
    Recipients,
    /// The file ended before the empty line.
    #[error("the envelope does not end")]
    Open,
    /// Nothing that is known of an envelope: another file, or another version.
    #[error("no line of it is known")]
    Unknown,
    /// A line of the sender or of a recipient without an address that can be told.
    #[error("a line without an address between angle brackets")]
    NoAddress,
    /// An address with a control character.
    #[error("an address with a control character")]
    Control,
}

/// Where the message begins in a file of which this is the start; `None`: not within it. What is before `from`, where a
/// line begins, was looked at already; it becomes where to go on when there is more.
pub fn length(start: &[u8], from: &mut usize) -> Option<usize> {
    loop {
        let line = start.get(*from..)?;
        let end = memchr::memchr(b'\n', line)?;
        *from += end + 1;
        if matches!(&line[..end], b"" | b"\r") {
            return Some(*from);
        }
    }
}

impl Envelope {
    /// Reads an envelope with its empty line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(octets: &[u8]) -> Result<Self, EnvelopeError> {
        let mut envelope = Self::default();
        let mut known = false;
        for line in octets.split(|octet| *octet == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // A kind is one letter, and a blank behind it.
            let (kind, value) = match line {
                [kind, b' ' | b'\t', value @ ..] => (*kind, value),
                [kind] => (*kind, &[][..]),
                _ => continue,
            };
            match kind {
                b'P' => envelope.sender = Some(address(value)?),
                b'R' if envelope.recipients.len() == MAX_RECIPIENTS => return Err(EnvelopeError::Recipients),
                b'R' => envelope.recipients.push(address(value)?),
                b'S' => envelope.source = Source::parse(&String::from_utf8_lossy(value)),
                b'A' | b'O' => {}
                _ => continue,
            }
            known = true;
        }
        if known { Ok(envelope) } else { Err(EnvelopeError::Unknown) }
    }

    /// Has it the null sender, or none that is known?
    pub fn is_null_sender(&self) -> bool {
        self.sender.as_ref().is_none_or(Vec::is_empty)
    }
}

impl Source {
    fn parse(value: &str) -> Self {
        let mut source = Self::default();
        let mut rest = value.trim();
        if rest.starts_with('<')
            && let Some(end) = rest.rfind('>')
        {
            source.account = Some(rest[1..end].chars().filter(|c| !c.is_control()).collect::<String>());
            source.account.take_if(|account| account.is_empty());
            rest = rest[end + 1..].trim_start();
        }
        let (module, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        source.module = module.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        let inner = rest.trim().strip_prefix('[').and_then(|rest| rest.split(']').next());
        source.client = inner.and_then(ip);
        source
    }
}

/// `[10.4.0.159]`, `[10.4.0.159:4711]`, `[2001:db8::1]`.
fn ip(text: &str) -> Option<IpAddr> {
    let without_port = || text.rsplit_once(':').map(|(address, _)| address);
    let address = text.parse::<IpAddr>().ok().or_else(|| without_port()?.parse::<IpAddr>().ok())?;
    Some(address.to_canonical())
}

/// What stands before the last `>`, from the first `<` on behind which there is an address; without one, from the last.
fn address(line: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let end = memchr::memrchr(b'>', line).ok_or(EnvelopeError::NoAddress)?;
    let before = &line[..end];
    let behind = |at: usize| &before[at + 1..];
    let last = memchr::memrchr(b'<', before).map(behind);
    let address = memchr::memchr_iter(b'<', before).map(behind).find(|text| is_address(text)).or(last);
    let address = address.ok_or(EnvelopeError::NoAddress)?;
    if address.iter().any(u8::is_ascii_control) { Err(EnvelopeError::Control) } else { Ok(address.to_vec()) }
}

/// Are all angle brackets and blanks within quotation marks? (RFC 5321 section 4.1.2: quoted-string.)
fn is_address(text: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &octet in text {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' | b'>' | b' ' | b'\t' if !quoted => return false,
            _ => {}
        }
    }
    !quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As in a file of CommuniGate Pro 6.2.
    const SEEN: &str = "S <user1@test.test> SMTP [10.4.0.159]\nA testlab1.test [10.21.2.87]\nO L\n\
        P I 26-04-2019 15:57:14 0000 ____ ____ <user1@test.test>\n\
        R W 26-04-2019 15:57:14 0000 ____ _FY_ <user2@test.test>\n\
        R W 26-04-2019 15:57:14 0000 ____ _FY_ <user3@test.test>\n\n";

    fn whole(text: &str) -> Envelope {
        let end = length(text.as_bytes(), &mut 0).unwrap();
        Envelope::parse(&text.as_bytes()[..end]).unwrap()
    }

    #[test]
    fn an_envelope_is_read_in_any_order() {
        let envelope = whole(&format!("{SEEN}Subject: x\n\nR W <not@x>\n"));
        assert_eq!(envelope.sender.as_deref(), Some(&b"user1@test.test"[..]));
        assert_eq!(envelope.recipients, [b"user2@test.test".to_vec(), b"user3@test.test".to_vec()]);
        let client = "10.4.0.159".parse().ok();
        let source = Source { account: Some("user1@test.test".into()), module: "SMTP".into(), client };
        assert_eq!(envelope.source, source);
        let mut lines: Vec<&str> = SEEN.trim_end().lines().collect();
        lines.reverse();
        let reversed = whole(&format!("{}\n\n", lines.join("\n")));
        assert_eq!((reversed.sender, reversed.source), (envelope.sender.clone(), source));
        assert_eq!(reversed.recipients, [b"user3@test.test".to_vec(), b"user2@test.test".to_vec()]);
        // Windows.
        assert_eq!(whole(&SEEN.replace('\n', "\r\n")), envelope);
        // New lines.
        assert_eq!(whole(&format!("X new <y@z>\nXY\n\t\n{SEEN}")), envelope);
    }

    #[test]
    fn addresses_are_whole() {
        fn check(line: &str, wanted: Result<&str, EnvelopeError>) {
            assert_eq!(address(line.as_bytes()), wanted.map(|address| address.as_bytes().to_vec()), "{line}");
        }
        check("I 26-04-2019 <>", Ok(""));
        check("I 26-04-2019 ____ <a@x>", Ok("a@x"));
        check("I <flag> ____ <a@x>", Ok("a@x"));
        check(r#"I <"a b"@x>"#, Ok(r#""a b"@x"#));
        check(r#"I <"a>b"@x>"#, Ok(r#""a>b"@x"#));
        check(r#"I <"a<b"@x>"#, Ok(r#""a<b"@x"#));
        check(r#"I <"a<b\"<c"@x> ___"#, Ok(r#""a<b\"<c"@x"#));
        check("I <\u{e4}@x>", Ok("\u{e4}@x"));
        check("I a@x", Err(EnvelopeError::NoAddress));
        check("I >a@x<", Err(EnvelopeError::NoAddress));
        check(r#"I <"a@x>"#, Ok(r#""a@x"#));
        check("I <a b@x>", Ok("a b@x"));
        check("", Err(EnvelopeError::NoAddress));
        check("I <a\0@x>", Err(EnvelopeError::Control));
        check("I <a\r@x>", Err(EnvelopeError::Control));
    }

    #[test]
    fn where_it_came_from() {
        fn check(value: &str, account: Option<&str>, module: &str, client: Option<&str>) {
            let client = client.map(|client| client.parse().unwrap());
            let wanted = Source { account: account.map(str::to_owned), module: module.into(), client };
            assert_eq!(Source::parse(value), wanted, "{value}");
        }
        check("SMTP [10.4.0.159]", None, "SMTP", Some("10.4.0.159"));
        check("<a@x> SMTP [2001:db8::1]", Some("a@x"), "SMTP", Some("2001:db8::1"));
        check("smtp [::ffff:192.0.2.1]", None, "SMTP", Some("192.0.2.1"));
        check("SMTP [192.0.2.1:4711]", None, "SMTP", Some("192.0.2.1"));
        check("<a b@x> RULE", Some("a b@x"), "RULE", None);
        check("<> PIPE", None, "PIPE", None);
        check("PIPE", None, "PIPE", None);
        check("<a", None, "A", None);
        check("", None, "", None);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        fn check(text: &str, error: EnvelopeError) {
            assert_eq!(Envelope::parse(text.as_bytes()), Err(error), "{text:?}");
        }
        check("", EnvelopeError::Unknown);
        check("Subject: x\nFrom: <a@x>\n\n", EnvelopeError::Unknown);
        check("P I none\n\n", EnvelopeError::NoAddress);
        check("R\n\n", EnvelopeError::NoAddress);
        check(&"R <a@x>\n".repeat(MAX_RECIPIENTS + 1), EnvelopeError::Recipients);
        let length = |text: &str| super::length(text.as_bytes(), &mut 0);
        assert_eq!(length("S x\nP y\n"), None);
        assert_eq!(length("S x\n\n\nbody"), Some(5));
        assert_eq!(length("\nbody"), Some(1));
    }

    #[test]
    fn lines_may_be_missing() {
        let envelope = whole("R W <a@x>\n\n");
        assert_eq!((envelope.sender.as_deref(), envelope.is_null_sender()), (None, true));
        assert!(whole("P I <>\n\n").is_null_sender());
        assert!(whole("O L\n\n").recipients.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_the_end_is_the_first_empty_line(text in "[SPRAO<>\" \\\\a@\r\n\u{e4}]{0,80}") {
            let octets = text.as_bytes();
            let length = |octets: &[u8]| super::length(octets, &mut 0);
            let end = length(octets);
            let mut from = 0;
            let sliced = (0..=octets.len()).find_map(|end| super::length(&octets[..end], &mut from));
            prop_assert_eq!(sliced, end);
            if let Some(end) = end {
                let head = &octets[..end];
                prop_assert!(head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") || matches!(head, b"\n" | b"\r\n"));
                prop_assert_eq!(length(head), Some(end));
                prop_assert_eq!(length(&head[..end - 1]), None);
            }
            if let Ok(envelope) = Envelope::parse(&octets[..end.unwrap_or(0)]) {
                let all = envelope.recipients.iter().chain(&envelope.sender);
                prop_assert!(all.flatten().all(|octet| !octet.is_ascii_control()));
            }
        }

        #[test]
        fn every_address_comes_back(local in "[a-z<>\" .@]{1,12}", domain in "[a-z.]{1,12}") {
            // As a local part is quoted, RFC 5321 section 4.1.2.
            let address = format!("\"{}\"@{domain}", local.replace('"', "\\\""));
            let envelope = whole(&format!("R W 26-04-2019 15:57:14 0000 ____ _FY_ <{address}>\n\n"));
            prop_assert_eq!(&envelope.recipients[0][..], address.as_bytes());
        }
    }
}
