//! The front end's own section of the configuration: one `[[way]]` of a milter kind.
//!
//! What was written ([`Written`]) is turned into what it means ([`Settings`]); ranges are checked there.

use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::SocketAddress;
use checkpost_adapter::way::SettingsError;
use checkpost_core::config::{OneOrMany, Size, Time};
use checkpost_core::mail::OriginClass;
use ipnet::IpNet;
use serde::Deserialize;

/// One `[[way]]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The kind of way; read by the daemon before this struct is.
    pub kind: String,
    /// Its name in logs and rules. Default: the kind.
    pub name: Option<String>,
    /// Where to listen: one address or several.
    pub listen: OneOrMany<SocketAddress>,
    /// Permission bits of a Unix socket, octal, as text. Default "0660".
    pub socket_mode: Option<String>,
    /// Networks that mail servers may come from over TCP. Default: loopback.
    pub trusted: Option<Vec<IpNet>>,
    /// Direction of mail by this way, when networks and authentication do not tell. Default inbound.
    pub origin: Option<OriginClass>,
    /// Connections at once. Default 500: a mail server opens one for each SMTP session.
    pub max_sessions: Option<usize>,
    /// Largest mail. Default 100 MiB; the mail server's own limit should be lower.
    pub max_size: Option<Size>,
    /// Recipients of one mail. Default 10000; the mail server's own limit should be lower.
    pub max_recipients: Option<usize>,
    /// A mail must be judged so long after its last byte. Default 90 s.
    pub check_timeout: Option<Time>,
    /// How long the mail server waits for our answer to a mail: Postfix's `milter_content_timeout`,
    /// Sendmail's `E:`. Default 5 min, as in both. `check_timeout` must be 10 s shorter at least.
    pub mta_timeout: Option<Time>,
    /// A mail server may say nothing for so long. Default 7210 s, as in libmilter: it keeps the
    /// connection as long as its SMTP client is connected.
    pub command_timeout: Option<Time>,
}

/// What a session has to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The way's name.
    pub name: Arc<str>,
    /// See [`Written::trusted`].
    pub trusted: Vec<IpNet>,
    /// Direction when nothing else tells.
    pub origin: OriginClass,
    /// See [`Written::max_sessions`].
    pub max_sessions: usize,
    /// Octets.
    pub max_size: u64,
    /// See [`Written::max_recipients`].
    pub max_recipients: usize,
    /// See [`Written::check_timeout`].
    pub check_timeout: Duration,
    /// See [`Written::command_timeout`].
    pub command_timeout: Duration,
    /// See [`Defaults::removes_mailboxes`].
    pub removes_mailboxes: bool,
}

/// What differs between the kinds of way that share this front end.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// [`Written::mta_timeout`].
    pub mta_timeout: Duration,
    /// Sendmail removes a recipient with all other addresses of the same mailbox.
    pub removes_mailboxes: bool,
}

/// The default of [`Written::check_timeout`].
const CHECK_TIMEOUT: Duration = Duration::from_secs(90);
/// So long before the mail server gives up we have answered: what is late is then deferred by us, with a
/// reason, and not by its default action.
const MARGIN: Duration = Duration::from_secs(10);
/// libmilter's `MI_TIMEOUT`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(7210);

impl Settings {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn new(written: &Written, defaults: &Defaults) -> Result<Self, SettingsError> {
        let wrong = |key, message: String| Err(SettingsError { key, message });
        let time = |given: &Option<Time>, default: Duration| given.as_ref().map_or(default, |time| time.duration());
        let check_timeout = time(&written.check_timeout, CHECK_TIMEOUT);
        let mta_timeout = time(&written.mta_timeout, defaults.mta_timeout);
        if check_timeout + MARGIN > mta_timeout {
            let message = format!(
                "a check may take {}s, and the mail server waits {}s; accepted: {}s less than that at most, or raise the \
                 mail server's time and mta_timeout with it",
                check_timeout.as_secs(),
                mta_timeout.as_secs(),
                MARGIN.as_secs()
            );
            return wrong("check_timeout", message);
        }
        let max_recipients = written.max_recipients.unwrap_or(10_000);
        if max_recipients == 0 {
            return wrong("max_recipients", "accepted: 1 and more".into());
        }
        let loopback = || ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect();
        Ok(Self {
            name: written.name.as_deref().unwrap_or(&written.kind).into(),
            trusted: written.trusted.clone().unwrap_or_else(loopback),
            origin: written.origin.unwrap_or(OriginClass::Inbound),
            max_sessions: written.max_sessions.unwrap_or(500),
            max_size: written.max_size.as_ref().map_or(100 << 20, |size| size.as_u64()),
            max_recipients,
            check_timeout,
            command_timeout: time(&written.command_timeout, COMMAND_TIMEOUT),
            removes_mailboxes: defaults.removes_mailboxes,
        })
    }
}
