//! The header `checkpost_filter.h`, mirrored. It explains nothing that the header explains, and it checks nothing.
//!
//! `tests/layout.rs` compares it with the header, member by member and constant by constant.

#![allow(unsafe_code, reason = "a constant structure with pointers is shared by threads")]

use std::ffi::c_void;

/// `CHECKPOST_FILTER_MAGIC`.
pub const MAGIC: u64 = 0x4350_464c_5445_5200;
/// `CHECKPOST_FILTER_ABI`.
pub const ABI: u32 = 1;
/// The exported symbol.
pub const SYMBOL: &str = "checkpost_filter";

/// `CHECKPOST_MALWARE`.
pub const MALWARE: u32 = 1;
/// `CHECKPOST_PHISHING`.
pub const PHISHING: u32 = 2;
/// `CHECKPOST_SPAM`.
pub const SPAM: u32 = 3;
/// `CHECKPOST_POLICY`.
pub const POLICY: u32 = 4;
/// `CHECKPOST_ENCRYPTED`.
pub const ENCRYPTED: u32 = 5;
/// `CHECKPOST_LIMIT`.
pub const LIMIT: u32 = 6;
/// `CHECKPOST_AUTH`.
pub const AUTH: u32 = 7;

/// `CHECKPOST_OK`.
pub const OK: i32 = 0;
/// `CHECKPOST_ERROR`.
pub const ERROR: i32 = 1;
/// `CHECKPOST_TOO_LARGE`.
pub const TOO_LARGE: i32 = 2;
/// `CHECKPOST_UNREADABLE`.
pub const UNREADABLE: i32 = 3;
/// `CHECKPOST_TIMEOUT`.
pub const TIMEOUT: i32 = 4;
/// `CHECKPOST_BUSY`.
pub const BUSY: i32 = 5;
/// `CHECKPOST_READ_ERROR`.
pub const READ_ERROR: i32 = 6;
/// `CHECKPOST_PANICKED`.
pub const PANICKED: i32 = 7;

/// `CHECKPOST_TAKEN`.
pub const TAKEN: i32 = 0;
/// `CHECKPOST_REFUSED`.
pub const REFUSED: i32 = 1;
/// `CHECKPOST_STOP`.
pub const STOP: i32 = 2;

/// `CHECKPOST_MAX_NAME`, octets.
pub const MAX_NAME: usize = 256;
/// `CHECKPOST_MAX_CLASS`, octets.
pub const MAX_CLASS: usize = 64;
/// `CHECKPOST_MAX_PART`, octets.
pub const MAX_PART: usize = 512;
/// `CHECKPOST_MAX_DETAIL`, octets.
pub const MAX_DETAIL: usize = 1024;
/// `CHECKPOST_MAX_FINDINGS`.
pub const MAX_FINDINGS: usize = 1000;
/// `CHECKPOST_MAX_LOG_LINES`.
pub const MAX_LOG_LINES: usize = 100;

/// `CHECKPOST_LOG_ERROR`.
pub const LOG_ERROR: u32 = 1;
/// `CHECKPOST_LOG_WARN`.
pub const LOG_WARN: u32 = 2;
/// `CHECKPOST_LOG_INFO`.
pub const LOG_INFO: u32 = 3;
/// `CHECKPOST_LOG_DEBUG`.
pub const LOG_DEBUG: u32 = 4;

/// `checkpost_str`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Str {
    /// First octet; null only when there are none.
    pub data: *const u8,
    /// Octets.
    pub length: usize,
}

impl Str {
    /// Not known, or empty.
    pub const NONE: Self = Self { data: std::ptr::null(), length: 0 };

    /// A view of it, which must not outlive it.
    pub const fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }
}

/// `checkpost_finding`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Finding {
    pub size: usize,
    pub kind: u32,
    pub score: f32,
    pub name: Str,
    pub class: Str,
    pub part: Str,
    pub detail: Str,
}

/// `checkpost_host`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Host {
    pub size: usize,
    pub context: *const c_void,
    pub log: unsafe extern "C" fn(host: *const Host, level: u32, text: Str),
    pub explain: unsafe extern "C" fn(host: *const Host, text: Str),
}

/// `checkpost_setting`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Setting {
    pub key: Str,
    pub value: Str,
}

/// `checkpost_mail`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Mail {
    pub size: usize,
    pub context: *const c_void,
    pub host: *const Host,
    pub id: Str,
    pub sender: Str,
    pub recipients: *const Str,
    pub recipient_count: usize,
    pub way: Str,
    pub origin: Str,
    pub client: Str,
    pub client_name: Str,
    pub helo: Str,
    pub user: Str,
    pub queue_id: Str,
    pub tls: u32,
    pub reserved: u32,
    pub length: u64,
    pub content: *const u8,
    pub read_at: unsafe extern "C" fn(mail: *const Mail, offset: u64, buffer: *mut c_void, count: usize) -> i64,
    pub left_ms: unsafe extern "C" fn(mail: *const Mail) -> u64,
    pub cancelled: unsafe extern "C" fn(mail: *const Mail) -> i32,
    pub report: unsafe extern "C" fn(mail: *const Mail, finding: *const Finding) -> i32,
}

/// The type of `create`.
pub type Create = unsafe extern "C" fn(
    host: *const Host,
    settings: *const Setting,
    setting_count: usize,
    instance: *mut *mut c_void,
) -> i32;

/// The type of `check`.
pub type Check = unsafe extern "C" fn(instance: *mut c_void, mail: *const Mail) -> i32;

/// The type of `destroy`.
pub type Destroy = unsafe extern "C" fn(instance: *mut c_void);

/// `checkpost_filter_descriptor`. The functions are options because a library may have left them out.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Descriptor {
    pub magic: u64,
    pub abi: u32,
    pub size: u32,
    pub name: Str,
    pub version: Str,
    pub finds: u32,
    pub reserved: u32,
    pub create: Option<Create>,
    pub check: Option<Check>,
    pub destroy: Option<Destroy>,
}

// SAFETY: it is constant, and so is what its pointers lead to, by contract for as long as the process lives.
unsafe impl Sync for Descriptor {}
// SAFETY: as above.
unsafe impl Send for Descriptor {}
