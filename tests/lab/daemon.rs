//! A `checkpostd` under test: found or built, started beside a server, asked to end, or killed.
//! What its configuration says is the test's business.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cache::last_lines;

/// Until the first banner, on a machine under heavy load.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the daemon drains its sessions.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The program `name` of this workspace, as freshly built as the running test.
///
/// `CHECKPOST_BIN_DIR` names the folder if it is set; else cargo builds the program once.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("CHECKPOST_BIN_DIR") {
            return folder.into();
        }
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args([
                "build",
                "--quiet",
                "--package",
                "checkpostd",
                "--package",
                "checkpost",
                "--package",
                "checkpost-qmail",
                "--package",
                "checkpost-courier",
                "--package",
                "checkpost-communigate",
                "--package",
                "configure_mta",
                "--package",
                "checkpost-pipe",
                "--package",
                "checkpost-zmailer",
                "--package",
                "checkpost-exim-local-scan",
                "--package",
                "checkpost-pipe",
                "--lib",
                "--bins",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the programs under test do not build");
        // A test runs as TARGET/debug/deps/NAME-HASH.
        let own = std::env::current_exe().expect("the test has a path");
        own.ancestors().nth(2).expect("cargo put the test into a folder").to_owned()
    });
    folder.join(name)
}

/// A running daemon with a folder of its own, both gone when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    /// Removed after the process has ended; `None` if the caller owns it.
    _folder: Option<tempfile::TempDir>,
}

impl Daemon {
    /// Starts the daemon in a fresh folder, which `config` gets to put its spool, state and sockets
    /// in, and returns when `connect` reaches a listener that greets.
    ///
    /// `command` runs the daemon: `root.net_command(program("checkpostd"))`, or a plain [`Command`].
    pub fn start(
        command: Command,
        config: impl FnOnce(&Path) -> String,
        connect: impl Fn() -> io::Result<TcpStream>,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpost-lab-").tempdir()?;
        let text = config(folder.path());
        let mut daemon = Self::start_in(command, folder.path(), &text, connect)?;
        daemon._folder = Some(folder);
        Ok(daemon)
    }

    /// As [`Daemon::start`], in a folder that the caller keeps: for a daemon that is started again.
    pub fn start_in(
        command: Command,
        folder: &Path,
        config: &str,
        connect: impl Fn() -> io::Result<TcpStream>,
    ) -> io::Result<Self> {
        Self::start_when(command, folder, config, || connect().and_then(|stream| greets(&stream)).is_ok())
    }

    /// As [`Daemon::start_in`], and returns when it is `ready`, whatever that means for its ways in.
    pub fn start_when(mut command: Command, folder: &Path, config: &str, ready: impl Fn() -> bool) -> io::Result<Self> {
        let (path, log) = (folder.join("checkpost.toml"), folder.join("log"));
        fs::write(&path, config)?;
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut daemon = Self { child, config: path, log, _folder: None };
        let end = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(daemon.complaint(&format!("checkpostd ended at its start ({status})")));
            }
            if ready() {
                return Ok(daemon);
            }
            if Instant::now() > end {
                return Err(daemon.complaint("checkpostd does not greet"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The configuration file; for a reload, write it and send SIGHUP.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(id, signal)?)
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let end = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(self.complaint("checkpostd does not end"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it (SIGKILL), as a crash would.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    fn complaint(&self, what: &str) -> io::Error {
        io::Error::other(format!("{what}: {}", last_lines(&self.log(), 20)))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether an SMTP server says hello on this connection, and goodbye.
fn greets(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if !line.starts_with("220") {
        return Err(io::Error::other(line));
    }
    io::Write::write_all(&mut (&*stream), b"QUIT\r\n")?;
    // Its answer, or its end.
    let mut rest = Vec::new();
    io::Read::read_to_end(&mut (&*stream), &mut rest).map(drop)
}
