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

pub(crate) struct Postfix {
    pub(crate) root: Root,
    pub(crate) tcp: bool,
}

pub(crate) struct Sendmail {
    pub(crate) root: Root,
    pub(crate) tcp: bool,
}

impl Server for Postfix {
    fn kind(&self) -> &'static str {
        "postfix-milter"
    }

    fn release(&mut self) -> Result<()> {
        run(&self.root, &["postsuper", "-H", "ALL"])?;
        run(&self.root, &["postqueue", "-f"])
    }

    fn clear(&mut self) -> Result<()> {
        self.root.clear_mailboxes()?;
        if self.root.queue_len() > 0 {
            run(&self.root, &["postsuper", "-d", "ALL"])?;
        }
        Ok(())
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
        ensure!(output.status.success(), "sendmail(1): {output:?}");
        Ok(None)
    }

    fn settle(&mut self) -> Result<()> {
        settle(&self.root)
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.root.mailbox(user)
    }

    fn held(&self) -> usize {
        self.root.held_len()
    }

    fn log(&self) -> String {
        self.root.log()
    }
}

impl Server for Sendmail {
    fn kind(&self) -> &'static str {
        "sendmail-milter"
    }

    fn held_list(&self) -> Result<Option<String>> {
        let output = self.root.command("mailq").arg("-qQ").output()?;
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    fn release(&mut self) -> Result<()> {
        run(&self.root, &["sendmail", "-qQ", "-Q"])?;
        run(&self.root, &["sendmail", "-q"])
    }

    fn clear(&mut self) -> Result<()> {
        self.root.clear_mailboxes()?;
        for folder in ["mqueue", "mqueue-client"] {
            for entry in std::fs::read_dir(self.root.path(&format!("/var/spool/{folder}")))?.flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
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
        // Its MSP waits for the MTA's word.
        let output = self.root.submit(&mail.from, &mail.to(), &mails::as_stored(&mail.content))?;
        Ok(Some(output.status.success()))
    }

    fn settle(&mut self) -> Result<()> {
        settle(&self.root)
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.root.mailbox(user)
    }

    fn held(&self) -> usize {
        self.root.held_len()
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

fn settle(root: &Root) -> Result<()> {
    ensure!(root.wait_delivered(SOON), "mail is stuck in the queue");
    Ok(())
}

fn run(root: &Root, command: &[&str]) -> Result<()> {
    let output = root.command(command[0]).args(&command[1..]).output()?;
    ensure!(output.status.success(), "{command:?}: {output:?}");
    Ok(())
}
