//! A scanner that takes mails and says nothing about them until it is told to give up. By clamd's
//! protocol, since every installation may have that; it never looks at anything.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Listens on a Unix socket in a folder of its own. Its threads end with its connections.
#[derive(Debug)]
pub struct StuckClamd {
    folder: tempfile::TempDir,
    asked: mpsc::Receiver<()>,
    held: Arc<Mutex<Vec<UnixStream>>>,
}

impl StuckClamd {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpost-lab-").tempdir()?;
        let listener = UnixListener::bind(folder.path().join("clamd.sock"))?;
        let held = Arc::new(Mutex::new(Vec::new()));
        let (tell, asked) = mpsc::channel();
        let keep = Arc::clone(&held);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Who breaks off has nothing to hear.
                if matches!(is_session(&client), Ok(true)) {
                    keep.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                    if tell.send(()).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self { folder, asked, held })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.sock")
    }

    /// The section of the configuration that asks it, with a time-out so long that nobody waits for it.
    pub fn config(&self, when_unscanned: &str) -> String {
        section(&self.socket(), when_unscanned)
    }

    /// Waits until it is asked about one more mail; false if nobody does within `timeout`.
    #[must_use]
    pub fn wait_asked(&self, timeout: Duration) -> bool {
        self.asked.recv_timeout(timeout).is_ok()
    }

    /// Gives up: breaks all connections.
    pub fn give_up(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn section(socket: &Path, when_unscanned: &str) -> String {
    let socket = socket.display();
    format!(
        "[filter.clamd]\naddress = \"unix:{socket}\"\ntransfer = \"stream\"\ntimeout = \"80s\"\n\
         when_unscanned = \"{when_unscanned}\"\n"
    )
}

/// Whether it is a mail; a question for the version is answered.
fn is_session(mut client: &UnixStream) -> io::Result<bool> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut command = Vec::new();
    let mut octet = [0];
    while !command.ends_with(b"\0") {
        client.read_exact(&mut octet)?;
        command.push(octet[0]);
    }
    if command == b"zVERSION\0" {
        client.write_all(b"ClamAV 1.0.0/1/Tue Nov 24 12:00:00 2026\0")?;
        return Ok(false);
    }
    Ok(true)
}
