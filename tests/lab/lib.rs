//! The lab: real mail servers and scanners, each in an isolated root of its own, for the tests and
//! for `cargo xtask demo`; with the small SMTP client and the mails that both send.
//!
//! It is not a sandbox against hostile programs, and nothing here is part of the product. How a
//! root is made is told in `cache` (what is kept) and `recipes/enter.sh` (what happens at a start).
//!
//! A root has its own mounts, processes, host name and network, and of that only the loopback
//! interface. The test stays where it is and reaches in:
//!
//! * [`Root::send`] and [`Root::connect`] open connections from inside the root's network,
//!   [`Root::listen`] listens there, [`Root::in_network`] runs any code there (for example a whole
//!   tokio runtime: threads started inside stay inside);
//! * [`Root::net_command`] runs a program of this machine in the root's network, which is how a
//!   freshly built daemon is put beside a real Postfix; [`Root::command`] runs one of the root's own;
//! * [`Root::path`] names a file in the root, [`Root::shared`] a folder that both sides see, for
//!   Unix sockets.

mod cache;
mod clamd;
mod client;
pub mod communigate;
mod courier;
mod crash;
mod daemon;
mod dialogue;
mod exim;
mod lab;
pub mod mails;
pub mod mock_mta;
mod postfix;
pub mod qmail;
mod root;
mod scanners;
mod sendmail;
mod sink;
mod skip;
mod stuck;
mod terminal;
pub mod zmailer;

pub use clamd::Clamd;
pub use client::{Answer, Client, Told, send};
pub use courier::Courier;
pub use crash::CrashLoad;
pub use daemon::{Daemon, program};
pub use exim::Exim;
pub use lab::{Lab, Queue, Recipe};
pub use postfix::Postfix;
pub use root::{Builder, Root, StartError};
pub use scanners::Scanners;
pub use sendmail::Sendmail;
pub use sink::Sink;
pub use skip::{Skip, skip};
pub use stuck::StuckClamd;
pub use terminal::Terminal;
