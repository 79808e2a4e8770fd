//! Tests that cannot run here say so: on standard error, and in the file that `cargo xtask test` reads.
//! A skipped test still counts as passed for cargo; that is why the list exists.

use std::fs::OpenOptions;
use std::io::Write;

/// Why something cannot run on this machine, as one clause that a user understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// Notes that the test that runs now is skipped, and why.
///
/// The line `NAME\tREASON` is appended to the file that `CHECKPOST_SKIPS` names, if it is set.
/// The caller returns right after.
#[allow(clippy::print_stderr)]
pub fn skip(why: &Skip) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}: {why}");
    let Some(list) = std::env::var_os("CHECKPOST_SKIPS") else {
        return;
    };
    let line = format!("{test}\t{why}\n");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(list)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
}
