//! The program `configure_mta`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use checkpost_setup::{Change, Look, Obstacle};
use clap::{Args, Parser, Subcommand};
use configure_mta::compose::{Chosen, Composed, MTAS, compose};
use configure_mta::dialogue::{self, Given, Prompt, Terminal};
use configure_mta::engine::{ApplyError, Engine, Watch};
use configure_mta::journal::{Journals, Part, Record, Run};
use configure_mta::machine::{Machine, Programs};
use configure_mta::prove::{self, Proof, Prove};
use configure_mta::service::Service;
use configure_mta::signals::Signals;
use configure_mta::tree::Tree;
use configure_mta::{show, undo};

/// Something is in the way, or is not as it should be; nothing was changed.
const NO: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// A step failed, and everything is as it was before.
const ROLLED_BACK: u8 = 3;
/// A step failed, and so did the way back.
const STUCK: u8 = 4;

/// Set a mail server up for Checkpost, prove that mail is filtered, and take it back.
///
/// Without a command it finds the mail server, asks what it cannot know, shows its plan, and sets it up when you say
/// so. With --yes it takes the defaults (or --set, --answers) and asks nothing.
///
/// Exit codes: 0 done, or all is as it should be; 1 something is in the way or is not as it should be, and nothing was
/// changed; 2 wrong usage; 3 a step failed and everything was put back as it was; 4 a step failed and not all could be put
/// back: run it again.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Common {
    /// The folder that holds the system
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Ask nothing: take what is given, and defaults
    #[arg(long, global = true)]
    yes: bool,
    /// An answer; the keys are those that `plan --json` shows, and mta, method, scanner, to, prove, outage
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A file with answers, in TOML: KEY = "VALUE"
    #[arg(long, global = true, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Tell which mail servers there are, and how they are set up
    Detect,
    /// Show what would be changed, and why; changes nothing
    Plan {
        /// The way, as `detect` names it
        way: Option<String>,
        /// Show what each way can do, too
        #[arg(long)]
        explain: bool,
    },
    /// Set it up: every change is undone again if one of them fails
    Apply {
        /// The way, as `detect` names it
        way: Option<String>,
        /// Do not send the test mails afterwards
        #[arg(long)]
        no_prove: bool,
    },
    /// Send a clean mail, a virus test and a spam test through the mail server, and tell what became of each
    Prove,
    /// Take everything back
    Undo {
        /// Also what somebody else has changed since; theirs stays beside it as NAME.before-undo
        #[arg(long)]
        force: bool,
    },
    /// Look whether all is still in place; for cron
    Check,
    /// Print what a way needs as entries to be made by hand, on any machine
    Recipe {
        /// The kind of way, as `checkpost ways` prints it
        way: String,
    },
    /// Connect to a socket, as the user that runs this
    #[command(hide = true)]
    Reach {
        /// `unix:/path` or `HOST:PORT`
        address: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = run(&arguments);
    ExitCode::from(done.unwrap_or_else(|error| {
        complain(&format!("configure_mta: {}", chain(&*error)));
        match error.downcast_ref::<ApplyError>() {
            Some(ApplyError::RolledBack { .. }) => {
                complain("Everything is as it was before.");
                ROLLED_BACK
            }
            Some(ApplyError::Stuck { .. }) => {
                complain("The next run of configure_mta tries again to put it back.");
                STUCK
            }
            _ => match error.downcast_ref::<undo::UndoError>() {
                Some(undo::UndoError::Changed(conflicts)) => {
                    for conflict in conflicts {
                        complain(&format!("\n{}, changed since configure_mta wrote it:\n{}", conflict.path, conflict.diff));
                    }
                    complain("Take the change back, or run `configure_mta undo --force`: it keeps theirs as NAME.before-undo.");
                    NO
                }
                Some(undo::UndoError::Failed(_)) => STUCK,
                _ => NO,
            },
        }
    }))
}

fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let common = &arguments.common;
    if let Some(Command::Reach { address }) = &arguments.command {
        prove::reach(address)?;
        return Ok(0);
    }
    if let Some(Command::Recipe { way }) = &arguments.command {
        return recipe(way, common.json);
    }
    let tree = Tree::open(&common.root)?;
    let programs = Programs::new(&common.root);
    let machine = Machine { tree: &tree, tools: &programs };
    let session = Session { common, machine, programs: &programs, source: source()?, signals: Signals::watch()? };
    let mut given = Given { answers: answers(common)? };
    match &arguments.command {
        Some(Command::Detect) => session.detect(),
        Some(Command::Plan { way, explain }) => session.plan(given_way(given, way.as_deref()), *explain),
        Some(Command::Apply { way, no_prove }) => {
            let mut given = given_way(given, way.as_deref());
            if *no_prove {
                given.answers.insert("prove".into(), "no".into());
            }
            session.apply(&mut given)
        }
        Some(Command::Prove) => session.prove_again(&mut given),
        Some(Command::Undo { force }) => session.undo(&mut given, *force),
        Some(Command::Check) => session.check(),
        None if common.yes || io::stdin().is_terminal() => session.apply(&mut given),
        _ => {
            complain("configure_mta: standard input is no terminal; say --yes to take defaults, or see --help");
            Ok(USAGE)
        }
    }
}

