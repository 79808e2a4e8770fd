//! `checkpost-zmailer`: asks checkpostd for ZMailer, in three ways that only the call tells apart: a content filter that
//! smtpserver starts (`-Z FILE`), a server that smtpserver asks at a socket (`serve`), and a look at each mail before it
//! is routed (`router FILE`, or called as `checkpost-zmailer-router FILE`). `release FILE` lets a held mail pass.
//!
//! It judges nothing. smtpserver takes whatever it does not understand, and silence, for "accept": so the filter is there
//! before anything that could fail, answers every mail, and answers in time.

mod files;
mod hand_in;
mod log;
mod mail;
mod router;
mod server;
mod start;
mod talk;

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use checkpost_zmailer::config::{Config, FILE};
use mail::Desk;

/// As the daemon's log has it.
pub(crate) const PROGRAM: &str = concat!("checkpost-zmailer ", env!("CARGO_PKG_VERSION"));

const USAGE: &str = "usage: checkpost-zmailer -Z FILE (by smtpserver) | serve | router FILE | release FILE | --version";

/// The call is wrong (EX_USAGE of sysexits.h).
const EXIT_USAGE: u8 = 64;

enum Call {
    Program,
    Serve,
    Router(PathBuf),
    Release(PathBuf),
    Version,
    Wrong,
}

fn main() -> ExitCode {
    let call = called(env::args_os());
    if matches!(call, Call::Program) {
        start::quiet();
    }
    std::panic::set_hook(Box::new(|fault| log::line("", format_args!("fault: {fault}"))));
    // Only root can say otherwise: smtpserver and the router run as root, and so does who sets up a test.
    let settings = env::var_os("CHECKPOST_ZMAILER_CONF").map_or_else(|| FILE.into(), PathBuf::from);
    match call {
        Call::Program => program(settings),
        Call::Serve => server::run(settings),
        Call::Router(file) => router::run(&settings, &file),
        Call::Release(file) => router::release(&settings, &file),
        Call::Version => {
            log::line("", PROGRAM);
            ExitCode::SUCCESS
        }
        Call::Wrong => {
            log::line("", USAGE);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn called(mut words: impl Iterator<Item = std::ffi::OsString>) -> Call {
    let name = words.next().unwrap_or_default();
    let words: Vec<_> = words.collect();
    let file = |at: usize| PathBuf::from(&words[at]);
    let as_router = Path::new(&name).file_name() == Some(OsStr::new("checkpost-zmailer-router"));
    let shown: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or("?")).collect();
    match shown[..] {
        [_] if as_router => Call::Router(file(0)),
        // smtpserver's argument is its own configuration's name; a terminal's user gets the usage.
        ["-Z", _] | [] if !as_router => Call::Program,
        ["serve"] => Call::Serve,
        ["router", _] => Call::Router(file(1)),
        ["release", _] => Call::Release(file(1)),
        ["--version"] => Call::Version,
        _ => Call::Wrong,
    }
}

/// Serves one smtpserver at a time, on standard input and output.
fn program(settings: PathBuf) -> ExitCode {
    let user = Config::read(&settings).unwrap_or_default().user;
    // As root it would go on only to tell every client to try again.
    let disabled = start::drop_privileges(&user).err().map(|error| format!("cannot become {user}: {error}"));
    let desk = Arc::new(Desk { settings, is_program: true, disabled });
    match talk::talk(std::io::stdin().lock(), std::io::stdout().lock(), &desk) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
