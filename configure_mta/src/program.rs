//! One call of the program: what its commands share.

mod apply;
pub(crate) mod arguments;
mod check;
pub(crate) mod look;
mod proof;
mod undo;
pub(crate) mod words;

use std::io;
use std::path::PathBuf;

use checkpost_setup::Obstacle;
use configure_mta::compose::{Chosen, Composed, compose};
use configure_mta::dialogue::{self, Given};
use configure_mta::engine::{Engine, Watch};
use configure_mta::journal::{Journals, Run};
use configure_mta::machine::{Machine, Programs};
use configure_mta::signals::Signals;

use arguments::Common;
use words::{complain, say};

/// Something is in the way, or is not as it should be.
pub(crate) const NO: u8 = 1;

/// One call of the program.
pub(crate) struct Session<'a> {
    pub(crate) common: &'a Common,
    pub(crate) machine: Machine<'a>,
    pub(crate) programs: &'a Programs,
    /// The folder with Checkpost's programs.
    pub(crate) source: PathBuf,
    pub(crate) signals: Signals,
}

impl Session<'_> {
    /// Can programs be started and asked, or is this a system in a folder?
    fn live(&self) -> bool {
        self.machine.tree.is_host()
    }

    fn runs(&self) -> anyhow::Result<Vec<Run>> {
        Ok(Journals::look(self.machine.tree)?)
    }

    fn choose(&self, given: &mut Given) -> anyhow::Result<Chosen> {
        Ok(dialogue::choose(&self.machine, given)?)
    }

    /// With the answers of the run that set it up.
    fn as_applied(&self, given: &mut Given) -> anyhow::Result<Chosen> {
        let runs = self.runs()?;
        let begin = runs.last().and_then(Run::begin);
        let Some(begin) = begin else {
            anyhow::bail!("nothing is set up by configure_mta here, or it may not be read: be root")
        };
        given.answers.extend(begin.answers.clone());
        let mta = begin.instance.as_ref().map_or(begin.mta.clone(), |instance| format!("{}:{instance}", begin.mta));
        given.answers.insert("mta".into(), mta);
        given.answers.insert("method".into(), begin.method.clone());
        self.choose(given)
    }

    fn compose(&self, chosen: &Chosen) -> anyhow::Result<Composed> {
        compose(&self.machine, chosen, self.live(), &self.source).map_err(|obstacle| match obstacle {
            Obstacle::Refused { why, hint } => anyhow::anyhow!("{why}\nWhat would help: {hint}\nNothing was changed."),
            other => other.into(),
        })
    }

    fn heal(&self, journals: &Journals) -> anyhow::Result<bool> {
        let machine = Machine { tree: self.machine.tree, tools: self.machine.tools };
        let programs = |name: &str| std::fs::read(self.source.join(name));
        let held = self.signals.hold();
        let healed = Engine { machine, watch: &mut Told, stop: held.came(), programs: &programs }.heal(journals)?;
        drop(held);
        self.signals.none_came()?;
        if healed {
            complain("configure_mta: an earlier run was cut off; what it had done was put back");
        }
        Ok(healed)
    }

    fn needs_root(&self, what: &str) -> anyhow::Result<()> {
        let root = rustix::process::geteuid().is_root();
        anyhow::ensure!(root || !self.live(), "be root {what}; looking works for anybody: `detect`, `plan`");
        Ok(())
    }
}

/// Tells of each step.
struct Told;

impl Watch for Told {
    fn step(&mut self, what: &str) -> io::Result<()> {
        say(&format!("  .. {what}"));
        Ok(())
    }
}

/// What is set up, in a few words.
fn applied(runs: &[Run]) -> Option<String> {
    let begin = runs.last()?.begin()?;
    let instance = begin.instance.as_ref().map(|instance| format!(" ({instance})")).unwrap_or_default();
    Some(format!("{} of {}{instance}", begin.method, begin.mta))
}

/// Filters that were not in the path when the last run was made.
fn new_filters<'a>(runs: &'a [Run], filters: &'a [String]) -> impl Iterator<Item = &'a String> {
    let known = runs.last().and_then(Run::begin).map(|begin| &begin.filters);
    filters.iter().filter(move |filter| known.is_none_or(|known| !known.contains(filter)))
}
