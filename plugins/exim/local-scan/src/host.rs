//! Where Exim calls, and all that touches its memory: symbols, the two structures of its `local_scan.h` (API 6.0), and
//! the changes to them. Nothing is decided here.
//!
//! Exim's symbols are looked up by name for each mail. Were they linked, one that an Exim does not export would keep
//! the library from being loaded, and then Exim 4.96 does not refuse the mail but crashes.

#![allow(unsafe_code, reason = "Exim speaks C; this is the only module that touches its memory")]

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::Once;

use crate::header::{Added, Changes};
use crate::mail::{Field, Mail, Origin};
use crate::map::{Code, LATER, Work};
use crate::scan::scan;

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must be caught: Exim does not survive SIGABRT");

/// Fields or octets of a header beyond these are a broken list. Exim's own limit is 1 MiB (`header_maxsize`).
const MOST_FIELDS: usize = 1 << 20;
const MOST_OCTETS: usize = 64 << 20;
/// Exim's letter for a field that is deleted.
const DELETED: c_int = b'*' as c_int;
/// `LOG_MAIN` of local_scan.h.
const LOG_MAIN: c_int = 1;
/// `GET_TAINTED` of store.h: what came from outside must not name files or become commands.
const TAINTED: *const c_void = ptr::without_provenance(1);

/// `header_line` of local_scan.h.
#[repr(C)]
struct HeaderLine {
    next: *mut HeaderLine,
    kind: c_int,
    length: c_int,
    text: *mut u8,
}

/// `recipient_item` of local_scan.h.
#[repr(C)]
struct Recipient {
    address: *mut u8,
    parent: c_int,
    errors_to: *mut u8,
    orcpt: *mut u8,
    dsn_flags: c_int,
}

/// The version of Exim's interface that this library knows: the structures above.
#[unsafe(no_mangle)]
pub extern "C" fn local_scan_version_major() -> c_int {
    6
}

/// See [`local_scan_version_major`].
#[unsafe(no_mangle)]
pub extern "C" fn local_scan_version_minor() -> c_int {
    0
}

/// Exim calls it for each mail, just before it says that the mail is taken. `fd` is open for the file with the body
/// and stands at the body; it is not written to, moved or closed. `return_text` gets what is said to the client, or
/// `$local_scan_data`.
///
/// # Safety
/// To be called by Exim, from its only thread, as its manual says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn local_scan(fd: c_int, return_text: *mut *mut u8) -> c_int {
    // SAFETY: Exim keeps `return_text` valid for a pointer during the call.
    unsafe { guarded(return_text, |exim| exim.scan(fd)) }
}

/// What `local_scan` does, with another heart: whatever goes wrong in it, a panic included, is "try again later" with a
/// line in Exim's log.
///
/// # Safety
/// As for [`local_scan`]: `return_text` is null, or valid for writing a pointer.
#[doc(hidden)]
pub unsafe fn guarded(return_text: *mut *mut u8, scan: impl FnOnce(&Exim) -> Result<Said, String>) -> c_int {
    let said = catch_unwind(AssertUnwindSafe(|| {
        quiet();
        let exim = Exim::find()?;
        scan(&exim)
    }));
    let (code, text) = match said {
        Ok(Ok(Said(code, text))) => (code, text),
        Ok(Err(why)) => (Code::Defer, trouble(&why)),
        Err(payload) => {
            // To drop what a panic carries may panic again.
            let why = catch_unwind(AssertUnwindSafe(|| panicked(payload.as_ref())));
            std::mem::forget(payload);
            (Code::Defer, why.map_or(static_text(), |why| trouble(&why)))
        }
    };
    if !return_text.is_null() && !text.is_null() {
        // SAFETY: not null, so valid, as this function's contract says.
        unsafe { *return_text = text };
    }
    code.number()
}

/// What is returned, and its text in Exim's memory.
#[doc(hidden)]
pub struct Said(Code, *mut u8);

/// Logs what the client is not told. The text is what it is told.
fn trouble(why: &str) -> *mut u8 {
    let logged = catch_unwind(AssertUnwindSafe(|| {
        if let Some(write) = log_write() {
            log(write, &format!("mail put off: {why}"));
        }
    }));
    if let Err(payload) = logged {
        std::mem::forget(payload);
    }
    static_text()
}

