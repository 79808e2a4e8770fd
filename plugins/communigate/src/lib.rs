//! CommuniGate Pro: its way in as an External Filter helper, what it can be told, and its setup recipe as data.
//!
//! The program is `checkpost-communigate` (`src/bin`); it links nothing of the engine and asks the daemon. Here is what
//! it decides, without pipes and files. See the README for the contract.

pub mod envelope;
pub mod map;
pub mod session;
pub mod setup;
pub mod string;
pub mod submitted;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// The helper that the server's Enqueuer asks. A refusal may become a bounce.
pub const HELPER: Kind = Kind {
    name: "communigate",
    about: "CommuniGate Pro: the External Filter helper checkpost-communigate; a refusal may become a bounce",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::Bounces,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: true,
        hold: false,
        discard: true,
        drop_recipients: true,
        contents_by_recipient: true,
    },
};

/// The same for a server that takes mail synchronously: for modules that wait for the Enqueuer, a refusal is told in the
/// sender's own session.
pub const SYNCHRONOUS: Kind = Kind {
    name: "communigate-synchronous",
    about: "CommuniGate Pro 5.1 or newer, seen to refuse in the sender's own session: the same helper",
    abilities: Abilities { refusal: Refusal::InSession, ..HELPER.abilities },
};

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Can;

    use super::*;

    #[test]
    fn the_program_claims_what_the_kind_says() {
        let abilities = HELPER.abilities;
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
