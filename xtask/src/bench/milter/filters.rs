//! The filters that are measured: an empty one in C, the daemon, and any other that runs already.
//! Not their judgement: every mail of the bench may pass.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::super::Measured;
use super::super::daemon::last_lines;
use super::super::process::Server;
use checkpost_tests::Root;

use super::EMPTY;
use super::socket::Address;

const SOURCE: &str = include_str!("empty.c");

/// A running filter; ended when dropped, unless it is a peer.
pub(super) struct Filter {
    name: String,
    pub(super) address: Address,
    pid: Option<u32>,
    _server: Option<Server<Address>>,
}

impl Measured for Filter {
    fn name(&self) -> &str {
        &self.name
    }

    fn pid(&self) -> Option<u32> {
        self.pid
    }
}

/// Where filters run: here, or in the network of a root.
#[derive(Clone, Copy)]
pub(super) struct Place<'a>(pub(super) Option<&'a Root>);

impl Place<'_> {
    fn command(self, program: &Path) -> Command {
        self.0.map_or_else(|| Command::new(program), |root| root.net_command(program))
    }

    fn reaches(self, address: &Address) -> bool {
        let connects = || address.connect().is_ok();
        self.0.map_or_else(connects, |root| root.in_network(connects))
    }
}

impl Filter {
    /// One that was there before and stays.
    pub(super) fn peer(address: Address, pid: Option<u32>) -> Self {
        Self { name: address.to_string(), address, pid, _server: None }
    }

    fn started(name: &str, server: Server<Address>) -> Self {
        Self { name: name.into(), address: server.address.clone(), pid: Some(server.id()), _server: Some(server) }
    }
}

/// Compiles, in `folder`, and starts the filter that takes every event and looks at nothing, on a Unix socket; `None`
/// where libmilter is missing.
///
/// # Errors
/// When it compiles and does not start.
pub(super) fn empty(place: Place<'_>, folder: &Path, address: Address) -> anyhow::Result<Option<Filter>> {
    let (source, program) = (folder.join("empty.c"), folder.join("empty"));
    fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .args([&program, &source])
        .args(["-lmilter", "-lpthread"])
        .stderr(Stdio::null())
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let mut command = place.command(&program);
    command.arg(address.to_string());
    Ok(Some(Filter::started(EMPTY, start(EMPTY, place, command, address)?)))
}

/// Starts `program` with the milter on `address` and the built-in filter on, all else by default.
///
/// # Errors
/// When it ends or does not listen.
pub(super) fn checkpost(
    place: Place<'_>,
    name: &str,
    program: &Path,
    folder: &Path,
    address: Address,
) -> anyhow::Result<Filter> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    let (config, log) = (folder.join("checkpost.toml"), folder.join("checkpostd.log"));
    fs::write(&config, configuration(&folder, &address))?;
    let output = File::create(&log)?;
    let mut command = place.command(program);
    command.arg("--config").arg(&config).stdout(output.try_clone()?).stderr(output);
    let server = start("checkpostd", place, command, address).with_context(|| last_lines(&log))?;
    Ok(Filter::started(name, server))
}

fn configuration(folder: &Path, listen: &Address) -> String {
    let folder = folder.display();
    format!(
        "[daemon]\n\
         state = \"{folder}/state\"\n\
         \n\
         [[way]]\n\
         kind = \"postfix-milter\"\n\
         name = \"bench\"\n\
         listen = \"{listen}\"\n\
         socket_mode = \"0666\"\n\
         \n\
         [filter.built-in]\n"
    )
}

fn start(name: &str, place: Place<'_>, command: Command, address: Address) -> anyhow::Result<Server<Address>> {
    if let Address::Unix(path) = &address {
        ensure!(!path.exists(), "{} is in use", path.display());
    }
    let mut server = Server::start(name, command, address)?;
    server.wait(Instant::now(), |address| place.reaches(address))?;
    Ok(server)
}
