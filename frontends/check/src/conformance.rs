//! One question on the conformance battery's stage, as a mail server's program would ask it over the socket. For tests.

use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, Peer, Stage, Then};
use checkpost_adapter::report::Report;
use checkpost_core::Abilities;
use checkpost_core::config::Origins;
use checkpost_wire::check::{Answer, Carried, Changed, Done, Finder, Form, HELLO, List, MAX_ANSWER, Request, Response};

use crate::Settings;
use crate::session::{Check, Link};

/// An answer, and for each of its contents the octets, if they are others than those sent.
pub type Answered = (Answer, Vec<Option<Vec<u8>>>);

/// Asks about a mail on a connection of its own, with the message as a descriptor.
///
/// # Errors
/// What the session says when it does not check.
///
/// # Panics
/// When the session breaks the protocol.
pub fn ask(
    stage: &mut Stage,
    settings: Settings,
    abilities: Abilities,
    request: &Request,
    content: Vec<u8>,
) -> Result<Answered, String> {
    let (answer, _) = answer(stage, settings, abilities, request, Changed::Descriptor, content)?;
    let octets = |form: &Form| match form {
        Form::Same => None,
        Form::Descriptor => Some(stage.files.take().expect("a descriptor for each content that has one")),
        Form::Pieces(_) => panic!("pieces were not asked for"),
    };
    let contents = answer.contents.iter().map(|content| octets(&content.form)).collect();
    Ok((answer, contents))
}

/// As [`ask`], with changes in pieces: the answer, and the octets behind it.
///
/// # Errors
/// What the session says when it does not check.
///
/// # Panics
/// When the session breaks the protocol.
pub fn ask_in_pieces(
    stage: &mut Stage,
    settings: Settings,
    abilities: Abilities,
    request: &Request,
    content: Vec<u8>,
) -> Result<(Answer, Vec<u8>), String> {
    answer(stage, settings, abilities, request, Changed::Pieces, content)
}

fn answer(
    stage: &mut Stage,
    settings: Settings,
    abilities: Abilities,
    request: &Request,
    changed: Changed,
    content: Vec<u8>,
) -> Result<(Answer, Vec<u8>), String> {
    let mut request = request.clone();
    request.content = Carried::Descriptor;
    request.changed = changed;
    stage.files.send(content);
    let said = Arc::new(Mutex::new(None));
    let client = Client {
        list: [HELLO, &request.encode().expect("a test's addresses have no NUL")].concat(),
        recipients: request.recipients.len(),
        heard: Vec::new(),
        finder: Finder::default(),
        said: Arc::clone(&said),
    };
    let reports = Box::new(|_: Report<'_>| {});
    let (now, origins) = (stage.now(), Arc::new(Origins::default()));
    let mut session = Check::new(Arc::new(settings), abilities, origins, Link::default(), now, reports);
    stage.play(&mut session, Box::new(client));
    let response = said.lock().expect("no client panicked").take().expect("a session answers");
    match response {
        (Response::Error(why), _) => Err(why),
        (Response::Answer(answer), octets) => Ok((answer, octets)),
    }
}

/// What the session said, and the octets behind it.
type Said = (Response, Vec<u8>);

struct Client {
    list: Vec<u8>,
    recipients: usize,
    heard: Vec<u8>,
    finder: Finder,
    said: Arc<Mutex<Option<Said>>>,
}

impl Peer for Client {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        if !self.list.is_empty() {
            return Does::say(std::mem::take(&mut self.list));
        }
        self.heard.extend_from_slice(bytes);
        let Some(list) = self.heard.strip_prefix(HELLO) else { return Does::default() };
        let Some(length) = self.finder.find(list, MAX_ANSWER).expect("a list has an end") else {
            return Does::default();
        };
        let response = Response::decode(List::new(&list[..length]), self.recipients).expect("an answer is clear");
        let octets = &list[length..];
        if let Response::Answer(answer) = &response
            && answer.octets() > octets.len() as u64
        {
            // The list is looked for again when there is more.
            return Does::default();
        }
        *self.said.lock().expect("no test panics while it holds this") = Some((response, octets.to_vec()));
        Does { then: Then::Finish, ..Does::say(Done::Carried.encode()) }
    }
}
