//! Exim for `configure_mta`: a way's recipe, made into a plan for this machine. In Debian's split layout our files are files of
//! their own, in the other one blocks between marks. A configuration that is not Debian's is left alone.

use checkpost_setup::{Answers, Found, Look, LookError, Method, Mta, Obstacle, Plan};

use super::debian::Debian;
use super::methods::METHODS;
use super::ports::Ports;
use super::way::Way;
use super::{BY_HAND, ONE_FILE, SPLIT, Step, detect, recipes};
use crate::acl::{CLAMD, RSPAMD, SPAMD};
use crate::local_scan::LOCAL_SCAN;
use crate::transport::{PIPE, TRANSPORT};

/// The plug-in's Exim.
#[derive(Debug)]
pub struct Exim;

impl Mta for Exim {
    fn name(&self) -> &'static str {
        "exim"
    }

    fn title(&self) -> &'static str {
        "Exim"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        detect::found(look)
    }

    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let Some(debian) = Debian::read(look)? else {
            return Err(Obstacle::new(
                format!("{BY_HAND} was written by hand, and is not changed"),
                format!("enter what `configure_mta recipe {}` prints", method.kind),
            ));
        };
        let layout = if debian.split { SPLIT } else { ONE_FILE };
        let recipe = recipes().find(|recipe| recipe.kind == method.kind && recipe.method == Some(layout));
        let recipe = recipe.ok_or_else(|| Obstacle::new("no such recipe", "see configure_mta detect"))?;
        let ports = Ports::of(method, answers)?;
        let mut way = Way::new(look, &debian, answers, &ports, found);
        way.serves(recipe.way);
        match method.kind {
            kind if kind == LOCAL_SCAN.name => way.local_scan()?,
            kind if kind == TRANSPORT.name => way.transport()?,
            kind if kind == PIPE.name => way.pipe()?,
            kind if kind == CLAMD.name => way.clamd(found)?,
            kind if kind == SPAMD.name => way.spamd(found)?,
            kind if kind == RSPAMD.name => way.rspamd(found)?,
            other => return Err(Obstacle::new(format!("{other} is no way of Exim's"), "see configure_mta detect")),
        }
        for step in recipe.steps {
            match *step {
                Step::Lines { file, place, lines, why } => way.lines(file, place, lines, why)?,
                Step::Listen => way.listen()?,
                Step::Library => way.library()?,
                Step::Restart | Step::Verify { .. } => {}
            }
        }
        way.plan()
    }
}
