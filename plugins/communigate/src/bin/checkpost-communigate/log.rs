//! Lines for the server, in the order in which they are said: answers, and notes for its log. One thread writes them, each
//! in one piece, so that a server that does not read holds up nothing else. Nothing is ever written to standard error:
//! the server reads it when the program has ended, and a full pipe would stop everything.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use checkpost_communigate::session;

/// So many lines may wait; then notes are left out. Answers are as many as requests.
const WAITING: usize = 1000;

static LINES: OnceLock<Lines> = OnceLock::new();

#[derive(Debug)]
struct Lines {
    lines: Sender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// Starts the thread that writes. It ends the program when nobody reads any more: what has no answer by then the server
/// asks for again.
///
/// # Errors
/// There is no thread.
pub(crate) fn start() -> io::Result<()> {
    let (lines, said) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let written = Arc::clone(&waiting);
    std::thread::Builder::new().name("say".into()).spawn(move || write(&said, &written))?;
    let _ = LINES.set(Lines { lines, waiting });
    Ok(())
}

fn write(said: &Receiver<Vec<u8>>, waiting: &AtomicUsize) {
    // Not `stdout()`, which keeps lines back.
    let mut out = io::stdout().lock();
    for line in said {
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
        waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says a line with its end.
pub(crate) fn say(line: Vec<u8>) {
    if let Some(lines) = LINES.get() {
        lines.waiting.fetch_add(1, Ordering::Relaxed);
        let _ = lines.lines.send(line);
    }
}

/// Says something for the server's log. `mail` is the server's id of the mail that it is about, or empty.
pub(crate) fn note(mail: &str, text: impl Display) {
    let full = LINES.get().is_some_and(|lines| lines.waiting.load(Ordering::Relaxed) > WAITING);
    if !full {
        let text = if mail.is_empty() { format!("checkpost: {text}") } else { format!("checkpost: [{mail}] {text}") };
        say(session::note(&text));
    }
}

/// Waits until all that was said is written.
pub(crate) fn drain() {
    while LINES.get().is_some_and(|lines| lines.waiting.load(Ordering::Relaxed) > 0) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
