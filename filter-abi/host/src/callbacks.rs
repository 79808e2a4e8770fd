//! The functions that libraries call back. None of them panics outward, whatever the library passes.

#![allow(unsafe_code, reason = "the library's pointers come in here")]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use checkpost_filter_abi::raw;

use crate::answer::{Collected, lossy};
use crate::instance::{Call, Level, Log};

/// What stands behind a `checkpost_host`, for one call of `create` or `check`.
pub(crate) struct HostSide<'a> {
    log: &'a Log<'a>,
    lines: AtomicUsize,
    explained: Mutex<Option<String>>,
}

/// What stands behind a `checkpost_mail`.
pub(crate) struct MailSide<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) collected: Mutex<Collected>,
}

impl<'a> HostSide<'a> {
    pub(crate) fn new(log: &'a Log<'a>) -> Self {
        Self { log, lines: AtomicUsize::new(0), explained: Mutex::default() }
    }

    /// The structure for the library. It must not outlive `self`.
    pub(crate) fn raw(&self) -> raw::Host {
        raw::Host { size: size_of::<raw::Host>(), context: std::ptr::from_ref(self).cast(), log, explain }
    }

    /// What the library said why.
    pub(crate) fn explained(&self) -> Option<String> {
        self.explained.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

unsafe extern "C" fn log(host: *const raw::Host, level: u32, text: raw::Str) {
    quietly((), || {
        // SAFETY: the contract has the library pass the structure that it got, while the call lasts.
        let side = unsafe { &*(*host).context.cast::<HostSide<'_>>() };
        let line = side.lines.fetch_add(1, Ordering::Relaxed);
        if line > raw::MAX_LOG_LINES {
            return;
        }
        if line == raw::MAX_LOG_LINES {
            return (side.log)(Level::Warn, "more lines than are written");
        }
        let level = match level {
            raw::LOG_ERROR => Level::Error,
            raw::LOG_INFO => Level::Info,
            raw::LOG_DEBUG => Level::Debug,
            _ => Level::Warn,
        };
        // SAFETY: the contract has a valid view.
        if let Some(text) = unsafe { clause(text) } {
            (side.log)(level, &text);
        }
    });
}

unsafe extern "C" fn explain(host: *const raw::Host, text: raw::Str) {
    quietly((), || {
        // SAFETY: as in `log`.
        let side = unsafe { &*(*host).context.cast::<HostSide<'_>>() };
        // SAFETY: the contract has a valid view.
        let text = unsafe { clause(text) };
        *side.explained.lock().unwrap_or_else(PoisonError::into_inner) = text;
    });
}

pub(crate) unsafe extern "C" fn read_at(mail: *const raw::Mail, offset: u64, buffer: *mut c_void, count: usize) -> i64 {
    quietly(-1, || {
        // SAFETY: as in `log`.
        let side = unsafe { &*(*mail).context.cast::<MailSide<'_>>() };
        let content = side.call.content;
        let left = content.len().saturating_sub(offset);
        let count = count.min(usize::try_from(left).unwrap_or(usize::MAX)).min(isize::MAX as usize);
        if count == 0 {
            return 0;
        }
        if buffer.is_null() {
            return -1;
        }
        // Nobody wrote there yet, so a slice of it must not be made before.
        // SAFETY: the contract has room for `count` octets there, and nobody else at them while this lasts.
        let buffer = unsafe {
            buffer.cast::<u8>().write_bytes(0, count);
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count)
        };
        loop {
            match content.read_at(buffer, offset) {
                Ok(read) => return i64::try_from(read).unwrap_or(-1),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return -1,
            }
        }
    })
}

pub(crate) unsafe extern "C" fn left_ms(mail: *const raw::Mail) -> u64 {
    quietly(0, || {
        // SAFETY: as in `log`.
        let side = unsafe { &*(*mail).context.cast::<MailSide<'_>>() };
        u64::try_from(side.call.left().as_millis()).unwrap_or(u64::MAX)
    })
}

pub(crate) unsafe extern "C" fn cancelled(mail: *const raw::Mail) -> i32 {
    quietly(1, || {
        // SAFETY: as in `log`.
        let side = unsafe { &*(*mail).context.cast::<MailSide<'_>>() };
        i32::from(side.call.is_cancelled())
    })
}

pub(crate) unsafe extern "C" fn report(mail: *const raw::Mail, finding: *const raw::Finding) -> i32 {
    quietly(raw::STOP, || {
        // SAFETY: as in `log`.
        let side = unsafe { &*(*mail).context.cast::<MailSide<'_>>() };
        let mut collected = side.collected.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the contract has a finding there, or NULL, which is looked at.
        let taken = unsafe { collected.report(finding) };
        if taken == raw::TAKEN && side.call.is_cancelled() { raw::STOP } else { taken }
    })
}

/// A panic must not cross into the library. None is expected; if one comes, the answer is the worst.
fn quietly<T>(otherwise: T, callback: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or_else(|panic| {
        std::mem::forget(panic);
        otherwise
    })
}

/// Text for a log: cut, on one line. `None`: there is none.
///
/// # Safety
/// The view is valid, if its pointer is not null.
unsafe fn clause(view: raw::Str) -> Option<String> {
    if view.data.is_null() || view.length == 0 {
        return None;
    }
    // SAFETY: by the caller's word.
    let bytes = unsafe { std::slice::from_raw_parts(view.data, view.length.min(raw::MAX_DETAIL)) };
    Some(lossy(bytes, raw::MAX_DETAIL).chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}
