//! The filters that come with the engine.

pub mod builtin;
pub mod clamd;
