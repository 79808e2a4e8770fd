//! A scripted client, written from docs/check-protocol.md: it reads lists by itself and carries out what they say.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, Files, HandedOn, Peer, Played, TestMail, Then, Told};
use checkpost_wire::check::Can;

/// A client with some mails to show.
#[derive(Clone)]
pub struct Client(Arc<Mutex<State>>);

struct State {
    mails: VecDeque<TestMail>,
    can: Can,
    inline: bool,
    /// Goes in the middle of the request (or content) of the mail that has so many before it.
    abort: Option<usize>,
    played: Played,
}

impl Client {
    pub fn new(mails: Vec<TestMail>, can: Can, inline: bool, abort: Option<usize>) -> Self {
        let played = Played::default();
        Self(Arc::new(Mutex::new(State { mails: mails.into(), can, inline, abort, played })))
    }

    pub fn connect(&self, files: &Files) -> Box<dyn Peer> {
        Box::new(Connection { state: self.clone(), files: files.clone(), greeted: false, heard: Vec::new() })
    }

    pub fn played(&self) -> Played {
        self.0.lock().unwrap().played.clone()
    }
}

struct Connection {
    state: Client,
    files: Files,
    greeted: bool,
    heard: Vec<u8>,
}

impl Peer for Connection {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        let mut state = self.state.0.lock().unwrap();
        if !std::mem::replace(&mut self.greeted, true) {
            return state.show(&self.files, b"checkpost-check 1\0".to_vec());
        }
        self.heard.extend_from_slice(bytes);
        let Some(answer) = state.answer(&mut self.heard, &self.files) else { return Does::default() };
        let mail = state.mails.pop_front().unwrap();
        state.carry_out(&mail, &answer);
        let mut does = state.show(&self.files, b"done=carried\0\0".to_vec());
        if state.mails.is_empty() {
            does.then = Then::Finish;
        }
        does
    }
}

/// An answer as a client has it.
struct Answer {
    decision: String,
    outcomes: Vec<String>,
    contents: Vec<Changed>,
}

struct Changed {
    octets: Option<Vec<u8>>,
    sender: Option<String>,
    added: Vec<String>,
}

impl State {
    /// Says this, and behind it the next request.
    fn show(&mut self, files: &Files, mut say: Vec<u8>) -> Does {
        let Some(mail) = self.mails.front() else { return Does::say(say) };
        let aborted = self.abort == Some(self.played.told.len());
        say.extend_from_slice(format!("check=test 1\0sender={}\0", mail.sender).as_bytes());
        for recipient in &mail.recipients {
            say.extend_from_slice(format!("recipient={recipient}\0").as_bytes());
        }
        let words: Vec<String> =
            self.can.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect();
        say.extend_from_slice(format!("can={}\0", words.join(" ")).as_bytes());
        if self.inline {
            say.extend_from_slice(format!("content=inline {}\0\0", mail.content.len()).as_bytes());
            say.extend_from_slice(&mail.content);
        } else {
            say.extend_from_slice(b"content=descriptor\0changed=descriptor\0\0");
            files.send(mail.content.clone());
        }
        if aborted {
            say.truncate(say.len() - if self.inline { mail.content.len() / 2 } else { 1 });
            self.played.told.push(vec![Told::Nothing; mail.recipients.len()]);
            self.mails.clear();
            return Does { then: Then::Hangup, ..Does::say(say) };
        }
        Does::say(say)
    }

