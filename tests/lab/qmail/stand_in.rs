//! A qmail's programs in a root, with the caller and the original of this folder in qmail's places: qmail-smtpd behind a
//! real tcpserver, qmail-inject, and a qmail-send that delivers what the original was given.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::caller::{Caller, Left};
use super::home::Home;
use crate::dialogue;
use crate::root::Builder;
use crate::{Recipe, Root};

const HOME: &str = "/var/qmail";
const QUEUE: &str = "/var/qmail/bin/qmail-queue";
const LOOK: Duration = Duration::from_millis(50);

/// For the domain `example.test`, delivering to `~/Maildir`; staff is alice.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandIn;

impl StandIn {
    /// Its root, not started yet. The folder has the stand-ins, `stub-qmail` and `stub-qmail-queue`.
    pub fn root(program: &Path) -> Builder<'static> {
        Root::of(&StandIn).bind(program.parent().unwrap_or(program), "/lab/stand-ins")
    }
}

impl Recipe for StandIn {
    fn name(&self) -> &'static str {
        "qmaildriver"
    }

    fn script(&self) -> &'static str {
        include_str!("../recipes/qmaildriver.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn queue(&self) -> crate::Queue {
        crate::Queue { waiting: &["/var/qmail/calls/"], ..crate::Queue::default() }
    }
}

/// qmail-smtpd: one client at the descriptors that tcpserver gives.
pub fn smtpd() -> io::Result<()> {
    let client = TcpStream::from(rustix::stdio::stdin().as_fd().try_clone_to_owned()?);
    let knows = |to: &str| to.ends_with("example.test");
    dialogue::serve(&client, "mail.example.test", &knows, &mut |taken| {
        let message = [b"Received: (by a stand-in)\n".as_slice(), &crate::mails::as_stored(&taken.mail)].concat();
        Ok(queue(&message, &taken.sender, &taken.recipients).reply)
    })
}

/// `qmail-inject -f SENDER RECIPIENT`: its exit code (qmail-inject(8)).
pub fn inject(sender: &str, recipient: &str) -> io::Result<u8> {
    let mut message = Vec::new();
    io::stdin().read_to_end(&mut message)?;
    Ok(match queue(&message, sender, &[recipient.to_owned()]).reply.as_bytes()[0] {
        b'2' => 0,
        b'5' => 100,
        _ => 111,
    })
}

/// qmail-send: what was queued goes to the mailboxes.
pub fn send() -> io::Result<()> {
    let home = Home::at(HOME);
    let mut counts: HashMap<PathBuf, usize> = HashMap::new();
    loop {
        for call in home.take()? {
            for to in call.recipients() {
                let to = String::from_utf8_lossy(&to).into_owned();
                let user = to.split('@').next().unwrap_or_default();
                if user == "staff" {
                    // As qmail-local forwards: a new mail.
                    let sender = String::from_utf8_lossy(&call.sender()).into_owned();
                    queue(&call.message, &sender, &["alice@example.test".to_owned()]);
                    continue;
                }
                let new = PathBuf::from(format!("/home/{user}/Maildir/new"));
                fs::create_dir_all(&new)?;
                let count = counts.entry(new.clone()).or_default();
                *count += 1;
                fs::write(new.join(count.to_string()), &call.message)?;
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// By the program that qmail.c takes: the variable's, else its own.
fn queue(message: &[u8], sender: &str, recipients: &[String]) -> Left {
    let program = std::env::var_os("QMAILQUEUE").map_or_else(|| QUEUE.into(), PathBuf::from);
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    let caller = Caller { env: std::env::vars_os().map(text).collect(), ..Caller::new(&program, Path::new(HOME)) };
    let mut envelope = format!("F{sender}\0");
    recipients.iter().for_each(|to| envelope.push_str(&format!("T{to}\0")));
    envelope.push('\0');
    caller.deliver(message, envelope.as_bytes())
}