/// [`LATER`], with its end. Exim copies it.
fn static_text() -> *mut u8 {
    static TEXT: &CStr = c"4.3.0 Local problem, try again later";
    debug_assert_eq!(TEXT.to_bytes(), LATER.as_bytes());
    TEXT.as_ptr().cast_mut().cast()
}

thread_local! {
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Standard error may be a local user's, or nobody's: a panic is told to Exim's log alone. The hook is this library's,
/// since its standard library is.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let told = info.to_string();
            PANICKED.with(|panicked| panicked.try_borrow_mut().map(|mut panicked| *panicked = Some(told)).ok());
        }));
    });
}

fn panicked(payload: &(dyn Any + Send)) -> String {
    let told = PANICKED.with(|panicked| panicked.try_borrow_mut().ok().and_then(|mut told| told.take()));
    let text = told.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
    format!("a fault of this library: {}", text.as_deref().unwrap_or("a panic"))
}

type LogWrite = unsafe extern "C" fn(c_uint, c_int, *const c_char, ...);
type StoreGet = unsafe extern "C" fn(c_int, *const c_void, *const c_char, c_int) -> *mut c_void;
type ExpandString = unsafe extern "C" fn(*mut u8) -> *mut u8;
type AddRecipient = unsafe extern "C" fn(*mut u8, c_int);
type RemoveRecipient = unsafe extern "C" fn(*mut u8) -> c_uint;

/// The Exim that has called: addresses of its variables, and its functions.
#[doc(hidden)]
pub struct Exim {
    header_list: *mut *mut HeaderLine,
    header_last: *mut *mut HeaderLine,
    sender_address: *mut *mut u8,
    recipients_count: *mut c_int,
    recipients_list: *mut *mut Recipient,
    sender_host_address: *mut *mut u8,
    sender_host_name: *mut *mut u8,
    message_id: *mut *mut u8,
    smtp_input: *mut c_uint,
    smtp_batched_input: *mut c_uint,
    local_scan_path: *mut *mut u8,
    store_get: StoreGet,
    expand_string: ExpandString,
    add_recipient: AddRecipient,
    remove_recipient: RemoveRecipient,
    log_write: LogWrite,
}

/// The address of a symbol of the program.
fn symbol(name: &CStr) -> Result<*mut c_void, String> {
    // SAFETY: a name with its end; the program is never unloaded.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() { Err(format!("this Exim has no {}", name.to_string_lossy())) } else { Ok(address) }
}

fn log_write() -> Option<LogWrite> {
    let address = symbol(c"log_write").ok()?;
    // SAFETY: Exim's function of this name has this type (local_scan.h, API 6.0).
    Some(unsafe { std::mem::transmute::<*mut c_void, LogWrite>(address) })
}

/// A line in Exim's main log, which puts the mail's id before it.
fn log(write: LogWrite, line: &str) {
    let clean: String = line.chars().take(500).map(|c| if c.is_control() { '?' } else { c }).collect();
    if let Ok(line) = CString::new(format!("checkpost: {clean}")) {
        // SAFETY: the format takes one string with its end, and that is what it gets.
        unsafe { write(0, LOG_MAIN, c"%s".as_ptr(), line.as_ptr()) };
    }
}

impl Exim {
    fn find() -> Result<Self, String> {
        let log_write = log_write().ok_or("this Exim has no log_write")?;
        let store_get = symbol(c"store_get_3")?;
        let expand_string = symbol(c"expand_string")?;
        let add_recipient = symbol(c"receive_add_recipient")?;
        let remove_recipient = symbol(c"receive_remove_recipient")?;
        Ok(Self {
            header_list: symbol(c"header_list")?.cast(),
            header_last: symbol(c"header_last")?.cast(),
            sender_address: symbol(c"sender_address")?.cast(),
            recipients_count: symbol(c"recipients_count")?.cast(),
            recipients_list: symbol(c"recipients_list")?.cast(),
            sender_host_address: symbol(c"sender_host_address")?.cast(),
            sender_host_name: symbol(c"sender_host_name")?.cast(),
            message_id: symbol(c"message_id")?.cast(),
            smtp_input: symbol(c"smtp_input")?.cast(),
            smtp_batched_input: symbol(c"smtp_batched_input")?.cast(),
            local_scan_path: symbol(c"local_scan_path")?.cast(),
            // SAFETY: Exim's functions of these names have these types (local_scan.h, API 6.0).
            store_get: unsafe { std::mem::transmute::<*mut c_void, StoreGet>(store_get) },
            // SAFETY: likewise.
            expand_string: unsafe { std::mem::transmute::<*mut c_void, ExpandString>(expand_string) },
            // SAFETY: likewise.
            add_recipient: unsafe { std::mem::transmute::<*mut c_void, AddRecipient>(add_recipient) },
            // SAFETY: likewise.
            remove_recipient: unsafe { std::mem::transmute::<*mut c_void, RemoveRecipient>(remove_recipient) },
            log_write,
        })
    }

