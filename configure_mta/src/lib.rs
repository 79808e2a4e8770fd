//! Sets an MTA up for Checkpost: detect, plan, apply, prove, check, and take it all back. The program is `main.rs` with `program/`; this
//! library is what it is made of, so that tests can end it at every step.
//!
//! It has no MTA's syntax: plug-ins look and describe ([`checkpost_setup::Mta`]), this carries out.

pub mod by_hand;
pub mod compose;
pub mod dialogue;
pub mod engine;
pub mod journal;
pub mod limits;
pub mod machine;
pub mod own;
pub mod prove;
pub mod service;
pub mod show;
pub mod signals;
pub mod tree;
pub mod undo;
