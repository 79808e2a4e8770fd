//! One talk with smtpserver, over a pipe or a socket: `#hungry` at once, each path answered with a verdict, and in time,
//! whatever the daemon or a disk does. An answer that does not come is taken for "accept".

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use checkpost_zmailer::session::{Asked, BUSY, HUNGRY, Reader};

use crate::log;
use crate::mail::{Desk, Judged};

/// smtpserver gives up after 120 s without an octet.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// The largest things on a look's stack are blocks of 64 KiB.
const STACK: usize = 512 << 10;

/// Talks to the end of the input.
///
/// # Errors
/// smtpserver is gone.
pub(crate) fn talk(mut input: impl Read, mut output: impl Write, desk: &Arc<Desk>) -> io::Result<()> {
    output.write_all(HUNGRY)?;
    output.flush()?;
    let mut reader = Reader::default();
    let mut block = [0; 4096];
    loop {
        match input.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                for asked in reader.take(&block[..count]) {
                    answer(asked, &mut output, desk)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn answer(asked: Asked, output: &mut impl Write, desk: &Arc<Desk>) -> io::Result<()> {
    let judged = match asked {
        Ok(path) => judged_in_time(path, output, desk)?,
        Err(error) => {
            log::line("", format_args!("mail put off: {error}"));
            Judged::default()
        }
    };
    // Verdict and `#hungry` in one write: half of a reply is none.
    output.write_all(&judged.verdict.print())?;
    output.flush()?;
    judged.said();
    Ok(())
}

/// On a thread of its own, so that a disk that hangs keeps nobody from answering.
fn judged_in_time(path: Vec<u8>, output: &mut impl Write, desk: &Arc<Desk>) -> io::Result<Judged> {
    let name = String::from_utf8_lossy(&path).rsplit('/').next().unwrap_or_default().to_owned();
    let config = desk.config();
    let until = Instant::now() + desk.time(&config);
    let given_up = Arc::new(AtomicBool::new(false));
    let (tell, hear) = mpsc::sync_channel(1);
    let look = {
        let (desk, given_up) = (Arc::clone(desk), Arc::clone(&given_up));
        move || {
            let judged = catch_unwind(AssertUnwindSafe(|| desk.judge(&path, config, until, &given_up)));
            // Nobody listens once it was given up; what it holds is closed then.
            let _ = tell.send(judged);
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(look) {
        log::line(&name, format_args!("mail put off: no thread: {error}"));
        return Ok(Judged::default());
    }
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match hear.recv_timeout(left.min(HEARTBEAT)) {
            Ok(Ok(judged)) => return Ok(judged),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                log::line(&name, "mail put off: a fault in this program");
                return Ok(Judged::default());
            }
            Err(RecvTimeoutError::Timeout) if left > HEARTBEAT => {
                output.write_all(BUSY)?;
                output.flush()?;
            }
            Err(RecvTimeoutError::Timeout) => {
                // Should the file be half-written: smtpserver deletes what it refuses.
                given_up.store(true, Ordering::SeqCst);
                log::line(&name, "mail put off: no verdict in time");
                return Ok(Judged::default());
            }
        }
    }
}
