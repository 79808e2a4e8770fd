//! The server as a program in a root: mail comes at port 25, the Enqueuer asks the helper if the administrator has entered
//! both helper and rule, and the mail goes to the mailboxes of the root's users.
//!
//! What an administrator enters in WebAdmin is in two files here, in the words in which it would stand on the pages:
//! `/var/CommuniGate/helpers` and `/var/CommuniGate/rules`.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::server::{Delivered, Mail, Server};
use crate::dialogue;
use crate::root::Builder;
use crate::{Queue, Recipe, Root};

const BASE: &str = "/var/CommuniGate";
/// How often the settings and `Submitted` are looked at, and what stays in the queue is asked about again.
const LOOK: Duration = Duration::from_millis(500);

/// Its root.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandIn;

impl StandIn {
    /// Not started yet. `program`: the stand-in, `stub-communigate`.
    pub fn root(program: &Path) -> Builder<'static> {
        Root::of(&StandIn).bind(program.parent().unwrap_or(program), "/lab/stand-ins")
    }
}

impl Recipe for StandIn {
    fn name(&self) -> &'static str {
        "communigatedriver"
    }

    fn script(&self) -> &'static str {
        include_str!("../recipes/communigatedriver.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![]
    }

    fn queue(&self) -> Queue {
        Queue { waiting: &["/var/CommuniGate/Queue/"], ..Queue::default() }
    }
}

/// Serves until it is ended.
pub fn serve() -> io::Result<()> {
    let (hand_in, mails) = channel();
    let listener = TcpListener::bind("0.0.0.0:25")?;
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let hand_in = hand_in.clone();
            let knows = |to: &str| to.ends_with("@example.test");
            let take = move |taken: dialogue::HandedIn| {
                let recipients: Vec<&str> = taken.recipients.iter().map(String::as_str).collect();
                let message = crate::mails::as_stored(&taken.mail);
                let mail = Mail { sender: taken.sender, ..Mail::new(&recipients, &message) };
                // Not synchronously: the Enqueuer asks when the client has its reply.
                hand_in.send(mail).map_err(io::Error::other)?;
                Ok("250 queued".to_owned())
            };
            // A client that breaks off is nobody's fault.
            std::thread::spawn(move || dialogue::serve(&client, "mail.example.test", &knows, &mut { take }).ok());
        }
    });
    enqueue(&mails)
}

fn enqueue(mails: &Receiver<Mail>) -> io::Result<()> {
    let mut server = Server::at(BASE);
    let mut running = None;
    loop {
        let helper = helper()?;
        if helper != running {
            if running.is_some() {
                server.end();
            }
            if let Some(program) = &helper {
                server.start_program(program);
            }
            running = helper;
        }
        if let Ok(mail) = mails.recv_timeout(LOOK) {
            server.put(mail);
        }
        // Without a rule, or with a helper that is disabled, mail passes.
        if running.is_some() && has_rule()? {
            server.ask_all();
            server.act();
            server.poll();
        } else {
            server.pass();
        }
        for mail in std::mem::take(&mut server.delivered) {
            deliver(&mail)?;
        }
    }
}

/// The program of the helper that is entered and enabled.
fn helper() -> io::Result<Option<PathBuf>> {
    let text = entered("helpers")?;
    let value = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.trim().strip_prefix(key));
        values.next_back().map(|value| value.trim().to_owned())
    };
    let enabled = value("Content Filtering:").is_some_and(|value| value == "Enabled") && value("Name:").is_some();
    Ok(value("Program Path:").filter(|_| enabled).map(PathBuf::from))
}

/// A rule for all mail with the action that asks the helper.
fn has_rule() -> io::Result<bool> {
    let (rules, helpers) = (entered("rules")?, entered("helpers")?);
    let name = helpers.lines().find_map(|line| line.trim().strip_prefix("Name:")).unwrap_or_default().trim().to_owned();
    let is_action = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words == ["Action:", "ExternalFilter", "Parameter:", &name]
    };
    Ok(!name.is_empty() && rules.lines().any(is_action))
}

fn entered(page: &str) -> io::Result<String> {
    match fs::read_to_string(format!("{BASE}/{page}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

fn deliver(mail: &Delivered) -> io::Result<()> {
    for to in &mail.recipients {
        let user = to.split('@').next().unwrap_or_default();
        let new = format!("/home/{}/Maildir/new", if user == "staff" { "alice" } else { user });
        fs::create_dir_all(&new)?;
        let number = fs::read_dir(&new)?.count();
        fs::write(format!("{new}/{number}"), &mail.message)?;
    }
    Ok(())
}
