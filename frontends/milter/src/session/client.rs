//! What the MTA tells of its client, for the length of a connection.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use checkpost_core::config::Origins;
use checkpost_core::{Address, Origin, OriginClass};
use checkpost_wire::milter::{Macros, Peer};

/// The longest name that is kept, in octets: RFC 1035 allows 255.
const MAX_NAME: usize = 255;

/// The MTA's client.
#[derive(Debug, Clone, Default)]
pub(super) struct Client {
    address: Option<IpAddr>,
    name: Option<Box<str>>,
    helo: Option<Box<str>>,
    tls: bool,
    user: Option<Box<str>>,
    queue_id: Option<Box<str>>,
    /// Have the macros of a mail come that has not begun yet?
    is_told: bool,
    /// Not SMTP but the MTA's own sendmail(1): Postfix may not refuse single recipients then.
    pub(super) is_local: bool,
}

impl Client {
    pub(super) fn new(host: &Bytes, peer: &Peer) -> Self {
        let (address, port) = match peer {
            Peer::Inet { address, port } => (Some(*address), *port),
            _ => (None, 0),
        };
        // A client without a name comes by its address in brackets.
        let name = Some(text(host)).filter(|name| !name.starts_with('[') && &**name != "unknown");
        // Postfix makes up a client for sendmail(1), and port 0 is no client's (cleanup_milter.c).
        Self { address, name, is_local: address.is_none() || port == 0, ..Self::default() }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub(super) fn greeted(&mut self, helo: &Bytes) {
        self.helo = Some(text(helo));
    }

    /// Takes what a stage's macros tell. A stage's list replaces what it said before.
    pub(super) fn told(&mut self, macros: &Macros) {
        let value = |name| macros.get(name).filter(|value| !value.is_empty()).map(text);
        match macros.stage {
            b'C' | b'H' => self.tls = value("tls_version").is_some(),
            b'M' => {
                self.user = value("auth_authen");
                self.queue_id = value("i");
                self.is_told = true;
            }
            _ => self.queue_id = value("i").or(self.queue_id.take()),
        }
    }

    /// A mail begins. One without macros has no user, whoever sent the mail before it.
    pub(super) fn began(&mut self) {
        if !std::mem::take(&mut self.is_told) {
            self.forget_message();
        }
    }

    /// What counts for one mail is told anew for each.
    pub(super) fn forget_message(&mut self) {
        self.user = None;
        self.queue_id = None;
        self.is_told = false;
    }

    pub(super) fn origin(&self, way: &Arc<str>, origins: &Origins, sender: &Address, default: OriginClass) -> Origin {
        Origin {
            way: Arc::clone(way),
            class: origins.classify(self.address, self.user.is_some(), sender, Some(default)),
            client: self.address,
            client_name: self.name.clone(),
            helo: self.helo.clone(),
            user: self.user.clone(),
            tls: self.tls,
            queue_id: self.queue_id.clone(),
        }
    }
}

fn text(octets: &[u8]) -> Box<str> {
    String::from_utf8_lossy(&octets[..octets.len().min(MAX_NAME)]).into()
}
