//! A mail in the mock mail server, and what a filter's edits make of it. Where the two real servers
//! differ, so do the two styles; what one of them would drop, garble or punish is a fault here.

use super::packets::{Data, Packet, action};
use super::{Fault, Style, mailbox};

/// A header field. The value is everything behind the colon, lines joined by LF.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
    /// The server's own, which no filter sees or counts.
    own: bool,
    deleted: bool,
}

impl Field {
    fn is(&self, name: &str) -> bool {
        !self.own && self.name.eq_ignore_ascii_case(name)
    }
}

/// One mail with its envelope.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) sender: String,
    /// As said to RCPT, without angle brackets.
    pub(super) recipients: Vec<String>,
    /// Added by the filter, so that the same addition counts once.
    added: Vec<String>,
    fields: Vec<Field>,
    /// Lines end with CRLF.
    pub(super) body: Vec<u8>,
    pub(super) held: Option<String>,
    new_body: Option<Vec<u8>>,
    /// Whether the run of body packets is over.
    body_done: bool,
}

impl Message {
    /// A mail as the client sent it; `content` has CRLF line ends.
    pub(super) fn new(sender: &str, recipients: Vec<String>, content: &[u8], received: &str) -> Self {
        let (mut fields, body) = split(content);
        let own = Field { name: "Received".into(), value: received.into(), own: true, deleted: false };
        fields.insert(0, own);
        Self {
            sender: sender.to_owned(),
            recipients,
            added: Vec::new(),
            fields,
            body,
            held: None,
            new_body: None,
            body_done: false,
        }
    }

    /// The fields that a filter is shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.own)
    }

    /// Makes one edit. `agreed` are the action bits, `spaced` whether values come with their leading
    /// blank.
    pub(super) fn edit(&mut self, edit: &Packet, style: Style, agreed: u32, spaced: bool) -> Result<(), Fault> {
        if edit.code != b'b' && self.new_body.is_some() {
            self.body_done = true;
        }
        let may = |bit: u32| {
            if agreed & bit == bit { Ok(()) } else { Err(Fault::Filter(format!("{edit:?} was not agreed on"))) }
        };
        let mut data = Data::new(&edit.data);
        match edit.code {
            b'h' => {
                may(action::ADD_HEADERS)?;
                let (name, value) = (name(&mut data)?, value(&mut data, spaced)?);
                data.end()?;
                self.add(name, value.ok_or_else(|| Fault::filter("an added field without a value"))?, style);
            }
            b'i' => {
                may(action::ADD_HEADERS)?;
                let (index, name, value) = (data.number()?, name(&mut data)?, value(&mut data, spaced)?);
                data.end()?;
                let value = value.ok_or_else(|| Fault::filter("an inserted field without a value"))?;
                self.insert(index, name, value, style);
            }
            b'm' => {
                may(action::CHANGE_HEADERS)?;
                let (index, name, value) = (data.number()?, name(&mut data)?, value(&mut data, spaced)?);
                data.end()?;
                self.change(index, name, value, style);
            }
            b'b' => {
                may(action::CHANGE_BODY)?;
                if self.body_done {
                    return Err(Fault::filter("the new body does not come in one run"));
                }
                self.new_body.get_or_insert_default().extend_from_slice(&edit.data);
            }
            b'+' | b'2' => {
                let recipient = address(&mut data)?;
                if edit.code == b'2' {
                    may(action::ADD_RECIPIENTS_WITH_PARAMETERS)?;
                    parameters(&mut data, &["NOTIFY", "ORCPT"])?;
                } else {
                    may(action::ADD_RECIPIENTS)?;
                }
                data.end()?;
                self.add_recipient(recipient, style);
            }
            b'-' => {
                may(action::DELETE_RECIPIENTS)?;
                let gone = address(&mut data)?;
                data.end()?;
                // Sendmail removes the mailbox, by whatever name it was called.
                self.recipients.retain(|there| match style {
                    Style::Postfix => *there != gone,
                    Style::Sendmail => mailbox(there) != mailbox(&gone),
                });
            }
            b'e' => {
                may(action::CHANGE_SENDER)?;
                let given = data.string()?;
                parameters(&mut data, &["RET", "ENVID"])?;
                data.end()?;
                // Of an empty string Postfix makes the null sender, Sendmail nothing at all.
                if given.is_empty() {
                    return Err(Fault::filter("an empty string as sender, in place of <>"));
                }
                given.trim_start_matches('<').trim_end_matches('>').clone_into(&mut self.sender);
            }
            b'q' => {
                may(action::QUARANTINE)?;
                let reason = data.string()?;
                data.end()?;
                if reason.is_empty() {
                    return Err(Fault::filter("held without a reason"));
                }
                self.held = Some(reason);
            }
            b'p' => {
                data.end()?;
                if self.body_done || self.new_body.is_some() {
                    return Err(Fault::filter("progress within a new body"));
                }
            }
            code => return Err(Fault::Filter(format!("{:?} is no answer at the end of a mail", char::from(code)))),
        }
        Ok(())
    }

    /// The mail as it is stored for its recipients: lines end with LF, the sender on top.
    pub(super) fn stored(&self) -> Vec<u8> {
        let mut stored = format!("Return-Path: <{}>\n", self.sender).into_bytes();
        for field in self.fields.iter().filter(|field| !field.deleted) {
            stored.extend_from_slice(field.name.as_bytes());
            stored.push(b':');
            stored.extend_from_slice(&field.value);
            stored.push(b'\n');
        }
        stored.push(b'\n');
        let body = self.new_body.as_ref().unwrap_or(&self.body);
        stored.extend_from_slice(&crate::mails::as_stored(body));
        if !stored.ends_with(b"\n") {
            stored.push(b'\n');
        }
        stored
    }

    /// Postfix appends; Sendmail puts it above the first of the same name.
    fn add(&mut self, name: String, value: Vec<u8>, style: Style) {
        let at = match style {
            Style::Postfix => None,
            Style::Sendmail => self.fields.iter().position(|field| field.is(&name)),
        };
        let field = Field { name, value, own: false, deleted: false };
        self.fields.insert(at.unwrap_or(self.fields.len()), field);
    }

    /// Index 0 is above the server's own Received, 1 below it. Sendmail counts fields that are not
    /// there: small indices are all like 1, large ones the end.
    fn insert(&mut self, index: u32, name: String, value: Vec<u8>, style: Style) {
        let length = self.fields.len();
        let index = index as usize;
        let at = match style {
            Style::Sendmail if (2..=5).contains(&index) => 1,
            Style::Postfix | Style::Sendmail => index.min(length),
        };
        self.fields.insert(at, Field { name, value, own: false, deleted: false });
    }

    /// Counts the fields of this name from 1. In Postfix deleted ones no longer count, in Sendmail
    /// they do.
    fn change(&mut self, index: u32, name: String, value: Option<Vec<u8>>, style: Style) {
        let nth = index.max(1) as usize - 1;
        let counts = |field: &&mut Field| field.is(&name) && (style == Style::Sendmail || !field.deleted);
        match (self.fields.iter_mut().filter(counts).nth(nth), value) {
            (Some(field), None) => field.deleted = true,
            (Some(field), Some(value)) => {
                field.value = value;
                field.deleted = false;
                if style == Style::Postfix {
                    field.name = name;
                }
            }
            (None, None) => {}
            (None, Some(value)) => self.add(name, value, style),
        }
    }

    /// Postfix delivers twice to whom it had already; both count the same addition once.
    fn add_recipient(&mut self, recipient: String, style: Style) {
        let known = match style {
            Style::Postfix => self.added.contains(&recipient),
            Style::Sendmail => self.recipients.contains(&recipient),
        };
        if !known {
            self.added.push(recipient.clone());
            self.recipients.push(recipient);
        }
    }
}

