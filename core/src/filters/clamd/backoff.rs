//! After a failed connect: a pause, so that a clamd which is down or starting is not hammered.
//! It knows no sockets, and the time is given.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first pause.
const FIRST: Duration = Duration::from_secs(1);
/// Pauses double up to this one.
const LAST: Duration = Duration::from_secs(30);

/// Pauses after failures. Shared by all scans of one filter.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Zero: the last connect succeeded.
    pause: Duration,
    /// Nobody connects before.
    until: Option<Instant>,
    /// When the failure was seen that the pause is for.
    failed_at: Option<Instant>,
}

impl Backoff {
    /// May this caller connect now? `Err`: how long the pause still is. After a pause one caller may, the
    /// others wait for how it goes, at most for `attempt`, the time that a connect may take.
    pub(super) fn begin(&self, now: Instant, attempt: Duration) -> Result<(), Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            None => Ok(()),
            Some(until) if until > now => Err(until - now),
            Some(_) => {
                state.until = Some(now + attempt);
                Ok(())
            }
        }
    }

    /// A connect succeeded.
    pub(super) fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// A connect that began at `began` failed. Many that began together count as one failure.
    pub(super) fn failed(&self, began: Instant, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = state.failed_at.is_some_and(|failed_at| failed_at >= began);
        if !counted {
            state.pause = (state.pause * 2).clamp(FIRST, LAST);
            state.until = Some(now + state.pause);
            state.failed_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_end_with_a_success() {
        let backoff = Backoff::default();
        let mut now = Instant::now();
        let attempt = Duration::from_secs(5);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(backoff.begin(now, attempt), Ok(()));
            backoff.failed(now, now);
            let pause = Duration::from_secs(seconds);
            assert_eq!(backoff.begin(now, attempt), Err(pause));
            now += pause;
        }
        backoff.succeeded();
        assert_eq!(backoff.begin(now, attempt), Ok(()));
        backoff.failed(now, now);
        assert_eq!(backoff.begin(now, attempt), Err(FIRST));
    }

    #[test]
    fn failures_that_began_together_count_once_and_one_tries_after_a_pause() {
        let backoff = Backoff::default();
        let start = Instant::now();
        let attempt = Duration::from_secs(5);
        let later = start + Duration::from_millis(10);
        for _ in 0..50 {
            backoff.failed(start, later);
        }
        assert_eq!(backoff.begin(later, attempt), Err(FIRST));
        let after = later + FIRST;
        assert_eq!(backoff.begin(after, attempt), Ok(()));
        assert_eq!(backoff.begin(after, attempt), Err(attempt));
        // Whoever tried was dropped at its mail's deadline: the next one may.
        assert_eq!(backoff.begin(after + attempt, attempt), Ok(()));
    }
}
