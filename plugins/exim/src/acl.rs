//! The way by the DATA ACL: Exim's conditions `malware` and `spam` ask, and lines of the ACL do what is said. Here are its
//! kinds; acl.md explains them. The session is the scan front end's.

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_scan::config::Action;
use checkpost_scan::{Defaults, GATE, Protocol};

/// `av_scanner = clamd:…`, for the condition `malware`.
pub const CLAMD: Kind = Kind {
    name: "exim-clamd",
    about: "Exim's ACL condition `malware`: may the mail pass or not, in Exim's session",
    abilities: GATE,
};

/// `spamd_address = …`, for the condition `spam`.
pub const SPAMD: Kind = Kind {
    name: "exim-spamd",
    about: "Exim's ACL condition `spam`: may the mail pass or not, with a score and a report",
    abilities: GATE,
};

/// `spamd_address = … variant=rspamd`, for the condition `spam`: its `$spam_action` says all that an ACL can do.
pub const RSPAMD: Kind = Kind {
    name: "exim-rspamd",
    about: "Exim's ACL condition `spam` with variant=rspamd: tells the envelope, and hears a whole verdict",
    abilities: Abilities { discard: true, hold: true, ..GATE },
};

/// The kinds, each with what differs: Exim's lines before a mail, its scan folder, and an ACL that knows all words.
pub fn kinds() -> [(Kind, Defaults); 3] {
    let defaults = |protocol| Defaults { protocol, envelope_lines: true, paths: &[], actions: &[] };
    [
        (CLAMD, Defaults { paths: &["/var/spool/exim4/scan"], ..defaults(Protocol::Clamd) }),
        (SPAMD, defaults(Protocol::Spamd)),
        (RSPAMD, Defaults { actions: &[Action::Discard, Action::Quarantine], ..defaults(Protocol::Rspamd) }),
    ]
}
