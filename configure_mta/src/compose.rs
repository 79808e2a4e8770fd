//! From an MTA and answers to a set-up: the plug-in's plan and Checkpost's own side, in the order in which they are done.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use checkpost_setup::{Answers, Change, Found, Look, Method, Mta, Obstacle, Plan, What};

use crate::engine::Setup;
use crate::journal::{Begin, Part};
use crate::machine::Machine;
use crate::{limits, own, service};

/// Every MTA, in the order in which they are looked for. A new one is one line here.
pub static MTAS: &[&dyn Mta] = &[
    &checkpost_postfix::setup::Postfix,
    &checkpost_sendmail::setup::Sendmail,
    &checkpost_exim::setup::Exim,
    &checkpost_courier::setup::Courier,
    &checkpost_qmail::setup::Qmail,
    &checkpost_zmailer::setup::ZMailer,
    &checkpost_communigate::setup::CommuniGate,
];

/// What was chosen.
#[derive(Clone)]
pub struct Chosen {
    /// The MTA.
    pub mta: &'static dyn Mta,
    /// As it was found.
    pub found: Found,
    /// How Checkpost gets its mail.
    pub method: &'static Method,
    /// The plug-in's questions, answered, and `scanner`.
    pub answers: Answers,
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen").field("found", &self.found).field("method", &self.method.name).finish_non_exhaustive()
    }
}

/// A plan, and the set-up made of it.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The plug-in's part.
    pub plan: Plan,
    /// All of it.
    pub setup: Setup,
}

/// What is missing on this machine. `source`: the folder with Checkpost's programs.
///
/// # Errors
/// When it cannot or must not be set up here.
pub fn compose(machine: &Machine<'_>, chosen: &Chosen, live: bool, source: &Path) -> Result<Composed, Obstacle> {
    let look: &dyn Look = machine;
    let mut plan = chosen.mta.plan(look, &chosen.found, chosen.method, &chosen.answers)?;
    plan.prepare = missing(machine, source, &plan.prepare)?;
    plan.warnings.extend(limits::warnings(look, chosen.method.kind, &plan.limits)?);
    let scanner = chosen.answers.0.get("scanner").filter(|scanner| *scanner == "clamd").map(|_| own::CLAMD);
    let mut parts = service::parts(look, &plan, scanner, live, source)?;
    let part = Part {
        title: chosen.mta.title().into(),
        check: plan.check.clone(),
        activate: plan.activate.clone(),
        settle: plan.settle.clone(),
    };
    parts.push((part, missing(machine, source, &plan.changes)?));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let begin = Begin {
        mta: chosen.found.mta.into(),
        instance: chosen.found.instance.clone(),
        method: chosen.method.name.into(),
        answers: chosen.answers.0.clone(),
        filters: others(&chosen.found, &plan),
        at: seconds,
    };
    Ok(Composed { plan, setup: Setup { begin, parts } })
}

/// The filters in the path that are not Checkpost.
fn others(found: &Found, plan: &Plan) -> Vec<String> {
    let is_ours = |filter: &String| plan.sockets.iter().any(|socket| filter.contains(&*socket.address));
    found.filters.iter().filter(|filter| !is_ours(filter)).cloned().collect()
}

fn missing(machine: &Machine<'_>, source: &Path, changes: &[Change]) -> Result<Vec<Change>, Obstacle> {
    let mut missing = Vec::new();
    for change in changes {
        if !is_done(machine, source, change)? {
            missing.push(change.clone());
        }
    }
    Ok(missing)
}

/// A plug-in cannot see the programs that it has copied.
fn is_done(machine: &Machine<'_>, source: &Path, change: &Change) -> Result<bool, Obstacle> {
    let What::Program { name, path, mode } = &change.what else { return Ok(false) };
    let there = machine.tree.read_program(path).map_err(crate::tree::look_error(path))?;
    let ours = std::fs::read(source.join(name)).map_err(crate::tree::look_error(name))?;
    Ok(there.is_some_and(|there| there.content == ours && there.attributes.mode == *mode))
}
