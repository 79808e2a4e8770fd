//! `checkpost-communigate`: an External Filter helper that CommuniGate Pro starts once and asks for every mail. It runs in
//! the server's base directory, as the server's user, reads the queue's files, and asks checkpostd, which gets each as
//! an open descriptor.
//!
//! It judges nothing, and it does not end because something is missing: the server would start it again and again, and
//! mail would wait for nothing. What it cannot do it answers with "later".

mod desk;
mod journal;
mod log;
mod look;
mod queue;
mod quiet;
mod serve;
mod settings;
mod submit;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, setrlimit};

use desk::Desk;
use queue::Base;
use settings::Settings;

const USAGE: &str = "usage: checkpost-communigate [SETTINGS], started by CommuniGate Pro; \
                     checkpost-communigate --look BASE [SETTINGS]; --version";

/// Descriptors of one mail: its file, the daemon, a mail that is handed in, folders on the way to it.
const DESCRIPTORS: u64 = 8;

fn main() -> ExitCode {
    quiet::quiet();
    // No file of ours is for everybody.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    if log::start().is_err() {
        return ExitCode::FAILURE;
    }
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let code = match arguments.first().and_then(|first| first.to_str()) {
        Some("--version") => {
            log::say(concat!("checkpost-communigate ", env!("CARGO_PKG_VERSION"), "\n").into());
            ExitCode::SUCCESS
        }
        Some("--help") => {
            log::say(format!("{USAGE}\n").into());
            ExitCode::SUCCESS
        }
        Some("--look") => look::look(&arguments[1..]),
        _ => help(&arguments),
    };
    log::drain();
    code
}

/// Serves the server.
fn help(arguments: &[OsString]) -> ExitCode {
    let file = arguments.first().map_or_else(|| settings::FILE.into(), PathBuf::from);
    log::say(checkpost_communigate::session::note(concat!(
        "checkpost-communigate ",
        env!("CARGO_PKG_VERSION"),
        " ready"
    )));
    if arguments.len() > 1 || file.to_string_lossy().starts_with('-') {
        log::note("", format_args!("arguments that are not understood are left alone; {USAGE}"));
    }
    let settings = Settings::read(&file).unwrap_or_else(|error| {
        log::note("", format_args!("all mail is put off: the settings are wrong: {error}"));
        Settings::default()
    });
    raise_limit(settings.requests as u64 * DESCRIPTORS + 64);
    // A folder that cannot be told has no queue.
    let base = env::current_dir().unwrap_or_default();
    let desk = Arc::new(Desk::new(Base::new(base), file, settings.state));
    desk.prepare();
    match serve::serve(&desk, settings.requests, settings.timeout) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::note("", format_args!("ended: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// More descriptors, as far as they may be had.
fn raise_limit(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
