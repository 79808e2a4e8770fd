//! `checkpost-courier`: a filter that courierfilter(8) starts once and asks for every mail. It runs as user courier,
//! reads the queue files, and asks checkpostd, which gets the mail as an open descriptor.
//!
//! It judges nothing. While its socket is there, Courier takes no mail that it has not answered for; that is why the
//! socket is made before anything that could fail, and stays after a fault.

mod files;
mod log;
mod mail;
mod settings;
mod start;

use std::env;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use checkpost_client::serve::{self, Ending};
use files::Place;
use mail::Desk;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use settings::{Settings, WhenBroken};
use start::{Socket, Waiting};

/// Courier's folders `allfilters`, `filters` and `tmp` are here, unless the environment says otherwise.
const STATE: &str = "/var/lib/courier";
const STATE_VARIABLE: &str = "CHECKPOST_COURIER_STATE";

/// Descriptors of one mail: its connection, its files, the daemon, a changed content.
const DESCRIPTORS: u64 = 8;
/// courierfilter waits for a filter that is to end, and gives up after 15 s.
const LAST_WORDS: Duration = Duration::from_secs(9);

fn main() -> ExitCode {
    // First, before a descriptor of our own has one of the numbers.
    let waiting = Waiting::take();
    std::panic::set_hook(Box::new(|fault| log::line("", format_args!("fault: {fault}"))));
    let mut arguments = env::args_os();
    let own = arguments.next().unwrap_or_default();
    let state = env::var_os(STATE_VARIABLE).map_or_else(|| STATE.into(), PathBuf::from);
    // courierfilter deletes sockets of other names than those in its folder `active`.
    let name = Path::new(&own).file_name().and_then(|name| name.to_str()).unwrap_or("checkpost");
    if let Some(argument) = arguments.next() {
        return command(&argument, &state, name);
    }
    let socket = match Socket::create(&state, name) {
        Ok(socket) => socket,
        Err(error) => {
            log::line("", format_args!("no socket, so mail passes UNCHECKED: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let by_hand = !waiting.is_courierfilter();
    waiting.started();
    let file = Settings::file();
    let ended = catch_unwind(AssertUnwindSafe(|| run(&socket, &state, &file, by_hand)));
    let why = match ended {
        Ok(Ok(())) => {
            socket.remove();
            return ExitCode::SUCCESS;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "a fault".to_owned(),
    };
    let open = Settings::read(&file).is_ok_and(|settings| settings.when_broken == WhenBroken::Open);
    if open {
        socket.remove();
    }
    let then = if open { "mail passes UNCHECKED (when_broken = open)" } else { "mail is put off" };
    log::line("", format_args!("ended: {why}; until filterctl stop and start, {then}"));
    ExitCode::FAILURE
}

/// By an administrator, on the command line.
fn command(argument: &OsStr, state: &Path, name: &str) -> ExitCode {
    if argument == "--version" {
        log::line("", concat!("checkpost-courier ", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    if argument == "--probe" {
        return match start::probe(state, name) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                log::line("", format_args!("no filter answers: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    log::line("", "usage: started by courierfilter, without arguments, see filterctl(8); --probe: does it answer?");
    ExitCode::from(2)
}

fn run(socket: &Socket, state: &Path, file: &Path, by_hand: bool) -> std::io::Result<()> {
    let settings = Settings::read(file).unwrap_or_else(|error| {
        log::line("", format_args!("all mail is put off: the settings are wrong: {error}"));
        Settings::default()
    });
    raise_limit(settings.sessions as u64 * DESCRIPTORS + 32);
    if by_hand {
        log::line("", "started by hand: courierfilter will remove the socket; ends with standard input");
    }
    // A folder that cannot be told makes relative names unusable, no more.
    let start = env::current_dir().unwrap_or_default();
    let desk = Desk { place: Place::new(state, start), settings: file.to_owned() };
    let (stdin, log) = (std::io::stdin(), |text: &str| log::line("", text));
    let end = (&stdin, || is_at_end(stdin.as_fd()));
    let ending = Ending::Close(LAST_WORDS);
    let left = serve::serve(&socket.listener, end, ending, settings.sessions, log, move |stream| desk.serve(stream))?;
    if left > 0 {
        log(&format!("ends with {left} mails open: they are put off"));
    }
    Ok(())
}

/// courierfilter closes standard input: something to read at its end is the end.
fn is_at_end(stdin: BorrowedFd<'_>) -> bool {
    match rustix::io::read(stdin, &mut [0; 512]) {
        Ok(count) => count == 0,
        Err(error) => error != Errno::INTR && error != Errno::AGAIN,
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
