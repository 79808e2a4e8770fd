//! What a plug-in asks the administrator, and the answers.

use std::collections::BTreeMap;

use serde::Serialize;

/// Something that cannot be found out by looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The key in an answers file and in `--set KEY=VALUE`.
    pub key: &'static str,
    /// The question, in one line.
    pub ask: &'static str,
    /// What may be answered; none: any text without control characters.
    pub choices: &'static [Choice],
    /// What is taken unless something else is answered.
    pub default: &'static str,
}

/// One possible answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// As in an answers file.
    pub value: &'static str,
    /// What it means, in one line.
    pub about: &'static str,
}

/// The question that every way with a choice has: what becomes of mail while Checkpost does not answer.
pub const WHEN_DOWN: Question = Question {
    key: "when_down",
    ask: "What becomes of mail while Checkpost does not answer?",
    choices: &[
        Choice {
            value: "closed",
            about: "fail-closed: it waits, at the sender or in the queue, and nothing passes unscanned",
        },
        Choice { value: "open", about: "fail-open: it passes UNSCANNED" },
    ],
    default: "closed",
};

/// Answers by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answers(pub BTreeMap<String, String>);

impl Answers {
    /// The answer, or the default.
    pub fn to<'a>(&'a self, question: &Question) -> &'a str
    where
        Question: 'a,
    {
        self.0.get(question.key).map_or(question.default, String::as_str)
    }

    /// Fail-closed, unless the answer to [`WHEN_DOWN`] is `open`.
    pub fn closed(&self) -> bool {
        self.to(&WHEN_DOWN) != "open"
    }
}

impl Question {
    /// Why this cannot be the answer.
    pub fn refuses(&self, answer: &str) -> Option<String> {
        if self.choices.is_empty() {
            let odd = answer.is_empty() || answer.chars().any(char::is_control);
            return odd.then(|| format!("{}: {answer:?} is empty or has control characters", self.key));
        }
        let known: Vec<&str> = self.choices.iter().map(|choice| choice.value).collect();
        let wrong = || format!("{}: {answer:?} is no answer; accepted: {}", self.key, known.join(", "));
        (!known.contains(&answer)).then(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_that_were_offered() {
        assert_eq!(WHEN_DOWN.refuses("open"), None);
        assert!(WHEN_DOWN.refuses("maybe").is_some_and(|why| why.contains("closed, open")));
        let port = Question { key: "port", ask: "Which port?", choices: &[], default: "10025" };
        assert_eq!(port.refuses("10030"), None);
        assert!(port.refuses("").is_some() && port.refuses("1\n2").is_some());
        assert!(Answers::default().closed());
        assert_eq!(Answers::default().to(&port), "10025");
    }
}
