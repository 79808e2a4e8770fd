//! `checkpost-zmailer` between a daemon and what asks it: a driver that does what ZMailer's smtpserver does, and a real
//! ZMailer, where there is one. The same cases for both, by a socket and as a program.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod cases;
mod driven;
mod real;
mod router;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use checkpost_tests::{Daemon, program};

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }
[[rule]]
name = "no spam"
when = { score = ">= 6" }
then = { reject = "5.7.1 Spam is not taken" }
[[rule]]
when = { header = { name = "Subject", contains = "no thanks" } }
then = { reject = "5.7.12 No thanks" }
[[rule]]
when = { header = { name = "Subject", contains = "come later" } }
then = { defer = "4.7.5 Not now" }
[[rule]]
when = { header = { name = "Subject", contains = "for nobody" } }
then = { discard = true }
[[rule]]
when = { header = { name = "Subject", contains = "look at it" } }
then = { hold = "somebody should look at it" }
[[rule]]
when = { recipient = "bob@example.test", header = { name = "Subject", contains = "not for bob" } }
then = { discard = true }
[[rule]]
when = { header = { name = "Subject", contains = "new body" } }
then = { replace_body = "It was taken away.\n" }
[[rule]]
when = { header = { name = "Subject", contains = "new field" } }
then = { add_header = "X-Checked: yes" }
[[rule]]
when = { recipient = "bob@example.test", header = { name = "Subject", contains = "bob's field" } }
then = { add_header = "X-Checked: for bob" }
[[rule]]
when = { header = { name = "Subject", contains = "copy to bob" } }
then = { add_recipient = "bob@example.test" }
"#;

/// A daemon with the ways of both places, its sockets in `sockets` and its state in `state`.
fn daemon(sockets: &Path, state: &Path) -> Daemon {
    let socket = |name: &str| sockets.join(name).display().to_string();
    let config = format!(
        "[daemon]\nstate = {state:?}\n[[way]]\nkind = \"zmailer-smtp\"\nlisten = \"unix:{}\"\n\
         [[way]]\nkind = \"zmailer-router\"\nlisten = \"unix:{}\"\n{RULES}",
        socket("smtp.sock"),
        socket("router.sock"),
    );
    let ready = || UnixStream::connect(sockets.join("smtp.sock")).is_ok();
    Daemon::start_when(Command::new(program("checkpostd")), state, &config, ready).unwrap()
}

/// The program under test.
fn ours() -> PathBuf {
    program("checkpost-zmailer")
}
