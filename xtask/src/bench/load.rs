//! The load generator: a number of sessions at the same time, one message after the other in each, for a fixed time.
//! Not an event loop: one blocking thread per session needs the fewest system calls and so disturbs the measured
//! processes least when all of them share a few cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::client::Failure;
use super::mail::Mail;
use super::process::Usage;

/// Sessions run this long before anything is counted.
const WARM_UP: Duration = Duration::from_millis(250);

/// Each mail of this program's life has its own number.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What to send and how.
pub(super) struct Load<'a> {
    pub(super) mail: &'a Mail,
    pub(super) sessions: usize,
    pub(super) time: Duration,
}

/// What came of one load.
#[derive(Default)]
pub(super) struct Outcome {
    /// Messages completed in the counted time.
    pub(super) messages: usize,
    pub(super) seconds: f64,
    /// In microseconds, ascending.
    latencies: Vec<u32>,
    /// By kind, also those from outside the counted time.
    pub(super) errors: BTreeMap<String, usize>,
    /// CPU seconds used in the counted time: by the load generator, then by each watched process tree.
    pub(super) cpu: Vec<Option<f64>>,
}

impl Outcome {
    /// Completed messages per second.
    pub(super) fn rate(&self) -> f64 {
        self.messages as f64 / self.seconds
    }

    /// The latency in milliseconds that `share` (0 to 1) of the messages did not exceed; NaN when there was none.
    pub(super) fn latency(&self, share: f64) -> f64 {
        if self.latencies.is_empty() {
            return f64::NAN;
        }
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        f64::from(self.latencies[rank.clamp(1, self.latencies.len()) - 1]) / 1000.0
    }
}

impl Load<'_> {
    /// Sends until the time is over and every message begun is ended. `watched` are the roots of process trees;
    /// `session` makes what sends one mail after the other and says how long each took.
    ///
    /// # Errors
    /// When a watched process is gone or a thread cannot be started; a failed message is only counted.
    pub(super) fn run<S>(&self, watched: &[Option<u32>], session: impl Fn() -> S + Sync) -> anyhow::Result<Outcome>
    where
        S: FnMut(&Mail) -> Result<Duration, Failure>,
    {
        let begin = Instant::now() + WARM_UP;
        let end = begin + self.time;
        let mut outcome = Outcome { seconds: self.time.as_secs_f64(), ..Outcome::default() };
        thread::scope(|scope| {
            let mut sessions = Vec::with_capacity(self.sessions);
            for _ in 0..self.sessions {
                let thread = thread::Builder::new().stack_size(128 * 1024);
                let run = || self.session(begin, end, session());
                sessions.push(thread.spawn_scoped(scope, run).context("no more threads")?);
            }
            thread::sleep(begin.saturating_duration_since(Instant::now()));
            let before = used(watched);
            thread::sleep(end.saturating_duration_since(Instant::now()));
            let after = used(watched);
            for session in sessions {
                let (latencies, errors) = session.join().map_err(|_| anyhow::anyhow!("a session panicked"))?;
                outcome.messages += latencies.len();
                outcome.latencies.extend(latencies);
                for error in errors {
                    *outcome.errors.entry(error.to_string()).or_default() += 1;
                }
            }
            outcome.cpu = before?.iter().zip(after?).map(|(before, after)| Some(after? - (*before)?)).collect();
            Ok::<_, anyhow::Error>(())
        })?;
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }

    /// One session after the other until `end`.
    ///
    /// A message counts when it is completed between `begin` and `end`, whenever it was begun: long messages that
    /// straddle both ends then even out.
    fn session(
        &self,
        begin: Instant,
        end: Instant,
        mut send: impl FnMut(&Mail) -> Result<Duration, Failure>,
    ) -> (Vec<u32>, Vec<Failure>) {
        let mut mail = self.mail.clone();
        let (mut latencies, mut errors) = (Vec::new(), Vec::new());
        while Instant::now() < end {
            mail.set_number(NUMBER.fetch_add(1, Ordering::Relaxed));
            match send(&mail) {
                Ok(latency) => {
                    if (begin..end).contains(&Instant::now()) {
                        latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                    }
                }
                Err(failure) => {
                    errors.push(failure);
                    // A refusing peer must not make this a busy loop.
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        (latencies, errors)
    }
}

/// CPU seconds of this process, then of each watched tree.
fn used(watched: &[Option<u32>]) -> anyhow::Result<Vec<Option<f64>>> {
    let trees = watched.iter().map(|pid| pid.map(Usage::of_tree).transpose());
    let own = Usage::of_self().map(Some);
    std::iter::once(own).chain(trees).map(|usage| Ok(usage?.map(|usage| usage.cpu))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let outcome = Outcome { latencies: (1..=200).map(|n| n * 1000).collect(), ..Outcome::default() };
        for (share, expected) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (1.0, 200.0)] {
            assert!((outcome.latency(share) - expected).abs() < 1e-9, "{share}: {}", outcome.latency(share));
        }
        assert!(Outcome::default().latency(0.5).is_nan());
    }

    #[test]
    fn a_dead_peer_is_an_error_of_each_session_not_of_the_run() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        drop(listener);
        let mail = Mail::of_size(1000).with_final_dot();
        let load = Load { mail: &mail, sessions: 2, time: Duration::from_millis(20) };
        let outcome = load.run(&[None], || |mail: &Mail| client::message(peer, mail, false)).unwrap();
        assert_eq!(outcome.messages, 0);
        assert!(outcome.errors["connect: connection refused"] >= 2, "{:?}", outcome.errors);
        assert!(matches!(outcome.cpu[..], [Some(_), None]));
    }
}
