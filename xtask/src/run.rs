//! Runs one program for a task: progress while it works, its output only when it fails.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, a long step says this often that it is alive.
const STILL_THERE: Duration = Duration::from_secs(60);

/// What a program did.
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    /// Standard output and standard error, line by line as they came.
    pub(crate) lines: Vec<String>,
}

impl Done {
    /// All of the output as one text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Runs `command` to its end under the name `what`.
pub(crate) fn watched(what: &str, command: &mut Command) -> anyhow::Result<Done> {
    let progress = Progress::new(what);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let (tell, hear) = mpsc::channel();
    forward(child.stdout.take(), tell.clone());
    forward(child.stderr.take(), tell);
    let mut lines = Vec::new();
    loop {
        match hear.recv_timeout(STILL_THERE) {
            Ok(line) => {
                progress.line(&line);
                lines.push(line);
            }
            Err(RecvTimeoutError::Timeout) => progress.alive(lines.last().map_or("", String::as_str)),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    progress.end(status.success());
    Ok(Done { status, lines })
}

/// Where cargo puts what it builds, as it says itself.
pub(crate) fn target_folder() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let about: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let folder = about["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(folder.into())
}

/// Tells the user something: the result of a task, or a step of it.
#[allow(clippy::print_stdout)]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// One step on the screen: a moving line on a terminal, else a line at the start and at the end.
pub(crate) struct Progress {
    what: String,
    since: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(what: &str) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say(&format!("     {what} ..."));
        }
        Self { what: what.to_owned(), since: Instant::now(), bar }
    }

    /// Shows what the step says now.
    pub(crate) fn line(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        }
    }

    fn alive(&self, last: &str) {
        if self.bar.is_none() {
            say(&format!("     {} ... {} s: {}", self.what, self.since.elapsed().as_secs(), last.trim()));
        }
    }

    /// Ends the step with its result.
    pub(crate) fn end(self, good: bool) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let mark = if good { "ok  " } else { "FAIL" };
        say(&format!("{mark} {} ({:.1} s)", self.what, self.since.elapsed().as_secs_f32()));
    }
}

fn forward(from: Option<impl Read + Send + 'static>, to: mpsc::Sender<String>) {
    let Some(from) = from else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}
