//! What the daemon answers, and what the client says when it is about to do it.

use super::ListError;
use super::list::{List, Writer};

/// What is to become of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The daemon's id of the mail, as in its log.
    pub id: String,
    /// The one answer for the whole mail.
    pub decision: Decision,
    /// One for each recipient, in order. Empty where the decision is a refusal.
    pub outcomes: Vec<Outcome>,
    /// The contents that [`Outcome::Deliver`] and [`Outcome::Hold`] name by their number.
    pub contents: Vec<Content>,
}

/// The one answer for a whole mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is taken, and the outcomes say who gets it. None may.
    Accept,
    /// It is refused for good: a line as `550 5.7.1 text`, printable.
    Reject(String),
    /// It is refused for now: a line as `451 4.7.1 text`, printable.
    Defer(String),
    /// Each recipient is answered by its outcome; only for who can ([`super::Can::REPLY_PER_RECIPIENT`]).
    ByRecipient,
}

/// What becomes of it for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Gets this content.
    Deliver(usize),
    /// The mail server keeps it with this content in its own quarantine, for the reason. For all or for none.
    Hold(usize, String),
    /// Does not get it, and nobody is told.
    Discard,
    /// Does not get it, and nobody is told; the daemon has kept a copy.
    Quarantine,
    /// Is refused for good, with [`Decision::ByRecipient`].
    Reject(String),
    /// Is refused for now, with [`Decision::ByRecipient`].
    Defer(String),
}

/// A content and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The octets.
    pub form: Form,
    /// Another sender for it, empty: the null sender; `None`: as it was.
    pub sender: Option<String>,
    /// Recipients that get it, too.
    pub added: Vec<String>,
}

/// What the octets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Those that the client sent.
    Same,
    /// Those of the next descriptor that comes with the answer.
    Descriptor,
    /// These pieces, one behind the other.
    Pieces(Vec<Part>),
}

/// A piece of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Octets that the client sent: offset and length.
    Keep(u64, u64),
    /// So many octets behind the answer's list, after those of the parts before it.
    Put(u64),
}

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// An answer.
    Answer(Answer),
    /// No answer: the mail was not checked, and is to be put off. The server closes the connection.
    Error(String),
}

/// What a client says at last: of an answer without it the daemon cannot tell what became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// What the answer says is being done.
    Carried,
    /// It could not be done, and the sender is told to try again: the reason, for the log.
    Failed(String),
}

impl Answer {
    /// The octets that come behind its list.
    pub fn octets(&self) -> u64 {
        let parts = self.contents.iter().flat_map(|content| match &content.form {
            Form::Pieces(parts) => &**parts,
            Form::Same | Form::Descriptor => &[],
        });
        parts.map(|part| if let Part::Put(length) = part { *length } else { 0 }).fold(0, u64::saturating_add)
    }

    /// How many descriptors come with it.
    pub fn descriptors(&self) -> usize {
        self.contents.iter().filter(|content| content.form == Form::Descriptor).count()
    }

    /// Who gets each content: the indices of recipients, by the content's number.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); self.contents.len()];
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if let Outcome::Deliver(content) | Outcome::Hold(content, _) = outcome
                && let Some(group) = groups.get_mut(*content)
            {
                group.push(index);
            }
        }
        groups
    }
}

impl Response {
    /// The list, without the octets behind it.
    pub fn encode(&self) -> Vec<u8> {
        let mut list = Writer::default();
        match self {
            Self::Error(why) => list.text("error", why),
            Self::Answer(answer) => {
                list.text("answer", &answer.id);
                list.text("decision", &answer.decision.written());
                for content in &answer.contents {
                    match &content.form {
                        Form::Same => list.text("content", "same"),
                        Form::Descriptor => list.text("content", "descriptor"),
                        Form::Pieces(parts) => {
                            list.text("content", "pieces");
                            parts.iter().for_each(|part| part.write(&mut list));
                        }
                    }
                    if let Some(sender) = &content.sender {
                        list.text("sender", sender);
                    }
                    content.added.iter().for_each(|added| list.text("added", added));
                }
                answer.outcomes.iter().for_each(|outcome| list.text("outcome", &outcome.written()));
            }
        }
        list.finish()
    }

