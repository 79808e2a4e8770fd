//! Exim: its ways in, what each can be told, and their setup recipes as data.
//!
//! See the README for the contracts.

pub mod acl;
pub mod local_scan;
pub mod setup;
pub mod transport;