/// The fields, and the body behind the empty line. A line that is no field ends the header.
fn split(content: &[u8]) -> (Vec<Field>, Vec<u8>) {
    let mut fields: Vec<Field> = Vec::new();
    let mut rest = content;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").map_or(rest.len(), |at| at + 2);
        let line = rest[..end].strip_suffix(b"\r\n").unwrap_or(&rest[..end]);
        if line.is_empty() {
            rest = &rest[end..];
            break;
        }
        match (line[0], fields.last_mut(), line.iter().position(|octet| *octet == b':')) {
            (b' ' | b'\t', Some(field), _) => {
                field.value.push(b'\n');
                field.value.extend_from_slice(line);
            }
            (_, _, Some(colon)) if colon > 0 && line[..colon].iter().all(|octet| (33..=126).contains(octet)) => {
                let name = String::from_utf8_lossy(&line[..colon]).into_owned();
                fields.push(Field { name, value: line[colon + 1..].to_vec(), own: false, deleted: false });
            }
            _ => break,
        }
        rest = &rest[end..];
    }
    let mut body = rest.to_vec();
    if !body.is_empty() && !body.ends_with(b"\r\n") {
        body.extend_from_slice(b"\r\n");
    }
    (fields, body)
}

fn name(data: &mut Data<'_>) -> Result<String, Fault> {
    let name = data.string()?;
    if name.is_empty() || !name.bytes().all(|octet| (33..=126).contains(&octet) && octet != b':') {
        return Err(Fault::Filter(format!("{name:?} is no field's name")));
    }
    Ok(name)
}

