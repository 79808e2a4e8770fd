//! One mail: its octets into a file without a name, the question, and what the answer comes to. Whatever goes wrong
//! means "try again later".

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use checkpost_client::settings::WhenDown;
use checkpost_client::spool::Spool;
use checkpost_client::{Reply, ask_pieces};
use checkpost_wire::check::Done;
use rustix::fs::{FileType, fstat, tell};
use rustix::io::{pread, retry_on_intr};

use crate::config::{Config, LocalDefer};
use crate::header::Shown;
use crate::mail::Mail;
use crate::map::{self, Code, Work};

/// For the daemon's log.
const PROGRAM: &str = concat!("checkpost-exim-local-scan ", env!("CARGO_PKG_VERSION"));
/// Read at once, in octets.
const BLOCK: usize = 4 << 10;
/// If the first line of a body is longer, it counts for one that ends with LF.
const LONGEST_LINE: u64 = 1 << 20;

/// What is to be done, and whom to tell when it is.
pub(crate) struct Scanned {
    pub(crate) work: Work,
    reply: Option<Reply>,
}

impl Scanned {
    /// To be said when all is done but the return to Exim, or when it could not be.
    pub(crate) fn done(&mut self, failed: Option<&String>) {
        if let Some(reply) = &mut self.reply {
            // Nothing but the daemon's log hangs on it.
            let _ = reply.done(&failed.map_or(Done::Carried, |why| Done::Failed(why.clone())));
        }
    }
}

impl From<Work> for Scanned {
    fn from(work: Work) -> Self {
        Self { work, reply: None }
    }
}

/// Has a mail checked. `body` stands at the body's first octet, wherever that is in the file, and still does
/// afterwards. `library` is the library's own path.
pub(crate) fn scan(mail: &Mail<'_>, body: BorrowedFd<'_>, library: Option<&Path>) -> Scanned {
    if mail.recipients.is_empty() {
        // An ACL has discarded it: nobody gets it, and there is nothing to decide.
        return Work::accept(None).into();
    }
    let config = Config::load(library);
    let local_defer = config.as_ref().map_or(LocalDefer::default(), |config| config.local_defer);
    let mut scanned = match config {
        Ok(config) => checked(mail, body, &config),
        Err(error) => Work::defer(&error.to_string()).into(),
    };
    if scanned.work.code == Code::Defer && mail.is_lost_if_deferred() && local_defer == LocalDefer::Freeze {
        scanned.work = frozen(scanned.work);
    }
    scanned
}

/// What would be lost if Exim refused it, and would be unscanned if Exim delivered it, stays in Exim's queue.
fn frozen(work: Work) -> Work {
    let why = work.log.unwrap_or_else(|| format!("mail put off: {}", work.text));
    let log = format!("a local program's {why}; kept frozen and UNCHECKED: exim -M delivers it, exim -Mrm removes it");
    Work { code: Code::Freeze, log: Some(log), ..Work::default() }
}

fn checked(mail: &Mail<'_>, body: BorrowedFd<'_>, config: &Config) -> Scanned {
    let (shown, message, total) = match message(mail, body, &config.spool) {
        Ok(message) => message,
        Err(error) => return Work::defer(&format!("the mail cannot be read or stored: {error}")).into(),
    };
    let request = map::request(mail, PROGRAM);
    match ask_pieces(&config.socket, request, message.as_fd(), config.check_time) {
        Ok(mut reply) => match map::work(&reply.answer, &reply.octets, mail, &shown, total) {
            Ok(work) => Scanned { work, reply: Some(reply) },
            Err(cannot) => {
                let _ = reply.done(&Done::Failed(cannot.to_string()));
                let id = &reply.answer.id;
                Work::defer(&format!("the daemon asks for what cannot be done: {cannot} (mail {id})")).into()
            }
        },
        Err(error) => {
            let why = format!("{}: {}", config.socket.display(), error.chain());
            if error.is_absence() && config.when_down == WhenDown::Pass {
                return Work::accept(Some(format!("mail passes UNCHECKED (when_down = pass): {why}"))).into();
            }
            Work::defer(&why).into()
        }
    }
}

/// Header, empty line and body, and how many octets they are.
fn message(mail: &Mail<'_>, body: BorrowedFd<'_>, spool: &Path) -> io::Result<(Shown, OwnedFd, u64)> {
    let is = fstat(body)?;
    let size = u64::try_from(is.st_size).unwrap_or_default();
    let start = tell(body)?;
    if FileType::from_raw_mode(is.st_mode) != FileType::RegularFile || start > size {
        return Err(io::Error::other("the descriptor of the body is none"));
    }
    let shown = Shown::new(&mail.fields, has_crlf(body, start)?).ok_or(io::ErrorKind::OutOfMemory)?;
    let mut message = Spool::new(spool)?;
    message.write(&shown.octets)?;
    message.copy(body, start, size - start)?;
    let total = message.size();
    Ok((shown, message.into_descriptor(), total))
}

/// With `spool_wireformat` a body has CRLF at its line ends, else there is no CR in it at all.
fn has_crlf(body: BorrowedFd<'_>, start: u64) -> io::Result<bool> {
    let mut block = [0; BLOCK];
    let (mut at, mut last) = (start, 0);
    while at - start < LONGEST_LINE {
        let count = retry_on_intr(|| pread(body, &mut block, at))?;
        let octets = &block[..count];
        if let Some(end) = octets.iter().position(|octet| *octet == b'\n') {
            return Ok(if end == 0 { last } else { octets[end - 1] } == b'\r');
        }
        let Some(end) = octets.last() else { break };
        (last, at) = (*end, at + count as u64);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[test]
    fn line_ends_are_those_of_the_first_line() {
        let exact = "x".repeat(BLOCK - 1);
        for (body, crlf) in [
            ("", false),
            ("\n", false),
            ("\r\n", true),
            ("a\r\nb\n", true),
            ("a\nb\r\n", false),
            ("no end", false),
            (&format!("{exact}\r\n"), true),
            (&format!("{exact}x\r\n"), true),
            (&format!("{exact}x\n"), false),
            (&format!("{}\r\n", "x".repeat(LONGEST_LINE as usize + BLOCK)), false),
        ] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"1wABCD-000001-01-D\r\n").unwrap();
            let start = file.stream_position().unwrap();
            file.write_all(body.as_bytes()).unwrap();
            assert_eq!(has_crlf(file.as_fd(), start).unwrap(), crlf, "{} octets", body.len());
        }
    }

    #[test]
    fn a_descriptor_that_is_no_body_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(message(&Mail::default(), pipe.as_fd(), folder.path()).is_err());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"19 octets").unwrap();
        file.seek(SeekFrom::Start(19)).unwrap();
        assert!(message(&Mail::default(), file.as_fd(), folder.path()).is_err());
        file.seek(SeekFrom::Start(9)).unwrap();
        let (shown, _, total) = message(&Mail::default(), file.as_fd(), folder.path()).unwrap();
        assert_eq!((shown.octets, total), (b"\n".to_vec(), 1));
        assert_eq!(file.stream_position().unwrap(), 9);
    }
}
