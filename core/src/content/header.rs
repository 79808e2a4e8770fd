//! A mail's header fields as byte ranges: found without decoding, so that everything else stays
//! untouched to the byte.

use std::io;

use bytes::Bytes;

use super::Content;

/// A header larger than this is not looked at beyond it, 256 KiB.
pub const MAX_HEADER: usize = 256 << 10;

/// The header section of a mail.
#[derive(Debug, Clone)]
pub struct Header {
    bytes: Bytes,
    fields: Vec<FieldRange>,
    /// Offset of the first octet of the body (behind the empty line).
    body: usize,
    complete: bool,
}

#[derive(Debug, Clone, Copy)]
struct FieldRange {
    start: usize,
    colon: usize,
    end: usize,
}

/// One header field: name and raw value, folded as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as written, without blanks before the colon.
    pub name: &'a [u8],
    /// What follows the colon, up to and without the last line end.
    pub value: &'a [u8],
    /// Offset of the first octet of the name in the mail.
    pub start: usize,
    /// Offset behind the field's last line end.
    pub end: usize,
}

impl Header {
    /// Reads the header of a mail.
    pub fn of(content: &Content) -> io::Result<Self> {
        // Most headers are far smaller than the bound; a spooled content is read in two steps.
        let first = content.prefix(16 << 10)?;
        let header = Self::parse(first.clone());
        if header.complete || (first.len() as u64) == content.len() {
            return Ok(header);
        }
        Ok(Self::parse(content.prefix(MAX_HEADER)?))
    }

    /// The whole header of a mail; `None`: it is longer than so many octets. To edit a part of one would make another
    /// mail of it.
    pub fn within(content: &Content, limit: usize) -> io::Result<Option<Self>> {
        let header = Self::of(content)?;
        if header.complete || content.len() <= MAX_HEADER as u64 {
            return Ok(Some(header));
        }
        let header = Self::parse(content.prefix(limit)?);
        Ok((header.complete || content.len() <= limit as u64).then_some(header))
    }

    /// Reads a header section at the start of these bytes. Lines may end in CRLF or LF; a line that
    /// is no header field and no continuation ends the header, as MTAs have it.
    pub fn parse(bytes: Bytes) -> Self {
        let mut fields: Vec<FieldRange> = Vec::new();
        let mut position = 0;
        let mut complete = false;
        while let Some(length) = memchr::memchr(b'\n', &bytes[position..]) {
            let end = position + length + 1;
            let line = trim_line_end(&bytes[position..end]);
            if line.is_empty() {
                complete = true;
                position = end;
                break;
            }
            if matches!(line[0], b' ' | b'\t') {
                match fields.last_mut() {
                    Some(field) => field.end = end,
                    None => {
                        complete = true;
                        break;
                    }
                }
            } else {
                let colon = memchr::memchr(b':', line);
                match colon {
                    Some(colon) if is_name(line[..colon].trim_ascii_end()) => {
                        fields.push(FieldRange { start: position, colon: position + colon, end });
                    }
                    // mbox's "From " line is skipped where an MTA leaves it in.
                    _ if fields.is_empty() && line.starts_with(b"From ") => {}
                    _ => {
                        complete = true;
                        break;
                    }
                }
            }
            position = end;
        }
        Self { bytes, fields, body: position, complete }
    }

    /// The same header with a copy of its own octets, so that it keeps nothing of the mail's content in memory.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes[..self.body]), ..self }
    }

    /// All fields, in order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = Field<'_>> {
        self.fields.iter().map(|range| Field {
            name: self.bytes[range.start..range.colon].trim_ascii_end(),
            value: trim_line_end(&self.bytes[range.colon + 1..range.end]),
            start: range.start,
            end: range.end,
        })
    }

    /// The fields of this name, compared without case.
    pub fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = Field<'a>> {
        self.fields().filter(move |field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// How its first line ends: LF or CRLF; `None`: it has no line.
    pub fn line_end(&self) -> Option<&'static str> {
        let at = memchr::memchr(b'\n', &self.bytes)?;
        Some(if at > 0 && self.bytes[at - 1] == b'\r' { "\r\n" } else { "\n" })
    }

    /// Offset of the first octet of the body.
    pub fn body_start(&self) -> usize {
        self.body
    }

    /// Was the end of the header seen, or is it longer than what was read?
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

impl Field<'_> {
    /// The value unfolded and trimmed, RFC 2047 words left as they are; octets that are no UTF-8
    /// become U+FFFD.
    pub fn text(&self) -> String {
        let unfolded: Vec<u8> = self.value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
        String::from_utf8_lossy(unfolded.trim_ascii()).into_owned()
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| (33..=126).contains(b))
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mail: &'static str, fields: &[(&str, &str)], body: &str) {
        let header = Header::parse(Bytes::from_static(mail.as_bytes()));
        let seen: Vec<_> = header.fields().map(|f| (String::from_utf8_lossy(f.name).into_owned(), f.text())).collect();
        let wanted: Vec<_> = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(seen, wanted);
        assert_eq!(&mail[header.body_start()..], body);
    }

    #[test]
    fn fields_are_found_as_they_stand() {
        check("A: 1\r\nB : 2\r\n\tmore\r\n\r\nbody", &[("A", "1"), ("B", "2\tmore")], "body");
        check("A: 1\nB: 2\n\nbody", &[("A", "1"), ("B", "2")], "body");
        check("\r\nbody", &[], "body");
        check("", &[], "");
        check("no header at all\r\nA: 1\r\n", &[], "no header at all\r\nA: 1\r\n");
        check(" starts with a blank\r\n", &[], " starts with a blank\r\n");
        check("From a@b Mon\nA: 1\n\nx", &[("A", "1")], "x");
        check("A: 1\r\nnot a field\r\nB: 2\r\n", &[("A", "1")], "not a field\r\nB: 2\r\n");
    }
}