/// A field's value with what stands between it and the colon; `None` when it is empty, which asks for
/// a deletion.
fn value(data: &mut Data<'_>, spaced: bool) -> Result<Option<Vec<u8>>, Fault> {
    let value = data.octets()?;
    let mut lines = value.split(|octet| *octet == b'\n');
    let first = lines.next().unwrap_or_default();
    let folded = lines.clone().all(|line| line.starts_with(b" ") || line.starts_with(b"\t"));
    if value.contains(&b'\r') || !folded || first.len() > 900 || lines.any(|line| line.len() > 998) {
        return Err(Fault::Filter(format!("not a field's value: {:?}", String::from_utf8_lossy(value))));
    }
    if value.is_empty() {
        return Ok(None);
    }
    let blank: &[u8] = if spaced { b"" } else { b" " };
    Ok(Some([blank, value].concat()))
}

fn address(data: &mut Data<'_>) -> Result<String, Fault> {
    let given = data.string()?;
    let address = given.strip_prefix('<').map_or(Some(given.as_str()), |rest| rest.strip_suffix('>'));
    match address {
        Some(address) if !address.is_empty() && !address.contains(['<', '>', ' ']) => Ok(address.to_owned()),
        _ => Err(Fault::Filter(format!("{given:?} is no address"))),
    }
}

/// Parameters are one string, or nothing.
fn parameters(data: &mut Data<'_>, known: &[&str]) -> Result<(), Fault> {
    if data.is_empty() {
        return Ok(());
    }
    let given = data.string()?;
    for parameter in given.split(' ').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split('=').next().unwrap_or_default();
        if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(Fault::Filter(format!("the parameter {parameter:?} is not known there")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::packets::strings;
    use super::*;

    const ALL: u32 = 0x1FF;

    fn edited(style: Style, edits: &[(u8, Vec<u8>)]) -> Result<String, Fault> {
        let content = b"A: 1\r\nB: 1\r\nA: 2\r\n folded\r\n\r\nbody\r\n";
        let mut message = Message::new("s@example.net", vec!["Alice@example.test".into()], content, " here");
        for (code, data) in edits {
            message.edit(&Packet { code: *code, data: data.clone() }, style, ALL, false)?;
        }
        Ok(String::from_utf8(message.stored()).expect("ASCII").replace('\n', "|"))
    }

    fn field(index: Option<u32>, name: &str, value: &str) -> Vec<u8> {
        let mut data = index.map_or_else(Vec::new, |index| index.to_be_bytes().to_vec());
        data.extend(strings(&[name.as_bytes(), value.as_bytes()]));
        data
    }

    #[test]
    fn the_two_styles_edit_as_their_models_do() {
        fn check(edits: &[(u8, Vec<u8>)], postfix: &str, sendmail: &str) {
            for (style, expected) in [(Style::Postfix, postfix), (Style::Sendmail, sendmail)] {
                let whole = format!("Return-Path: <s@example.net>|Received: here|{expected}||body|");
                assert_eq!(edited(style, edits).expect("legal"), whole, "{style:?} {edits:?}");
            }
        }
        let plain = "A: 1|B: 1|A: 2| folded";
        check(&[], plain, plain);
        check(&[(b'h', field(None, "A", "new"))], "A: 1|B: 1|A: 2| folded|A: new", "A: new|A: 1|B: 1|A: 2| folded");
        check(&[(b'i', field(Some(1), "X", "y"))], "X: y|A: 1|B: 1|A: 2| folded", "X: y|A: 1|B: 1|A: 2| folded");
        check(&[(b'm', field(Some(2), "a", "x"))], "A: 1|B: 1|a: x", "A: 1|B: 1|A: x");
        let first = || (b'm', field(Some(1), "A", ""));
        let second = || (b'm', field(Some(2), "A", ""));
        check(&[first(), second()], "B: 1|A: 2| folded", "B: 1");
        check(&[second(), first()], "B: 1", "B: 1");
        check(&[(b'm', field(Some(7), "A", ""))], plain, plain);
    }

    #[test]
    fn what_a_server_would_punish_is_a_fault() {
        let body = || (b'b', b"x\r\n".to_vec());
        for edits in [
            vec![(b'h', b"Name\0value".to_vec())],
            vec![(b'h', field(None, "N\u{e4}me", "v"))],
            vec![(b'h', field(None, "Name", "a\r\n b"))],
            vec![(b'h', field(None, "Name", "a\nb"))],
            vec![body(), (b'h', field(None, "A", "b")), body()],
            vec![body(), (b'p', Vec::new())],
            vec![(b'e', b"\0".to_vec())],
            vec![(b'2', strings(&[b"a@b", b"SIZE=1"]))],
            vec![(b'2', strings(&[b"a@b", b"NOTIFY=NEVER", b"ORCPT=rfc822;a"]))],
            vec![(b'q', b"\0".to_vec())],
            vec![(b'4', Vec::new())],
        ] {
            assert!(edited(Style::Postfix, &edits).is_err(), "{edits:?}");
        }
    }
}
