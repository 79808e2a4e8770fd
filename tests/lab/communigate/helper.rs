//! One run of a helper: the server's ends of its three pipes. What it writes to standard error is not read before it has
//! ended, and the pipe is full from the start, so one octet there stops it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::reply::MAX_LINE;

/// Longer than anything takes that is not waited for on purpose.
pub(crate) const SOON: Duration = Duration::from_secs(180);

/// A running helper.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Said>,
    stderr: PipeReader,
    filled: usize,
}

/// A line without its end, and what was in `Submitted` when it was read.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) line: Vec<u8>,
    pub(crate) submitted: Vec<String>,
}

/// How a helper ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, or the signal.
    pub status: ExitStatus,
    /// Octets that it wrote to standard error.
    pub noise: usize,
}

impl Helper {
    /// Starts it as the server does: in the base directory, with three pipes, as the server's user.
    pub fn start(program: &Path, arguments: &[&Path], base: &Path, user: Option<u32>) -> io::Result<Self> {
        let (stderr, mut noise) = io::pipe()?;
        let filled = fill(&mut noise)?;
        let mut command = Command::new(program);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command
            .args(arguments)
            .current_dir(base)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(noise)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (tell, lines) = channel();
        let submitted = base.join("Submitted");
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let mut line = Vec::new();
                match stdout.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let submitted = names(&submitted);
                if tell.send(Said { line, submitted }).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines, stderr, filled })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.id())).map_or(0, Iterator::count)
    }

    /// How many descriptors it has open, as names of what they are.
    pub fn descriptors(&self) -> Vec<String> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.id()));
        let open = folder.into_iter().flatten().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        open.map(|path| path.to_string_lossy().into_owned()).collect()
    }

    /// Sends octets, as they are.
    ///
    /// # Panics
    /// When it does not read any more.
    pub fn send(&mut self, octets: &[u8]) {
        let stdin = self.stdin.as_mut().expect("its lines have not ended");
        stdin.write_all(octets).expect("the helper reads");
    }

    /// The next line within the time.
    ///
    /// # Panics
    /// When a line is none.
    pub(crate) fn hear(&self, within: Duration) -> Option<Said> {
        match self.lines.recv_timeout(within) {
            Ok(mut said) => {
                let shown = || String::from_utf8_lossy(&said.line).into_owned();
                assert!(said.line.len() <= MAX_LINE, "a line of {} octets", said.line.len());
                assert!(said.line.ends_with(b"\n"), "a line without its end: {}", shown());
                said.line.pop();
                assert!(!said.line.contains(&b'\r'), "{}", String::from_utf8_lossy(&said.line));
                Some(said)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Ends its standard input.
    pub fn end(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits for its end, and reads what nobody has read so far.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(mut self) -> Ended {
        let end = Instant::now() + SOON;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                break status;
            }
            assert!(Instant::now() < end, "the helper does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut noise = Vec::new();
        self.stderr.read_to_end(&mut noise).expect("a pipe can be read");
        Ended { status, noise: noise.len() - self.filled }
    }

    /// Kills it with this signal, and waits.
    pub fn kill(self, signal: Signal) -> Ended {
        self.signal(signal).expect("it is a child");
        let ended = self.ended();
        assert_eq!(ended.status.signal(), Some(signal.as_raw()), "{ended:?}");
        ended
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fills a pipe to its last octet.
fn fill(pipe: &mut io::PipeWriter) -> io::Result<usize> {
    use rustix::fs::OFlags;
    let flags = rustix::fs::fcntl_getfl(pipe.as_fd())?;
    rustix::fs::fcntl_setfl(pipe.as_fd(), flags | OFlags::NONBLOCK)?;
    let mut filled = 0;
    for size in [4096, 1] {
        loop {
            match pipe.write(&[b'x'; 4096][..size]) {
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    rustix::fs::fcntl_setfl(pipe.as_fd(), flags)?;
    Ok(filled)
}

/// What is in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// A whole file that has its end by now.
pub(crate) fn read(path: &Path) -> Vec<u8> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|mut file| file.read_to_end(&mut octets));
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    octets
}
