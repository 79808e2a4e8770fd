//! `checkpost-qmail-queue`: what qmail's programs start instead of qmail-queue. It has the daemon check the message, and
//! becomes the original, or ends with the exit code that refuses it.
//!
//! It queues nothing, decides nothing, and keeps nothing: one process for one message, and no file that outlives it.
//! The contract is qmail-queue(8); see the README of `plugins/qmail`.

mod bounce;
mod incoming;
mod original;
mod place;

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use checkpost_client::inherited::{close, close_all_but};
use checkpost_client::settings::WhenDown;
use checkpost_client::{AskError, Reply, ask};
use checkpost_qmail::config::Config;
use checkpost_qmail::map::{Convention, Exit, Plan, can, plan};
use checkpost_qmail::origin;
use checkpost_qmail::session::Envelope;
use checkpost_wire::check::{Done, Request};
use rustix::fs::Mode;
use rustix::process::umask;

use original::Original;
use place::Place;

/// What the log says of itself.
const NAME: &str = "checkpost-qmail-queue";

fn main() -> ExitCode {
    // Whatever is created here is nobody else's; the original gets the caller's mask.
    let mask = umask(Mode::from_raw_mode(0o077));
    // A panic ends with 101, which is as temporary as everything that no line below decides.
    ExitCode::from(run(mask).code())
}

fn run(mask: Mode) -> Exit {
    let place = match Place::find() {
        Ok(place) => place,
        Err(error) => return quit(true, Exit::Internal, &format!("/proc/self/exe: {error}")),
    };
    let config = match Config::load(&place.program) {
        Ok(config) => config,
        Err(error) => return quit(true, Exit::Settings, &error.to_string()),
    };
    let text = config.text.choose(place.variable("ERROR_FD").as_deref(), place::is_pipe);
    close_all_but(text.map(|text| text.descriptor));
    // Where the text goes to descriptor 2, the caller takes every line there for it.
    let program = Program { logs: text.is_none_or(|text| text.descriptor != 2), text, config, place, mask };
    program.run().unwrap_or_else(|exit| exit)
}

struct Program {
    config: Config,
    place: Place,
    text: Option<Convention>,
    logs: bool,
    mask: Mode,
}

impl Program {
    /// Returns only when the original did not take over.
    fn run(&self) -> Result<Exit, Exit> {
        let original = Original::at(&self.config.original, &self.place).map_err(|(exit, why)| self.quit(exit, &why))?;
        let message = incoming::message(&self.config.spool)
            .map_err(|error| self.quit(error.exit(), &format!("message: {error}")))?;
        let envelope = incoming::envelope().map_err(|error| match error {
            // A client that went away, or a limit of the caller's: nothing to tell of.
            incoming::EnvelopeError::Wrong(error) => Exit::from(error),
            incoming::EnvelopeError::Read(error) => self.quit(Exit::Read, &format!("envelope: {error}")),
        })?;
        let as_it_came = |content| vec![(content, envelope.clone())];
        if envelope.recipients().len() == 0 {
            // The original takes it, and nobody gets it: there is nothing to decide.
            return Err(self.hand_on(&original, as_it_came(message), None));
        }
        let bounce = envelope.is_bounce() && bounce::is_injected(&self.config.bounce_user, &self.place);
        let request = self.request(&envelope, bounce);
        match ask(&self.config.socket, request, message.as_fd(), self.config.check_time) {
            Ok(reply) => Err(self.carry_out(&original, &envelope, &message, reply, bounce)),
            Err(error) => {
                let exit = match error {
                    AskError::Late => Exit::Late,
                    AskError::Refused(_) => Exit::Temporary,
                    AskError::Request(_) => Exit::Internal,
                    _ => Exit::Down,
                };
                if error.is_absence() && self.config.when_down == WhenDown::Pass {
                    self.log(&format!("{}: passed without a check", error.chain()));
                    return Err(self.hand_on(&original, as_it_came(message), None));
                }
                Err(self.quit(exit, &error.chain()))
            }
        }
    }

