//! From a mail to a question for the daemon, and from its answer to what `local_scan()` can say and do. It does nothing
//! itself.
//!
//! Exim's replies have the code 550 or 451, whatever code the text had with the daemon (`receive_msg()` in Exim).

use std::net::IpAddr;

use checkpost_wire::check::{Answer, Can, Class, Decision, Form, Outcome, Part, Request};

use crate::header::{Changes, Shown};
use crate::mail::Mail;

/// What the library can do with an answer. The body lies in a file that must not be written to, and that the sender may
/// be changed is nowhere promised (chapter "Adding a local scan function" of Exim's manual).
pub const CAN: Can = Can::EDIT_HEADERS
    .union(Can::ADD_RECIPIENTS)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::HOLD)
    .union(Can::REFUSE_IN_SESSION);

/// What `local_scan()` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Code {
    /// `LOCAL_SCAN_ACCEPT`. With nobody left to get it, the mail is gone.
    Accept,
    /// `LOCAL_SCAN_ACCEPT_FREEZE`: kept in Exim's queue until the administrator thaws it.
    Freeze,
    /// `LOCAL_SCAN_REJECT`.
    Reject,
    /// `LOCAL_SCAN_TEMPREJECT`, which is what everything is that is not decided.
    #[default]
    Defer,
}

/// What is to be done, all of it before the code is returned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// What is returned.
    pub code: Code,
    /// With a refusal what the client is told, else `$local_scan_data`. One line.
    pub text: String,
    /// To the header.
    pub header: Changes,
    /// The recipients that go: numbers in [`Mail::recipients`].
    pub removed: Vec<usize>,
    /// Recipients that come.
    pub added: Vec<String>,
    /// A line for Exim's main log.
    pub log: Option<String>,
}

/// Why an answer cannot be carried out: the mail is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cannot {
    /// One mail, one reply, one content.
    #[error("recipients with answers or contents of their own")]
    ByRecipient,
    /// The sender stays.
    #[error("another sender")]
    Sender,
    /// The body stays.
    #[error("another body")]
    Body,
    /// What is new is no header field.
    #[error("a header that is none")]
    Header,
    /// Pieces that do not fit what was shown.
    #[error("pieces of another message")]
    Pieces,
    /// An address that Exim's queue files cannot carry.
    #[error("an added recipient with blanks or control characters in its address")]
    Recipient,
    /// Exim would freeze what could not be delivered.
    #[error("a bounce refused for good")]
    Bounce,
}

impl Code {
    /// For Exim (local_scan.h).
    pub fn number(self) -> i32 {
        match self {
            Self::Accept => 0,
            Self::Freeze => 1,
            Self::Reject => 3,
            Self::Defer => 5,
        }
    }
}

impl Work {
    /// The mail is taken as it is.
    pub(crate) fn accept(log: Option<String>) -> Self {
        Self { code: Code::Accept, log, ..Self::default() }
    }

    /// The sender is told to try again.
    pub(crate) fn defer(why: &str) -> Self {
        Self { text: LATER.into(), log: Some(format!("mail put off: {why}")), ..Self::default() }
    }
}

/// What the client is told when something here fails.
pub(crate) const LATER: &str = "4.3.0 Local problem, try again later";

/// What the daemon is asked. `program` is for its log.
pub fn request(mail: &Mail<'_>, program: &str) -> Request {
    let origin = &mail.origin;
    let bounce = mail.is_local_bounce();
    let address = |text: &String| text.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    Request {
        program: program.to_owned(),
        sender: mail.sender.to_vec(),
        recipients: mail.recipients.iter().map(|recipient| recipient.to_vec()).collect(),
        class: match origin.client {
            // The daemon knows our own networks, and what a user means.
            Some(_) => None,
            None if bounce => Some(Class::Internal),
            None => Some(Class::Submission),
        },
        client: origin.client.as_ref().and_then(address),
        client_name: origin.client_name.clone(),
        helo: origin.helo.clone(),
        // That Exim itself runs as a user makes no submission of its bounces.
        user: origin.user.clone().filter(|_| !bounce),
        tls: origin.tls,
        queue_id: origin.id.clone(),
        can: if bounce { CAN.difference(Can::REFUSE_IN_SESSION) } else { CAN },
        ..Request::default()
    }
}

