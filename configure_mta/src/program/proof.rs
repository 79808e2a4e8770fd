//! `prove`, and the proof at the end of `apply`.

use std::io;

use configure_mta::compose::{Chosen, Composed};
use configure_mta::dialogue::Given;
use configure_mta::prove::{Proof, Prove};

use super::words::say;
use super::{NO, Session};

impl Session<'_> {
    pub(crate) fn prove(&self, chosen: &Chosen, composed: &Composed, given: &Given) -> anyhow::Result<u8> {
        say("\nProof");
        let domain = chosen.found.domain.as_deref().unwrap_or("localhost");
        let to = given.answers.get("to").cloned().unwrap_or_else(|| format!("postmaster@{domain}"));
        let prove = self.prover(chosen, composed, to, outage(given))?;
        let ok = prove.all(&mut |proof| say(&shown(proof)))?;
        say(if ok { "Mail is filtered." } else { "NOT all is as it should be: see above, and `configure_mta undo`." });
        Ok(if ok { 0 } else { NO })
    }

    pub(crate) fn prover<'b>(
        &'b self,
        chosen: &'b Chosen,
        composed: &'b Composed,
        to: String,
        outage: bool,
    ) -> io::Result<Prove<'b>> {
        Ok(Prove {
            machine: &self.machine,
            found: &chosen.found,
            method: chosen.method,
            plan: &composed.plan,
            closed: chosen.answers.closed(),
            to,
            outage,
            signals: &self.signals,
            program: std::env::current_exe()?.to_string_lossy().into_owned(),
        })
    }

    pub(crate) fn prove_again(&self, given: &mut Given) -> anyhow::Result<u8> {
        self.needs_root("to stop the daemon, and to look as other users")?;
        let chosen = self.as_applied(given)?;
        let composed = self.compose(&chosen)?;
        self.prove(&chosen, &composed, given)
    }
}

/// Is the daemon to be stopped for a moment?
pub(crate) fn outage(given: &Given) -> bool {
    given.answers.get("outage").is_none_or(|answer| answer != "no")
}
fn shown(proof: &Proof) -> String {
    let word = match proof.ok {
        Some(true) => "ok  ",
        Some(false) => "FAIL",
        None => "--  ",
    };
    format!("{word} {}\n       {}", proof.what, proof.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_tried_is_not_called_ok() {
        let word = |ok| shown(&Proof { what: "x".into(), ok, seen: String::new() });
        assert_eq!([Some(true), Some(false), None].map(|ok| word(ok)[..4].to_owned()), ["ok  ", "FAIL", "--  "]);
    }
}
