//! Takes back what a journal says was done. After a failure every file is put back as it was. At will, a file that
//! somebody else has changed since keeps their changes and loses ours; where the two cannot be told apart, nothing is
//! done at all, and the lines are shown.

use std::collections::BTreeMap;
use std::io;

use checkpost_setup::{Command, FileKind};

use crate::engine::Watch;
use crate::journal::{JournalError, Journals, Kept, Record, Run};
use crate::machine::Machine;
use crate::tree::Whole;

/// Why something was not taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// Somebody else changed what we wrote. Nothing was done.
    #[error("{} changed since: nothing was undone", paths(.0))]
    Changed(Vec<Conflict>),
    /// Some steps back failed; the journal is still there, and the next run tries again.
    #[error("could not be taken back: {}", .0.join("; "))]
    Failed(Vec<String>),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file in which our text and somebody's change to it cannot be told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Which.
    pub path: String,
    /// What was changed, as a unified diff from what we left to what is there.
    pub diff: String,
}

/// What a file was, and what we left.
struct Touched {
    was: Option<Whole>,
    /// All that we or our commands have made of it, in order.
    is: Vec<Option<Whole>>,
    /// Whatever is there is the work of a command that was cut off.
    all_ours: bool,
    /// A program of ours, with these permissions.
    program: Option<u32>,
    /// A command that makes it out of others.
    rebuilt_by: Option<Command>,
}

/// What is to be done with a file.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Put(Option<Whole>),
    /// A product of others that changed: by this command, when they are back.
    Rebuild(Command),
    Conflict(String),
}

/// Puts everything of a run back as it was, then forgets it. Nobody is asked: the run was not finished.
///
/// # Errors
/// When something cannot be put back; the rest is.
pub fn roll_back(machine: &Machine<'_>, journals: &Journals, run: &Run) -> Result<(), UndoError> {
    let mut back = Back { machine, run, at_will: false, force: false, failed: Vec::new() };
    for record in &run.records {
        // Room for what is put back, on a disk that is full.
        if let Record::Reserve(path) = record {
            machine.tree.remove(path)?;
        }
    }
    back.take(&mut crate::engine::Quiet)?;
    back.end(journals)
}

/// Takes back a run that was carried out, then forgets it. The journal says so first.
///
/// # Errors
/// When somebody changed our text since: then nothing is done.
pub fn undo(machine: &Machine<'_>, journals: &Journals, run: &Run, watch: &mut dyn Watch) -> Result<(), UndoError> {
    undo_all(machine, journals, std::slice::from_ref(run), false, watch)
}

/// As [`undo`], for several runs, lowest first. With `force`, a file that somebody changed is put back as it was, and
/// theirs stays beside it as `NAME.before-undo`.
///
/// # Errors
/// As [`undo`].
pub fn undo_all(
    machine: &Machine<'_>,
    journals: &Journals,
    runs: &[Run],
    force: bool,
    watch: &mut dyn Watch,
) -> Result<(), UndoError> {
    let conflicts = foresee(machine, runs)?;
    if !force && !conflicts.is_empty() {
        return Err(UndoError::Changed(conflicts));
    }
    for run in runs.iter().filter(|run| !run.is_undoing()) {
        journals.open(run)?.write(&Record::Undo)?;
    }
    for run in runs.iter().rev() {
        let mut back = Back { machine, run, at_will: true, force, failed: Vec::new() };
        back.take(watch)?;
        back.end(journals)?;
    }
    Ok(())
}

/// What would stop an undo.
///
/// # Errors
/// When a file cannot be read.
pub fn foresee(machine: &Machine<'_>, runs: &[Run]) -> Result<Vec<Conflict>, UndoError> {
    let mut conflicts = Vec::new();
    // What a higher run has put back is what a lower one finds.
    let mut seen: BTreeMap<String, Option<Whole>> = BTreeMap::new();
    for run in runs.iter().rev() {
        for (path, touched) in touched(run)? {
            let here = match seen.get(&path) {
                Some(here) => here.clone(),
                None => machine.tree.read_program(&path)?,
            };
            match touched.back(here.as_ref()) {
                Step::Put(whole) => drop(seen.insert(path, whole)),
                Step::Conflict(diff) => conflicts.push(Conflict { path, diff }),
                Step::Nothing => drop(seen.insert(path, here)),
                Step::Rebuild(_) => drop(seen.insert(path, touched.was)),
            }
        }
    }
    Ok(conflicts)
}