/// What an answer asks for. `octets` are those behind its list, `total` are all of the message as it was shown.
///
/// # Errors
/// It asks for more than the library has said it can do.
pub fn work(answer: &Answer, octets: &[u8], mail: &Mail<'_>, shown: &Shown, total: u64) -> Result<Work, Cannot> {
    let refusal = |code: Code, line: &str| {
        let text = line.split_once(' ').map_or(line, |(_, text)| text).to_owned();
        Ok(Work { code, text, ..Work::default() })
    };
    match &answer.decision {
        Decision::Reject(_) if mail.is_local_bounce() => return Err(Cannot::Bounce),
        Decision::Reject(line) => return refusal(Code::Reject, line),
        Decision::Defer(line) => return refusal(Code::Defer, line),
        Decision::ByRecipient => return Err(Cannot::ByRecipient),
        Decision::Accept => {}
    }
    if answer.outcomes.len() != mail.recipients.len() {
        return Err(Cannot::ByRecipient);
    }
    let mut work = Work { code: Code::Accept, text: answer.id.clone(), ..Work::default() };
    let (mut used, mut held, mut kept) = (None, None, false);
    for (index, outcome) in answer.outcomes.iter().enumerate() {
        let content = match outcome {
            Outcome::Deliver(content) => *content,
            Outcome::Hold(content, reason) => {
                held.get_or_insert(reason);
                *content
            }
            Outcome::Reject(_) | Outcome::Defer(_) => return Err(Cannot::ByRecipient),
            Outcome::Discard | Outcome::Quarantine => {
                kept |= *outcome == Outcome::Quarantine;
                work.removed.push(index);
                continue;
            }
        };
        if *used.get_or_insert(content) != content {
            return Err(Cannot::ByRecipient);
        }
    }
    let Some(number) = used else {
        // Exim logs the text: "=> blackhole …".
        let fate = if kept { "kept in quarantine" } else { "discarded" };
        work.text = format!("{fate} by Checkpost, mail {}", answer.id);
        return Ok(work);
    };
    let content = answer.contents.get(number).ok_or(Cannot::ByRecipient)?;
    if content.sender.is_some() {
        return Err(Cannot::Sender);
    }
    work.header = match &content.form {
        Form::Same => Changes::default(),
        Form::Descriptor => return Err(Cannot::Pieces),
        Form::Pieces(parts) => {
            let (before, own) = (put(&answer.contents[..number]), put(std::slice::from_ref(content)));
            let range = usize::try_from(before).ok().zip(usize::try_from(before.saturating_add(own)).ok());
            let new = range.and_then(|(from, to)| octets.get(from..to)).ok_or(Cannot::Pieces)?;
            shown.changes(&mail.fields, parts, new, total)?
        }
    };
    if !content.added.iter().all(|address| can_be_written(address)) {
        return Err(Cannot::Recipient);
    }
    work.added.clone_from(&content.added);
    if let Some(reason) = held {
        work.code = Code::Freeze;
        work.log = Some(format!("mail {} is held: {reason}", answer.id));
    }
    Ok(work)
}

/// The new octets of these contents.
fn put(contents: &[checkpost_wire::check::Content]) -> u64 {
    let parts =
        contents.iter().filter_map(|content| if let Form::Pieces(parts) = &content.form { Some(parts) } else { None });
    let length = |part: &Part| if let Part::Put(length) = part { *length } else { 0 };
    parts.flatten().map(length).fold(0, u64::saturating_add)
}

