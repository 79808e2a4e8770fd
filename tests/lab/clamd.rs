//! The clamd recipe's settings: one signature of our own instead of the real data base, which takes
//! a gigabyte and the network.

use crate::{Recipe, mails};

/// A clamd that knows EICAR as `Lab.Eicar-Test-Signature.UNOFFICIAL`. Its socket is `clamd.sock` in
/// [`crate::Root::shared`], its TCP port 127.0.0.1:3310.
#[derive(Debug, Clone, Default)]
pub struct Clamd {
    settings: String,
}

impl Clamd {
    /// Debian's limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line to `clamd.conf`, for example `StreamMaxLength 1M`.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.settings.push_str(line);
        self.settings.push('\n');
        self
    }
}

impl Recipe for Clamd {
    fn name(&self) -> &'static str {
        "clamd"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/clamd.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        // Extended signature: name, any file type, any offset, the bytes in hexadecimal.
        let bytes: String = mails::eicar().iter().map(|byte| format!("{byte:02x}")).collect();
        vec![("lab.ndb", format!("Lab.Eicar-Test-Signature:0:*:{bytes}\n")), ("clamd.conf", self.settings.clone())]
    }
}
