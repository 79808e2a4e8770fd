//! Real Postfix and Sendmail as servers of the cases.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use checkpost_tests::mock_mta::Wire;
use checkpost_tests::{Client, Root, Told, mails, program};

use crate::case::Prepared;
use crate::{ALL, Heard, Server};

const SOON: Duration = Duration::from_secs(60);

/// The port of a filter by TCP.
const PORT: u16 = 12768;

/// A mail server in its root, with a filter by a Unix socket or by TCP.
pub(crate) struct Real<M> {
    pub(crate) root: Root,
    pub(crate) tcp: bool,
    pub(crate) mta: M,
}

/// What only one of them does so.
pub(crate) trait Mta {
    const KIND: &'static str;

    /// Does sendmail(1) wait for the filter's word?
    const WAITS: bool;

    fn held_list(&self, _root: &Root) -> Result<Option<String>> {
        Ok(None)
    }

    fn release(&self, root: &Root) -> Result<()>;

    fn clear_queue(&self, root: &Root) -> Result<()>;
}

pub(crate) struct Postfix;

impl Mta for Postfix {
    const KIND: &'static str = "postfix-milter";
    const WAITS: bool = false;

    fn release(&self, root: &Root) -> Result<()> {
        run(root, &["postsuper", "-H", "ALL"])?;
        run(root, &["postqueue", "-f"])
    }

    fn clear_queue(&self, root: &Root) -> Result<()> {
        if root.queue_len() > 0 {
            run(root, &["postsuper", "-d", "ALL"])?;
        }
        Ok(())
    }
}

pub(crate) struct Sendmail;

impl Mta for Sendmail {
    const KIND: &'static str = "sendmail-milter";
    const WAITS: bool = true;

    fn held_list(&self, root: &Root) -> Result<Option<String>> {
        let output = root.command("mailq").arg("-qQ").output()?;
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn release(&self, root: &Root) -> Result<()> {
        run(root, &["sendmail", "-qQ", "-Q"])?;
        run(root, &["sendmail", "-q"])
    }

    fn clear_queue(&self, root: &Root) -> Result<()> {
        for folder in ["mqueue", "mqueue-client"] {
            for entry in std::fs::read_dir(root.path(&format!("/var/spool/{folder}")))?.flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl<M: Mta> Server for Real<M> {
    fn kind(&self) -> &'static str {
        M::KIND
    }

    fn listen(&self) -> String {
        if self.tcp { format!("127.0.0.1:{PORT}") } else { format!("unix:{}", socket(&self.root).display()) }
    }

    fn wire(&self) -> io::Result<Wire> {
        if self.tcp { Wire::tcp(self.root.connect(PORT)?) } else { Wire::unix(socket(&self.root)) }
    }

    fn daemon(&self) -> Command {
        self.root.net_command(program("checkpostd"))
    }

    fn abilities(&self) -> &'static [&'static str] {
        ALL
    }

    fn session(&mut self, helo: &str, mails: &[Prepared]) -> Result<Heard> {
        session(&self.root, helo, mails)
    }

    fn submit(&mut self, mail: &Prepared) -> Result<Option<bool>> {
        let output = self.root.submit(&mail.from, &mail.to(), &mails::as_stored(&mail.content))?;
        ensure!(M::WAITS || output.status.success(), "sendmail(1): {output:?}");
        Ok(M::WAITS.then(|| output.status.success()))
    }

    fn settle(&mut self) -> Result<()> {
        ensure!(self.root.wait_delivered(SOON), "mail is stuck in the queue");
        Ok(())
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.root.mailbox(user)
    }

    fn held(&self) -> usize {
        self.root.held_len()
    }

    fn held_list(&self) -> Result<Option<String>> {
        self.mta.held_list(&self.root)
    }

    fn release(&mut self) -> Result<()> {
        self.mta.release(&self.root)
    }

    fn clear(&mut self) -> Result<()> {
        self.root.clear_mailboxes()?;
        self.mta.clear_queue(&self.root)
    }

    fn log(&self) -> String {
        self.root.log()
    }
}

fn socket(root: &Root) -> PathBuf {
    root.shared().join("milter/milter.sock")
}

fn session(root: &Root, helo: &str, mails: &[Prepared]) -> Result<Heard> {
    let mut client = Client::open(root.connect(25)?, helo)?;
    let mut heard = Heard { greeting: client.greeting.clone(), hello: client.hello.clone(), mails: Vec::new() };
    for mail in mails {
        heard.mails.push(if mail.rset {
            let told = client.envelope(&mail.from, &mail.to())?;
            ensure!(client.ask("RSET")?.is_positive(), "RSET refused");
            told
        } else {
            client.mail(&mail.from, &mail.to(), &mail.content)?
        });
        // A mail that was refused before its content is still there.
        if !heard.mails.last().is_some_and(Told::accepted) {
            client.ask("RSET")?;
        }
    }
    client.quit();
    Ok(heard)
}

fn run(root: &Root, command: &[&str]) -> Result<()> {
    let output = root.command(command[0]).args(&command[1..]).output()?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}
