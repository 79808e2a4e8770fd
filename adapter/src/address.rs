//! Where to listen or connect: `unix:/path`, `host:port`, `[v6]:port`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// A TCP or Unix socket address as written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// Host (name, IPv4, or IPv6 without brackets) and port.
    Tcp(Arc<str>, u16),
    /// A path.
    Unix(PathBuf),
}

/// Neither `unix:/absolute/path` nor `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address: {0:?}; accepted: \"unix:/path\", \"host:port\", \"[ipv6]:port\"")]
pub struct AddressError(String);

impl FromStr for SocketAddress {
    type Err = AddressError;

    fn from_str(written: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(written.to_owned());
        if let Some(path) = written.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(wrong()) };
        }
        let written_tcp = written.strip_prefix("tcp:").unwrap_or(written);
        let (host, port) = written_tcp.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(v6) => {
                v6.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
                v6
            }
            None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => return Err(wrong()),
            None => host,
        };
        Ok(Self::Tcp(host.into(), port))
    }
}

impl SocketAddress {
    /// The host to verify a certificate for; `None` for a path.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp(host, _) => Some(host),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl<'de> serde::Deserialize<'de> for SocketAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        written.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for written in ["unix:/run/x.sock", "127.0.0.1:25", "mail.example.org:24", "[::1]:25"] {
            assert_eq!(written.parse::<SocketAddress>().unwrap().to_string(), written);
        }
        for wrong in ["", "25", "unix:x", ":25", "::1:25", "a:b", "[x]:25", "host:99999"] {
            assert!(wrong.parse::<SocketAddress>().is_err(), "{wrong}");
        }
    }
}
