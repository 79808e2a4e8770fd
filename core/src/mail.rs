//! One mail: envelope, where it came from, content.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::Content;

/// What the engine checks. Cheap to clone: the content is shared.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Ours, in every log line about this mail.
    pub id: MailId,
    /// Sender and recipients as the protocol gave them, not as the header says.
    pub envelope: Envelope,
    /// Who sent it to us, and by which way.
    pub origin: Origin,
    /// Header and body, CRLF line ends.
    pub content: Content,
}

/// Names one mail: 13 characters of `0-9A-Z`, growing with time, unique within a process and
/// practically so among nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailId([u8; 13]);

impl MailId {
    /// A new one: 41 bits of milliseconds, 12 bits of a counter, 12 bits of chance per process.
    pub fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static CHANCE: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
        let chance = *CHANCE.get_or_init(|| {
            let mut bytes = [0u8; 2];
            // Without a random source the process id tells processes apart well enough.
            if rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK).is_ok() {
                u16::from_ne_bytes(bytes) & 0xfff
            } else {
                (std::process::id() & 0xfff) as u16
            }
        });
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let count = u64::from(COUNTER.fetch_add(1, Ordering::Relaxed) & 0xfff);
        let mut value = u128::from(millis & 0x1ff_ffff_ffff) << 24 | u128::from(count) << 12 | u128::from(chance);
        let mut text = [b'0'; 13];
        for place in text.iter_mut().rev() {
            *place = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[(value & 31) as usize];
            value >>= 5;
        }
        Self(text)
    }

    /// The 13 characters.
    pub fn as_str(&self) -> &str {
        // Only ASCII is ever put in, by `new`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for MailId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sender and recipients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// The null sender of a bounce is [`Address::null`].
    pub sender: Address,
    /// In the order given, duplicates included: answers go back by index.
    pub recipients: Vec<Address>,
}

/// An address as the protocol gave it, without the angle brackets; byte-exact, never normalised.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Address(Arc<str>);

impl Address {
    /// Takes it as it is.
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Self(address.into())
    }

    /// `<>`.
    pub fn null() -> Self {
        Self::default()
    }

    /// Is this the null sender?
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Before the last `@`; all of it when there is none.
    pub fn local(&self) -> &str {
        self.0.rsplit_once('@').map_or(&*self.0, |(local, _)| local)
    }

    /// After the last `@`, as given; empty when there is none.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

impl From<&str> for Address {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// Where a mail came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name of the way in, from the configuration (`[[way]] name`).
    pub way: Arc<str>,
    /// Inbound, submission or internal, by networks, domains and authentication.
    pub class: OriginClass,
    /// The sending client, as far as it is known: the TCP peer, or what a trusted peer said of it.
    pub client: Option<IpAddr>,
    /// Its host name, when a trusted peer told one.
    pub client_name: Option<Box<str>>,
    /// What it said at HELO, EHLO or LHLO.
    pub helo: Option<Box<str>>,
    /// The authenticated user.
    pub user: Option<Box<str>>,
    /// Did it come over TLS?
    pub tls: bool,
    /// The MTA's own queue id, when it told one.
    pub queue_id: Option<Box<str>>,
}

impl Origin {
    /// Inbound by this way, nothing else known.
    pub fn inbound(way: &str) -> Self {
        Self {
            way: way.into(),
            class: OriginClass::Inbound,
            client: None,
            client_name: None,
            helo: None,
            user: None,
            tls: false,
            queue_id: None,
        }
    }
}

/// The three directions that policies tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OriginClass {
    /// From outside.
    Inbound,
    /// From an authenticated user or one of our own networks, to anywhere.
    Submission,
    /// From the MTA itself or between our own hosts.
    Internal,
}

impl OriginClass {
    /// As written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Submission => "submission",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for OriginClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_split_at_its_last_at_sign() {
        let odd = Address::from("\"a@b\"@example.org");
        assert_eq!((odd.local(), odd.domain()), ("\"a@b\"", "example.org"));
        let plain = Address::from("postmaster");
        assert_eq!((plain.local(), plain.domain()), ("postmaster", ""));
        assert!(Address::null().is_null());
    }

    #[test]
    fn ids_grow_and_differ() {
        let ids: Vec<_> = (0..1000).map(|_| MailId::new()).collect();
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.iter().all(|id| id.as_str().len() == 13));
    }
}
