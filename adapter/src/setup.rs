//! What an administrator must enter for a way in, in a form to be shown. What it means to an MTA is in the
//! plug-ins; nothing is written from here.

/// Everything that one way needs, in a plug-in's own steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe<S: 'static> {
    /// The way's kind.
    pub kind: &'static str,
    /// Which of several methods for the kind, in a few words; `None`: there is one.
    pub method: Option<&'static str>,
    /// In this order.
    pub steps: &'static [S],
    /// Our own side, for checkpost.toml.
    pub way: &'static str,
}

/// One change to an MTA's configuration, as its plug-in knows it.
pub trait Step {
    /// To be shown.
    fn entry(&self) -> Entry;
}

impl<S: Step> Recipe<S> {
    /// To be shown.
    pub fn plan(&self) -> Plan {
        Plan {
            way: self.kind,
            method: self.method,
            steps: self.steps.iter().map(Step::entry).collect(),
            checkpost_toml: self.way,
        }
    }
}

/// Everything one way needs, to be shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// The way's kind.
    pub way: &'static str,
    /// Which of several methods, in a few words.
    pub method: Option<&'static str>,
    /// In this order.
    pub steps: Vec<Entry>,
    /// Our own side, for checkpost.toml.
    pub checkpost_toml: &'static str,
}

/// One thing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// The file that changes.
    pub file: Option<&'static str>,
    /// A command for a shell, complete and quoted.
    pub run: Option<String>,
    /// Lines to be put into the file by hand, and where.
    pub lines: Option<(&'static str, &'static str)>,
    /// The reason.
    pub why: Option<&'static str>,
    /// A command that takes it back, where that is more than to remove what was entered. Taken back in reverse order.
    pub undo: Option<String>,
}

/// Words as a shell takes them.
pub fn shell(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [("a=b", "a=b"), ("a b", "'a b'"), ("", "''"), ("it's", "'it'\\''s'"), ("$x", "'$x'")] {
            assert_eq!(quoted(word), expected);
        }
    }
}
