//! The front end as a way in: limits over all its connections, and a driver for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use checkpost_adapter::driver::Terms;
use checkpost_adapter::host::Gauge;
use checkpost_adapter::report::Report;
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::{Listen, SettingsError};
use checkpost_adapter::{Host, Kind, Way, drive};
use checkpost_core::config::Origins;

use crate::config::{Defaults, Settings, Written};
use crate::session::{Link, Milter};

/// A mail server that takes no byte of an answer for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(60);

/// A configured way in by milter.
pub struct MilterWay {
    kind: Kind,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    listen: Vec<Listen>,
    sessions: Arc<Gauge>,
}

impl MilterWay {
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
        // Sendmail writes the macros of a command and the command itself apart.
        let listen = Listen::all(&written.listen.0, written.socket_mode.as_deref(), true)?;
        Ok(Self { kind, settings: Arc::new(settings), origins, listen, sessions: Arc::default() })
    }
}

#[async_trait]
impl Way for MilterWay {
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
        let link = Link { tcp: peer.is_some(), refuse, memory_limit: host.spool.memory_limit };
        let terms = Terms {
            abilities: self.kind.abilities,
            judge_within: self.settings.check_timeout,
            write_stall: WRITE_STALL,
            acceptor: None,
            descriptors: None,
        };
        let policy = host.engine.policy().clone();
        let reports = Box::new(|report: Report<'_>| report.log());
        let settings = Arc::clone(&self.settings);
        let mut session = Milter::new(settings, policy, Arc::clone(&self.origins), link, Instant::now(), reports);
        drive(&mut session, connection.stream, &host, &terms).await;
    }
}
