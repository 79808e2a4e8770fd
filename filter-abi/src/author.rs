//! What an author writes: the trait, and the words for findings and failures. No pointers here.

use crate::mail::{Host, Mail, Settings};
use crate::raw;

/// A filter. [`crate::export_filter!`] makes the library's symbol of it.
///
/// A panic in any of its functions is caught: the mail counts as not looked at, with the reason `panicked`.
/// That needs `panic = "unwind"`, the default; with "abort" it would end the daemon.
pub trait LibraryFilter: Sized + Send + Sync + 'static {
    /// The product's name, for people: 1 to 64 octets. The name in findings and rules is the configuration's.
    const NAME: &'static str;
    /// Its version, up to 64 octets; may be empty.
    const VERSION: &'static str;
    /// The kinds of finding it can report; at least one.
    const FINDS: &'static [Kind];

    /// An instance for one section of the configuration. The error is one clause for the administrator:
    /// which setting, what is wrong with it, what would be accepted. It may run in a process that only
    /// wants to know whether the settings are right, so it changes nothing outside.
    fn create(settings: &Settings<'_>, host: &Host<'_>) -> Result<Self, String>;

    /// Looks at one mail and reports what it finds. Called by several threads at once; may block, but not
    /// longer than [`Mail::left`]. `Ok`: all was looked at.
    fn check(&self, mail: &Mail<'_>) -> Result<(), CouldNot>;
}

/// What is found, coarsely: what rules are written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// A virus, worm, trojan.
    Malware = raw::MALWARE,
    /// A fraud to get credentials.
    Phishing = raw::PHISHING,
    /// Unwanted bulk mail; the one kind with a score.
    Spam = raw::SPAM,
    /// Against a rule of the house.
    Policy = raw::POLICY,
    /// A part is encrypted, so nobody looked into it.
    Encrypted = raw::ENCRYPTED,
    /// A bound of the filter's own was reached before all was looked at.
    Limit = raw::LIMIT,
    /// A result of SPF, DKIM, DMARC or ARC.
    Auth = raw::AUTH,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Level {
    /// An administrator must act.
    Error = raw::LOG_ERROR,
    /// Something is odd.
    Warn = raw::LOG_WARN,
    /// Good to know.
    Info = raw::LOG_INFO,
    /// For the filter's developers.
    Debug = raw::LOG_DEBUG,
}

/// One thing found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    pub(crate) part: &'a str,
    pub(crate) detail: &'a str,
    pub(crate) score: f32,
}

impl<'a> Finding<'a> {
    /// A finding with the name of the signature, symbol or rule: 1 to [`raw::MAX_NAME`] octets.
    pub const fn new(kind: Kind, name: &'a str) -> Self {
        Self { kind, name, class: "", part: "", detail: "", score: 0.0 }
    }

    /// [`Kind::Spam`] with its points, which must be finite.
    pub const fn spam(name: &'a str, score: f32) -> Self {
        Self { score, ..Self::new(Kind::Spam, name) }
    }

    /// With a finer class for rules, of `a-z`, `0-9` and `-`; otherwise it is the kind's name.
    #[must_use]
    pub const fn with_class(self, class: &'a str) -> Self {
        Self { class, ..self }
    }

    /// In this part: `1.2`, `1.2/a.zip/b.exe`.
    #[must_use]
    pub const fn with_part(self, part: &'a str) -> Self {
        Self { part, ..self }
    }

    /// With more for the log.
    #[must_use]
    pub const fn with_detail(self, detail: &'a str) -> Self {
        Self { detail, ..self }
    }
}

/// A mail was not looked at, or not wholly. What was reported before counts all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CouldNot {
    /// For rules.
    pub reason: Reason,
    /// For the log: one clause.
    pub text: String,
}

impl CouldNot {
    /// With a reason and what was seen.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// The host could not read the content.
impl From<std::io::Error> for CouldNot {
    fn from(error: std::io::Error) -> Self {
        Self::new(Reason::ReadError, error.to_string())
    }
}

/// Why a mail was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Reason {
    /// The filter itself could not: rules missing, a service down.
    Error = raw::ERROR,
    /// The mail is larger than the filter looks at.
    TooLarge = raw::TOO_LARGE,
    /// Some part could not be looked into.
    Unreadable = raw::UNREADABLE,
    /// Not done in time, or cancelled.
    Timeout = raw::TIMEOUT,
    /// Too much work at once.
    Busy = raw::BUSY,
    /// The host could not read the content.
    ReadError = raw::READ_ERROR,
}
