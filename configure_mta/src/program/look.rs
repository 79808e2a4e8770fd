//! The commands that only look: `detect`, `plan`, `recipe`.

use checkpost_setup::{Change, Look};
use configure_mta::dialogue::{self, Given};
use configure_mta::journal::Part;
use configure_mta::service::Service;
use configure_mta::{by_hand, show};

use super::words::{complain, say};
use super::{NO, Session, applied};

impl Session<'_> {
    pub(crate) fn detect(&self) -> anyhow::Result<u8> {
        let all = dialogue::detect(&self.machine)?;
        if self.common.json {
            let all: Vec<_> = all.iter().map(|(_, found)| found).collect();
            say(&serde_json::to_string_pretty(&all)?);
        } else {
            for (mta, found) in &all {
                say(&show::found(mta.title(), found, mta.methods()));
            }
            let look: &dyn Look = &self.machine;
            say(&format!("services are started by: {}", Service::of(look, self.live())?.as_str()));
            if let Err(why) = self.needs_root("to change anything") {
                say(&format!("rights: {why}"));
            }
            if let Some(run) = applied(&self.runs()?) {
                say(&format!("set up by configure_mta: {}", run));
            }
        }
        if all.is_empty() {
            complain(&format!("configure_mta: {}", dialogue::nothing_found()));
            return Ok(NO);
        }
        Ok(0)
    }

    pub(crate) fn plan(&self, mut given: Given, explain: bool) -> anyhow::Result<u8> {
        let chosen = self.choose(&mut given)?;
        let composed = self.compose(&chosen)?;
        if self.common.json {
            let one = |(part, changes): &(Part, Vec<Change>)| serde_json::json!({"part": part.title, "changes": changes, "check": part.check, "activate": part.activate});
            let parts: Vec<_> = composed.setup.parts.iter().map(one).collect();
            let value = serde_json::json!({
                "mta": chosen.found, "method": chosen.method, "answers": chosen.answers, "done": composed.setup.is_empty(),
                "parts": parts, "meanwhile": composed.plan.meanwhile, "notes": composed.plan.notes,
                "warnings": composed.plan.warnings, "checkpost_toml": composed.plan.way,
            });
            say(&serde_json::to_string_pretty(&value)?);
            return Ok(0);
        }
        if explain {
            say(&show::abilities(chosen.mta.methods()));
        }
        say(show::plan(&chosen, &composed).trim_end());
        Ok(0)
    }
}

pub(crate) fn recipe(way: &str, json: bool) -> anyhow::Result<u8> {
    let plans = by_hand::plans();
    let chosen: Vec<_> = plans.iter().filter(|plan| plan.way == way).collect();
    if chosen.is_empty() {
        let mut known: Vec<_> = plans.iter().map(|plan| plan.way).collect();
        known.dedup();
        complain(&format!("configure_mta: no recipe for {way:?}; there are: {}", known.join(", ")));
        return Ok(NO);
    }
    let show = |plan: &&checkpost_adapter::setup::Plan| {
        if json { serde_json::to_string(plan).unwrap_or_default() } else { by_hand::as_text(plan) }
    };
    // One document, or one for each method.
    say(chosen.iter().map(show).collect::<Vec<_>>().join("\n\n").trim_end());
    Ok(0)
}
