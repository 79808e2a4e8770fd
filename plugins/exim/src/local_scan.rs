//! The way by `local_scan()`: a library in Exim's own process asks the daemon (`local-scan/`). Here are its abilities.

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// Every mail, by SMTP or from a local program, just before Exim says that it is taken.
pub const LOCAL_SCAN: Kind = Kind {
    name: "exim-local-scan",
    about: "Exim: the local_scan library asks for every mail before Exim takes it, local programs' as well",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: false,
        add_recipients: true,
        change_sender: false,
        hold: true,
        drop_recipients: true,
        contents_by_recipient: false,
        discard: true,
    },
};