/// A recipient is a line in Exim's queue files, and what stands behind a blank in it has a meaning.
fn can_be_written(address: &str) -> bool {
    !address.is_empty() && address.len() <= 1000 && !address.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Content;

    use super::*;
    use crate::mail::{Field, Origin};

    const BODY: u64 = 5;

    fn mail<'a>() -> Mail<'a> {
        let origin = Origin { client: Some("192.0.2.7".into()), ..Origin::default() };
        let fields = vec![Field { text: b"A: 1\n", kind: b' ' }, Field { text: b"B: 2\n", kind: b' ' }];
        Mail { fields, sender: b"s@x", recipients: vec![b"a@x", b"b@x"], origin }
    }

    fn answer(decision: Decision, outcomes: Vec<Outcome>, contents: Vec<Content>) -> Answer {
        Answer { id: "T1".into(), decision, outcomes, contents }
    }

    fn content(form: Form, added: &[&str]) -> Content {
        Content { form, sender: None, added: added.iter().map(ToString::to_string).collect() }
    }

    fn check(answer: &Answer, octets: &[u8], mail: &Mail<'_>) -> Result<Work, Cannot> {
        let shown = Shown::new(&mail.fields, false).unwrap();
        let total = shown.octets.len() as u64 + BODY;
        work(answer, octets, mail, &shown, total)
    }

    #[test]
    fn what_the_daemon_is_asked() {
        let mut from = mail();
        from.origin.user = Some("anna".into());
        let asked = request(&from, "x 1");
        assert_eq!(asked.recipients, [b"a@x".to_vec(), b"b@x".to_vec()]);
        assert_eq!((asked.class, asked.client, asked.user.as_deref()), (None, "192.0.2.7".parse().ok(), Some("anna")));
        assert!(asked.can == CAN);
        from.origin = Origin { client: Some("::ffff:192.0.2.7".into()), ..Origin::default() };
        from.sender = b"";
        assert_eq!((request(&from, "").client, request(&from, "").can), ("192.0.2.7".parse().ok(), CAN));
        from.origin = Origin { user: Some("Debian-exim".into()), ..Origin::default() };
        let bounce = request(&from, "");
        assert_eq!((bounce.class, bounce.user), (Some(Class::Internal), None));
        assert!(!bounce.can.contains(Can::REFUSE_IN_SESSION));
        from.sender = b"s@x";
        let local = request(&from, "");
        assert_eq!((local.class, local.user.as_deref()), (Some(Class::Submission), Some("Debian-exim")));
    }

    #[test]
    fn refusals_keep_their_words_and_lose_their_code() {
        for (decision, code, text) in [
            (Decision::Reject("550 5.7.1 Virus (Eicar)".into()), Code::Reject, "5.7.1 Virus (Eicar)"),
            (Decision::Reject("552 5.3.4 Too big".into()), Code::Reject, "5.3.4 Too big"),
            (Decision::Defer("451 4.7.1 Later".into()), Code::Defer, "4.7.1 Later"),
        ] {
            let refused = answer(decision, vec![], vec![]);
            assert_eq!(check(&refused, b"", &mail()), Ok(Work { code, text: text.into(), ..Work::default() }));
            let bounce = Mail { sender: b"", origin: Origin::default(), ..mail() };
            let work = check(&refused, b"", &bounce);
            assert_eq!(work.is_err(), code == Code::Reject, "{work:?}");
        }
    }

    #[test]
    fn outcomes_are_who_stays() {
        use Outcome::{Deliver, Discard, Hold, Quarantine};
        let accept = |outcomes: Vec<Outcome>, contents: Vec<Content>| {
            check(&answer(Decision::Accept, outcomes, contents), b"X: 1\nY: 2\n", &mail()).unwrap()
        };
        let same = || vec![content(Form::Same, &[])];
        let as_it_is = Work { code: Code::Accept, text: "T1".into(), ..Work::default() };
        assert_eq!(accept(vec![Deliver(0), Deliver(0)], same()), as_it_is);
        assert_eq!(accept(vec![Discard, Deliver(0)], same()).removed, [0]);
        assert_eq!(accept(vec![Deliver(0), Quarantine], same()).removed, [1]);
        let none = accept(vec![Discard, Quarantine], vec![]);
        assert_eq!((none.code, &*none.text), (Code::Accept, "kept in quarantine by Checkpost, mail T1"));
        assert_eq!(none.removed, [0, 1]);
        assert_eq!(accept(vec![Discard, Discard], vec![]).text, "discarded by Checkpost, mail T1");
        let more = accept(vec![Deliver(0), Deliver(0)], vec![content(Form::Same, &["c@x", "d@x"])]);
        assert_eq!(more.added, ["c@x", "d@x"]);
        let held = accept(vec![Hold(0, "odd".into()), Hold(0, "odd".into())], same());
        assert_eq!((held.code, held.log.as_deref()), (Code::Freeze, Some("mail T1 is held: odd")));
        // The octets of the second content stand behind those of the first.
        let pieces = || content(Form::Pieces(vec![Part::Put(5), Part::Keep(0, 16)]), &[]);
        let changed = accept(vec![Deliver(1), Deliver(1)], vec![pieces(), pieces()]);
        assert_eq!(changed.header.added[0].text, b"Y: 2\n");
    }

    #[test]
    fn what_cannot_be_done_is_not_done_by_half() {
        use Outcome::Deliver;
        let both = || vec![Deliver(0), Deliver(0)];
        let accept = |outcomes, contents| answer(Decision::Accept, outcomes, contents);
        let same = || content(Form::Same, &[]);
        for (answer, why) in [
            (accept(vec![Deliver(0), Deliver(1)], vec![same(), same()]), Cannot::ByRecipient),
            (accept(vec![Deliver(0)], vec![same()]), Cannot::ByRecipient),
            (accept(both(), vec![]), Cannot::ByRecipient),
            (answer(Decision::ByRecipient, both(), vec![same()]), Cannot::ByRecipient),
            (accept(vec![Deliver(0), Outcome::Reject("550 no".into())], vec![same()]), Cannot::ByRecipient),
            (accept(both(), vec![Content { sender: Some("n@x".into()), ..same() }]), Cannot::Sender),
            (accept(both(), vec![content(Form::Descriptor, &[])]), Cannot::Pieces),
            (accept(both(), vec![content(Form::Pieces(vec![Part::Put(9), Part::Keep(0, 16)]), &[])]), Cannot::Pieces),
            (accept(both(), vec![content(Form::Pieces(vec![Part::Put(u64::MAX)]), &[])]), Cannot::Pieces),
            (accept(both(), vec![content(Form::Pieces(vec![Part::Keep(0, 11)]), &[])]), Cannot::Body),
            (accept(both(), vec![content(Form::Same, &["a b@x"])]), Cannot::Recipient),
            (accept(both(), vec![content(Form::Same, &["a@x\n"])]), Cannot::Recipient),
            (accept(both(), vec![content(Form::Same, &[""])]), Cannot::Recipient),
        ] {
            assert_eq!(check(&answer, b"X: 1\n", &mail()), Err(why), "{answer:?}");
        }
    }

    #[test]
    fn what_is_not_decided_is_temporary() {
        assert_eq!((Work::default().code, Code::default().number()), (Code::Defer, 5));
        assert!(LATER.starts_with("4."));
    }
}
