//! From a mail's envelope to a question for the daemon, and from its answer to what is to be done: a reply, or mails that
//! take this one's place. It does nothing itself.

use std::ops::Range;

use checkpost_wire::check::{Answer, Can, Class, Content, Decision, Form, Outcome, Part, Request};

use crate::envelope::Envelope;
use crate::session::Reply;

/// What the program can do with an answer: all but added header fields by sending a mail of its own instead.
pub const CAN: Can = Can::EDIT_HEADERS
    .union(Can::EDIT_BODY)
    .union(Can::ADD_RECIPIENTS)
    .union(Can::CHANGE_SENDER)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::CONTENTS_BY_RECIPIENT);

/// Modules whose account is not whoever sent the mail: theirs is the rule, the list or the remote mailbox.
const OF_OTHERS: [&str; 6] = ["RULE", "ALLF", "RPOP", "LIST", "GROUP", "DSN"];
/// Modules that wait for the Enqueuer, so that its refusal is told to the sending program (Guide/Transfer.html).
const WAIT: [&str; 5] = ["SMTP", "MAPI", "HTTP", "WEBMAIL", "XIMSS"];
/// Modules through which nobody but a stranger's program can have sent a mail.
const OUTSIDE: [&str; 6] = ["SMTP", "RPOP", "MAPI", "HTTP", "WEBMAIL", "XIMSS"];

/// What is to be done with a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// The server is told this.
    Say(Reply),
    /// These mails are handed in, and then the server is told to drop this one. At least one.
    Replace(Vec<Replacement>),
}

/// A mail that is handed in, for some of the recipients or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The envelope's sender; empty: the null sender; `None`: not known.
    pub sender: Option<Vec<u8>>,
    /// At least one, none of them twice.
    pub recipients: Vec<Vec<u8>>,
    /// One behind the other.
    pub pieces: Vec<Piece>,
}

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// So many octets of the mail's message: offset from its start, and length.
    Keep(u64, u64),
    /// So many of the octets that came with the answer.
    Put(Range<usize>),
}

/// Why an answer cannot be carried out: the mail stays in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cannot {
    /// One mail, one answer.
    #[error("an answer for each recipient")]
    ByRecipient,
    /// The server keeps nothing in a quarantine.
    #[error("a hold")]
    Hold,
    /// A content that does not fit to the answer or to the message.
    #[error("a content with parts that are not there")]
    Content,
    /// An address that no header field can carry.
    #[error("an address with a control character")]
    Address,
}

/// The message of a mail, as far as it must be known.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its length in octets.
    pub length: u64,
    /// Its start; how much of it does not matter.
    pub start: &'a [u8],
}

/// Can a mail of this origin carry a mark of ours that counts?
pub fn may_be_ours(envelope: &Envelope) -> bool {
    !OUTSIDE.contains(&&*envelope.source.module)
}

/// What the daemon is asked. `program` is for its log, `path` is the mail's file.
pub fn request(envelope: &Envelope, program: &str, path: &[u8]) -> Request {
    let source = &envelope.source;
    let user = source.account.clone().filter(|_| !OF_OTHERS.contains(&&*source.module));
    // A program on this machine handed it in. What others mean to be is the daemon's to judge.
    let class = (source.module == "PIPE").then_some(Class::Submission);
    let waits = WAIT.contains(&&*source.module) && !envelope.is_null_sender();
    Request {
        program: program.to_owned(),
        sender: envelope.sender.clone().unwrap_or_default(),
        recipients: envelope.recipients.clone(),
        class,
        client: source.client,
        user,
        queue_id: Some(id(path)),
        can: if waits { CAN | Can::REFUSE_IN_SESSION } else { CAN },
        ..Request::default()
    }
}

/// The mail's id in the server's log: its file's name without its ending.
pub fn id(path: &[u8]) -> String {
    let name = path.rsplit(|octet| matches!(octet, b'/' | b'\\')).next().unwrap_or_default();
    let name = name.strip_suffix(b".msg").unwrap_or(name);
    name.iter().map(|&octet| if octet.is_ascii_graphic() { char::from(octet) } else { '?' }).take(64).collect()
}