    fn scan(&self, fd: c_int) -> Result<Said, String> {
        if fd < 0 {
            return Err("the descriptor of the body is none".into());
        }
        // SAFETY: Exim's descriptor, which stays open during the call. If it is none, every use of it fails with EBADF.
        let body = unsafe { BorrowedFd::borrow_raw(fd) };
        let (lines, fields) = self.header()?;
        let mail = Mail {
            fields,
            sender: self.text(self.sender_address).ok_or("there is no sender, not even the null sender")?,
            recipients: self.recipients()?,
            origin: self.origin(),
        };
        let library = self.text(self.local_scan_path).map(|path| Path::new(OsStr::from_bytes(path)));
        let mut scanned = scan(&mail, body, library);
        let carried = self.carry_out(&scanned.work, &lines, &mail);
        scanned.done(carried.as_ref().err());
        Ok(Said(scanned.work.code, carried?))
    }

    fn carry_out(&self, work: &Work, lines: &[*mut HeaderLine], mail: &Mail<'_>) -> Result<*mut u8, String> {
        let Work { text, header, removed, added, log: line, .. } = work;
        // What can fail comes first.
        let text = if text.is_empty() { ptr::null_mut() } else { self.store(text.as_bytes())? };
        let new = header.added.iter().map(|added| self.store(&added.text)).collect::<Result<Vec<_>, _>>()?;
        let removed = removed.iter().filter_map(|index| mail.recipients.get(*index));
        let removed = removed.map(|address| self.store(address)).collect::<Result<Vec<_>, _>>()?;
        let added = added.iter().map(|address| self.store(address.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        self.change_header(header, &new, lines);
        for address in removed {
            // SAFETY: a text with its end. Of equal addresses the first goes, and one call is made for each.
            if unsafe { (self.remove_recipient)(address) } == 0 {
                return Err("a recipient cannot be removed".into());
            }
        }
        for address in added {
            // SAFETY: a text with its end, in Exim's own memory, which outlives the list.
            unsafe { (self.add_recipient)(address, -1) };
        }
        if let Some(line) = line {
            log(self.log_write, line);
        }
        Ok(text)
    }

    /// The header lines that are not deleted, and the same as views.
    fn header(&self) -> Result<(Vec<*mut HeaderLine>, Vec<Field<'_>>), String> {
        let broken = || String::from("Exim's header is no list");
        let (mut lines, mut fields, mut octets, mut all) = (Vec::new(), Vec::new(), 0, 0);
        // SAFETY: the address of Exim's variable.
        let mut line = unsafe { *self.header_list };
        while !line.is_null() {
            // SAFETY: Exim's list has whole lines and a null at its end, and nobody changes it meanwhile.
            let HeaderLine { next, kind, length, text } = unsafe { line.read() };
            all += 1;
            if all > MOST_FIELDS {
                return Err(broken());
            }
            // One without a text is Exim's own Received before it is made.
            if kind != DELETED && !text.is_null() {
                let length = usize::try_from(length).map_err(|_| broken())?;
                octets += length;
                // SAFETY: Exim's text has `length` octets. It stays where it is while `self` is borrowed, that is
                // during the call, and is never written to.
                let text = unsafe { std::slice::from_raw_parts(text, length) };
                let kind = u8::try_from(kind).map_err(|_| broken())?;
                if octets > MOST_OCTETS || !text.ends_with(b"\n") {
                    return Err(broken());
                }
                fields.try_reserve(1).map_err(|error| error.to_string())?;
                lines.try_reserve(1).map_err(|error| error.to_string())?;
                fields.push(Field { text, kind });
                lines.push(line);
            }
            line = next;
        }
        Ok((lines, fields))
    }

    fn recipients(&self) -> Result<Vec<&[u8]>, String> {
        let broken = || String::from("Exim's recipients are no list");
        // SAFETY: the addresses of Exim's variables.
        let (count, list) = unsafe { (*self.recipients_count, *self.recipients_list) };
        let count = usize::try_from(count).map_err(|_| broken())?;
        if count > 0 && list.is_null() {
            return Err(broken());
        }
        let mut recipients = Vec::new();
        recipients.try_reserve_exact(count).map_err(|error| error.to_string())?;
        for index in 0..count {
            // SAFETY: the list has `count` items.
            let address = unsafe { &raw mut (*list.add(index)).address };
            recipients.push(self.text(address).ok_or_else(broken)?);
        }
        Ok(recipients)
    }

    fn origin(&self) -> Origin {
        let owned = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        // SAFETY: the addresses of Exim's variables of type BOOL, which is an unsigned int (mytypes.h).
        let (smtp, batched) = unsafe { (*self.smtp_input != 0, *self.smtp_batched_input != 0) };
        let variable = |address| self.text(address).filter(|text| !text.is_empty()).map(owned);
        Origin {
            client: variable(self.sender_host_address),
            // Not the variable of Exim's configuration, which would ask the DNS.
            client_name: variable(self.sender_host_name),
            helo: self.expanded(c"$sender_helo_name"),
            user: self.expanded(c"$authenticated_id"),
            is_silent: !smtp || batched,
            tls: self.expanded(c"$tls_in_cipher").is_some(),
            id: variable(self.message_id),
        }
    }

    /// A text of Exim's; `None`: the pointer is null.
    fn text(&self, address: *mut *mut u8) -> Option<&[u8]> {
        // SAFETY: the address of one of Exim's pointers.
        let text = unsafe { *address };
        if text.is_null() {
            return None;
        }
        // SAFETY: Exim's texts have an end, and stay where they are during the call.
        Some(unsafe { CStr::from_ptr(text.cast()) }.to_bytes())
    }

    /// The value of a variable of Exim's configuration; `None`: it is empty.
    fn expanded(&self, variable: &'static CStr) -> Option<String> {
        // SAFETY: a text with its end, which is not written to. It returns null, the same, or a text of Exim's own.
        let mut text = unsafe { (self.expand_string)(variable.as_ptr().cast_mut().cast()) };
        let text = self.text(&raw mut text).filter(|text| !text.is_empty());
        text.map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// Octets in Exim's own memory, with an end. Exim frees it with the mail.
    fn store(&self, octets: &[u8]) -> Result<*mut u8, String> {
        let size = c_int::try_from(octets.len() + 1).map_err(|error| error.to_string())?;
        // SAFETY: it returns as much memory, or does not return.
        let text: *mut u8 = unsafe { (self.store_get)(size, TAINTED, c"checkpost".as_ptr(), 0) }.cast();
        // SAFETY: there are `octets.len() + 1` octets at `text`, and they are new.
        unsafe {
            ptr::copy_nonoverlapping(octets.as_ptr(), text, octets.len());
            text.add(octets.len()).write(0);
        }
        Ok(text)
    }

    /// Puts the new lines, whose texts are `new`, into the list, and marks those that go. Not by `header_add()`: Exim
    /// ends when a line has more than 32 KiB, and where several have one name it cannot put one between them.
    fn change_header(&self, changes: &Changes, new: &[*mut u8], lines: &[*mut HeaderLine]) {
        for index in &changes.removed {
            if let Some(line) = lines.get(*index) {
                // SAFETY: a line of Exim's list. Its manual, "Structure of header lines": so a line is deleted.
                unsafe { (**line).kind = DELETED };
            }
        }
        // From the last to the first, so that those for one place come to stand in their order.
        for (Added { behind, text, kind }, address) in changes.added.iter().zip(new).rev() {
            let before = behind.and_then(|index| lines.get(index));
            // SAFETY: it returns as much memory, aligned for any type, or does not return.
            let line: *mut HeaderLine =
                unsafe { (self.store_get)(size_of::<HeaderLine>() as c_int, ptr::null(), c"checkpost".as_ptr(), 0) }
                    .cast();
            let link = match before {
                // SAFETY: the place of a pointer in a line of Exim's list; it is not read yet.
                Some(before) => unsafe { &raw mut (**before).next },
                None => self.header_list,
            };
            // SAFETY: `link` is such a place in Exim's list, and `line` is new and large enough.
            unsafe {
                let next = *link;
                line.write(HeaderLine { next, kind: (*kind).into(), length: text.len() as c_int, text: *address });
                *link = line;
                if next.is_null() {
                    *self.header_last = line;
                }
            }
        }
    }
}
