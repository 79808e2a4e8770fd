//! What is wrong with a configuration, where, and what would be accepted.
//!
//! Problems are collected, not returned at the first: an administrator sees all of them at once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a configuration file. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file; a name in angle brackets for text that is built into the program.
    pub file: Arc<Path>,
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl Place {
    /// The file and line, without the column: as `config show --origin` has it.
    pub fn file_and_line(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }

    /// A path written at this place: a relative one starts in the folder of the file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One thing that is wrong. `Display` is one line:
/// `FILE:LINE:COLUMN: KEY: what is wrong; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when there is no file to point into.
    pub place: Option<Place>,
    /// The key's full name: `rule[0].when.finding`; may be empty.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be accepted.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem at a place, with the key's full name.
    pub fn at(place: &Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Some(place.clone()), key: key.into(), message: message.into(), hint: None }
    }

    /// A problem that has no place in a file.
    pub fn general(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: None, key: key.into(), message: message.into(), hint: None }
    }

    /// With what would be accepted.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A name that is not among the accepted ones: `unknown WHAT "GIVEN"`, the nearest accepted
    /// name, and all of them.
    pub fn unknown_name<'a>(
        place: &Place,
        key: impl Into<String>,
        what: &str,
        given: &str,
        accepted: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let accepted: Vec<&str> = accepted.into_iter().collect();
        let mut problem = Self::at(place, key, format!("unknown {what} {given:?}"));
        problem.hint = Some(suggestion(given, &accepted));
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order it was found. `Display` has one line for each, sorted by
/// place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One more.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Nothing wrong?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// `Ok` when nothing is wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl Extend<Problem> for Problems {
    fn extend<T: IntoIterator<Item = Problem>>(&mut self, problems: T) {
        self.0.extend(problems);
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Problem> = self.0.iter().collect();
        sorted.sort_by(|a, b| a.place.cmp(&b.place));
        for (index, problem) in sorted.into_iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `did you mean "X"? accepted: A, B, X`, the question only when a name is near.
pub fn suggestion(given: &str, accepted: &[&str]) -> String {
    // More than a third of the letters wrong is another word, not a slip.
    let bound = (given.chars().count() / 3).max(1);
    let near = accepted
        .iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), *name))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance);
    let list = if accepted.is_empty() {
        "accepted: none, for none is defined".into()
    } else {
        format!("accepted: {}", accepted.join(", "))
    };
    match near {
        Some((_, name)) => format!("did you mean {name:?}? {list}"),
        None => list,
    }
}
