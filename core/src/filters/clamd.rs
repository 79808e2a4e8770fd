//! Asks clamd, ClamAV's daemon, over a Unix socket or TCP.
//! It never decides what a signature means for a mail: it sorts names into kinds and classes.
//!
//! A mail is clean only by clamd's exact word for it. Whatever else happens is an `unscanned` finding
//! with a reason of its own: no connection, no answer, half of one, an unknown one, a mail that is
//! too large.

mod backoff;
mod classes;
mod config;
mod connection;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use checkpost_wire::clamd::{Answer, Asked, split_details};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use self::backoff::Backoff;
pub use self::config::{ClamdAddress, ClamdConfig, Transfer};
use self::connection::{Connection, Failed};
use crate::content::Content;
use crate::filter::{About, Context, Filter, FilterError};
use crate::finding::{Finding, Unscanned};
use crate::mail::Mail;

/// Mails in memory up to this size go as a stream even where a descriptor could be passed: making a
/// descriptor of them costs more than the copy. Measured with clamd 1.4.6: about even at 4 KiB, the
/// descriptor ahead from 64 KiB.
const STREAM_UP_TO: u64 = 8 << 10;

/// How long an idle connection is kept: well below clamd's `IdleTimeout` and `CommandReadTimeout`,
/// both 30 s by default, so that they are seldom met closed.
const KEEP_IDLE: Duration = Duration::from_secs(5);

/// How often the version of the signatures is asked for, while mails come.
const VERSION_EVERY: Duration = Duration::from_secs(300);

/// The filter. Cheap to clone; clones share connections, limits and pauses.
#[derive(Clone)]
pub struct Clamd(Arc<Inner>);

struct Inner {
    config: ClamdConfig,
    name: Arc<str>,
    about: ArcSwap<About>,
    version_asked: Mutex<Option<Instant>>,
    slots: Semaphore,
    backoff: Backoff,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Clamd {
    /// A filter of this name (`clamd`). Connects to nothing yet. The error is
    /// [`ClamdConfig::problem`]'s: key and message.
    pub fn new(name: &str, config: ClamdConfig) -> Result<Self, (&'static str, String)> {
        if let Some(problem) = config.problem() {
            return Err(problem);
        }
        let name: Arc<str> = name.into();
        let about = About {
            name: Arc::clone(&name),
            version: None,
            data_version: None,
            finds: &["malware", "phishing", "policy", "encrypted", "limit", "unscanned"],
        };
        Ok(Self(Arc::new(Inner {
            name,
            about: ArcSwap::from_pointee(about),
            version_asked: Mutex::new(None),
            slots: Semaphore::new(config.connections),
            backoff: Backoff::default(),
            idle: Mutex::default(),
            config,
        })))
    }

    /// Asks for the versions of program and signatures now, for [`Filter::about`]. Otherwise they are
    /// asked for when mails come, every five minutes.
    pub async fn refresh_version(&self) -> Result<Arc<About>, FilterError> {
        let inner = &*self.0;
        *inner.version_asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let deadline = Instant::now() + inner.config.timeout.duration();
        let connection = inner.connect(deadline).await?;
        let version = timeout_at(deadline.into(), connection.version())
            .await
            .unwrap_or_else(|_| Err(FilterError::new(Unscanned::Timeout, "no answer to VERSION")))?;
        let about =
            About { version: Some(version.program), data_version: version.data, ..About::clone(&inner.about.load()) };
        let about = Arc::new(about);
        if **inner.about.load() != *about {
            tracing::info!(filter = %inner.name, version = about.version, signatures = about.data_version, "clamd's version");
        }
        inner.about.store(Arc::clone(&about));
        Ok(about)
    }

    fn refresh_version_in_time(&self) {
        let mut asked = self.0.version_asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| asked.elapsed() >= VERSION_EVERY) {
            *asked = Some(Instant::now());
            let filter = self.clone();
            tokio::spawn(async move {
                if let Err(error) = filter.refresh_version().await {
                    tracing::debug!(filter = %filter.0.name, %error, "clamd's version is not known");
                }
            });
        }
    }
}

#[async_trait]
impl Filter for Clamd {
    fn about(&self) -> Arc<About> {
        self.0.about.load_full()
    }

