//! From a spool file's envelope to a question for the daemon, and from its answer to what is to be done in each of the
//! two places. It does nothing itself.

use checkpost_wire::check::{Answer, Can, Carried, Class, Decision, Form, Outcome, Request};

use crate::session::Verdict;
use crate::spool::{Change, Envelope};

/// What the content filter can do with an answer.
pub const SMTP: Can = Can::EDIT_HEADERS
    .union(Can::EDIT_BODY)
    .union(Can::ADD_RECIPIENTS)
    .union(Can::HOLD)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::REFUSE_IN_SESSION);

/// What can be done before the router.
pub const ROUTER: Can = Can::EDIT_HEADERS
    .union(Can::EDIT_BODY)
    .union(Can::ADD_RECIPIENTS)
    .union(Can::HOLD)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::CONTENTS_BY_RECIPIENT);

/// Why an answer cannot be carried out: the mail is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cannot {
    /// The content filter gives one answer and one content.
    #[error("recipients with answers or contents of their own")]
    ByRecipient,
    /// The freezer takes a mail whole.
    #[error("a hold for some recipients")]
    HoldForSome,
    /// The sender stays.
    #[error("another sender")]
    Sender,
    /// An address that no line of an envelope can carry.
    #[error("an added recipient whose address has control characters or brackets")]
    Recipient,
    /// There is nobody to tell.
    #[error("a refusal of a mail that has no sender")]
    NoSender,
}

/// A spool file as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Up to its border.
    pub envelope: Vec<u8>,
    /// The number of the answer's content that follows; `None`: the message as it is.
    pub content: Option<usize>,
}

/// What the content filter is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The last thing it says.
    pub verdict: Verdict,
    /// Before that, what the file becomes; `None`: it stays as it is.
    pub made: Option<Made>,
}

/// What is to become of a mail before the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is routed as it is.
    Route,
    /// These take its place, the first its own.
    Replace(Vec<Made>),
    /// Its sender is told this line, and nobody gets it.
    Bounce(String),
    /// It stays, and is looked at again.
    Later(String),
    /// It goes to the freezer, perhaps changed.
    Hold(Option<Made>),
    /// Nobody gets it.
    Remove,
}

/// What the daemon is asked. `program` is for its log. `recipients` are those of the header, where the envelope has
/// none; `owner` is the sender of a mail that does not name one.
pub fn request(envelope: &Envelope, recipients: Vec<Vec<u8>>, owner: &str, queue_id: &str, program: &str) -> Request {
    let origin = envelope.origin();
    let sender = envelope.sender().unwrap_or(owner.as_bytes());
    let class = match (origin.local, sender.is_empty()) {
        (false, _) => None,
        // A report of ZMailer's own.
        (true, true) => Some(Class::Internal),
        (true, false) => Some(Class::Submission),
    };
    Request {
        program: program.to_owned(),
        sender: sender.to_vec(),
        recipients,
        class,
        client: origin.address,
        client_name: origin.name,
        helo: origin.helo,
        user: origin.user,
        tls: origin.tls,
        queue_id: Some(queue_id.to_owned()),
        content: Carried::Descriptor,
        skip: envelope.length(),
        ..Request::default()
    }
}

/// What an answer asks of the content filter. `asked` is how many recipients were asked about.
///
/// # Errors
/// It asks for more than the program has said it can do.
pub fn work(envelope: &Envelope, answer: &Answer) -> Result<Work, Cannot> {
    match &answer.decision {
        Decision::Reject(line) | Decision::Defer(line) => {
            return Ok(Work { verdict: Verdict::Refuse(line.clone()), made: None });
        }
        Decision::ByRecipient => return Err(Cannot::ByRecipient),
        Decision::Accept => {}
    }
    let handed = handed(envelope, answer)?;
    let [group] = &handed.groups[..] else {
        return if handed.groups.is_empty() {
            Ok(Work { verdict: Verdict::Discard, made: None })
        } else {
            Err(Cannot::ByRecipient)
        };
    };
    let verdict = if handed.held { Verdict::Freeze } else { Verdict::Accept };
    Ok(Work { verdict, made: made(envelope, answer, group, false)? })
}

