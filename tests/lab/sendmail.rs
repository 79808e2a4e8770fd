//! The Sendmail recipe's settings: lines for `sendmail.mc` and for the aliases.
//! What an administrator writes is in the plug-in.

use crate::{Queue, Recipe};

/// A Sendmail for the domain `example.test` with users `alice` and `bob`, delivering to `~/Maildir`.
/// It listens on 127.0.0.1:25 (and on 587); `/usr/sbin/sendmail` submits by way of the MSP.
#[derive(Debug, Clone, Default)]
pub struct Sendmail {
    mc: String,
    aliases: String,
}

impl Sendmail {
    /// Debian's settings, no filter.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds lines to `sendmail.mc`, above those of the mailers.
    #[must_use]
    pub fn mc(mut self, lines: &str) -> Self {
        self.mc.push_str(lines);
        self.mc.push('\n');
        self
    }

    /// Adds a line to the aliases, as `staff: alice, bob`.
    #[must_use]
    pub fn alias(mut self, line: &str) -> Self {
        self.aliases.push_str(line);
        self.aliases.push('\n');
        self
    }

    /// Mail goes through the milter at `socket` (as [`Sendmail::MILTER`] or `inet:12768@127.0.0.1`).
    /// `flags` are further equates, as `F=T, T=C:30s;S:60s;R:5m;E:9m`, or nothing at all.
    #[must_use]
    pub fn milter(self, socket: &str, flags: &str) -> Self {
        let flags = if flags.is_empty() { String::new() } else { format!(", {flags}") };
        self.mc(&format!("INPUT_MAIL_FILTER(`checkpost', `S={socket}{flags}')dnl"))
    }

    /// The socket that is `milter/milter.sock` in the root's shared folder.
    pub const MILTER: &str = "local:/run/checkpost/milter.sock";
}

impl Recipe for Sendmail {
    fn name(&self) -> &'static str {
        "sendmail"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/sendmail.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![("more.mc", self.mc.clone()), ("aliases", self.aliases.clone())]
    }

    fn queue(&self) -> Queue {
        // One control file for each mail; of a quarantined one it begins with h.
        Queue {
            waiting: &["/var/spool/mqueue/qf", "/var/spool/mqueue-client/qf"],
            held: &["/var/spool/mqueue/hf", "/var/spool/mqueue-client/hf"],
            ..Queue::default()
        }
    }
}
