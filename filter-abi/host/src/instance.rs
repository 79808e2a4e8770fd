//! One instance of a filter: made of its settings, asked about mails, ended by drop.

#![allow(unsafe_code, reason = "the library's functions are called")]

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use checkpost_filter_abi::raw;

use crate::answer::{Answer, Collected, Failure};
use crate::callbacks::{self, HostSide, MailSide};
use crate::error::CreateError;
use crate::library::Library;

/// Where a library's log lines go: one line of text, without control characters.
pub type Log<'a> = dyn Fn(Level, &str) + Sync + 'a;

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the header has them")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// The octets of a mail.
pub trait Content: Sync {
    /// How many.
    fn len(&self) -> u64;

    /// None at all?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it, when it is in memory.
    fn as_slice(&self) -> Option<&[u8]>;

    /// Reads at an offset; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// Where a mail came from; see the header for each.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Origin<'a> {
    pub way: &'a str,
    pub class: &'a str,
    pub client: Option<&'a str>,
    pub client_name: Option<&'a str>,
    pub helo: Option<&'a str>,
    pub user: Option<&'a str>,
    pub queue_id: Option<&'a str>,
    pub tls: bool,
}

/// One mail to look at.
pub struct Call<'a> {
    /// The mail's id in logs.
    pub id: &'a str,
    /// Envelope sender.
    pub sender: &'a str,
    /// Envelope recipients.
    pub recipients: &'a [&'a str],
    /// Where it came from.
    pub origin: Origin<'a>,
    /// Header and body.
    pub content: &'a dyn Content,
    /// The findings must be there by then.
    pub deadline: Instant,
    /// Turns true when nobody waits any more.
    pub cancelled: &'a AtomicBool,
    /// Where the library's log lines go.
    pub log: &'a Log<'a>,
}

impl Call<'_> {
    pub(crate) fn left(&self) -> Duration {
        if self.cancelled.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.left().is_zero()
    }
}

/// An instance. Dropping it calls the library, which may block.
#[derive(Debug)]
pub struct Instance {
    library: Library,
    instance: *mut c_void,
}

// SAFETY: the contract has the library let any thread end an instance.
unsafe impl Send for Instance {}
// SAFETY: the contract has the library let several threads check with the same instance at once.
unsafe impl Sync for Instance {}

impl Library {
    /// An instance with these settings: keys and values as the header has them. Blocks for as long as the library likes.
    pub fn create(&self, settings: &[(String, String)], log: &Log<'_>) -> Result<Instance, CreateError> {
        if let Some((key, _)) = settings.iter().find(|(key, value)| key.contains('\0') || value.contains('\0')) {
            return Err(CreateError::Nul(key.clone()));
        }
        let view = |text: &str| raw::Str::of(text.as_bytes());
        let raw_settings: Vec<_> =
            settings.iter().map(|(key, value)| raw::Setting { key: view(key), value: view(value) }).collect();
        let side = HostSide::new(log);
        let host = side.raw();
        let mut instance = std::ptr::null_mut();
        let create = self.functions().create;
        // SAFETY: all of it is as the contract wants it, and outlives the call.
        let code = unsafe { create(&host, raw_settings.as_ptr(), raw_settings.len(), &mut instance) };
        match (Failure::of_code(code), side.explained()) {
            (None, _) => Ok(Instance { library: *self, instance }),
            (Some(Failure::Garbage), _) => Err(CreateError::UnknownCode(code)),
            (Some(Failure::Panicked), text) => Err(CreateError::Panicked(text.unwrap_or_default())),
            (Some(_), Some(text)) => Err(CreateError::Refused(text)),
            (Some(_), None) => Err(CreateError::Silent(code)),
        }
    }
}

impl Instance {
    /// The library that it is of.
    pub fn library(&self) -> Library {
        self.library
    }

    /// Has it look at one mail. Blocks for as long as the library likes. Several threads may call it at once.
    pub fn check(&self, call: &Call<'_>) -> Answer {
        let view = |text: &str| raw::Str::of(text.as_bytes());
        let known = |text: Option<&str>| text.map_or(raw::Str::NONE, view);
        let recipients: Vec<_> = call.recipients.iter().map(|recipient| view(recipient)).collect();
        let host_side = HostSide::new(call.log);
        let mail_side = MailSide { call, collected: Mutex::new(Collected::default()) };
        let host = host_side.raw();
        let origin = &call.origin;
        let mail = raw::Mail {
            size: size_of::<raw::Mail>(),
            context: std::ptr::from_ref(&mail_side).cast(),
            host: &host,
            id: view(call.id),
            sender: view(call.sender),
            recipients: recipients.as_ptr(),
            recipient_count: recipients.len(),
            way: view(origin.way),
            origin: view(origin.class),
            client: known(origin.client),
            client_name: known(origin.client_name),
            helo: known(origin.helo),
            user: known(origin.user),
            queue_id: known(origin.queue_id),
            tls: u32::from(origin.tls),
            reserved: 0,
            length: call.content.len(),
            content: call.content.as_slice().map_or(std::ptr::null(), <[u8]>::as_ptr),
            read_at: callbacks::read_at,
            left_ms: callbacks::left_ms,
            cancelled: callbacks::cancelled,
            report: callbacks::report,
        };
        let check = self.library.functions().check;
        // SAFETY: all of it is as the contract wants it, and outlives the call; the instance is the library's own and is
        // not destroyed before `self` is.
        let code = unsafe { check(self.instance, &mail) };
        let collected = mail_side.collected.into_inner().unwrap_or_else(PoisonError::into_inner);
        collected.finish(code, host_side.explained())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let destroy = self.library.functions().destroy;
        // SAFETY: `create` made it, nobody else has it any more, and this is the only time.
        unsafe { destroy(self.instance) }
    }
}
