//! A real qmail in a root, with tcpserver before it.

use std::path::PathBuf;

use crate::root::Builder;
use crate::{Queue, Recipe, Root, Skip};

/// Names a folder in which notqmail was built.
const BUILT: &str = "CHECKPOST_QMAIL_BUILT";

/// For the domain `example.test`, delivering to `~/Maildir`; staff is alice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Qmail;

impl Qmail {
    /// Where it was built.
    pub fn folder() -> Result<PathBuf, Skip> {
        let skip = || Skip(format!("a real qmail needs {BUILT}: it is in no Debian, and nothing of it is kept here"));
        std::env::var_os(BUILT).map(PathBuf::from).ok_or_else(skip)
    }

    /// Its root, not started yet.
    pub fn root(folder: PathBuf) -> Builder<'static> {
        Root::of(&Qmail).bind(folder, "/lab/qmail")
    }
}

impl Recipe for Qmail {
    fn name(&self) -> &'static str {
        "qmail"
    }

    fn script(&self) -> &'static str {
        include_str!("../recipes/qmail.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn queue(&self) -> Queue {
        // INTERNALS.md: a message is there from its first octet to its last recipient.
        Queue { waiting: &["/var/qmail/queue/mess/"], ..Queue::default() }
    }
}