    /// Reads a list that came in answer to a request for so many recipients.
    ///
    /// # Errors
    /// All that is not understood to the last attribute.
    pub fn decode(list: List<'_>, recipients: usize) -> Result<Self, ListError> {
        let mut attributes = list.attributes();
        let (name, value) = attributes.next().ok_or(ListError::Missing("answer"))??;
        let id = text(name, value)?;
        match name {
            "error" => return Ok(Self::Error(id)),
            "answer" => {}
            _ => return Err(ListError::unknown(name)),
        }
        let mut decision = None;
        let (mut contents, mut outcomes): (Vec<Content>, Vec<Outcome>) = (Vec::new(), Vec::new());
        for attribute in attributes {
            let (name, value) = attribute?;
            let bad = || ListError::value(name, value);
            let value_text = text(name, value)?;
            match (name, contents.last_mut()) {
                ("decision", _) if decision.is_none() => {
                    decision = Some(Decision::read(&value_text).ok_or_else(bad)?);
                }
                ("content", _) => {
                    let form = Form::read(&value_text).ok_or_else(bad)?;
                    contents.push(Content { form, sender: None, added: Vec::new() });
                }
                ("keep" | "put", Some(Content { form: Form::Pieces(parts), .. })) => {
                    parts.push(Part::read(name, &value_text).ok_or_else(bad)?);
                }
                ("sender", Some(content)) if content.sender.is_none() => content.sender = Some(value_text),
                ("added", Some(content)) => content.added.push(value_text),
                ("outcome", _) => outcomes.push(Outcome::read(&value_text).ok_or_else(bad)?),
                _ => return Err(bad()),
            }
        }
        let answer = Answer { id, decision: decision.ok_or(ListError::Missing("decision"))?, outcomes, contents };
        answer.check(recipients)?;
        Ok(Self::Answer(answer))
    }
}

impl Answer {
    /// Do its parts fit together?
    fn check(&self, recipients: usize) -> Result<(), ListError> {
        let wanted = match self.decision {
            Decision::Reject(_) | Decision::Defer(_) => 0,
            Decision::Accept | Decision::ByRecipient => recipients,
        };
        if self.outcomes.len() != wanted {
            return Err(ListError::Missing("outcome"));
        }
        for outcome in &self.outcomes {
            let fits = match outcome {
                Outcome::Deliver(content) | Outcome::Hold(content, _) => *content < self.contents.len(),
                Outcome::Discard | Outcome::Quarantine => true,
                Outcome::Reject(_) | Outcome::Defer(_) => self.decision == Decision::ByRecipient,
            };
            if !fits {
                return Err(ListError::value("outcome", outcome.written().as_bytes()));
            }
        }
        Ok(())
    }
}

impl Decision {
    fn written(&self) -> String {
        match self {
            Self::Accept => "accept".into(),
            Self::Reject(line) => format!("reject {line}"),
            Self::Defer(line) => format!("defer {line}"),
            Self::ByRecipient => "by-recipient".into(),
        }
    }

    fn read(value: &str) -> Option<Self> {
        match value.split_once(' ') {
            None if value == "accept" => Some(Self::Accept),
            None if value == "by-recipient" => Some(Self::ByRecipient),
            Some(("reject", line)) => reply(line, b'5').map(Self::Reject),
            Some(("defer", line)) => reply(line, b'4').map(Self::Defer),
            _ => None,
        }
    }
}

impl Outcome {
    fn written(&self) -> String {
        match self {
            Self::Deliver(content) => format!("deliver {content}"),
            Self::Hold(content, reason) => format!("hold {content} {reason}"),
            Self::Discard => "discard".into(),
            Self::Quarantine => "quarantine".into(),
            Self::Reject(line) => format!("reject {line}"),
            Self::Defer(line) => format!("defer {line}"),
        }
    }

    fn read(value: &str) -> Option<Self> {
        match value.split_once(' ') {
            None if value == "discard" => Some(Self::Discard),
            None if value == "quarantine" => Some(Self::Quarantine),
            Some(("deliver", content)) => content.parse().ok().map(Self::Deliver),
            Some(("hold", rest)) => {
                let (content, reason) = rest.split_once(' ')?;
                content.parse().ok().map(|content| Self::Hold(content, reason.to_owned()))
            }
            Some(("reject", line)) => reply(line, b'5').map(Self::Reject),
            Some(("defer", line)) => reply(line, b'4').map(Self::Defer),
            _ => None,
        }
    }
}

impl Form {
    fn read(value: &str) -> Option<Self> {
        match value.split_once(' ') {
            None if value == "same" => Some(Self::Same),
            None if value == "descriptor" => Some(Self::Descriptor),
            None if value == "pieces" => Some(Self::Pieces(Vec::new())),
            _ => None,
        }
    }
}

impl Part {
    fn write(self, list: &mut Writer) {
        match self {
            Self::Keep(offset, length) => list.text("keep", &format!("{offset} {length}")),
            Self::Put(length) => list.text("put", &length.to_string()),
        }
    }

    fn read(name: &str, value: &str) -> Option<Self> {
        match value.split_once(' ') {
            Some((offset, length)) if name == "keep" => Some(Self::Keep(offset.parse().ok()?, length.parse().ok()?)),
            None if name == "put" => value.parse().ok().map(Self::Put),
            _ => None,
        }
    }
}

impl Done {
    /// The list.
    pub fn encode(&self) -> Vec<u8> {
        let mut list = Writer::default();
        match self {
            Self::Carried => list.text("done", "carried"),
            Self::Failed(why) => list.text("done", &format!("failed {why}")),
        }
        list.finish()
    }

