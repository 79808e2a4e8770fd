//! Connections, each on a thread of its own, and the end: when courierfilter closes standard input.
//! What a connection is about is not known here.

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

use crate::log;

/// courierfilter waits for a filter that is to end, and gives up after 15 s.
const LAST_WORDS: Duration = Duration::from_secs(9);
/// After the system had nothing left for a connection.
const BREATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The largest thing on a session's stack is a block of 4 KiB.
const STACK: usize = 512 << 10;

/// Serves until standard input ends, then lets open connections finish.
///
/// # Errors
/// The listener does not work any more.
pub(crate) fn serve(
    listener: &UnixListener,
    sessions: usize,
    session: impl Fn(&UnixStream) + Send + Sync + 'static,
) -> io::Result<()> {
    let session = Arc::new(session);
    let (woken, wake) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let slots = Arc::new(Slots { busy: Mutex::new(0), changed: Condvar::new(), wake });
    let stdin = io::stdin();
    let mut breath = None;
    loop {
        let mut polled = vec![PollFd::new(&stdin, PollFlags::IN), PollFd::new(&woken, PollFlags::IN)];
        if breath.is_none() && slots.busy() < sessions {
            polled.push(PollFd::new(listener, PollFlags::IN));
        }
        match poll(&mut polled, breath.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        breath = None;
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
        if ready[0] && is_at_end(stdin.as_fd()) {
            break;
        }
        if ready[1] {
            // Only that it was written counts, not how often.
            let _ = rustix::io::read(&woken, &mut [0; 512]);
        }
        if ready.get(2) == Some(&true) {
            match listener.accept() {
                Ok((stream, _)) => begin(stream, &slots, &session),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR | Errno::CONNABORTED) => {}
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        log::line("", format_args!("mails must wait: {error}"));
                        breath = Some(BREATH);
                    }
                    _ => return Err(error),
                },
            }
        }
    }
    slots.wait_until_free(LAST_WORDS);
    Ok(())
}

/// Something to read at its end is the end.
fn is_at_end(stdin: std::os::fd::BorrowedFd<'_>) -> bool {
    match rustix::io::read(stdin, &mut [0; 512]) {
        Ok(count) => count == 0,
        Err(error) => error != Errno::INTR && error != Errno::AGAIN,
    }
}

fn begin(stream: UnixStream, slots: &Arc<Slots>, session: &Arc<impl Fn(&UnixStream) + Send + Sync + 'static>) {
    let slot = Slot::take(slots);
    let session = Arc::clone(session);
    let run = move || {
        let _slot = slot;
        // A connection that ends without a line is "try again later", and so is this.
        if catch_unwind(AssertUnwindSafe(|| session(&stream))).is_err() {
            log::line("", "mail put off: a fault in this program");
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(run) {
        log::line("", format_args!("mail put off: no thread: {error}"));
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
                log::line("", format_args!("ends with {} mails open: they are put off", *busy));
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
