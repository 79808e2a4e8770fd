//! What an author gets: safe views of the host's structures.
//! All views live as long as the call that brought them; the lifetimes say so.

#![allow(unsafe_code, reason = "the host's structures are read, and its callbacks called")]

use std::borrow::Cow;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::time::Duration;

use crate::author::{Finding, Level};
use crate::raw;

/// The host, while a function of the filter runs.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    raw: *const raw::Host,
    call: PhantomData<&'a raw::Host>,
}

// SAFETY: the contract allows its callbacks to any thread while the call lasts, which the lifetime bounds.
unsafe impl Send for Host<'_> {}
// SAFETY: as above.
unsafe impl Sync for Host<'_> {}

impl Host<'_> {
    /// # Safety
    /// `raw` is the host's, and valid for the lifetime chosen.
    pub(crate) unsafe fn new(raw: *const raw::Host) -> Self {
        Self { raw, call: PhantomData }
    }

    /// Writes one line to the host's log, with the filter's name and the mail's id. Line breaks in it are
    /// made harmless, what is longer than [`raw::MAX_DETAIL`] octets is cut, and of more than
    /// [`raw::MAX_LOG_LINES`] in one call the rest is not written.
    pub fn log(&self, level: Level, text: &str) {
        // SAFETY: `new` had a valid structure, and the host copies the text before it returns.
        unsafe { ((*self.raw).log)(self.raw, level as u32, raw::Str::of(text.as_bytes())) }
    }

    pub(crate) fn explain(&self, text: &str) {
        let text = cut(text, raw::MAX_DETAIL);
        // SAFETY: as in `log`.
        unsafe { ((*self.raw).explain)(self.raw, raw::Str::of(text.as_bytes())) }
    }
}

/// The table `settings` of the configuration.
#[derive(Clone, Copy)]
pub struct Settings<'a>(&'a [raw::Setting]);

// SAFETY: the structures are constant while the call lasts, which the lifetime bounds.
unsafe impl Send for Settings<'_> {}
// SAFETY: as above.
unsafe impl Sync for Settings<'_> {}

impl<'a> Settings<'a> {
    /// # Safety
    /// `settings` and `count` are the host's, and valid for the lifetime chosen.
    pub(crate) unsafe fn new(settings: *const raw::Setting, count: usize) -> Self {
        if settings.is_null() || count == 0 {
            return Self(&[]);
        }
        // SAFETY: by the caller's word.
        Self(unsafe { std::slice::from_raw_parts(settings, count) })
    }

    /// All keys and values: the items of a list one by one, keys of tables within joined by dots, numbers in decimal.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        // SAFETY: `new` had valid structures.
        self.0.iter().map(|setting| unsafe { (text(setting.key).unwrap_or(""), text(setting.value).unwrap_or("")) })
    }

    /// The value of a key; of a list, the first.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.all(key).next()
    }

    /// All values of a key: the items of a list.
    pub fn all<'k>(&self, key: &'k str) -> impl Iterator<Item = &'a str> + use<'a, 'k> {
        self.iter().filter(move |(name, _)| *name == key).map(|(_, value)| value)
    }

    /// An error for the first key that is not among these: a typing mistake, mostly.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.iter().find(|(key, _)| !known.contains(key)) {
            Some((key, _)) => Err(format!("unknown key {key:?}; accepted: {}", known.join(", "))),
            None => Ok(()),
        }
    }
}

/// One mail.
#[derive(Clone, Copy)]
pub struct Mail<'a>(&'a raw::Mail);

// SAFETY: the contract allows its callbacks to any thread while the call lasts, which the lifetime bounds, and the
// structure is constant.
unsafe impl Send for Mail<'_> {}
// SAFETY: as above.
unsafe impl Sync for Mail<'_> {}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It counts.
    Yes,
    /// It breaks the contract, so the mail counts as not wholly looked at.
    Refused,
    /// Nobody waits for it, or there are too many: return soon.
    Stop,
}

impl<'a> Mail<'a> {
    /// # Safety
    /// `raw` is the host's, and valid for the lifetime chosen.
    pub(crate) unsafe fn new(raw: *const raw::Mail) -> Self {
        // SAFETY: by the caller's word.
        Self(unsafe { &*raw })
    }

