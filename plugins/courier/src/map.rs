//! From control files to a question for the daemon, and from its answer to what is to be done: a reply, records
//! for the control files, another content. It does nothing itself.

use checkpost_wire::check::{Answer, Can, Class, Decision, Form, Outcome, Request};

use crate::control::{self, Control};
use crate::session::Reply;

/// What the program can do with an answer. The sender and a hold are Courier's own matter.
pub const CAN: Can = Can::EDIT_HEADERS
    .union(Can::EDIT_BODY)
    .union(Can::ADD_RECIPIENTS)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::REFUSE_IN_SESSION);

/// A mail's control files, and which of their recipients are asked about.
#[derive(Debug)]
pub struct Envelope {
    controls: Vec<Control>,
    /// File and index of each recipient that something is left to do for, in the order of the request.
    places: Vec<(usize, usize)>,
}

/// What is to be done with a mail, all of it before the reply is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The reply.
    pub reply: Reply,
    /// The number of the answer's content that takes the place of the mail's.
    pub content: Option<usize>,
    /// Records for the end of each control file, in the order of the files.
    pub records: Vec<Vec<u8>>,
}

/// Why an answer cannot be carried out: the mail is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cannot {
    /// One mail, one answer, one content.
    #[error("recipients with answers or contents of their own")]
    ByRecipient,
    /// Courier keeps nothing in a quarantine.
    #[error("a hold")]
    Hold,
    /// The sender stays.
    #[error("another sender")]
    Sender,
    /// An address that a control file cannot carry.
    #[error("an added recipient whose address has control characters")]
    Recipient,
}

impl Envelope {
    /// Of a mail's control files, in the order in which Courier named them.
    pub fn new(controls: Vec<Control>) -> Self {
        let places = controls.iter().enumerate().flat_map(|(file, control)| {
            let open = control.recipients.iter().enumerate().filter(|(_, recipient)| !recipient.finished);
            open.map(move |(index, _)| (file, index))
        });
        Self { places: places.collect(), controls }
    }

    /// Is there nobody left to get the mail, since others have taken all recipients out? It need not be checked.
    pub fn is_finished(&self) -> bool {
        self.places.is_empty() && self.controls.iter().any(|control| !control.recipients.is_empty())
    }

    /// The mail's id in Courier's log.
    pub fn id(&self) -> Option<&str> {
        self.controls.first()?.id.as_deref()
    }

    /// The recipients that are asked about.
    pub fn recipients(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|&(file, index)| &*self.controls[file].recipients[index].address)
    }

    /// Do the control files speak of octets beyond ASCII, in the mail and in its header?
    pub fn eight_bit(&self) -> (bool, bool) {
        (self.controls.iter().all(|control| control.eight_bit), self.controls.iter().all(|control| control.utf8_header))
    }

    /// What the daemon is asked. `program` is for its log.
    pub fn request(&self, program: &str) -> Request {
        let nothing = Control::default();
        // Each file has the same records of the mail's origin.
        let first = self.controls.first().unwrap_or(&nothing);
        let local = first.source == "local";
        Request {
            program: program.to_owned(),
            sender: first.sender.clone(),
            recipients: self.recipients().map(<[u8]>::to_vec).collect(),
            // A client without authentication is the daemon's to judge, save where Courier relays for it.
            class: (local || (first.relay && first.user.is_none())).then_some(Class::Submission),
            client: first.client_address(),
            client_name: first.from.host.clone(),
            helo: first.from.helo.clone(),
            user: first.user.clone(),
            queue_id: first.id.clone(),
            can: CAN,
            ..Request::default()
        }
    }

    /// What an answer asks for.
    ///
    /// # Errors
    /// It asks for more than the program has said it can do.
    pub fn work(&self, answer: &Answer, unix_time: u64) -> Result<Work, Cannot> {
        let mut work = Work { records: vec![Vec::new(); self.controls.len()], ..Work::default() };
        match &answer.decision {
            Decision::Reject(line) | Decision::Defer(line) => {
                work.reply = Reply::Refuse(line.clone());
                return Ok(work);
            }
            Decision::ByRecipient => return Err(Cannot::ByRecipient),
            Decision::Accept => {}
        }
        let mut used = None;
        for (outcome, &(file, index)) in answer.outcomes.iter().zip(&self.places) {
            match outcome {
                Outcome::Deliver(content) if used.is_none_or(|used| used == *content) => used = Some(*content),
                Outcome::Deliver(_) | Outcome::Reject(_) | Outcome::Defer(_) => return Err(Cannot::ByRecipient),
                Outcome::Hold(..) => return Err(Cannot::Hold),
                Outcome::Discard | Outcome::Quarantine => {
                    work.records[file].extend_from_slice(control::drop_silently(index, unix_time).as_bytes());
                }
            }
        }
        // Each has an outcome; else somebody would get what nobody has allowed.
        if answer.outcomes.len() != self.places.len() {
            return Err(Cannot::ByRecipient);
        }
        if let Some(number) = used {
            let content = answer.contents.get(number).ok_or(Cannot::ByRecipient)?;
            if content.sender.is_some() {
                return Err(Cannot::Sender);
            }
            match content.form {
                Form::Same => {}
                Form::Descriptor => work.content = Some(number),
                Form::Pieces(_) => return Err(Cannot::ByRecipient),
            }
            self.add(&content.added, &answer.outcomes, &mut work)?;
        }
        for (records, control) in work.records.iter_mut().zip(&self.controls) {
            if !records.is_empty() && !control.whole {
                records.insert(0, b'\n');
            }
        }
        work.reply = Reply::Accept;
        Ok(work)
    }

    /// Adds recipients at the end of the last control file, none of them twice.
    fn add(&self, added: &[String], outcomes: &[Outcome], work: &mut Work) -> Result<(), Cannot> {
        let delivered = self.recipients().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Deliver(_)));
        let mut known: Vec<&[u8]> = delivered.map(|(address, _)| address).collect();
        for address in added {
            if known.iter().any(|known| same_address(known, address.as_bytes())) {
                continue;
            }
            let records = control::add_recipient(address).ok_or(Cannot::Recipient)?;
            if let Some(last) = work.records.last_mut() {
                last.extend_from_slice(&records);
            }
            known.push(address.as_bytes());
        }
        Ok(())
    }
}

