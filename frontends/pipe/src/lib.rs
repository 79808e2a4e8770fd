//! `checkpost-pipe`: a mail server's pipe transport starts it for each queued mail. It asks the daemon, and hands the
//! mail back to the same mail server, marked so that it does not come again.
//!
//! Here is what it decides, without sockets, files and processes; the program is `src/bin`. Two mail servers are
//! known: Exim's `pipe` transport ([`exim`]) and Postfix's pipe(8) ([`postfix`]). They differ in how the envelope comes
//! and how a mail is taken back, and in how a circle is seen.

pub mod arguments;
pub mod bsmtp;
pub mod config;
pub mod exim;
pub mod map;
pub mod postfix;

use std::net::IpAddr;

/// Who gets a mail, from whom, and what the mail server says of its origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Without angle brackets; empty: the null sender.
    pub sender: Vec<u8>,
    /// Likewise.
    pub recipients: Vec<Vec<u8>>,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a mail came from before it was queued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The host that sent it; `None`: a program of this host.
    pub client: Option<IpAddr>,
    /// That host's name.
    pub client_name: Option<String>,
    /// What it said at HELO or EHLO.
    pub helo: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    /// The mail server's id of the mail.
    pub queue_id: Option<String>,
    /// How it was received, in the mail server's words.
    pub protocol: Option<String>,
}