    /// The host, for log lines.
    pub fn host(&self) -> Host<'a> {
        // SAFETY: the host's structure has a host that is as valid as itself.
        unsafe { Host::new(self.0.host) }
    }

    /// The host's name for this mail, in all its log lines.
    pub fn id(&self) -> &'a str {
        self.view(self.0.id).unwrap_or("")
    }

    /// Envelope sender as the protocol gave it, without angle brackets; empty: the null sender.
    pub fn sender(&self) -> &'a str {
        self.view(self.0.sender).unwrap_or("")
    }

    /// Envelope recipients in order, duplicates included.
    pub fn recipients(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mail = *self;
        // SAFETY: the contract gives so many of them.
        let all = unsafe { std::slice::from_raw_parts(self.0.recipients, self.0.recipient_count) };
        all.iter().map(move |recipient| mail.view(*recipient).unwrap_or(""))
    }

    /// The name of the way in.
    pub fn way(&self) -> &'a str {
        self.view(self.0.way).unwrap_or("")
    }

    /// `inbound`, `submission` or `internal`.
    pub fn origin(&self) -> &'a str {
        self.view(self.0.origin).unwrap_or("")
    }

    /// The sending client's address, if known.
    pub fn client(&self) -> Option<std::net::IpAddr> {
        self.view(self.0.client)?.parse().ok()
    }

    /// Its host name, if known.
    pub fn client_name(&self) -> Option<&'a str> {
        self.view(self.0.client_name)
    }

    /// What it said at HELO, if known.
    pub fn helo(&self) -> Option<&'a str> {
        self.view(self.0.helo)
    }

    /// The authenticated user, if there is one.
    pub fn user(&self) -> Option<&'a str> {
        self.view(self.0.user)
    }

    /// The mail server's own id, if known.
    pub fn queue_id(&self) -> Option<&'a str> {
        self.view(self.0.queue_id)
    }

    /// Did it come over TLS?
    pub fn is_tls(&self) -> bool {
        self.0.tls != 0
    }

    /// Octets of header and body.
    pub fn len(&self) -> u64 {
        self.0.length
    }

    /// No octets at all?
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }

    /// Header and body, when they are in memory; small mails mostly are. Lines end with CRLF or LF, as the way in has
    /// them. Otherwise see
    /// [`Mail::prefix`], [`Mail::read_at`] and [`Mail::reader`], which work with any.
    pub fn content(&self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.0.length).ok()?;
        // SAFETY: when there is a pointer, that many octets are there, constant while the call lasts.
        (!self.0.content.is_null()).then(|| unsafe { std::slice::from_raw_parts(self.0.content, length) })
    }

    /// Reads up to a buffer full at an offset; 0 at the end and beyond. The error is the host's, who could not read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // SAFETY: the host writes no more than the buffer's length, into the buffer.
        let read = unsafe { (self.0.read_at)(self.0, offset, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(read) {
            Ok(read) if read <= buffer.len() => Ok(read),
            _ => Err(io::Error::other("the host could not read the mail")),
        }
    }

    /// The first octets, at most `limit`.
    pub fn prefix(&self, limit: usize) -> io::Result<Cow<'a, [u8]>> {
        if let Some(content) = self.content() {
            return Ok(Cow::Borrowed(&content[..content.len().min(limit)]));
        }
        let mut prefix = Vec::new();
        self.reader().take(limit as u64).read_to_end(&mut prefix)?;
        Ok(Cow::Owned(prefix))
    }

    /// A stream over all of it.
    pub fn reader(&self) -> Reader<'a> {
        Reader { mail: *self, position: 0 }
    }

    /// Time until the findings must be there; zero when it is too late.
    pub fn left(&self) -> Duration {
        // SAFETY: the structure is the host's.
        Duration::from_millis(unsafe { (self.0.left_ms)(self.0) })
    }

    /// Does nobody wait for the findings any more? Then return soon.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the structure is the host's.
        unsafe { (self.0.cancelled)(self.0) != 0 }
    }

    /// Reports a finding. A part or a detail over its bound is cut; a name or a class over its bound is refused.
    pub fn report(&self, finding: &Finding<'_>) -> Taken {
        let view = |text: &str| raw::Str::of(text.as_bytes());
        let raw = raw::Finding {
            size: size_of::<raw::Finding>(),
            kind: finding.kind as u32,
            score: finding.score,
            name: view(finding.name),
            class: view(finding.class),
            part: view(cut(finding.part, raw::MAX_PART)),
            detail: view(cut(finding.detail, raw::MAX_DETAIL)),
        };
        // SAFETY: the structure is the host's, who copies the finding before it returns.
        match unsafe { (self.0.report)(self.0, &raw) } {
            raw::TAKEN => Taken::Yes,
            raw::REFUSED => Taken::Refused,
            _ => Taken::Stop,
        }
    }

    fn view(&self, view: raw::Str) -> Option<&'a str> {
        // SAFETY: the host's views are valid as long as its structure.
        unsafe { text(view) }
    }
}

/// A stream over a mail's octets.
#[derive(Clone)]
pub struct Reader<'a> {
    mail: Mail<'a>,
    position: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.mail.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// `None`: not known. Text from the host is UTF-8; if it were not, it would be as if not known.
///
/// # Safety
/// The view is valid for the lifetime chosen.
unsafe fn text<'a>(view: raw::Str) -> Option<&'a str> {
    if view.data.is_null() {
        return None;
    }
    // SAFETY: by the caller's word.
    std::str::from_utf8(unsafe { std::slice::from_raw_parts(view.data, view.length) }).ok()
}

/// At most so many octets, whole characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