/// What an answer asks for before the router. `from_header`: the recipients asked about stood in the header.
///
/// # Errors
/// It asks for more than the program has said it can do.
pub fn plan(envelope: &Envelope, recipients: &[Vec<u8>], owner: &str, answer: &Answer) -> Result<Plan, Cannot> {
    match &answer.decision {
        // A bounce of a bounce is nobody's.
        Decision::Reject(_) if envelope.sender().unwrap_or(owner.as_bytes()).is_empty() => {
            return Err(Cannot::NoSender);
        }
        Decision::Reject(line) => return Ok(Plan::Bounce(line.clone())),
        Decision::Defer(line) => return Ok(Plan::Later(line.clone())),
        Decision::ByRecipient => return Err(Cannot::ByRecipient),
        Decision::Accept => {}
    }
    let from_header = envelope.recipients().len() == 0;
    let handed = handed_of(recipients.len(), answer)?;
    let make = |group: &Group| {
        if !from_header {
            return made(envelope, answer, group, handed.groups.len() > 1);
        }
        // Who stood in the header only gets a line, once not everybody does.
        let all = group.members.len() == recipients.len() && added(answer, group).is_empty();
        let lines: Vec<String> = if all {
            Vec::new()
        } else {
            let members = group.members.iter().map(|&index| String::from_utf8(recipients[index].clone()));
            let members = members.collect::<Result<Vec<_>, _>>().map_err(|_| Cannot::Recipient)?;
            members.into_iter().chain(added(answer, group).iter().cloned()).collect()
        };
        let content = content(answer, group)?;
        if lines.is_empty() && content.is_none() {
            return Ok(None);
        }
        let envelope = envelope.changed(&Change { keep: None, add: &lines }).ok_or(Cannot::Recipient)?;
        Ok(Some(Made { envelope, content }))
    };
    match &handed.groups[..] {
        [] => Ok(Plan::Remove),
        [group] if handed.held => Ok(Plan::Hold(make(group)?)),
        [group] => Ok(make(group)?.map_or(Plan::Route, |made| Plan::Replace(vec![made]))),
        groups => {
            let mades = groups.iter().map(&make).collect::<Result<Vec<_>, _>>()?;
            Ok(Plan::Replace(mades.into_iter().flatten().collect()))
        }
    }
}

/// Who gets what.
struct Handed {
    groups: Vec<Group>,
    held: bool,
}

/// Recipients, by their places in the request, that get the same content.
struct Group {
    number: usize,
    members: Vec<usize>,
}

fn handed(envelope: &Envelope, answer: &Answer) -> Result<Handed, Cannot> {
    handed_of(envelope.recipients().len(), answer)
}

fn handed_of(asked: usize, answer: &Answer) -> Result<Handed, Cannot> {
    // Each has an outcome; else somebody would get what nobody has allowed.
    if answer.outcomes.len() != asked {
        return Err(Cannot::ByRecipient);
    }
    let mut groups: Vec<Group> = Vec::new();
    let (mut held, mut delivered) = (false, false);
    for (index, outcome) in answer.outcomes.iter().enumerate() {
        let number = match outcome {
            Outcome::Deliver(number) => {
                delivered = true;
                *number
            }
            Outcome::Hold(number, _) => {
                held = true;
                *number
            }
            Outcome::Discard | Outcome::Quarantine => continue,
            Outcome::Reject(_) | Outcome::Defer(_) => return Err(Cannot::ByRecipient),
        };
        match groups.iter_mut().find(|group| group.number == number) {
            Some(group) => group.members.push(index),
            None => groups.push(Group { number, members: vec![index] }),
        }
    }
    if held && (delivered || groups.len() > 1) { Err(Cannot::HoldForSome) } else { Ok(Handed { groups, held }) }
}

fn added<'a>(answer: &'a Answer, group: &Group) -> &'a [String] {
    answer.contents.get(group.number).map_or(&[], |content| &content.added)
}

/// The number of a content that is another one.
fn content(answer: &Answer, group: &Group) -> Result<Option<usize>, Cannot> {
    let content = answer.contents.get(group.number).ok_or(Cannot::ByRecipient)?;
    if content.sender.is_some() {
        return Err(Cannot::Sender);
    }
    match content.form {
        Form::Same => Ok(None),
        Form::Descriptor => Ok(Some(group.number)),
        Form::Pieces(_) => Err(Cannot::ByRecipient),
    }
}

/// The file for a group; `None`: it is as it was. `always`: make one all the same.
fn made(envelope: &Envelope, answer: &Answer, group: &Group, always: bool) -> Result<Option<Made>, Cannot> {
    let content = content(answer, group)?;
    let recipients: Vec<&[u8]> = envelope.recipients().collect();
    let known = |to: &String| group.members.iter().any(|&index| is_same(recipients[index], to.as_bytes()));
    let add: Vec<String> = added(answer, group).iter().filter(|to| !known(to)).cloned().collect();
    let all = group.members.len() == recipients.len();
    if all && add.is_empty() && content.is_none() && !always {
        return Ok(None);
    }
    let change = Change { keep: (!all).then_some(&group.members[..]), add: &add };
    Ok(Some(Made { envelope: envelope.changed(&change).ok_or(Cannot::Recipient)?, content }))
}

