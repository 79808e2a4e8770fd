//! A way in, as the daemon sees it: a kind that can be read about, and a configured instance that
//! serves connections.

use std::sync::Arc;

use async_trait::async_trait;
use checkpost_core::Abilities;

use crate::address::SocketAddress;
use crate::host::Host;
use crate::stream::Connection;

/// What can be said of a kind of way before one is configured: the row of `checkpost ways`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Kind {
    /// As in `[[way]] kind = "…"`.
    pub name: &'static str,
    /// One line for administrators.
    pub about: &'static str,
    /// What it can do.
    pub abilities: Abilities,
}

/// A configured way in.
#[async_trait]
pub trait Way: Send + Sync {
    /// Its name in logs and policies.
    fn name(&self) -> &Arc<str>;

    /// Its kind.
    fn kind(&self) -> &Kind;

    /// What this instance can do: the kind's abilities, less what its configuration takes away.
    fn abilities(&self) -> Abilities {
        self.kind().abilities
    }

    /// Where it listens.
    fn listen(&self) -> &[Listen];

    /// Serves one connection to its end. Never panics, never returns an error: what went wrong is in
    /// the log, and the peer was told.
    async fn serve(self: Arc<Self>, connection: Connection, host: Arc<Host>);
}

/// A value of a way's configuration that cannot be used: key and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct SettingsError {
    /// The key within the way.
    pub key: &'static str,
    /// What is wrong and what would be accepted.
    pub message: String,
}

/// One address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Where.
    pub address: SocketAddress,
    /// A Unix socket's permission bits; 0o660 unless configured.
    pub mode: u32,
    /// TCP: acknowledge at once what comes, for peers that write a command in two pieces and would wait
    /// 40 ms for the acknowledgement of the first.
    pub quick_ack: bool,
    /// Unix sockets: take descriptors that come with the bytes.
    pub descriptors: bool,
}

impl Listen {
    /// What `listen` and `socket_mode` (octal digits) of a way say.
    ///
    /// # Errors
    /// When there is no address, or the mode is none.
    pub fn all(addresses: &[SocketAddress], mode: Option<&str>, quick_ack: bool) -> Result<Vec<Self>, SettingsError> {
        let mode = match mode {
            None => 0o660,
            Some(text) => {
                u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| SettingsError {
                    key: "socket_mode",
                    message: format!("{text:?} is no permission; accepted: octal digits as in \"0660\""),
                })?
            }
        };
        if addresses.is_empty() {
            let message = "nowhere to listen; accepted: an address or a list of addresses".into();
            return Err(SettingsError { key: "listen", message });
        }
        Ok(addresses.iter().cloned().map(|address| Self { address, mode, quick_ack, descriptors: false }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_listen() {
        let address: SocketAddress = "unix:/run/x.sock".parse().unwrap();
        let modes = |mode| Listen::all(std::slice::from_ref(&address), mode, false).map(|all| all[0].mode);
        assert_eq!(modes(None), Ok(0o660));
        assert_eq!(modes(Some("0666")), Ok(0o666));
        for wrong in ["", "8", "1777", "rw"] {
            assert_eq!(modes(Some(wrong)).unwrap_err().key, "socket_mode", "{wrong}");
        }
        assert_eq!(Listen::all(&[], None, false).unwrap_err().key, "listen");
    }
}
