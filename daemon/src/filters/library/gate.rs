//! How many calls of a library are under way, and how many of them nobody waits for any more. It calls nothing.
//!
//! A call that blocks cannot be ended. When every thread of a filter is held by one that nobody waits for, the next mail is
//! told at once: to wait until its deadline would hold up its session as well, and more threads would only be held, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The bound on one filter's calls.
#[derive(Debug)]
pub(super) struct Gate {
    threads: usize,
    slots: Arc<Semaphore>,
    /// Calls under way that nobody waits for.
    stuck: watch::Sender<usize>,
}

/// Kept by whoever waits for a call; dropping it says that nobody does any more.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Shared>);

/// Kept by the thread of a call; dropping it says that the call has ended.
#[derive(Debug)]
pub(super) struct Working {
    shared: Arc<Shared>,
    /// Given back after the call was counted out.
    _slot: OwnedSemaphorePermit,
}

/// Both are changed only within `stuck.send_modify`, which is the lock.
#[derive(Debug)]
struct Shared {
    gate: Arc<Gate>,
    abandoned: AtomicBool,
    ended: AtomicBool,
}

impl Gate {
    /// For so many calls at once.
    pub(super) fn new(threads: usize) -> Self {
        Self { threads, slots: Arc::new(Semaphore::new(threads)), stuck: watch::Sender::new(0) }
    }

    /// Waits for a thread to become free, until then. The error says why there is none.
    pub(super) async fn enter(self: &Arc<Self>, until: Instant) -> Result<(Waiting, Working), String> {
        let mut stuck = self.stuck.subscribe();
        let slot = tokio::select! {
            biased;
            slot = Arc::clone(&self.slots).acquire_owned() => slot.map_err(|closed| closed.to_string())?,
            _ = stuck.wait_for(|stuck| *stuck >= self.threads) => {
                return Err(format!("all {} threads are held by calls that do not return", self.threads));
            }
            () = tokio::time::sleep_until(until.into()) => {
                return Err(format!("{} calls are under way, and none has ended in time", self.threads));
            }
        };
        let shared = Arc::new(Shared {
            gate: Arc::clone(self),
            abandoned: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        Ok((Waiting(Arc::clone(&shared)), Working { shared, _slot: slot }))
    }
}

impl Working {
    /// Turns true when nobody waits any more.
    pub(super) fn abandoned(&self) -> &AtomicBool {
        &self.shared.abandoned
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.gate.stuck.send_modify(|stuck| {
            if !shared.ended.load(Ordering::Relaxed) {
                shared.abandoned.store(true, Ordering::Relaxed);
                *stuck += 1;
            }
        });
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.gate.stuck.send_modify(|stuck| {
            shared.ended.store(true, Ordering::Relaxed);
            if shared.abandoned.load(Ordering::Relaxed) {
                *stuck -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn more_wait_and_stuck_ones_are_told_at_once() {
        let gate = Arc::new(Gate::new(2));
        let within = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (waiting_a, working_a) = gate.enter(within(5)).await.unwrap();
        let (waiting_b, working_b) = gate.enter(within(5)).await.unwrap();
        // Both are waited for: the third waits for its time.
        let begin = tokio::time::Instant::now();
        let busy = gate.enter(within(5)).await.unwrap_err();
        assert_eq!(busy, "2 calls are under way, and none has ended in time");
        assert!(begin.elapsed() >= Duration::from_secs(4));

        drop(waiting_a);
        assert!(working_a.abandoned().load(Ordering::Relaxed) && !working_b.abandoned().load(Ordering::Relaxed));
        // One that waits already is told as soon as it is hopeless.
        let third = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter(within(3600)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(waiting_b);
        let begin = tokio::time::Instant::now();
        assert_eq!(third.await.unwrap().unwrap_err(), "all 2 threads are held by calls that do not return");
        assert!(gate.enter(within(3600)).await.is_err());
        assert_eq!(begin.elapsed(), Duration::ZERO);

        // One that returns after all makes room.
        drop(working_a);
        let (waiting, working) = gate.enter(within(5)).await.unwrap();
        assert_eq!(*gate.stuck.borrow(), 1);
        // The usual order: the call ends, then its waiter goes.
        drop(working);
        drop(waiting);
        drop(working_b);
        assert_eq!(*gate.stuck.borrow(), 0);
        assert_eq!(gate.slots.available_permits(), 2);
    }
}
