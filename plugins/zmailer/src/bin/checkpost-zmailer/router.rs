//! A mail before it is routed. The router calls us for each file in its folder (process.cf), as root, since the files
//! are of whoever handed them in; what we say says whether it goes on.
//!
//! Whatever goes wrong the file stays, and the router calls again, every ten seconds or so. What takes too long is held.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use checkpost_client::Reply;
use checkpost_client::settings::WhenDown;
use checkpost_mark::{Key, Mark};
use checkpost_wire::check::Done;
use checkpost_zmailer::bounce::{self, Refused};
use checkpost_zmailer::config::Config;
use checkpost_zmailer::map::{self, Made, Plan};
use checkpost_zmailer::spool::{self, Envelope};
use nix::unistd::{Uid, User};

use crate::files::{self, FileFrom, Prepared};
use crate::hand_in::{New, Office};
use crate::{PROGRAM, log};

/// A mark is looked at when the router finds the file, which may be stopped for a while.
const MARK_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of a header, recipients are looked for in so much, in octets.
const HEADER: usize = 256 << 10;

/// What the router does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Exit {
    /// 75: the file stays, and it calls again (EX_TEMPFAIL of sysexits.h).
    #[default]
    Later,
    /// 0: it routes the file.
    Route,
    /// 1: there is no such file any more: it was held, replaced, or is nobody's.
    Gone,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Route => 0,
            Exit::Gone => 1,
            Exit::Later => 75,
        })
    }
}

/// Why a mail has to wait: for the log.
struct Trouble(String);

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The word for [`Exit::Route`], on standard output. The router's own child handler at times takes away our exit code
/// before its shell has seen it, and what is left is 0; so the code is for people, and the word counts.
const ROUTE: &str = "route\n";

/// Looks at the file of this name in the folder where the router called us.
pub(crate) fn run(settings: &Path, name: &Path) -> ExitCode {
    let shown = name.display().to_string();
    let said = |exit: Exit| -> Result<Exit, Trouble> {
        if exit == Exit::Route {
            let mut stdout = io::stdout();
            stdout.write_all(ROUTE.as_bytes()).and_then(|()| stdout.flush())?;
        }
        Ok(exit)
    };
    let looked = look(settings, &shown).and_then(said);
    looked
        .unwrap_or_else(|Trouble(why)| {
            log::line(&shown, format_args!("mail has to wait: {why}"));
            Exit::Later
        })
        .into()
}

/// Hands a held mail in again, marked, so that it passes this time.
pub(crate) fn release(settings: &Path, file: &Path) -> ExitCode {
    let released = || -> Result<(), Trouble> {
        let config = Config::read(settings).map_err(|error| Trouble(error.to_string()))?;
        let key = key(&config)?;
        let path =
            if file.components().count() == 1 { config.postoffice.join("freezer").join(file) } else { file.to_owned() };
        let held = files::open(&path)?;
        let envelope = files::envelope(&held)?;
        let office = Office::new(config.postoffice, false);
        let made = files::prepare(&held, &envelope, &unchanged(&envelope)?, None)?;
        office.hand_in(&office.make(&made, &held.metadata()?, &key)?)?;
        Ok(std::fs::remove_file(&path)?)
    };
    match released() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble(why)) => {
            log::line("", format_args!("not released: {}: {why}", file.display()));
            ExitCode::FAILURE
        }
    }
}

fn look(settings: &Path, name: &str) -> Result<Exit, Trouble> {
    let config = Config::read(settings).map_err(|error| Trouble(format!("the settings are wrong: {error}")))?;
    let (hashed, digits) = match name.split_once('/') {
        Some((letter, digits)) => (letter.len() == 1 && letter.as_bytes()[0].is_ascii_uppercase(), digits),
        None => (false, name),
    };
    let is_ours =
        hashed == name.contains('/') && !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_ours {
        return Err(Trouble("no name of the router's files; accepted: digits, or a letter, a slash and digits".into()));
    }
    let folder = std::env::current_dir()?;
    let root = folder.parent().ok_or_else(|| Trouble("not called in the router's folder".into()))?;
    let mail = Mail { office: Office::new(root.to_owned(), hashed), name, file: files::open(Path::new(name))?, config };
    match files::envelope(&mail.file) {
        Ok(envelope) => mail.judge(&envelope),
        // Nobody knows what the router makes of it.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => mail.hold(&format!("no spool file: {error}")),
        Err(error) => Err(error.into()),
    }
}

/// A file that the router asks about.
struct Mail<'a> {
    office: Office,
    name: &'a str,
    file: File,
    config: Config,
}

