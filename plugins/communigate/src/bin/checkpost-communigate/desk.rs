//! One mail: its file read, the daemon asked, its answer carried out, and a reply. Whatever goes wrong, the reply is
//! "later"; that a mail goes on is said at few places, last.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use checkpost_client::asynchronous;
use checkpost_client::settings::WhenDown;
use checkpost_communigate::map::{self, Message, Replacement, Work};
use checkpost_communigate::session::Reply;
use checkpost_mark::{Key, header};
use checkpost_wire::check::Done;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::journal::{Journal, Record};
use crate::log;
use crate::queue::{Base, Mail};
use crate::settings::Settings;
use crate::submit::Submitted;

/// As the daemon's log has it.
const PROGRAM: &str = concat!("checkpost-communigate ", env!("CARGO_PKG_VERSION"));
/// Left for what is to be done with the daemon's answer.
const RESERVE: Duration = Duration::from_secs(2);
/// A mail that was handed in is known by its mark for so long.
const MARK_HOLDS: Duration = Duration::from_secs(5 * 86_400);
/// A mail is handed in so many times: again only if the server changed it, so that its mark does not hold.
const ROUNDS: usize = 2;

/// What every mail needs.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) base: Base,
    pub(crate) submitted: Submitted,
    /// The settings' file.
    pub(crate) file: PathBuf,
    store: Mutex<Store>,
    /// Mails that the server did not take, and that were spoken of.
    told: Mutex<HashSet<String>>,
}

/// What is opened when it is needed, and tried again until it can be.
#[derive(Debug)]
struct Store {
    folder: PathBuf,
    journal: Option<Journal>,
    key: Option<Key>,
}

/// Why a mail is put off: for the log.
#[derive(Debug)]
struct Trouble(String);

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(checkpost_client::chain(&error))
    }
}

/// What is known of a mail when its file was read.
enum Opened {
    /// It is answered already.
    Answered(Reply),
    Mail(Box<Known>),
}

struct Known {
    mail: Mail,
    settings: Settings,
    /// How many times it was handed in.
    rounds: usize,
}

impl Desk {
    pub(crate) fn new(base: Base, file: PathBuf, state: PathBuf) -> Self {
        let submitted = Submitted::new(base.path());
        Self {
            base,
            submitted,
            file,
            store: Mutex::new(Store { folder: state, journal: None, key: None }),
            told: Mutex::default(),
        }
    }

    /// Opens the journal and the key, and removes what a run before this has left unfinished. Not to be able to is no
    /// reason to end: it is tried again when they are needed.
    pub(crate) fn prepare(&self) {
        let opened = self.store().open(&self.base).and_then(|(journal, _)| {
            let known: Vec<String> = journal.names().map(str::to_owned).collect();
            Ok(self.submitted.sweep(|name| known.iter().any(|known| known == name))?)
        });
        match opened {
            Ok(0) => {}
            Ok(removed) => log::note("", format_args!("{removed} unfinished files removed from Submitted")),
            Err(Trouble(why)) => log::note("", format_args!("no mail can be changed until this is mended: {why}")),
        }
    }

