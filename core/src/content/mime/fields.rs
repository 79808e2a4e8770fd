//! The header fields of a part that say how to read it.
//!
//! Only `Content-*` fields are kept and parsed. Where a header says two things, both are kept:
//! which of them a reader of the mail will believe is not known here.

use mail_parser::parsers::MessageStream;
use memchr::memmem;

/// Longer fields are cut: a name or boundary that only shows after this is not seen.
const FIELD: usize = 64 << 10;
/// All fields of one header together.
const FIELDS: usize = 256 << 10;
/// RFC 2046 section 5.1.1 allows 70; a line has at most 998 (RFC 5322 section 2.1.1).
pub(crate) const BOUNDARY: usize = 1000;

/// How a part's octets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As they are: 7bit, 8bit, binary, uuencode (found by its own marks), anything unknown.
    Identity,
    Base64,
    QuotedPrintable,
}

/// What a header says of its part.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// `text/plain`, in lower case; several when the header contradicts itself.
    pub(crate) types: Vec<String>,
    /// Every reading of every `boundary`.
    pub(crate) boundaries: Vec<Vec<u8>>,
    /// File names, decoded (RFC 2231, RFC 2047).
    pub(crate) names: Vec<String>,
    /// Every encoding that it names, never empty once parsed.
    pub(crate) codings: Vec<Coding>,
    pub(crate) problem: Option<Oddity>,
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oddity {
    TwoTypes,
    TwoEncodings,
    LongBoundary,
    LongField,
}

impl Fields {
    pub(crate) fn is_multipart(&self) -> bool {
        self.types.iter().any(|name| name.starts_with("multipart/"))
    }

    /// A message within the message, whose header starts the body.
    pub(crate) fn is_message(&self) -> bool {
        // RFC 2046 section 5.2, RFC 6532 section 3.7; message/news and x- forms are read alike by MUAs.
        const MESSAGES: [&str; 5] =
            ["message/rfc822", "message/global", "message/news", "message/external-body", "message/x-rfc822"];
        self.types.iter().any(|name| MESSAGES.contains(&&**name))
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.types.iter().any(|name| name == "message/partial")
    }

    pub(crate) fn is_base64(&self) -> bool {
        self.codings == [Coding::Base64]
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.codings.iter().all(|coding| *coding == Coding::Identity)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Type,
    Disposition,
    Encoding,
}

/// Takes a header line by line.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    fields: Vec<(Name, Vec<u8>)>,
    open: bool,
    size: usize,
    cut: bool,
}

impl Collector {
    /// A line, or with `first` false the continuation of one that was too long for one piece.
    pub(crate) fn line(&mut self, line: &[u8], first: bool) {
        let continues = !first || matches!(line.first(), Some(b' ' | b'\t'));
        if !continues {
            self.open = self.start(line);
        } else if self.open {
            self.append(line);
        }
    }

    fn start(&mut self, line: &[u8]) -> bool {
        let Some(prefix) = line.get(..8) else { return false };
        if !prefix.eq_ignore_ascii_case(b"content-") {
            return false;
        }
        let Some(colon) = memchr::memchr(b':', line) else { return false };
        // Blanks before the colon are an error that many readers overlook.
        let name = line[8..colon].trim_ascii_end();
        let name = if name.eq_ignore_ascii_case(b"type") {
            Name::Type
        } else if name.eq_ignore_ascii_case(b"disposition") {
            Name::Disposition
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            Name::Encoding
        } else {
            return false;
        };
        if self.size >= FIELDS {
            self.cut = true;
            return false;
        }
        self.fields.push((name, Vec::new()));
        self.append(&line[colon + 1..]);
        true
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some((_, value)) = self.fields.last_mut() else { return };
        let count = bytes.len().min(FIELD.saturating_sub(value.len())).min(FIELDS.saturating_sub(self.size));
        value.extend_from_slice(&bytes[..count]);
        self.size += count;
        self.cut |= count < bytes.len();
    }

    /// The header's end.
    pub(crate) fn finish(self) -> Fields {
        let mut parsed = Fields::default();
        if self.cut {
            parsed.problem = Some(Oddity::LongField);
        }
        for (name, mut value) in self.fields {
            while matches!(value.last(), Some(b'\r' | b'\n' | b' ' | b'\t')) {
                value.pop();
            }
            match name {
                Name::Encoding => {
                    let coding = coding(&value);
                    if !parsed.codings.contains(&coding) {
                        parsed.codings.push(coding);
                    }
                }
                Name::Type | Name::Disposition => parsed.structured(name, &value),
            }
        }
        if parsed.codings.len() > 1 {
            parsed.problem.get_or_insert(Oddity::TwoEncodings);
        }
        if parsed.types.len() > 1 {
            parsed.problem.get_or_insert(Oddity::TwoTypes);
        }
        if parsed.codings.is_empty() {
            parsed.codings.push(Coding::Identity);
        }
        parsed
    }
}

impl Fields {
    fn structured(&mut self, name: Name, value: &[u8]) {
        let mut terminated = value.to_vec();
        terminated.extend_from_slice(b"\r\n");
        let header = MessageStream::new(&terminated).parse_content_type();
        let content = header.as_content_type();
        if let (Name::Type, Some(content)) = (name, content) {
            let mut full = content.c_type.to_ascii_lowercase();
            if let Some(subtype) = &content.c_subtype {
                full.push('/');
                full.push_str(&subtype.to_ascii_lowercase());
            }
            if !full.is_empty() && self.types.len() < 8 && !self.types.contains(&full) {
                self.types.push(full);
            }
        }
        for attribute in content.and_then(|content| content.attributes.as_deref()).unwrap_or_default() {
            match &*attribute.name {
                "boundary" if name == Name::Type => self.boundary(attribute.value.as_bytes()),
                "name" | "filename" => self.file_name(&attribute.value),
                _ => {}
            }
        }
        if name == Name::Type {
            for boundary in plain_values(value, b"boundary") {
                self.boundary(boundary);
            }
        }
        // A name that the careful parser gave up on is still one that a careless MUA may show.
        for name in plain_values(value, b"name") {
            if !name.windows(2).any(|pair| pair == b"=?") {
                self.file_name(&String::from_utf8_lossy(name));
            }
        }
    }

