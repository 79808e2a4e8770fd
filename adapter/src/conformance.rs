//! The conformance battery: what every way in must do, whatever its protocol. For tests.
//!
//! A way's test implements [`Way`]: it plays a [`Scene`] with its own protocol's words on a
//! [`Stage`], and tells what the MTA's side saw and what was handed on. [`run`] plays all scenes,
//! in one piece, byte by byte and in seeded slices, and compares with what `fit` says.
//!
//! It knows no protocol; a way that has no next hop leaves [`Way::points`] empty.

mod scenes;
mod stage;

use std::sync::Arc;

use checkpost_core::{Abilities, Content, Edit, Mail, MailId, Origin, Verdict};

pub use scenes::run;
pub use stage::{Does, Files, Judge, Network, NoNetwork, Peer, Slicing, Stage, Then, piece_bytes};

/// A way in, as its test plays it.
pub trait Way {
    /// For messages of failed tests.
    fn name(&self) -> String;

    /// What the way declares.
    fn abilities(&self) -> Abilities;

    /// Where a next hop can fail; empty when the way has none.
    fn points(&self) -> Vec<Point>;

    /// Plays the scene on one connection from the MTA (or as one would do it, where a way has no
    /// connections), with no header field of the way's own added.
    fn play(&self, scene: &Scene, slicing: Slicing) -> Played;
}

/// What is played.
#[derive(Clone)]
pub struct Scene {
    /// For messages of failed tests.
    pub title: String,
    /// One after another on one connection.
    pub mails: Vec<TestMail>,
    /// The largest mail taken, in octets.
    pub max_size: u64,
    /// The client goes in the middle of the content of this mail; those behind it are not sent.
    pub abort: Option<usize>,
    /// The next hop fails.
    pub trouble: Option<Trouble>,
}

/// One mail and what the engine says of it.
#[derive(Debug, Clone)]
pub struct TestMail {
    /// Empty: the null sender.
    pub sender: String,
    /// At least one.
    pub recipients: Vec<String>,
    /// CRLF line ends.
    pub content: Vec<u8>,
    /// What the engine says.
    pub verdict: Verdict,
}

impl TestMail {
    /// As the engine gets it.
    pub fn mail(&self) -> Mail {
        Mail {
            id: MailId::new(),
            envelope: checkpost_core::Envelope {
                sender: self.sender.as_str().into(),
                recipients: self.recipients.iter().map(|recipient| recipient.as_str().into()).collect(),
            },
            origin: Origin::inbound("conformance"),
            content: Content::from(bytes::Bytes::from(self.content.clone())),
        }
    }
}

/// The next hop fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// When.
    pub at: Point,
    /// How.
    pub kind: TroubleKind,
    /// Each time, or only the first?
    pub always: bool,
}

/// Where a next hop can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before there is a connection.
    Connect,
    /// At its greeting.
    Banner,
    /// At our greeting.
    Hello,
    /// At the sender.
    Sender,
    /// At a recipient.
    Recipient,
    /// When asked for the content.
    Data,
    /// Within the content.
    Content,
    /// At the answer to the content: it has the mail.
    Final,
    /// When told to forget a mail.
    Reset,
}

/// How a next hop fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// Refuses for now.
    Temporary,
    /// Refuses for good.
    Permanent,
    /// Closes.
    Gone,
    /// Says nothing.
    Silent,
    /// Says what its protocol does not know.
    Garbage,
}

/// What one mail's sending side was told of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It is taken.
    Accepted,
    /// It is refused for good: the text.
    Rejected(String),
    /// It is refused for now: the text.
    Deferred(String),
    /// Nothing, since the connection ended: the sender tries again.
    Nothing,
}

/// A mail as it was handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOn {
    /// The envelope's sender.
    pub sender: String,
    /// Those that it went to.
    pub recipients: Vec<String>,
    /// To the byte.
    pub content: Vec<u8>,
    /// Kept in the MTA's own quarantine.
    pub held: bool,
}

/// What came of a scene.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// For each mail that was sent, for each recipient.
    pub told: Vec<Vec<Told>>,
    /// In order. A next hop that had the mail when it failed counts.
    pub handed_on: Vec<HandedOn>,
}

/// The content with edits, made the slow and plain way.
pub fn edited(content: &[u8], edits: &Arc<[Edit]>) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).expect("a test's mail is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a test's mail has a header and a body");
    let mut body = body.to_owned();
    let mut fields: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => *last = format!("{last}\r\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    let name_is = |field: &str, name: &str| field.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name));
    let (mut top, mut bottom) = (Vec::new(), Vec::new());
    for edit in edits.iter() {
        match edit {
            Edit::AddHeader(field) => top.insert(0, field.to_string()),
            Edit::AppendHeader(field) => bottom.push(field.to_string()),
            Edit::SetHeader(set) => {
                let mut found = false;
                for field in fields.iter_mut().filter(|field| name_is(field, set.name.as_str())) {
                    let old = std::mem::replace(field, if found { String::new() } else { set.to_string() });
                    // The spelling of the name that is there stays.
                    if !found {
                        *field = format!("{}: {}", old.split(':').next().unwrap_or_default(), set.value.as_str());
                    }
                    found = true;
                }
                assert!(found, "a test sets a field that is there");
                fields.retain(|field| !field.is_empty());
            }
            Edit::RemoveHeader(name) => fields.retain(|field| !name_is(field, name.as_str())),
            Edit::TagSubject(tag) => {
                let subject = fields.iter_mut().find(|field| name_is(field, "Subject"));
                let subject = subject.expect("a test's mail has a subject");
                *subject = subject.replacen("Subject: ", &format!("Subject: {} ", tag.as_str()), 1);
            }
            Edit::ReplaceBody(new) => {
                let octets = new.octets().to_vec();
                body = String::from_utf8(octets).expect("a test's body is text");
                top.extend(new.fields().map(|(name, value)| format!("{name}: {value}")));
            }
            Edit::AddRecipient(_) | Edit::ChangeSender(_) => {}
            other => panic!("no test has {other:?} yet"),
        }
    }
    top.extend(fields);
    top.append(&mut bottom);
    format!("{}\r\n\r\n{body}", top.join("\r\n")).into_bytes()
}
