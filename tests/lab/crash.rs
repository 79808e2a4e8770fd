//! The daemon killed again and again under load. What stands around the daemon is the test's business.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{Daemon, Told, mails};

const CLIENTS: usize = 8;
/// Every so many-th mail is one that must be refused.
const INFECTED: usize = 10;
/// A client gives up on the whole test after so long.
const LIMIT: Duration = Duration::from_secs(300);
/// Of every mail here.
const SENDER: &str = "sender@example.net";
/// To whom every mail here goes.
const ALICE: &str = "alice@example.test";

/// A load of mails from several clients at once, each sent until it is accepted or refused for good, as a mail
/// server with a queue would.
pub struct CrashLoad<Start, Send> {
    /// How many mails.
    pub mails: usize,
    /// The daemon lives between these times, in milliseconds.
    pub lives: std::ops::Range<u64>,
    /// Starts the daemon.
    pub start: Start,
    /// Sends one mail from this sender to these recipients, on a connection of its own.
    pub send: Send,
}

impl<Start, Send> std::fmt::Debug for CrashLoad<Start, Send> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrashLoad").field("mails", &self.mails).finish_non_exhaustive()
    }
}

impl<Start, Send> CrashLoad<Start, Send>
where
    Start: Fn() -> Daemon + Sync,
    Send: Fn(&str, &[&str], &[u8]) -> io::Result<Told> + Sync,
{
    /// Sends all of them while the daemon is killed.
    ///
    /// # Panics
    /// When a mail gets an answer that it must not get, or the daemon was hardly killed.
    pub fn run(&self) {
        let mut daemon = Some((self.start)());
        let (next, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| self.client(&next))).collect();
            scope.spawn(|| {
                let mut random = 0x2545_f491_4f6c_dd1d_u64;
                while !finished.load(Ordering::Relaxed) {
                    // xorshift: moments that differ, the same in each run.
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let life = self.lives.start + random % (self.lives.end - self.lives.start);
                    std::thread::sleep(Duration::from_millis(life));
                    daemon.take().expect("it was started").kill().expect("it runs");
                    kills.fetch_add(1, Ordering::Relaxed);
                    daemon = Some((self.start)());
                }
            });
            let results: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            // First of all, or a failed client would leave the killing without end.
            finished.store(true, Ordering::Relaxed);
            for result in results {
                if let Err(panic) = result {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        assert!(kills.load(Ordering::Relaxed) > 5, "the load was over before the daemon was killed");
    }

    fn client(&self, next: &AtomicUsize) {
        let end = Instant::now() + LIMIT;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.mails {
                return;
            }
            let mail = mail(number);
            let code = loop {
                assert!(Instant::now() < end, "mail {number} finds no way through");
                match (self.send)(SENDER, &[ALICE], &mail).map(|told| told.last().code / 100) {
                    Ok(code @ (2 | 5)) => break code,
                    // Deferred, or nobody there: later.
                    Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            };
            assert_eq!(code, if is_infected(number) { 5 } else { 2 }, "mail {number}");
        }
    }

    /// What was accepted is in this mailbox, whole, and what was refused is not. `twice`: a mail may be there
    /// more than once, since its client cannot know that it was taken.
    ///
    /// # Panics
    /// When that is not so.
    pub fn check(&self, mailbox: &[Vec<u8>], twice: bool) {
        let mut copies: HashMap<usize, usize> = HashMap::new();
        for mail in mailbox {
            let text = String::from_utf8_lossy(mail);
            let number = text.lines().find_map(|line| line.strip_prefix("Subject: mail ")?.parse().ok());
            assert!(mail.ends_with(b"\nthe end\n"), "half a mail was delivered:\n{text}");
            *copies.entry(number.expect("every mail has its number")).or_default() += 1;
        }
        for number in 0..self.mails {
            let copies = copies.get(&number).copied().unwrap_or(0);
            if is_infected(number) {
                assert_eq!(copies, 0, "mail {number} was refused and delivered");
            } else {
                assert!(
                    copies == 1 || (twice && copies > 1),
                    "mail {number} was accepted, and is there {copies} times"
                );
            }
        }
    }
}

fn is_infected(number: usize) -> bool {
    number.is_multiple_of(INFECTED)
}

fn mail(number: usize) -> Vec<u8> {
    let subject = format!("mail {number}");
    if is_infected(number) {
        return mails::with_attachment(SENDER, ALICE, &subject, "a.zip", &mails::eicar_in_nested_zip());
    }
    let text = "a line of a mail that is not short\n".repeat(1 + number * 7 % 400) + "the end\n";
    mails::plain(SENDER, ALICE, &subject, &text)
}
