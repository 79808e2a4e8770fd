//! What is typed, and the answers in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use configure_mta::compose::MTAS;
use configure_mta::dialogue::Given;

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
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Args)]
pub(crate) struct Common {
    /// The folder that holds the system
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Ask nothing: take what is given, and defaults
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// An answer; the keys are those that `plan --json` shows, and mta, method, scanner, to, prove, outage
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// A file with answers, in TOML: KEY = "VALUE"
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) answers: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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

pub(crate) fn given_way(mut given: Given, way: Option<&str>) -> Given {
    if let Some(way) = way {
        given.answers.insert("method".into(), way.to_owned());
        // A way names its mail server.
        if let Some(mta) = MTAS.iter().find(|mta| mta.methods().iter().any(|method| method.name == way)) {
            given.answers.entry("mta".into()).or_insert_with(|| mta.name().to_owned());
        }
    }
    given
}

pub(crate) fn answers(common: &Common) -> anyhow::Result<BTreeMap<String, String>> {
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
