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
}
