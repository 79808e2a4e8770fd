//! The router as a program: it reads its function once, at its start, and calls it for each file in its folder. What is
//! left there is tried again.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::spool::Mail;
use super::stand_in::{OFFICE, SHARE, write_pid};
use super::zmsh;

/// So long until a file that was left is tried again; ZMailer takes about that.
const AGAIN: Duration = Duration::from_secs(11);
const LOOK: Duration = Duration::from_millis(50);

/// Runs until it is ended.
pub fn router() -> io::Result<()> {
    let function = zmsh::as_sh(&fs::read_to_string(format!("{SHARE}/cf/process.cf"))?);
    // Behind the question a file goes to the mailboxes.
    let script = format!(
        "db() {{ :; }}; provide() {{ :; }}; rfc822() {{ /opt/zmailer/lib/router \"$1\"; }}\n{function}\nprocess \"$1\"\n"
    );
    write_pid("router")?;
    let mut tried: HashMap<OsString, Instant> = HashMap::new();
    loop {
        for entry in fs::read_dir(format!("{OFFICE}/router"))?.flatten() {
            let name = entry.file_name();
            let is_mail = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
            if !is_mail || tried.get(&name).is_some_and(|last| last.elapsed() < AGAIN) {
                continue;
            }
            tried.insert(name.clone(), Instant::now());
            // However it ends: what is left is tried again.
            Command::new("sh")
                .args(["-c", &script, "router"])
                .arg(&name)
                .current_dir(format!("{OFFICE}/router"))
                .stdin(Stdio::null())
                .status()?;
            if !entry.path().exists() {
                tried.remove(&name);
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// A file's mail into the mailboxes of its recipients.
pub fn deliver(file: &Path) -> io::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let text = fs::read(file)?;
    let mail = Mail::routed(&text).ok_or_else(|| io::Error::other(format!("{}: no spool file", file.display())))?;
    for to in &mail.recipients {
        let user = to.split('@').next().unwrap_or_default();
        let user = if user == "staff" { "alice" } else { user };
        let new = format!("/home/{user}/Maildir/new");
        fs::create_dir_all(&new)?;
        let name = format!("{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        fs::write(format!("{new}/.{name}"), &mail.message)?;
        fs::rename(format!("{new}/.{name}"), format!("{new}/{name}"))?;
    }
    fs::remove_file(file)
}