    async fn check(&self, mail: &Mail, context: &Context) -> Result<Vec<Finding>, FilterError> {
        let inner = &*self.0;
        let start = Instant::now();
        let (length, most) = (mail.content.len(), inner.config.max_size.as_u64());
        if length > most {
            return Err(FilterError::new(Unscanned::TooLarge, format!("{length} octets, max_size is {most}")));
        }
        // A little before the engine's own deadline: the reason told here is the better one.
        let left = context.left();
        let bound = left.saturating_sub(Duration::from_millis(50).min(left / 10));
        let deadline = start + bound.min(inner.config.timeout.duration());
        let Ok(slot) = timeout_at(deadline.into(), inner.slots.acquire()).await else {
            let limit = inner.config.connections;
            return Err(FilterError::new(Unscanned::Busy, format!("{limit} scans are under way")));
        };
        let (answer, asked) = inner.scan(&mail.content, deadline).await?;
        drop(slot);
        self.refresh_version_in_time();
        match answer {
            Answer::Clean => Ok(Vec::new()),
            Answer::Found(signature) => {
                let (name, details) = split_details(&signature);
                let (kind, class) = classes::classify(name);
                let way = if asked == Asked::Stream { "stream" } else { "descriptor" };
                let details = details.map(|details| format!(", {details}")).unwrap_or_default();
                let detail = format!("by {way} in {} ms{details}", start.elapsed().as_millis());
                Ok(vec![Finding::new(kind, &inner.name, name).with_class(class).with_detail(&detail)])
            }
            Answer::TooLarge => {
                let detail = format!("{length} octets are above clamd's StreamMaxLength");
                Err(FilterError::new(Unscanned::TooLarge, detail))
            }
            Answer::Error(text) => Err(FilterError::new(Unscanned::ScannerError, format!("clamd says {text:?}"))),
            Answer::IdleClosed => Err(FilterError::new(Unscanned::ScannerError, "clamd timed out")),
        }
    }
}

impl Inner {
    /// Has it scanned, by whichever way of handing over is best.
    async fn scan(&self, content: &Content, deadline: Instant) -> Result<(Answer, Asked), FilterError> {
        let asked = match (self.config.transfer, &self.config.address) {
            (Transfer::Stream, _) | (_, ClamdAddress::Tcp { .. }) => Asked::Stream,
            (Transfer::Descriptor, _) => Asked::Descriptor,
            (Transfer::Auto, _) if !content.is_spooled() && content.len() <= STREAM_UP_TO => Asked::Stream,
            (Transfer::Auto, _) => Asked::Descriptor,
        };
        match self.ask(content, asked, deadline).await? {
            // Built without descriptor passing, or kept by a security module from reading it.
            Answer::Error(text) if asked == Asked::Descriptor && self.config.transfer == Transfer::Auto => {
                tracing::debug!(filter = %self.name, answer = text, "clamd did not take the descriptor");
                Ok((self.ask(content, Asked::Stream, deadline).await?, Asked::Stream))
            }
            answer => Ok((answer, asked)),
        }
    }

    /// One request, on a kept connection or a new one.
    async fn ask(&self, content: &Content, asked: Asked, deadline: Instant) -> Result<Answer, FilterError> {
        if let Some(connection) = self.take_idle() {
            match self.ask_on(connection, content, asked, deadline).await {
                Err(failed) if failed.stale => {}
                answered => return answered.map_err(|failed| failed.error),
            }
        }
        let connection = self.connect(deadline).await?;
        self.ask_on(connection, content, asked, deadline).await.map_err(|failed| failed.error)
    }

    async fn ask_on(
        &self,
        mut connection: Connection,
        content: &Content,
        asked: Asked,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let start = Instant::now();
        let Ok(answered) = timeout_at(deadline.into(), connection.scan(content, asked)).await else {
            let detail = format!("no answer from {} in {} ms", self.config.address, start.elapsed().as_millis());
            return Err(Failed { error: FilterError::new(Unscanned::Timeout, detail), stale: false });
        };
        if matches!(answered, Ok(Answer::Clean | Answer::Found(_))) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((connection, Instant::now()));
        }
        answered
    }

    /// The connection used last, if it is still good.
    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| since.elapsed() < KEEP_IDLE && connection.is_idle());
        idle.pop().map(|(connection, _)| connection)
    }

    /// A new connection, unless the pause after a failure is not over.
    async fn connect(&self, deadline: Instant) -> Result<Connection, FilterError> {
        let began = Instant::now();
        let (address, longest) = (&self.config.address, self.config.connect_timeout.duration());
        self.backoff.begin(began, longest).map_err(|left| {
            let detail = format!("{address} could not be reached; next try in {} ms", left.as_millis());
            FilterError::new(Unscanned::BackingOff, detail)
        })?;
        let error = match timeout_at(deadline.min(began + longest).into(), Connection::open(address)).await {
            Ok(Ok(connection)) => {
                self.backoff.succeeded();
                return Ok(connection);
            }
            Ok(Err(error)) if is_local(&error) => {
                return Err(FilterError::new(Unscanned::LocalError, format!("connecting to {address}")).because(error));
            }
            Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => {
                FilterError::new(Unscanned::ConnectRefused, format!("connecting to {address}")).because(error)
            }
            _ => {
                let detail = format!("no connection to {address} in {} ms", began.elapsed().as_millis());
                FilterError::new(Unscanned::ConnectTimeout, detail)
            }
        };
        self.backoff.failed(began, Instant::now());
        Err(error)
    }
}

/// Out of descriptors: clamd has no part in that.
fn is_local(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}