    /// A whole answer, with all that belongs to it.
    fn answer(&self, heard: &mut Vec<u8>, files: &Files) -> Option<Answer> {
        if heard.starts_with(b"checkpost-check 1\0") {
            heard.drain(..18);
        }
        let end = heard.windows(2).position(|two| two == b"\0\0")?;
        let list = String::from_utf8(heard[..end].to_vec()).unwrap();
        let attributes: Vec<(&str, &str)> = list.split('\0').map(|one| one.split_once('=').unwrap()).collect();
        assert_eq!(attributes[0].0, "answer", "{list:?}");
        let put: usize =
            attributes.iter().filter(|(name, _)| *name == "put").map(|(_, n)| n.parse::<usize>().unwrap()).sum();
        if heard.len() < end + 2 + put {
            return None;
        }
        let mut octets = heard.drain(..end + 2 + put).skip(end + 2).collect::<Vec<u8>>().into_iter();
        let old = &self.mails.front().unwrap().content;
        let mut answer = Answer { decision: String::new(), outcomes: Vec::new(), contents: Vec::new() };
        for (name, value) in &attributes[1..] {
            match *name {
                "decision" => answer.decision = (*value).to_owned(),
                "outcome" => answer.outcomes.push((*value).to_owned()),
                "content" => {
                    let octets = match *value {
                        "same" => None,
                        "descriptor" => Some(files.take().expect("a descriptor for each content")),
                        "pieces" => Some(Vec::new()),
                        other => panic!("content={other}"),
                    };
                    answer.contents.push(Changed { octets, sender: None, added: Vec::new() });
                }
                "keep" => {
                    let (offset, length) = value.split_once(' ').unwrap();
                    let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
                    let content = answer.contents.last_mut().unwrap().octets.as_mut().unwrap();
                    content.extend_from_slice(&old[offset..offset + length]);
                }
                "put" => {
                    let new = octets.by_ref().take(value.parse().unwrap());
                    answer.contents.last_mut().unwrap().octets.as_mut().unwrap().extend(new);
                }
                "sender" => answer.contents.last_mut().unwrap().sender = Some((*value).to_owned()),
                "added" => answer.contents.last_mut().unwrap().added.push((*value).to_owned()),
                other => panic!("{other}={value}"),
            }
        }
        Some(answer)
    }

    fn carry_out(&mut self, mail: &TestMail, answer: &Answer) {
        let refusal = |said: &str| match said.split_once(' ') {
            Some(("reject", text)) => Told::Rejected(text.to_owned()),
            Some(("defer", text)) => Told::Deferred(text.to_owned()),
            _ => Told::Accepted,
        };
        let told: Vec<Told> = match &*answer.decision {
            "by-recipient" => answer.outcomes.iter().map(|outcome| refusal(outcome)).collect(),
            "accept" => vec![Told::Accepted; mail.recipients.len()],
            decision => vec![refusal(decision); mail.recipients.len()],
        };
        self.played.told.push(told);
        for (number, content) in answer.contents.iter().enumerate() {
            let gets = |word: &str, outcome: &str| {
                let rest = outcome.strip_prefix(word).and_then(|rest| rest.strip_prefix(' '));
                rest.is_some_and(|rest| rest.split(' ').next() == Some(&*number.to_string()))
            };
            let who = |word: &str| -> Vec<String> {
                let all = mail.recipients.iter().zip(&answer.outcomes);
                all.filter(|(_, outcome)| gets(word, outcome)).map(|(to, _)| to.clone()).collect()
            };
            let (delivered, held) = (who("deliver"), who("hold"));
            assert!(delivered.is_empty() != held.is_empty(), "a content is for somebody, to deliver or to hold");
            let is_held = delivered.is_empty();
            self.played.handed_on.push(HandedOn {
                sender: content.sender.clone().unwrap_or_else(|| mail.sender.clone()),
                recipients: [if is_held { held } else { delivered }, content.added.clone()].concat(),
                content: content.octets.clone().unwrap_or_else(|| mail.content.clone()),
                held: is_held,
            });
        }
    }
}

/// Says some octets at once, and hears.
pub struct Octets {
    pub octets: Vec<u8>,
    pub heard: Arc<Mutex<Vec<u8>>>,
}

impl Peer for Octets {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.heard.lock().unwrap().extend_from_slice(bytes);
        if bytes.is_empty() { Does::say(&self.octets) } else { Does::default() }
    }

    fn idle(&mut self) -> Does {
        Does::hangup()
    }
}
