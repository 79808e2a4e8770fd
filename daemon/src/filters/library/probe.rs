//! Tries a library in a child process: one that crashes, hangs or ends the process is told, and harms nobody.
//! The child is this same program with [`FLAG`]; it serves nothing and reads no configuration.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::{Config, Trouble};
use crate::privileges::Account;

/// The first argument of the child.
const FLAG: &str = "--probe-library";

/// Before the child's answer; the library may print, too.
const MARK: &str = "checkpost-probe ";

/// Does this program's `main` call [`probe_main`]?
static CAN_PROBE: AtomicBool = AtomicBool::new(false);

#[derive(Serialize, Deserialize)]
struct Request {
    name: String,
    path: PathBuf,
    settings: Vec<(String, String)>,
    account: Option<(String, Account)>,
}

/// To be called first in `main`: `Some` if this process is the child that tries a library, which then ends with it. In programs
/// that do not call it, a library is not tried before it is loaded.
pub fn probe_main() -> Option<ExitCode> {
    if std::env::args_os().nth(1).is_none_or(|argument| argument != FLAG) {
        CAN_PROBE.store(true, Ordering::Relaxed);
        return None;
    }
    // No core dump of a crash that is expected. It must not keep us from trying.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let mut request = String::new();
    let read = std::io::stdin().read_to_string(&mut request);
    let Some(request) = read.ok().and_then(|_| serde_json::from_str::<Request>(&request).ok()) else {
        return Some(64.into());
    };
    let answer = serde_json::to_string(&answer(request)).unwrap_or_default();
    let mut out = std::io::stdout();
    let written = out.write_all(format!("\n{MARK}{answer}\n").as_bytes()).and_then(|()| out.flush());
    Some(if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn answer(request: Request) -> Result<(), Trouble> {
    if let Some((name, account)) = &request.account {
        account.become_it(name).map_err(|error| Trouble { with_settings: false, message: error.to_string() })?;
    }
    // No child without its parent. To become another user takes this back (prctl(2)), so it comes after that.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let config = Config {
        name: request.name.into(),
        path: request.path,
        settings: request.settings,
        threads: 1,
        start_time: Duration::ZERO,
    };
    super::create(&config).map(drop)
}

/// Loads the library and makes and ends an instance, all in a child that is the user whom the daemon will be.
pub(super) fn probe(config: &Config, account: Option<&(String, Account)>) -> Result<(), Trouble> {
    if !CAN_PROBE.load(Ordering::Relaxed) {
        return Ok(());
    }
    let trouble = |message: String| Trouble { with_settings: false, message };
    let request = Request {
        name: config.name.to_string(),
        path: config.path.clone(),
        settings: config.settings.clone(),
        account: account.filter(|_| rustix::process::geteuid().is_root()).cloned(),
    };
    // A path that is no text was not written in a configuration.
    let request = serde_json::to_vec(&request).map_err(|error| trouble(error.to_string()))?;
    let no_child = |error: std::io::Error| trouble(format!("no process to try it in: {error}"));
    // Our own file, whatever lies at its path by now.
    let mut child = Command::new("/proc/self/exe")
        .arg(FLAG)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(no_child)?;
    let deadline = Instant::now() + config.start_time;
    let ended = talk(&mut child, request, deadline).and_then(|output| Some((output, wait(&mut child, deadline)?)));
    let Some((output, status)) = ended else {
        // It may have ended by itself just now.
        let _ = child.kill();
        let _ = child.wait();
        let time = config.start_time.as_secs_f64();
        return Err(trouble(format!("loading it and making an instance has not ended in {time}s (start_time)")));
    };
    match output.rsplit_once(MARK).and_then(|(_, answer)| serde_json::from_str(answer).ok()) {
        // What it does on its way out, the daemon would see only at its own end.
        Some(answer) => answer,
        None => Err(trouble(format!("it {} the process that tried it", end_of(status)))),
    }
}

/// What the child prints, to its end; `None` when that did not come in time.
fn talk(child: &mut Child, request: Vec<u8>, deadline: Instant) -> Option<String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        // The child may have ended before it read: what it printed, or not, tells.
        let _ = stdin.map(|mut stdin| stdin.write_all(&request));
        let mut output = Vec::new();
        // Bounded: a library may print for ever.
        let _ = stdout.map(|stdout| stdout.take(16 << 20).read_to_end(&mut output));
        // Nobody waits if it took too long.
        let _ = done.send(String::from_utf8_lossy(&output).into_owned());
    });
    ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
}

/// `None`: it has not ended in time. Mostly it has when its output has; but a library can close that.
fn wait(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

fn end_of(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("crashed (signal {signal})"),
        (None, Some(code)) => format!("ended (exit code {code})"),
        (None, None) => "ended".to_owned(),
    }
}
