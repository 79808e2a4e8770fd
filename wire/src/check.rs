//! The check protocol: a program beside a mail server shows a mail to the daemon and is told what to do with it.
//!
//! No sockets, no clocks: lists of attributes in, values out, for both sides. How the message itself goes
//! over, as a descriptor or as octets behind the list, is said in the list and done by whoever owns the
//! socket. `docs/check-protocol.md` is the description for those who write clients in other languages.
//!
//! Whether a mail is clean hangs on an answer, so clients read strictly: an answer that is not understood to
//! the last attribute is an error, never "deliver". Servers overlook attributes they do not know, so that a
//! newer client may say more.

mod answer;
mod list;
mod request;

pub use answer::{Answer, Content, Decision, Done, Form, Outcome, Part, Response};
pub use list::{Finder, List, TooLong, Writer};
pub use request::{Can, Carried, Changed, Class, Request};

/// What each side says first, once: protocol and version. A client may send its first request with it.
pub const HELLO: &[u8] = b"checkpost-check 1\0";

/// The longest list that a client takes, in octets.
pub const MAX_ANSWER: usize = 8 << 20;

/// Why a list is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// An attribute without `=`, or with a name that is not UTF-8.
    #[error("an attribute without a name")]
    NoName,
    /// This attribute may be there once.
    #[error("{0} is there twice")]
    Twice(&'static str),
    /// This attribute must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The value is none that is known.
    #[error("{name}={value}: not understood")]
    Value {
        /// The attribute.
        name: String,
        /// The beginning of its value.
        value: String,
    },
    /// The list begins with another attribute than any known message.
    #[error("a list that begins with {0:?}")]
    Unknown(String),
    /// The value cannot be sent: there is a NUL in it.
    #[error("a NUL in {0}")]
    Nul(&'static str),
}

impl ListError {
    fn value(name: &str, value: &[u8]) -> Self {
        Self::Value { name: start(name.as_bytes()), value: start(value) }
    }

    fn unknown(name: &str) -> Self {
        Self::Unknown(start(name.as_bytes()))
    }
}

/// The beginning of what a peer said, harmless in a log.
fn start(octets: &[u8]) -> String {
    let start = String::from_utf8_lossy(&octets[..octets.len().min(80)]);
    start.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
