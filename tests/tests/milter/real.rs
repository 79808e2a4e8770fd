//! Real Postfix and Sendmail as servers of the cases.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use checkpost_tests::{Client, Root, Told, mails};

use crate::case::Prepared;
use crate::{ALL, Heard, Server};

const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Postfix(pub(crate) Root);

pub(crate) struct Sendmail(pub(crate) Root);

impl Server for Postfix {
    fn kind(&self) -> &'static str {
        "postfix-milter"
    }

    fn release(&mut self) -> Result<()> {
        run(&self.0, &["postsuper", "-H", "ALL"])?;
        run(&self.0, &["postqueue", "-f"])
    }

    fn clear(&mut self) -> Result<()> {
        self.0.clear_mailboxes()?;
        if self.0.queue_len() > 0 {
            run(&self.0, &["postsuper", "-d", "ALL"])?;
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        socket(&self.0)
    }

    fn abilities(&self) -> &'static [&'static str] {
        ALL
    }

    fn session(&mut self, helo: &str, mails: &[Prepared]) -> Result<Heard> {
        session(&self.0, helo, mails)
    }

    fn submit(&mut self, mail: &Prepared) -> Result<Option<bool>> {
        let output = self.0.submit(&mail.from, &mail.to(), &mails::as_stored(&mail.content))?;
        ensure!(output.status.success(), "sendmail(1): {output:?}");
        Ok(None)
    }

    fn settle(&mut self) -> Result<()> {
        settle(&self.0)
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.0.mailbox(user)
    }

    fn held(&self) -> usize {
        self.0.held_len()
    }

    fn log(&self) -> String {
        self.0.log()
    }
}

impl Server for Sendmail {
    fn kind(&self) -> &'static str {
        "sendmail-milter"
    }

    fn release(&mut self) -> Result<()> {
        run(&self.0, &["sendmail", "-qQ", "-Q"])?;
        run(&self.0, &["sendmail", "-q"])
    }

    fn clear(&mut self) -> Result<()> {
        self.0.clear_mailboxes()?;
        for folder in ["mqueue", "mqueue-client"] {
            for entry in std::fs::read_dir(self.0.path(&format!("/var/spool/{folder}")))?.flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        socket(&self.0)
    }

    fn abilities(&self) -> &'static [&'static str] {
        ALL
    }

    fn session(&mut self, helo: &str, mails: &[Prepared]) -> Result<Heard> {
        session(&self.0, helo, mails)
    }

    fn submit(&mut self, mail: &Prepared) -> Result<Option<bool>> {
        // Its MSP waits for the MTA's word.
        let output = self.0.submit(&mail.from, &mail.to(), &mails::as_stored(&mail.content))?;
        Ok(Some(output.status.success()))
    }

    fn settle(&mut self) -> Result<()> {
        settle(&self.0)
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.0.mailbox(user)
    }

    fn held(&self) -> usize {
        self.0.held_len()
    }

    fn log(&self) -> String {
        self.0.log()
    }
}

pub(crate) fn socket(root: &Root) -> PathBuf {
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
