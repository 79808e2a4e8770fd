//! A configured way that answers as a scanner does, as the daemon hosts it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use checkpost_adapter::driver::Terms;
use checkpost_adapter::host::Gauge;
use checkpost_adapter::report::Report;
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::{Listen, SettingsError};
use checkpost_adapter::{Host, Kind, Way, drive};
use checkpost_core::Abilities;
use checkpost_core::config::Origins;

use crate::config::{Defaults, Protocol, Settings, Written};
use crate::session::{Dialect, Link, Scan};
use crate::{Clamd, Counts, Rspamd, Spamd};

/// A client that takes no byte for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// One configured way.
pub struct ScanWay {
    kind: Kind,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    listen: Vec<Listen>,
    sessions: Arc<Gauge>,
    counts: Arc<Counts>,
}

impl ScanWay {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn new(
        kind: Kind,
        defaults: &Defaults,
        written: &Written,
        origins: Arc<Origins>,
    ) -> Result<Self, SettingsError> {
        let settings = Settings::new(written, defaults)?;
        let mut listen = Listen::all(&written.listen.0, written.socket_mode.as_deref(), false)?;
        let takes_descriptors = settings.protocol == Protocol::Clamd;
        listen.iter_mut().for_each(|listen| listen.descriptors = takes_descriptors);
        let (sessions, counts) = Default::default();
        Ok(Self { kind, settings: Arc::new(settings), origins, listen, sessions, counts })
    }

    async fn run<D: Dialect>(&self, dialect: D, connection: Connection, link: Link, host: &Host) {
        let terms = Terms {
            abilities: self.abilities(),
            judge_within: self.settings.check_timeout,
            write_stall: WRITE_STALL,
            acceptor: None,
            descriptors: connection.descriptors,
        };
        let reports = Box::new(|report: Report<'_>| report.log());
        let (settings, origins) = (Arc::clone(&self.settings), Arc::clone(&self.origins));
        let mut session = Scan::new(dialect, settings, origins, link, Instant::now(), reports);
        drive(&mut session, connection.stream, host, &terms).await;
    }
}

#[async_trait]
impl Way for ScanWay {
    fn name(&self) -> &Arc<str> {
        &self.settings.name
    }

    fn kind(&self) -> &Kind {
        &self.kind
    }

    fn abilities(&self) -> Abilities {
        self.settings.within(self.kind.abilities)
    }

    fn listen(&self) -> &[Listen] {
        &self.listen
    }

    async fn serve(self: Arc<Self>, connection: Connection, host: Arc<Host>) {
        let peer = connection.peer.map(|(address, _)| address);
        if peer.is_some_and(|peer| !self.settings.trusted.iter().any(|network| network.contains(&peer))) {
            tracing::warn!(way = %self.settings.name, peer = ?peer, "connection closed: not from a trusted network");
            return;
        }
        let ticket = self.sessions.enter(self.settings.max_sessions);
        let refuse = if ticket.is_none() {
            Some("Too many connections to the mail filter, try again later")
        } else {
            host.spool.is_low().then_some("Insufficient storage, try again later")
        };
        if let Some(why) = refuse {
            tracing::warn!(way = %self.settings.name, why, "mails are put off");
        }
        let link = Link { refuse, memory_limit: host.spool.memory_limit };
        let (required, abilities) = (self.settings.required, self.abilities());
        match self.settings.protocol {
            Protocol::Clamd => self.run(Clamd::default(), connection, link, &host).await,
            Protocol::Spamd => self.run(Spamd::new(required, abilities), connection, link, &host).await,
            Protocol::Rspamd => {
                let rspamd = Rspamd::new(required, abilities, Arc::clone(&self.counts));
                self.run(rspamd, connection, link, &host).await;
            }
        }
    }
}
