//! The daemon killed again and again under load: what a client was told 250 for is delivered, what it
//! was refused is not. No root is needed: the next hop is the lab's sink.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use checkpost_tests::{Daemon, Sink, mails, program, send};

const MAILS: usize = 1000;
const CLIENTS: usize = 8;
/// Every so many-th mail is one that must be refused.
const INFECTED: usize = 10;
const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";

/// A client gives up on the whole test after so long.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn killed_at_random_moments_it_loses_nothing() {
    let sink = Sink::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), port, &sink.address().to_string());
    let start = || {
        let connect = || TcpStream::connect(("127.0.0.1", port));
        Daemon::start_in(Command::new(program("checkpostd")), folder.path(), &config, connect).unwrap()
    };
    let mut daemon = Some(start());
    let (next, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| client(port, &next))).collect();
        scope.spawn(|| {
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            while !finished.load(Ordering::Relaxed) {
                // xorshift: moments that differ, the same in each run.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                std::thread::sleep(Duration::from_millis(5 + random % 60));
                daemon.take().unwrap().kill().unwrap();
                kills.fetch_add(1, Ordering::Relaxed);
                daemon = Some(start());
            }
        });
        let results: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        // First of all, or a failed client would leave the killing without end.
        finished.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    assert!(kills.load(Ordering::Relaxed) > 5, "the load was over before the daemon was killed");

    let mut copies: HashMap<usize, usize> = HashMap::new();
    for mail in sink.mailbox("alice") {
        let text = String::from_utf8_lossy(&mail).into_owned();
        let number = text.lines().find_map(|line| line.strip_prefix("Subject: mail ")).unwrap().parse().unwrap();
        assert!(mail.ends_with(b"\nthe end\n"), "half a mail was delivered:\n{text}");
        *copies.entry(number).or_default() += 1;
    }
    for number in 0..MAILS {
        let copies = copies.get(&number).copied().unwrap_or(0);
        if number % INFECTED == 0 {
            assert_eq!(copies, 0, "mail {number} was refused and delivered");
        } else {
            assert!(copies >= 1, "mail {number} was accepted and lost");
        }
    }
}

/// Sends mails, each until it is accepted or refused for good, as an MTA with a queue would.
fn client(port: u16, next: &AtomicUsize) {
    let end = Instant::now() + LIMIT;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= MAILS {
            return;
        }
        let infected = number.is_multiple_of(INFECTED);
        let mail = mail(number, infected);
        let code = loop {
            assert!(Instant::now() < end, "mail {number} finds no way through");
            let told = TcpStream::connect(("127.0.0.1", port)).and_then(|stream| send(stream, SENDER, &[ALICE], &mail));
            match told.map(|told| told.last().code / 100) {
                Ok(code @ (2 | 5)) => break code,
                // Deferred, or nobody there: later.
                Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        assert_eq!(code, if infected { 5 } else { 2 }, "mail {number}");
    }
}

fn mail(number: usize, infected: bool) -> Vec<u8> {
    let subject = format!("mail {number}");
    if infected {
        return mails::with_attachment(SENDER, ALICE, &subject, "a.zip", &mails::eicar_in_nested_zip());
    }
    let text = "a line of a mail that is not short\n".repeat(1 + number * 7 % 400) + "the end\n";
    mails::plain(SENDER, ALICE, &subject, &text)
}

fn config(folder: &Path, port: u16, next_hop: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
[daemon]
state = "{folder}/state"

[[way]]
kind = "smtp-proxy"
listen = "127.0.0.1:{port}"
next_hop = "{next_hop}"
"#
    )
}
