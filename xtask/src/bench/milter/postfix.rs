//! Postfix with and without a milter: the same mails over SMTP, in one isolated root.
//! Not a measurement of delivery: what Postfix took is thrown away, and each run begins with an empty queue.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use checkpost_tests::{Postfix, Root};

use super::super::client::message;
use super::super::load::Load;
use super::super::mail::Mail;
use super::super::report::{Layout, Report};
use super::super::{Measured, progress};
use super::filters::{self, Filter, Place};
use super::socket::Address;
use super::{Args, EMPTY, TCP, UNIX, goals};

const NO_FILTER: &str = "no filter";

const LAYOUT: Layout = Layout { baseline: NO_FILTER, other: Some("Postfix CPU"), goals: goals::through_postfix };

/// Each of these paths has an smtpd of its own in the same Postfix: name, port, and the milter as Postfix names it.
const PATHS: [(&str, u16, &str); 4] = [
    (NO_FILTER, 2501, ""),
    (EMPTY, 2502, "unix:/lab/shared/empty.sock"),
    (UNIX, 2503, "unix:/lab/shared/checkpost.sock"),
    (TCP, 2504, "inet:127.0.0.1:12768"),
];

struct Way {
    name: &'static str,
    address: SocketAddr,
    filter: Option<Filter>,
}

impl Measured for Way {
    fn name(&self) -> &str {
        self.name
    }

    fn pid(&self) -> Option<u32> {
        self.filter.as_ref().and_then(Measured::pid)
    }
}

/// Starts everything, measures, ends everything.
///
/// # Errors
/// When Postfix or a filter does not start, or mails stay in the queue.
pub(super) fn measure(args: &Args, program: Option<&Path>, folder: &Path) -> anyhow::Result<Report> {
    progress("starting Postfix (the first time its root is built)");
    let folder = folder.join("postfix");
    let root = start(&folder.join("spool"))?;
    let mut ways = Vec::new();
    for (name, port, _) in PATHS {
        let filter = match (name, program) {
            (NO_FILTER, _) => None,
            (EMPTY, _) => {
                let filter = filters::empty(Place(Some(&root)), &folder, socket(&root, "empty.sock"))?;
                if filter.is_none() {
                    continue;
                }
                filter
            }
            (_, None) => continue,
            (_, Some(program)) => {
                let tcp = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 12_768)));
                let address = if name == TCP { tcp } else { socket(&root, "checkpost.sock") };
                Some(filters::checkpost(Place(Some(&root)), name, program, &folder, address)?)
            }
        };
        ways.push(Way { name, address: SocketAddr::from(([127, 0, 0, 1], port)), filter });
    }
    let runs = args.common.all_rounds(&args.sessions, &mut ways, |way, point| {
        let mail = point.mail.clone().with_final_dot();
        let load = Load { mail: &mail, sessions: point.sessions, time: args.common.time() };
        let watched = [Some(root.id()), way.pid()];
        let outcome = root.in_network(|| load.run(&watched, || |mail: &Mail| message(way.address, mail, false)))?;
        ensure!(root.wait_delivered(Duration::from_secs(120)), "mails stay in Postfix's queue");
        Ok(outcome)
    })?;
    let facts = args.points().filter_map(|point| goals::tcp(&runs, "through Postfix", point, Some(0.9))).collect();
    Ok(Report::new(&LAYOUT, &runs, facts))
}

/// Starts Postfix with its queue below `spool` on this machine's disk: an own root has everything in memory, where
/// Postfix's fsync for each mail would cost nothing and what a filter adds would seem larger than it is.
fn start(spool: &Path) -> anyhow::Result<Root> {
    const SPOOL: &str = "/var/spool/postfix";
    std::fs::create_dir_all(spool)?;
    let first = Root::start(&recipe()).context("Postfix")?;
    let copied = Command::new("cp").arg("-a").arg(first.path(SPOOL).join(".")).arg(spool).status().context("cp")?;
    ensure!(copied.success(), "cp ended with {copied}");
    drop(first);
    Root::of(&recipe()).bind(spool, SPOOL).start().context("Postfix with its queue on disk")
}

/// Mail for anywhere is accepted and thrown away. Without in_flow_delay, by which Postfix slows down clients while the
/// queue fills, the rate is that of the reception.
fn recipe() -> Postfix {
    let postfix = Postfix::new().main_cf("default_transport", "discard:").main_cf("in_flow_delay", "0");
    PATHS.iter().fold(postfix, |postfix, (_, port, milter)| {
        postfix.master_cf(&format!(
            "127.0.0.1:{port} inet n - n - 200 smtpd -o smtpd_milters={milter} -o milter_default_action=tempfail"
        ))
    })
}

/// A Unix socket that Postfix sees as `/lab/shared/NAME`.
fn socket(root: &Root, name: &str) -> Address {
    Address::Unix(root.shared().join(name))
}
