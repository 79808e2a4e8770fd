//! `cargo xtask`: what a developer or a newcomer types: `demo`, `test` and `bench`.
//! Not a build script: plain `cargo build` needs nothing from here.

mod bench;
mod demo;
mod packages;
mod run;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// Checkpost's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
enum Task {
    /// Build, start the daemon in front of a mail server, send four mails, show what became of them.
    Demo(demo::Args),
    /// Install what the tests need, then formatting, lints, unit, doc and end-to-end tests.
    Test(test::Args),
    /// Measure throughput, latency, CPU and memory: of the proxy against a direct connection, or of the milter.
    Bench(Box<bench::Args>),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Demo(args) => demo::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Bench(args) => bench::run(&args),
    };
    done.unwrap_or_else(|error| {
        complain(&format!("cargo xtask: {error:#}"));
        ExitCode::FAILURE
    })
}

/// The one place that writes an error to the user's terminal.
#[allow(clippy::print_stderr)]
fn complain(line: &str) {
    eprintln!("{line}");
}
