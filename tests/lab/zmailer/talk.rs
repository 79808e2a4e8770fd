//! One talk with a filter (subdaemon-ctf.c): `#hungry` awaited, a path said, lines read until the next `#hungry`. Each octet
//! has its time.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::verdict::{self, Verdict};

/// Why a mail was accepted though no verdict said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// The filter was ignored when smtpserver started.
    Off,
    /// Nobody answered at the socket, or the program is gone.
    Absent,
    /// Something else came than `#hungry`.
    NotHungry,
    /// The end, or an empty line, which is taken for it.
    Ended,
    /// Silence.
    Silent,
    /// No line that counts.
    NoVerdict,
}

/// Both directions, with all that was said.
pub(super) struct Talk<R, W> {
    pub(super) read: R,
    pub(super) write: W,
    /// `F:` and `S:` lines.
    pub(super) said: Vec<String>,
}

impl<R: Read + AsFd, W: Write> Talk<R, W> {
    /// Waits for `#hungry`. A program may say other lines before it; at a socket it is the very first line.
    pub(super) fn begin(&mut self, skip: bool, within: Duration) -> Result<(), Open> {
        let end = Instant::now() + within;
        loop {
            match self.line(end.saturating_duration_since(Instant::now()))? {
                line if line == b"#hungry" => return Ok(()),
                _ if skip => {}
                _ => return Err(Open::NotHungry),
            }
        }
    }

    /// Says a path and waits for the verdict: the last line that counts before the next `#hungry`.
    pub(super) fn ask(&mut self, path: &str, silence: Duration) -> Result<Verdict, Open> {
        self.said.push(format!("S: {path}"));
        if self.write.write_all(format!("{path}\n").as_bytes()).and_then(|()| self.write.flush()).is_err() {
            return Err(Open::Ended);
        }
        let mut last = None;
        loop {
            let line = self.line(silence)?;
            if line == b"#hungry" {
                return last.and_then(|line: Vec<u8>| Verdict::read(&line)).ok_or(Open::NoVerdict);
            }
            if verdict::counts(&line) {
                last = Some(line);
            }
        }
    }

    /// A line without its end. Each of its octets may take so long.
    fn line(&mut self, silence: Duration) -> Result<Vec<u8>, Open> {
        let mut line = Vec::new();
        loop {
            let time = Timespec {
                tv_sec: i64::try_from(silence.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: silence.subsec_nanos().into(),
            };
            match poll(&mut [PollFd::new(&self.read, PollFlags::IN)], Some(&time)) {
                Ok(0) => return Err(Open::Silent),
                Err(rustix::io::Errno::INTR) => continue,
                _ => {}
            }
            let mut octet = [0];
            match self.read.read(&mut octet) {
                Ok(1) if octet == *b"\n" => break,
                Ok(1) => line.push(octet[0]),
                _ => return Err(Open::Ended),
            }
        }
        self.said.push(format!("F: {}", String::from_utf8_lossy(&line)));
        if line.is_empty() { Err(Open::Ended) } else { Ok(line) }
    }
}
