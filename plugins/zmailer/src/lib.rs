//! ZMailer: its ways in by its content filter, in the SMTP session, and by its router, behind the queue; what they
//! can be told, and their setup recipes as data.
//!
//! The program is `checkpost-zmailer` (`src/bin`) for both; it links nothing of the engine and asks the daemon. Here
//! is what it decides, without pipes, sockets and files. See the README for the contract.

pub mod bounce;
pub mod config;
pub mod map;
pub mod session;
pub mod setup;
pub mod spool;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// The content filter that smtpserver asks before it answers its client.
pub const SMTP: Kind = Kind {
    name: "zmailer-smtp",
    about: "ZMailer content filter: answers inside the SMTP session, by the program checkpost-zmailer",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: false,
        hold: true,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: false,
    },
};

/// What the router asks for every mail: from SMTP, from local programs, from ZMailer itself.
pub const ROUTER: Kind = Kind {
    name: "zmailer-router",
    about: "ZMailer router: every mail in the queue, before it is routed, by the program checkpost-zmailer",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::Bounces,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: false,
        hold: true,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: true,
    },
};

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Can;

    use super::*;

    #[test]
    fn the_program_claims_what_the_kinds_say() {
        for (kind, can) in [(SMTP, map::SMTP), (ROUTER, map::ROUTER)] {
            let abilities = kind.abilities;
            for (word, has) in [
                (Can::EDIT_HEADERS, abilities.edit_headers),
                (Can::EDIT_BODY, abilities.edit_body),
                (Can::ADD_RECIPIENTS, abilities.add_recipients),
                (Can::CHANGE_SENDER, abilities.change_sender),
                (Can::HOLD, abilities.hold),
                (Can::DROP_RECIPIENTS, abilities.drop_recipients),
                (Can::CONTENTS_BY_RECIPIENT, abilities.contents_by_recipient),
                (Can::REPLY_PER_RECIPIENT, abilities.replies == Replies::PerRecipient),
                (Can::REFUSE_IN_SESSION, abilities.refusal == Refusal::InSession),
            ] {
                assert_eq!(can.contains(word), has, "{}: {word:?}", kind.name);
            }
        }
    }
}