const PROVE: &str = "Send test mails through it? Checkpost is stopped for a moment, to see what becomes of mail then.";

/// One call of the program.
struct Session<'a> {
    common: &'a Common,
    machine: Machine<'a>,
    programs: &'a Programs,
    /// The folder with Checkpost's programs.
    source: PathBuf,
    signals: Signals,
}

impl Session<'_> {
    /// Can programs be started and asked, or is this a system in a folder?
    fn live(&self) -> bool {
        self.machine.tree.is_host()
    }

    fn detect(&self) -> anyhow::Result<u8> {
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

    fn plan(&self, mut given: Given, explain: bool) -> anyhow::Result<u8> {
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

    fn apply(&self, given: &mut Given) -> anyhow::Result<u8> {
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

    fn prove(&self, chosen: &Chosen, composed: &Composed, given: &Given) -> anyhow::Result<u8> {
        say("\nProof");
        let domain = chosen.found.domain.as_deref().unwrap_or("localhost");
        let to = given.answers.get("to").cloned().unwrap_or_else(|| format!("postmaster@{domain}"));
        let prove = self.prover(chosen, composed, to, outage(given))?;
        let ok = prove.all(&mut |proof| say(&shown(proof)))?;
        say(if ok { "Mail is filtered." } else { "NOT all is as it should be: see above, and `configure_mta undo`." });
        Ok(if ok { 0 } else { NO })
    }

    fn prover<'b>(
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

    fn prove_again(&self, given: &mut Given) -> anyhow::Result<u8> {
        self.needs_root("to stop the daemon, and to look as other users")?;
        let chosen = self.as_applied(given)?;
        let composed = self.compose(&chosen)?;
        self.prove(&chosen, &composed, given)
    }

    fn undo(&self, given: &mut Given, force: bool) -> anyhow::Result<u8> {
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

    fn check(&self) -> anyhow::Result<u8> {
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
                    let bad = proofs.into_iter().filter(|proof| !proof.ok);
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

fn applied(runs: &[Run]) -> Option<String> {
    let begin = runs.last()?.begin()?;
    let instance = begin.instance.as_ref().map(|instance| format!(" ({instance})")).unwrap_or_default();
    Some(format!("{} of {}{instance}", begin.method, begin.mta))
}

/// Is the daemon to be stopped for a moment?
fn outage(given: &Given) -> bool {
    given.answers.get("outage").is_none_or(|answer| answer != "no")
}

/// Filters that were not in the path when the last run was made.
fn new_filters<'a>(runs: &'a [Run], filters: &'a [String]) -> impl Iterator<Item = &'a String> {
    let known = runs.last().and_then(Run::begin).map(|begin| &begin.filters);
    filters.iter().filter(move |filter| known.is_none_or(|known| !known.contains(filter)))
}

/// The folder of this program: the others are beside it.
fn source() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().map_or_else(|| PathBuf::from("/usr/bin"), std::path::Path::to_owned))
}

fn given_way(mut given: Given, way: Option<&str>) -> Given {
    if let Some(way) = way {
        given.answers.insert("method".into(), way.to_owned());
        // A way names its mail server.
        if let Some(mta) = MTAS.iter().find(|mta| mta.methods().iter().any(|method| method.name == way)) {
            given.answers.entry("mta".into()).or_insert_with(|| mta.name().to_owned());
        }
    }
    given
}

fn answers(common: &Common) -> anyhow::Result<BTreeMap<String, String>> {
    let mut answers = BTreeMap::new();
    if let Some(path) = &common.answers {
        let text = std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        answers = toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    }
    for pair in &common.set {
        let Some((key, value)) = pair.split_once('=') else { anyhow::bail!("--set {pair}: accepted: KEY=VALUE") };
        answers.insert(key.to_owned(), value.to_owned());
    }
    Ok(answers)
}

fn recipe(way: &str, json: bool) -> anyhow::Result<u8> {
    let plans = configure_mta::by_hand::plans();
    let chosen: Vec<_> = plans.iter().filter(|plan| plan.way == way).collect();
    if chosen.is_empty() {
        let mut known: Vec<_> = plans.iter().map(|plan| plan.way).collect();
        known.dedup();
        complain(&format!("configure_mta: no recipe for {way:?}; there are: {}", known.join(", ")));
        return Ok(NO);
    }
    let show = |plan: &&checkpost_adapter::setup::Plan| {
        if json { serde_json::to_string(plan).unwrap_or_default() } else { configure_mta::by_hand::as_text(plan) }
    };
    // One document, or one for each method.
    say(chosen.iter().map(show).collect::<Vec<_>>().join("\n\n").trim_end());
    Ok(0)
}

fn shown(proof: &Proof) -> String {
    let word = if proof.ok { "ok  " } else { "FAIL" };
    format!("{word} {}\n       {}", proof.what, proof.seen)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn say(text: &str) {
    // A reader that went away is no error.
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
