//! A mail with edits, as pieces: new bytes and ranges of the original, nothing copied that stays.

use bytes::Bytes;
use checkpost_adapter::Piece;
use checkpost_core::content::header::{Field, Header};
use checkpost_core::{Content, Edit};

/// Names below this are ours alone: incoming ones are forged or from another Checkpost, and go.
const OURS: &[u8] = b"X-Checkpost-";

/// The pieces of the mail with these edits, our Received field on top.
pub fn pieces(content: &Content, header: &Header, edits: &[Edit], received: Option<&str>) -> Vec<Piece> {
    let mut top = String::new();
    let mut tag: Option<&str> = None;
    let mut removed: Vec<&str> = Vec::new();
    for edit in edits {
        match edit {
            // Each one above the one before it, so that the last added is read first, as with milters.
            Edit::AddHeader(field) => top.insert_str(0, &format!("{field}\r\n")),
            Edit::RemoveHeader(name) => removed.push(name.as_str()),
            Edit::TagSubject(text) => tag = Some(text.as_str()),
            _ => {}
        }
    }
    top.push_str(received.unwrap_or_default());

    let mut pieces = Vec::new();
    let mut kept_from = 0;
    let mut cuts: Vec<(usize, usize, Bytes)> = Vec::new();
    let mut subject_seen = false;
    for field in header.fields() {
        if is_ours(&field) || removed.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_bytes())) {
            cuts.push((field.start, field.end, Bytes::new()));
        } else if let Some(tag) = tag
            && !subject_seen
            && field.name.eq_ignore_ascii_case(b"Subject")
        {
            subject_seen = true;
            if let Some(tagged) = tagged_subject(&field, tag) {
                cuts.push((field.start, field.end, tagged));
            }
        }
    }
    if let Some(tag) = tag
        && !subject_seen
    {
        top.push_str(&format!("Subject: {tag}\r\n"));
    }
    if !top.is_empty() {
        pieces.push(Piece::Bytes(top.into()));
    }
    for (start, end, instead) in cuts {
        if start > kept_from {
            pieces.push(Piece::Range(content.clone(), kept_from as u64, (start - kept_from) as u64));
        }
        if !instead.is_empty() {
            pieces.push(Piece::Bytes(instead));
        }
        kept_from = end;
    }
    let rest = content.len() - kept_from as u64;
    if rest > 0 {
        pieces.push(Piece::Range(content.clone(), kept_from as u64, rest));
    }
    pieces
}

fn is_ours(field: &Field<'_>) -> bool {
    field.name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
}

/// The subject with the tag before it; `None` when it is there already.
fn tagged_subject(field: &Field<'_>, tag: &str) -> Option<Bytes> {
    let value = field.value.trim_ascii_start();
    if value.starts_with(tag.as_bytes()) {
        return None;
    }
    let mut line = Vec::with_capacity(field.value.len() + tag.len() + 16);
    line.extend_from_slice(field.name);
    line.extend_from_slice(b": ");
    line.extend_from_slice(tag.as_bytes());
    line.push(b' ');
    line.extend_from_slice(value);
    line.extend_from_slice(b"\r\n");
    Some(line.into())
}

#[cfg(test)]
mod tests {
    use checkpost_core::verdict::{HeaderField, HeaderName, HeaderText};

    use super::*;

    fn check(mail: &'static str, edits: &[Edit], received: Option<&str>, wanted: &str) {
        let content = Content::from(mail.as_bytes());
        let header = Header::parse(Bytes::from_static(mail.as_bytes()));
        let mut edited = Vec::new();
        for piece in pieces(&content, &header, edits, received) {
            match piece {
                Piece::Bytes(bytes) => edited.extend_from_slice(&bytes),
                Piece::Range(content, offset, length) => {
                    let mut range = vec![0; length as usize];
                    assert_eq!(content.read_full_at(&mut range, offset).unwrap(), range.len());
                    edited.extend_from_slice(&range);
                }
            }
        }
        assert_eq!(String::from_utf8(edited).unwrap(), wanted);
    }

    #[test]
    fn only_what_is_edited_changes() {
        let mail = "A: 1\r\nSubject: =?utf-8?q?x?=\r\n y\r\nX-CheckPost-Unscanned: no\r\nB:  2\r\n\r\nbody\r\n";
        let clean = "A: 1\r\nSubject: =?utf-8?q?x?=\r\n y\r\nB:  2\r\n\r\nbody\r\n";
        check(mail, &[], None, clean);
        check(mail, &[], Some("Received: x\r\n"), &format!("Received: x\r\n{clean}"));
        let add = Edit::AddHeader(HeaderField::parse("X-Spam: YES").unwrap());
        check(mail, &[add], Some("Received: x\r\n"), &format!("X-Spam: YES\r\nReceived: x\r\n{clean}"));
        let remove = Edit::RemoveHeader(HeaderName::new("a").unwrap());
        check("A: 1\r\na: 2\r\nB: 3\r\n\r\nx", &[remove], None, "B: 3\r\n\r\nx");
        let tag = [Edit::TagSubject(HeaderText::new("[SPAM]").unwrap())];
        check("Subject: a\r\n\r\nx", &tag, None, "Subject: [SPAM] a\r\n\r\nx");
        check("Subject: [SPAM] a\r\n\r\nx", &tag, None, "Subject: [SPAM] a\r\n\r\nx");
        check("B: 1\r\n\r\nx", &tag, None, "Subject: [SPAM]\r\nB: 1\r\n\r\nx");
        check("no header", &tag, None, "Subject: [SPAM]\r\nno header");
    }
}
