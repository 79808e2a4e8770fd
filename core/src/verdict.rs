//! What policy wants done with a mail, for each recipient, in words that no MTA owns.

use std::fmt;
use std::sync::Arc;

use crate::finding::Finding;
use crate::reply::{Deferral, Rejection};

/// The outcome for every recipient, and what led to it.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// One per recipient, in the envelope's order. A mail without recipients has none.
    pub outcomes: Vec<Outcome>,
    /// Everything the filters found.
    pub findings: Arc<[Finding]>,
    /// The mail's score: the sum over spam findings, before rules added to it.
    pub score: f32,
}

/// What one recipient gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The mail's fate.
    pub disposition: Disposition,
    /// What to change on the way to this recipient; shared, so that equal lists are cheap.
    pub edits: Arc<[Edit]>,
    /// Keep a copy.
    pub quarantine: bool,
    /// The rule that decided, for logs. `None`: no rule held, the mail is delivered.
    pub rule: Option<Arc<str>>,
}

/// A mail's fate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Hand it on.
    Deliver,
    /// Refuse it for good.
    Reject(Rejection),
    /// Refuse it for now.
    Defer(Deferral),
    /// Take it and hand it to nobody.
    Discard,
}

impl Disposition {
    /// One word, for logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Reject(_) => "reject",
            Self::Defer(_) => "defer",
            Self::Discard => "discard",
        }
    }
}

/// One change to a mail. Names and values are checked when built: printable, no line breaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Edit {
    /// Put a header field on top of all others.
    AddHeader(HeaderField),
    /// Take away every header field of this name (compared without case).
    RemoveHeader(HeaderName),
    /// Put this before the subject, unless it is there already; make a subject when there is none.
    TagSubject(HeaderText),
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

impl Outcome {
    /// Delivered as it is; no rule held.
    pub fn deliver() -> Self {
        Self { disposition: Disposition::Deliver, edits: Arc::from([]), quarantine: false, rule: None }
    }

    /// Deferred by this rule (or by the program itself, then its name is in angle brackets).
    pub fn defer(reply: Deferral, rule: &str) -> Self {
        Self {
            disposition: Disposition::Defer(reply),
            edits: Arc::from([]),
            quarantine: false,
            rule: Some(rule.into()),
        }
    }
}

impl Verdict {
    /// The same outcome for each of so many recipients.
    pub fn uniform(outcome: &Outcome, recipients: usize, findings: Vec<Finding>) -> Self {
        let score = findings.iter().map(Finding::score).sum::<f32>() + 0.0;
        Self { outcomes: vec![outcome.clone(); recipients], findings: findings.into(), score }
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.0, self.value.0)
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
