//! The questions, in the same order whoever answers: a person at a terminal, a file, or the defaults. It changes nothing.

use std::collections::BTreeMap;
use std::io;

use checkpost_setup::{Answers, Choice, FileKind, Found, Look, Method, Mta, Question};

use crate::compose::{Chosen, MTAS};
use crate::own;
use crate::show;

/// Somebody, or something, that answers.
pub trait Prompt {
    /// One of several; the index.
    ///
    /// # Errors
    /// When there is no answer, or none of these.
    fn choose(&mut self, key: &str, ask: &str, choices: &[(String, String)], default: usize) -> io::Result<usize>;

    /// A line of text.
    ///
    /// # Errors
    /// When there is no answer.
    fn text(&mut self, key: &str, ask: &str, default: &str) -> io::Result<String>;

    /// Yes or no.
    ///
    /// # Errors
    /// When there is no answer.
    fn confirm(&mut self, key: &str, ask: &str, default: bool) -> io::Result<bool>;

    /// Something that is shown beside the questions.
    fn tell(&mut self, text: &str);
}

/// Answers that were given beforehand; what is not among them is left to the default.
#[derive(Debug, Default)]
pub struct Given {
    /// By key.
    pub answers: BTreeMap<String, String>,
}

impl Prompt for Given {
    fn choose(&mut self, key: &str, _ask: &str, choices: &[(String, String)], default: usize) -> io::Result<usize> {
        let Some(answer) = self.answers.get(key) else { return Ok(default) };
        let known = || choices.iter().map(|(value, _)| &**value).collect::<Vec<_>>().join(", ");
        let wrong = || io::Error::other(format!("{key}: {answer:?} is no answer here; accepted: {}", known()));
        choices.iter().position(|(value, _)| value == answer).ok_or_else(wrong)
    }

    fn text(&mut self, key: &str, _ask: &str, default: &str) -> io::Result<String> {
        Ok(self.answers.get(key).map_or(default, String::as_str).to_owned())
    }

    fn confirm(&mut self, key: &str, _ask: &str, default: bool) -> io::Result<bool> {
        match self.answers.get(key).map(String::as_str) {
            None => Ok(default),
            Some("yes" | "true") => Ok(true),
            Some("no" | "false") => Ok(false),
            Some(other) => Err(io::Error::other(format!("{key}: {other:?} is no answer; accepted: yes, no"))),
        }
    }

    fn tell(&mut self, _text: &str) {}
}

/// A person at a terminal.
#[derive(Debug)]
pub struct Terminal<'a> {
    /// Answers given on the command line or in a file: these are not asked.
    pub given: &'a mut Given,
}

impl Prompt for Terminal<'_> {
    fn choose(&mut self, key: &str, ask: &str, choices: &[(String, String)], default: usize) -> io::Result<usize> {
        if self.given.answers.contains_key(key) || choices.len() < 2 {
            return self.given.choose(key, ask, choices, default);
        }
        let width = choices.iter().map(|(value, _)| value.len()).max().unwrap_or(0);
        let lines: Vec<String> =
            choices.iter().map(|(value, about)| format!("{value:width$}  {about}").trim_end().to_owned()).collect();
        let chosen = inquire::Select::new(ask, lines)
            .with_starting_cursor(default)
            .without_filtering()
            .with_formatter(&|line| line.value.split("  ").next().unwrap_or_default().to_owned())
            .with_help_message("arrow keys to move, Enter to choose, Esc to leave")
            .raw_prompt();
        chosen.map(|chosen| chosen.index).map_err(left)
    }

    fn text(&mut self, key: &str, ask: &str, default: &str) -> io::Result<String> {
        if self.given.answers.contains_key(key) {
            return self.given.text(key, ask, default);
        }
        inquire::Text::new(ask).with_default(default).prompt().map_err(left)
    }

    fn confirm(&mut self, key: &str, ask: &str, default: bool) -> io::Result<bool> {
        if self.given.answers.contains_key(key) {
            return self.given.confirm(key, ask, default);
        }
        inquire::Confirm::new(ask).with_default(default).prompt().map_err(left)
    }

    fn tell(&mut self, text: &str) {
        use io::Write;
        // A terminal that went away is told of by the next question.
        let _ = writeln!(io::stdout(), "{text}");
    }
}

