//! `--look BASE`: what an administrator asks, and cron: is all there that the program needs, and did the server leave a
//! mail of ours lying? It changes nothing.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::log;
use crate::settings::{self, Settings};
use crate::submit::Submitted;

/// Says what it sees, a line each.
pub(crate) fn look(arguments: &[OsString]) -> ExitCode {
    let Some(base) = arguments.first().map(PathBuf::from) else {
        log::say(format!("{}\n", super::USAGE).into());
        return ExitCode::from(2);
    };
    let file = arguments.get(1).map_or_else(|| settings::FILE.into(), PathBuf::from);
    let seen = see(&base, &file);
    for (is_good, text) in &seen {
        log::say(format!("{} {text}\n", if *is_good { "ok   " } else { "WRONG" }).into());
    }
    if seen.iter().all(|(is_good, _)| *is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn see(base: &Path, file: &Path) -> Vec<(bool, String)> {
    let settings = match Settings::read(file) {
        Ok(settings) => settings,
        Err(error) => return vec![(false, format!("the settings: {error}"))],
    };
    let mut seen = Vec::new();
    for folder in ["Queue", "Submitted"] {
        let path = base.join(folder);
        let is_there = fs::metadata(&path).is_ok_and(|about| about.is_dir());
        seen.push((is_there, format!("the server's folder {}", path.display())));
    }
    let socket = UnixStream::connect(&settings.socket).err();
    let why = socket.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    seen.push((socket.is_none(), format!("the daemon at {}{why}", settings.socket.display())));
    let state = fs::metadata(&settings.state);
    let is_own = state.as_ref().is_ok_and(|about| about.is_dir() && about.mode() & 0o077 == 0);
    seen.push((is_own, format!("the journal's folder {}, for nobody else", settings.state.display())));
    match Submitted::new(base).bad() {
        Ok(bad) if bad.is_empty() => seen.push((true, "the server took every mail that was handed in".into())),
        Ok(bad) => seen.push((false, format!("the server did not take, in Submitted: {}", bad.join(" ")))),
        Err(error) => seen.push((false, format!("{}: {error}", base.join("Submitted").display()))),
    }
    seen
}