impl Mail<'_> {
    fn judge(&self, envelope: &Envelope) -> Result<Exit, Trouble> {
        if self.is_marked(envelope) {
            return Ok(Exit::Route);
        }
        let about = self.file.metadata()?;
        let owner = owner(&about);
        let recipients = self.recipients(envelope, &owner)?;
        let mut request = map::request(envelope, recipients.clone(), &owner, self.name, PROGRAM);
        request.can = map::ROUTER;
        let within = self.config.router_timeout;
        match checkpost_client::ask(&self.config.router_socket, request, self.file.as_fd(), within) {
            Ok(mut reply) => {
                let done = self.carry_out(envelope, &recipients, &owner, &about, &mut reply);
                // Nothing but the daemon's log hangs on this.
                let _ = reply.done(&match &done {
                    Ok(_) => Done::Carried,
                    Err(Trouble(why)) => Done::Failed(why.clone()),
                });
                done
            }
            Err(error) => {
                let why = format!("{}: {}", self.config.router_socket.display(), error.chain());
                if error.is_absence() && self.config.when_down == WhenDown::Pass {
                    log::line(self.name, format_args!("mail passes UNCHECKED (when_down = pass): {why}"));
                    return Ok(Exit::Route);
                }
                self.wait(&about, &why)
            }
        }
    }

    fn carry_out(
        &self,
        envelope: &Envelope,
        recipients: &[Vec<u8>],
        owner: &str,
        about: &Metadata,
        reply: &mut Reply,
    ) -> Result<Exit, Trouble> {
        let plan = map::plan(envelope, recipients, owner, &reply.answer)
            .map_err(|cannot| Trouble(format!("the daemon asks for what cannot be done: {cannot}")))?;
        match plan {
            Plan::Route => return Ok(Exit::Route),
            Plan::Later(line) => return self.wait(about, &line),
            Plan::Remove => self.office.remove(self.name)?,
            Plan::Hold(None) => self.office.freeze(self.name)?,
            Plan::Hold(Some(made)) => {
                let made = self.prepared(envelope, &made, reply)?;
                self.office.hold(&self.office.write(&made, about)?, &self.office.held(self.name))?;
                self.office.remove(self.name)?;
            }
            Plan::Bounce(line) => {
                let sender = envelope.sender().unwrap_or(owner.as_bytes());
                self.office.hand_in(&self.bounce(envelope, sender, recipients, &line)?)?;
                self.office.remove(self.name)?;
            }
            Plan::Replace(mades) => {
                let key = key(&self.config)?;
                let mut news = Vec::with_capacity(mades.len());
                for made in &mades {
                    news.push(self.office.make(&self.prepared(envelope, made, reply)?, about, &key)?);
                }
                // Ours comes last: should we end before, all are looked at again, and some get it twice, but none never.
                let Some((first, others)) = news.split_first() else {
                    return Err(Trouble("nothing takes its place".into()));
                };
                for other in others {
                    self.office.hand_in(other)?;
                }
                self.office.replace(self.name, first)?;
            }
        }
        Ok(Exit::Gone)
    }

    fn prepared(&self, envelope: &Envelope, made: &Made, reply: &mut Reply) -> Result<Prepared, Trouble> {
        let content = match made.content {
            None => None,
            Some(number) => {
                let content = reply.contents.get(number).and_then(Option::as_ref);
                let content = content.ok_or_else(|| Trouble("no changed content came".into()))?;
                Some(File::from(content.try_clone()?))
            }
        };
        Ok(files::prepare(&self.file, envelope, &made.envelope, content.as_ref())?)
    }

    fn bounce(&self, envelope: &Envelope, sender: &[u8], recipients: &[Vec<u8>], reply: &str) -> Result<New, Trouble> {
        let head = spool::null_sender(sender).ok_or_else(|| Trouble("a sender that no report can go to".into()))?;
        let start = self.start_of_message(envelope)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let report = bounce::report(&Refused {
            sender: &String::from_utf8_lossy(sender),
            recipients,
            reply,
            host: &host,
            header: bounce::header_of(&start),
            boundary: &format!("=_checkpost_{}_{}", self.file.metadata()?.ino(), std::process::id()),
        });
        let message = File::from(checkpost_client::spool::in_memory()?);
        (&message).write_all(&report)?;
        // Of ours, for ZMailer believes in a sender that is none only if a trusted user says so.
        let ours = std::fs::metadata("/proc/self")?;
        Ok(self.office.make(&Prepared::new(head, message, 0)?, &ours, &key(&self.config)?)?)
    }

    fn is_marked(&self, envelope: &Envelope) -> bool {
        let Some((mark, at)) = envelope.mark() else { return false };
        let Ok(mark) = mark.parse::<Mark>() else { return false };
        let holds = key(&self.config)
            .and_then(|key| Ok(key.holds(&mark, FileFrom { file: &self.file, at }, SystemTime::now(), MARK_TIME)?));
        holds.unwrap_or_else(|Trouble(why)| {
            log::line(self.name, format_args!("its mark cannot be looked at: {why}"));
            false
        })
    }

    /// Those of the envelope; else those of the header, as the router takes them; else the sender, who gets its report.
    fn recipients(&self, envelope: &Envelope, owner: &str) -> Result<Vec<Vec<u8>>, Trouble> {
        let mut recipients: Vec<Vec<u8>> = envelope.recipients().map(<[u8]>::to_vec).collect();
        if recipients.is_empty() {
            recipients = in_header(&self.start_of_message(envelope)?);
        }
        if recipients.is_empty() {
            recipients.push(envelope.sender().unwrap_or(owner.as_bytes()).to_vec());
        }
        Ok(recipients)
    }

    fn start_of_message(&self, envelope: &Envelope) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        let from = FileFrom { file: &self.file, at: envelope.length() };
        io::Read::read_to_end(&mut io::Read::take(from, HEADER as u64), &mut start)?;
        Ok(start)
    }

    /// The file stays, unless it has stayed too long.
    fn wait(&self, about: &Metadata, why: &str) -> Result<Exit, Trouble> {
        let age = about.modified()?.elapsed().unwrap_or_default();
        if age > self.config.defer_time {
            return self.hold(&format!("put off for {} s, the last time since: {why}", age.as_secs()));
        }
        Err(Trouble(why.to_owned()))
    }

    fn hold(&self, why: &str) -> Result<Exit, Trouble> {
        self.office.freeze(self.name)?;
        log::line(self.name, format_args!("mail held in the freezer: {why}"));
        Ok(Exit::Gone)
    }
}