/// What an answer asks for. `octets` came with it.
///
/// # Errors
/// It asks for more than the program has said it can do.
pub fn work(envelope: &Envelope, answer: &Answer, octets: &[u8], message: Message<'_>) -> Result<Work, Cannot> {
    match &answer.decision {
        Decision::Reject(line) => {
            let text = words(line).to_owned();
            // Nobody could be told, and the mail would be lost.
            let refuse = if envelope.is_null_sender() { Reply::Rejected } else { Reply::Error };
            return Ok(Work::Say(refuse(text)));
        }
        Decision::Defer(line) => return Ok(Work::Say(Reply::Rejected(words(line).to_owned()))),
        Decision::ByRecipient => return Err(Cannot::ByRecipient),
        Decision::Accept => {}
    }
    // Each has an outcome; else somebody would get what nobody has allowed.
    if answer.outcomes.len() != envelope.recipients.len() {
        return Err(Cannot::ByRecipient);
    }
    for outcome in &answer.outcomes {
        match outcome {
            Outcome::Deliver(_) | Outcome::Discard | Outcome::Quarantine => {}
            Outcome::Hold(..) => return Err(Cannot::Hold),
            Outcome::Reject(_) | Outcome::Defer(_) => return Err(Cannot::ByRecipient),
        }
    }
    let mut put = 0;
    let mut replacements = Vec::new();
    for (content, members) in answer.contents.iter().zip(answer.groups()) {
        let pieces = pieces(content, &mut put, octets.len(), message.length)?;
        if members.is_empty() {
            continue;
        }
        if members.len() == envelope.recipients.len()
            && is_envelope_kept(envelope, content)
            && let Some(reply) = in_place(&pieces, octets, message)
        {
            return Ok(Work::Say(reply));
        }
        let recipients = members.iter().map(|&index| &*envelope.recipients[index]);
        let recipients = unique(recipients.chain(content.added.iter().map(String::as_bytes)));
        let sender = content.sender.clone().map(String::into_bytes).or_else(|| envelope.sender.clone());
        if recipients.iter().chain(&sender).flatten().any(u8::is_ascii_control) {
            return Err(Cannot::Address);
        }
        replacements.push(Replacement { sender, recipients, pieces });
    }
    if replacements.is_empty() { Ok(Work::Say(Reply::Discard)) } else { Ok(Work::Replace(replacements)) }
}

/// The words of `550 5.7.1 words`.
fn words(line: &str) -> &str {
    let behind = |line: &'_ str, is: fn(char) -> bool| {
        line.split_once(' ').filter(|(word, _)| word.chars().all(is)).map_or(line.len(), |(word, _)| word.len() + 1)
    };
    let line_without_code =
        line.get(behind(line, |c| c.is_ascii_digit())..).filter(|rest| !rest.is_empty()).unwrap_or(line);
    let enhanced = behind(line_without_code, |c| c.is_ascii_digit() || c == '.');
    line_without_code.get(enhanced..).filter(|rest| !rest.is_empty()).unwrap_or(line_without_code)
}

/// The pieces of a content; `put` is where its new octets begin, and then where they end.
fn pieces(content: &Content, put: &mut usize, octets: usize, length: u64) -> Result<Vec<Piece>, Cannot> {
    let parts = match &content.form {
        Form::Same => return Ok(vec![Piece::Keep(0, length)]),
        Form::Pieces(parts) => parts,
        Form::Descriptor => return Err(Cannot::Content),
    };
    let piece = |part: &Part| match *part {
        Part::Keep(offset, kept) => {
            let end = offset.checked_add(kept).filter(|end| *end <= length);
            end.map(|_| Piece::Keep(offset, kept))
        }
        Part::Put(new) => {
            let start = *put;
            *put = usize::try_from(new).ok().and_then(|new| start.checked_add(new)).filter(|end| *end <= octets)?;
            Some(Piece::Put(start..*put))
        }
    };
    parts.iter().map(piece).collect::<Option<_>>().ok_or(Cannot::Content)
}

fn is_envelope_kept(envelope: &Envelope, content: &Content) -> bool {
    let is_there = |added: &String| envelope.recipients.iter().any(|known| known == added.as_bytes());
    let sender = content.sender.as_ref().map(String::as_bytes);
    sender.is_none_or(|sender| envelope.sender.as_deref() == Some(sender)) && content.added.iter().all(is_there)
}

