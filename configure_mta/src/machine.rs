//! A machine, or a folder that holds one: its files ([`Tree`]) and its programs ([`Tools`]). It knows no MTA.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use std::os::unix::process::CommandExt;

use checkpost_setup::{About, Command, Look, LookError, Owner, Said};

use crate::tree::{Tree, look_error, trouble};

/// Longest time for a command that looks.
const LOOK_TIME: u32 = 60;
/// Longest time for a command that changes something.
const CHANGE_TIME: u32 = 300;

/// Runs programs.
pub trait Tools {
    /// Runs one to its end, for at most `seconds`. `None`: there is no such program.
    ///
    /// # Errors
    /// When it cannot be started.
    fn run(&self, command: &[String], seconds: u32) -> io::Result<Option<Said>>;
}

/// The programs of the machine itself, or of the system in a folder (by chroot(8)).
#[derive(Debug)]
pub struct Programs {
    root: PathBuf,
    lock: OnceCell<File>,
}

impl Programs {
    /// Those below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), lock: OnceCell::new() }
    }

    /// From now on a program that runs keeps this lock as well: should we be killed, nobody puts things back while it is
    /// still at work on them.
    pub fn hold(&self, lock: File) {
        // One for all.
        let _ = self.lock.set(lock);
    }
}

impl Tools for Programs {
    fn run(&self, command: &[String], seconds: u32) -> io::Result<Option<Said>> {
        let mut run = std::process::Command::new("timeout");
        // The lock is timeout(1)'s standard input, and so as long as the program's, and not that of a daemon it starts.
        let input = self.lock.get().map_or_else(|| Ok(Stdio::null()), |lock| lock.try_clone().map(Stdio::from))?;
        run.args(["--kill-after=5", &seconds.to_string(), "sh", "-c", "exec \"$@\" < /dev/null", "run"]);
        if self.root != Path::new("/") {
            run.arg("chroot").arg(&self.root);
        }
        // An own process group: what is typed at the terminal is for us, and we undo what was done.
        let output = run
            .args(command)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", "/root")
            .current_dir("/")
            .process_group(0)
            .stdin(input)
            .output()?;
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        // sh(1), timeout(1) and chroot(8) all say so.
        if output.status.code() == Some(127) {
            return Ok(None);
        }
        Ok(Some(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }))
    }
}

/// Files and programs together.
pub struct Machine<'a> {
    /// Its files.
    pub tree: &'a Tree,
    /// Its programs.
    pub tools: &'a dyn Tools,
}

impl std::fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl Look for Machine<'_> {
    fn file(&self, path: &str) -> Result<Option<Vec<u8>>, LookError> {
        Ok(self.tree.read(path).map_err(look_error(path))?.map(|whole| whole.content))
    }

    fn about(&self, path: &str) -> Result<Option<About>, LookError> {
        self.tree.about(path).map_err(look_error(path))
    }

    fn names(&self, path: &str) -> Result<Vec<String>, LookError> {
        self.tree.names(path).map_err(look_error(path))
    }

    fn run(&self, command: &[&str]) -> Result<Option<Said>, LookError> {
        let words: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        self.tools.run(&words, LOOK_TIME).map_err(look_error(&command.join(" ")))
    }
}

impl Machine<'_> {
    /// Runs a command that changes something; its words if it does not end well.
    ///
    /// # Errors
    /// When it cannot be started, is not there, or does not end well.
    pub fn change(&self, command: &Command) -> io::Result<Said> {
        let said = self.tools.run(&command.0, CHANGE_TIME)?;
        let said = said.ok_or_else(|| io::Error::other(format!("{command}: no such program")))?;
        if said.ok() {
            return Ok(said);
        }
        let code = said.code.map_or("a signal".into(), |code| format!("exit code {code}"));
        let words = [said.err.trim(), said.out.trim()].join(" ");
        Err(io::Error::other(format!("{}: {code}: {}", command.brief(), words.trim())))
    }

    /// Numbers of a user and its own group.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn account(&self, user: &str) -> io::Result<(u32, u32)> {
        let text = self.tree.read("/etc/passwd")?.map(|whole| whole.content).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let entry = entries.find(|fields| fields.len() > 3 && fields[0] == user);
        let numbers = entry.and_then(|fields| Some((fields[2].parse().ok()?, fields[3].parse().ok()?)));
        numbers.ok_or_else(|| trouble("/etc/passwd", &format!("there is no {user}")))
    }

    /// Numbers of an owner, as the machine's own files of accounts have them.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub fn numbers(&self, owner: &Owner) -> io::Result<(u32, u32)> {
        let number = |file: &str, name: &str| -> io::Result<u32> {
            let text = self.tree.read(file)?.map(|whole| whole.content).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let mut entries = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let entry = entries.find(|fields| fields.len() > 2 && fields[0] == name);
            let found = entry.and_then(|fields| fields[2].parse().ok());
            // A small tree may have no such files.
            found.or((name == "root").then_some(0)).ok_or_else(|| trouble(file, &format!("there is no {name}")))
        };
        Ok((number("/etc/passwd", &owner.user)?, number("/etc/group", &owner.group)?))
    }
}
