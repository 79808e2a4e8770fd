//! An answer as mails to be handed on: for a program that starts another one for each, as there is one content or sender
//! for each.

use checkpost_wire::check::{Answer, Form};

/// One mail to be handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The number of its content in the answer. No two runs have the same.
    pub content: usize,
    /// Its sender.
    pub sender: Vec<u8>,
    /// Its recipients, at least one.
    pub recipients: Vec<Vec<u8>>,
}

/// The runs that an accepting answer asks for; none if nobody gets the mail. `sender` and `recipients` are what was asked
/// about.
///
/// Several runs cannot be taken back together, so contents that differ in nothing but who gets them are one.
///
/// # Errors
/// The answer is about other recipients.
pub fn runs(answer: &Answer, sender: &[u8], recipients: &[&[u8]]) -> Result<Vec<Run>, &'static str> {
    if answer.outcomes.len() != recipients.len() {
        return Err("outcomes for other recipients");
    }
    let mut runs: Vec<Run> = Vec::new();
    for (number, (content, group)) in answer.contents.iter().zip(answer.groups()).enumerate() {
        let by = content.sender.as_ref().map_or(sender, |sender| sender.as_bytes());
        let same = |run: &Run| answer.contents[run.content].form == Form::Same && content.form == Form::Same;
        let at = runs.iter().position(|run| same(run) && run.sender == by).unwrap_or_else(|| {
            runs.push(Run { content: number, sender: by.to_vec(), recipients: Vec::new() });
            runs.len() - 1
        });
        let to = &mut runs[at].recipients;
        to.extend(group.iter().map(|index| recipients[*index].to_vec()));
        for added in &content.added {
            if !to.iter().any(|known| known == added.as_bytes()) {
                to.push(added.as_bytes().to_vec());
            }
        }
    }
    runs.retain(|run| !run.recipients.is_empty());
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use checkpost_wire::check::Outcome::{Deliver, Discard, Quarantine};
    use checkpost_wire::check::{Content, Decision, Outcome};

    use super::*;

    fn content(form: Form, sender: Option<&str>, added: &[&str]) -> Content {
        let added = added.iter().map(|&address| address.to_owned()).collect();
        Content { form, sender: sender.map(str::to_owned), added }
    }

    fn check(outcomes: Vec<Outcome>, contents: Vec<Content>, expected: &[(usize, &str, &[&str])]) {
        let answer = Answer { id: "1".into(), decision: Decision::Accept, outcomes, contents };
        let runs = runs(&answer, b"s@x", &[b"a", b"b", b"c", b"d"]).unwrap();
        let octets = |text: &&str| text.as_bytes().to_vec();
        let expected: Vec<Run> = expected
            .iter()
            .map(|(content, sender, recipients)| Run {
                content: *content,
                sender: octets(sender),
                recipients: recipients.iter().map(octets).collect(),
            })
            .collect();
        assert_eq!(runs, expected);
    }

    #[test]
    fn recipients_are_grouped_by_their_content() {
        let same = || content(Form::Same, None, &[]);
        let all = vec![Deliver(0), Deliver(0), Deliver(0), Deliver(0)];
        check(all, vec![same()], &[(0, "s@x", &["a", "b", "c", "d"])]);
        let two = vec![content(Form::Descriptor, Some("new@x"), &["copy", "a"]), same()];
        let runs: &[(_, _, &[_])] = &[(0, "new@x", &["a", "d", "copy"]), (1, "s@x", &["c"])];
        check(vec![Deliver(0), Discard, Deliver(1), Deliver(0)], two, runs);
        // Contents that are the same but for who gets them.
        let three = vec![content(Form::Same, None, &["copy"]), same(), content(Form::Same, Some("new@x"), &[])];
        let runs: &[(_, _, &[_])] = &[(0, "s@x", &["a", "copy", "b"]), (2, "new@x", &["d"])];
        check(vec![Deliver(0), Deliver(1), Discard, Deliver(2)], three, runs);
        check(vec![Discard, Quarantine, Discard, Discard], vec![same()], &[]);
    }

    #[test]
    fn an_answer_about_others_is_none() {
        let answer = Answer {
            id: "1".into(),
            decision: Decision::Accept,
            outcomes: vec![Deliver(0)],
            contents: vec![content(Form::Same, None, &[])],
        };
        assert!(runs(&answer, b"", &[b"a", b"b"]).is_err());
    }
}
