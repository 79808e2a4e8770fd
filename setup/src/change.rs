//! One change to a machine, its reason, and how it is shown.

use serde::{Serialize, Serializer};

use crate::{Look, LookError};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The reason, for the administrator.
    pub why: String,
    /// What is done.
    #[serde(flatten)]
    pub what: What,
}

/// What is done. All but [`What::Run`] and [`What::ByHand`] are taken back without being told how: who carries them
/// out keeps what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum What {
    /// A file gets another content; owner and permissions stay if it is there, else they are these.
    Write {
        /// Which.
        path: String,
        /// Its content when the plan was made; `None`: there was none. If it is another by now, nothing is written.
        #[serde(serialize_with = "as_text")]
        from: Option<Vec<u8>>,
        /// Its content from now on.
        #[serde(serialize_with = "octets_as_text")]
        to: Vec<u8>,
        /// For a new file.
        owner: Owner,
        /// For a new file.
        mode: u32,
    },
    /// A folder, its owner and its permissions. It must not be there, or be just so.
    Folder {
        /// Which.
        path: String,
        /// Whose.
        owner: Owner,
        /// Permissions.
        mode: u32,
    },
    /// A copy of one of Checkpost's own programs, complete before it has its name.
    Program {
        /// The program's name, as in /usr/bin.
        name: String,
        /// Where the copy goes.
        path: String,
        /// Its permissions; it is root's.
        mode: u32,
    },
    /// A second name (a hard link) for a file, so that owner and set-id bits stay.
    SecondName {
        /// The file.
        path: String,
        /// Its second name; there is nothing of that name.
        name: String,
    },
    /// A command, such as the MTA's own editor.
    Run {
        /// Which.
        command: Command,
        /// The files that it may change, make or remove: they are kept first.
        touches: Vec<String>,
        /// What takes back those of its effects that are not in these files.
        back: Option<Command>,
        /// It makes its files out of others: when those are taken back after somebody changed them, it is run again.
        rebuilds: bool,
    },
    /// Something that only the administrator can do.
    ByHand {
        /// The steps, one a line.
        steps: String,
        /// The steps back, one a line.
        back: String,
    },
}

/// Whose a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The user, by name.
    pub user: String,
    /// The group, by name.
    pub group: String,
}

impl Owner {
    /// `user`, `group`.
    pub fn new(user: &str, group: &str) -> Self {
        Self { user: user.into(), group: group.into() }
    }

    /// root, root.
    pub fn root() -> Self {
        Self::new("root", "root")
    }
}

/// A program and its arguments. No shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Command(pub Vec<String>);

impl Command {
    /// Of words.
    pub fn new<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }

    /// For `sh -ec`; the title is what people see of it, and the name by which the shell calls itself.
    pub fn shell(title: &str, script: impl Into<String>) -> Self {
        Self(vec!["sh".into(), "-ec".into(), script.into(), title.into()])
    }

    /// In a few words, if it has such.
    pub fn title(&self) -> Option<&str> {
        match &self.0[..] {
            [sh, flag, _, title] if sh == "sh" && flag == "-ec" => Some(title),
            _ => None,
        }
    }

    /// For a list of steps.
    pub fn brief(&self) -> String {
        self.title().map_or_else(|| self.to_string(), str::to_owned)
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shell(&self.0))
    }
}

impl Change {
    /// A file's whole new content; `None` if it has it already.
    pub fn write(path: &str, from: Option<&str>, to: &str, owner: Owner, mode: u32, why: &str) -> Option<Self> {
        let what = || What::Write {
            path: path.into(),
            from: from.map(|from| from.as_bytes().to_vec()),
            to: to.as_bytes().to_vec(),
            owner,
            mode,
        };
        (from != Some(to)).then(|| Self { why: why.into(), what: what() })
    }

    /// What one of our small programs does while the daemon cannot be asked: `when_down` in its file of settings. None if it
    /// does so already; `defer` is its default.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn when_down(look: &dyn Look, file: &str, closed: bool) -> Result<Option<Self>, LookError> {
        Self::settings(look, file, &[], closed)
    }

    /// As [`Self::when_down`], with what else this machine needs: key, value, and the value that counts if there is none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn settings(
        look: &dyn Look,
        file: &str,
        needs: &[(&str, &str, &str)],
        closed: bool,
    ) -> Result<Option<Self>, LookError> {
        let there = look.text(file)?;
        let mut text = there.clone().unwrap_or_default();
        let mut reasons = Vec::new();
        for (key, value, default) in needs {
            if crate::text::setting(&text, key).as_deref().unwrap_or(default) != *value {
                text = crate::text::with_setting(&text, key, value);
                reasons.push(format!("{key} is another here than usual"));
            }
        }
        if !closed || crate::text::setting(&text, "when_down").is_some() {
            let (value, why) = if closed {
                ("defer", "while the daemon does not answer, mail is put off")
            } else {
                ("pass", "while the daemon does not answer, mail passes UNSCANNED, as was chosen")
            };
            text = crate::text::with_setting(&text, "when_down", value);
            reasons.push(why.into());
        }
        // What was there may be as it is to be, by another spelling.
        let new = if reasons.is_empty() { None } else { Some(text) };
        Ok(new.and_then(|new| Self::write(file, there.as_deref(), &new, Owner::root(), 0o644, &reasons.join("; "))))
    }

    /// A command whose effects are in files.
    pub fn run(command: Command, touches: &[&str], why: &str) -> Self {
        let touches = touches.iter().map(|path| (*path).to_owned()).collect();
        Self { why: why.into(), what: What::Run { command, touches, back: None, rebuilds: false } }
    }

    /// What it does, in one line.
    pub fn title(&self) -> String {
        match &self.what {
            What::Write { path, from: None, .. } => format!("make {path}"),
            What::Write { path, .. } => format!("change {path}"),
            What::Folder { path, owner, mode } => {
                format!("make the folder {path} ({}:{}, {mode:04o})", owner.user, owner.group)
            }
            What::Program { name, path, mode } => format!("copy the program {name} to {path} ({mode:04o})"),
            What::SecondName { path, name } => format!("give {path} a second name, {name}"),
            What::Run { command, .. } => command.title().map_or_else(|| format!("run {command}"), str::to_owned),
            What::ByHand { .. } => "by hand".into(),
        }
    }
}

/// Words as a shell takes them.
pub fn shell<S: AsRef<str>>(words: &[S]) -> String {
    words.iter().map(|word| quoted(word.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn as_text<S: Serializer>(octets: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    octets.as_ref().map(|octets| String::from_utf8_lossy(octets)).serialize(serializer)
}

fn octets_as_text<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    String::from_utf8_lossy(octets).serialize(serializer)
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

    #[test]
    fn a_file_that_has_its_content_is_no_change() {
        let write = |from| Change::write("/etc/x", from, "new\n", Owner::root(), 0o644, "because");
        assert_eq!(write(Some("new\n")), None);
        assert_eq!(write(Some("old\n")).unwrap().title(), "change /etc/x");
        assert_eq!(write(None).unwrap().title(), "make /etc/x");
    }
}
