//! `[filter.clamd]`: where clamd is, and how much is asked of it.
//! What becomes of mail that it did not scan is not here: that is policy's `when_unscanned`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::{Size, Time};

/// `[filter.clamd]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClamdConfig {
    /// `unix:/path/of/socket` or `tcp:HOST:PORT`. Default `unix:/run/clamav/clamd.ctl`, as in Debian.
    pub address: ClamdAddress,
    /// How the mail gets to clamd. Default `auto`.
    pub transfer: Transfer,
    /// The longest wait for a connection. Default 5 s: clamd's own queue may be full for a moment.
    pub connect_timeout: Time,
    /// The longest wait for one mail, connection included. Default 60 s; the mail's own deadline may
    /// be earlier.
    pub timeout: Time,
    /// Larger mails are not sent, and count as unscanned (`too-large`). Default 25 MiB, which is
    /// `StreamMaxLength` and `MaxFileSize` in Debian's `clamd.conf`. Never set it above
    /// `MaxFileSize`: a file above that which comes by descriptor is called OK by clamd unlooked at
    /// (seen with 1.4.6).
    pub max_size: Size,
    /// Scans at the same time; more wait. Default 10, which is clamd's own default of `MaxThreads`.
    pub connections: usize,
}

impl Default for ClamdConfig {
    fn default() -> Self {
        Self {
            address: ClamdAddress::Unix("/run/clamav/clamd.ctl".into()),
            transfer: Transfer::Auto,
            connect_timeout: Time::seconds(5),
            timeout: Time::seconds(60),
            max_size: Size::mebibytes(25),
            connections: 10,
        }
    }
}

impl ClamdConfig {
    /// What is wrong with it, as key and message.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        if self.transfer == Transfer::Descriptor && matches!(self.address, ClamdAddress::Tcp { .. }) {
            return Some(("transfer", "a descriptor cannot be passed over TCP; use \"auto\" or \"stream\"".into()));
        }
        if !(1..=1000).contains(&self.connections) {
            return Some(("connections", format!("{} is not within 1 to 1000", self.connections)));
        }
        if self.max_size.as_u64() == 0 || self.max_size.as_u64() > u64::from(u32::MAX) {
            return Some(("max_size", "must be above 0 and below 4 GiB, the most that clamd can take".into()));
        }
        for (key, time) in [("connect_timeout", self.connect_timeout), ("timeout", self.timeout)] {
            if time.duration().is_zero() {
                return Some((key, "must not be zero".into()));
            }
        }
        None
    }
}

/// How a mail gets to clamd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transfer {
    /// Small mails that are in memory and all mails over TCP: as a stream. Others: by descriptor, and
    /// as a stream if clamd will not have the descriptor.
    Auto,
    /// By descriptor only. clamd must be on this machine.
    Descriptor,
    /// As a stream only.
    Stream,
}

/// Where clamd listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClamdAddress {
    /// `unix:/path`.
    Unix(PathBuf),
    /// `tcp:HOST:PORT`; an IPv6 address in brackets.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// 3310 by custom.
        port: u16,
    },
}

impl FromStr for ClamdAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not an address: {text:?}; accepted: \"unix:/PATH\" or \"tcp:HOST:PORT\"");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let (host, port) = text.strip_prefix("tcp:").unwrap_or(text).rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains([':', '/']) => return Err(wrong()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() { Err(wrong()) } else { Ok(Self::Tcp { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for ClamdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

impl TryFrom<String> for ClamdAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ClamdAddress> for String {
    fn from(address: ClamdAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let read = text.parse::<ClamdAddress>().ok().map(|address| address.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("unix:/run/clamd", Some("unix:/run/clamd"));
        check("tcp:127.0.0.1:3310", Some("tcp:127.0.0.1:3310"));
        check("scanner.example.org:3310", Some("tcp:scanner.example.org:3310"));
        check("tcp:[::1]:3310", Some("tcp:[::1]:3310"));
        for wrong in
            ["", "unix:", "unix:run", "/run/clamd", "tcp:host", "tcp::1", "::1:3310", "host:0", "host:x", "[::1:1"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_written_is_read_and_checked() {
        let read = |text: &str| toml::from_str::<ClamdConfig>(text);
        assert_eq!(read("").unwrap(), ClamdConfig::default());
        assert_eq!(ClamdConfig::default().problem(), None);
        let full = "address = 'tcp:h:1'\ntransfer = 'stream'\nconnect_timeout = '1s'\ntimeout = '9s'\nmax_size = '1 MiB'\nconnections = 3";
        assert_eq!(read(full).unwrap().problem(), None);
        assert!(read("adress = 'unix:/x'").is_err());
        for (text, key) in [
            ("address = 'tcp:h:1'\ntransfer = 'descriptor'", "transfer"),
            ("connections = 0", "connections"),
            ("max_size = '5 GiB'", "max_size"),
            ("timeout = '0s'", "timeout"),
        ] {
            assert_eq!(read(text).unwrap().problem().unwrap().0, key);
        }
    }
}
