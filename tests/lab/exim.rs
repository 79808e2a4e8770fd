//! The Exim recipe's settings: entries of Debian's `update-exim4.conf.conf`, files below `/etc/exim4`, the
//! aliases. What an administrator writes is in the plug-in.

use std::fmt::Write as _;
use std::io;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::{Queue, Recipe, Root};

/// An Exim (Debian's exim4-daemon-heavy) for the domain `example.test` with users `alice` and `bob`, delivering
/// to `~/Maildir`. It listens on 127.0.0.1:25. The configuration is the package's, in one file
/// (`exim4.conf.template`) or, after [`Exim::split`], in `conf.d`.
///
/// It delivers at once what it takes, and starts a queue runner every 30 minutes, as Debian has it: a mail that
/// was put off stays until [`Exim::run_queue`].
#[derive(Debug, Clone, Default)]
pub struct Exim {
    update: String,
    files: String,
    aliases: String,
}

impl Exim {
    /// Debian's settings, in the one file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Debian's settings, in `conf.d`.
    #[must_use]
    pub fn split(self) -> Self {
        self.update("dc_use_split_config", "true")
    }

    /// Sets an entry of `update-exim4.conf.conf`, as `dc_local_interfaces` to `127.0.0.1.25 ; 127.0.0.1.10026`.
    #[must_use]
    pub fn update(mut self, name: &str, value: &str) -> Self {
        writeln!(self.update, "{name}='{value}'").expect("a string takes all");
        self
    }

    /// Writes a file before the daemon starts: `conf.d/router/050_checkpost`, relative to `/etc/exim4`.
    #[must_use]
    pub fn file(mut self, name: &str, content: &str) -> Self {
        let (name, content) = (quoted(&format!("/etc/exim4/{name}")), quoted(content));
        writeln!(self.files, "mkdir -p \"$(dirname {name})\"; printf %s {content} >{name}")
            .expect("a string takes all");
        self
    }

    /// Adds lines to the macros and main options (`exim4.conf.localmacros`, or the same in `conf.d/main`). They are
    /// read before Debian's own.
    #[must_use]
    pub fn main(self, lines: &str) -> Self {
        // Whichever of the two layouts is in use, one of the files is read.
        self.append("exim4.conf.localmacros", lines).append("conf.d/main/000_localmacros", lines)
    }

    /// Adds a line to the aliases, as `staff: alice, bob`.
    #[must_use]
    pub fn alias(mut self, line: &str) -> Self {
        self.aliases.push_str(line);
        self.aliases.push('\n');
        self
    }

    /// Changes a file of `/etc/exim4` before the daemon starts: `lines` are put in below the first line that is
    /// `after`, for example `begin routers` in `exim4.conf.template`.
    #[must_use]
    pub fn insert(mut self, name: &str, after: &str, lines: &str) -> Self {
        let name = quoted(&format!("/etc/exim4/{name}"));
        let (after, lines) = (quoted(after), quoted(lines));
        writeln!(
            self.files,
            "after={after} lines={lines} awk '{{ print }} $0 == ENVIRON[\"after\"] && !done {{ printf \"%s\", \
             ENVIRON[\"lines\"]; done = 1 }} END {{ exit !done }}' {name} >/tmp/new; cat /tmp/new >{name}"
        )
        .expect("a string takes all");
        self
    }

    /// Makes the configuration anew from `/etc/exim4`, lets Exim check it, and starts the daemon anew. It listens when
    /// this returns.
    ///
    /// # Errors
    /// What the command said, if the configuration was not taken. The old daemon may be gone then.
    pub fn restart(root: &Root) -> io::Result<()> {
        const SCRIPT: &str = "update-exim4.conf && exim4 -bV >/dev/null && service exim4 restart";
        let output = root.command("sh").args(["-ec", SCRIPT]).output()?;
        if !output.status.success() {
            return Err(io::Error::other(said(&output)));
        }
        // The script returns before the daemon has bound its sockets, which it does all at once.
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match root.connect(25) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Tries to deliver everything, whatever the retry times say: `exim4 -qf`. It returns when all was tried.
    ///
    /// # Errors
    /// What the command said.
    pub fn run_queue(root: &Root) -> io::Result<()> {
        let output = root.command("exim4").arg("-qf").output()?;
        if output.status.success() { Ok(()) } else { Err(io::Error::other(said(&output))) }
    }

    fn append(mut self, name: &str, lines: &str) -> Self {
        let (name, lines) = (quoted(&format!("/etc/exim4/{name}")), quoted(&format!("{}\n", lines.trim_end())));
        writeln!(self.files, "printf %s {lines} >>{name}").expect("a string takes all");
        self
    }
}

impl Recipe for Exim {
    fn name(&self) -> &'static str {
        "exim"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/exim.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![("update", self.update.clone()), ("files.sh", self.files.clone()), ("aliases", self.aliases.clone())]
    }

    fn queue(&self) -> Queue {
        // A header file for each mail; a frozen one says so in a line of its own (spool format, spec.txt).
        Queue { waiting: &["/var/spool/exim4/input/*-H"], held_mark: Some("-frozen "), ..Queue::default() }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn said(output: &Output) -> String {
    format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
