//! `cargo xtask bench`: what the proxy costs, measured against the same mails on a direct connection; what the milter
//! costs is in `milter`.
//! Not a test: it asserts nothing and its exit code says only that it could measure.

mod client;
mod daemon;
mod goals;
mod load;
mod mail;
mod memory;
mod milter;
mod process;
mod qmail;
mod relay;
mod report;
mod rows;
mod scan;
mod sink;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use client::message;
use load::{Load, Outcome};
use mail::Mail;
use process::{Server, Usage};
use report::{Layout, Report, size_name};
use rows::Run;

/// The path without anything in between.
const DIRECT: &str = "direct";
/// The daemon under test.
const CHECKPOST: &str = "checkpost";

const LAYOUT: Layout = Layout { baseline: DIRECT, other: Some("sink CPU"), goals: goals::goals };

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    common: Common,
    /// Numbers of sessions at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,10,50")]
    sessions: Vec<usize>,
    /// Send MAIL, RCPT and DATA in one write
    #[arg(long)]
    pipelining: bool,
    /// Also measure a relay that copies bytes and understands nothing
    #[arg(long)]
    reference: bool,
    /// Also measure another proxy, already running and forwarding to the sink's port
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<SocketAddr>,
    /// Process of the other proxy, for its CPU time and memory; its descendants count too
    #[arg(long, value_name = "PID", requires = "peer")]
    peer_pid: Option<u32>,
    /// Port of the sink; 0 takes any free one [default: 10026 with --peer, else 0]
    #[arg(long, value_name = "PORT")]
    sink_port: Option<u16>,
    /// Leave Checkpost itself out
    #[arg(long)]
    without_checkpost: bool,
    /// Measure start-up and memory instead of speed
    #[arg(long, conflicts_with_all = ["peer", "reference", "without_checkpost"])]
    memory: bool,
    /// Use this smtp-sink [default: the installed one, else unpacked from the package postfix]
    #[arg(long, value_name = "PROGRAM")]
    sink: Option<PathBuf>,
    /// Be the reference relay
    #[arg(long, hide = true, num_args = 2)]
    relay: Option<Vec<SocketAddr>>,
}

/// What else can be measured.
#[derive(clap::Subcommand)]
enum Other {
    /// Measure the milter: alone against a C filter that does nothing, and through Postfix against no filter.
    Milter(milter::Args),
    /// Measure checkpost-qmail-queue, from its start to its end, against a C program that only drains its input.
    Qmail(qmail::Args),
    /// Measure the way that answers as clamd does, against a real clamd with one signature.
    Scan(scan::Args),
}

