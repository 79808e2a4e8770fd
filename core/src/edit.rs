//! Changes to a mail, in words that no MTA owns, and what a list of them makes of a header.
//! It writes nothing: each way in has its own form for it.

mod body;
mod changes;

use std::fmt;

use crate::mail::Address;

pub use body::{Body, MAX_TEXT};
pub use changes::{Change, Changes, Line};

/// One change to a mail. Names and values are checked when built: printable, no line breaks.
///
/// Every edit speaks of the mail as it came: to remove a field does not take away one that another
/// edit adds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Edit {
    /// Put a header field on top of all others.
    AddHeader(HeaderField),
    /// Put a header field below all others.
    AppendHeader(HeaderField),
    /// Give the first header field of this name this value and take away all others of the name;
    /// where there is none, put it on top.
    SetHeader(HeaderField),
    /// Take away every header field of this name (compared without case).
    RemoveHeader(HeaderName),
    /// Put this before the subject, unless it is there already; make a subject when there is none.
    TagSubject(HeaderText),
    /// Put this in place of the body, and fit the fields that describe a body.
    ReplaceBody(Body),
    /// Give the mail to this address, too, unless it gets it already.
    AddRecipient(Address),
    /// Make this the envelope's sender; null: none.
    ChangeSender(Address),
}

impl Edit {
    /// Does it change the header or the body, rather than the envelope?
    pub fn is_of_content(&self) -> bool {
        !matches!(self, Self::AddRecipient(_) | Self::ChangeSender(_))
    }

    /// Does it change the header only?
    pub fn is_of_header(&self) -> bool {
        self.is_of_content() && !matches!(self, Self::ReplaceBody(_))
    }
}

/// A header field's name (RFC 5322 section 3.6.8: printable ASCII but colon).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderName(Box<str>);

/// Unfolded text for a header field: printable ASCII and blanks, at most 900 octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderText(Box<str>);

/// Name and value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderField {
    /// The name.
    pub name: HeaderName,
    /// The value, without the blank after the colon.
    pub value: HeaderText,
}

/// Why a header edit could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// Not printable ASCII without colon and blank, or empty, or over 76 octets.
    #[error("not a header field name: printable ASCII without colon and blanks, 1 to 76 octets")]
    Name,
    /// A control character or non-ASCII, or over 900 octets.
    #[error("not a header text: printable ASCII and blanks, at most 900 octets")]
    Text,
    /// `Name: value` was wanted, and there is no colon.
    #[error("no colon between header field name and value")]
    NoColon,
    /// A NUL, or over 16 MiB.
    #[error("not a body: a text without NUL, at most 16 MiB")]
    Body,
}

impl HeaderName {
    /// Checks it.
    pub fn new(name: &str) -> Result<Self, EditError> {
        let fits = (1..=76).contains(&name.len()) && name.bytes().all(|b| (33..=126).contains(&b) && b != b':');
        if fits { Ok(Self(name.into())) } else { Err(EditError::Name) }
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderText {
    /// Checks it.
    pub fn new(text: &str) -> Result<Self, EditError> {
        let fits = text.len() <= 900 && text.bytes().all(|b| (32..=126).contains(&b));
        if fits { Ok(Self(text.into())) } else { Err(EditError::Text) }
    }

    /// What does not fit becomes `?`: for texts that hold names from scanners.
    pub fn lossy(text: &str) -> Self {
        let clean = text.chars().take(900).map(|c| if (' '..='~').contains(&c) { c } else { '?' });
        Self(clean.collect())
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HeaderField {
    /// Reads `Name: value`.
    pub fn parse(line: &str) -> Result<Self, EditError> {
        let (name, value) = line.split_once(':').ok_or(EditError::NoColon)?;
        Ok(Self { name: HeaderName::new(name.trim_end())?, value: HeaderText::new(value.trim())? })
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.0, self.value.0)
    }
}

/// For logs and records.
impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddHeader(field) => write!(f, "add header {field}"),
            Self::AppendHeader(field) => write!(f, "append header {field}"),
            Self::SetHeader(field) => write!(f, "set header {field}"),
            Self::RemoveHeader(name) => write!(f, "remove header {}", name.as_str()),
            Self::TagSubject(tag) => write!(f, "tag subject {}", tag.as_str()),
            Self::ReplaceBody(body) => write!(f, "replace body ({} octets)", body.octets().len()),
            Self::AddRecipient(address) => write!(f, "add recipient {address}"),
            Self::ChangeSender(address) => write!(f, "change sender to {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_edits_are_checked_when_built() {
        let field = HeaderField::parse("X-Spam-Flag: YES").unwrap();
        assert_eq!(field.to_string(), "X-Spam-Flag: YES");
        assert_eq!(HeaderField::parse("no colon"), Err(EditError::NoColon));
        assert_eq!(HeaderField::parse("a b: c"), Err(EditError::Name));
        assert_eq!(HeaderField::parse("a: b\r\nBcc: x"), Err(EditError::Text));
        assert_eq!(HeaderText::lossy("a\r\nb").as_str(), "a??b");
    }
}
