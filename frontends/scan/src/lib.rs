//! The scan front end: it answers as clamd, spamd and rspamd do, so that whatever asks one of those (Exim's DATA ACL,
//! `clamdscan`, `spamc`, `rspamc`, other filters) can ask Checkpost. README.md says how each verdict is told in each protocol.
//!
//! It knows no mail server but for one thing that it reads when told to: the lines that Exim puts in front of a mail.
//! What it cannot say it does not say: a mail that was not checked is never "clean".

mod clamd;
pub mod config;
mod map;
mod rspamd;
pub mod session;
mod spamd;
mod way;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

pub use clamd::Clamd;
pub use config::{Defaults, Protocol, Settings, Written};
pub use rspamd::{Counts, Rspamd};
pub use session::{Link, Scan};
pub use spamd::Spamd;
pub use way::ScanWay;

/// "It may pass" or "it may not", for the whole mail, and no more.
pub const GATE: Abilities = Abilities {
    replies: Replies::PerMessage,
    refusal: Refusal::InSession,
    edit_headers: false,
    edit_body: false,
    add_recipients: false,
    change_sender: false,
    hold: false,
    drop_recipients: false,
    discard: false,
    contents_by_recipient: false,
};

/// The kinds of way, each with what differs.
pub fn kinds() -> [(Kind, Defaults); 3] {
    let kind = |name, about, abilities| Kind { name, about, abilities };
    let defaults = |protocol| Defaults { protocol, envelope_lines: false, paths: &[], actions: &[] };
    let process = Abilities { edit_headers: true, edit_body: true, ..GATE };
    let http = Abilities { edit_headers: true, hold: true, discard: true, ..GATE };
    [
        (
            kind("scan-clamd", "answers as clamd does: for clamdscan, and for any program that asks a clamd", GATE),
            defaults(Protocol::Clamd),
        ),
        (
            kind(
                "scan-spamd",
                "answers as SpamAssassin's spamd does: for spamc; edits for PROCESS and HEADERS only",
                process,
            ),
            defaults(Protocol::Spamd),
        ),
        (
            kind(
                "scan-rspamd",
                "answers as rspamd does, by HTTP: for rspamc; discard and hold if `actions` has them",
                http,
            ),
            defaults(Protocol::Rspamd),
        ),
    ]
}
