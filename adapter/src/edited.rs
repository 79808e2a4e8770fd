//! A mail with edits, as pieces: new bytes and ranges of the original, nothing copied that stays.

use bytes::Bytes;
use checkpost_core::content::header::Header;
use checkpost_core::edit::{Change, Changes, Line};
use checkpost_core::{Content, Edit};

use crate::session::Piece;

/// A header larger than this is not edited, in octets.
const MAX_HEADER: usize = 4 << 20;

/// The header of a mail that is to be edited.
///
/// # Errors
/// It is too large, or cannot be read: for the log.
pub fn header(content: &Content) -> Result<Header, String> {
    match Header::within(content, MAX_HEADER) {
        Ok(Some(header)) => Ok(header),
        Ok(None) => Err(format!("it is longer than {MAX_HEADER} octets")),
        Err(error) => Err(format!("the spool cannot be read: {error}")),
    }
}

/// The pieces of the mail with these edits, whole `received` lines below the fields that are new on top. What is new gets
/// `line_end`: CRLF on the wire, LF in a UNIX mail server's files.
pub fn pieces(
    content: &Content,
    header: &Header,
    edits: &[Edit],
    received: &str,
    line_end: &'static str,
) -> Vec<Piece> {
    let changes = Changes::new(header, edits);
    let mut pieces = Pieces { content, pieces: Vec::new(), kept_from: 0, line_end };
    pieces.lines(&changes.top, received);
    let mut fields = changes.fields.into_iter().peekable();
    let mut end = 0;
    for (index, field) in header.fields().enumerate() {
        end = field.end;
        let Some((_, change)) = fields.next_if(|(at, _)| *at == index) else { continue };
        pieces.keep_until(field.start);
        pieces.kept_from = field.end;
        if let Change::Value(value) = change {
            pieces.push([field.name, b": ", &value, line_end.as_bytes()].concat());
        }
    }
    if !changes.bottom.is_empty() {
        pieces.keep_until(end);
        pieces.lines(&changes.bottom, "");
    }
    match changes.body {
        Some(body) => {
            pieces.keep_until(end);
            pieces.push(line_end.as_bytes().to_vec());
            pieces.body(body.octets());
            pieces.pieces
        }
        None => {
            pieces.keep_until(usize::try_from(content.len()).unwrap_or(usize::MAX));
            pieces.pieces
        }
    }
}

struct Pieces<'a> {
    content: &'a Content,
    pieces: Vec<Piece>,
    /// Offset behind what is dealt with.
    kept_from: usize,
    line_end: &'static str,
}

impl Pieces<'_> {
    fn keep_until(&mut self, end: usize) {
        if end > self.kept_from {
            let range = Piece::Range(self.content.clone(), self.kept_from as u64, (end - self.kept_from) as u64);
            self.pieces.push(range);
        }
        self.kept_from = self.kept_from.max(end);
    }

    fn lines(&mut self, lines: &[Line], behind: &str) {
        let line_end = self.line_end;
        let mut text: String = lines.iter().map(|Line { name, value }| format!("{name}: {value}{line_end}")).collect();
        text.push_str(behind);
        self.push(text.into_bytes());
    }

    /// A body has CRLF at its line ends, and no other CR.
    fn body(&mut self, octets: &Bytes) {
        if self.line_end == "\r\n" {
            self.pieces.push(Piece::Bytes(octets.clone()));
        } else {
            self.push(octets.iter().copied().filter(|octet| *octet != b'\r').collect());
        }
    }

    fn push(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.pieces.push(Piece::Bytes(Bytes::from(bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use checkpost_core::edit::{Body, HeaderField, HeaderName, HeaderText};

    use super::*;

    /// With CRLF, and with LF, which must make no other difference.
    fn check(mail: &str, edits: &[Edit], received: &str, wanted: &str) {
        check_with("\r\n", mail, edits, received, wanted);
        let bare = |text: &str| text.replace('\r', "");
        check_with("\n", &bare(mail), edits, &bare(received), &bare(wanted));
    }

    fn check_with(line_end: &'static str, mail: &str, edits: &[Edit], received: &str, wanted: &str) {
        let content = Content::from(Bytes::copy_from_slice(mail.as_bytes()));
        let header = Header::parse(Bytes::copy_from_slice(mail.as_bytes()));
        let mut edited = Vec::new();
        for piece in pieces(&content, &header, edits, received, line_end) {
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
        check(mail, &[], "", clean);
        check(mail, &[], "Received: x\r\n", &format!("Received: x\r\n{clean}"));
        let add = Edit::AddHeader(HeaderField::parse("X-Spam: YES").unwrap());
        check(mail, &[add], "Received: x\r\n", &format!("X-Spam: YES\r\nReceived: x\r\n{clean}"));
        let remove = Edit::RemoveHeader(HeaderName::new("a").unwrap());
        check("A: 1\r\na: 2\r\nB: 3\r\n\r\nx", &[remove], "", "B: 3\r\n\r\nx");
        let tag = [Edit::TagSubject(HeaderText::new("[SPAM]").unwrap())];
        check("Subject: a\r\n\r\nx", &tag, "", "Subject: [SPAM] a\r\n\r\nx");
        check("Subject: [SPAM] a\r\n\r\nx", &tag, "", "Subject: [SPAM] a\r\n\r\nx");
        check("B: 1\r\n\r\nx", &tag, "", "Subject: [SPAM]\r\nB: 1\r\n\r\nx");
        check("no header", &tag, "", "Subject: [SPAM]\r\nno header");
        let set = [Edit::SetHeader(HeaderField::parse("a: 9").unwrap())];
        check("A: 1\r\nB: 2\r\na: 3\r\n\r\nx", &set, "", "A: 9\r\nB: 2\r\n\r\nx");
        let append = [Edit::AppendHeader(HeaderField::parse("Z: 9").unwrap())];
        check("A: 1\r\n\r\nx", &append, "", "A: 1\r\nZ: 9\r\n\r\nx");
        check("no header", &append, "", "Z: 9\r\nno header");
        let body = [Edit::ReplaceBody(Body::new("gone").unwrap())];
        let described = "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\nA: 1\r\nContent-Type: text/plain; charset=utf-8\r\n";
        check("A: 1\r\nContent-Type: x/y\r\n\r\nold", &body, "", &format!("{described}\r\ngone\r\n"));
    }
}
