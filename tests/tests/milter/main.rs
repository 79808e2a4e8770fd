//! Checkpost as a milter: the case files in `cases/milter` against a real Postfix, a real Sendmail and
//! the mock mail server as either of them, and as one of 20 years ago.
//!
//!     client ── 25 ── Postfix or Sendmail ── ~/Maildir
//!                       └── milter.sock ── checkpostd
//!
//! What a case may say is in `case.rs`; a server that lacks an ability that a case needs leaves it out.

#![allow(clippy::unwrap_used)]

mod case;
mod check;
mod dkim;
mod mock;
mod real;

use std::path::Path;
use std::process::Command;

use checkpost_tests::mock_mta::{Offer, Style, Wire};
use checkpost_tests::{Daemon, Postfix, Root, Sendmail, Told, program};

use case::{Case, Prepared};

/// What a case needs of a mail server: the server is told how to use its own words for it.
trait Server {
    /// The kind of way in that serves it.
    fn kind(&self) -> &'static str;

    /// Where it looks for the filter, as the daemon's `listen` has it.
    fn listen(&self) -> String;

    /// A connection to the filter.
    fn wire(&self) -> std::io::Result<Wire>;

    /// The daemon as a program that runs where the server finds it.
    fn daemon(&self) -> Command {
        Command::new(program("checkpostd"))
    }

    /// What it can do beyond taking and refusing mail.
    fn abilities(&self) -> &'static [&'static str];

    /// One connection, all these mails, and a goodbye. What was told before the first mail is in front.
    fn session(&mut self, helo: &str, mails: &[Prepared]) -> anyhow::Result<Heard>;

    /// A program of the server's own machine submits a mail. Whether the program says that it was taken,
    /// if it waits for that.
    fn submit(&mut self, mail: &Prepared) -> anyhow::Result<Option<bool>>;

    /// Waits until nothing is under way any more.
    fn settle(&mut self) -> anyhow::Result<()>;

    /// The mails of a user, with LF line ends.
    fn mailbox(&self, user: &str) -> Vec<Vec<u8>>;

    /// How many mails it holds.
    fn held(&self) -> usize;

    /// Its own list of what it holds and why, if it says why.
    fn held_list(&self) -> anyhow::Result<Option<String>> {
        Ok(None)
    }

    /// Lets go what it holds.
    fn release(&mut self) -> anyhow::Result<()>;

    /// Empties mailboxes and queues.
    fn clear(&mut self) -> anyhow::Result<()>;

    /// What it has logged.
    fn log(&self) -> String;
}

/// What the client of one connection has heard.
#[derive(Debug)]
struct Heard {
    greeting: checkpost_tests::Answer,
    hello: checkpost_tests::Answer,
    mails: Vec<Told>,
}

const ALL: &[&str] = &["edit-headers", "edit-body", "hold", "drop-recipients", "add-recipients", "change-sender"];
/// Version 2 of the protocol.
const OLD: &[&str] = &["edit-headers", "edit-body", "hold", "drop-recipients", "add-recipients"];

#[test]
fn milter_in_mock_postfix() {
    run(&mut mock::Mock::new(Style::Postfix, Offer::FULL, ALL));
}

#[test]
fn milter_in_mock_sendmail() {
    run(&mut mock::Mock::new(Style::Sendmail, Offer::FULL, ALL));
}

#[test]
fn milter_in_mock_of_version_2() {
    run(&mut mock::Mock::new(Style::Postfix, Offer::OLD, OLD));
}

#[test]
fn milter_in_postfix() {
    let postfix = Postfix::new().milter(Postfix::MILTER, "tempfail").alias("staff: alice, bob");
    let postfix = postfix.main_cf("message_size_limit", "30000000");
    let Some(root) = Root::start_or_skip(&postfix) else { return };
    run(&mut real::Real { root, tcp: false, mta: real::Postfix });
}

#[test]
fn milter_in_postfix_over_tcp() {
    let Some(root) = Root::start_or_skip(&Postfix::new().milter("inet:127.0.0.1:12768", "tempfail")) else { return };
    run_some(&mut real::Real { root, tcp: true, mta: real::Postfix }, SOME);
}

