//! `cargo xtask test`: everything that must hold before a change is good, from formatting to real
//! mail servers. It knows no single test; those are in the packages.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use checkpost_tests::{Clamd, Courier, Exim, Lab, Postfix, Recipe, Scanners, Sendmail, StartError};

use crate::packages;
use crate::run::{Done, Progress, say, target_folder, watched};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose names contain this; formatting, lints and the like are left out.
    #[arg(value_name = "NAME")]
    only: Option<String>,
}

/// Runs every check and lists what could not run; fails if any check failed.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir().context("no temporary folder")?;
    let mut tally = Tally::default();
    let cargo = Cargo { skips: scratch.path().join("skips") };

    if let Err(why) = packages::ensure(Lab::PACKAGES) {
        say(&format!("     {why}"));
    }
    prepare_lab();
    if args.only.is_none() {
        tally.check(watched("formatting", &mut cargo.run(&["fmt", "--all", "--check"]))?);
        let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        tally.check(watched("lints", &mut cargo.run(&clippy))?);
        let doc = ["doc", "--locked", "--workspace", "--no-deps"];
        tally.check(watched("documentation", cargo.run(&doc).env("RUSTDOCFLAGS", "-D warnings"))?);
        licences(&cargo, &mut tally)?;
        one_tls_provider(&cargo, &mut tally)?;
    }
    // The end-to-end tests start these.
    let built = watched("programs", &mut cargo.run(&["build", "--locked", "--workspace", "--lib", "--bins"]))?;
    if built.status.success() {
        let mut tests = cargo.run(&["test", "--locked", "--workspace", "--no-fail-fast"]);
        if std::env::var_os("RUST_TEST_THREADS").is_none() {
            // Most of the time they wait for mail servers.
            let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
            tests.env("RUST_TEST_THREADS", threads.to_string());
        }
        tests.env("CHECKPOST_BIN_DIR", Cargo::programs()?);
        if let Some(only) = &args.only {
            tests.arg(only);
        }
        tally.tests(watched("unit, doc and end-to-end tests", &mut tests)?);
    } else {
        tally.check(built);
    }
    tally.skipped_by_tests(&std::fs::read_to_string(&cargo.skips).unwrap_or_default());
    tally.report();
    if let Some(only) = &args.only
        && tally.passed + tally.failed + tally.skipped.len() == 0
    {
        bail!("no test has {only:?} in its name");
    }
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Cargo, set up the same way for every step.
struct Cargo {
    skips: PathBuf,
}

impl Cargo {
    fn run(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).env("CHECKPOST_SKIPS", &self.skips).env("CARGO_TERM_COLOR", "never");
        command
    }

    /// Where the built programs are.
    fn programs() -> anyhow::Result<PathBuf> {
        Ok(target_folder()?.join("debug"))
    }
}

/// Builds the layers of the real servers now, where the user sees it, rather than within a test.
/// A failure is not told here: each test that needs the lab fails or is skipped, with the reason.
fn prepare_lab() {
    if Lab::available().is_err() {
        return;
    }
    let progress =
        Progress::new("real servers (Postfix, Sendmail, Exim, Courier, clamd; the first time takes minutes)");
    let recipes: [&dyn Recipe; 6] =
        [&Postfix::new(), &Sendmail::new(), &Exim::new(), &Courier::new(), &Clamd::new(), &Scanners];
    let ready: Result<(), StartError> = Lab::prepare(&recipes);
    progress.end(ready.is_ok());
}

fn licences(cargo: &Cargo, tally: &mut Tally) -> anyhow::Result<()> {
    const WHAT: &str = "licences of the dependencies";
    if !cargo.run(&["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        tally.skip(WHAT, "cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    tally.check(watched(WHAT, &mut cargo.run(&["deny", "--locked", "check", "licenses", "bans"]))?);
    Ok(())
}

/// ring is the only TLS provider; a crate's default feature may bring in the other one.
fn one_tls_provider(cargo: &Cargo, tally: &mut Tally) -> anyhow::Result<()> {
    let progress = Progress::new("one TLS provider");
    let tree = cargo.run(&["tree", "--locked", "--workspace", "--target", "all", "-i", "aws-lc-sys"]).output()?;
    let complaint = String::from_utf8_lossy(&tree.stderr).into_owned();
    // Cargo calls it an error when no such package is locked at all.
    let good = tree.stdout.is_empty() && (tree.status.success() || complaint.contains("did not match any packages"));
    progress.end(good);
    if good {
        tally.passed += 1;
    } else {
        tally.failed += 1;
        say(&String::from_utf8_lossy(&tree.stdout));
        say(&complaint);
    }
    Ok(())
}

/// The count of everything.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// What was left out, and why.
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// A step that counts as one check.
    #[allow(clippy::needless_pass_by_value)]
    fn check(&mut self, done: Done) {
        if done.status.success() {
            self.passed += 1;
        } else {
            self.failed += 1;
            say(&done.text());
        }
    }

    /// A run of `cargo test`: each test counts.
    #[allow(clippy::needless_pass_by_value)]
    fn tests(&mut self, done: Done) {
        let before = self.failed;
        for line in &done.lines {
            if let Some([passed, failed, ignored]) = test_result(line) {
                self.passed += passed;
                self.failed += failed;
                if ignored > 0 {
                    self.skip(&format!("{ignored} tests"), "marked as ignored in their source");
                }
            }
        }
        if !done.status.success() {
            say(&done.text());
            if self.failed == before {
                // It did not even get to a result, for example because it does not compile.
                self.failed += 1;
            }
        }
    }

    fn skip(&mut self, what: &str, why: &str) {
        self.skipped.push((what.to_owned(), why.to_owned()));
    }

    /// The list that the tests themselves wrote. Cargo took them for passed.
    fn skipped_by_tests(&mut self, list: &str) {
        for (test, why) in list.lines().filter_map(|line| line.split_once('\t')) {
            self.skip(test, why);
            self.passed = self.passed.saturating_sub(1);
        }
    }

    fn report(&self) {
        if !self.skipped.is_empty() {
            say("skipped:");
            for (what, why) in &self.skipped {
                say(&format!("  {what}: {why}"));
            }
        }
        say(&format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len()));
    }
}

/// Passed, failed and ignored from a line such as
/// `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s`.
fn test_result(line: &str) -> Option<[usize; 3]> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok());
    Some([count(" passed")?, count(" failed")?, count(" ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_cargo() {
        fn check(line: &str, counts: Option<[usize; 3]>) {
            assert_eq!(test_result(line), counts, "{line}");
        }
        check(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            Some([3, 0, 1]),
        );
        check(
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 3.00s",
            Some([10, 2, 0]),
        );
        check("test tests::result: ok. 3 passed", None);
        check("test result: ok.", None);
        check("", None);
    }

    #[test]
    fn skipped_tests_do_not_count_as_passed() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        tally.skipped_by_tests("one\tnot root\nnonsense\ntwo\tno package\n");
        assert_eq!((tally.passed, tally.failed, tally.skipped.len()), (1, 0, 2));
    }
}
