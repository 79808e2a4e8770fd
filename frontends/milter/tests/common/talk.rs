//! A mail server that sends just these octets and keeps what it hears, for what no well-behaved one does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, Peer, Then};

use super::mta::{negotiation, packet};
use super::{Closing, Setup};

/// As today's servers, but everything is told and answered.
pub const ANSWERED: (u32, u32, u32) = (6, 0x1ff, 0x10_0d7f & !0x100);

/// What was heard: code and data.
pub type Answers = Vec<(u8, Vec<u8>)>;

/// What is said, and how many answers are waited for.
#[derive(Debug, Clone, Default)]
pub struct Talk(VecDeque<(Vec<u8>, usize)>);

/// What came of it.
pub struct Heard {
    /// For each thing said that was come to.
    pub answers: Vec<Answers>,
    pub closings: Vec<Closing>,
    /// Nobody was there any more to hear the rest.
    pub cut: bool,
}

impl Talk {
    /// Negotiates.
    pub fn new(offer: (u32, u32, u32)) -> Self {
        Self::default().ask(negotiation(offer))
    }

    /// Negotiates so that everything is answered, and comes to MAIL.
    pub fn greeted() -> Self {
        Self::new(ANSWERED).ask(super::mta::connect()).ask(packet(b'H', b"client.example.net\0"))
    }

    /// Says something that has no answer.
    #[must_use]
    pub fn say(mut self, octets: impl AsRef<[u8]>) -> Self {
        self.0.push_back((octets.as_ref().to_vec(), 0));
        self
    }

    /// Says something that has an answer.
    #[must_use]
    pub fn ask(mut self, octets: impl AsRef<[u8]>) -> Self {
        self.0.push_back((octets.as_ref().to_vec(), 1));
        self
    }

    /// One packet that has an answer.
    #[must_use]
    pub fn command(self, code: u8, data: impl AsRef<[u8]>) -> Self {
        self.ask(packet(code, data.as_ref()))
    }

    /// From MAIL to the end of a mail for these recipients.
    #[must_use]
    pub fn mail(self, recipients: &[&str]) -> Self {
        let begun = self.command(b'M', b"<s@example.net>\0");
        let addressed = recipients.iter().fold(begun, |talk, to| talk.command(b'R', format!("<{to}>\0")));
        addressed.content()
    }

    /// A small content.
    #[must_use]
    pub fn content(self) -> Self {
        self.command(b'T', b"")
            .command(b'L', b"Subject\0 x\0")
            .command(b'N', b"")
            .command(b'B', b"x\r\n")
            .command(b'E', b"")
    }

    /// Plays it against a session.
    pub fn play(self, setup: Setup) -> Heard {
        let steps = self.0.len();
        let answers: Arc<Mutex<Vec<Answers>>> = Arc::default();
        let peer = Talker { rest: self.0, awaits: 0, incoming: Vec::new(), answers: Arc::clone(&answers) };
        let closings = setup.play(Box::new(peer));
        let answers = answers.lock().unwrap().clone();
        let cut = answers.len() < steps;
        Heard { answers, closings, cut }
    }
}

impl Heard {
    /// The codes of the answers, a word for each thing said: `O c c dim`.
    pub fn codes(&self) -> String {
        let word = |answers: &Answers| answers.iter().map(|(code, _)| char::from(*code)).collect::<String>();
        self.answers.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// The last answer's data as text.
    pub fn last_text(&self) -> String {
        let last = self.answers.iter().rev().find_map(|answers| answers.last());
        last.map(|(_, data)| String::from_utf8_lossy(data).trim_end_matches('\0').to_owned()).unwrap_or_default()
    }
}

struct Talker {
    rest: VecDeque<(Vec<u8>, usize)>,
    awaits: usize,
    incoming: Vec<u8>,
    answers: Arc<Mutex<Vec<Answers>>>,
}

impl Peer for Talker {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.incoming.extend_from_slice(bytes);
        while let Some(head) = self.incoming.first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            assert!(length > 0, "a packet of no length");
            if self.incoming.len() < 4 + length {
                break;
            }
            let packet: Vec<u8> = self.incoming.drain(..4 + length).collect();
            let mut answers = self.answers.lock().unwrap();
            answers.last_mut().expect("an answer to something").push((packet[4], packet[5..].to_vec()));
            if b"Oacdrsty".contains(&packet[4]) {
                self.awaits = self.awaits.checked_sub(1).expect("an answer that nobody waits for");
            }
        }
        let mut say = Vec::new();
        while self.awaits == 0 {
            let Some((octets, awaits)) = self.rest.pop_front() else { break };
            say.extend(octets);
            self.awaits = awaits;
            self.answers.lock().unwrap().push(Answers::new());
        }
        let then = if self.awaits == 0 { Then::Finish } else { Then::Stay };
        Does { say, then, ..Does::default() }
    }
}
