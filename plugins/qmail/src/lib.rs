//! qmail: its way in by a program in qmail-queue's place, what it can be told, and its setup recipe as data.
//!
//! The program is `checkpost-qmail-queue` (`src/bin`); it links nothing of the engine and asks the daemon. What it
//! decides is in [`session`] and [`map`], without I/O. See the README for the contract.

pub mod config;
pub mod map;
pub mod origin;
pub mod session;
pub mod setup;

use checkpost_adapter::Kind;
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// In qmail-queue's place: every mail that enters qmail.
pub const QUEUE: Kind = Kind {
    name: "qmail-queue",
    about: "qmail: checkpost-qmail-queue in qmail-queue's place asks for every mail that enters the queue",
    abilities: Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: true,
        hold: false,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: true,
    },
};
