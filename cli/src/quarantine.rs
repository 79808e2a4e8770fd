//! `quarantine list|show|export`: read from the store itself, so that it works without a daemon.

use std::io;

use anyhow::Context;
use checkpost_core::config::{Document, Problems};
use checkpost_core::quarantine::{Entry, QuarantineError, QuarantineReader};
use checkpostd::Settings;

use crate::{Common, print};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List the mails, the oldest first
    List,
    /// Show one mail's envelope, findings, way and time
    Show {
        /// As listed
        id: String,
    },
    /// Write one mail's exact octets to standard output
    Export {
        /// As listed
        id: String,
    },
}

pub(crate) fn run(common: &Common, command: &Command) -> anyhow::Result<u8> {
    let reader = reader(common)?;
    let done = match command {
        Command::List => reader.list().map(|entries| list(common, &entries)),
        Command::Show { id } => reader.show(id).map(|entry| show(common, &entry)),
        Command::Export { id } => reader.open(id).map(|mut file| {
            match io::copy(&mut file, &mut io::stdout().lock()) {
                // Whoever read it has enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other.map(|_| ()).context("the mail cannot be written out"),
            }
        }),
    };
    match done {
        Ok(shown) => shown.map(|()| 0),
        Err(error @ QuarantineError::NotFound(_)) => {
            print::error(&format!("checkpost: {error}"));
            Ok(1)
        }
        Err(error) => Err(error.into()),
    }
}

fn reader(common: &Common) -> anyhow::Result<QuarantineReader> {
    let mut problems = Problems::default();
    let mut document = Document::read(&common.config, &mut problems);
    problems.into_result()?;
    // What is wrong in other sections does not matter here.
    let mut problems = Problems::default();
    let settings = Settings::take(&mut document, &mut problems);
    let config = checkpostd::state::quarantine(&mut document, &settings, &mut problems);
    problems.into_result()?;
    Ok(QuarantineReader::new(&config))
}

fn list(common: &Common, entries: &[Entry]) -> anyhow::Result<()> {
    for entry in entries {
        if common.json {
            print::json(entry)?;
            continue;
        }
        let found: Vec<_> = entry.findings.iter().map(|finding| finding.name.as_str()).collect();
        let to: Vec<_> = entry.recipients.iter().map(|recipient| format!("<{}>", recipient.address)).collect();
        let text = format!(
            "{} {} {} octets <{}> to {}: {}",
            entry.id,
            entry.time,
            entry.octets,
            entry.sender,
            to.join(" "),
            found.join(", ")
        );
        print::line(&print::clean(&text));
    }
    Ok(())
}

fn show(common: &Common, entry: &Entry) -> anyhow::Result<()> {
    if common.json {
        return print::json(entry);
    }
    // JSON escapes every control character, so what a mail says cannot reach the terminal as one.
    print::line(&serde_json::to_string_pretty(entry)?);
    Ok(())
}
