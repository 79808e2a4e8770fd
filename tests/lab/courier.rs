//! The Courier recipe's settings: whose mail is filtered, the size of a control file, the aliases.
//! The filter itself is put in by a test, as an administrator would; see the plug-in.

use crate::{Queue, Recipe};

/// A Courier for the domain `example.test` with users `alice` and `bob`, delivering to `~/Maildir`. It
/// listens on 127.0.0.1:25. A mailbox must not be removed: Courier makes none.
#[derive(Debug, Clone, Default)]
pub struct Courier {
    modules: String,
    batch_size: String,
    aliases: String,
}

impl Courier {
    /// Debian's settings: only mail by SMTP is filtered, and there is no filter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Filters the mail of these sources, as `esmtp local` (`enablefiltering`).
    #[must_use]
    pub fn filtered(mut self, modules: &str) -> Self {
        self.modules = format!("{modules}\n");
        self
    }

    /// Puts at most `recipients` into one control file.
    #[must_use]
    pub fn batch_size(mut self, recipients: usize) -> Self {
        self.batch_size = format!("{recipients}\n");
        self
    }

    /// Adds a line to the aliases, as `staff: alice, bob`.
    #[must_use]
    pub fn alias(mut self, line: &str) -> Self {
        self.aliases.push_str(line);
        self.aliases.push('\n');
        self
    }
}

impl Recipe for Courier {
    fn name(&self) -> &'static str {
        "courier"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/courier.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![
            ("modules", self.modules.clone()),
            ("batchsize", self.batch_size.clone()),
            ("aliases", self.aliases.clone()),
        ]
    }

    fn queue(&self) -> Queue {
        // One control file for each mail, or several if it has many recipients.
        Queue { waiting: &["/var/lib/courier/msgs/C"], ..Queue::default() }
    }
}
