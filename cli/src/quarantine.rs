//! `quarantine list|show|export`. (The store in files comes with its own commit.)

use anyhow::bail;

use crate::Common;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List the mails, newest first
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
    let _ = (common, command);
    bail!("no quarantine is configured")
}
