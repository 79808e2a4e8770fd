//! Where copies of mails are kept: a trait, and a first store in plain files.
//! Not the decision to keep one: that is policy's, and what the sender is told is the way's.

pub mod files;
pub mod reader;
pub mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

pub use files::{FileQuarantine, Swept};
pub use reader::QuarantineReader;
pub use record::Entry;

use crate::config::{Size, Time};
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

/// Why a copy could not be kept, or not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// Disk full, no such directory, no rights.
    #[error("the quarantine cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// It is at its size limit and may not make room.
    #[error("the quarantine is full")]
    Full,
    /// What was asked for has not the form of a mail's id: 13 characters of `0-9A-Z`.
    #[error("not the id of a mail: 13 characters of 0-9 and A-Z are")]
    BadId,
    /// There is no mail of this id, or no more.
    #[error("there is no mail {0} in the quarantine")]
    NotFound(Box<str>),
}

/// The section `[quarantine]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineConfig {
    /// The directory, made with mode 0700 when it is not there. Default `/var/lib/checkpost/quarantine`.
    pub directory: PathBuf,
    /// Copies older than this are removed. Default 30 days.
    pub keep_for: Time,
    /// Octets of all copies and their records together; the oldest make room for new ones. Default 1 GiB.
    pub max_size: Size,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self::below(Path::new("/var/lib/checkpost"))
    }
}

impl QuarantineConfig {
    /// The defaults, with the directory `quarantine` in this one.
    pub fn below(state: &Path) -> Self {
        Self {
            directory: state.join("quarantine"),
            keep_for: Time::seconds(30 * 86_400),
            max_size: Size::mebibytes(1024),
        }
    }
}
