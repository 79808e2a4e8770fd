//! `cargo xtask bench milter`: what the milter costs, alone against a C filter that does nothing, and through Postfix
//! against no filter.
//! Not a test: as with the proxy, a missed goal is shown and is no error.

mod filters;
mod goals;
mod mta;
mod postfix;
mod script;
pub(super) mod socket;

use std::path::Path;

use anyhow::Context as _;
use checkpost_tests::Lab;
use serde_json::{Map, Value};

use super::load::Load;
use super::mail::Mail;
use super::process::free_port;
use super::report::{Layout, Report};
use super::{Common, Measured, progress, say};
use filters::{Filter, Place};
use mta::Mta;
use socket::Address;

/// The yardstick of the filters alone.
const EMPTY: &str = "empty C filter";
/// The milter of the daemon under test.
const UNIX: &str = "checkpost, Unix";
const TCP: &str = "checkpost, TCP";

const ALONE: Layout = Layout { baseline: EMPTY, other: None, goals: goals::alone };

/// What `cargo xtask bench milter` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Numbers of sessions at the same time
    #[arg(long, value_delimiter = ',', default_value = "10")]
    sessions: Vec<usize>,
    /// Measure only this
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Messages over each connection to the filter alone
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    messages_per_session: u32,
    /// Also measure another filter, already running, at unix:PATH or IP:PORT
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<Address>,
    /// Process of the other filter, for its CPU time and memory; its descendants count too
    #[arg(long, value_name = "PID", requires = "peer")]
    peer_pid: Option<u32>,
    /// Leave Checkpost itself out
    #[arg(long)]
    without_checkpost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The filters alone, with a load generator that speaks milter
    Alone,
    /// Postfix with and without a milter
    Postfix,
}

impl Args {
    /// Sizes and numbers of sessions that are measured.
    fn points(&self) -> impl Iterator<Item = (usize, usize)> {
        self.common.sizes.iter().flat_map(|size| self.sessions.iter().map(|sessions| (*size, *sessions)))
    }
}

/// Measures and prints.
///
/// # Errors
/// When a process that is needed cannot be built or started.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let program = if args.without_checkpost { None } else { Some(args.common.daemon_program()?) };
    let mut reports = Vec::new();
    if args.only != Some(Part::Postfix) {
        reports.push(("The filter alone", alone(args, program.as_deref(), folder.path())?));
    }
    if args.only != Some(Part::Alone) {
        match Lab::available() {
            Ok(()) => reports.push(("Through Postfix", postfix::measure(args, program.as_deref(), folder.path())?)),
            Err(why) => progress(&format!("no Postfix is measured: {why}")),
        }
    }
    if args.common.json {
        let values: Map<_, _> = reports.iter().map(|(name, report)| ((*name).to_string(), report.json())).collect();
        say(&serde_json::to_string_pretty(&Value::Object(values))?);
    } else {
        for (name, report) in &reports {
            say(&format!("{name}. {}", report.text()));
        }
    }
    Ok(())
}

fn alone(args: &Args, program: Option<&Path>, folder: &Path) -> anyhow::Result<Report> {
    let mut filters = Vec::new();
    let socket = |name: &str| Address::Unix(folder.join(name));
    match filters::empty(Place(None), folder, socket("empty.sock"))? {
        Some(filter) => filters.push(filter),
        None => progress("no C compiler or no libmilter-dev here: there is no yardstick and there are no ratios"),
    }
    if let Some(program) = program {
        filters.push(filters::checkpost(Place(None), UNIX, program, folder, socket("checkpost.sock"))?);
        filters.push(filters::checkpost(Place(None), TCP, program, folder, Address::Tcp(free_port()?))?);
    }
    if let Some(address) = &args.peer {
        filters.push(Filter::peer(address.clone(), args.peer_pid));
    }
    let per_session = args.messages_per_session as usize;
    let runs = args.common.all_rounds(&args.sessions, &mut filters, |filter, point| {
        let load = Load { mail: point.mail, sessions: point.sessions, time: args.common.time() };
        load.run(&[None, filter.pid()], || {
            let mut mta = Mta::new(&filter.address, per_session);
            move |mail: &Mail| mta.send(mail)
        })
    });
    let runs = runs.context("the filters alone")?;
    let facts = args.points().filter_map(|point| goals::tcp(&runs, "milter alone", point, None)).collect();
    Ok(Report::new(&ALONE, &runs, facts))
}
