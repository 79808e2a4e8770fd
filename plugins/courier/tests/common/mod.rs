//! A courierfilter for one filter: its folders, the descriptors it is started with, and mails in its queue.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod daemon;

use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longer than anything takes that is not waited for on purpose.
pub const SOON: Duration = Duration::from_secs(20);

/// The filter's name, as in `active/`.
pub const NAME: &str = "checkpost";

/// A Courier's folders, and a filter in them.
pub struct Courier {
    pub folder: tempfile::TempDir,
    child: Option<Child>,
    stop: Option<PipeWriter>,
}

/// A mail in the queue.
pub struct Files {
    pub data: PathBuf,
    pub controls: Vec<PathBuf>,
}

impl Courier {
    /// Short, for the path of a socket.
    pub fn new(settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("cp").tempdir_in("/tmp").unwrap();
        for name in ["allfilters", "filters", "tmp/1", "active"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let program = env!("CARGO_BIN_EXE_checkpost-courier");
        std::os::unix::fs::symlink(program, folder.path().join("active").join(NAME)).unwrap();
        let courier = Self { folder, child: None, stop: None };
        courier.settings(settings);
        courier
    }

    pub fn settings(&self, lines: &str) {
        let text = format!("socket = {}\n{lines}\n", self.path("check.sock").display());
        fs::write(self.path("courier.conf"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("allfilters").join(NAME)
    }

    /// As courierfilter does: 0 a pipe whose far end is kept, 1 and 2 to the log, 3 the start-up pipe, and on 4 what it
    /// forgot there. Returns when 3 is closed.
    pub fn start(&mut self) {
        let mut started = self.spawn();
        let (tell, hear) = mpsc::channel();
        std::thread::spawn(move || tell.send(started.read(&mut [0; 1])));
        let heard = hear.recv_timeout(SOON).unwrap_or_else(|_| panic!("it keeps 3 open: {}", self.log()));
        assert_eq!(heard.unwrap(), 0);
    }

    fn spawn(&mut self) -> PipeReader {
        let (stdin, stop) = pipe().unwrap();
        let (started, start) = pipe().unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        // The shell opens the pipe's two ends anew under the numbers that they must have.
        let script = "exec 3>\"$0\" 4<\"$0\"; cd /usr; exec \"$1\"";
        let path = format!("/proc/{}/fd/{}", std::process::id(), start.as_raw_fd());
        let child = Command::new("/bin/sh")
            .args(["-c", script, &path])
            .arg(self.path("active").join(NAME))
            .env_clear()
            .env("sysconfdir", "/etc/courier")
            .env("CHECKPOST_COURIER_STATE", self.folder.path())
            .env("CHECKPOST_COURIER_CONF", self.path("courier.conf"))
            .stdin(stdin)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let id = child.id();
        (self.child, self.stop) = (Some(child), Some(stop));
        // Ours may be closed once the shell has its own; then the program is the shell's successor, or was and has ended.
        let end = Instant::now() + SOON;
        let is_ours = |exe: PathBuf| exe.ends_with("checkpost-courier");
        while self.is_running() && !fs::read_link(format!("/proc/{id}/exe")).is_ok_and(is_ours) {
            assert!(Instant::now() < end, "not started: {}", self.log());
            std::thread::yield_now();
        }
        drop(start);
        started
    }

    /// Starts it by hand: nothing on 3.
    pub fn start_by_hand(&mut self) {
        self.start_limited(None);
        self.wait("a socket", || UnixStream::connect(self.socket()).is_ok());
    }

    /// Starts it by hand, with so many descriptors.
    pub fn start_limited(&mut self, descriptors: Option<u32>) {
        let (stdin, stop) = pipe().unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let limit = descriptors.map(|most| format!("ulimit -n {most}; ")).unwrap_or_default();
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("{limit}exec \"$0\"")])
            .arg(self.path("active").join(NAME))
            .env("CHECKPOST_COURIER_STATE", self.folder.path())
            .env("CHECKPOST_COURIER_CONF", self.path("courier.conf"))
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        (self.child, self.stop) = (Some(child), Some(stop));
    }

    /// Does a filter answer, as an administrator asks?
    pub fn probe(&self) -> bool {
        let mut command = Command::new(self.path("active").join(NAME));
        command.arg("--probe").env("CHECKPOST_COURIER_STATE", self.folder.path());
        command.stderr(Stdio::null()).status().unwrap().success()
    }

    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !done() {
            assert!(Instant::now() < end, "{what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub fn kill(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.child.as_mut().unwrap().wait().unwrap();
    }

    /// Closes 0.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Waits for its end: whether it succeeded, and how long it took.
    pub fn ended(&mut self) -> (bool, Duration) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                return (status.success(), begin.elapsed());
            }
            assert!(begin.elapsed() < SOON, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Puts a mail into the queue, with so many recipients in each control file.
    pub fn mail(&self, text: &str, files: &[&[&str]]) -> Files {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let data = self.path(&format!("tmp/1/D{number}"));
        fs::write(&data, text).unwrap();
        let control = |(file, recipients): (usize, &&[&str])| {
            let path = self.path(&format!("tmp/1/C{number}.{}", file + 1));
            let records: String = recipients.iter().map(|recipient| format!("r{recipient}\nR\nN\n")).collect();
            let text = format!("ss@example.net\nfdns; c.example ([::ffff:192.0.2.1])\nM1.{number}\n{records}usmtp\n");
            fs::write(&path, text).unwrap();
            path
        };
        Files { data, controls: files.iter().enumerate().map(control).collect() }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Asks about a mail, as submit does.
    pub fn ask(&self, files: &Files) -> String {
        let mut stream = self.connect();
        stream.write_all(&files.request()).unwrap();
        reply(stream)
    }
}

/// All to the end of the connection.
pub fn reply(mut stream: UnixStream) -> String {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

impl Files {
    pub fn request(&self) -> Vec<u8> {
        let line = |path: &Path| format!("{}\n", path.display());
        let controls: String = self.controls.iter().map(|path| line(path)).collect();
        format!("{}{controls}\n", line(&self.data)).into_bytes()
    }

    pub fn text(&self) -> String {
        fs::read_to_string(&self.data).unwrap()
    }

    /// What was appended to a control file.
    pub fn records(&self, file: usize) -> String {
        let text = fs::read_to_string(&self.controls[file]).unwrap();
        text.split_once("usmtp\n").unwrap().1.to_owned()
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
