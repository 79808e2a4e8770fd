//! The front end's own section of the configuration: one `[[way]]` whose clients speak the check protocol.

use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::SocketAddress;
use checkpost_adapter::way::SettingsError;
use checkpost_core::config::{OneOrMany, Size, Time};
use checkpost_core::mail::OriginClass;
use serde::Deserialize;

/// One `[[way]]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The kind of way; read by the daemon before this struct is.
    pub kind: String,
    /// Its name in logs and rules. Default: the kind.
    pub name: Option<String>,
    /// Where to listen: a Unix socket, or several.
    pub listen: OneOrMany<SocketAddress>,
    /// Permission bits of the socket, octal, as text. Default "0666": any local user may ask.
    pub socket_mode: Option<String>,
    /// Direction of mail by this way, when neither the client nor networks and authentication tell. Default inbound.
    pub origin: Option<OriginClass>,
    /// Connections at once. Default 500.
    pub max_sessions: Option<usize>,
    /// Connections at once of one user. Default nine tenths of `max_sessions`, so that no user locks out the others.
    pub max_sessions_per_user: Option<usize>,
    /// Largest mail. Default 100 MiB; the mail server's own limit should be lower.
    pub max_size: Option<Size>,
    /// Recipients of one mail. Default 10000.
    pub max_recipients: Option<usize>,
    /// A mail must be judged so long after its last byte; a client may ask for less. Default 90 s.
    pub check_timeout: Option<Time>,
    /// A client may take so long to send a request, or to say that it is done. Default 5 min.
    pub command_timeout: Option<Time>,
}

/// What a session has to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The way's name.
    pub name: Arc<str>,
    /// Direction when nothing else tells.
    pub origin: OriginClass,
    /// See [`Written::max_sessions`].
    pub max_sessions: usize,
    /// See [`Written::max_sessions_per_user`].
    pub max_sessions_per_user: usize,
    /// Octets.
    pub max_size: u64,
    /// See [`Written::max_recipients`].
    pub max_recipients: usize,
    /// See [`Written::check_timeout`].
    pub check_timeout: Duration,
    /// See [`Written::command_timeout`].
    pub command_timeout: Duration,
}

impl Settings {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn new(written: &Written) -> Result<Self, SettingsError> {
        let wrong = |key, message: &str| Err(SettingsError { key, message: message.into() });
        if written.listen.0.iter().any(|address| matches!(address, SocketAddress::Tcp(..))) {
            return wrong("listen", "descriptors do not go over TCP; accepted: \"unix:/path\"");
        }
        let time = |given: &Option<Time>, default| given.as_ref().map_or(default, |time| time.duration());
        let max_sessions = written.max_sessions.unwrap_or(500);
        let per_user = written.max_sessions_per_user.unwrap_or(max_sessions - max_sessions / 10);
        let max_recipients = written.max_recipients.unwrap_or(10_000);
        if max_sessions == 0 {
            return wrong("max_sessions", "accepted: 1 and more");
        }
        if per_user == 0 || per_user > max_sessions {
            return wrong("max_sessions_per_user", "accepted: 1 to max_sessions");
        }
        if max_recipients == 0 {
            return wrong("max_recipients", "accepted: 1 and more");
        }
        Ok(Self {
            name: written.name.as_deref().unwrap_or(&written.kind).into(),
            origin: written.origin.unwrap_or(OriginClass::Inbound),
            max_sessions,
            max_sessions_per_user: per_user,
            max_size: written.max_size.as_ref().map_or(100 << 20, |size| size.as_u64()),
            max_recipients,
            check_timeout: time(&written.check_timeout, Duration::from_secs(90)),
            command_timeout: time(&written.command_timeout, Duration::from_secs(300)),
        })
    }
}
