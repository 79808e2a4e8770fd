//! The one trait that everything which looks at mails implements.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::finding::{Finding, Unscanned};
use crate::mail::Mail;

/// Looks at a mail and reports what it finds. It never decides.
///
/// `check` runs beside other filters on the same mail and is dropped when the deadline passes: it
/// must leave nothing half-done that matters. Work that keeps a processor busy for more than a
/// few milliseconds belongs in [`tokio::task::spawn_blocking`].
#[async_trait]
pub trait Filter: Send + Sync {
    /// Who it is. Called often; must not block.
    fn about(&self) -> Arc<About>;

    /// Looks at one mail. An error is a filter that did not do its work: the engine makes an
    /// `unscanned` finding of it. Findings returned beside it would be lost, so a filter that did
    /// half its work returns its findings with [`Finding::unscanned`] among them.
    async fn check(&self, mail: &Mail, context: &Context) -> Result<Vec<Finding>, FilterError>;
}

/// What a filter says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Its name in configuration, findings and logs.
    pub name: Arc<str>,
    /// The program's version, when known.
    pub version: Option<String>,
    /// The version of its signatures or rules, when it has such and they are known.
    pub data_version: Option<String>,
    /// The kinds of finding it can report, as in [`crate::finding::Kind::NAMES`].
    pub finds: &'static [&'static str],
}

/// What a filter may use up.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The findings must be there by then.
    pub deadline: Instant,
    /// What may be unpacked for this mail.
    pub unpacking: Unpacking,
}

impl Context {
    /// Time left; zero when the deadline has passed.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The bounds on looking into a mail: parts within parts, archives within archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacking {
    /// Octets made by decoding and unpacking, in all. Default 256 MiB.
    pub octets: u64,
    /// Parts and archive members, in all. Default 10,000.
    pub items: u32,
    /// How deep parts and archives may be nested. Default 32.
    pub depth: u32,
    /// How many times larger than its packed form a member may get (beyond the first MiB). Default 250.
    pub ratio: u32,
}

impl Default for Unpacking {
    fn default() -> Self {
        Self { octets: 256 << 20, items: 10_000, depth: 32, ratio: 250 }
    }
}

/// Why a filter did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct FilterError {
    /// The reason, for rules.
    pub reason: Unscanned,
    /// What was seen, for the log: phase, address, the answer's beginning.
    pub detail: String,
    /// The cause.
    #[source]
    pub source: Option<io::Error>,
}

impl FilterError {
    /// With a reason and what was seen.
    pub fn new(reason: Unscanned, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), source: None }
    }

    /// With its cause.
    #[must_use]
    pub fn because(mut self, source: io::Error) -> Self {
        self.source = Some(source);
        self
    }
}
