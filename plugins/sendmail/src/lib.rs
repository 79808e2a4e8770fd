//! Sendmail: its way in by milter, what it can be told, and its setup recipe as data.
//!
//! The session is the milter front end's; what is Sendmail's own is here. See the README for the contract.

mod map;
pub mod setup;

use std::time::Duration;

use checkpost_adapter::Kind;

/// Inside the session of Sendmail's daemon.
pub const MILTER: Kind = Kind {
    name: "sendmail-milter",
    about: "Sendmail INPUT_MAIL_FILTER: answers inside the session, the mail never leaves Sendmail",
    abilities: map::MILTER,
};

/// `E:` is 5 min (sendmail/milter.c), and the recipe sets no less. `R:`, 10 s by default, is kept up by
/// signs of life.
pub const MILTER_DEFAULTS: checkpost_milter::Defaults =
    checkpost_milter::Defaults { mta_timeout: Duration::from_secs(300), removes_mailboxes: true };
