//! A configured way whose clients speak the check protocol, as the daemon hosts it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use checkpost_adapter::driver::Terms;
use checkpost_adapter::host::Gauge;
use checkpost_adapter::report::Report;
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::{Listen, SettingsError};
use checkpost_adapter::{Host, Kind, Way, drive};
use checkpost_core::config::Origins;
use tracing::Instrument;

use crate::config::{Settings, Written};
use crate::session::{Check, Link};

/// A client that takes no byte for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// One configured way.
pub struct CheckWay {
    kind: Kind,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    listen: Vec<Listen>,
    sessions: Arc<Gauge>,
    /// By user. As many entries as there are users with connections.
    users: Mutex<HashMap<u32, Arc<Gauge>>>,
    lists: Arc<Gauge>,
}

impl CheckWay {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn new(kind: Kind, written: &Written, origins: Arc<Origins>) -> Result<Self, SettingsError> {
        let settings = Arc::new(Settings::new(written)?);
        let mode = written.socket_mode.as_deref().unwrap_or("0666");
        let mut listen = Listen::all(&written.listen.0, Some(mode), false)?;
        listen.iter_mut().for_each(|listen| listen.descriptors = true);
        Ok(Self {
            kind,
            settings,
            origins,
            listen,
            sessions: Arc::default(),
            users: Mutex::default(),
            lists: Arc::default(),
        })
    }

    fn of_user(&self, user: u32) -> Arc<Gauge> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|known, gauge| *known == user || gauge.count() > 0);
        Arc::clone(users.entry(user).or_default())
    }
}

#[async_trait]
impl Way for CheckWay {
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
        let (user, process) = connection.process.map_or((None, None), |process| (Some(process.user), process.id));
        let ticket = self.sessions.enter(self.settings.max_sessions);
        let own = self.of_user(user.unwrap_or(u32::MAX)).enter(self.settings.max_sessions_per_user);
        let refuse = if ticket.is_none() || own.is_none() {
            Some("Too many connections to the mail filter, try again later")
        } else {
            host.spool.is_low().then_some("Insufficient storage, try again later")
        };
        if let Some(why) = refuse {
            tracing::warn!(way = %self.settings.name, user, process, why, "mails are put off");
        }
        let link = Link { refuse, memory_limit: host.spool.memory_limit, lists: Arc::clone(&self.lists) };
        let terms = Terms {
            abilities: self.kind.abilities,
            judge_within: self.settings.check_timeout,
            write_stall: WRITE_STALL,
            acceptor: None,
            descriptors: connection.descriptors,
        };
        let reports = Box::new(|report: Report<'_>| report.log());
        let (settings, origins) = (Arc::clone(&self.settings), Arc::clone(&self.origins));
        let mut session = Check::new(settings, self.kind.abilities, origins, link, Instant::now(), reports);
        let span = tracing::info_span!("check", user, process);
        drive(&mut session, connection.stream, &host, &terms).instrument(span).await;
        drop((ticket, own));
    }
}