/// The reply, if the server can make this content itself: the message, with header fields added at most.
fn in_place(pieces: &[Piece], octets: &[u8], message: Message<'_>) -> Option<Reply> {
    let mut kept = 0;
    let mut fields = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Keep(offset, length) if *offset == kept => kept += length,
            Piece::Keep(..) => return None,
            Piece::Put(range) if range.is_empty() => {}
            Piece::Put(range) if is_between_fields(message.start, kept) => {
                add_fields(&octets[range.clone()], &mut fields)?;
            }
            Piece::Put(_) => return None,
        }
    }
    if kept != message.length {
        return None;
    }
    if fields.is_empty() { Some(Reply::Ok) } else { Reply::add_header(&fields) }
}

/// Is this a place in the header where fields may stand?
fn is_between_fields(start: &[u8], at: u64) -> bool {
    let Some(before) = usize::try_from(at).ok().and_then(|at| start.get(..at)) else { return false };
    let is_line_start = before.is_empty() || before.ends_with(b"\n");
    let mut lines = before.split(|octet| *octet == b'\n');
    // The last is what stands behind the last line feed: nothing.
    lines.next_back();
    is_line_start && lines.all(|line| !matches!(line, b"" | b"\r"))
}

/// Takes whole header fields, folded ones in one line.
fn add_fields(octets: &[u8], fields: &mut Vec<String>) -> Option<()> {
    let text = std::str::from_utf8(octets).ok()?.strip_suffix('\n')?;
    let first = fields.len();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.starts_with([' ', '\t']) {
            // RFC 5322 section 2.2.3: unfolding takes the line end, and nothing else.
            fields[first..].last_mut()?.push_str(line);
        } else {
            let (name, _) = line.split_once(':')?;
            if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic()) {
                return None;
            }
            fields.push(line.to_owned());
        }
    }
    // RFC 5322 section 2.1.1.
    fields[first..].iter().all(|field| field.len() <= 998).then_some(())
}