/// Domains are the same in any case.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let at = |address: &[u8]| address.iter().rposition(|octet| *octet == b'@').unwrap_or(address.len());
    one.len() == other.len()
        && at(one) == at(other)
        && one[..at(one)] == other[..at(other)]
        && one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Content;

    use super::*;
    use crate::spool::Reader;

    const HEAD: &str = "external\nrcvdfrom c ([192.0.2.1]:5 \"EHLO c\" x)\nwith ESMTP\nfrom <s@x>\n";

    fn envelope(lines: &str) -> Envelope {
        let mut reader = Reader::default();
        let found = reader.take(format!("{lines}env-end\n").as_bytes()).unwrap();
        reader.finish(found).unwrap()
    }

    fn two() -> Envelope {
        envelope(&format!("{HEAD}todsn INRCPT=a\nto <a@x>\ntodsn INRCPT=b\nto <b@x>\n"))
    }

    fn same(added: &[&str]) -> Content {
        Content { form: Form::Same, sender: None, added: added.iter().map(|to| (*to).to_owned()).collect() }
    }

    fn other() -> Content {
        Content { form: Form::Descriptor, ..same(&[]) }
    }

    fn accept(outcomes: Vec<Outcome>, contents: Vec<Content>) -> Answer {
        Answer { id: "1".into(), decision: Decision::Accept, outcomes, contents }
    }

    fn refuse(decision: Decision) -> Answer {
        Answer { id: "1".into(), decision, outcomes: vec![], contents: vec![] }
    }

    fn to_b() -> Vec<u8> {
        format!("{HEAD}todsn INRCPT=b\nto <b@x>\nenv-end\n").into_bytes()
    }

    fn to_a() -> Vec<u8> {
        format!("{HEAD}todsn INRCPT=a\nto <a@x>\nenv-end\n").into_bytes()
    }

    use Outcome::{Deliver, Discard, Quarantine};

    #[test]
    fn the_daemon_is_told_who_what_and_where() {
        let envelope = two();
        let recipients = envelope.recipients().map(<[u8]>::to_vec).collect();
        let asked = request(&envelope, recipients, "bob", "mail:123", "test 1");
        assert_eq!((asked.sender.as_slice(), asked.recipients.len(), asked.skip), (&b"s@x"[..], 2, envelope.length()));
        assert_eq!((asked.class, asked.client, asked.helo.as_deref()), (None, "192.0.2.1".parse().ok(), Some("c")));
        let class = |lines: &str| {
            let asked = request(&self::envelope(lines), vec![], "bob", "1", "test 1");
            (asked.class, String::from_utf8(asked.sender).unwrap())
        };
        assert_eq!(class("rcvdfrom STDIN (bob@h)\nto a\n"), (Some(Class::Submission), "bob".into()));
        assert_eq!(class("channel error\nto a\n"), (Some(Class::Internal), String::new()));
    }

    #[test]
    fn answers_become_verdicts() {
        let check = |answer: &Answer, verdict: Verdict, made: Option<(Vec<u8>, Option<usize>)>| {
            let made = made.map(|(envelope, content)| Made { envelope, content });
            assert_eq!(work(&two(), answer), Ok(Work { verdict, made }), "{answer:?}");
        };
        let both = || vec![Deliver(0), Deliver(0)];
        check(&refuse(Decision::Reject("550 5.7.1 no".into())), Verdict::Refuse("550 5.7.1 no".into()), None);
        check(&refuse(Decision::Defer("451 4.7.1 no".into())), Verdict::Refuse("451 4.7.1 no".into()), None);
        check(&accept(both(), vec![same(&[])]), Verdict::Accept, None);
        check(&accept(both(), vec![other()]), Verdict::Accept, Some((two().as_bytes().to_vec(), Some(0))));
        check(&accept(vec![Discard, Quarantine], vec![same(&[])]), Verdict::Discard, None);
        check(&accept(vec![Discard, Deliver(0)], vec![same(&[])]), Verdict::Accept, Some((to_b(), None)));
        check(&accept(vec![Deliver(0), Quarantine], vec![other()]), Verdict::Accept, Some((to_a(), Some(0))));
        let hold = |content| Outcome::Hold(content, "odd".into());
        check(&accept(vec![hold(0), hold(0)], vec![same(&[])]), Verdict::Freeze, None);
        check(&accept(vec![hold(0), Discard], vec![same(&[])]), Verdict::Freeze, Some((to_a(), None)));
        let added = [two().as_bytes().strip_suffix(b"env-end\n").unwrap(), b"to <c@x>\nenv-end\n"].concat();
        check(&accept(both(), vec![same(&["c@x", "a@X"])]), Verdict::Accept, Some((added, None)));
    }

    #[test]
    fn answers_become_plans() {
        let recipients = [b"a@x".to_vec(), b"b@x".to_vec()];
        let check =
            |answer: &Answer, wanted: Plan| assert_eq!(plan(&two(), &recipients, "", answer), Ok(wanted), "{answer:?}");
        let both = || vec![Deliver(0), Deliver(0)];
        check(&refuse(Decision::Reject("550 5.7.1 no".into())), Plan::Bounce("550 5.7.1 no".into()));
        check(&refuse(Decision::Defer("451 4.7.1 no".into())), Plan::Later("451 4.7.1 no".into()));
        check(&accept(both(), vec![same(&[])]), Plan::Route);
        let made = |envelope, content| Made { envelope, content };
        check(&accept(both(), vec![other()]), Plan::Replace(vec![made(two().as_bytes().to_vec(), Some(0))]));
        check(&accept(vec![Discard, Quarantine], vec![same(&[])]), Plan::Remove);
        check(&accept(vec![Discard, Deliver(0)], vec![same(&[])]), Plan::Replace(vec![made(to_b(), None)]));
        let split = Plan::Replace(vec![made(to_a(), Some(1)), made(to_b(), None)]);
        check(&accept(vec![Deliver(1), Deliver(0)], vec![same(&[]), other()]), split);
        let hold = |content| Outcome::Hold(content, "odd".into());
        check(&accept(vec![hold(0), hold(0)], vec![same(&[])]), Plan::Hold(None));
        check(
            &accept(vec![hold(0), hold(0)], vec![other()]),
            Plan::Hold(Some(made(two().as_bytes().to_vec(), Some(0)))),
        );
    }

    #[test]
    fn recipients_of_the_header_get_lines_when_not_all_get_the_mail() {
        let local = envelope("rcvdfrom STDIN (bob@h)\n");
        let recipients = [b"a@x".to_vec(), b"b@x".to_vec()];
        let check = |answer: &Answer, wanted: Plan| {
            assert_eq!(plan(&local, &recipients, "bob", answer), Ok(wanted), "{answer:?}");
        };
        check(&accept(vec![Deliver(0), Deliver(0)], vec![same(&[])]), Plan::Route);
        let only_b = Made { envelope: b"rcvdfrom STDIN (bob@h)\nto <b@x>\nenv-end\n".to_vec(), content: None };
        check(&accept(vec![Discard, Deliver(0)], vec![same(&[])]), Plan::Replace(vec![only_b]));
        let all = Made { envelope: b"rcvdfrom STDIN (bob@h)\nenv-end\n".to_vec(), content: Some(0) };
        check(&accept(vec![Deliver(0), Deliver(0)], vec![other()]), Plan::Replace(vec![all]));
        let more = Made {
            envelope: b"rcvdfrom STDIN (bob@h)\nto <a@x>\nto <b@x>\nto <c@x>\nenv-end\n".to_vec(),
            content: None,
        };
        check(&accept(vec![Deliver(0), Deliver(0)], vec![same(&["c@x"])]), Plan::Replace(vec![more]));
    }

    #[test]
    fn what_cannot_be_done_is_not_done_by_half() {
        let recipients = [b"a@x".to_vec(), b"b@x".to_vec()];
        let check = |answer: &Answer, in_session: Option<Cannot>, before_router: Option<Cannot>| {
            assert_eq!(work(&two(), answer).err(), in_session, "{answer:?}");
            assert_eq!(plan(&two(), &recipients, "", answer).err(), before_router, "{answer:?}");
        };
        let some = Some(Cannot::ByRecipient);
        check(&accept(vec![Deliver(0), Deliver(1)], vec![same(&[]), other()]), some, None);
        check(&accept(vec![Deliver(0)], vec![same(&[])]), some, some);
        check(&accept(vec![Deliver(0), Deliver(0)], vec![]), some, some);
        check(&refuse(Decision::ByRecipient), some, some);
        let hold = Outcome::Hold(0, "odd".into());
        check(&accept(vec![hold, Deliver(0)], vec![same(&[])]), Some(Cannot::HoldForSome), Some(Cannot::HoldForSome));
        let sender = Content { sender: Some("t@x".into()), ..same(&[]) };
        check(&accept(vec![Deliver(0), Deliver(0)], vec![sender]), Some(Cannot::Sender), Some(Cannot::Sender));
        let wrong = same(&["d@x>\nto <e@x"]);
        check(&accept(vec![Deliver(0), Deliver(0)], vec![wrong]), Some(Cannot::Recipient), Some(Cannot::Recipient));
        let bounce = envelope("channel error\nto <a@x>\n");
        let reject = refuse(Decision::Reject("550 5.7.1 no".into()));
        assert_eq!(plan(&bounce, &recipients[..1], "", &reject), Err(Cannot::NoSender));
    }
}
