//! A running root: started, reached into, and ended when dropped.
//! What it runs is the recipe's business.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cache::{self, Instance, last_lines};
use crate::client::{self, Client, Told};
use crate::lab::{Lab, Queue, Recipe};
use crate::{Skip, skip};

/// A start takes well under a second; a machine under heavy load gets a minute.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a mailbox or a queue is looked at while something is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The environment of programs in a root; nothing of the test's own gets in.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a root did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// This machine cannot run roots: the test is to be skipped.
    #[error(transparent)]
    Unavailable(#[from] Skip),
    /// It should have worked and did not: the test is to fail.
    #[error("root did not start: {0}")]
    Failed(String),
    /// A file of the cache could not be read or written.
    #[error("lab cache")]
    Io(#[from] io::Error),
}

/// A real server in an isolated root. Dropping it ends every process in there and removes its state;
/// if the owner is killed instead, the kernel does the same.
#[derive(Debug)]
pub struct Root {
    /// `unshare`, the parent of the root's process 1.
    outer: Child,
    /// Process 1 ends when this pipe closes.
    lifeline: Option<ChildStdin>,
    /// Process 1 as seen from here.
    pid: u32,
    /// Where its server keeps mail.
    queue: Queue,
    /// Removed after everything above has ended.
    instance: Instance,
}

/// How a root is to be started.
pub struct Builder<'a> {
    recipe: &'a dyn Recipe,
    binds: Vec<(PathBuf, String)>,
    network_of: Option<u32>,
    size: Option<String>,
    boots: bool,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("recipe", &self.recipe.name()).finish_non_exhaustive()
    }
}

impl<'a> Builder<'a> {
    /// Shows the folder `host` of this machine at the absolute path `inside`, writable.
    #[must_use]
    pub fn bind(mut self, host: impl Into<PathBuf>, inside: &str) -> Self {
        self.binds.push((host.into(), inside.to_owned()));
        self
    }

    /// Uses the network of `other` instead of an own one: both see the same loopback ports.
    #[must_use]
    pub fn network_of(mut self, other: &Root) -> Self {
        self.network_of = Some(other.pid);
        self
    }

    /// Limits everything the root may write, for example `64m`; the default is `2g`.
    #[must_use]
    pub fn size(mut self, size: &str) -> Self {
        self.size = Some(size.to_owned());
        self
    }

    /// systemd is process 1 in there, and starts the server by its unit, as on an administrator's machine. It takes some seconds.
    #[must_use]
    pub fn boots(mut self) -> Self {
        self.boots = true;
        self
    }

