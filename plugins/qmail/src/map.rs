//! What the daemon answered, in what qmail-queue can say and do: an exit code with or without a text, or runs of the original.
//!
//! Nothing is opened, written or started here. The codes and the conventions for texts are those of the callers,
//! qmail.c of each flavour; the README has the table.

use checkpost_wire::check::{Answer, Can, Decision, Outcome};

use crate::session::{Envelope, EnvelopeError};

/// How the program ends when it ends by itself. What is not decided is temporary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exit {
    /// 71: try again later.
    #[default]
    Temporary,
    /// 0: taken. Nobody gets it, since the answer says so.
    Discarded,
    /// 31: refused for good.
    Rejected,
    /// 11: an address is too long. For good.
    AddressTooLong,
    /// 53: the message could not be stored.
    Write,
    /// 54: the message could not be read, or was taken back.
    Read,
    /// 55: the settings are wrong.
    Settings,
    /// 72: the daemon did not answer in time.
    Late,
    /// 74: the daemon is not there.
    Down,
    /// 81: what must not be.
    Internal,
    /// 91: the envelope is none.
    Envelope,
    /// 120: the original cannot be started.
    NoOriginal,
    /// This one: a convention's for its text, or the original's.
    Code(u8),
}

impl Exit {
    /// For the operating system.
    pub fn code(self) -> u8 {
        match self {
            Self::Temporary => 71,
            Self::Discarded => 0,
            Self::Rejected => 31,
            Self::AddressTooLong => 11,
            Self::Write => 53,
            Self::Read => 54,
            Self::Settings => 55,
            Self::Late => 72,
            Self::Down => 74,
            Self::Internal => 81,
            Self::Envelope => 91,
            Self::NoOriginal => 120,
            Self::Code(code) => code,
        }
    }
}

impl From<EnvelopeError> for Exit {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Aborted => Self::Read,
            EnvelopeError::Grammar => Self::Envelope,
            EnvelopeError::TooLong => Self::AddressTooLong,
        }
    }
}

/// How a caller takes a text of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convention {
    /// The descriptor that it reads.
    pub descriptor: u32,
    /// The exit code that makes it look at the text.
    pub code: u8,
    /// So many octets of it are used.
    pub most: usize,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// End, after this text where the caller reads it.
    End(Exit, Option<Vec<u8>>),
    /// Hand it to the original, once for each; at least one.
    Hand(Vec<Run>),
    /// The answer says what was not asked for, or must not be done: end temporarily. The reason, for the log.
    Refuse(&'static str),
}

/// One run of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The number of its content in the answer.
    pub content: usize,
    /// Its envelope.
    pub envelope: Envelope,
}

/// What the program can do with an answer. A refused bounce stays with qmail-send, which tries again for ever
/// (`injectbounce` in qmail-send.c), so there a refusal is none that anybody in a session hears.
pub fn can(bounce: bool) -> Can {
    let all = Can::EDIT_HEADERS
        | Can::EDIT_BODY
        | Can::ADD_RECIPIENTS
        | Can::CHANGE_SENDER
        | Can::DROP_RECIPIENTS
        | Can::CONTENTS_BY_RECIPIENT;
    if bounce { all } else { all | Can::REFUSE_IN_SESSION }
}

/// From the answer for this envelope to what is done. `bounce`: qmail-send injects a bounce.
pub fn plan(answer: &Answer, envelope: &Envelope, text: Option<Convention>, bounce: bool) -> Plan {
    let said = |exit: Exit, letter: u8, line: &str| match text {
        Some(text) => Plan::End(Exit::Code(text.code), Some(written(letter, line, text.most))),
        None => Plan::End(exit, None),
    };
    match &answer.decision {
        Decision::Reject(_) if bounce => Plan::Refuse("a bounce must not be refused for good"),
        Decision::Reject(line) => said(Exit::Rejected, b'D', line),
        Decision::Defer(line) => said(Exit::Temporary, b'Z', line),
        Decision::ByRecipient => Plan::Refuse("recipients cannot be answered one by one"),
        Decision::Accept if answer.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Hold(..))) => {
            Plan::Refuse("qmail has no quarantine of its own")
        }
        Decision::Accept => match runs(answer, envelope) {
            Err(why) => Plan::Refuse(why),
            Ok(runs) if runs.is_empty() => Plan::End(Exit::Discarded, None),
            Ok(runs) => Plan::Hand(runs),
        },
    }
}

