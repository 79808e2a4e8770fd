//! `undo`.

use std::io::{self, IsTerminal};

use configure_mta::dialogue::{Given, Prompt, Terminal};
use configure_mta::journal::{Journals, Record};
use configure_mta::undo;

use super::words::say;
use super::{NO, Session, Told, applied};

impl Session<'_> {
    pub(crate) fn undo(&self, given: &mut Given, force: bool) -> anyhow::Result<u8> {
        self.needs_root("to change a mail server's configuration")?;
        let journals = Journals::lock(self.machine.tree)?;
        self.programs.hold(journals.share()?);
        let done = self.undo_locked(&journals, given, force);
        journals.leave();
        done
    }

    fn undo_locked(&self, journals: &Journals, given: &mut Given, force: bool) -> anyhow::Result<u8> {
        let healed = self.heal(journals)?;
        let runs = journals.runs()?;
        let Some(about) = applied(&runs) else {
            say(if healed {
                "A run that was cut off was put back."
            } else {
                "Nothing is set up: there is nothing to undo."
            });
            return Ok(0);
        };
        say(&format!("To be taken back: {about}"));
        if !self.common.yes && io::stdin().is_terminal() {
            let mut terminal = Terminal { given };
            if !terminal.confirm("undo", "Take it back?", true)? {
                return Ok(NO);
            }
        }
        // The end of it is as it was before: a signal does not change that.
        let held = self.signals.hold();
        undo::undo_all(&self.machine, journals, &runs, force, &mut Told)?;
        drop(held);
        for run in &runs {
            for record in &run.records {
                if let Record::ByHand(back) = record {
                    say(&format!("By hand: {back}"));
                }
            }
        }
        say(
            "ok   everything is as it was before; the user checkpost and /var/lib/checkpost (mails in quarantine) stay",
        );
        Ok(0)
    }
}