    fn request(&self, envelope: &Envelope, bounce: bool) -> Request {
        let mut request = Request {
            program: format!("{NAME} {}", env!("CARGO_PKG_VERSION")),
            // A bounce of a bounce has no sender, either.
            sender: if envelope.is_bounce() { Vec::new() } else { envelope.sender().to_vec() },
            recipients: envelope.recipients().map(<[u8]>::to_vec).collect(),
            can: can(bounce),
            // What qmail-smtpd tells its client and qmail-send logs.
            queue_id: Some(format!("qp {}", std::process::id())),
            ..Request::default()
        };
        // With more rights than the caller's, its word for who sent the mail is as good as the sender's own.
        if !self.place.privileged {
            origin::describe(&mut request, |name| self.place.variable(name));
        }
        if bounce {
            request.class = Some(checkpost_wire::check::Class::Internal);
        }
        request
    }

    fn carry_out(
        &self,
        original: &Original,
        envelope: &Envelope,
        message: &OwnedFd,
        mut reply: Reply,
        bounce: bool,
    ) -> Exit {
        match plan(&reply.answer, envelope, self.text, bounce) {
            Plan::End(exit, text) => {
                // Without its text the code would be temporary, which is what is left then.
                if let (Some(text), Some(convention)) = (text, self.text)
                    && let Err(error) = place::write(convention.descriptor, &text)
                {
                    return self.refuse(reply, &format!("text: {error}"));
                }
                let _ = reply.done(&Done::Carried);
                exit
            }
            Plan::Hand(runs) => {
                let contents = reply.take_contents(runs.iter().map(|run| run.content), message.as_fd());
                match contents {
                    Some(contents) => {
                        let handed = contents.into_iter().zip(runs.into_iter().map(|run| run.envelope)).collect();
                        self.hand_on(original, handed, Some(reply))
                    }
                    None => self.refuse(reply, "a content is missing"),
                }
            }
            Plan::Refuse(why) => self.refuse(reply, why),
        }
    }

    fn refuse(&self, mut reply: Reply, why: &str) -> Exit {
        let _ = reply.done(&Done::Failed(why.to_owned()));
        self.quit(Exit::Temporary, &format!("mail {}: {why}", reply.answer.id))
    }

    /// Runs the original for each, the last in our own place.
    fn hand_on(&self, original: &Original, mut runs: Vec<(OwnedFd, Envelope)>, mut reply: Option<Reply>) -> Exit {
        let Some((content, envelope)) = runs.pop() else { return Exit::Internal };
        let mut tell = |done: Done| reply.as_mut().is_none_or(|reply| reply.done(&done).is_ok());
        umask(self.mask);
        if let (false, Some(text)) = (runs.is_empty(), self.text) {
            // Nobody but us may hold it: the caller reads it to its end before it waits for us. 2 is the log as well.
            if text.descriptor > 2 {
                close(text.descriptor);
            }
        }
        let mut handed = 0;
        for (content, envelope) in runs {
            match original.run(content, &envelope) {
                Ok(0) => handed += 1,
                failed => {
                    let why = match &failed {
                        Ok(code) => format!("the original ended with {code} for one content of several"),
                        Err(error) => format!("the original, for one content of several: {error}"),
                    };
                    tell(Done::Failed(why.clone()));
                    self.log(&why);
                    return match failed {
                        Ok(code) if handed == 0 => Exit::Code(code),
                        // Some have it. Only "later" loses nobody's, though those get it twice.
                        _ => Exit::Temporary,
                    };
                }
            }
        }
        tell(Done::Carried);
        let error = original.become_it(content, &envelope);
        if handed == 0 {
            return self.quit(Exit::NoOriginal, &format!("{}: {error}", self.config.original.display()));
        }
        self.quit(Exit::Temporary, &format!("{}: {error}", self.config.original.display()))
    }

    fn log(&self, what: &str) {
        log(self.logs, what);
    }

    fn quit(&self, exit: Exit, why: &str) -> Exit {
        quit(self.logs, exit, why)
    }
}

/// A line for the service's log, in one write: others write there, too. Nothing hangs on it.
fn log(logs: bool, what: &str) {
    if logs {
        let line = format!("{NAME}: {}\n", what.replace(char::is_control, "?"));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn quit(logs: bool, exit: Exit, why: &str) -> Exit {
    log(logs, why);
    exit
}
