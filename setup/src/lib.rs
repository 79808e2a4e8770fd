//! How an MTA is set up for Checkpost, as data: what a plug-in describes in its `setup.rs` and `configure_mta`
//! carries out. Nothing is written from here, and no plug-in writes.
//!
//! A plug-in implements [`Mta`]: it *looks* at a machine through [`Look`], says what it [`Found`], which
//! [`Method`]s there are, and for one of them a [`Plan`]: typed [`Change`]s with their reasons, the MTA's own syntax
//! check and reload, and what is to be done with queued mail at the end. Who carries it out keeps every file as it
//! was, so a plan needs no way back but for commands whose effect is not in files ([`What::Run`]).
//!
//! A plan is made of what is there: what is in place already is not in it, so an empty plan means "already done".

mod answers;
mod change;
mod limit;
mod look;
mod mta;
pub mod recipe;
pub mod text;

pub use answers::{Answers, Choice, Question, WHEN_DOWN};
pub use change::{Change, Command, Owner, What, shell};
pub use limit::{Limit, Span};
pub use look::{About, FileKind, Look, LookError, Said};
pub use mta::{Fact, Found, Method, Mta, Obstacle, Plan, Socket, Submission};
