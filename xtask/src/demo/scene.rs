//! The demo's set-up: a next hop, and the daemon in front of it. Not what is played in it.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use checkpost_tests::{Daemon, Postfix, Root, Sink, Skip, StartError};

/// Where the daemon listens in a root, which has all ports to itself.
const PORT: u16 = 10025;

/// The mail server behind Checkpost.
pub(crate) enum Hop {
    Postfix(Root),
    Sink(Sink),
}

/// Checkpost in front of it.
pub(crate) struct Scene {
    // Before the hop: fields are dropped in this order.
    daemon: Daemon,
    hop: Hop,
    port: u16,
}

impl Hop {
    /// A real Postfix; the inner error says why there cannot be one.
    pub(crate) fn postfix() -> anyhow::Result<Result<Self, Skip>> {
        match Root::start(&Postfix::new()) {
            Ok(root) => Ok(Ok(Self::Postfix(root))),
            Err(StartError::Unavailable(why)) => Ok(Err(why)),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn sink() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
        Ok(Self::Sink(Sink::start(listener)?))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Postfix(_) => "a real Postfix",
            Self::Sink(_) => "the built-in sink",
        }
    }

    fn connect(&self, port: u16) -> io::Result<TcpStream> {
        match self {
            Self::Postfix(root) => root.connect(port),
            Self::Sink(_) => TcpStream::connect(("127.0.0.1", port)),
        }
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        match self {
            Self::Postfix(root) => root.mailbox(user),
            Self::Sink(sink) => sink.mailbox(user),
        }
    }
}

impl Scene {
    pub(crate) fn start(daemon: &Path, hop: Hop) -> anyhow::Result<Self> {
        let (command, port, next_hop) = match &hop {
            Hop::Postfix(root) => (root.net_command(daemon), PORT, "127.0.0.1:25".to_owned()),
            Hop::Sink(sink) => {
                // Free a moment ago; the daemon says so if somebody else was quicker.
                let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
                (Command::new(daemon), free, sink.address().to_string())
            }
        };
        let config = |folder: &Path| config(folder, port, &next_hop);
        let daemon = Daemon::start(command, config, || hop.connect(port))?;
        Ok(Self { daemon, hop, port })
    }

    /// A connection to Checkpost.
    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        self.hop.connect(self.port)
    }

    /// The mails that the next hop has delivered to `user`.
    pub(crate) fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.hop.mailbox(user)
    }

    /// Waits until `user` has `n` mails and nothing more is under way.
    pub(crate) fn settle(&self, user: &str, n: usize, timeout: Duration) -> anyhow::Result<()> {
        let (mails, idle) = match &self.hop {
            Hop::Postfix(root) => (root.wait_mailbox(user, n, timeout), root.wait_queue_empty(timeout)),
            Hop::Sink(sink) => (sink.wait_mailbox(user, n, timeout), true),
        };
        if !idle {
            bail!("mail is left in the queue of the next hop");
        }
        if mails.len() < n {
            bail!("{} mails reached {user}, {n} should have; checkpostd said:\n{}", mails.len(), self.daemon.log());
        }
        Ok(())
    }

    /// Ends the daemon, then the next hop; returns what the daemon logged.
    pub(crate) fn end(self) -> anyhow::Result<String> {
        let log = self.daemon.log();
        let status = self.daemon.stop()?;
        if !status.success() {
            bail!("checkpostd did not end cleanly ({status}):\n{log}");
        }
        Ok(log)
    }
}

/// The daemon's whole configuration: one way in, the built-in filters as they come, three rules.
fn config(folder: &Path, port: u16, next_hop: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
[[way]]
kind = "smtp-proxy"
listen = "127.0.0.1:{port}"
next_hop = "{next_hop}"

[daemon]
state = "{folder}/state"

[[rule]]
name = "no malware"
when = {{ finding = "malware" }}
then = {{ reject = "5.7.1 Message contains malware ({{name}})" }}

[[rule]]
name = "no spam"
when = {{ score = ">= 15" }}
then = {{ reject = "5.7.1 Message looks like spam" }}

[[rule]]
name = "Bob gets nothing from outside"
when = {{ recipient = "bob@example.test" }}
then = {{ discard = true }}
"#
    )
}
