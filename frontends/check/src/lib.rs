//! The check front end: a program that has a mail (a mail server's helper of ours, or a third party's) shows it to us and
//! is told what to do with it. `docs/check-protocol.md` describes the protocol.
//!
//! It knows no mail server: what a helper does with an answer is in its plug-in. Any local user may ask, so a session
//! trusts nobody: it is bounded in every way, and what is asked and answered concerns that mail only.

pub mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod map;
pub mod session;
mod way;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

pub use config::{Settings, Written};
pub use session::{Check, Link};
pub use way::CheckWay;

/// The way for programs of others: what a client can do, it says itself.
pub const CHECK: Kind = Kind {
    name: "check",
    about: "the check socket: any program shows a mail and carries out the answer (docs/check-protocol.md)",
    abilities: Abilities {
        replies: Replies::PerRecipient,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: true,
        hold: true,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: true,
    },
};