/// Files of a run that are not as we left them, for `check`: with the difference.
///
/// # Errors
/// When a file cannot be read.
pub fn changed(machine: &Machine<'_>, run: &Run) -> Result<Vec<Conflict>, UndoError> {
    let mut changed = Vec::new();
    for (path, touched) in touched(run)? {
        let here = machine.tree.read_program(&path)?;
        let content = |whole: &Option<Whole>| whole.as_ref().map(|whole| whole.content.clone());
        let last = touched.is.last().and_then(content);
        let is_program = |here: &Whole| Some(here.attributes.mode) == touched.program;
        if !touched.all_ours && !here.as_ref().is_some_and(is_program) && content(&here) != last {
            changed.push(Conflict { path, diff: diff(last.as_deref(), content(&here).as_deref()) });
        }
    }
    Ok(changed)
}

/// A unified diff; `None` is a file that is not there.
pub fn diff(from: Option<&[u8]>, to: Option<&[u8]>) -> String {
    match (from, to) {
        (_, None) => "the file is gone\n".into(),
        (Some(from), _) | (None, Some(from)) if from.contains(&0) => "(not a text)\n".into(),
        (from, Some(to)) => {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            let patch = diffy::create_patch(&from.map(text).unwrap_or_default(), &text(to)).to_string();
            // The names of the two sides say nothing.
            patch.lines().skip(2).map(|line| format!("{line}\n")).collect()
        }
    }
}

impl Touched {
    /// What is to be done to have it as it was, but for what others changed.
    fn back(&self, here: Option<&Whole>) -> Step {
        let content = |whole: Option<&Whole>| whole.map(|whole| whole.content.clone());
        if content(here) == content(self.was.as_ref()) {
            return Step::Nothing;
        }
        let ours = |is: &Option<Whole>| content(is.as_ref()) == content(here);
        let is_program = |here: &Whole| Some(here.attributes.mode) == self.program;
        if self.all_ours || self.is.iter().any(ours) || here.is_some_and(is_program) {
            return Step::Put(self.was.clone());
        }
        if let Some(command) = &self.rebuilt_by {
            return Step::Rebuild(command.clone());
        }
        let left = self.is.last().and_then(Option::as_ref);
        let shown = || diff(left.map(|left| &*left.content), here.map(|here| &*here.content));
        let (Some(was), Some(left), Some(here)) = (&self.was, left, here) else { return Step::Conflict(shown()) };
        match diffy::merge_bytes(&left.content, &was.content, &here.content) {
            Ok(content) => Step::Put(Some(Whole { content, attributes: here.attributes.clone() })),
            Err(_) => Step::Conflict(shown()),
        }
    }
}

