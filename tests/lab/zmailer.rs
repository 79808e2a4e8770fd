//! ZMailer: a real one, from a tree outside of this repository, and a driver that does what its smtpserver does, for
//! machines without one.
//!
//! The driver shares no code with the program under test: the protocol, what counts as a verdict, and the spool files
//! are written a second time, from what ZMailer 3.0.1 was seen to do. As the real one it takes for "accept" whatever it
//! does not understand, so a mistake shows as a mail that passed.

mod driver;
mod filter;
mod router;
mod smtpserver;
mod spool;
mod stand_in;
mod talk;
mod verdict;
mod zmsh;

use std::path::PathBuf;

use crate::root::Builder;
use crate::{Queue, Recipe, Root, Skip};

pub use driver::{Driver, Fate, Told};
pub use filter::{Filter, Limits};
pub use router::{deliver, router};
pub use smtpserver::{smtpserver, version};
pub use spool::Mail;
pub use stand_in::StandIn;
pub use talk::Open;
pub use verdict::Verdict;

/// Names a tree as ZMailer's `make install DESTDIR=…` and its `post-install --destdir` make it.
pub const HOME: &str = "CHECKPOST_ZMAILER_HOME";

/// A real ZMailer for the domain `example.test`, delivering to `/var/mail`. It listens on port 25; strangers are
/// 127.0.0.1 and 203.0.113.5, a relay client is 10.9.8.7.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZMailer;

impl ZMailer {
    /// Where the tree is.
    pub fn home() -> Result<PathBuf, Skip> {
        let skip = || Skip(format!("a real ZMailer needs {HOME}: it is in no Debian, and nothing of it is kept here"));
        std::env::var_os(HOME).map(PathBuf::from).ok_or_else(skip)
    }

    /// Its root, not started yet.
    pub fn root(home: PathBuf) -> Builder<'static> {
        Root::of(&ZMailer).bind(home, "/lab/zmailer")
    }
}

impl Recipe for ZMailer {
    fn name(&self) -> &'static str {
        "zmailer"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/zmailer.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![("relay", "10.9.8.7\n".into())]
    }

    fn queue(&self) -> Queue {
        Queue {
            waiting: &[
                "/var/spool/postoffice/public/",
                "/var/spool/postoffice/router/",
                "/var/spool/postoffice/queue/",
                "/var/spool/postoffice/deferred/",
                "/var/spool/postoffice/postman/",
            ],
            held: &["/var/spool/postoffice/freezer/"],
            ..Queue::default()
        }
    }
}
