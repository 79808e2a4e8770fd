//! Where copies of mails are kept: a trait, and a first store in plain files.

use std::sync::Arc;

use async_trait::async_trait;

use crate::fit::Fitted;
use crate::mail::Mail;
use crate::verdict::Verdict;

/// Keeps exact copies of mails.
#[async_trait]
pub trait Quarantine: Send + Sync {
    /// Keeps a copy. When this returns `Ok`, the copy survives a crash of the machine: only then
    /// may a discard take effect.
    async fn store(&self, mail: &Mail, verdict: &Verdict, fitted: &Fitted) -> Result<Arc<str>, QuarantineError>;
}

/// Why a copy could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// Disk full, no such directory, no rights.
    #[error("cannot write to the quarantine")]
    Io(#[from] std::io::Error),
    /// It is at its size limit and may not make room.
    #[error("the quarantine is full")]
    Full,
}
