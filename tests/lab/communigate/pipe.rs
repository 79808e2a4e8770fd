//! The PIPE module's part: a file in `Submitted` as an envelope and a message.

/// A mail that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sub {
    /// From `Return-Path`; without one the server takes `From`, which nothing here may want.
    pub sender: Vec<u8>,
    /// From all `Envelope-To`.
    pub recipients: Vec<Vec<u8>>,
    /// Without the fields that were the envelope.
    pub message: Vec<u8>,
}

/// Why the server calls it bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubError {
    /// Nobody would get it.
    NoRecipient,
    /// No sender is told.
    NoSender,
    /// A field of the envelope that cannot be read.
    Address(String),
}

impl Sub {
    /// Reads a file. Any `Envelope-To` makes all of them the only recipients, wherever in the header it stands.
    pub fn read(octets: &[u8]) -> Result<Self, SubError> {
        let mut sub = Self { sender: Vec::new(), recipients: Vec::new(), message: Vec::new() };
        let mut sender = None;
        let (mut in_body, mut skipping) = (false, false);
        for line in octets.split_inclusive(|octet| *octet == b'\n') {
            if in_body || line == b"\n" {
                in_body = true;
                sub.message.extend_from_slice(line);
                continue;
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if !skipping {
                    sub.message.extend_from_slice(line);
                }
                continue;
            }
            let at = line.iter().position(|octet| *octet == b':').unwrap_or(0);
            let (name, value) = (line[..at].trim_ascii_end().to_ascii_lowercase(), &line[at..]);
            skipping = true;
            match &*name {
                b"envelope-to" => sub.recipients.push(address(value)?),
                b"return-path" => sender = Some(address(value)?),
                b"envelope-ignore" => {}
                _ => {
                    skipping = false;
                    sub.message.extend_from_slice(line);
                }
            }
        }
        sub.sender = sender.ok_or(SubError::NoSender)?;
        if sub.recipients.is_empty() { Err(SubError::NoRecipient) } else { Ok(sub) }
    }
}

/// `: <address>`.
fn address(value: &[u8]) -> Result<Vec<u8>, SubError> {
    let inner = value.strip_prefix(b": <").and_then(|value| value.strip_suffix(b">\n"));
    inner.map(<[u8]>::to_vec).ok_or_else(|| SubError::Address(String::from_utf8_lossy(value).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_who_gets_it() {
        let sub = Sub::read(b"A: 1\nReturn-Path: <>\nenvelope-to : x\n").unwrap_err();
        assert_eq!(sub, SubError::Address(": x\n".into()));
        let sub =
            Sub::read(b"A: 1\nEnvelope-To: <a@x>\nReturn-Path: <>\nB: 2\nENVELOPE-TO: <b@x>\n\nEnvelope-To: <c@x>\n");
        let sub = sub.unwrap();
        assert_eq!((sub.sender, sub.recipients), (Vec::new(), vec![b"a@x".to_vec(), b"b@x".to_vec()]));
        assert_eq!(sub.message, b"A: 1\nB: 2\n\nEnvelope-To: <c@x>\n");
        assert_eq!(Sub::read(b"Return-Path: <>\n\n"), Err(SubError::NoRecipient));
        assert_eq!(Sub::read(b"Envelope-To: <a>\n\n"), Err(SubError::NoSender));
    }
}
