//! The changes of a plan to Exim's files, gathered: a file that gets several texts is changed once.

use checkpost_setup::text::{self, HASH, Marks, Place as At};
use checkpost_setup::{Change, Look, Obstacle, Owner};

use super::{Place, RETRY, ROUTERS, TRANSPORTS};

/// One for each section, since the one file gets several of them.
const ROUTER_MARKS: Marks = Marks { begin: "# BEGIN checkpost router", end: "# END checkpost router" };
const TRANSPORT_MARKS: Marks = Marks { begin: "# BEGIN checkpost transport", end: "# END checkpost transport" };
const RETRY_MARKS: Marks = Marks { begin: "# BEGIN checkpost retry", end: "# END checkpost retry" };

/// Files, and what becomes of them.
pub(super) struct Edits<'a> {
    look: &'a dyn Look,
    files: Vec<File>,
    /// Lines, and parts of lines, that must then stand in the file that Debian makes.
    made: Vec<String>,
    parts: Vec<String>,
}

struct File {
    path: String,
    from: Option<String>,
    to: String,
    why: Vec<String>,
}

impl<'a> Edits<'a> {
    pub(super) fn new(look: &'a dyn Look) -> Self {
        Self { look, files: Vec::new(), made: Vec::new(), parts: Vec::new() }
    }

    /// The file as it will be.
    pub(super) fn text(&mut self, path: &str) -> Result<&str, Obstacle> {
        Ok(&self.file(path)?.to)
    }

    /// Another text for a file.
    pub(super) fn set(&mut self, path: &str, to: String, why: &str) -> Result<(), Obstacle> {
        let file = self.file(path)?;
        if file.to != to {
            file.to = to;
            if !file.why.iter().any(|known| known == why) {
                file.why.push(why.to_owned());
            }
        }
        Ok(())
    }

    /// Lines of ours between marks, unless somebody has entered the same by hand.
    pub(super) fn lines(&mut self, path: &str, place: Place, lines: &str, why: &str) -> Result<(), Obstacle> {
        let before = self.text(path)?;
        let (marks, line) = match place {
            ROUTERS => (ROUTER_MARKS, Some("begin routers")),
            TRANSPORTS => (TRANSPORT_MARKS, Some("begin transports")),
            RETRY => (RETRY_MARKS, Some("begin retry")),
            _ => (HASH, None),
        };
        if !before.contains(marks.begin) && before.contains(lines) {
            return Ok(());
        }
        let is = |text: &str| Some(text.trim()) == line;
        let at = line.map(|name| At { name, is: &is, behind: true });
        let new = text::with_block(before, marks, lines, at).map_err(|error| {
            let hint = "put the marks right, or take them out; in Debian's files each section has its begin line";
            Obstacle::new(format!("{path}: {error}"), hint)
        })?;
        self.set(path, new, why)
    }

    /// These lines must stand in the file that Debian makes.
    pub(super) fn makes(&mut self, text: &str) {
        let is_read = |line: &&str| !line.trim_start().starts_with('#') && !line.trim().is_empty();
        self.made.extend(text.lines().filter(is_read).map(|line| line.trim().to_owned()));
    }

    /// This must stand somewhere in the file that Debian makes.
    pub(super) fn makes_part(&mut self, part: &str) {
        self.parts.push(part.to_owned());
    }

    /// All changes, and whether Debian's file must be made anew for them.
    pub(super) fn changes(self, made: &str) -> (Vec<Change>, bool) {
        let stands = |line: &String| made.lines().any(|there| there.trim() == line);
        let missing = !self.made.iter().all(stands) || !self.parts.iter().all(|part| made.contains(&**part));
        let mut changes = Vec::new();
        for File { path, from, to, why } in self.files.into_iter().filter(|file| !file.why.is_empty()) {
            changes.extend(Change::write(&path, from.as_deref(), &to, Owner::root(), 0o644, &why.join("; ")));
        }
        let anew = missing || !changes.is_empty();
        (changes, anew)
    }

    fn file(&mut self, path: &str) -> Result<&mut File, Obstacle> {
        let at = match self.files.iter().position(|file| file.path == path) {
            Some(at) => at,
            None => {
                let from = self.look.text(path)?;
                let to = from.clone().unwrap_or_default();
                self.files.push(File { path: path.to_owned(), from, to, why: Vec::new() });
                self.files.len() - 1
            }
        };
        Ok(&mut self.files[at])
    }
}
