//! A mail server that needs nothing installed: it speaks milter to a filter as Postfix or as Sendmail
//! does, carries out what the filter says, and keeps the mails. It is stricter than both: whatever one
//! of them would punish, garble or pass over in silence is a [`Fault`].
//!
//! It has no queue, no network and no SMTP; a test calls it in place of a client's commands. What it
//! does of a server's habits is what a filter can see or be hurt by.

mod message;
mod packets;
mod session;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::{Answer, Told};
use message::Message;
pub use packets::{Packet, Wire, packet};
pub use session::MockClient;

/// What the filter did wrong, or what became of the connection to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A mail server would call this an error, or should.
    #[error("the filter broke the protocol: {0}")]
    Filter(String),
    /// The connection broke, or the filter was silent for too long.
    #[error("the connection to the filter")]
    Io(#[from] io::Error),
}

impl Fault {
    fn filter(what: &str) -> Self {
        Self::Filter(what.to_owned())
    }
}

/// Whose habits it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Postfix 3.7.
    Postfix,
    /// Sendmail 8.17.
    Sendmail,
}

/// What the server offers in the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Of the protocol.
    pub version: u32,
    /// SMFIF_… bits.
    pub actions: u32,
    /// SMFIP_… bits.
    pub steps: u32,
}

impl Offer {
    /// What both servers offer today.
    pub const FULL: Self = Self { version: 6, actions: 0x1FF, steps: 0x1F_FFFF };
    /// What a server of 20 years ago offered.
    pub const OLD: Self = Self { version: 2, actions: 0x3F, steps: 0x7F };
}

/// Who connects to the mail server.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name, or its address in brackets.
    pub host: String,
    /// IPv4 or IPv6; `None` for a client without (family U).
    pub address: Option<std::net::IpAddr>,
    /// Its port; Postfix makes up clients of port 0.
    pub port: u16,
    /// Its word at EHLO.
    pub helo: String,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            address: Some([127, 0, 0, 1].into()),
            port: 12345,
            helo: "client.example.net".into(),
        }
    }
}

/// The server: its settings, and the mailboxes of `alice` and `bob` at example.test.
#[derive(Debug)]
pub struct MockMta {
    style: Style,
    offer: Offer,
    /// The longest wait for one answer of the filter.
    patience: Duration,
    aliases: HashMap<String, Vec<String>>,
    boxes: HashMap<String, Vec<Vec<u8>>>,
    held: Vec<Message>,
    mails: u32,
}

impl MockMta {
    /// A server with empty mailboxes. It waits for each answer as long as Sendmail does by default.
    pub fn new(style: Style, offer: Offer) -> Self {
        Self {
            style,
            offer,
            patience: Duration::from_secs(10),
            aliases: HashMap::new(),
            boxes: HashMap::new(),
            held: Vec::new(),
            mails: 0,
        }
    }

    /// `staff` stands for others: the server expands it after the filter has seen the mail.
    #[must_use]
    pub fn alias(mut self, name: &str, members: &[&str]) -> Self {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.aliases.insert(name.to_owned(), members);
        self
    }

    /// Sets the longest wait for one answer of the filter.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A client connects: the filter is asked about it and about its EHLO.
    pub fn client(&mut self, filter: Wire, peer: &Peer) -> Result<MockClient<'_>, Fault> {
        MockClient::open(self, filter, peer)
    }

    /// A program of this machine submits a mail. Postfix makes up a client and says addresses without
    /// their brackets; to Sendmail its own MSP is a client that has added a field.
    pub fn submit(&mut self, filter: Wire, from: &str, to: &[&str], content: &[u8]) -> Result<Told, Fault> {
        let style = self.style;
        let port = if style == Style::Postfix { 0 } else { 12345 };
        let local = Peer { host: "localhost".into(), port, helo: "localhost".into(), ..Peer::default() };
        let mut client = self.client(filter, &local)?;
        client.bare_addresses = style == Style::Postfix;
        let told = match style {
            Style::Postfix => client.mail(from, to, content)?,
            Style::Sendmail => {
                let content = [b"Received: (from alice@localhost)\r\n\tby mail.example.test\r\n", content].concat();
                client.mail(from, to, &content)?
            }
        };
        client.quit()?;
        if style == Style::Postfix && told.recipients.iter().any(|(_, answer)| !answer.is_positive()) {
            // Postfix calls this a configuration error and tries again for ever.
            return Err(Fault::filter("a recipient of local mail refused by itself"));
        }
        Ok(told)
    }

    /// The mails of `user`, oldest first, with LF line ends as in a Maildir.
    pub fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.boxes.get(user).cloned().unwrap_or_default()
    }

    /// How many mails wait for somebody to release them.
    pub fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Delivers what was held.
    pub fn release(&mut self) {
        for message in std::mem::take(&mut self.held) {
            self.deliver(&message);
        }
    }

    /// Tells a sender, if it is a user here, that a mail was refused.
    pub fn bounce(&mut self, to: &str) {
        for user in self.users(to) {
            let bounce = b"Return-Path: <>\nSubject: returned mail\n\nIt was refused.\n".to_vec();
            self.boxes.entry(user).or_default().push(bounce);
        }
    }

    /// Empties mailboxes and quarantine.
    pub fn clear(&mut self) {
        self.boxes.clear();
        self.held.clear();
    }

    fn keep(&mut self, message: Message) {
        if message.held.is_some() {
            self.held.push(message);
        } else {
            self.deliver(&message);
        }
    }

    fn deliver(&mut self, message: &Message) {
        let stored = message.stored();
        // Postfix delivers twice to a recipient who was added and there already.
        let mut users: Vec<String> = message.recipients.iter().flat_map(|to| self.users(to)).collect();
        if self.style == Style::Sendmail || message.recipients.iter().any(|to| self.users(to).len() > 1) {
            users.sort();
            users.dedup();
        }
        for user in users {
            self.boxes.entry(user).or_default().push(stored.clone());
        }
    }

    /// The local users behind an address; none for one that is not known here.
    fn users(&self, address: &str) -> Vec<String> {
        let local = mailbox(address);
        if let Some(members) = self.aliases.get(&local) {
            return members.clone();
        }
        if ["alice", "bob"].contains(&local.as_str()) { vec![local] } else { Vec::new() }
    }

    fn queue_id(&mut self) -> String {
        self.mails += 1;
        format!("{:08X}", self.mails)
    }
}

/// The user behind an address of this server; another address as it is. All in lower case.
fn mailbox(address: &str) -> String {
    let address = address.to_ascii_lowercase();
    match address.split_once('@') {
        Some((user, "example.test" | "mail.example.test")) => user.to_owned(),
        _ => address,
    }
}

fn answer(code: u16, text: &str) -> Answer {
    Answer { code, text: text.to_owned() }
}

#[cfg(test)]
mod tests;
