//! Connections to next hops that are kept between two mails.
//!
//! A kept connection is between two transactions, with nothing under way. It is handed out once
//! more only if the peer has neither closed it nor said anything since (a 421, for example).

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::session::Target;
use crate::stream::BoxStream;

/// The kept connections of the whole program.
pub struct Pool {
    idle: Mutex<HashMap<Target, Vec<Kept>>>,
    /// At most this many per target.
    limit: usize,
    /// Not longer than this.
    keep_for: Duration,
}

struct Kept {
    stream: BoxStream,
    /// [`Target::farewell`].
    farewell: &'static [u8],
    note: Arc<dyn Any + Send + Sync>,
    since: Instant,
}

impl Pool {
    /// Keeps at most `limit` idle connections per target, each at most `keep_for`. The time must be
    /// less than the next hop's own idle limit (Postfix: smtpd_timeout, 10 s under stress).
    pub fn new(limit: usize, keep_for: Duration) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), limit, keep_for })
    }

    /// Closes what was kept too long, once a second, as long as the pool lives. The target's
    /// farewell is said, so that the next hop does not log a lost connection.
    pub fn spawn_sweeper(self: &Arc<Self>) {
        let pool: Weak<Self> = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let Some(pool) = pool.upgrade() else { return };
                pool.sweep(Instant::now());
            }
        });
    }

    /// The connection kept last for this target, if one is left that still stands.
    pub fn take(&self, target: &Target) -> Option<(BoxStream, Arc<dyn Any + Send + Sync>)> {
        loop {
            let mut kept = self.lock().get_mut(target)?.pop()?;
            if kept.since.elapsed() < self.keep_for && stands(&mut kept.stream) {
                return Some((kept.stream, kept.note));
            }
        }
    }

    /// Keeps a connection, unless there are enough.
    pub fn keep(&self, target: &Target, stream: BoxStream, note: Arc<dyn Any + Send + Sync>) {
        let kept = Kept { stream, farewell: target.farewell, note, since: Instant::now() };
        let mut idle = self.lock();
        if let Some(list) = idle.get_mut(target) {
            if list.len() < self.limit {
                list.push(kept);
            } else {
                drop(idle);
                say_goodbye(kept);
            }
        } else if self.limit > 0 {
            idle.insert(target.clone(), vec![kept]);
        } else {
            drop(idle);
            say_goodbye(kept);
        }
    }

    /// Closes all, for the end of the program.
    pub fn close(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().flatten().for_each(say_goodbye);
    }

    fn sweep(&self, now: Instant) {
        let mut old = Vec::new();
        self.lock().retain(|_, list| {
            let kept = list.partition_point(|kept| now.duration_since(kept.since) >= self.keep_for);
            old.extend(list.drain(..kept));
            !list.is_empty()
        });
        old.into_iter().for_each(say_goodbye);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Target, Vec<Kept>>> {
        // The map is whole between any two statements, so a panic elsewhere left it whole.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Open, and silent?
fn stands(stream: &mut BoxStream) -> bool {
    let mut byte = [0];
    stream.read(&mut byte).now_or_never().is_none()
}

fn say_goodbye(kept: Kept) {
    let Kept { mut stream, farewell: words, .. } = kept;
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            let farewell = async {
                stream.write_all(words).await?;
                stream.read(&mut [0; 256]).await
            };
            // Whether it hears us or not makes no difference to any mail.
            let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
        });
    }
}
