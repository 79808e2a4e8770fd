//! Connections to a program that serves many, each on a thread of its own, and its end, which a descriptor tells. What
//! a connection is about is not known here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

/// After the system had nothing left for a connection.
const BREATH: Duration = Duration::from_millis(200);
/// For blocks of some KiB.
const STACK: usize = 512 << 10;

/// What becomes of connections at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Those that are open have so long. New ones wait for whoever listens next.
    Close(Duration),
    /// The same, and new ones are served as long as any is open.
    Drain(Duration),
}

/// Serves until there is something to read from `end` and `is_end` says that it is the end; then as `ending` says. No
/// more than `sessions` at once; more wait. What is wrong goes to `log`, a line each. Returns how many were left open.
///
/// # Errors
/// The listener does not work any more.
pub fn serve(
    listener: &UnixListener,
    (end, is_end): (impl AsFd, impl Fn() -> bool),
    ending: Ending,
    sessions: usize,
    log: fn(&str),
    session: impl Fn(&UnixStream) + Send + Sync + 'static,
) -> io::Result<usize> {
    let session = Arc::new(session);
    let (woken, wake) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let slots = Arc::new(Slots { busy: Mutex::new(0), changed: Condvar::new(), wake });
    let mut breath = None;
    // Since when it is to end.
    let mut ends: Option<Instant> = None;
    loop {
        let time = match (ending, ends) {
            (_, None) => breath,
            (Ending::Close(time), Some(_)) => {
                slots.wait_until_free(time);
                return Ok(slots.busy());
            }
            (Ending::Drain(time), Some(since)) => {
                let left = time.saturating_sub(since.elapsed());
                if left.is_zero() || slots.busy() == 0 {
                    return Ok(slots.busy());
                }
                Some(left.min(BREATH))
            }
        };
        let mut polled = vec![PollFd::new(&woken, PollFlags::IN)];
        let accepting = breath.take().is_none() && slots.busy() < sessions;
        if accepting {
            polled.push(PollFd::new(listener, PollFlags::IN));
        }
        if ends.is_none() {
            polled.push(PollFd::new(&end, PollFlags::IN));
        }
        match poll(&mut polled, time.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready[0] {
            // Only that it was written counts, not how often.
            let _ = rustix::io::read(&woken, &mut [0; 512]);
        }
        if ends.is_none() && ready.last() == Some(&true) && is_end() {
            ends = Some(Instant::now());
            continue;
        }
        if accepting && ready[1] {
            match listener.accept() {
                Ok((stream, _)) => begin(stream, &slots, log, &session),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR | Errno::CONNABORTED) => {}
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        log(&format!("mails must wait: {error}"));
                        breath = Some(BREATH);
                    }
                    _ => return Err(error),
                },
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

fn begin(
    stream: UnixStream,
    slots: &Arc<Slots>,
    log: fn(&str),
    session: &Arc<impl Fn(&UnixStream) + Send + Sync + 'static>,
) {
    let slot = Slot::take(slots);
    let session = Arc::clone(session);
    let run = move || {
        let _slot = slot;
        // A connection that ends without a line is "try again later", and so is this.
        if catch_unwind(AssertUnwindSafe(|| session(&stream))).is_err() {
            log("mail put off: a fault in this program");
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(run) {
        log(&format!("mail put off: no thread: {error}"));
    }
}

/// How many connections are open.
struct Slots {
    busy: Mutex<usize>,
    changed: Condvar,
    wake: OwnedFd,
}

impl Slots {
    fn busy(&self) -> usize {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_free(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            busy = self.changed.wait_timeout(busy, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One open connection.
struct Slot(Arc<Slots>);

impl Slot {
    fn take(slots: &Arc<Slots>) -> Self {
        *slots.busy.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(Arc::clone(slots))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
        // Full: then it is going to be read anyway.
        let _ = rustix::io::write(&self.0.wake, b"x");
    }
}