/// The files of a run.
fn touched(run: &Run) -> Result<BTreeMap<String, Touched>, UndoError> {
    let mut all: BTreeMap<String, Touched> = BTreeMap::new();
    let whole = |kept: &Option<Kept>| kept.as_ref().map(|kept| run.kept(kept)).transpose();
    for record in &run.records {
        match record {
            Record::Register { path, was } if !all.contains_key(path) => {
                let touched =
                    Touched { was: whole(was)?, is: Vec::new(), all_ours: false, program: None, rebuilt_by: None };
                all.insert(path.clone(), touched);
            }
            Record::Intend { path, is } => {
                if let Some(touched) = all.get_mut(path) {
                    touched.is.push(Some(run.kept(is)?));
                }
            }
            Record::Now { path, is } => {
                if let Some(touched) = all.get_mut(path) {
                    touched.is.push(whole(is)?);
                    touched.all_ours = false;
                }
            }
            Record::Program { path, mode } => {
                if let Some(touched) = all.get_mut(path) {
                    touched.program = Some(*mode);
                }
            }
            Record::Run { command, touches, rebuilds, .. } => {
                for path in touches {
                    if let Some(touched) = all.get_mut(path) {
                        touched.all_ours = true;
                        touched.rebuilt_by = rebuilds.then(|| command.clone());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// One run on its way back.
struct Back<'a> {
    machine: &'a Machine<'a>,
    run: &'a Run,
    /// Not after a failure: others' changes stay, and queued mail is looked after.
    at_will: bool,
    force: bool,
    failed: Vec<String>,
}

impl Back<'_> {
    fn take(&mut self, watch: &mut dyn Watch) -> Result<(), UndoError> {
        let files = touched(self.run)?;
        let mut activated = self.at_will;
        let mut rebuild: Vec<Command> = Vec::new();
        for (i, record) in self.run.records.iter().enumerate().rev() {
            match record {
                Record::Activate => activated = true,
                Record::Run { back: Some(back), .. } => {
                    watch.step(&back.brief())?;
                    self.run(back);
                }
                Record::Register { path, .. } if self.is_first(i, path) => {
                    watch.step(&format!("put {path} back"))?;
                    let Some(touched) = files.get(path) else { continue };
                    match self.put(path, touched) {
                        Ok(Some(command)) => rebuild.push(command),
                        Ok(None) => {}
                        Err(error) => self.failed.push(format!("{path}: {error}")),
                    }
                }
                Record::Name(path) => {
                    watch.step(&format!("remove {path}"))?;
                    self.note(path, self.machine.tree.remove(path));
                }
                Record::Folder(path) => {
                    watch.step(&format!("remove the folder {path}"))?;
                    self.note(path, self.remove_folder(path));
                }
                Record::Part(part) => {
                    rebuild.drain(..).rev().collect::<Vec<_>>().iter().for_each(|command| self.run(command));
                    let activate = if activated { &part.activate[..] } else { &[] };
                    let settle = if self.at_will { &part.settle[..] } else { &[] };
                    for command in activate.iter().chain(settle) {
                        watch.step(&command.brief())?;
                        self.run(command);
                    }
                    activated = self.at_will;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_first(&self, at: usize, path: &str) -> bool {
        let same = |record: &Record| matches!(record, Record::Register { path: other, .. } if other == path);
        !self.run.records[..at].iter().any(same)
    }

    /// A command that makes it anew, if it is made out of others.
    fn put(&self, path: &str, touched: &Touched) -> io::Result<Option<Command>> {
        let tree = self.machine.tree;
        let here = tree.read_program(path)?;
        match touched.back(here.as_ref()) {
            // It may have been cut off just before the file got its name.
            Step::Nothing => tree.tidy(path)?,
            Step::Put(Some(whole)) => tree.replace(path, &whole)?,
            Step::Put(None) => tree.remove(path)?,
            Step::Rebuild(command) => return Ok(Some(command)),
            Step::Conflict(_) if self.force => {
                if let Some(here) = here {
                    tree.replace(&format!("{path}.before-undo"), &here)?;
                }
                match &touched.was {
                    Some(was) => tree.replace(path, was)?,
                    None => tree.remove(path)?,
                }
            }
            Step::Conflict(_) => return Err(io::Error::other("somebody else changed it since")),
        }
        Ok(None)
    }

    /// Sockets that a daemon left go with it; anything else keeps the folder.
    fn remove_folder(&self, path: &str) -> io::Result<()> {
        let tree = self.machine.tree;
        for name in tree.names(path)? {
            let inside = format!("{path}/{name}");
            if tree.about(&inside)?.is_some_and(|about| about.kind == FileKind::Socket) {
                tree.remove(&inside)?;
            }
        }
        if tree.remove_folder(path)? || self.at_will { Ok(()) } else { Err(io::Error::other("it is not empty")) }
    }

    fn run(&mut self, command: &Command) {
        if let Err(error) = self.machine.change(command) {
            self.failed.push(error.to_string());
        }
    }

    fn note(&mut self, path: &str, done: io::Result<()>) {
        if let Err(error) = done {
            self.failed.push(format!("{path}: {error}"));
        }
    }

    fn end(self, journals: &Journals) -> Result<(), UndoError> {
        if !self.failed.is_empty() {
            return Err(UndoError::Failed(self.failed));
        }
        Ok(journals.forget(&self.run.folder)?)
    }
}

fn paths(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(|conflict| &*conflict.path).collect::<Vec<_>>().join(", ")
}
