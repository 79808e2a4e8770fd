//! The proxy as a way in: limits over all its sessions, and a driver for each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use checkpost_adapter::driver::Terms;
use checkpost_adapter::host::{Gauge, Ticket};
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::{Listen, SettingsError};
use checkpost_adapter::{Host, Kind, Way, drive, tls};
use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_core::config::Origins;
use tokio_rustls::TlsAcceptor;

use crate::config::{Defaults, Settings, Written};
use crate::route::Protocol;
use crate::session::{Peer, Proxy};
use checkpost_adapter::report::Report;

/// What the proxy can do towards SMTP clients before the mail is in a queue.
pub const SMTP: Abilities = Abilities {
    replies: Replies::PerMessage,
    refusal: Refusal::InSession,
    edit_headers: true,
    edit_body: true,
    add_recipients: false,
    change_sender: false,
    hold: false,
    drop_recipients: true,
    discard: true,
    contents_by_recipient: true,
};

/// In front of any mail server.
pub(crate) const PROXY: Kind =
    Kind { name: "smtp-proxy", about: "SMTP or LMTP proxy in front of any mail server", abilities: SMTP };

/// The kinds of way that this crate has.
pub fn kinds() -> [(Kind, Defaults); 1] {
    [(PROXY, Defaults::default())]
}

/// A configured proxy.
pub struct SmtpWay {
    kind: Kind,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    listen: Vec<Listen>,
    acceptor: Option<TlsAcceptor>,
    implicit_tls: bool,
    sessions: Arc<Gauge>,
    by_client: Arc<ByClient>,
}

/// Why a way cannot be made of what was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WayError {
    /// A value.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Certificate or key.
    #[error("tls_certificate: {0}")]
    Tls(#[from] tls::TlsError),
}

impl SmtpWay {
    /// Checks what was written and reads the certificates.
    pub fn new(kind: Kind, defaults: &Defaults, written: &Written, origins: Arc<Origins>) -> Result<Self, WayError> {
        let settings = Settings::new(written, defaults)?;
        let listen = Listen::all(&written.listen.0, written.socket_mode.as_deref(), false)?;
        let acceptor = match (&written.tls_certificate, &written.tls_key) {
            (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
            _ => None,
        };
        let replies = if settings.protocol == Protocol::Lmtp { Replies::PerRecipient } else { Replies::PerMessage };
        let kind = Kind { abilities: Abilities { replies, ..kind.abilities }, ..kind };
        Ok(Self {
            kind,
            settings: Arc::new(settings),
            origins,
            listen,
            acceptor,
            implicit_tls: written.implicit_tls,
            sessions: Arc::default(),
            by_client: Arc::default(),
        })
    }

    fn refuse(&self, peer: Option<IpAddr>) -> (Option<&'static str>, Option<Ticket>, Option<ClientTicket>) {
        let ticket = self.sessions.enter(self.settings.max_sessions);
        if ticket.is_none() {
            return (Some("Too many connections, try again later"), None, None);
        }
        let trusted = peer.is_none() || Settings::in_networks(&self.settings.trusted, peer);
        let client = match peer {
            Some(address) if !trusted => {
                let ticket = self.by_client.enter(address, self.settings.max_sessions_per_client);
                if ticket.is_none() {
                    return (Some("Too many connections from your address, try again later"), None, None);
                }
                ticket
            }
            _ => None,
        };
        (None, ticket, client)
    }
}

#[async_trait]
impl Way for SmtpWay {
    fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    fn kind(&self) -> &Kind {
        &self.kind
    }

    fn listen(&self) -> &[Listen] {
        &self.listen
    }

    async fn serve(self: Arc<Self>, connection: Connection, host: Arc<Host>) {
        let address = connection.peer.map(|(address, _)| address);
        let (refuse, _ticket, _client) = self.refuse(address);
        if let Some(why) = refuse {
            tracing::warn!(way = %self.settings.name, client = ?address, why, "session refused");
        }
        let mut stream = connection.stream;
        if self.implicit_tls
            && let Some(acceptor) = &self.acceptor
        {
            let handshake = tokio::time::timeout(std::time::Duration::from_secs(30), acceptor.accept(stream));
            match handshake.await {
                Ok(Ok(secured)) => stream = Box::new(secured),
                Ok(Err(error)) => {
                    tracing::info!(way = %self.settings.name, client = ?address, %error, "no TLS");
                    return;
                }
                Err(_) => return,
            }
        }
        let peer = Peer {
            address,
            port: connection.peer.map(|(_, port)| port),
            tls: self.implicit_tls,
            refuse,
            pressed: host.spool.is_low().then_some("Insufficient storage, try again later"),
        };
        let mut settings = Arc::clone(&self.settings);
        if settings.memory_limit != host.spool.memory_limit {
            Arc::make_mut(&mut settings).memory_limit = host.spool.memory_limit;
        }
        let terms = Terms {
            abilities: self.kind.abilities,
            judge_within: settings.check_timeout,
            write_stall: settings.data_timeout,
            acceptor: self.acceptor.clone(),
            descriptors: None,
        };
        let reports = Box::new(|report: Report<'_>| report.log());
        let mut session = Proxy::new(settings, Arc::clone(&self.origins), peer, Instant::now(), reports);
        drive(&mut session, stream, &host, &terms).await;
    }
}

/// Sessions per client address.
#[derive(Default)]
struct ByClient(Mutex<HashMap<IpAddr, usize>>);

struct ClientTicket(Arc<ByClient>, IpAddr);

impl ByClient {
    fn enter(self: &Arc<Self>, address: IpAddr, limit: usize) -> Option<ClientTicket> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(ClientTicket(Arc::clone(self), address))
    }
}

impl Drop for ClientTicket {
    fn drop(&mut self) {
        let mut counts = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}
