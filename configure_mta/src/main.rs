//! The program `configure_mta`.

mod program;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use configure_mta::dialogue::Given;
use configure_mta::engine::ApplyError;
use configure_mta::machine::{Machine, Programs};
use configure_mta::signals::Signals;
use configure_mta::tree::Tree;
use configure_mta::{prove, undo};

use program::arguments::{Arguments, Command, answers, given_way};
use program::words::{chain, complain};
use program::{NO, Session, look};

/// Wrong usage.
const USAGE: u8 = 2;
/// A step failed, and everything is as it was before.
const ROLLED_BACK: u8 = 3;
/// A step failed, and so did the way back.
const STUCK: u8 = 4;

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
        return look::recipe(way, common.json);
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

/// The folder of this program: the others are beside it.
fn source() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().map_or_else(|| PathBuf::from("/usr/bin"), Path::to_owned))
}