/// It still offers all actions, but neither SKIP nor steps without an answer nor leading blanks.
#[test]
fn milter_in_postfix_of_version_2() {
    let postfix = Postfix::new().milter(Postfix::MILTER, "tempfail").main_cf("milter_protocol", "2");
    let Some(root) = Root::start_or_skip(&postfix) else { return };
    run_some(&mut real::Real { root, tcp: false, mta: real::Postfix }, SOME);
}

#[test]
fn milter_in_sendmail() {
    let sendmail = Sendmail::new().milter(Sendmail::MILTER, "F=T, T=C:30s;S:60s;R:60s;E:5m").alias("staff: alice, bob");
    let Some(root) = Root::start_or_skip(&sendmail) else { return };
    run(&mut real::Real { root, tcp: false, mta: real::Sendmail });
}

#[test]
fn milter_in_sendmail_over_tcp() {
    let Some(root) = Root::start_or_skip(&Sendmail::new().milter("inet:12768@127.0.0.1", "F=T")) else { return };
    run_some(&mut real::Real { root, tcp: true, mta: real::Sendmail }, SOME);
}

/// Cases for a server that another test runs all of.
const SOME: &[&str] = &["body-3m", "clean", "header-set", "malware", "rset", "subject-tag", "two-mails"];

/// Runs all cases and tells of all that failed.
fn run(server: &mut dyn Server) {
    run_some(server, &[]);
}

/// Runs the named cases; none named: all.
#[allow(clippy::print_stderr)]
fn run_some(server: &mut dyn Server, names: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/milter");
    let only = std::env::var("CASE").unwrap_or_default();
    let mut failures = Vec::new();
    let (mut done, mut left_out) = (0, Vec::new());
    let wanted = |case: &Case| case.name.contains(&only) && (names.is_empty() || names.contains(&case.name.as_str()));
    for case in Case::all(&folder).into_iter().filter(wanted) {
        if !case.needs.iter().all(|need| server.abilities().contains(&need.as_str())) {
            left_out.push(case.name);
            continue;
        }
        done += 1;
        let logged = server.log().len();
        let played = with_daemon(server, &case.rules, &mut |server, folder| check::play(server, &case, folder));
        if let Err(error) = played.and_then(|log| check::closing_lines(&case, &log)) {
            let log = server.log();
            failures.push(format!("{} ({}): {error:#}\n{}", case.name, case.title, log.get(logged..).unwrap_or(&log)));
        }
        // After a failure something may still be under way.
        let _ = server.settle();
        server.clear().unwrap();
    }
    if "dkim".contains(&only)
        && let Err(error) = with_daemon(server, dkim::RULES, &mut |server, _| dkim::check(server))
    {
        failures.push(format!("dkim: {error:#}"));
    }
    eprintln!("{done} cases; left out for want of an ability: {left_out:?}");
    assert!(failures.is_empty(), "{} of {done} cases failed:\n\n{}", failures.len(), failures.join("\n\n"));
    assert!(done > 0 || !only.is_empty(), "no cases in {}", folder.display());
}

/// What a test does with a server, and with the folder of the daemon beside it.
type Play<'a> = &'a mut dyn FnMut(&mut dyn Server, &Path) -> anyhow::Result<()>;

/// A daemon of its own for each case. Returns all that it has logged.
fn with_daemon(server: &mut dyn Server, rules: &str, play: Play<'_>) -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("checkpost-lab-").tempdir()?;
    let mode = if server.listen().starts_with("unix:") { "socket_mode = \"0666\"\n" } else { "" };
    let config = format!(
        "[daemon]\nstate = \"{}/state\"\n\n[[way]]\nkind = \"{}\"\nlisten = \"{}\"\n{mode}\n{rules}",
        folder.path().display(),
        server.kind(),
        server.listen(),
    );
    let ready = || server.wire().is_ok_and(|mut wire| wire.negotiates());
    let daemon = Daemon::start_when(server.daemon(), folder.path(), &config, ready)?;
    let result = play(server, folder.path());
    let ended = daemon.stop()?;
    let log = std::fs::read_to_string(folder.path().join("log"))?;
    result.map_err(|error| anyhow::anyhow!("{error:#}\ncheckpostd:\n{log}"))?;
    anyhow::ensure!(ended.success(), "checkpostd ended with {ended}: {log}");
    Ok(log)
}
