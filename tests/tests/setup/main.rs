//! `configure_mta` on real mail servers: from the untouched package to proved filtering, and back. Each in a root of
//! its own, as an administrator would: no file is edited, no program but `configure_mta` is run.

#![allow(clippy::unwrap_used)]

mod check;
mod communigate;
mod dialogue;
mod disk;
mod exim;
mod folder;
mod host;
mod instances;
mod others;
mod postfix;
mod qmail;
mod signals;
mod systemd;
mod zmailer;
