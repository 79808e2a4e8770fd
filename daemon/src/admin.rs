//! The admin socket: what `checkpost` asks of a running daemon. One JSON object a line, described in
//! `docs/admin-socket.md`. It is no interface for MTAs: who may write to it may reload the daemon.

mod client;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{Client, ClientError};
pub(crate) use server::serve;

use crate::report::{Circumstances, Report};

/// The longest request or response line, in octets: room for some ten thousand recipients.
pub const MAX_LINE: usize = 1 << 20;

/// The largest message that is checked over the admin socket, in octets. Larger ones are checked by
/// `checkpost check --embedded`.
pub const MAX_MESSAGE: u64 = 1 << 30;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How is it?
    Status {},
    /// Check the message that follows the line.
    Check {
        /// How many octets follow.
        octets: u64,
        /// Envelope and origin.
        #[serde(default)]
        circumstances: Circumstances,
    },
    /// The same, and why.
    Explain {
        /// How many octets follow.
        octets: u64,
        /// Envelope and origin.
        #[serde(default)]
        circumstances: Circumstances,
    },
    /// Read the configuration again.
    Reload {},
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To `status`.
    Status(Status),
    /// To `check` and `explain`.
    Report(Box<Report>),
    /// To `reload`: what was wrong. Nothing: the new configuration is in force. Anything: the old one is.
    Reloaded(Vec<String>),
    /// The request was not understood or could not be done. The connection is closed after it.
    Problem(String),
}

/// How the daemon is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// The configuration file.
    pub config: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Successful reloads since then.
    pub reloads: u64,
    /// Client connections now open.
    pub sessions: usize,
    /// Client connections since the start.
    pub sessions_served: u64,
    /// Is it about to end?
    pub draining: bool,
    /// The ways in.
    pub ways: Vec<WayStatus>,
    /// The filters.
    pub filters: Vec<FilterStatus>,
}

/// One way in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WayStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Where it listens: as configured, or with the port that was chosen for port 0.
    pub listen: Vec<String>,
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilterStatus {
    /// Its name.
    pub name: String,
    /// The program's version, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version of its signatures, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_version: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_as_documented() {
        let page = include_str!("../../docs/admin-socket.md");
        let mut requests = 0;
        for line in page.lines().filter_map(|line| line.strip_prefix("    → {").map(|rest| format!("{{{rest}"))) {
            assert!(serde_json::from_str::<Request>(&line).is_ok(), "{line}");
            requests += 1;
        }
        for line in page.lines().filter_map(|line| line.strip_prefix("    ← {").map(|rest| format!("{{{rest}"))) {
            assert!(serde_json::from_str::<Response>(&line).is_ok(), "{line}");
        }
        assert_eq!(requests, 4);
    }
}
