//! What a plug-in says of its MTA.

use checkpost_core::Abilities;
use serde::Serialize;

use crate::{Answers, Change, Command, Limit, Look, LookError, Question};

/// One MTA, as `configure_mta` knows it.
pub trait Mta: Sync {
    /// In commands and files: `postfix`.
    fn name(&self) -> &'static str;

    /// The program's users to people: `Postfix`.
    fn title(&self) -> &'static str;

    /// What is there of it: one for each instance, none if it is not installed.
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError>;

    /// How Checkpost can get its mail; the first is what to take unless there is a reason.
    fn methods(&self) -> &'static [Method];

    /// What is missing for a method.
    ///
    /// # Errors
    /// When it cannot or must not be set up here.
    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle>;
}

/// One installed MTA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As [`Mta::name`].
    pub mta: &'static str,
    /// Which, where several of it run on one host; a folder or a name.
    pub instance: Option<String>,
    /// As it calls it itself.
    pub version: Option<String>,
    /// `None`: it cannot be told.
    pub running: Option<bool>,
    /// Layout and whatever else decides.
    pub facts: Vec<Fact>,
    /// Other filters in the path of mail.
    pub filters: Vec<String>,
    /// What was not understood, or will be in the way.
    pub doubts: Vec<String>,
    /// The domain that it takes mail for, for probes.
    pub domain: Option<String>,
}

impl Found {
    /// Nothing known yet.
    pub fn new(mta: &'static str) -> Self {
        Self {
            mta,
            instance: None,
            version: None,
            running: None,
            facts: Vec::new(),
            filters: Vec::new(),
            doubts: Vec::new(),
            domain: None,
        }
    }

    /// Adds a fact.
    pub fn knows(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push(Fact { name, value: value.into() });
    }

    /// A fact by its name.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|fact| fact.name == name).map(|fact| &*fact.value)
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// What was found.
    pub value: String,
}

/// One way to put Checkpost into an MTA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Method {
    /// As an administrator types it: the way's kind, and where a kind has several methods, `/` and a word.
    pub name: &'static str,
    /// The way's kind, as in checkpost.toml.
    pub kind: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// What becomes of mail while Checkpost is down, in one line.
    pub when_down: &'static str,
    /// What the way can do.
    pub abilities: Abilities,
    /// What is asked.
    pub questions: &'static [Question],
}

/// What is missing for a method to be in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The tables for checkpost.toml: `[[way]]`.
    pub way: String,
    /// Folders and files that the daemon needs before it starts.
    pub prepare: Vec<Change>,
    /// Folders outside its own that the daemon writes to.
    pub writes: Vec<String>,
    /// Changes to the MTA, in this order, made when the daemon serves.
    pub changes: Vec<Change>,
    /// The MTA's own look at its configuration.
    pub check: Vec<Command>,
    /// From now on it counts: reload or restart. At undo, once more.
    pub activate: Vec<Command>,
    /// At undo, when the MTA goes without Checkpost: mail in its queue.
    pub settle: Vec<Command>,
    /// Has the MTA try mail again that waits in its queue.
    pub flush: Vec<Command>,
    /// How long the MTA waits: compared with Checkpost's own times, now and by `check`.
    pub limits: Vec<Limit>,
    /// What does not fit together: found again by `check`.
    pub warnings: Vec<String>,
    /// What happens to mail meanwhile, and what is restarted.
    pub meanwhile: String,
    /// What the administrator should know or do beside.
    pub notes: Vec<String>,
    /// Where the daemon listens, and where the MTA does for it; and who connects.
    pub sockets: Vec<Socket>,
    /// How a mail gets in to try it.
    pub submission: Submission,
    /// The MTA takes no mail from a sender of its own domain whom it does not know.
    pub checks_senders: bool,
    /// A forward, an alias's too, is a new mail to the MTA, and comes by Checkpost once more.
    pub forwards_anew: bool,
}

/// A socket of the daemon, of one of our programs, or of the MTA for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Socket {
    /// `unix:/path` or `HOST:PORT`.
    pub address: String,
    /// The user whose process connects; `None`: anybody.
    pub user: Option<String>,
}

/// How a probe gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submission {
    /// By SMTP.
    Smtp {
        /// `HOST:PORT`.
        address: String,
    },
    /// By a program like sendmail(1), as an unprivileged user: sender and recipient are appended.
    Program {
        /// The words before `SENDER` and `RECIPIENT`.
        command: Command,
    },
}

impl Default for Submission {
    fn default() -> Self {
        Self::Smtp { address: "127.0.0.1:25".into() }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It needs something that is not there, or something else is in its place: what, and what would help.
    #[error("{why}")]
    Refused {
        /// What is in the way.
        why: String,
        /// What would help.
        hint: String,
    },
    /// The machine cannot be looked at.
    #[error(transparent)]
    Look(#[from] LookError),
}

impl Obstacle {
    /// In two sentences.
    pub fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { why: why.into(), hint: hint.into() }
    }
}
