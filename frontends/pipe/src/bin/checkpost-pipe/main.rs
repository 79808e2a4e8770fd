//! `checkpost-pipe`: what Exim's `pipe` transport and Postfix's pipe(8) start for a queued mail. It has the daemon check the
//! mail, hands it back to the mail server, and ends with 0 when that has it. Whatever else happens, the mail stays in the
//! queue; see the READMEs of `plugins/exim` and `plugins/postfix`.
//!
//! It keeps nothing: one process for one mail, and no file that outlives it.

mod hand_back;
mod incoming;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use checkpost_client::inherited::close_all_but;
use checkpost_client::runs::Run;
use checkpost_client::settings::WhenDown;
use checkpost_client::{Reply, ask};
use checkpost_pipe::arguments::{Arguments, Mta};
use checkpost_pipe::config::Config;
use checkpost_pipe::map::{Exit, Plan, plan, request, text};
use checkpost_pipe::{Envelope, exim, postfix};
use checkpost_wire::check::Done;
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

use hand_back::Door;

/// What the daemon's log calls it.
const PROGRAM: &str = concat!("checkpost-pipe ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    // Whatever is created here is nobody else's.
    umask(Mode::from_raw_mode(0o077));
    // A panic would end with 101, which is a bounce to Postfix.
    let ended = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("4.3.0 a fault of checkpost-pipe".into()));
    ExitCode::from(match ended {
        Ok(exit) => exit.code(),
        Err(why) => {
            say(&why);
            Exit::Temporary.code()
        }
    })
}

/// The line that the mail server logs or puts into its bounce. It may have gone away.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{}", line.replace(char::is_control, "?"));
}

/// An error is temporary, and told to the mail server's log.
fn run() -> Result<Exit, String> {
    close_all_but(None);
    let words = std::env::args_os().skip(1).map(OsStringExt::into_vec);
    let arguments = Arguments::parse(words).map_err(|error| local(&error))?;
    let config = Config::load(&arguments.config).map_err(|error| local(&error))?;
    let (message, envelope, door) = match arguments.mta {
        Mta::Exim(ids) => {
            let (message, envelope) = incoming::bsmtp(&config.spool).map_err(|error| local(&error))?;
            let user = geteuid().as_raw();
            let door = Door::Exim(config.exim.clone());
            exim::look(ids, &envelope.origin, user, || door.trusts(user)).map_err(|circle| local(&circle))?;
            (message, envelope, door)
        }
        Mta::Postfix(envelope) => {
            let message = incoming::plain(&config.spool).map_err(|error| local(&error))?;
            let head = incoming::head(message.as_fd(), postfix::HEAD).map_err(|error| local(&error))?;
            if postfix::came_back(&head, geteuid().as_raw()) {
                return Err(local(&postfix::Circle));
            }
            (message, envelope, Door::Postfix(config.sendmail.clone()))
        }
    };
    Program { config, envelope, door }.check(&message)
}

struct Program {
    config: Config,
    envelope: Envelope,
    door: Door,
}

impl Program {
    fn check(&self, message: &OwnedFd) -> Result<Exit, String> {
        let request = request(&self.envelope, PROGRAM);
        match ask(&self.config.socket, request, message.as_fd(), self.config.check_time) {
            Ok(reply) => self.carry_out(message, reply),
            Err(error) => {
                if error.is_absence() && self.config.when_down == WhenDown::Pass {
                    let Envelope { sender, recipients, .. } = self.envelope.clone();
                    self.hand_back(
                        &[Run { content: 0, sender, recipients }],
                        vec![message.try_clone().map_err(|error| local(&error))?],
                    )?;
                    // Nobody looks at what a program says whose mail was delivered; Exim logs it, with log_output.
                    say(&format!("passed without a check: {}", error.chain()));
                    return Ok(Exit::Taken);
                }
                Err(text("4.7.1", &format!("not checked: {}: {}", self.config.socket.display(), error.chain())))
            }
        }
    }

    fn carry_out(&self, message: &OwnedFd, mut reply: Reply) -> Result<Exit, String> {
        match plan(&reply.answer, &self.envelope) {
            Plan::End(exit, line) => {
                if !line.is_empty() {
                    say(&line);
                }
                let _ = reply.done(&Done::Carried);
                Ok(exit)
            }
            Plan::Hand(runs) => {
                let contents = reply.take_contents(runs.iter().map(|run| run.content), message.as_fd());
                let handed = match contents {
                    Some(contents) => self.hand_back(&runs, contents),
                    None => Err("4.3.0 a content is missing".into()),
                };
                match handed {
                    Ok(()) => {
                        let _ = reply.done(&Done::Carried);
                        Ok(Exit::Taken)
                    }
                    Err(why) => Err(failed(&mut reply, &why)),
                }
            }
            Plan::Refuse(why) => Err(failed(&mut reply, &format!("4.3.0 {why}"))),
        }
    }

    /// One after the other. If a later one fails, those before it are on their way, and will be once more when the mail
    /// server tries again: it knows one mail only, and to call it delivered would lose the rest.
    fn hand_back(&self, runs: &[Run], contents: Vec<OwnedFd>) -> Result<(), String> {
        let all = runs.len();
        for (at, (run, content)) in runs.iter().zip(contents).enumerate() {
            self.door.give(run, content, &self.envelope.origin).map_err(|why| match at {
                0 => format!("4.3.0 {why}"),
                at => format!("4.3.0 {why} (number {} of {all} contents; those before it are on their way)", at + 1),
            })?;
        }
        Ok(())
    }
}

fn failed(reply: &mut Reply, why: &str) -> String {
    let _ = reply.done(&Done::Failed(why.to_owned()));
    format!("{why} (mail {})", reply.answer.id)
}

/// A local problem, for the mail server's log.
fn local(error: &dyn std::error::Error) -> String {
    format!("4.3.5 checkpost-pipe: {}", told(error))
}

fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