fn key(config: &Config) -> Result<Key, Trouble> {
    Key::read(&config.mark_key).map_err(|error| Trouble(log::chain(&error)))
}

fn unchanged(envelope: &Envelope) -> Result<Vec<u8>, Trouble> {
    envelope.changed(&spool::Change::default()).ok_or_else(|| Trouble("an envelope that cannot be written".into()))
}

/// The name of the file's owner, who is the sender of a mail that names none.
fn owner(about: &Metadata) -> String {
    match User::from_uid(Uid::from_raw(about.uid())) {
        Ok(Some(user)) => user.name,
        _ => about.uid().to_string(),
    }
}

/// The addresses in To, Cc and Bcc, or those of a mail that was sent on (RFC 5322 section 3.6.6).
fn in_header(start: &[u8]) -> Vec<Vec<u8>> {
    let Some(message) = mail_parser::MessageParser::new().parse_headers(start) else { return Vec::new() };
    let resent =
        message.headers().iter().any(|header| is_one_of(header.name(), ["Resent-To", "Resent-Cc", "Resent-Bcc"]));
    let names = if resent { ["Resent-To", "Resent-Cc", "Resent-Bcc"] } else { ["To", "Cc", "Bcc"] };
    let fields = message.headers().iter().filter(|header| is_one_of(header.name(), names));
    let addresses = fields.filter_map(|header| header.value().as_address()).flat_map(|list| list.iter());
    // A name without a domain is an address here.
    let known = addresses.filter_map(|one| one.address().or(one.name()));
    known
        .filter(|address| !address.is_empty() && !address.contains('\0'))
        .map(|address| address.as_bytes().to_vec())
        .collect()
}

fn is_one_of(name: &str, names: [&str; 3]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_of_the_header_are_found() {
        let check = |header: &str, wanted: &[&str]| {
            let found: Vec<String> =
                in_header(header.as_bytes()).into_iter().map(|to| String::from_utf8(to).unwrap()).collect();
            assert_eq!(found, wanted, "{header}");
        };
        check("To: Anna <a@x>, b@x\nCC: (c) c@x\nbcc: d@x\nSubject: e@x\n\nTo: f@x\n", &["a@x", "b@x", "c@x", "d@x"]);
        check("To: a@x\nResent-To: b@x\n\n", &["b@x"]);
        check("To: friends: a@x, b@x;\n\n", &["a@x", "b@x"]);
        check("To: bob\n\n", &["bob"]);
        check("Subject: x\n\n", &[]);
        check("", &[]);
    }
}