    /// Reads a list that begins with `done`.
    ///
    /// # Errors
    /// A value that is not understood.
    pub fn decode(list: List<'_>) -> Result<Self, ListError> {
        let (name, value) = list.attributes().next().ok_or(ListError::Missing("done"))??;
        let said = String::from_utf8_lossy(value);
        match said.split_once(' ') {
            _ if name != "done" => Err(ListError::unknown(name)),
            None if said == "carried" => Ok(Self::Carried),
            None if said == "failed" => Ok(Self::Failed(String::new())),
            Some(("failed", why)) => Ok(Self::Failed(why.to_owned())),
            _ => Err(ListError::value(name, value)),
        }
    }
}

/// A reply line of this class: three digits and a text, all printable.
fn reply(line: &str, class: u8) -> Option<String> {
    let octets = line.as_bytes();
    let fits = octets.len() > 4
        && octets[0] == class
        && octets[1..3].iter().all(u8::is_ascii_digit)
        && octets[3] == b' '
        && !line.chars().any(char::is_control);
    fits.then(|| line.to_owned())
}

fn text(name: &str, value: &[u8]) -> Result<String, ListError> {
    String::from_utf8(value.to_vec()).map_err(|_| ListError::value(name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(list: &str, recipients: usize) -> Result<Response, ListError> {
        Response::decode(List::new(list.as_bytes()), recipients)
    }

    #[test]
    fn nothing_is_delivered_by_mistake() {
        assert!(check("answer=1\0decision=accept\0content=same\0outcome=deliver 0\0\0", 1).is_ok());
        assert!(check("answer=1\0decision=accept\0outcome=discard\0\0", 1).is_ok());
        assert!(check("answer=1\0decision=reject 550 5.7.1 no\0\0", 3).is_ok());
        for (wrong, recipients) in [
            ("", 1),
            ("answer=1\0\0", 1),
            ("ok=1\0\0", 1),
            ("answer=1\0decision=accept\0\0", 1),
            ("answer=1\0decision=accept\0content=same\0outcome=deliver 0\0\0", 2),
            ("answer=1\0decision=accept\0content=same\0outcome=deliver 1\0\0", 1),
            ("answer=1\0decision=accept\0outcome=deliver 0\0\0", 1),
            ("answer=1\0decision=accept\0outcome=reject 550 5.7.1 no\0\0", 1),
            ("answer=1\0decision=accept\0decision=accept\0outcome=discard\0\0", 1),
            ("answer=1\0decision=accept\0outcome=discard\0new=thing\0\0", 1),
            ("answer=1\0decision=reject 450 4.7.1 no\0\0", 1),
            ("answer=1\0decision=defer 550 5.7.1 no\0\0", 1),
            ("answer=1\0decision=reject 550\0\0", 1),
            ("answer=1\0decision=reject 550 a\nb\0\0", 1),
            ("answer=1\0decision=accept\0put=3\0outcome=discard\0\0", 1),
            ("answer=1\0decision=accept\0content=pieces\0keep=3\0outcome=deliver 0\0\0", 1),
        ] {
            assert!(check(wrong, recipients).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn done_is_read() {
        for done in [Done::Carried, Done::Failed(String::new()), Done::Failed("exit 53".into())] {
            assert_eq!(Done::decode(List::new(&done.encode())), Ok(done));
        }
        for wrong in ["done=\0\0", "done=well\0\0", "did=carried\0\0", "\0"] {
            assert!(Done::decode(List::new(wrong.as_bytes())).is_err(), "{wrong:?}");
        }
    }

    fn line(class: char) -> impl Strategy<Value = String> {
        "[0-9]{2} [ -~]{1,20}".prop_map(move |rest| format!("{class}{rest}"))
    }

    fn content() -> impl Strategy<Value = Content> {
        let part = prop_oneof![
            any::<(u64, u64)>().prop_map(|(offset, length)| Part::Keep(offset, length)),
            any::<u64>().prop_map(Part::Put),
        ];
        let form = prop_oneof![
            Just(Form::Same),
            Just(Form::Descriptor),
            proptest::collection::vec(part, 0..3).prop_map(Form::Pieces),
        ];
        let addresses = proptest::collection::vec("[^\0]{0,9}", 0..3);
        (form, proptest::option::of("[^\0]{0,9}"), addresses).prop_map(|(form, sender, added)| Content {
            form,
            sender,
            added,
        })
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let outcome = prop_oneof![
            (0usize..3).prop_map(Outcome::Deliver),
            (0usize..3, "[^\0]{1,9}").prop_map(|(content, why)| Outcome::Hold(content, why)),
            Just(Outcome::Discard),
            Just(Outcome::Quarantine),
            line('5').prop_map(Outcome::Reject),
            line('4').prop_map(Outcome::Defer),
        ];
        (proptest::collection::vec(outcome, 1..5), proptest::collection::vec(content(), 3)).prop_map(
            |(outcomes, contents)| Answer { id: "1".into(), decision: Decision::ByRecipient, outcomes, contents },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(answer in answer()) {
            let recipients = answer.outcomes.len();
            let list = Response::Answer(answer.clone()).encode();
            prop_assert_eq!(Response::decode(List::new(&list), recipients), Ok(Response::Answer(answer)));
        }

        #[test]
        fn no_list_panics(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Response::decode(List::new(&octets), 1);
            let _ = Done::decode(List::new(&octets));
        }
    }
}
