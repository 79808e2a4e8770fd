//! What the daemon answered, in what a pipe transport understands: an exit code with a line of text, or mails to be
//! handed back.
//!
//! Nothing is opened or started here. Exit codes are those of sysexits.h that both mail servers know: 0 is delivered, 75
//! keeps the mail in the queue. **All else makes Postfix bounce the mail, and Exim, unless its `temp_errors` names it**: so
//! there is one other code, and it is used for a refusal that the daemon has decided, and for nothing else.

use checkpost_client::runs::{Run, runs};
use checkpost_wire::check::{Answer, Can, Decision, Outcome, Request};

use crate::Envelope;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exit {
    /// 75, EX_TEMPFAIL: the mail stays in the queue. What is not decided is this.
    #[default]
    Temporary,
    /// 0: taken. Handed back, or nobody is to get it.
    Taken,
    /// 77, EX_NOPERM: refused for good; the mail server tells the sender by a bounce.
    Refused,
}

impl Exit {
    /// For the operating system.
    pub fn code(self) -> u8 {
        match self {
            Self::Taken => 0,
            Self::Temporary => 75,
            Self::Refused => 77,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// End, with this line for the mail server's log or bounce.
    End(Exit, String),
    /// Hand it back, once for each, in this order; at least one.
    Hand(Vec<Run>),
    /// The answer says what was not asked for: end temporarily. The reason, for the log.
    Refuse(&'static str),
}

/// What the program can do with an answer. There is no session any more, so a refusal is a bounce.
pub const CAN: Can = Can::EDIT_HEADERS
    .union(Can::EDIT_BODY)
    .union(Can::ADD_RECIPIENTS)
    .union(Can::CHANGE_SENDER)
    .union(Can::DROP_RECIPIENTS)
    .union(Can::CONTENTS_BY_RECIPIENT);

/// What the daemon is asked. `program` is for its log.
pub fn request(envelope: &Envelope, program: &str) -> Request {
    let origin = &envelope.origin;
    Request {
        program: program.to_owned(),
        sender: envelope.sender.clone(),
        recipients: envelope.recipients.clone(),
        client: origin.client,
        client_name: origin.client_name.clone(),
        helo: origin.helo.clone(),
        user: origin.user.clone(),
        queue_id: origin.queue_id.clone(),
        can: CAN,
        ..Request::default()
    }
}

/// From the answer for this envelope to what is done.
pub fn plan(answer: &Answer, envelope: &Envelope) -> Plan {
    match &answer.decision {
        Decision::Reject(line) => Plan::End(Exit::Refused, text("5.7.1", line)),
        Decision::Defer(line) => Plan::End(Exit::Temporary, text("4.7.1", line)),
        Decision::ByRecipient => Plan::Refuse("recipients cannot be answered one by one"),
        Decision::Accept if answer.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Hold(..))) => {
            Plan::Refuse("a mail that was taken out of the queue cannot be held in it")
        }
        Decision::Accept => {
            let recipients: Vec<&[u8]> = envelope.recipients.iter().map(Vec::as_slice).collect();
            match runs(answer, &envelope.sender, &recipients) {
                Err(why) => Plan::Refuse(why),
                Ok(runs) if runs.is_empty() => Plan::End(Exit::Taken, String::new()),
                Ok(runs) => match runs.iter().all(is_writable) {
                    true => Plan::Hand(runs),
                    false => Plan::Refuse("an address that cannot stand in a command line"),
                },
            }
        }
    }
}

/// `5.7.1 text` of `550 5.7.1 text`: Postfix takes a code at the start for its own report (pipe(8), "DIAGNOSTICS"). One
/// line without control characters, whatever was in it.
pub fn text(enhanced: &str, line: &str) -> String {
    let rest = match line.split_once(' ') {
        Some((code, rest)) if code.len() == 3 && code.bytes().all(|octet| octet.is_ascii_digit()) => rest,
        _ => line,
    };
    let has_code = rest.split('.').count() > 2 && rest.starts_with(['4', '5']);
    let rest = rest.replace(char::is_control, "?");
    if has_code { rest } else { format!("{enhanced} {rest}") }
}

/// Addresses in angle brackets, one a word: nothing in them may end either.
fn is_writable(run: &Run) -> bool {
    let writable = |address: &Vec<u8>| {
        let mut quoted = false;
        let mut escaped = false;
        let plain = address.iter().all(|&octet| {
            let fits = octet >= b' ' && octet != 0x7f && (quoted || !b" <>,;()".contains(&octet));
            (quoted, escaped) = match octet {
                _ if escaped => (quoted, false),
                b'\\' => (quoted, true),
                b'"' => (!quoted, false),
                _ => (quoted, false),
            };
            fits
        });
        plain && !quoted && !escaped
    };
    writable(&run.sender) && run.recipients.iter().all(|recipient| !recipient.is_empty() && writable(recipient))
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::{Content, Form};

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            sender: b"s@x".to_vec(),
            recipients: vec![b"a@x".to_vec(), b"b@x".to_vec(), b"\"c c\"@x".to_vec()],
            ..Envelope::default()
        }
    }

    fn check(decision: Decision, outcomes: Vec<Outcome>, contents: Vec<Content>) -> Plan {
        plan(&Answer { id: "1".into(), decision, outcomes, contents }, &envelope())
    }

    fn same(sender: Option<&str>, added: &[&str]) -> Content {
        let added = added.iter().map(|&address| address.to_owned()).collect();
        Content { form: Form::Same, sender: sender.map(str::to_owned), added }
    }

    #[test]
    fn refusals_are_a_code_and_a_line() {
        let reject = Decision::Reject("550 5.7.1 Message contains malware (Eicar)".into());
        let line = "5.7.1 Message contains malware (Eicar)".to_owned();
        assert_eq!(check(reject, vec![], vec![]), Plan::End(Exit::Refused, line));
        let defer = Decision::Defer("451 4.7.1 Later".into());
        assert_eq!(check(defer, vec![], vec![]), Plan::End(Exit::Temporary, "4.7.1 Later".into()));
        for (line, said) in [
            ("554 no", "5.7.1 no"),
            ("554 5.6.0 a\r\n250 ok\0", "5.6.0 a??250 ok?"),
            ("no code", "5.7.1 no code"),
            ("550 5 or 6. a. b", "5 or 6. a. b"),
        ] {
            assert_eq!(text("5.7.1", line), said);
        }
        assert!(matches!(check(Decision::ByRecipient, vec![], vec![]), Plan::Refuse(_)));
    }

    #[test]
    fn recipients_are_grouped_by_their_content() {
        use Outcome::{Deliver, Discard, Quarantine};
        let run = |content, sender: &str, recipients: &[&str]| Run {
            content,
            sender: sender.as_bytes().to_vec(),
            recipients: recipients.iter().map(|address| address.as_bytes().to_vec()).collect(),
        };
        let plan = check(Decision::Accept, vec![Deliver(0); 3], vec![same(None, &[])]);
        assert_eq!(plan, Plan::Hand(vec![run(0, "s@x", &["a@x", "b@x", "\"c c\"@x"])]));
        let contents = vec![same(Some(""), &["d@x"]), Content { form: Form::Descriptor, ..same(None, &[]) }];
        let plan = check(Decision::Accept, vec![Deliver(1), Discard, Deliver(0)], contents);
        assert_eq!(plan, Plan::Hand(vec![run(0, "", &["\"c c\"@x", "d@x"]), run(1, "s@x", &["a@x"])]));
        let plan = check(Decision::Accept, vec![Discard, Quarantine, Discard], vec![]);
        assert_eq!(plan, Plan::End(Exit::Taken, String::new()));
    }

    #[test]
    fn what_cannot_be_done_is_not_done_by_half() {
        let all = || vec![Outcome::Deliver(0); 3];
        for (outcomes, contents) in [
            (vec![Outcome::Hold(0, "odd".into()); 3], vec![same(None, &[])]),
            (vec![Outcome::Deliver(0)], vec![same(None, &[])]),
            (all(), vec![same(Some("a> <b@x"), &[])]),
            (all(), vec![same(None, &["a@x,b@x"])]),
            (all(), vec![same(None, &["\"a@x"])]),
            (all(), vec![same(None, &["a\n@x"])]),
            (all(), vec![same(None, &[""])]),
        ] {
            assert!(matches!(check(Decision::Accept, outcomes, contents), Plan::Refuse(_)));
        }
    }

    #[test]
    fn what_is_not_decided_is_temporary() {
        assert_eq!(Exit::default().code(), 75);
    }
}
