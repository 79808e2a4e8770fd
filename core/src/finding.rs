//! What a filter found. A finding never says what to do about it: policy does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing found in a mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// A finer class within the kind, for rules: `malware`, `pua`, `heuristic`, `test`, `attachment` …
    /// Kebab case; the kind's own name when there is nothing finer.
    pub class: Arc<str>,
    /// The signature's, symbol's or rule's name, as the filter gave it; made harmless for logs and
    /// replies by whoever prints it. For `unscanned` it is the reason's name.
    pub name: Box<str>,
    /// The filter that found it.
    pub filter: Arc<str>,
    /// Where: `1.2` for the second part of the first part, `1.2/a.zip/b.exe` within an archive.
    /// `None`: the mail as a whole.
    pub part: Option<Box<str>>,
    /// More for the log: what was seen, how long it took.
    pub detail: Option<Box<str>>,
}

/// What is found, coarsely: what rules are written for.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A virus, worm, trojan.
    Malware,
    /// A fraud to get credentials.
    Phishing,
    /// Unwanted bulk mail, with what it adds to the mail's score.
    Spam {
        /// Points; may be negative.
        score: f32,
    },
    /// Against a rule of the house: an attachment name or type, an unwanted application.
    Policy,
    /// A part is encrypted, so nobody looked into it.
    Encrypted,
    /// A bound on size, depth, number or time was reached before all was looked at.
    Limit,
    /// A filter did not do its work. Unscanned is not clean.
    Unscanned(Unscanned),
    /// A result of SPF, DKIM, DMARC or ARC.
    Auth,
}

impl Kind {
    /// All names, as rules write them.
    pub const NAMES: [&str; 8] = ["malware", "phishing", "spam", "policy", "encrypted", "limit", "unscanned", "auth"];

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malware => "malware",
            Self::Phishing => "phishing",
            Self::Spam { .. } => "spam",
            Self::Policy => "policy",
            Self::Encrypted => "encrypted",
            Self::Limit => "limit",
            Self::Unscanned(_) => "unscanned",
            Self::Auth => "auth",
        }
    }
}

/// Why a filter did not do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unscanned {
    /// Nothing listens at the scanner's address, or the connection was refused.
    ConnectRefused,
    /// No connection in time.
    ConnectTimeout,
    /// Connected, but no answer by the deadline.
    Timeout,
    /// The scanner closed the connection before or within its answer.
    HalfAnswer,
    /// An answer that the protocol does not know.
    UnknownAnswer,
    /// The mail is larger than the scanner takes.
    TooLarge,
    /// The scanner itself said that it could not.
    ScannerError,
    /// Not asked: it failed shortly before, and the pause is not over.
    BackingOff,
    /// The scanner is at its limit of connections, and none became free in time.
    Busy,
    /// Some part could not be looked into (malformed, unknown compression …).
    Unreadable,
    /// The filter crashed.
    Panicked,
    /// Reading or spooling the content failed on our side.
    LocalError,
}

impl Unscanned {
    /// All, for lists of accepted names.
    pub const ALL: [Self; 12] = [
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::Timeout,
        Self::HalfAnswer,
        Self::UnknownAnswer,
        Self::TooLarge,
        Self::ScannerError,
        Self::BackingOff,
        Self::Busy,
        Self::Unreadable,
        Self::Panicked,
        Self::LocalError,
    ];

    /// As rules and logs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connect-refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::Timeout => "timeout",
            Self::HalfAnswer => "half-answer",
            Self::UnknownAnswer => "unknown-answer",
            Self::TooLarge => "too-large",
            Self::ScannerError => "scanner-error",
            Self::BackingOff => "backing-off",
            Self::Busy => "busy",
            Self::Unreadable => "unreadable",
            Self::Panicked => "panicked",
            Self::LocalError => "local-error",
        }
    }
}

impl fmt::Display for Unscanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Finding {
    /// A finding of this kind; its class is the kind's name until [`Finding::with_class`].
    pub fn new(kind: Kind, filter: &Arc<str>, name: &str) -> Self {
        Self {
            kind,
            class: Arc::from(kind.as_str()),
            name: name.into(),
            filter: Arc::clone(filter),
            part: None,
            detail: None,
        }
    }

    /// The filter did not do its work: who, why, after how long, and what it saw.
    pub fn unscanned(filter: &Arc<str>, reason: Unscanned, after: Duration, detail: &str) -> Self {
        let mut finding = Self::new(Kind::Unscanned(reason), filter, reason.as_str());
        finding.detail = Some(format!("{detail} after {} ms", after.as_millis()).into());
        finding
    }

    /// With a finer class.
    #[must_use]
    pub fn with_class(mut self, class: &str) -> Self {
        self.class = class.into();
        self
    }

    /// In this part.
    #[must_use]
    pub fn with_part(mut self, part: &str) -> Self {
        self.part = Some(part.into());
        self
    }

    /// With more for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Points for the mail's score; 0 for all but spam.
    pub fn score(&self) -> f32 {
        match self.kind {
            Kind::Spam { score } => score,
            _ => 0.0,
        }
    }
}

/// `malware:Eicar-Test-Signature(clamd)`, for logs.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind.as_str())?;
        for c in self.name.chars().take(128) {
            f.write_fmt(format_args!("{}", if c.is_control() { '?' } else { c }))?;
        }
        write!(f, "({})", self.filter)?;
        if let Kind::Spam { score } = self.kind {
            write!(f, "={score:.1}")?;
        }
        Ok(())
    }
}
