//! `check`, for cron.

use configure_mta::dialogue::Given;

use super::arguments::answers;
use super::words::{chain, complain, say};
use super::{NO, Session, applied, new_filters};

impl Session<'_> {
    pub(crate) fn check(&self) -> anyhow::Result<u8> {
        let mut given = Given { answers: answers(self.common)? };
        let runs = self.runs()?;
        let Some(about) = applied(&runs) else {
            complain("configure_mta: nothing is set up by configure_mta here, or it may not be read: be root");
            return Ok(NO);
        };
        let mut troubles = Vec::new();
        if runs.iter().any(|run| !run.is_applied()) {
            troubles.push("a run was cut off: run `configure_mta apply` or `undo`, which put it back".to_owned());
        }
        let chosen = self.as_applied(&mut given)?;
        let mut filters = Vec::new();
        match self.compose(&chosen) {
            Ok(composed) => {
                for (part, changes) in &composed.setup.parts {
                    troubles.extend(
                        changes.iter().map(|change| format!("{}: not in place: {}", part.title, change.title())),
                    );
                }
                troubles.extend(composed.plan.warnings.iter().cloned());
                filters.clone_from(&composed.setup.begin.filters);
                troubles.extend(new_filters(&runs, &filters).map(|filter| {
                    format!("another filter came into the path: {filter} (`configure_mta apply` takes note of it)")
                }));
                if self.live() {
                    if chosen.found.running == Some(false) {
                        troubles.push(format!("{} does not run", chosen.mta.title()));
                    }
                    let prove = self.prover(&chosen, &composed, String::new(), false)?;
                    let proofs = prove.reach()?;
                    let bad = proofs.into_iter().filter(|proof| proof.ok == Some(false));
                    troubles.extend(bad.map(|proof| format!("not so: {}: {}", proof.what, proof.seen)));
                }
            }
            Err(obstacle) => troubles.push(chain(&*obstacle)),
        }
        if self.common.json {
            say(&serde_json::to_string_pretty(
                &serde_json::json!({"set_up": about, "troubles": troubles, "filters": filters}),
            )?);
        } else if troubles.is_empty() {
            say(&format!("ok   {about}: all is in place"));
        } else {
            complain(&format!("configure_mta: {about}: not all is as it should be"));
            troubles.iter().for_each(|trouble| complain(&format!("TROUBLE {trouble}")));
        }
        Ok(if troubles.is_empty() { 0 } else { NO })
    }
}