fn unique<'a>(addresses: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut seen = std::collections::HashSet::new();
    addresses.filter(|address| seen.insert(*address)).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"A: 1\nB: 2\n 3\n\nbody\n";

    fn envelope() -> Envelope {
        let text = "S <u@x> SMTP [192.0.2.1]\nP I <s@x>\nR W <a@x>\nR W <b@x>\n\n";
        Envelope::parse(text.as_bytes()).unwrap()
    }

    fn answer(outcomes: Vec<Outcome>, contents: Vec<Content>) -> Answer {
        Answer { id: "1".into(), decision: Decision::Accept, outcomes, contents }
    }

    fn content(form: Form) -> Content {
        Content { form, sender: None, added: Vec::new() }
    }

    fn done(answer: &Answer, octets: &str) -> Result<Work, Cannot> {
        let message = Message { length: MESSAGE.len() as u64, start: MESSAGE };
        work(&envelope(), answer, octets.as_bytes(), message)
    }

    fn both() -> Vec<Outcome> {
        vec![Outcome::Deliver(0), Outcome::Deliver(0)]
    }

    /// Both get this content: the reply, or `None` for a mail in this one's place.
    fn reply(parts: Vec<Part>, octets: &str) -> Option<Reply> {
        match done(&answer(both(), vec![content(Form::Pieces(parts))]), octets).unwrap() {
            Work::Say(reply) => Some(reply),
            Work::Replace(all) => {
                assert_eq!((all.len(), &all[0].recipients[..]), (1, &[b"a@x".to_vec(), b"b@x".to_vec()][..]));
                assert_eq!(all[0].sender.as_deref(), Some(&b"s@x"[..]));
                None
            }
        }
    }

    fn adds(fields: &[&str]) -> Option<Reply> {
        Reply::add_header(&fields.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_the_server_can_do_itself_it_is_told() {
        use Part::{Keep, Put};
        let same = done(&answer(both(), vec![content(Form::Same)]), "");
        assert_eq!(same, Ok(Work::Say(Reply::Ok)));
        assert_eq!(reply(vec![Keep(0, 19)], ""), Some(Reply::Ok));
        assert_eq!(reply(vec![Keep(0, 5), Keep(5, 14)], ""), Some(Reply::Ok));
        assert_eq!(reply(vec![Put(10), Keep(0, 19)], "X: 1\nY: 2\n"), adds(&["X: 1", "Y: 2"]));
        assert_eq!(reply(vec![Put(10), Keep(0, 19)], "X: 1\n  23\n"), adds(&["X: 1  23"]));
        assert_eq!(reply(vec![Put(6), Keep(0, 19)], "X: 1\r\n"), adds(&["X: 1"]));
        assert_eq!(reply(vec![Put(5), Keep(0, 13), Put(5), Keep(13, 6)], "X: 1\nY: 2\n"), adds(&["X: 1", "Y: 2"]));
    }

    #[test]
    fn what_the_server_cannot_do_becomes_another_mail() {
        use Part::{Keep, Put};
        for (parts, octets) in [
            // A field changed, one removed, another body, in the middle of a field, behind the header.
            (vec![Put(5), Keep(5, 14)], "A: 2\n"),
            (vec![Keep(5, 14)], ""),
            (vec![Keep(0, 14), Put(4)], "new\n"),
            (vec![Keep(0, 3), Put(5), Keep(3, 16)], "X: 1\n"),
            (vec![Keep(0, 14), Put(5), Keep(14, 5)], "X: 1\n"),
            (vec![Keep(0, 19), Put(5)], "X: 1\n"),
            // No fields.
            (vec![Put(4), Keep(0, 19)], "X: 1"),
            (vec![Put(5), Keep(0, 19)], "X 1 \n"),
            (vec![Put(5), Keep(0, 19)], " X:1\n"),
            (vec![Put(5), Keep(0, 19)], "X:1\n\n"),
            (vec![Put(6), Keep(0, 19)], "X: \u{e4}\n"),
        ] {
            assert_eq!(reply(parts.clone(), octets), None, "{parts:?} {octets:?}");
        }
        let long = format!("X: {}\n", "y".repeat(5000));
        assert_eq!(reply(vec![Put(long.len() as u64), Keep(0, 19)], &long), None);
        // The start that is known does not reach so far.
        let message = Message { length: 19, start: b"A: 1\n" };
        let parts = vec![Keep(0, 13), Put(5), Keep(13, 6)];
        let far = work(&envelope(), &answer(both(), vec![content(Form::Pieces(parts))]), b"X: 1\n", message);
        assert!(matches!(far, Ok(Work::Replace(_))));
    }

    #[test]
    fn envelopes_change_by_other_mails() {
        let check = |answer: &Answer, wanted: &[(&str, &[&str])]| {
            let Ok(Work::Replace(all)) = done(answer, "X: 1\n") else { panic!("{answer:?}") };
            let text = |octets: &Vec<u8>| String::from_utf8(octets.clone()).unwrap();
            let all: Vec<(String, Vec<String>)> = all
                .iter()
                .map(|one| (text(one.sender.as_ref().unwrap()), one.recipients.iter().map(text).collect()))
                .collect();
            let wanted: Vec<(String, Vec<String>)> = wanted
                .iter()
                .map(|(sender, recipients)| (sender.to_string(), recipients.iter().map(ToString::to_string).collect()))
                .collect();
            assert_eq!(all, wanted);
        };
        let same = || content(Form::Same);
        check(&answer(vec![Outcome::Deliver(0), Outcome::Discard], vec![same()]), &[("s@x", &["a@x"])]);
        check(&answer(vec![Outcome::Quarantine, Outcome::Deliver(0)], vec![same()]), &[("s@x", &["b@x"])]);
        let added = Content { added: vec!["c@x".into(), "a@x".into()], ..same() };
        check(&answer(both(), vec![added]), &[("s@x", &["a@x", "b@x", "c@x"])]);
        let sender = Content { sender: Some(String::new()), ..same() };
        check(&answer(both(), vec![sender]), &[("", &["a@x", "b@x"])]);
        let tagged = content(Form::Pieces(vec![Part::Put(5), Part::Keep(0, 19)]));
        let two = answer(vec![Outcome::Deliver(1), Outcome::Deliver(0)], vec![same(), tagged]);
        check(&two, &[("s@x", &["b@x"]), ("s@x", &["a@x"])]);
        // As it was.
        let kept = Content { sender: Some("s@x".into()), added: vec!["a@x".into()], ..same() };
        assert_eq!(done(&answer(both(), vec![kept]), ""), Ok(Work::Say(Reply::Ok)));
        let nobody = answer(vec![Outcome::Discard, Outcome::Quarantine], Vec::new());
        assert_eq!(done(&nobody, ""), Ok(Work::Say(Reply::Discard)));
    }

    #[test]
    fn refusals_have_the_words_of_the_rule() {
        let refused = |decision: Decision, envelope: &Envelope| {
            let answer = Answer { decision, ..answer(Vec::new(), Vec::new()) };
            let Ok(Work::Say(reply)) = work(envelope, &answer, b"", Message { length: 0, start: b"" }) else {
                panic!()
            };
            reply
        };
        let reject = || Decision::Reject("550 5.7.1 Message contains malware (x)".into());
        assert_eq!(refused(reject(), &envelope()), Reply::Error("Message contains malware (x)".into()));
        let defer = Decision::Defer("451 4.7.1 Come back later".into());
        assert_eq!(refused(defer, &envelope()), Reply::Rejected("Come back later".into()));
        for sender in [Some(Vec::new()), None] {
            let null = Envelope { sender, ..envelope() };
            assert_eq!(refused(reject(), &null), Reply::Rejected("Message contains malware (x)".into()));
        }
        for (line, text) in [("550 no", "no"), ("no", "no"), ("550 5.7.1 ", "5.7.1 "), ("550 5 men", "men"), ("", "")] {
            assert_eq!(words(line), text, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_done_by_half() {
        let same = || content(Form::Same);
        let check = |answer: &Answer, cannot| assert_eq!(done(answer, "abc"), Err(cannot), "{answer:?}");
        check(&answer(vec![Outcome::Deliver(0)], vec![same()]), Cannot::ByRecipient);
        check(&Answer { decision: Decision::ByRecipient, ..answer(both(), vec![same()]) }, Cannot::ByRecipient);
        check(&answer(vec![Outcome::Hold(0, "odd".into()), Outcome::Discard], vec![same()]), Cannot::Hold);
        check(&answer(both(), vec![content(Form::Descriptor)]), Cannot::Content);
        for parts in
            [vec![Part::Put(4)], vec![Part::Keep(0, 20)], vec![Part::Keep(u64::MAX, 2)], vec![Part::Put(u64::MAX)]]
        {
            check(&answer(both(), vec![content(Form::Pieces(parts))]), Cannot::Content);
        }
        let added = Content { added: vec!["c@x\nEnvelope-To: d@x".into()], ..same() };
        check(&answer(both(), vec![added]), Cannot::Address);
        let sender = Content { sender: Some("a\r".into()), ..same() };
        check(&answer(both(), vec![sender]), Cannot::Address);
    }

    #[test]
    fn whose_mail_it_is() {
        fn check(source: &str, sender: &str, user: Option<&str>, class: Option<Class>, in_session: bool) {
            let text = format!("S {source}\nP I <{sender}>\nR W <a@x>\n\n");
            let request = request(&Envelope::parse(text.as_bytes()).unwrap(), "p", b"Queue/01-09/123.msg");
            assert_eq!((request.user.as_deref(), request.class), (user, class), "{source}");
            assert_eq!(request.can.contains(Can::REFUSE_IN_SESSION), in_session, "{source}");
            assert_eq!(request.queue_id.as_deref(), Some("123"));
        }
        check("SMTP [192.0.2.1]", "s@x", None, None, true);
        check("<u@x> SMTP [192.0.2.1]", "s@x", Some("u@x"), None, true);
        check("SMTP [192.0.2.1]", "", None, None, false);
        // Whose rule sends it on has not sent it.
        check("<u@x> RULE", "s@x", None, None, false);
        check("<u@x> RPOP [192.0.2.1]", "s@x", None, None, false);
        check("PIPE", "s@x", None, Some(Class::Submission), false);
        check("NEW", "s@x", None, None, false);
        assert_eq!(id(b"1.msg"), "1");
        assert_eq!(id(b"Queue\\2.msg"), "2");
        assert_eq!(id(b"a b"), "a?b");
    }
}