/// Domains have no case; the part before is somebody else's to know.
fn same_address(one: &[u8], other: &[u8]) -> bool {
    let at = |address: &[u8]| address.iter().rposition(|octet| *octet == b'@').unwrap_or(address.len());
    let ((local, domain), (other_local, other_domain)) = (one.split_at(at(one)), other.split_at(at(other)));
    local == other_local && domain.eq_ignore_ascii_case(other_domain)
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Content;

    use super::*;

    /// Two files; the alias in the first is expanded already.
    fn envelope() -> Envelope {
        let first =
            "ss@x\nfdns; c.example (c [192.0.2.1])\nM1.2\nrstaff@x\nR\nN\nI0 R 250 Ok\nS0 1\nra@x\nR\nN\nusmtp\n";
        let second = "ss@x\nrb@x\nR\nN\nrc@x\nR\nN\nusmtp";
        Envelope::new([first, second].iter().map(|text| Control::parse(text.as_bytes()).unwrap()).collect())
    }

    fn accept(outcomes: Vec<Outcome>, contents: Vec<Content>) -> Answer {
        Answer { id: "1".into(), decision: Decision::Accept, outcomes, contents }
    }

    fn same(added: &[&str]) -> Content {
        Content { form: Form::Same, sender: None, added: added.iter().map(ToString::to_string).collect() }
    }

    fn check(outcomes: Vec<Outcome>, contents: Vec<Content>, first: &str, second: &str) -> Work {
        let work = envelope().work(&accept(outcomes, contents), 17).unwrap();
        let records: Vec<_> = work.records.iter().map(|records| String::from_utf8_lossy(records)).collect();
        assert_eq!(records, [first, second]);
        assert_eq!(work.reply, Reply::Accept);
        work
    }

    #[test]
    fn one_request_for_all_files() {
        let request = envelope().request("checkpost-courier");
        assert_eq!(request.recipients, [b"a@x".to_vec(), b"b@x".to_vec(), b"c@x".to_vec()]);
        assert_eq!((request.sender, request.queue_id.as_deref()), (b"s@x".to_vec(), Some("1.2")));
        assert_eq!((request.client, request.helo.as_deref()), ("192.0.2.1".parse().ok(), Some("c.example")));
        assert_eq!(request.class, None);
        assert_eq!(envelope().eight_bit(), (false, false));
    }

    #[test]
    fn whose_mail_it_is() {
        fn check(records: &str, class: Option<Class>) {
            let control = Control::parse(format!("s\nra@x\n{records}").as_bytes()).unwrap();
            assert_eq!(Envelope::new(vec![control]).request("").class, class, "{records}");
        }
        check("usmtp\n", None);
        check("ulocal\n", Some(Class::Submission));
        check("uauthsmtp\nORELAYCLIENT=\n", Some(Class::Submission));
        // A user is told, and the daemon knows what that means.
        check("uauthsmtp\nORELAYCLIENT=\nialice\n", None);
        check("uuucp\n", None);
    }

    #[test]
    fn who_is_finished_is_not_asked_about() {
        let finished = |text: &str| Envelope::new(vec![Control::parse(text.as_bytes()).unwrap()]).is_finished();
        assert!(finished("s\nra@x\nS0 1\n"));
        assert!(!finished("s\nra@x\n"));
        // Nobody at all is no envelope; it is not for this program to let it through.
        assert!(!finished("s\n"));
    }

    #[test]
    fn records_go_to_their_files() {
        let deliver = || Outcome::Deliver(0);
        let work = check(vec![deliver(), deliver(), deliver()], vec![same(&[])], "", "");
        assert_eq!(work.content, None);
        let drop = "I1 R 250 Ok - not delivered, by policy\nS1 17\n";
        check(vec![Outcome::Discard, deliver(), deliver()], vec![same(&[])], drop, "");
        // The second file has no line feed at its end.
        let both = "\nI0 R 250 Ok - not delivered, by policy\nS0 17\nI1 R 250 Ok - not delivered, by policy\nS1 17\n";
        check(vec![Outcome::Discard, Outcome::Quarantine, Outcome::Discard], vec![], drop, both);
        check(vec![deliver(), deliver(), deliver()], vec![same(&["d@x"])], "", "\nrd@x\nR\nN\n");
        // No one twice; who was taken out may come back by another rule.
        check(vec![deliver(), deliver(), deliver()], vec![same(&["a@X", "d@x", "d@x"])], "", "\nrd@x\nR\nN\n");
        check(vec![Outcome::Discard, deliver(), deliver()], vec![same(&["a@x"])], drop, "\nra@x\nR\nN\n");
        let changed = Content { form: Form::Descriptor, ..same(&[]) };
        let work = check(vec![deliver(), deliver(), deliver()], vec![changed.clone()], "", "");
        assert_eq!(work.content, Some(0));
        // A content that nobody gets changes nothing.
        let nobody = check(vec![Outcome::Discard; 3], vec![changed], drop, both);
        assert_eq!(nobody.content, None);
    }

    #[test]
    fn a_refusal_is_told_as_it_is() {
        for decision in [Decision::Reject("550 5.7.1 no".into()), Decision::Defer("451 4.7.1 later".into())] {
            let (Decision::Reject(line) | Decision::Defer(line)) = decision.clone() else { unreachable!() };
            let work = envelope().work(&Answer { decision, ..accept(vec![], vec![]) }, 17).unwrap();
            assert_eq!(work.reply, Reply::Refuse(line));
            assert!(work.content.is_none() && work.records.iter().all(Vec::is_empty));
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_done_by_half() {
        fn check(answer: &Answer, cannot: Cannot) {
            assert_eq!(envelope().work(answer, 17), Err(cannot), "{answer:?}");
        }
        let deliver = || vec![Outcome::Deliver(0); 3];
        let two = vec![Outcome::Deliver(0), Outcome::Deliver(1), Outcome::Deliver(0)];
        check(&accept(two, vec![same(&[]), same(&[])]), Cannot::ByRecipient);
        check(&accept(vec![Outcome::Deliver(0)], vec![same(&[])]), Cannot::ByRecipient);
        check(&accept(deliver(), vec![]), Cannot::ByRecipient);
        let by_recipient = Answer { decision: Decision::ByRecipient, ..accept(deliver(), vec![same(&[])]) };
        check(&by_recipient, Cannot::ByRecipient);
        check(&accept(vec![Outcome::Hold(0, "odd".into()); 3], vec![same(&[])]), Cannot::Hold);
        check(&accept(deliver(), vec![Content { sender: Some("t@x".into()), ..same(&[]) }]), Cannot::Sender);
        check(&accept(deliver(), vec![same(&["d@x\nre@x"])]), Cannot::Recipient);
    }
}
