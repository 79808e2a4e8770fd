//! One mail of an SMTP session: its spool file read, the daemon asked, its answer carried out, and a verdict. Whatever
//! goes wrong, the verdict is "try again later"; "accept" comes from one place, last.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checkpost_client::Reply;
use checkpost_client::settings::{SettingsError, WhenDown};
use checkpost_wire::check::Done;
use checkpost_zmailer::config::Config;
use checkpost_zmailer::map;
use checkpost_zmailer::session::Verdict;

use crate::PROGRAM;
use crate::files::{self, Public};
use crate::log;

/// Left for what is to be done with the daemon's answer.
const RESERVE: Duration = Duration::from_secs(3);

/// What every mail needs.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Where the settings are.
    pub(crate) settings: PathBuf,
    /// Started by smtpserver for itself, rather than a server for all of them.
    pub(crate) is_program: bool,
    /// Could not become ZMailer's user: everything is put off.
    pub(crate) disabled: Option<String>,
}

/// A verdict, and whom it came from.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    reply: Option<(Reply, Done)>,
}

impl Judged {
    /// The verdict has reached smtpserver: nothing but the daemon's log hangs on this.
    pub(crate) fn said(self) {
        if let Some((mut reply, done)) = self.reply {
            let _ = reply.done(&done);
        }
    }
}

/// Why a mail is put off: for the log.
struct Trouble(String);

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Desk {
    /// The settings of now.
    pub(crate) fn config(&self) -> Result<Config, SettingsError> {
        Config::read(&self.settings)
    }

    /// How long a verdict may take.
    pub(crate) fn time(&self, config: &Result<Config, SettingsError>) -> Duration {
        let default = Config::default();
        let config = config.as_ref().unwrap_or(&default);
        if self.is_program { config.program_timeout } else { config.timeout }
    }

    /// Judges the mail in the spool file of this name. When it was given up, its file must not be touched any more.
    pub(crate) fn judge(
        &self,
        path: &[u8],
        config: Result<Config, SettingsError>,
        until: Instant,
        given_up: &AtomicBool,
    ) -> Judged {
        let name = String::from_utf8_lossy(path).rsplit('/').next().unwrap_or_default().to_owned();
        let looked = match (&self.disabled, config) {
            (Some(why), _) => Err(Trouble(why.clone())),
            (None, Err(error)) => Err(Trouble(format!("the settings are wrong: {error}"))),
            (None, Ok(config)) => self.look(path, &name, &config, until, given_up),
        };
        looked.unwrap_or_else(|Trouble(why)| {
            log::line(&name, format_args!("mail put off: {why}"));
            Judged::default()
        })
    }

    fn look(
        &self,
        path: &[u8],
        name: &str,
        config: &Config,
        until: Instant,
        given_up: &AtomicBool,
    ) -> Result<Judged, Trouble> {
        let file = Public::of(&config.postoffice).open(path)?;
        let envelope = files::envelope(&file)?;
        let recipients: Vec<Vec<u8>> = envelope.recipients().map(<[u8]>::to_vec).collect();
        let mut request = map::request(&envelope, recipients, "", name, PROGRAM);
        request.can = map::SMTP;
        let within = until.saturating_duration_since(Instant::now()).saturating_sub(RESERVE);
        match checkpost_client::ask(&config.socket, request, file.as_fd(), within.max(Duration::from_secs(1))) {
            Ok(mut reply) => {
                let carried = carry_out(&file, &envelope, &mut reply, given_up);
                let done = match &carried {
                    Ok(_) => Done::Carried,
                    Err(Trouble(why)) => Done::Failed(why.clone()),
                };
                let verdict = carried.unwrap_or_else(|Trouble(why)| {
                    log::line(name, format_args!("mail put off: {why}"));
                    Verdict::default()
                });
                Ok(Judged { verdict, reply: Some((reply, done)) })
            }
            Err(error) => {
                let why = format!("{}: {}", config.socket.display(), error.chain());
                if error.is_absence() && config.when_down == WhenDown::Pass {
                    log::line(name, format_args!("mail passes UNCHECKED (when_down = pass): {why}"));
                    return Ok(Judged { verdict: Verdict::Accept, reply: None });
                }
                Err(Trouble(why))
            }
        }
    }
}

/// All of an answer, before the verdict.
fn carry_out(
    file: &File,
    envelope: &checkpost_zmailer::spool::Envelope,
    reply: &mut Reply,
    given_up: &AtomicBool,
) -> Result<Verdict, Trouble> {
    let work = map::work(envelope, &reply.answer)
        .map_err(|cannot| Trouble(format!("the daemon asks for what cannot be done: {cannot}")))?;
    if let Some(made) = work.made {
        let content = match made.content {
            None => None,
            Some(number) => {
                let content = reply.contents.get_mut(number).and_then(Option::take);
                Some(File::from(content.ok_or_else(|| Trouble("no changed content came".into()))?))
            }
        };
        let new = files::prepare(file, envelope, &made.envelope, content.as_ref())?;
        if given_up.load(Ordering::SeqCst) {
            return Err(Trouble("too late to change the mail".into()));
        }
        new.write_over(file)?;
    }
    Ok(work.verdict)
}
