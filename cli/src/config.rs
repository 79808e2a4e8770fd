//! `config check` and `config show`.

use checkpost_core::config::{Document, Problems};
use checkpostd::Loaded;
use serde::Serialize;

use crate::{Common, print};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Tell everything that is wrong with the configuration, and what is allowed but probably not meant
    ///
    /// Reads files only: nothing is bound, connected or changed.
    ///
    /// Exit codes: 0 nothing is wrong (there may be risks); 1 something is.
    Check,
    /// Print the merged configuration
    ///
    /// Values of keys that hold secrets are shown as "***". Exit codes: 0; 1 some file cannot be read whole.
    Show {
        /// Tell for each line the file and line it comes from
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Serialize)]
struct Checked {
    problems: Vec<String>,
    risks: Vec<String>,
}

pub(crate) fn run(common: &Common, command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Check => check(common),
        Command::Show { origin } => Ok(show(common, *origin)),
    }
}

fn check(common: &Common) -> anyhow::Result<u8> {
    let lines = |problems: &Problems| problems.to_string().lines().map(str::to_owned).collect::<Vec<_>>();
    let checked = match Loaded::read(&common.config) {
        Ok(loaded) => Checked { problems: Vec::new(), risks: loaded.risks },
        Err(problems) => Checked { problems: lines(&problems), risks: Vec::new() },
    };
    if common.json {
        print::json(&checked)?;
    } else {
        checked.problems.iter().for_each(|problem| print::line(problem));
        checked.risks.iter().for_each(|risk| print::line(&format!("risk: {risk}")));
        let count = |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        print::line(&match (checked.problems.len(), checked.risks.len()) {
            (0, 0) => "nothing is wrong".to_owned(),
            (0, risks) => format!("nothing is wrong; {}", count(risks, "risk")),
            (problems, _) => count(problems, "problem"),
        });
    }
    Ok(u8::from(!checked.problems.is_empty()))
}

fn show(common: &Common, origin: bool) -> u8 {
    let mut problems = Problems::default();
    let document = Document::read(&common.config, &mut problems);
    print::line(document.render(origin).trim_end());
    if !problems.is_empty() {
        print::error(&problems.to_string());
    }
    u8::from(!problems.is_empty())
}
