//! The SMTP and LMTP proxy: in front of any mail server, around a Postfix, or as a checker that many
//! hosts share by callback. It owns no mail: a content is answered only after the next hop answered.
//!
//! It knows no MTA's quirks: those are in the plug-ins, which give it other [`Defaults`].

pub mod config;
pub mod route;
pub mod session;
mod way;

pub use config::{Defaults, Settings, Written};
pub use route::Protocol;
pub use session::{Peer, Proxy};
pub use way::{SMTP, SmtpWay, WayError, kinds};
