//! How smtpserver finds its filter and starts it: by a look at its start, as a socket or as a program with both outputs
//! on one pipe.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid, geteuid};

use super::talk::{Open, Talk};
use super::verdict::Verdict;

/// The user whose files spool files are.
pub(super) const DAEMON: u32 = 1;

/// How long smtpserver waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the first `#hungry`.
    pub start: Duration,
    /// For an octet of a reply, and for a free copy of a program.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { start: Duration::from_secs(10), silence: Duration::from_secs(120) }
    }
}

/// `PARAM contentfilter`, as smtpserver has it in force from its start to its end.
pub struct Filter {
    path: PathBuf,
    limits: Limits,
    kind: Kind,
    environment: Vec<(String, String)>,
}

enum Kind {
    /// Ignored without a word.
    Off,
    Socket,
    Program(Pool),
}

/// Copies of a program.
struct Pool {
    most: usize,
    copies: Mutex<Copies>,
    freed: Condvar,
}

struct Copies {
    free: Vec<Copy>,
    busy: usize,
    /// Which file they were started of.
    file: (u64, i64),
}

type Pipes = Talk<PipeReader, PipeWriter>;

struct Copy {
    child: Child,
    talk: Pipes,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Filter {
    /// smtpserver's look at its start: `access(X_OK)`, as root, and stat. `most` is `contentfilter-maxpar`.
    pub fn find(path: &Path, most: usize, limits: Limits, environment: &[(&str, &str)]) -> Self {
        let executable = fs::metadata(path).is_ok_and(|about| about.mode() & 0o111 != 0);
        let kind = match fs::metadata(path) {
            Ok(about) if executable && about.file_type().is_file() => {
                let copies = Mutex::new(Copies { free: Vec::new(), busy: 0, file: (0, 0) });
                Kind::Program(Pool { most, copies, freed: Condvar::new() })
            }
            Ok(about) if executable && about.file_type().is_socket() => Kind::Socket,
            _ => Kind::Off,
        };
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self { path: path.into(), limits, kind, environment }
    }

    /// What one SMTP session has of it.
    pub(super) fn session(&self) -> Connection<'_> {
        Connection { filter: self, socket: None, said: Vec::new() }
    }

    /// The processes of the program's copies that are free.
    pub fn copies(&self) -> Vec<u32> {
        match &self.kind {
            Kind::Program(pool) => pool.held().free.iter().map(|copy| copy.child.id()).collect(),
            _ => Vec::new(),
        }
    }
}

/// Of one SMTP session.
pub(super) struct Connection<'a> {
    filter: &'a Filter,
    /// Kept over the session's mails.
    socket: Option<Talk<UnixStream, UnixStream>>,
    pub(super) said: Vec<String>,
}

impl Connection<'_> {
    /// The verdict on a spool file.
    pub(super) fn ask(&mut self, path: &str) -> Result<Verdict, Open> {
        let limits = self.filter.limits;
        match &self.filter.kind {
            Kind::Off => Err(Open::Off),
            Kind::Socket => {
                if self.socket.is_none() {
                    let stream = connect(&self.filter.path).map_err(|_| Open::Absent)?;
                    let write = stream.try_clone().map_err(|_| Open::Absent)?;
                    let mut talk = Talk { read: stream, write, said: Vec::new() };
                    let begun = talk.begin(false, limits.start);
                    self.said.append(&mut talk.said);
                    begun?;
                    self.socket = Some(talk);
                }
                let Some(talk) = &mut self.socket else { return Err(Open::Absent) };
                let verdict = talk.ask(path, limits.silence);
                self.said.append(&mut talk.said);
                // The next mail of the session tries again.
                if !matches!(verdict, Ok(_) | Err(Open::NoVerdict)) {
                    self.socket = None;
                }
                verdict
            }
            Kind::Program(pool) => {
                let asked = Instant::now();
                let mut copy = pool.take(self.filter)?;
                let left = limits.silence.saturating_sub(asked.elapsed());
                let verdict = copy.talk.ask(path, left);
                self.said.append(&mut copy.talk.said);
                match verdict {
                    Ok(_) | Err(Open::NoVerdict) => pool.give_back(Some(copy)),
                    Err(why) => {
                        if why == Open::Ended && self.said.last().is_none_or(|line| line != "F: ") {
                            // The session is not told of a copy's end; it waits.
                            std::thread::sleep(limits.silence.saturating_sub(asked.elapsed()));
                        }
                        pool.give_back(None);
                    }
                }
                verdict
            }
        }
    }
}

/// What a lock relies on.
const HELD: &str = "no test panics while it holds this";

impl Pool {
    fn held(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().expect(HELD)
    }

    /// A free copy, or a new one, or the next that is freed.
    fn take(&self, filter: &Filter) -> Result<Copy, Open> {
        let end = Instant::now() + filter.limits.silence;
        let about = fs::metadata(&filter.path).map_err(|_| Open::Absent)?;
        let mut copies = self.held();
        loop {
            // Replaced on the disk: no copy of the old one gets another job.
            let file = (about.ino(), about.mtime_nsec());
            if copies.file != file {
                copies.file = file;
                copies.free.clear();
            }
            while let Some(mut copy) = copies.free.pop() {
                if copy.child.try_wait().is_ok_and(|ended| ended.is_none()) {
                    copies.busy += 1;
                    return Ok(copy);
                }
            }
            if copies.busy < self.most {
                copies.busy += 1;
                drop(copies);
                let started = Copy::start(filter);
                if started.is_err() {
                    self.give_back(None);
                }
                return started;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Open::Silent);
            }
            copies = self.freed.wait_timeout(copies, left).expect(HELD).0;
        }
    }

    fn give_back(&self, copy: Option<Copy>) {
        let mut copies = self.held();
        copies.busy -= 1;
        copies.free.extend(copy);
        self.freed.notify_all();
    }
}

impl Copy {
    /// Two pipes, both outputs on one, SIGPIPE ignored, root as root.
    fn start(filter: &Filter) -> Result<Self, Open> {
        let start = || -> io::Result<Self> {
            let (requests, write) = pipe()?;
            let (read, replies) = pipe()?;
            let child = Command::new("/bin/sh")
                .args(["-c", "trap '' PIPE TSTP TTIN TTOU; exec \"$0\" -Z /etc/zmailer.conf"])
                .arg(&filter.path)
                .env_clear()
                .env("PATH", "/bin:/usr/bin:/sbin:/usr/sbin")
                .env("SMTPSERVER", "y")
                .envs(filter.environment.iter().cloned())
                .stdin(requests)
                .stdout(replies.try_clone()?)
                .stderr(replies)
                .spawn()?;
            Ok(Self { child, talk: Talk { read, write, said: Vec::new() } })
        };
        let mut copy = start().map_err(|_| Open::Absent)?;
        // What is late is ended, and never works.
        copy.talk.begin(true, filter.limits.start)?;
        Ok(copy)
    }
}

/// As user daemon and group root, where that can be had.
fn connect(path: &Path) -> io::Result<UnixStream> {
    if !geteuid().is_root() {
        return UnixStream::connect(path);
    }
    // Of this thread alone, which ends with it.
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
            rustix::thread::set_thread_res_uid(Uid::from_raw(DAEMON), Uid::from_raw(DAEMON), Uid::from_raw(DAEMON))?;
            UnixStream::connect(path)
        });
        connecting.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))
    })
}

/// Gives a file to user daemon, where that can be had.
pub(super) fn give_away(file: &File) -> io::Result<()> {
    if geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(DAEMON), Some(0))?;
    }
    Ok(())
}
