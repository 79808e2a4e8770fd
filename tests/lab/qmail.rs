//! What stands on both sides of a program that takes qmail-queue's place: a caller that does what qmail-smtpd
//! does, and an original that does what qmail-queue does. For machines without a qmail.
//!
//! Nothing here shares code with the program under test: the grammar and the table of exit codes are
//! written a second time, from qmail-queue(8) and from what a real qmail was seen to do.

mod caller;
mod home;
mod real;
mod reply;
mod stand_in;

pub use caller::{Caller, Left, Running, TextFd};
pub use home::{Call, Home};
pub use real::Qmail;
pub use reply::{Flavour, reply};
pub use stand_in::{StandIn, inject, send, smtpd};
