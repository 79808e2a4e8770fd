//! The daemon under test: built as it is shipped, configured by the bench, in front of the sink.
//! Not a tuned set-up: every key that is not named here has its default, and the built-in filter is on.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::process::{Server, free_port};

/// Builds `checkpostd` with the release profile and says where it is.
///
/// # Errors
/// When cargo fails; its own messages are on the terminal then.
pub(super) fn build() -> anyhow::Result<PathBuf> {
    build_with("checkpostd", "checkpostd", &mut Command::new(cargo()))
}

/// Builds this program of this package likewise, linked statically: for programs that a mail server starts for each mail, as the
/// README says.
///
/// # Errors
/// When cargo fails; its own messages are on the terminal then.
pub(super) fn build_static(package: &str, program: &str) -> anyhow::Result<PathBuf> {
    let about = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not tell its host")?;
    let mut cargo = Command::new(cargo());
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_BUILD_TARGET", host);
    build_with(package, program, &mut cargo)
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn build_with(package: &str, program: &str, cargo: &mut Command) -> anyhow::Result<PathBuf> {
    let output = cargo
        .args(["build", "--release", "--package", package, "--bins", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build")?;
    ensure!(output.status.success(), "cargo build ended with {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == program)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {program}"))
}

/// Starts `program` between a free port and `next_hop`, all its files in `folder`, and says how long it took from the
/// start of the process to its first banner.
///
/// # Errors
/// When it ends or does not greet.
pub(super) fn start(program: &Path, folder: &Path, next_hop: SocketAddr) -> anyhow::Result<(Server, Duration)> {
    let address = free_port()?;
    let config = folder.join("checkpost.toml");
    fs::write(&config, configuration(address, next_hop, folder)).with_context(|| config.display().to_string())?;
    let log = File::options().create(true).append(true).open(folder.join("checkpostd.log"))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&config).stdout(log.try_clone()?).stderr(log);
    let begin = Instant::now();
    let mut server = Server::start("checkpostd", command, address)?;
    let banner = server.greeting(begin).with_context(|| last_lines(&folder.join("checkpostd.log")))?;
    Ok((server, banner))
}

fn configuration(listen: SocketAddr, next_hop: SocketAddr, _folder: &Path) -> String {
    format!(
        "[[way]]\n\
         kind = \"smtp-proxy\"\n\
         name = \"bench\"\n\
         listen = \"{listen}\"\n\
         next_hop = \"{next_hop}\"\n\
         max_sessions_per_client = 500\n\
         \n\
         [filter.built-in]\n"
    )
}

/// What the daemon said last, for the error message.
pub(super) fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the log of checkpostd ends with:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
}
