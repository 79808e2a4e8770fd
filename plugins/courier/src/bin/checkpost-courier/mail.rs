//! One connection of Courier's: one mail, its files read, the daemon asked, its answer carried out, and a reply.
//! Whatever goes wrong, the reply is "try again later"; "accept" is said at one place, last.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use checkpost_courier::control::{Control, EIGHT_BIT, UTF8_HEADER};
use checkpost_courier::map::Envelope;
use checkpost_courier::session::{Reader, Reply, Request, RequestError};
use checkpost_wire::check::Done;

use crate::files::{self, Place};
use crate::log;
use crate::settings::{Settings, WhenDown};

/// As the daemon's log has it.
const PROGRAM: &str = concat!("checkpost-courier ", env!("CARGO_PKG_VERSION"));
/// Left for what is to be done with the daemon's answer.
const RESERVE: Duration = Duration::from_secs(2);
/// Courier reads at once; this is for one that was stopped.
const REPLY_TIME: Duration = Duration::from_secs(10);

/// What every mail needs.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Where mails are.
    pub(crate) place: Place,
    /// Where the settings are.
    pub(crate) settings: PathBuf,
}

/// Why there is no request.
enum NoRequest {
    /// The connection ended before it was whole: somebody only looked.
    Gone,
    Late,
    Malformed(RequestError),
    Broken(io::Error),
}

/// Why a mail is put off: for the log.
struct Trouble(String);

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Desk {
    /// Serves a connection to its end.
    pub(crate) fn serve(&self, mut stream: &UnixStream) {
        let reply = self.reply(stream).print();
        let sent = stream.set_write_timeout(Some(REPLY_TIME)).and_then(|()| stream.write_all(&reply));
        // Courier takes a connection without a line for "try again later".
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            log::line("", format_args!("cannot reply: {error}"));
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn reply(&self, stream: &UnixStream) -> Reply {
        let begin = Instant::now();
        let settings = Settings::read(&self.settings);
        let time = settings.as_ref().map_or(Settings::default().timeout, |settings| settings.timeout);
        let until = begin + time;
        let request = match receive(stream, until) {
            Ok(request) => request,
            Err(NoRequest::Gone) => return Reply::default(),
            Err(why) => {
                let why = match why {
                    NoRequest::Malformed(error) => error.to_string(),
                    NoRequest::Broken(error) => error.to_string(),
                    NoRequest::Late | NoRequest::Gone => format!("no whole request within {} s", time.as_secs()),
                };
                log::line("", format_args!("mail put off: {why}"));
                return Reply::default();
            }
        };
        let settings = match settings {
            Ok(settings) => settings,
            Err(error) => {
                log::line("", format_args!("mail put off: the settings are wrong: {error}"));
                return Reply::default();
            }
        };
        let mut id = String::new();
        self.check(&request, &settings, until, &mut id).unwrap_or_else(|Trouble(why)| {
            log::line(&id, format_args!("mail put off: {why}"));
            Reply::default()
        })
    }

    /// `id` becomes the mail's, as soon as it is known.
    fn check(&self, request: &Request, settings: &Settings, until: Instant, id: &mut String) -> Result<Reply, Trouble> {
        let data = self.place.data(&request.data)?;
        let mut controls = Vec::with_capacity(request.controls.len());
        for name in &request.controls {
            let text = self.place.control(name)?;
            let shown = || String::from_utf8_lossy(name).into_owned();
            controls.push(Control::parse(&text).map_err(|error| Trouble(format!("{}: {error}", shown())))?);
        }
        let envelope = Envelope::new(controls);
        id.push_str(envelope.id().unwrap_or_default());
        if envelope.is_finished() {
            return Ok(Reply::Accept);
        }
        let within = until.saturating_duration_since(Instant::now()).saturating_sub(RESERVE);
        let question = envelope.request(PROGRAM);
        match checkpost_client::ask(&settings.socket, question, data.as_fd(), within.max(Duration::from_secs(1))) {
            Ok(mut answer) => {
                let carried = self.carry_out(request, &envelope, &data, &mut answer);
                // Nothing but the daemon's log hangs on this.
                let _ = answer.done(&match &carried {
                    Ok(_) => Done::Carried,
                    Err(Trouble(why)) => Done::Failed(why.clone()),
                });
                carried
            }
            Err(error) => {
                let why = format!("{}: {}", settings.socket.display(), error.chain());
                if error.is_absence() && settings.when_down == WhenDown::Pass {
                    log::line(id, format_args!("mail passes UNCHECKED (when_down = pass): {why}"));
                    return Ok(Reply::Accept);
                }
                Err(Trouble(why))
            }
        }
    }

    /// All of an answer, before the reply.
    fn carry_out(
        &self,
        request: &Request,
        envelope: &Envelope,
        data: &std::fs::File,
        answer: &mut checkpost_client::Reply,
    ) -> Result<Reply, Trouble> {
        let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let work = envelope
            .work(&answer.answer, unix_time)
            .map_err(|cannot| Trouble(format!("the daemon asks for what cannot be done: {cannot}")))?;
        let mut records = work.records;
        if let Some(number) = work.content {
            let content = answer.contents.get_mut(number).and_then(Option::take);
            let (content, look) = files::look(content.ok_or_else(|| Trouble("no changed content came".into()))?)?;
            self.place.overwrite(&request.data, data, &content, &look)?;
            // Courier looks at these to choose how it hands the mail on.
            let (eight_bit, utf8_header) = envelope.eight_bit();
            for (wanted, record) in
                [(look.eight_bit && !eight_bit, EIGHT_BIT), (look.eight_bit_header && !utf8_header, UTF8_HEADER)]
            {
                if wanted {
                    records.iter_mut().for_each(|records| records.extend_from_slice(record.as_bytes()));
                }
            }
        }
        for (name, records) in request.controls.iter().zip(&records) {
            if !records.is_empty() {
                self.place.append(name, records)?;
            }
        }
        Ok(work.reply)
    }
}

/// Reads to the empty line. Courier sends it all at once.
fn receive(mut stream: &UnixStream, until: Instant) -> Result<Request, NoRequest> {
    let mut reader = Reader::default();
    let mut block = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoRequest::Late);
        }
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).map_err(NoRequest::Broken)?;
        match stream.read(&mut block) {
            Ok(0) => return Err(NoRequest::Gone),
            Ok(count) => {
                if let Some(request) = reader.take(&block[..count]).map_err(NoRequest::Malformed)? {
                    return Ok(request);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(NoRequest::Late),
                io::ErrorKind::ConnectionReset => return Err(NoRequest::Gone),
                _ => return Err(NoRequest::Broken(error)),
            },
        }
    }
}
