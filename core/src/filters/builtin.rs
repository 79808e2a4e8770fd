//! The `built-in` filter: the EICAR and GTUBE test strings anywhere in a mail, and attachments by name
//! and by real type, also within archives.
//!
//! It knows no virus and judges no spam; it is what works without any scanner.

mod attachment;
mod look;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::attachment::Rules;
pub use self::attachment::{AttachmentRule, RuleError};
use self::look::Look;
use crate::content::Content;
use crate::content::mime::budget::{Budget, Stop};
use crate::content::mime::walk;
use crate::filter::{About, Context, Filter, FilterError, Unpacking};
use crate::finding::{Finding, Unscanned};
use crate::mail::Mail;

/// `[filter.built-in]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuiltinConfig {
    /// Find the EICAR test file (malware, class `test`). Default true.
    pub eicar: bool,
    /// Find the GTUBE spam test (spam, 1000 points). Default true.
    pub gtube: bool,
    /// `[[filter.built-in.attachment]]`: attachments that are findings of kind `policy`, class
    /// `attachment`, named as the rule. Default none.
    pub attachment: Vec<AttachmentRule>,
}

impl Default for BuiltinConfig {
    fn default() -> Self {
        Self { eicar: true, gtube: true, attachment: Vec::new() }
    }
}

/// The filter.
pub struct Builtin {
    about: Arc<About>,
    tests: Tests,
    rules: Arc<Rules>,
    /// Looks that take long go on threads of their own, no more at once than there are processors:
    /// each may hold some MiB, and more would not be done sooner.
    threads: Arc<Semaphore>,
}

/// Which test strings to look for.
#[derive(Debug, Clone, Copy)]
struct Tests {
    eicar: bool,
    gtube: bool,
}

/// The engine's own deadline comes so much later than that of a look on a thread: what was found by
/// then is to arrive.
const SPARE: Duration = Duration::from_millis(20);

impl Builtin {
    /// Checks the attachment rules.
    pub fn new(config: BuiltinConfig) -> Result<Self, RuleError> {
        let about = About {
            name: "built-in".into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
            data_version: None,
            finds: &["malware", "spam", "policy", "encrypted", "limit", "unscanned"],
        };
        Ok(Self {
            about: Arc::new(about),
            tests: Tests { eicar: config.eicar, gtube: config.gtube },
            rules: Arc::new(Rules::new(config.attachment)?),
            threads: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))),
        })
    }

    fn task(&self, mail: &Mail, unpacking: Unpacking, deadline: Instant) -> Task {
        Task {
            content: mail.content.clone(),
            unpacking,
            deadline,
            cancelled: Arc::default(),
            name: Arc::clone(&self.about.name),
            tests: self.tests,
            rules: Arc::clone(&self.rules),
        }
    }

    /// What is found on the spot, in a fraction of a millisecond for nearly all mails. `None`: it would
    /// take longer, since the mail is on a disk or unpacks to much more than it is.
    fn at_once(&self, mail: &Mail, context: &Context) -> Option<Vec<Finding>> {
        let length = mail.content.as_slice()?.len() as u64;
        let brief = Unpacking {
            octets: context.unpacking.octets.min(2 * length + (64 << 10)),
            items: context.unpacking.items.min(500),
            ..context.unpacking
        };
        let (findings, out_of_budget) = self.task(mail, brief, context.deadline).run();
        (!out_of_budget || brief == context.unpacking).then_some(findings)
    }
}

#[async_trait]
impl Filter for Builtin {
    fn about(&self) -> Arc<About> {
        Arc::clone(&self.about)
    }

    async fn check(&self, mail: &Mail, context: &Context) -> Result<Vec<Finding>, FilterError> {
        if let Some(findings) = self.at_once(mail, context) {
            return Ok(findings);
        }
        let deadline = context.deadline.checked_sub(SPARE).unwrap_or(context.deadline);
        let permit = Arc::clone(&self.threads).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout_at(deadline.into(), permit).await else {
            return Err(FilterError::new(Unscanned::Busy, "no thread became free to look into it"));
        };
        let task = self.task(mail, context.unpacking, deadline);
        let _cancel = CancelOnDrop(Arc::clone(&task.cancelled));
        tokio::task::spawn_blocking(move || {
            let (findings, _) = task.run();
            drop(permit);
            findings
        })
        .await
        .map_err(|error| FilterError::new(Unscanned::Panicked, error.to_string()))
    }
}

/// What looking into a mail needs; given to the thread that looks.
struct Task {
    content: Content,
    unpacking: Unpacking,
    deadline: Instant,
    cancelled: Arc<AtomicBool>,
    name: Arc<str>,
    tests: Tests,
    rules: Arc<Rules>,
}

impl Task {
    /// The findings, and whether the budget ended before the mail.
    fn run(&self) -> (Vec<Finding>, bool) {
        let start = Instant::now();
        let mut budget = Budget::new(self.unpacking, self.deadline, Arc::clone(&self.cancelled));
        let mut look = Look::new(&self.name, self.tests.eicar, self.tests.gtube, &self.rules);
        let stopped = walk(&self.content, &mut budget, &mut look);
        let out_of_budget = look.is_out_of_budget();
        let mut findings = look.into_findings();
        let (reason, detail) = match stopped {
            Ok(()) => return (findings, out_of_budget),
            Err(Stop::Local(error)) => (Unscanned::LocalError, error.to_string()),
            Err(_) => (Unscanned::Timeout, "not all of the mail was looked at".to_owned()),
        };
        findings.push(Finding::unscanned(&self.name, reason, start.elapsed(), &detail));
        (findings, out_of_budget)
    }
}

/// The engine drops a check that is late; the thread that looks must end too.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
