//! A next hop for where no Postfix can run: takes mail by SMTP and keeps it in memory.
//! It knows the same users as the roots, and no fault is ever its own.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{dialogue, mails};

/// A mail server in this process. Dropping it stops listening.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    boxes: Arc<Boxes>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// Serves `listener` on threads of its own.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let boxes = Arc::new(Boxes::default());
        let kept = Arc::clone(&boxes);
        let accepting = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let boxes = Arc::clone(&kept);
                if boxes.state().closed {
                    return;
                }
                // A client that breaks off gets nothing delivered; there is nobody to tell.
                std::thread::spawn(move || serve(&client, &boxes).ok());
            }
        });
        Ok(Self { address, boxes, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mails of `user` at example.test, oldest first, with LF line ends as in a Maildir.
    pub fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.boxes.state().mails.get(user).cloned().unwrap_or_default()
    }

    /// Waits until at least `n` mails are there; after `timeout` returns those that are.
    pub fn wait_mailbox(&self, user: &str, n: usize, timeout: Duration) -> Vec<Vec<u8>> {
        let end = Instant::now() + timeout;
        let mut state = self.boxes.state();
        loop {
            let mails = state.mails.get(user).map_or(&[][..], Vec::as_slice);
            let left = end.saturating_duration_since(Instant::now());
            if mails.len() >= n || left.is_zero() {
                return mails.to_vec();
            }
            state = self.boxes.more.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.boxes.state().closed = true;
        // Wakes the accepting thread, which then sees that it is over. A listener in another network
        // cannot be reached from here: its thread ends with the process.
        let woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok();
        if let Some(accepting) = self.accepting.take()
            && woken
        {
            let _ = accepting.join();
        }
    }
}

#[derive(Debug, Default)]
struct Boxes {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    mails: HashMap<String, Vec<Vec<u8>>>,
    closed: bool,
}

impl Boxes {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, users: &[String], mail: &[u8]) {
        let mut state = self.state();
        for user in users {
            state.mails.entry(user.clone()).or_default().push(mail.to_vec());
        }
        self.more.notify_all();
    }
}

fn serve(client: &TcpStream, boxes: &Boxes) -> io::Result<()> {
    let knows = |address: &str| known_user(address).is_some();
    dialogue::serve(client, "sink.example.test", &knows, &mut |taken| {
        let users: Vec<String> = taken.recipients.iter().filter_map(|to| known_user(to)).collect();
        boxes.deliver(&users, &mails::as_stored(&taken.mail));
        Ok("250 2.0.0 kept".into())
    })
}

fn known_user(address: &str) -> Option<String> {
    let address = address.to_ascii_lowercase();
    let user = address.strip_suffix("@example.test")?;
    ["alice", "bob"].contains(&user).then(|| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_the_client_sends() {
        let sink = Sink::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let mail = mails::plain("a@example.net", "alice@example.test", "s", ".dots\n..\n.\nend\n");
        let to = ["alice@example.test", "nobody@example.test"];
        let told = crate::send(TcpStream::connect(sink.address()).unwrap(), "a@example.net", &to, &mail).unwrap();
        assert!(told.accepted());
        assert_eq!(told.recipients[1].1.code, 550);
        assert_eq!(sink.wait_mailbox("alice", 1, Duration::from_secs(60)), [mails::as_stored(&mail)]);
        assert!(sink.mailbox("bob").is_empty());
    }
}
