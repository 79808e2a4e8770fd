//! The program `checkpost`: what an administrator types.
//!
//! It judges nothing itself: the daemon does, or the same engine embedded with the same configuration.

mod check;
mod config;
mod print;
mod quarantine;
mod status;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Wrong usage, or nothing could be said.
const EXIT_TROUBLE: u8 = 2;

/// Ask about mail, the daemon, its configuration and its quarantine.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Common {
    /// The configuration file; the *.toml in the folder conf.d beside it are read after it
    #[arg(long, global = true, value_name = "FILE", default_value = checkpostd::settings::DEFAULT_CONFIG)]
    config: PathBuf,
    /// The daemon's admin socket [default: as configured]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Judge message files as the ways in would
    ///
    /// Asks the daemon when there is one, else an embedded engine with the same configuration. Nothing
    /// is delivered or kept.
    ///
    /// Exit codes: 0 every recipient would get every message as it is; 1 some message would be refused,
    /// put off, discarded or changed; 2 some message could not be judged, or wrong usage.
    Check(check::Arguments),
    /// Tell of a message which rules were tried, why they held or not, and what each way in would do
    ///
    /// Exit codes: as for check.
    Explain(check::Arguments),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: config::Command,
    },
    /// List the kinds of way in, what each can do, and what becomes of a verdict that it cannot carry out
    ///
    /// Exit codes: 0.
    Ways,
    /// List, show and export quarantined mails
    ///
    /// Exit codes: 0; 1 there is no such mail; 2 the quarantine cannot be read, or wrong usage.
    Quarantine {
        #[command(subcommand)]
        command: quarantine::Command,
    },
    /// Tell how the daemon is
    ///
    /// Exit codes: 0 it serves; 1 it is ending; 2 no daemon answers.
    Status,
    /// Have the daemon read its configuration again, as SIGHUP does, and tell what is wrong
    ///
    /// Exit codes: 0 the new configuration is in force; 1 it is wrong, the old one is in force; 2 no
    /// daemon answers.
    Reload,
}

fn main() -> ExitCode {
    if let Some(code) = checkpostd::filters::probe_main() {
        return code;
    }
    let arguments = Arguments::parse();
    checkpostd::logging::start(checkpostd::logging::Format::Plain, &checkpostd::logging::Level::quiet());
    let common = &arguments.common;
    let done = match &arguments.command {
        Command::Check(check) => check::run(common, check, false),
        Command::Explain(check) => check::run(common, check, true),
        Command::Config { command } => config::run(common, command),
        Command::Ways => ways::run(common),
        Command::Quarantine { command } => quarantine::run(common, command),
        Command::Status => status::run(common),
        Command::Reload => status::reload(common),
    };
    match done {
        Ok(code) => code.into(),
        Err(error) => {
            print::error(&format!("checkpost: {error:#}"));
            EXIT_TROUBLE.into()
        }
    }
}