    /// Mails that were handed in and that the server did not take: new ones, or all.
    pub(crate) fn bad(&self, all: bool) -> Vec<String> {
        let bad = self.submitted.bad().unwrap_or_default();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let new = bad.iter().filter(|name| all || !told.contains(*name)).cloned().collect();
        *told = bad.into_iter().collect();
        new
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // What it holds is whole at every moment.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request of this time.
    pub(crate) async fn reply(self: &Arc<Self>, path: Vec<u8>, came: Instant) -> Reply {
        let id = map::id(&path);
        let reply = self.check(path, &id, came).await;
        reply.unwrap_or_else(|Trouble(why)| {
            log::note(&id, format_args!("mail put off: {why}"));
            Reply::default()
        })
    }

    async fn check(self: &Arc<Self>, path: Vec<u8>, id: &str, came: Instant) -> Result<Reply, Trouble> {
        let desk = Arc::clone(self);
        let (name, shown) = (path.clone(), id.to_owned());
        let open = spawn_blocking(move || desk.open(&name, &shown));
        // The time is not known before the settings are read, so a disk that hangs has the default.
        let opened = timeout_at(came + Settings::default().timeout, open).await;
        let known = match opened.map_err(|_| Trouble("its file could not be read in time".into()))?? {
            Ok(Opened::Answered(reply)) => return Ok(reply),
            Ok(Opened::Mail(known)) => known,
            Err(trouble) => return Err(trouble),
        };
        let Known { mail, settings, rounds } = *known;
        if mail.envelope.recipients.is_empty() {
            return Err(Trouble("its envelope has no recipient".into()));
        }
        let mut request = map::request(&mail.envelope, PROGRAM, &path);
        request.skip = mail.offset;
        let within = (came + settings.timeout).saturating_duration_since(Instant::now()).saturating_sub(RESERVE);
        let asked = asynchronous::ask(&settings.socket, request, mail.file.as_fd(), within).await;
        let reply = match asked {
            Ok(reply) => reply,
            Err(error) => {
                let why = format!("{}: {}", settings.socket.display(), error.chain());
                if error.is_absence() && settings.when_down == WhenDown::Pass {
                    log::note(id, format_args!("mail passes UNCHECKED (when_down = pass): {why}"));
                    return Ok(Reply::Failure);
                }
                return Err(Trouble(why));
            }
        };
        let message = Message { length: mail.length, start: &mail.start };
        let work = map::work(&mail.envelope, &reply.answer, &reply.octets, message)
            .map_err(|cannot| Trouble(format!("the daemon asks for what cannot be done: {cannot}")));
        let carried = match work {
            Ok(Work::Say(said)) => Ok(said),
            Ok(Work::Replace(all)) => {
                let desk = Arc::clone(self);
                let (octets, shown) = (reply.octets.clone(), id.to_owned());
                // Without a bound in time: once begun, it is done, or the journal knows.
                spawn_blocking(move || desk.replace(&path, &shown, &mail, &all, &octets, rounds))
                    .await
                    .map_err(Trouble::from)
                    .flatten()
            }
            Err(trouble) => Err(trouble),
        };
        // Nothing but the daemon's log hangs on this.
        let _ = reply.done(&match &carried {
            Ok(_) => Done::Carried,
            Err(Trouble(why)) => Done::Failed(why.clone()),
        });
        carried
    }

    /// Reads a mail's file.
    fn open(&self, path: &[u8], id: &str) -> Result<Opened, Trouble> {
        let settings =
            Settings::read(&self.file).map_err(|error| Trouble(format!("the settings are wrong: {error}")))?;
        let mail = self.base.mail(path)?;
        if self.is_replaced(path, &mail)? {
            log::note(id, "mail dropped: others were handed in for it before this program was started");
            return Ok(Opened::Answered(Reply::Discard));
        }
        let mut rounds = 0;
        if map::may_be_ours(&mail.envelope)
            && let Ok((_, key)) = self.store().open(&self.base)
        {
            let key = key.clone();
            let seen = header::look(&key, mail.message(), SystemTime::now(), MARK_HOLDS)?;
            if seen.holds {
                return Ok(Opened::Answered(Reply::Ok));
            }
            rounds = seen.fields;
        }
        Ok(Opened::Mail(Box::new(Known { mail, settings, rounds })))
    }

    /// Have others taken this mail's place? What of that was not finished is.
    fn is_replaced(&self, path: &[u8], mail: &Mail) -> Result<bool, Trouble> {
        let known = {
            let mut store = self.store();
            let Ok((journal, _)) = store.open(&self.base) else { return Ok(false) };
            journal.find(path, mail.stamp).cloned()
        };
        let Some(record) = known else { return Ok(false) };
        if mail.digest()? != record.digest {
            return Ok(false);
        }
        self.submitted.hand_in(&record.names)?;
        Ok(true)
    }

    /// Hands in other mails in this one's place, once.
    fn replace(
        &self,
        path: &[u8],
        id: &str,
        mail: &Mail,
        all: &[Replacement],
        octets: &[u8],
        rounds: usize,
    ) -> Result<Reply, Trouble> {
        if rounds >= ROUNDS {
            let why = "a loop: it was handed in twice, and the server changes it, so that its mark does not hold";
            return Err(Trouble(why.into()));
        }
        let key = self.store().open(&self.base)?.1.clone();
        let digest = mail.digest()?;
        let drafts = self.submitted.write(id, mail, all, octets, rounds, &key)?;
        let names = {
            // Held until the record is on the disk: the same mail may be asked about twice at once.
            let mut store = self.store();
            let (journal, _) = store.open(&self.base)?;
            match journal.find(path, mail.stamp).filter(|record| record.digest == digest) {
                Some(record) => record.names.clone(),
                None => {
                    // Whoever took it away does not wait for us, and has done something else with it.
                    if !mail.is_still(&self.base, path) {
                        return Err(Trouble("its file was changed or removed meanwhile".into()));
                    }
                    let record = Record { stamp: mail.stamp, digest, names: drafts.names().to_vec() };
                    journal.keep(path, record, &self.base)?;
                    drafts.keep()
                }
            }
        };
        self.submitted.hand_in(&names)?;
        Ok(Reply::Discard)
    }
}

impl Store {
    /// The journal and the key.
    fn open(&mut self, base: &Base) -> Result<(&mut Journal, &Key), Trouble> {
        if self.journal.is_none() {
            self.journal = Some(Journal::open(&self.folder, base).map_err(|error| self.failed(&error))?);
        }
        if self.key.is_none() {
            let file = self.folder.join("mark.key");
            Key::ensure(&file)?;
            self.key = Some(Key::read(&file)?);
        }
        match (&mut self.journal, &self.key) {
            (Some(journal), Some(key)) => Ok((journal, key)),
            _ => Err(Trouble("no journal".into())),
        }
    }

    fn failed(&self, error: &std::io::Error) -> Trouble {
        Trouble(format!("{}: {error}", self.folder.display()))
    }
}
