//! A caller as qmail-smtpd is one: three pipes, the message in small writes, then the envelope, then the text to its
//! end, and only then the exit code.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::reply::{Flavour, reply};

/// How long the text may stay open behind the program's end: longer, and somebody else holds it.
const TEXT_AFTER_END: Duration = Duration::from_secs(1);

/// A program that takes longer is killed, and the test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// What the program finds at the descriptor for texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextFd {
    /// A pipe that the caller reads, at the flavour's number.
    Pipe,
    /// A pipe at this number.
    PipeAt(u8),
    /// Nothing.
    Closed,
    /// This file, open for writing.
    File(PathBuf),
}

/// One caller; the same for any number of mails.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What it starts, by this path.
    pub program: PathBuf,
    /// The working directory that the program is given.
    pub home: PathBuf,
    /// Whose conventions.
    pub flavour: Flavour,
    /// At the descriptor for texts.
    pub text: TextFd,
    /// The program's whole environment.
    pub env: Vec<(String, String)>,
    /// The program's user, when it is another.
    pub uid: Option<u32>,
    /// Shell commands that the process does before it becomes the program: limits, umask, descriptors.
    pub before: String,
}

/// A program that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    flavour: Flavour,
    message: Option<PipeWriter>,
    envelope: Option<PipeWriter>,
    text: PipeReader,
    broken: bool,
    log: PathBuf,
    ended: JoinHandle<Instant>,
    watch: mpsc::Sender<()>,
}

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Left {
    /// Its process id.
    pub id: u32,
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// What it wrote at the descriptor for texts, as far as a caller reads it.
    pub text: Vec<u8>,
    /// What it wrote at descriptor 2.
    pub log: String,
    /// What the client is told.
    pub reply: String,
    /// From the end of the envelope to the end of the program.
    pub took: Duration,
}

impl Caller {
    /// As qmail-smtpd of notqmail.
    pub fn new(program: &Path, home: &Path) -> Self {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            program: program.to_owned(),
            home: home.to_owned(),
            flavour: Flavour::Notqmail,
            text: TextFd::Pipe,
            env: vec![
                variable("PATH", "/usr/bin:/bin"),
                variable("PROTO", "TCP"),
                variable("TCPREMOTEIP", "192.0.2.7"),
                variable("TCPREMOTEHOST", "client.example"),
                variable("TCPLOCALHOST", "mx.example"),
                variable("QMAILQUEUE", &program.display().to_string()),
            ],
            uid: None,
            before: String::new(),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self
    }

    /// A mail from its first to its last byte.
    ///
    /// # Panics
    /// When the program does not end, or somebody holds the text open behind its end.
    pub fn deliver(&self, message: &[u8], envelope: &[u8]) -> Left {
        let mut running = self.start().expect("the program starts");
        running.message(message);
        running.envelope(envelope);
        running.finish()
    }

    /// Starts the program.
    pub fn start(&self) -> io::Result<Running> {
        let (message_read, message) = io::pipe()?;
        let (envelope_read, envelope) = io::pipe()?;
        let (text, text_write) = io::pipe()?;
        let log = tempfile::Builder::new().prefix("caller-").tempfile_in(self.home.join("log"))?;
        fs::set_permissions(log.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
        let (_, log) = log.keep().map_err(|error| error.error)?;
        // The shell gets the text's pipe as its descriptor 2 and puts it where it belongs; then env makes the
        // environment and ignores SIGPIPE. Each becomes the next by exec, so the process stays the same.
        let (place, log_to) = match (&self.text, self.flavour.text()) {
            (TextFd::Pipe, Some((2, _))) => (String::new(), ""),
            (TextFd::Pipe, Some((number, _))) => (format!("{number}>&2"), "2>>\"$1\""),
            (TextFd::PipeAt(number), _) => (format!("{number}>&2"), "2>>\"$1\""),
            (TextFd::File(path), Some((number, _))) => (format!("{number}>>'{}'", path.display()), "2>>\"$1\""),
            (TextFd::Pipe, None) | (TextFd::Closed | TextFd::File(_), _) => (String::new(), "2>>\"$1\""),
        };
        let script =
            format!("exec {place} {log_to}\n{}\nshift\nexec /usr/bin/env --ignore-signal=PIPE -i \"$@\"", self.before);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).arg(&log);
        command.args(self.env.iter().map(|(name, value)| format!("{name}={value}"))).arg(&self.program);
        command.current_dir(&self.home);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command.stdin(Stdio::from(message_read)).stdout(Stdio::from(envelope_read)).stderr(Stdio::from(text_write));
        let child = command.spawn()?;
        // Its copies of the pipes' ends would keep them open.
        drop(command);
        let id = Pid::from_child(&child);
        let ended = std::thread::spawn(move || {
            // Seen, and left for who waits for it.
            let seen = || waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            while seen().is_err_and(|error| error == rustix::io::Errno::INTR) {}
            Instant::now()
        });
        let (watch, watched) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if watched.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = kill_process(id, Signal::KILL);
            }
        });
        Ok(Running {
            child,
            flavour: self.flavour,
            message: Some(message),
            envelope: Some(envelope),
            text,
            broken: false,
            log,
            ended,
            watch,
        })
    }
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a part of the message in writes of 1 KiB, as substdio does.
    pub fn write(&mut self, part: &[u8]) {
        put(self.message.as_mut(), part, &mut self.broken);
    }

    /// Writes the rest of the message and ends it.
    pub fn message(&mut self, rest: &[u8]) {
        self.write(rest);
        self.message = None;
    }

    /// Writes the envelope and ends it.
    pub fn envelope(&mut self, bytes: &[u8]) {
        self.message = None;
        put(self.envelope.as_mut(), bytes, &mut self.broken);
        self.envelope = None;
    }

    /// Kills the program (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
    }

    /// Reads the text to its end, and then waits for the program.
    ///
    /// # Panics
    /// When the program does not end, or somebody holds the text open behind its end.
    pub fn finish(mut self) -> Left {
        self.message = None;
        self.envelope = None;
        let start = Instant::now();
        let mut text = Vec::new();
        self.text.read_to_end(&mut text).expect("a pipe can be read");
        let closed = Instant::now();
        let ended = self.ended.join().expect("waiting does not panic");
        let status = self.child.wait().expect("it is our child");
        assert!(self.watch.send(()).is_ok(), "the program did not end within {LIMIT:?}");
        let late = closed.saturating_duration_since(ended);
        assert!(late < TEXT_AFTER_END, "the text was held open for {late:?} behind the program's end");
        assert!(!status.core_dumped() || status.signal().is_some(), "{status}");
        if let Some((_, most)) = self.flavour.text() {
            text.truncate(most);
        }
        let mut log = String::new();
        // Not every log is text.
        File::open(&self.log).and_then(|mut file| file.read_to_string(&mut log)).expect("the log can be read");
        let _ = fs::remove_file(&self.log);
        Left {
            id: self.child.id(),
            code: status.code(),
            reply: reply(self.flavour, status.code(), &text, self.broken, self.child.id()),
            text,
            log,
            took: ended.saturating_duration_since(start),
        }
    }
}

fn put(pipe: Option<&mut PipeWriter>, bytes: &[u8], broken: &mut bool) {
    let pipe = pipe.expect("not after its end");
    for part in bytes.chunks(1024) {
        if *broken {
            return;
        }
        *broken = pipe.write_all(part).is_err();
    }
}