/// What every measurement takes.
#[derive(clap::Args)]
struct Common {
    /// Sizes of the mails, such as 4K, 64K, 1M
    #[arg(long, value_delimiter = ',', default_value = "4K,64K,1M", value_parser = parse_size)]
    sizes: Vec<usize>,
    /// How often each path is measured; ratios are taken within a round
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one path is measured in one round, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Use this checkpostd instead of building one with the release profile
    #[arg(long, value_name = "PROGRAM")]
    daemon: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// When a process that is needed cannot be built or started. A missed goal is no error.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some([listen, next_hop]) = args.relay.as_deref() {
        relay::run(*listen, *next_hop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let common = match &args.other {
        Some(Other::Milter(milter)) => &milter.common,
        Some(Other::Qmail(qmail)) => &qmail.common,
        Some(Other::Scan(scan)) => &scan.common,
        None => &args.common,
    };
    ensure!(common.rounds > 0 && common.seconds > 0.0, "nothing to measure in no time");
    match &args.other {
        Some(Other::Milter(args)) => milter::run(args)?,
        Some(Other::Qmail(args)) => qmail::run(args)?,
        Some(Other::Scan(args)) => scan::run(args)?,
        None => {}
    }
    if args.other.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    let report = if args.memory { measure_memory(args)? } else { measure_speed(args)? };
    if args.common.json {
        say(&serde_json::to_string_pretty(&report.json())?);
    } else {
        say(&report.text());
    }
    Ok(ExitCode::SUCCESS)
}

fn measure_memory(args: &Args) -> anyhow::Result<Report> {
    let facts = memory::measure(&args.common.daemon_program()?, args.sink.as_deref(), &cache()?)?;
    Ok(Report::new(&LAYOUT, &[], facts))
}

/// One way from the load generator to the sink.
struct Path {
    name: String,
    address: SocketAddr,
    /// Root of the process tree whose CPU time and memory are the path's.
    pid: Option<u32>,
}

fn measure_speed(args: &Args) -> anyhow::Result<Report> {
    let program = if args.without_checkpost { None } else { Some(args.common.daemon_program()?) };
    let port = args.sink_port.unwrap_or(if args.peer.is_some() { 10_026 } else { 0 });
    let sink = sink::start(args.sink.as_deref(), &cache()?, port)?;
    let folder = tempfile::tempdir()?;

    let mut paths = vec![Path { name: DIRECT.into(), address: sink.address, pid: None }];
    let mut servers: Vec<Server> = Vec::new();
    if let Some(program) = program {
        let (server, _) = daemon::start(&program, folder.path(), sink.address)?;
        paths.push(Path { name: CHECKPOST.into(), address: server.address, pid: Some(server.id()) });
        servers.push(server);
    }
    if args.reference {
        let server = relay::start(sink.address)?;
        paths.push(Path { name: "byte relay".into(), address: server.address, pid: Some(server.id()) });
        servers.push(server);
    }
    if let Some(address) = args.peer {
        wait_for_peer(address, sink.address)?;
        paths.push(Path { name: address.to_string(), address, pid: args.peer_pid });
    }

    let runs = args.common.all_rounds(&args.sessions, &mut paths, |path, point| {
        let mail = point.mail.clone().with_final_dot();
        let load = Load { mail: &mail, sessions: point.sessions, time: args.common.time() };
        let begin = || |mail: &Mail| message(path.address, mail, args.pipelining);
        load.run(&[Some(sink.id()), path.pid], begin)
    })?;
    drop(servers);
    Ok(Report::new(&LAYOUT, &runs, Vec::new()))
}

impl Measured for Path {
    fn name(&self) -> &str {
        &self.name
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }
}

fn wait_for_peer(peer: SocketAddr, sink: SocketAddr) -> anyhow::Result<()> {
    progress(&format!("the sink listens on {sink}; waiting for the proxy on {peer} to greet"));
    let begin = Instant::now();
    while !process::greets(peer) {
        ensure!(begin.elapsed() < Duration::from_secs(60), "nothing greets on {peer}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Common {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn daemon_program(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = &self.daemon {
            return Ok(program.clone());
        }
        progress("building checkpostd with the release profile");
        daemon::build()
    }

    /// Measures every path with every size and number of sessions, in each round.
    fn all_rounds<P: Measured>(
        &self,
        sessions: &[usize],
        paths: &mut [P],
        load: impl Fn(&P, &Point<'_>) -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<Vec<Run>> {
        let mails: Vec<_> = self.sizes.iter().map(|size| (*size, Mail::of_size(*size))).collect();
        let mut runs = Vec::new();
        for round in 0..self.rounds {
            for (size, mail) in &mails {
                for sessions in sessions.iter().copied() {
                    let shown = size_name(*size);
                    progress(&format!("round {} of {}: {shown}, {sessions} sessions", round + 1, self.rounds));
                    for path in &*paths {
                        if let Some(pid) = path.pid() {
                            process::reset_peak(pid);
                        }
                        let outcome = load(path, &Point { mail, sessions })
                            .with_context(|| format!("while measuring {}", path.name()))?;
                        let peak = path.pid().map(Usage::of_tree).transpose()?.map(|usage| usage.peak);
                        runs.push(Run { size: *size, sessions, round, path: path.name().into(), outcome, peak });
                    }
                }
            }
            // Who comes first differs from round to round, so that no path always follows the same other one.
            paths.rotate_left(1);
        }
        Ok(runs)
    }
}

/// A path to measure.
trait Measured {
    /// As it stands in the table.
    fn name(&self) -> &str;

    /// Root of the process tree whose CPU time and memory are the path's.
    fn pid(&self) -> Option<u32>;
}

/// What one run sends.
struct Point<'a> {
    /// Without the final dot.
    mail: &'a Mail,
    sessions: usize,
}

/// A folder inside the target folder, which holds this program as `target/PROFILE/xtask`.
fn cache() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program is in no target folder")?;
    Ok(target.join("bench"))
}

/// `4096`, `4K` or `1M` in bytes.
fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let size = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| (1000..=1 << 30).contains(size)).ok_or_else(|| "expected 1000 bytes to 1024M".to_string())
}

/// The result, for people and programs.
#[allow(clippy::print_stdout)] // A command's output.
fn say(text: &str) {
    println!("{text}");
}

/// Where the command is, for people only.
#[allow(clippy::print_stderr)] // A command's progress.
fn progress(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [("4K", 4096), ("1m", 1 << 20), ("5000", 5000)] {
            assert_eq!(parse_size(text), Ok(size));
        }
        for text in ["", "K", "1", "4G", "-4K", "99999999999999999999K"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
