//! The front end's own section of the configuration: one `[[way]]` that answers as a scanner does.
//!
//! What was written ([`Written`]) is turned into what it means ([`Settings`]); ranges are checked there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::SocketAddress;
use checkpost_adapter::way::SettingsError;
use checkpost_core::Abilities;
use checkpost_core::config::{OneOrMany, Size, Time};
use checkpost_core::mail::OriginClass;
use checkpost_wire::spamd::Tenths;
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
    /// Networks that clients may come from over TCP. Default: loopback.
    pub trusted: Option<Vec<IpNet>>,
    /// Direction of mail by this way, when networks and authentication do not tell. Default inbound.
    pub origin: Option<OriginClass>,
    /// The content begins with the lines that Exim puts in front of a mail. Default false; true for Exim's kinds.
    pub envelope_lines: Option<bool>,
    /// clamd: the folders beneath which files may be named (`SCAN`). Default none; Exim's scan folder for its kind.
    pub paths: Option<Vec<PathBuf>>,
    /// spamd, rspamd: the score that clients are told makes spam. Default 15.
    pub required_score: Option<f32>,
    /// rspamd: words beyond reject and soft reject that the client carries out: "discard", "quarantine". Default none.
    pub actions: Option<Vec<Action>>,
    /// Connections at once. Default 500.
    pub max_sessions: Option<usize>,
    /// Requests on one connection. Default 10000.
    pub max_requests: Option<usize>,
    /// Largest mail. Default 100 MiB.
    pub max_size: Option<Size>,
    /// Recipients of one mail. Default 10000.
    pub max_recipients: Option<usize>,
    /// A mail must be judged so long after its last byte. Default 90 s: Exim waits 120 s for all.
    pub check_timeout: Option<Time>,
    /// A client may take so long to send a request with its content. Default 2 min.
    pub command_timeout: Option<Time>,
}

/// A word that clients must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Take the mail and hand it to nobody.
    Discard,
    /// Keep the mail in the mail server's own quarantine.
    Quarantine,
}

/// Whom the way answers as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// ClamAV's daemon.
    Clamd,
    /// SpamAssassin's.
    Spamd,
    /// Rspamd.
    Rspamd,
}

/// What differs between the kinds of way that share this front end.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    /// Whom it answers as.
    pub protocol: Protocol,
    /// [`Written::envelope_lines`].
    pub envelope_lines: bool,
    /// [`Written::paths`].
    pub paths: &'static [&'static str],
    /// [`Written::actions`].
    pub actions: &'static [Action],
}

/// What a session has to know, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The way's name.
    pub name: Arc<str>,
    /// Whom it answers as.
    pub protocol: Protocol,
    /// See [`Written::trusted`].
    pub trusted: Vec<IpNet>,
    /// Direction when nothing else tells.
    pub origin: OriginClass,
    /// See [`Written::envelope_lines`].
    pub envelope_lines: bool,
    /// See [`Written::paths`].
    pub paths: Arc<[PathBuf]>,
    /// See [`Written::required_score`].
    pub required: Tenths,
    /// See [`Written::actions`].
    pub actions: Vec<Action>,
    /// See [`Written::max_sessions`].
    pub max_sessions: usize,
    /// See [`Written::max_requests`].
    pub max_requests: usize,
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
    pub fn new(written: &Written, defaults: &Defaults) -> Result<Self, SettingsError> {
        let wrong = |key, message: &str| Err(SettingsError { key, message: message.into() });
        let time = |given: &Option<Time>, default| given.as_ref().map_or(default, |time| time.duration());
        let protocol = defaults.protocol;
        if written.paths.is_some() && protocol != Protocol::Clamd {
            return wrong("paths", "only clamd's protocol names files; accepted: no such key");
        }
        if written.required_score.is_some() && protocol == Protocol::Clamd {
            return wrong("required_score", "clamd's protocol has no scores; accepted: no such key");
        }
        if written.actions.is_some() && protocol != Protocol::Rspamd {
            return wrong("actions", "only rspamd's protocol has such words; accepted: no such key");
        }
        let paths: Vec<PathBuf> =
            written.paths.clone().unwrap_or_else(|| defaults.paths.iter().map(PathBuf::from).collect());
        if paths.iter().any(|path| !path.is_absolute() || path.parent().is_none()) {
            return wrong("paths", "accepted: absolute paths of folders, not of the whole file system");
        }
        let required = written.required_score.unwrap_or(15.0);
        if !(0.1..=10_000.0).contains(&required) {
            return wrong("required_score", "accepted: 0.1 to 10000");
        }
        let loopback = || ["127.0.0.0/8", "::1/128"].iter().filter_map(|network| network.parse().ok()).collect();
        let at_least_one = |key, value: usize| {
            if value == 0 { Err(SettingsError { key, message: "accepted: 1 and more".into() }) } else { Ok(value) }
        };
        Ok(Self {
            name: written.name.as_deref().unwrap_or(&written.kind).into(),
            protocol,
            trusted: written.trusted.clone().unwrap_or_else(loopback),
            origin: written.origin.unwrap_or(OriginClass::Inbound),
            envelope_lines: written.envelope_lines.unwrap_or(defaults.envelope_lines),
            paths: paths.into(),
            required: Tenths((required * 10.0).round() as i32),
            actions: written.actions.clone().unwrap_or_else(|| defaults.actions.to_vec()),
            max_sessions: at_least_one("max_sessions", written.max_sessions.unwrap_or(500))?,
            max_requests: at_least_one("max_requests", written.max_requests.unwrap_or(10_000))?,
            max_size: written.max_size.as_ref().map_or(100 << 20, |size| size.as_u64()),
            max_recipients: at_least_one("max_recipients", written.max_recipients.unwrap_or(10_000))?,
            check_timeout: time(&written.check_timeout, Duration::from_secs(90)),
            command_timeout: time(&written.command_timeout, Duration::from_secs(120)),
        })
    }

    /// What of a kind's abilities is left: words that clients need not know are not said.
    pub fn within(&self, kind: Abilities) -> Abilities {
        Abilities {
            discard: kind.discard && self.actions.contains(&Action::Discard),
            hold: kind.hold && self.actions.contains(&Action::Quarantine),
            ..kind
        }
    }
}
