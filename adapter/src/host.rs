//! What a way in has from its host: one engine, a spool, a quarantine, kept connections, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use checkpost_core::quarantine::Quarantine;
use checkpost_core::{Abilities, Engine, Fitted, Mail, Spool, Verdict, fit};
use tokio::sync::watch;

use crate::pool::Pool;
use crate::tls::Connectors;

/// One state of the program: made anew at each reload, shared by the sessions that began under it.
pub struct Host {
    /// Filters and policy.
    pub engine: Arc<Engine>,
    /// Where copies go; `None`: nothing can be kept, so what needs a copy is deferred.
    pub quarantine: Option<Arc<dyn Quarantine>>,
    /// Where contents above the memory limit go.
    pub spool: Arc<Spool>,
    /// Kept connections; outlives a reload.
    pub pool: Arc<Pool>,
    /// TLS towards next hops.
    pub connectors: Connectors,
    /// Turns true when the program is to end; outlives a reload.
    pub drain: watch::Receiver<bool>,
}

/// A mail that was judged.
#[derive(Debug)]
pub struct Judged {
    /// The mail, with its whole content.
    pub mail: Mail,
    /// What policy wanted.
    pub verdict: Verdict,
    /// What this way can do of it: this is what is done.
    pub fitted: Fitted,
    /// How long it took.
    pub took: Duration,
}

impl Host {
    /// Checks a mail, fits the verdict to the way's abilities, and keeps the copies that are wanted:
    /// they are on disk when this returns. Copies that could not be kept turn into deferrals.
    pub async fn judge(&self, mail: Mail, abilities: &Abilities, deadline: Instant) -> Judged {
        let start = Instant::now();
        let verdict = self.engine.check(&mail, deadline).await;
        let mut fitted = fit(&mail, &verdict, abilities);
        if fitted.wants_quarantine() {
            let kept = match &self.quarantine {
                Some(quarantine) => quarantine.store(&mail, &verdict, &fitted).await.map_err(|error| error.to_string()),
                None => Err("no quarantine is configured".to_owned()),
            };
            if let Err(error) = kept {
                tracing::error!(mail = %mail.id, error, "no copy could be kept, so the mail is deferred");
                fitted = fitted.without_quarantine();
            }
        }
        Judged { mail, verdict, fitted, took: start.elapsed() }
    }
}

/// Counts what is under way and refuses more than a limit.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// One more, unless `limit` are under way. Less one when the ticket is dropped.
    pub fn enter(self: &Arc<Self>, limit: usize) -> Option<Ticket> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < limit).then_some(count + 1))
            .ok()
            .map(|_| Ticket(Arc::clone(self)))
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// Counted in a [`Gauge`] as long as it lives.
#[derive(Debug)]
pub struct Ticket(Arc<Gauge>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