    fn boundary(&mut self, boundary: &[u8]) {
        let boundary = boundary.trim_ascii_end();
        if boundary.len() > BOUNDARY {
            self.problem.get_or_insert(Oddity::LongBoundary);
        } else if !boundary.is_empty() && self.boundaries.len() < 8 && !self.boundaries.iter().any(|b| b == boundary) {
            self.boundaries.push(boundary.to_vec());
        }
    }

    fn file_name(&mut self, name: &str) {
        let name = name.trim();
        if !name.is_empty() && self.names.len() < 8 && !self.names.iter().any(|known| known == name) {
            let start = name.char_indices().rev().nth(511).map_or(0, |(at, _)| at);
            // The end of a long name is what decides how it is opened.
            self.names.push(name[start..].to_owned());
        }
    }
}

/// The encoding that a careless reader would take it for.
fn coding(value: &[u8]) -> Coding {
    let mut value = value.to_ascii_lowercase();
    value.retain(u8::is_ascii_alphanumeric);
    let has = |word: &[u8]| memmem::find(&value, word).is_some();
    if has(b"base64") {
        Coding::Base64
    } else if has(b"quotedprintable") {
        Coding::QuotedPrintable
    } else {
        Coding::Identity
    }
}

/// Every `NAME=value` in a field, read without regard to comments, escapes and nesting.
fn plain_values<'a>(value: &'a [u8], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut lower = value.to_ascii_lowercase();
    lower.truncate(FIELD);
    let ends: Vec<usize> = memmem::find_iter(&lower, name).map(|at| at + name.len()).take(16).collect();
    ends.into_iter().filter_map(move |end| {
        let rest = value[end..].trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let found = match rest.strip_prefix(b"\"") {
            Some(quoted) => &quoted[..memchr::memchr(b'"', quoted).unwrap_or(quoted.len())],
            None => &rest[..rest.iter().position(|o| *o == b';' || o.is_ascii_whitespace()).unwrap_or(rest.len())],
        };
        (!found.is_empty()).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> Fields {
        let mut collector = Collector::default();
        for line in header.split_inclusive('\n') {
            collector.line(line.as_bytes(), true);
        }
        collector.finish()
    }

    #[track_caller]
    fn check_names(header: &str, expected: &[&str]) {
        let fields = parse(header);
        for name in expected {
            assert!(fields.names.iter().any(|known| known == name), "{header:?}: {:?} lacks {name:?}", fields.names);
        }
    }

    #[test]
    fn names_are_decoded() {
        check_names("Content-Type: text/plain; name=a.txt\r\n", &["a.txt"]);
        check_names("content-disposition : attachment;\r\n\tfilename=\"b c.exe\"\r\n", &["b c.exe"]);
        check_names("Content-Disposition: attachment; filename*=UTF-8''%e2%82%ac.exe\r\n", &["\u{20ac}.exe"]);
        check_names("Content-Disposition: attachment; filename*0=ab; filename*1=\"c.exe\"\r\n", &["abc.exe"]);
        check_names("Content-Type: x/y; name=\"=?utf-8?B?ZXZpbC5leGU=?=\"\r\n", &["evil.exe"]);
        check_names("Content-Type: x/y; name=\"=?utf-8?Q?evil=2Eexe?=\"\r\n", &["evil.exe"]);
        check_names("Content-Disposition: filename=naked.exe\n", &["naked.exe"]);
        check_names("Content-Type: ;;; name=\"odd.exe\n", &["odd.exe"]);
    }

    #[test]
    fn every_reading_of_a_boundary_counts() {
        for (header, expected) in [
            ("Content-Type: multipart/mixed; boundary=abc\r\n", &["abc"][..]),
            ("Content-Type: multipart/mixed;\r\n boundary=\"a b\"\r\n", &["a b"]),
            ("Content-Type: multipart/mixed; boundary=a; boundary=b\r\n", &["a", "b"]),
            ("Content-Type: multipart/mixed; boundary*0=ab; boundary*1=cd\r\n", &["abcd"]),
            ("Content-Type: multipart/mixed; boundary=a\r\nContent-Type: multipart/x; boundary=b\r\n", &["a", "b"]),
        ] {
            let fields = parse(header);
            assert!(fields.is_multipart());
            for boundary in expected {
                assert!(fields.boundaries.contains(&boundary.as_bytes().to_vec()), "{header}: {:?}", fields.boundaries);
            }
        }
        let long = format!("Content-Type: multipart/mixed; boundary={}\r\n", "x".repeat(1 << 20));
        assert!(parse(&long).problem.is_some());
    }

    #[test]
    fn contradictions_are_kept_and_told() {
        let fields = parse("Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: Base64 (x)\r\n");
        assert_eq!(fields.codings, [Coding::Identity, Coding::Base64]);
        assert_eq!(fields.problem, Some(Oddity::TwoEncodings));
        let fields = parse("Content-Type: text/plain\r\nContent-Type: TEXT/plain\r\n");
        assert_eq!(fields.problem, None, "the same twice is no contradiction");
        let fields = parse("Subject: x\r\n");
        assert_eq!(fields.codings, [Coding::Identity]);
    }
}
