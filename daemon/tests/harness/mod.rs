//! The real daemon in a folder of its own, and its log. For the tests of this package.

#![allow(dead_code, reason = "no test uses all of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use checkpostd::admin::{Client, Request, Response, Status};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    pub(crate) child: Child,
    stderr: Option<BufReader<std::process::ChildStderr>>,
    pub(crate) log: String,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it and waits for the line that says it serves.
    pub(crate) fn start(more: &str, ways: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let config = format!("[daemon]\nstate = {state:?}\n{more}\n{ways}");
        let mut daemon = Self::start_with(&config, folder);
        daemon.wait_for("serving");
        daemon
    }

    pub(crate) fn start_with(config: &str, folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("checkpost.toml");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_checkpostd"))
            .arg("--config")
            .arg(path)
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Some(BufReader::new(child.stderr.take().unwrap()));
        Self { child, stderr, log: String::new(), folder }
    }

    /// Reads the log until a line has this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let before = self.log.len();
            let read = self.stderr.as_mut().unwrap().read_line(&mut self.log).unwrap();
            assert!(read > 0, "the log ends before {text:?}:\n{}", self.log);
            if self.log[before..].contains(text) {
                return;
            }
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("checkpost.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("state/admin.sock")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub(crate) fn status(&self) -> Status {
        let mut client = Client::connect(&self.socket()).unwrap();
        match client.ask(&Request::Status {}, None, PATIENCE).unwrap() {
            Response::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end; the rest of the log is read, too. One that does not end is killed, and that is a failure.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let (done, ended) = mpsc::channel();
        let mut stderr = self.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut rest = String::new();
            done.send(stderr.read_to_string(&mut rest).map(|_| rest)).unwrap();
        });
        let Ok(rest) = ended.recv_timeout(PATIENCE * 2) else {
            panic!("the daemon does not end:\n{}", self.log);
        };
        self.log.push_str(&rest.unwrap());
        (self.child.wait().unwrap(), std::mem::take(&mut self.log))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
