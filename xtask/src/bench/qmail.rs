//! `cargo xtask bench qmail`: from the start of a program in qmail-queue's place to its end, against a C program that only
//! drains its input.
//! Not a test: as with the proxy, a missed goal is shown and is no error.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::client::Failure;
use super::daemon::{self, last_lines};
use super::load::Load;
use super::mail::Mail;
use super::milter::socket::Address;
use super::process::{Server, Usage};
use super::report::{Fact, Layout, Report, size_name};
use super::rows::Row;
use super::{Common, Measured, progress, say};

/// The yardstick.
const DRAIN: &str = "C program that drains";
/// Ours, with the yardstick as the original that it becomes.
const QUEUE: &str = "checkpost-qmail-queue";

const LAYOUT: Layout = Layout { baseline: DRAIN, other: None, goals };

const ENVELOPE: &[u8] = b"Fsender@example.net\0Talice@example.test\0\0";

/// What `cargo xtask bench qmail` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Numbers of programs at the same time
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    sessions: Vec<usize>,
    /// Use this checkpost-qmail-queue instead of building one with the release profile
    #[arg(long, value_name = "PROGRAM")]
    queue: Option<PathBuf>,
}

/// A program that qmail-smtpd could start.
struct Program {
    name: &'static str,
    path: PathBuf,
    /// The daemon that it asks.
    pid: Option<u32>,
}

impl Measured for Program {
    fn name(&self) -> &str {
        self.name
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }
}

/// Measures and prints.
///
/// # Errors
/// When a program that is needed cannot be built or started.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let queue = match &args.queue {
        Some(program) => program.clone(),
        None => {
            progress("building checkpost-qmail-queue with the release profile, static");
            daemon::build_static("checkpost-qmail", QUEUE)?
        }
    };
    let drain = drain(folder.path())?;
    let socket = folder.path().join("qmail.sock");
    let server = start(&args.common.daemon_program()?, folder.path(), &socket)?;
    let ours = install(&queue, &folder.path().join("warm"), &socket, &drain)?;
    let mut programs = [
        Program { name: DRAIN, path: drain.clone(), pid: None },
        Program { name: QUEUE, path: ours, pid: Some(server.id()) },
    ];
    let runs = args.common.all_rounds(&args.sessions, &mut programs, |program, point| {
        let load = Load { mail: point.mail, sessions: point.sessions, time: args.common.time() };
        load.run(&[None, program.pid], || |mail: &Mail| deliver(&program.path, mail.bytes()))
    })?;
    let facts = memory(&queue, &folder.path().join("cold"), &drain)?;
    let report = Report::new(&LAYOUT, &runs, facts);
    if args.common.json {
        say(&serde_json::to_string_pretty(&report.json())?);
    } else {
        say(&report.text());
    }
    Ok(())
}

fn goals(rows: &[Row]) -> Vec<Fact> {
    let ours = rows.iter().filter(|row| row.path == QUEUE && row.size == 4 << 10 && row.sessions == 1);
    ours.map(|row| Fact::new("p50 ratio, 4 KiB, one program at a time", row.p50_ratio, "").at_most(3.0)).collect()
}

fn drain(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (folder.join("drain.c"), folder.join("drain"));
    fs::write(&source, include_str!("drain.c"))?;
    let compiled =
        Command::new("cc").args(["-O2", "-o"]).args([&program, &source]).status().context("no C compiler")?;
    ensure!(compiled.success(), "cc ended with {compiled}");
    Ok(program)
}

fn start(program: &Path, folder: &Path, socket: &Path) -> anyhow::Result<Server<Address>> {
    let (config, log) = (folder.join("checkpost.toml"), folder.join("checkpostd.log"));
    let text = format!(
        "[daemon]\nstate = \"{}\"\n[[way]]\nkind = \"qmail-queue\"\nlisten = \"unix:{}\"\n[filter.built-in]\n",
        folder.join("state").display(),
        socket.display()
    );
    fs::write(&config, text)?;
    let output = File::create(&log)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).stdout(output.try_clone()?).stderr(output);
    let mut server = Server::start("checkpostd", command, Address::Unix(socket.to_owned()))?;
    server.wait(Instant::now(), |_| UnixStream::connect(socket).is_ok()).with_context(|| last_lines(&log))?;
    Ok(server)
}

/// The program in a folder of its own, with settings beside it.
fn install(program: &Path, folder: &Path, socket: &Path, original: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(QUEUE);
    fs::copy(program, &path)?;
    let text = format!("socket = {}\noriginal = {}\n", socket.display(), original.display());
    fs::write(folder.join("checkpost-qmail.conf"), text)?;
    Ok(path)
}

/// As qmail.c does it: three pipes, the message in its own time, then the envelope, then the end.
fn deliver(program: &Path, message: &[u8]) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let failed = |error: io::Error| Failure::new("program", &error.kind().to_string());
    let (mut child, mut envelope) = begin_delivery(program, message).map_err(failed)?;
    let sent = envelope.write_all(ENVELOPE);
    drop(envelope);
    let status = child.wait().map_err(failed)?;
    sent.map_err(failed)?;
    if status.success() { Ok(begin.elapsed()) } else { Err(Failure::new("program", &status.to_string())) }
}

/// Up to the end of the message.
fn begin_delivery(program: &Path, message: &[u8]) -> io::Result<(Child, io::PipeWriter)> {
    let (message_read, mut message_write) = io::pipe()?;
    let (envelope_read, envelope_write) = io::pipe()?;
    let mut command = Command::new(program);
    command.env_clear().env("TCPREMOTEIP", "192.0.2.7");
    let child = command.stdin(message_read).stdout(Stdio::from(envelope_read)).stderr(Stdio::null()).spawn()?;
    drop(command);
    message_write.write_all(message)?;
    Ok((child, envelope_write))
}

/// The program's own memory while it waits for a daemon that says nothing: all of the message is in its hands then.
fn memory(program: &Path, folder: &Path, drain: &Path) -> anyhow::Result<Vec<Fact>> {
    fs::create_dir_all(folder)?;
    let socket = folder.join("silent.sock");
    let silent = UnixListener::bind(&socket)?;
    let path = install(program, folder, &socket, drain)?;
    let mut facts = Vec::new();
    for size in [4 << 10, 100 << 20] {
        let message = vec![b'x'; size];
        let (mut child, mut envelope) = begin_delivery(&path, &message)?;
        envelope.write_all(ENVELOPE)?;
        drop(envelope);
        let (connection, _) = silent.accept()?;
        // It has said all when it begins to wait.
        ensure!(io::Read::read(&mut &connection, &mut [0; 4096])? > 0, "the program said nothing");
        let peak = Usage::of_tree(child.id())?.peak as f64 / f64::from(1 << 20);
        drop(connection);
        child.wait()?;
        facts.push(Fact::new(&format!("resident memory with {}", size_name(size)), peak, "MiB").at_most(3.0));
    }
    Ok(facts)
}
