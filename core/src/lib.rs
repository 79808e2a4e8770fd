//! The check engine: what a mail is, what filters find in it, what policy makes of that, and what
//! a way in can do about it.
//!
//! It knows no MTA, no listener and no protocol of a way in; those live in `frontends` and
//! `plugins`. One message passes through here as
//! [`Mail`] → [`Filter`]s → [`Finding`]s → [`policy`] → [`Verdict`] → [`fit()`].

pub mod abilities;
pub mod config;
pub mod content;
pub mod edit;
pub mod engine;
pub mod filter;
pub mod filters;
pub mod finding;
pub mod fit;
pub mod mail;
pub mod policy;
pub mod quarantine;
pub mod reply;
pub mod verdict;

pub use abilities::Abilities;
pub use content::{Content, ContentWriter, Spool};
pub use edit::Edit;
pub use engine::Engine;
pub use filter::{About, Context, Filter, FilterError};
pub use finding::{Finding, Kind};
pub use fit::{Fitted, fit};
pub use mail::{Address, Envelope, Mail, MailId, Origin, OriginClass};
pub use reply::{Deferral, Rejection, Reply};
pub use verdict::{Disposition, Outcome, Verdict};