fn left(error: inquire::InquireError) -> io::Error {
    match error {
        inquire::InquireError::IO(error) => error,
        inquire::InquireError::OperationCanceled | inquire::InquireError::OperationInterrupted => {
            io::Error::new(io::ErrorKind::Interrupted, "left without a change")
        }
        other => io::Error::other(other),
    }
}

/// All that is installed.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn detect(look: &dyn Look) -> io::Result<Vec<(&'static dyn Mta, Found)>> {
    let mut all = Vec::new();
    for mta in MTAS {
        let found = mta.detect(look).map_err(io::Error::other)?;
        all.extend(found.into_iter().map(|found| (*mta, found)));
    }
    Ok(all)
}

/// What is said where there is no MTA.
pub fn nothing_found() -> String {
    let names: Vec<&str> = MTAS.iter().map(|mta| mta.title()).collect();
    let names = names.join(", ");
    format!(
        "no mail server was found; looked for: {names}. In front of any other one goes Checkpost's SMTP proxy, the way \
         smtp-proxy: write it into /etc/checkpost/checkpost.toml"
    )
}

/// Asks all that cannot be found out.
///
/// # Errors
/// When there is no MTA, or an answer is none.
pub fn choose(look: &dyn Look, prompt: &mut dyn Prompt) -> io::Result<Chosen> {
    let all = detect(look)?;
    if all.is_empty() {
        return Err(io::Error::other(nothing_found()));
    }
    let name = |(mta, found): &(&dyn Mta, Found)| match &found.instance {
        Some(instance) => format!("{}:{instance}", mta.name()),
        None => mta.name().to_owned(),
    };
    for (mta, found) in &all {
        prompt.tell(&show::found(mta.title(), found, mta.methods()));
    }
    let about = |found: &Found| match found.running {
        Some(true) => "running".to_owned(),
        Some(false) => "not running".to_owned(),
        None => String::new(),
    };
    let choices: Vec<_> = all.iter().map(|one| (name(one), about(&one.1))).collect();
    // What runs, unless something else is said.
    let running = all.iter().position(|(_, found)| found.running == Some(true)).unwrap_or(0);
    let chosen = prompt.choose("mta", "Which mail server?", &choices, running)?;
    let (mta, found) = all.into_iter().nth(chosen).ok_or(io::ErrorKind::NotFound)?;
    let methods: Vec<&Method> = mta.methods().iter().collect();
    // The paragraphs above the list say the rest.
    let choices: Vec<_> = methods.iter().map(|method| (method.name.to_owned(), String::new())).collect();
    prompt.tell(&show::ways(mta.methods()));
    let chosen = prompt.choose("method", "How is Checkpost to get its mail?", &choices, 0)?;
    let method = methods[chosen];
    let mut answers = BTreeMap::new();
    for question in method.questions {
        answers.insert(question.key.to_owned(), ask(prompt, question)?);
    }
    let clamd = look.about(own::CLAMD).map_err(io::Error::other)?.is_some_and(|about| about.kind == FileKind::Socket);
    let has = own::has_clamd(look).map_err(io::Error::other)?;
    if clamd || has {
        let choices = [
            ("clamd", "ClamAV's daemon, which was found, beside Checkpost's own checks"),
            ("none", "Checkpost's own checks alone: test strings, rules for attachments"),
        ];
        let choices = choices.map(|(value, about)| (value.to_owned(), about.to_owned()));
        let chosen = prompt.choose("scanner", "Which virus scanner?", &choices, 0)?;
        answers.insert("scanner".into(), choices[chosen].0.clone());
    } else {
        prompt.tell(&format!("Scanners: {}\n", show::NO_SCANNER));
    }
    Ok(Chosen { mta, found, method, answers: Answers(answers) })
}

fn ask(prompt: &mut dyn Prompt, question: &Question) -> io::Result<String> {
    let answer = if question.choices.is_empty() {
        prompt.text(question.key, question.ask, question.default)?
    } else {
        let one = |choice: &Choice| (choice.value.to_owned(), choice.about.to_owned());
        let choices: Vec<_> = question.choices.iter().map(one).collect();
        let default = question.choices.iter().position(|choice| choice.value == question.default).unwrap_or(0);
        choices[prompt.choose(question.key, question.ask, &choices, default)?].0.clone()
    };
    question.refuses(&answer).map_or(Ok(answer), |why| Err(io::Error::other(why)))
}
