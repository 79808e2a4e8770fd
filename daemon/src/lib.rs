//! The daemon: configuration, the lists of ways in and filters, and their hosting in one process.
//!
//! It knows no protocol and no MTA: those are in the ways it lists in [`ways`].

pub mod admin;
pub mod filters;
pub mod intake;
mod listeners;
pub mod logging;
mod notify;
pub mod privileges;
pub mod report;
pub mod run;
pub mod settings;
pub mod state;
pub mod ways;

pub use settings::Settings;
pub use state::{Loaded, State};
