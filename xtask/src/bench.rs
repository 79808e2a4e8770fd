//! `cargo xtask bench`.

use std::process::ExitCode;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Does nothing yet.
pub(crate) fn run(_args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not there yet")
}