fn runs(answer: &Answer, envelope: &Envelope) -> Result<Vec<Run>, &'static str> {
    let recipients: Vec<&[u8]> = envelope.recipients().collect();
    let runs = checkpost_client::runs::runs(answer, envelope.sender(), &recipients)?;
    let envelopes = runs.into_iter().map(|run| {
        Envelope::build(&run.sender, run.recipients.iter().map(Vec::as_slice))
            .filter(|envelope| envelope.recipients().len() == run.recipients.len())
            .map(|envelope| Run { content: run.content, envelope })
            .ok_or("an address that qmail-queue does not take")
    });
    envelopes.collect()
}

/// `Dtext (#5.7.1)` of `550 5.7.1 text`. One line of printable ASCII whatever is in the text, since callers
/// write it into their dialogue as it is.
fn written(letter: u8, line: &str, most: usize) -> Vec<u8> {
    let words = line.split_once(' ').map_or(line, |(_, rest)| rest);
    let (enhanced, words) = match words.split_once(' ') {
        Some((first, rest)) if is_enhanced(first) => (first, rest),
        _ if letter == b'D' => ("5.7.1", words),
        _ => ("4.7.1", words),
    };
    let code = format!(" (#{enhanced})");
    let mut text = vec![letter];
    text.extend(words.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c as u8 } else { b'?' }));
    text.truncate(most.saturating_sub(code.len()).max(1));
    text.extend_from_slice(code.as_bytes());
    text
}

fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let mut number = || parts.next().is_some_and(|part| (1..=3).contains(&part.len()) && part.parse::<u16>().is_ok());
    number() && number() && number() && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::{Content, Form};
    use proptest::prelude::*;

    use super::*;

    const NOTQMAIL: Convention = Convention { descriptor: 6, code: 82, most: 255 };

    fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
        Envelope::build(sender.as_bytes(), recipients.iter().map(|to| to.as_bytes())).unwrap()
    }

    fn answer(decision: Decision, outcomes: Vec<Outcome>, contents: Vec<Content>) -> Answer {
        Answer { id: "1".into(), decision, outcomes, contents }
    }

    fn content(form: Form, sender: Option<&str>, added: &[&str]) -> Content {
        let added = added.iter().map(|&address| address.to_owned()).collect();
        Content { form, sender: sender.map(str::to_owned), added }
    }

    #[test]
    fn refusals_are_codes_or_texts() {
        let check = |decision: Decision, text, bounce| {
            plan(&answer(decision, Vec::new(), Vec::new()), &envelope("", &["a"]), text, bounce)
        };
        let reject = || Decision::Reject("550 5.7.1 Message contains malware (Eicar)".into());
        let defer = || Decision::Defer("451 4.7.1 Later".into());
        assert_eq!(check(reject(), None, false), Plan::End(Exit::Rejected, None));
        assert_eq!(check(defer(), None, false), Plan::End(Exit::Temporary, None));
        assert_eq!(check(defer(), None, true), Plan::End(Exit::Temporary, None));
        let text = Some(b"DMessage contains malware (Eicar) (#5.7.1)".to_vec());
        assert_eq!(check(reject(), Some(NOTQMAIL), false), Plan::End(Exit::Code(82), text));
        let text = Some(b"ZLater (#4.7.1)".to_vec());
        assert_eq!(check(defer(), Some(NOTQMAIL), false), Plan::End(Exit::Code(82), text));
        for convention in [None, Some(NOTQMAIL)] {
            assert!(matches!(check(reject(), convention, true), Plan::Refuse(_)), "a bounce is never refused for good");
        }
        assert!(matches!(check(Decision::ByRecipient, None, false), Plan::Refuse(_)));
    }

    #[test]
    fn texts_are_one_harmless_line() {
        for (letter, line, text) in [
            (b'D', "554 5.6.0 no", "Dno (#5.6.0)"),
            (b'D', "554 no", "Dno (#5.7.1)"),
            (b'Z', "451 no thanks", "Zno thanks (#4.7.1)"),
            (b'D', "550 5.7.1 a\r\n250 ok\0\u{e9}", "Da??250 ok?? (#5.7.1)"),
            (b'D', "550 5.7 x", "D5.7 x (#5.7.1)"),
        ] {
            assert_eq!(String::from_utf8(written(letter, line, 255)).unwrap(), text);
        }
        let long = written(b'D', &format!("550 5.7.1 {}", "x".repeat(400)), 255);
        assert_eq!(long.len(), 255);
        assert!(long.ends_with(b"x (#5.7.1)"));
    }

    #[test]
    fn recipients_are_grouped_by_their_content() {
        use Outcome::{Deliver, Discard, Quarantine};
        let came = envelope("s@x", &["a", "b", "c", "d"]);
        let check = |outcomes: Vec<Outcome>, contents: Vec<Content>| {
            plan(&answer(Decision::Accept, outcomes, contents), &came, Some(NOTQMAIL), false)
        };
        let same = || content(Form::Same, None, &[]);
        let all = vec![Deliver(0), Deliver(0), Deliver(0), Deliver(0)];
        let Plan::Hand(runs) = check(all.clone(), vec![same()]) else { panic!() };
        assert_eq!(runs, [Run { content: 0, envelope: came.clone() }]);
        let two = vec![content(Form::Descriptor, Some("new@x"), &["copy", "a"]), same()];
        let Plan::Hand(runs) = check(vec![Deliver(0), Discard, Deliver(1), Deliver(0)], two) else { panic!() };
        assert_eq!(
            runs,
            [
                Run { content: 0, envelope: envelope("new@x", &["a", "d", "copy"]) },
                Run { content: 1, envelope: envelope("s@x", &["c"]) },
            ]
        );
        let two = vec![content(Form::Same, None, &["copy"]), same(), content(Form::Same, Some("new@x"), &[])];
        let Plan::Hand(runs) = check(vec![Deliver(0), Deliver(1), Discard, Deliver(2)], two) else { panic!() };
        assert_eq!(
            runs,
            [
                Run { content: 0, envelope: envelope("s@x", &["a", "copy", "b"]) },
                Run { content: 2, envelope: envelope("new@x", &["d"]) },
            ]
        );
        let none = vec![Discard, Quarantine, Discard, Discard];
        assert_eq!(check(none, Vec::new()), Plan::End(Exit::Discarded, None));
        for (outcomes, contents) in [
            (vec![Deliver(0); 3], vec![same()]),
            (vec![Outcome::Hold(0, "odd".into()), Discard, Discard, Discard], vec![same()]),
            (all.clone(), vec![content(Form::Same, Some("a\0b"), &[])]),
            (all, vec![content(Form::Same, None, &["a\0b"])]),
        ] {
            assert!(matches!(check(outcomes, contents), Plan::Refuse(_)));
        }
    }

    #[test]
    fn what_is_not_decided_is_temporary() {
        assert_eq!(Exit::default().code(), 71);
        // Permanent to a caller: 11 to 40, and 115.
        let temporary = [
            Exit::Write,
            Exit::Read,
            Exit::Settings,
            Exit::Late,
            Exit::Down,
            Exit::Internal,
            Exit::Envelope,
            Exit::NoOriginal,
        ];
        assert!(temporary.iter().all(|exit| exit.code() > 40 && exit.code() != 115));
    }

    proptest! {
        #[test]
        fn every_text_is_one_line(line in "\\PC{0,300}|[45][0-9]{2} [45]\\.[0-9]\\.[0-9] .{0,300}|.{0,300}", most in 20..1024_usize, reject: bool) {
            let letter = if reject { b'D' } else { b'Z' };
            let text = written(letter, &line, most);
            prop_assert!(text.len() >= 3 && text.len() <= most, "{}", text.len());
            prop_assert_eq!(text[0], letter);
            prop_assert!(text.iter().all(|octet| (b' '..=b'~').contains(octet)));
            prop_assert!(text.ends_with(b")"));
        }
    }
}
