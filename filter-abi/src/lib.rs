//! Filters for Checkpost in shared libraries: the contract, and the safe side for authors.
//! It loads nothing and knows no engine: the host is `checkpost-filter-host`.
//!
//! The contract is `include/checkpost_filter.h`; [`raw`] is its mirror. Authors in Rust write a type with
//! [`LibraryFilter`] in a crate of the type `cdylib`, and [`export_filter!`]; `docs/filter-libraries.md` says how.
//!
//! ```
//! #![forbid(unsafe_code)]
//! use checkpost_filter_abi::{CouldNot, Finding, Host, Kind, LibraryFilter, Mail, Settings, export_filter};
//!
//! struct Large(u64);
//!
//! impl LibraryFilter for Large {
//!     const NAME: &'static str = "large";
//!     const VERSION: &'static str = "1.0";
//!     const FINDS: &'static [Kind] = &[Kind::Policy];
//!
//!     fn create(settings: &Settings<'_>, _host: &Host<'_>) -> Result<Self, String> {
//!         settings.only(&["above"])?;
//!         let above = settings.text("above").unwrap_or("1000000");
//!         above.parse().map(Large).map_err(|_| format!("above: not a number of octets: {above:?}"))
//!     }
//!
//!     fn check(&self, mail: &Mail<'_>) -> Result<(), CouldNot> {
//!         if mail.len() > self.0 {
//!             mail.report(&Finding::new(Kind::Policy, "Large.Mail").with_class("size"));
//!         }
//!         Ok(())
//!     }
//! }
//!
//! export_filter!(Large);
//! # fn main() {}
//! ```

mod author;
mod export;
mod mail;
pub mod raw;

pub use author::{CouldNot, Finding, Kind, Level, LibraryFilter, Reason};
pub use export::describe;
pub use mail::{Host, Mail, Reader, Settings, Taken};
