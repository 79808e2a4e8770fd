//! The `built-in` filter: the EICAR and GTUBE test strings anywhere in a mail, and attachments by name
//! and by real type, also within archives.
//!
//! It knows no virus and judges no spam; it is what works without any scanner.

mod attachment;
mod look;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use serde::Deserialize;

use self::attachment::Rules;
pub use self::attachment::{AttachmentRule, RuleError};
use self::look::Look;
use crate::content::mime::budget::{Budget, Stop};
use crate::content::mime::walk;
use crate::filter::{About, Context, Filter, FilterError};
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
    eicar: bool,
    gtube: bool,
    rules: Arc<Rules>,
}

/// What finding something in a mail starts from; given to the thread that looks.
struct Task {
    mail: Mail,
    budget: Budget,
    name: Arc<str>,
    eicar: bool,
    gtube: bool,
    rules: Arc<Rules>,
}

impl Builtin {
    /// Checks the attachment rules.
    pub fn new(config: BuiltinConfig) -> Result<Self, RuleError> {
        let about = About {
            name: "built-in".into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
            data_version: None,
            finds: &["malware", "spam", "policy", "encrypted", "limit", "unscanned"],
        };
        let rules = Arc::new(Rules::new(config.attachment)?);
        Ok(Self { about: Arc::new(about), eicar: config.eicar, gtube: config.gtube, rules })
    }
}

#[async_trait]
impl Filter for Builtin {
    fn about(&self) -> Arc<About> {
        Arc::clone(&self.about)
    }

    async fn check(&self, mail: &Mail, context: &Context) -> Result<Vec<Finding>, FilterError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let task = Task {
            mail: mail.clone(),
            budget: Budget::new(context.unpacking, context.deadline, Arc::clone(&cancelled)),
            name: Arc::clone(&self.about.name),
            eicar: self.eicar,
            gtube: self.gtube,
            rules: Arc::clone(&self.rules),
        };
        if mail.content.as_slice().is_some_and(|bytes| bytes.len() <= INLINE) {
            // Over before a thread would have been woken.
            return Ok(task.run());
        }
        let _cancel = CancelOnDrop(cancelled);
        tokio::task::spawn_blocking(move || task.run())
            .await
            .map_err(|error| FilterError::new(Unscanned::Panicked, error.to_string()))
    }
}

/// Contents up to this are looked at on the spot: a fraction of a millisecond, archives excepted.
const INLINE: usize = 2 << 20;

impl Task {
    fn run(mut self) -> Vec<Finding> {
        let start = Instant::now();
        let mut look = Look::new(&self.name, self.eicar, self.gtube, &self.rules);
        let stopped = walk(&self.mail.content, &mut self.budget, &mut look);
        let mut findings = look.into_findings();
        let unscanned = match stopped {
            Ok(()) => return findings,
            Err(Stop::Local(error)) => (Unscanned::LocalError, error.to_string()),
            Err(_) => (Unscanned::Timeout, "not all of the mail was looked at".to_owned()),
        };
        findings.push(Finding::unscanned(&self.name, unscanned.0, start.elapsed(), &unscanned.1));
        findings
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
