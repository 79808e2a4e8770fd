//! Exim's `local_scan()`, in a shared library that Debian's Exim loads by `local_scan_path`: it shows each mail to the
//! daemon just before Exim says that it is taken, and carries out the answer.
//!
//! It decides nothing, and keeps nothing from one mail to the next. It runs in Exim's own process, so it starts no
//! thread, handles no signal (SIGALRM is Exim's), never aborts and never lets a panic out. All that touches Exim's
//! memory is in `host`; the other modules are safe and know it as slices.

mod config;
mod header;
mod host;
mod mail;
mod map;
mod scan;

pub use config::Config;
pub use header::{Added, Changes, Shown};
pub use host::{guarded, local_scan, local_scan_version_major, local_scan_version_minor};
pub use mail::{Field, Mail, Origin};
pub use map::{CAN, Cannot, Code, Work, request, work};
