//! The ways after Exim's queue: a router and a transport hand every mail to us, by SMTP or LMTP or to a program, and we
//! hand it back to the same Exim.
//!
//! The sessions are the SMTP proxy's; the program is `checkpost-pipe` (`frontends/pipe`). Here are their abilities and
//! what differs from a plain proxy.

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_smtp::Defaults;

/// Exim has taken the mail and hands it to us by SMTP or LMTP; it comes back at a port of its own.
pub const TRANSPORT: Kind = Kind {
    name: "exim-transport",
    about: "Exim router and smtp transport: queued while we are down, a refusal becomes a bounce",
    // A 5xx makes Exim bounce, a 4xx keeps the mail in its queue.
    abilities: Abilities { refusal: Refusal::Bounces, ..checkpost_smtp::SMTP },
};

/// Exim has taken the mail and starts a program for it, which gives it back by `exim4 -oMr`.
pub const PIPE: Kind = Kind {
    name: "exim-pipe",
    about: "Exim router and pipe transport: checkpost-pipe asks for every queued mail, no second port",
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

/// The kind that is a proxy, with what differs from a plain one.
pub fn kinds() -> [(Kind, Defaults); 1] {
    // Exim adds a Received field of its own on both sides, so another would only tell the same; and it counts them, up to
    // received_headers_max, 30.
    [(TRANSPORT, Defaults { received: false, trust_loopback: true, ..Defaults::default() })]
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Can;

    use super::*;

    #[test]
    fn the_program_claims_what_the_kind_says() {
        let abilities = PIPE.abilities;
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
            assert_eq!(checkpost_pipe::map::CAN.contains(can), has, "{can:?}");
        }
    }
}
