//! Courier: its way in as a courierfilter, what it can be told, and its setup recipe as data.
//!
//! The program is `checkpost-courier` (`src/bin`); it links nothing of the engine and asks the daemon. Here is
//! what it decides, without sockets and files. See the README for the contract.

pub mod content;
pub mod control;
pub mod map;
pub mod session;
pub mod setup;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// The filter that Courier asks before it answers its client.
pub const COURIERFILTER: Kind = Kind {
    name: "courierfilter",
    about: "Courier global filter: answers inside the session, by the program checkpost-courier",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: false,
        hold: false,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: false,
    },
};

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Can;

    use super::*;

    #[test]
    fn the_program_claims_what_the_kind_says() {
        let abilities = COURIERFILTER.abilities;
        for (can, has) in [
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
            assert_eq!(map::CAN.contains(can), has, "{can:?}");
        }
    }
}
