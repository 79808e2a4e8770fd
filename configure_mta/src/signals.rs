//! Signals that want the program to end. They do so at once, as always, save while something is half done: then they are
//! noted, and it is put back, or put in order, first.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// SIGINT, SIGTERM and SIGHUP.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    idle: Arc<AtomicBool>,
    came: Arc<AtomicBool>,
}

impl Signals {
    /// From now on they are watched. Once in a process.
    ///
    /// # Errors
    /// When the system does not let us.
    pub fn watch() -> io::Result<Self> {
        let signals = Self { idle: Arc::new(AtomicBool::new(true)), came: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&signals.idle))?;
            signal_hook::flag::register(signal, Arc::clone(&signals.came))?;
        }
        Ok(signals)
    }

    /// While this is kept, a signal is only noted.
    pub fn hold(&self) -> Held<'_> {
        self.idle.store(false, Ordering::SeqCst);
        Held { signals: self }
    }

    /// Did one come while it was held?
    ///
    /// # Errors
    /// If so.
    pub fn none_came(&self) -> io::Result<()> {
        if self.came.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted by a signal"));
        }
        Ok(())
    }
}

/// Something is half done.
#[derive(Debug)]
pub struct Held<'a> {
    signals: &'a Signals,
}

impl Held<'_> {
    /// Set by a signal.
    pub fn came(&self) -> &AtomicBool {
        &self.signals.came
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.signals.idle.store(true, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_is_held_is_noted() {
        let signals = Signals::watch().unwrap();
        let held = signals.hold();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(held.came().load(Ordering::SeqCst));
        drop(held);
        assert_eq!(signals.none_came().unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
