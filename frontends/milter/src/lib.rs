//! The milter front end: a mail server that speaks Sendmail's filter protocol (Sendmail, Postfix) asks
//! us inside its SMTP session, keeps receiving, queueing and delivering, and does what we answer.
//!
//! It knows no single MTA's set-up: that is in the plug-ins. The protocol has no TLS, and none is added:
//! the MTA could not speak it. Use a Unix socket, or TCP within one host or one guarded network.

pub mod config;
mod map;
pub mod session;
mod way;

pub use config::{Defaults, Settings, Written};
pub use map::MILTER;
pub use session::{Link, Milter};
pub use way::MilterWay;
