//! `cargo xtask bench scan`: the way that answers as clamd does, against a real clamd that knows one signature: the same
//! mails, each on a connection of its own, as a stream of one chunk, as Exim sends it.
//! Not a test: as with the proxy, a missed goal is shown and is no error.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use checkpost_tests::{Clamd, Root};

use super::client::Failure;
use super::daemon::last_lines;
use super::load::Load;
use super::mail::Mail;
use super::milter::socket::Address;
use super::process::Server;
use super::report::{Fact, Layout, Report, size_name};
use super::rows::Row;
use super::{Common, Measured, say};

/// The yardstick.
const CLAMD: &str = "clamd, one signature";
/// Ours, with the built-in filter.
const CHECKPOST: &str = "checkpost";

const LAYOUT: Layout = Layout { baseline: CLAMD, other: None, goals };

/// What `cargo xtask bench scan` takes.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// Numbers of connections at the same time
    #[arg(long, value_delimiter = ',', default_value = "10")]
    sessions: Vec<usize>,
}

/// One that answers.
struct Scanner {
    name: &'static str,
    address: Address,
    pid: u32,
}

impl Measured for Scanner {
    fn name(&self) -> &str {
        self.name
    }

    fn pid(&self) -> Option<u32> {
        Some(self.pid)
    }
}

/// Measures and prints.
///
/// # Errors
/// When a program that is needed cannot be built or started.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let root = Root::start(&Clamd::new())?;
    let server = start(&args.common.daemon_program()?, folder.path())?;
    let clamd = Address::Unix(root.shared().join("clamd.sock"));
    let mut scanners = [
        Scanner { name: CLAMD, address: clamd, pid: root.id() },
        Scanner { name: CHECKPOST, address: server.address.clone(), pid: server.id() },
    ];
    let runs = args.common.all_rounds(&args.sessions, &mut scanners, |scanner, point| {
        let load = Load { mail: point.mail, sessions: point.sessions, time: args.common.time() };
        load.run(&[None, Some(scanner.pid)], || |mail: &Mail| ask(&scanner.address, mail.bytes()))
    })?;
    let report = Report::new(&LAYOUT, &runs, Vec::new());
    if args.common.json {
        say(&serde_json::to_string_pretty(&report.json())?);
    } else {
        say(&report.text());
    }
    Ok(())
}

fn goals(rows: &[Row]) -> Vec<Fact> {
    let ours = rows.iter().filter(|row| row.path == CHECKPOST && row.sessions == 10);
    ours.map(|row| Fact::new(&format!("ratio, {}, 10 connections", size_name(row.size)), row.ratio, "").at_least(1.0))
        .collect()
}

fn start(program: &Path, folder: &Path) -> anyhow::Result<Server<Address>> {
    let (config, log, socket) =
        (folder.join("checkpost.toml"), folder.join("checkpostd.log"), folder.join("clamd.sock"));
    let text = format!(
        "[daemon]\nstate = \"{}\"\n[[way]]\nkind = \"scan-clamd\"\nlisten = \"unix:{}\"\n[filter.built-in]\n",
        folder.join("state").display(),
        socket.display()
    );
    fs::write(&config, text)?;
    let output = File::create(&log)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).stdout(output.try_clone()?).stderr(output);
    let mut server = Server::start("checkpostd", command, Address::Unix(socket.clone()))?;
    server.wait(Instant::now(), |_| UnixStream::connect(&socket).is_ok()).with_context(|| last_lines(&log))?;
    ensure!(ask(&server.address, b"Subject: x\r\n\r\nx\r\n").is_ok(), last_lines(&log));
    Ok(server)
}

/// From connect to the answer, which must be that nothing was found.
fn ask(address: &Address, content: &[u8]) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let failed = |step| move |error: std::io::Error| Failure::new(step, &error.kind().to_string());
    let mut stream = address.connect().map_err(failed("connect"))?;
    let length = u32::try_from(content.len()).map_err(|_| Failure::new("send", "too large"))?;
    let request = [b"zINSTREAM\0", &length.to_be_bytes()[..], content, &[0; 4]].concat();
    stream.write_all(&request).map_err(failed("send"))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(failed("answer"))?;
    if answer == b"stream: OK\0" {
        Ok(begin.elapsed())
    } else {
        Err(Failure::new("answer", &String::from_utf8_lossy(&answer)))
    }
}
