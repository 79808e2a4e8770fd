//! `cargo xtask demo`: Checkpost at work in front of a mail server, in a minute and without leaving a
//! trace. It expects what it shows: if reality differs, the demo fails.

mod scene;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use checkpost_tests::{Lab, Told, mails};
use comfy_table::{ContentArrangement, Table, presets};

use crate::run::{Progress, say, watched};
use crate::{packages, run};
use scene::{Hop, Scene};

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const SENDER: &str = "sender@example.net";

/// Postfix delivers in milliseconds; a machine under load gets more.
const DELIVERY: Duration = Duration::from_secs(30);

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build with optimisation: slower to build, faster to run.
    #[arg(long)]
    release: bool,
    /// Use the built-in sink as the next hop even where a real Postfix could run.
    #[arg(long)]
    sink: bool,
    /// Use this checkpostd instead of building one.
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    daemon: Option<PathBuf>,
}

/// Shows four mails on their way; fails if one of them fares otherwise than it should.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let daemon = args.daemon.clone().map_or_else(|| build(args.release), Ok)?;
    let hop = next_hop(args.sink)?;
    let progress = Progress::new(&format!("checkpostd in front of {}", hop.name()));
    let scene = Scene::start(&daemon, hop)?;
    progress.end(true);

    let letters = letters();
    let told = letters.iter().map(|letter| scene.send(letter)).collect::<anyhow::Result<Vec<_>>>()?;
    let expected = letters.iter().filter(|letter| letter.reaches.contains(&"alice")).count();
    scene.settle("alice", expected, DELIVERY)?;

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "mail",
        "for",
        "the sender was told",
        "delivered to",
        "as it should be",
    ]);
    if !table.is_tty() {
        table.set_width(110);
    }
    let mut all_good = true;
    for (letter, told) in letters.iter().zip(&told) {
        let reached: Vec<&str> = ["alice", "bob"].into_iter().filter(|user| scene.has(user, letter)).collect();
        let good = told.accepted() == letter.accepted && reached == letter.reaches;
        all_good &= good;
        table.add_row([
            letter.what.to_owned(),
            letter.to.iter().map(|to| to.trim_end_matches("@example.test")).collect::<Vec<_>>().join(", "),
            told.last().to_string(),
            if reached.is_empty() { "nobody".to_owned() } else { format!("{}, unchanged", reached.join(", ")) },
            if good { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    let strangers = scene.count("alice") + scene.count("bob");
    let wanted: usize = letters.iter().map(|letter| letter.reaches.len()).sum();
    let log = scene.end()?;
    say(&table.to_string());
    say("What checkpostd logged, one line for each mail:");
    for line in log.lines().filter(|line| line.contains(SENDER)) {
        say(&format!("  {line}"));
    }
    if strangers != wanted {
        bail!("{strangers} mails were delivered, {wanted} should have been");
    }
    if !all_good {
        bail!("a mail fared otherwise than it should");
    }
    say("Everything went as it should; the daemon and the next hop have ended.");
    Ok(ExitCode::SUCCESS)
}

/// One mail of the demo, and what should become of it.
pub(crate) struct Letter {
    what: &'static str,
    to: Vec<&'static str>,
    mail: Vec<u8>,
    /// Should the sender be told 250?
    accepted: bool,
    /// Whose mailbox it should be in, unchanged.
    reaches: Vec<&'static str>,
}

fn letters() -> Vec<Letter> {
    let zip = mails::eicar_in_nested_zip();
    vec![
        Letter {
            what: "plain text",
            to: vec![ALICE],
            mail: mails::plain(SENDER, ALICE, "Lunch", "At noon?\n.\nA dot on a line of its own.\n"),
            accepted: true,
            reaches: vec!["alice"],
        },
        Letter {
            what: "EICAR in a zip in a zip",
            to: vec![ALICE],
            mail: mails::with_attachment(SENDER, ALICE, "Invoice", "invoice.zip", &zip),
            accepted: false,
            reaches: vec![],
        },
        Letter {
            what: "GTUBE spam test",
            to: vec![ALICE],
            mail: mails::plain(SENDER, ALICE, "Offer", &mails::gtube()),
            accepted: false,
            reaches: vec![],
        },
        Letter {
            what: "not for the second recipient",
            to: vec![ALICE, BOB],
            mail: mails::plain(SENDER, ALICE, "Party", "Bob must not know.\n"),
            accepted: true,
            reaches: vec!["alice"],
        },
    ]
}

/// Builds the daemon and returns its path.
fn build(release: bool) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--package", "checkpostd", "--bin", "checkpostd"]);
    command.args(release.then_some("--release"));
    let done = watched("building checkpostd (the first time takes minutes)", &mut command)?;
    if !done.status.success() {
        bail!("checkpostd does not build:\n{}", done.text());
    }
    let profile = if release { "release" } else { "debug" };
    Ok(run::target_folder()?.join(profile).join("checkpostd"))
}

/// A real Postfix where one can run, else the built-in sink; it says which and why.
fn next_hop(sink: bool) -> anyhow::Result<Hop> {
    if sink {
        return Hop::sink();
    }
    let ready = packages::ensure(Lab::PACKAGES).and_then(|()| Lab::available().map_err(|why| why.to_string()));
    if let Err(why) = ready {
        say(&format!("     no real Postfix here, so the built-in sink is the next hop: {why}"));
        return Hop::sink();
    }
    let progress = Progress::new("a real Postfix in an isolated root (the first time takes minutes)");
    match Hop::postfix() {
        Ok(Ok(hop)) => {
            progress.end(true);
            Ok(hop)
        }
        Ok(Err(why)) => {
            progress.end(false);
            say(&format!("     the built-in sink is the next hop instead: {why}"));
            Hop::sink()
        }
        Err(error) => {
            progress.end(false);
            Err(error).context("Postfix should have started")
        }
    }
}

impl Letter {
    fn to(&self) -> &[&'static str] {
        &self.to
    }

    /// What the mailbox of a recipient ends with if this mail is in it unchanged.
    fn stored(&self) -> Vec<u8> {
        mails::as_stored(&self.mail)
    }
}

impl Scene {
    fn send(&self, letter: &Letter) -> anyhow::Result<Told> {
        checkpost_tests::send(self.connect()?, SENDER, letter.to(), &letter.mail)
            .with_context(|| format!("sending: {}", letter.what))
    }

    /// Whether `user` has this mail, below the trace fields byte for byte as it was sent.
    fn has(&self, user: &str, letter: &Letter) -> bool {
        let stored = letter.stored();
        self.mailbox(user).iter().any(|mail| mail.ends_with(&stored))
    }

    fn count(&self, user: &str) -> usize {
        self.mailbox(user).len()
    }
}
