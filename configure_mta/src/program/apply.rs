//! `apply`: ask, show, carry out, prove.

use std::io::{self, IsTerminal};

use configure_mta::compose::Composed;
use configure_mta::dialogue::{self, Given, Prompt, Terminal};
use configure_mta::engine::{ApplyError, Engine};
use configure_mta::journal::{Journals, Run};
use configure_mta::machine::Machine;
use configure_mta::show;

use super::proof::outage;
use super::words::say;
use super::{NO, Session, Told, new_filters};

const PROVE: &str = "Send test mails through it? Checkpost is stopped for a moment, to see what becomes of mail then.";

impl Session<'_> {
    pub(crate) fn apply(&self, given: &mut Given) -> anyhow::Result<u8> {
        self.needs_root("to change a mail server's configuration")?;
        let journals = Journals::lock(self.machine.tree)?;
        self.programs.hold(journals.share()?);
        let done = self.apply_locked(&journals, given);
        journals.leave();
        done
    }

    fn apply_locked(&self, journals: &Journals, given: &mut Given) -> anyhow::Result<u8> {
        self.heal(journals)?;
        let asks = !self.common.yes;
        // Who cannot be asked has not said yes.
        anyhow::ensure!(
            !asks || io::stdin().is_terminal(),
            "standard input is no terminal; say --yes to agree beforehand"
        );
        let before = journals.runs()?;
        if let Some(begin) = before.last().and_then(Run::begin) {
            // What was answered before counts, unless something else is said.
            for (key, value) in &begin.answers {
                given.answers.entry(key.clone()).or_insert_with(|| value.clone());
            }
            let mta = begin.instance.as_ref().map_or(begin.mta.clone(), |instance| format!("{}:{instance}", begin.mta));
            given.answers.entry("mta".into()).or_insert(mta);
            given.answers.entry("method".into()).or_insert_with(|| begin.method.clone());
        }
        let chosen = if asks { dialogue::choose(&self.machine, &mut Terminal { given })? } else { self.choose(given)? };
        if let Some(begin) = before.last().and_then(Run::begin) {
            let same = begin.mta == chosen.found.mta
                && begin.method == chosen.method.name
                && begin.instance == chosen.found.instance;
            anyhow::ensure!(same, "{} is set up already; run `configure_mta undo` first", begin.method);
        }
        let composed = self.compose(&chosen)?;
        say(show::plan(&chosen, &composed).trim_end());
        if !composed.setup.is_empty() {
            let mut terminal = Terminal { given };
            if asks && !terminal.confirm("apply", "Make these changes?", false)? {
                say("Nothing was changed.");
                return Ok(NO);
            }
            say("");
            self.carry_out(journals, &composed)?;
            say("ok   all is in place; `configure_mta undo` takes it back");
            self.signals.none_came()?;
        } else if !before.is_empty() && new_filters(&before, &composed.setup.begin.filters).next().is_some() {
            // A run without a change, for what it says of filters.
            self.carry_out(journals, &composed)?;
            say("The other filters in the path are taken note of: `configure_mta check` is silent about them.");
        }
        if !self.live() || !given.confirm("prove", "", true)? {
            return Ok(0);
        }
        let ask = if outage(given) { PROVE } else { "Send test mails through it?" };
        let wants = !asks || Terminal { given }.confirm("prove", ask, true)?;
        if wants { self.prove(&chosen, &composed, given) } else { Ok(0) }
    }

    fn carry_out(&self, journals: &Journals, composed: &Composed) -> Result<(), ApplyError> {
        let programs = |name: &str| std::fs::read(self.source.join(name));
        let machine = Machine { tree: self.machine.tree, tools: self.machine.tools };
        let held = self.signals.hold();
        Engine { machine, watch: &mut Told, stop: held.came(), programs: &programs }.apply(journals, &composed.setup)
    }
}
