//! What stands around an External Filter helper: a server with a queue, three pipes to its helper, rules for what the
//! helper may say, and a module that takes what is handed in by the folder `Submitted`. There is no CommuniGate Pro for
//! tests, so this does what its manual and programs written for it say.
//!
//! Nothing here shares code with the program under test: strings, replies, envelopes and submitted mails are read a
//! second time. What it does not like it panics over.

mod helper;
mod pipe;
mod reply;
mod server;
mod stand_in;

pub use helper::{Ended, Helper};
pub use pipe::{Sub, SubError};
pub use reply::{Reply, read_string};
pub use server::{Delivered, Mail, Order, Server};
pub use stand_in::{StandIn, serve};