    /// Starts the root and returns when its server answers.
    pub fn start(self) -> Result<Root, StartError> {
        Lab::available()?;
        if self.boots {
            Lab::boots()?;
        }
        let layers = cache::layers(self.recipe)?;
        let instance = Instance::new(self.recipe)?;
        let mut command = match self.network_of {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &pid.to_string(), "-n", "--", "unshare"]);
                command
            }
            None => {
                let mut command = Command::new("unshare");
                command.arg("-n");
                command
            }
        };
        let lower: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let setup = instance.path.join("setup");
        command
            .args(["-m", "-p", "-i", "-u", "-f", "--kill-child", "bash"])
            .arg(setup.join("enter.sh"))
            .args(["run", self.recipe.name()])
            .arg(instance.path.join("top"))
            .arg(lower.join(":"))
            .arg(&setup)
            .arg(format!("{}:/lab/shared", instance.path.join("shared").display()))
            .args(self.binds.iter().map(|(host, inside)| format!("{}:{inside}", host.display())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(instance.path.join("console.log"))?);
        if let Some(size) = self.size {
            command.env("LAB_SIZE", size);
        }
        if self.boots {
            command.env("LAB_BOOT", "yes");
        }
        let mut outer = command.spawn()?;
        let lifeline = outer.stdin.take();
        let said = outer.stdout.take();
        let mut root = Root { outer, lifeline, pid: 0, queue: self.recipe.queue(), instance };
        let told = said.map_or(Err("no output"), |said| await_ready(said, |pid| root.pid = pid));
        match told {
            Ok(()) => Ok(root),
            Err(why) => {
                let console = fs::read(root.instance.path.join("console.log")).unwrap_or_default();
                let console = last_lines(&String::from_utf8_lossy(&console), 20);
                Err(StartError::Failed(format!("{}: {why}: {console}", self.recipe.name())))
            }
        }
    }

    /// Starts the root for a test: `None` after the test was listed as skipped.
    ///
    /// # Panics
    /// When the root should have started and did not.
    pub fn start_or_skip(self) -> Option<Root> {
        match self.start() {
            Ok(root) => Some(root),
            Err(StartError::Unavailable(why)) => {
                skip(&why);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl Root {
    /// A root of `recipe`, not started yet.
    pub fn of(recipe: &dyn Recipe) -> Builder<'_> {
        Builder { recipe, binds: Vec::new(), network_of: None, size: None, boots: false }
    }

    /// Starts a root with nothing special about it.
    pub fn start(recipe: &dyn Recipe) -> Result<Self, StartError> {
        Self::of(recipe).start()
    }

    /// Starts a root for a test; see [`Builder::start_or_skip`].
    pub fn start_or_skip(recipe: &dyn Recipe) -> Option<Self> {
        Self::of(recipe).start_or_skip()
    }

    /// The root's process 1 as this machine knows it: all that runs in there descends from it.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// A program of the root, run in it as root. It is killed when the returned command's process is;
    /// other signals do not reach it.
    pub fn command(&self, program: &str) -> Command {
        self.inside(&[program])
    }

    /// A program of the root, run in it as `user` (for example `checkpost`).
    pub fn command_as(&self, user: &str, program: &str) -> Command {
        self.inside(&["--reuid", user, "--regid", user, "--init-groups", program])
    }

    /// A program of this machine, with this machine's files, in the root's network. It is a direct
    /// child of the caller: signals reach it. It does not end with the root.
    pub fn net_command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n", "--"]).arg(program.as_ref());
        command
    }

    /// Runs `work` on a thread of its own that lives in the root's network, and returns its result.
    /// Sockets made there stay there, and so do threads and processes that `work` starts.
    ///
    /// # Panics
    /// When `work` does, or when the root is gone.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = format!("/proc/{}/ns/net", self.pid);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let network = File::open(network).expect("the root runs");
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a network");
                work()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Connects to a port on the root's 127.0.0.1.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        self.in_network(|| TcpStream::connect(("127.0.0.1", port)))
    }

    /// Listens on a port of the root's 127.0.0.1; 0 takes a free one.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        self.in_network(|| TcpListener::bind(("127.0.0.1", port)))
    }

    /// Sends one mail to port 25, as `client.example.net`.
    pub fn send(&self, from: &str, to: &[&str], message: &[u8]) -> io::Result<Told> {
        client::send(self.connect(25)?, from, to, message)
    }

    /// Opens a session with port 25, as `client.example.net`.
    pub fn client(&self) -> io::Result<Client> {
        Client::open(self.connect(25)?, "client.example.net")
    }

    /// Gives a mail (lines ending with LF) to the root's `/usr/sbin/sendmail`, as `alice`, with `from`
    /// as the envelope's sender.
    pub fn submit(&self, from: &str, to: &[&str], message: &[u8]) -> io::Result<Output> {
        let mut sendmail = self
            .command_as("alice", "/usr/sbin/sendmail")
            .args(["-i", "-f", from, "--"])
            .args(to)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = sendmail.stdin.take() {
            io::Write::write_all(&mut input, message)?;
        }
        sendmail.wait_with_output()
    }

    /// The mails in the Maildir of `user`, oldest first, as stored: lines end with LF.
    pub fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        let maildir = self.path(&format!("/home/{user}/Maildir"));
        let mut mails = Vec::new();
        for folder in ["new", "cur"] {
            let Ok(entries) = fs::read_dir(maildir.join(folder)) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                // A mail may be moved or removed while we look.
                let Ok(content) = fs::read(&path) else { continue };
                let Ok(written) = fs::metadata(&path).and_then(|about| about.modified()) else { continue };
                mails.push((written, path, content));
            }
        }
        mails.sort();
        mails.into_iter().map(|(_, _, content)| content).collect()
    }

    /// Waits until at least `n` mails are in the Maildir of `user`, and returns them; after `timeout`
    /// those that are there.
    pub fn wait_mailbox(&self, user: &str, n: usize, timeout: Duration) -> Vec<Vec<u8>> {
        let mut mails = Vec::new();
        wait(timeout, || {
            mails = self.mailbox(user);
            mails.len() >= n
        });
        mails
    }

    /// How many mails are in the server's queue, held ones among them.
    pub fn queue_len(&self) -> usize {
        self.waiting_len() + self.held_len()
    }

    /// How many mails the server holds, or has in its quarantine.
    pub fn held_len(&self) -> usize {
        self.files(self.queue.held).len() + self.marked().1
    }

    /// Waits until the queue is empty; false if it is not within `timeout`.
    #[must_use]
    pub fn wait_queue_empty(&self, timeout: Duration) -> bool {
        self.wait_delivered(timeout) && self.held_len() == 0
    }

    /// Waits until every mail is delivered, given up or held; false if it is not within `timeout`.
    #[must_use]
    pub fn wait_delivered(&self, timeout: Duration) -> bool {
        // A mail that moves from one folder to another while we count may be missed, but not twice.
        let mut empty = 0;
        wait(timeout, || {
            empty = if self.waiting_len() == 0 { empty + 1 } else { 0 };
            empty > 1
        })
    }

    /// Removes all mails of all users.
    pub fn clear_mailboxes(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path("/home"))? {
            match fs::remove_dir_all(entry?.path().join("Maildir")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.path("/var/log/mail.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits for a line in the log that contains `part`; false if there is none within `timeout`.
    #[must_use]
    pub fn wait_log(&self, part: &str, timeout: Duration) -> bool {
        wait(timeout, || self.log().contains(part))
    }

    /// The path here of a file in the root.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(inside.trim_start_matches('/'))
    }

    /// The folder that the root sees as `/lab/shared`; everyone may write to it. Short enough for the
    /// path of a Unix socket.
    pub fn shared(&self) -> PathBuf {
        self.instance.path.join("shared")
    }

    fn waiting_len(&self) -> usize {
        self.marked().0
    }

    /// The mails in the folders of waiting ones: those without the mark of a held one, and those with it.
    fn marked(&self) -> (usize, usize) {
        let files = self.files(self.queue.waiting);
        let Some(mark) = self.queue.held_mark else { return (files.len(), 0) };
        // One that is gone by now was not held.
        let held = |path: &PathBuf| {
            fs::read(path)
                .is_ok_and(|text| text.split(|&octet| octet == b'\n').any(|line| line.starts_with(mark.as_bytes())))
        };
        let held = files.iter().filter(|path| held(path)).count();
        (files.len() - held, held)
    }

    fn files(&self, places: &[&str]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for place in places {
            let (folder, name) = place.rsplit_once('/').unwrap_or(("", place));
            files(&self.path(folder), name.split_once('*').unwrap_or((name, "")), &mut found);
        }
        found
    }

    fn inside(&self, run: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.pid.to_string(), "-m", "-p", "-n", "-u", "-i", "-r", "-w", "--"])
            .args(["/usr/bin/env", "-i", PATH, "HOME=/root", "LANG=C.UTF-8"])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(run);
        command
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        self.lifeline = None;
        let ended = wait(Duration::from_secs(5), || !matches!(self.outer.try_wait(), Ok(None)));
        if !ended {
            // `unshare --kill-child` takes process 1 with it.
            let _ = self.outer.kill();
            let _ = self.outer.wait();
        }
    }
}

/// Reads what process 1 says until it is ready.
fn await_ready(said: impl io::Read + Send + 'static, mut pid: impl FnMut(u32)) -> Result<(), &'static str> {
    let (tell, hear) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    let end = Instant::now() + START_TIMEOUT;
    loop {
        match hear.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ready" => return Ok(()),
            Ok(line) => {
                if let Some(number) = line.strip_prefix("pid ").and_then(|number| number.parse().ok()) {
                    pid(number);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return Err("not ready in time"),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("ended while starting"),
        }
    }
}

fn wait(timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + timeout;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Adds the files below `folder` whose names begin and end so.
fn files(folder: &Path, name: (&str, &str), found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path(), name, found),
            Ok(_) => {
                let is = entry.file_name();
                let is = is.to_string_lossy();
                if is.starts_with(name.0) && is.ends_with(name.1) {
                    found.push(entry.path());
                }
            }
            Err(_) => {}
        }
    }
}
