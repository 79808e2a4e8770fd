//! What an administrator enters who sets a way up by hand, in a form to be shown: what is the same on every machine.
//! What is missing on one machine is a [`crate::Plan`].

pub use crate::change::shell;

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
