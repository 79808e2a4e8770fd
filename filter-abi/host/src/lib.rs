//! The host of shared-library filters: loads a library, makes instances, has them look at mails.
//! It knows neither the engine nor its types nor tokio: everything here blocks.
//!
//! It is a crate of its own and no feature of `checkpost-filter-abi`, so that a library never links the loader: features
//! are united over a workspace, crates are not.
//!
//! A library is code in our process. What it *says* is not trusted: every string, number and code is checked, and
//! what breaks the contract makes the mail count as not looked at. What it *does* cannot be checked: it can crash the process
//! or write where it likes. So [`Library::load`] takes only files that nobody but root and our own user could have written; whoever
//! can write those can run code as us anyway. That is why it is no `unsafe` function although foreign code runs.

mod answer;
mod callbacks;
mod descriptor;
mod error;
mod file;
mod instance;
mod library;

pub use answer::{Answer, Failure, Found, Kind};
pub use error::{CreateError, Field, FileError, LoadError};
pub use file::Identity;
pub use instance::{Call, Content, Instance, Level, Log, Origin};
pub use library::Library;
