//! `cargo xtask bench milter`: what the milter costs, alone against a C filter that does nothing, and through Postfix
//! against no filter.
//! Not a test: as with the proxy, a missed goal is shown and is no error.

mod filters;
mod goals;
mod mta;
mod script;
mod socket;

use anyhow::Context as _;
use serde_json::{Map, Value};

use super::load::Load;
use super::mail::Mail;
use super::report::{Fact, Layout, Report, size_name};
use super::rows::rate_ratio;
use super::{Common, Measured, progress, say};
use filters::Filter;
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
    let mut reports = vec![("alone", alone(args, folder.path())?)];
    if args.common.json {
        let values: Map<_, _> = reports.iter().map(|(name, report)| ((*name).to_string(), report.json())).collect();
        say(&serde_json::to_string_pretty(&Value::Object(values))?);
    } else {
        for (name, report) in reports.drain(..) {
            say(&format!("{name}: {}", report.text()));
        }
    }
    Ok(())
}

fn alone(args: &Args, folder: &std::path::Path) -> anyhow::Result<Report> {
    let mut filters = Vec::new();
    match filters::empty(folder)? {
        Some(filter) => filters.push(filter),
        None => progress("no C compiler or no libmilter-dev here: there is no yardstick and there are no ratios"),
    }
    if !args.without_checkpost {
        let program = args.common.daemon_program()?;
        filters.push(filters::checkpost(UNIX, &program, folder, &Address::Unix(folder.join("checkpost.sock")))?);
        filters.push(filters::checkpost(TCP, &program, folder, &Address::Tcp(super::process::free_port()?))?);
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
    let mut facts = Vec::new();
    for (size, sessions) in args.points() {
        if let Some(ratio) = rate_ratio(&runs, (size, sessions), TCP, UNIX) {
            let what = format!("milter alone, TCP to Unix, {}, {sessions} sessions", size_name(size));
            facts.push(Fact::new(&what, ratio, ""));
        }
    }
    Ok(Report::new(&ALONE, &runs, facts))
}
