//! The mock mail server as a server of the cases.

use std::path::PathBuf;

use anyhow::Result;
use checkpost_tests::mock_mta::{MockMta, Offer, Peer, Style, Wire};

use crate::case::Prepared;
use crate::{Heard, Server};

pub(crate) struct Mock {
    mta: MockMta,
    style: Style,
    abilities: &'static [&'static str],
    folder: tempfile::TempDir,
}

impl Mock {
    pub(crate) fn new(style: Style, offer: Offer, abilities: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mta = MockMta::new(style, offer).alias("staff", &["alice", "bob"]);
        Self { mta, style, abilities, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("milter.sock")
    }
}

impl Server for Mock {
    fn kind(&self) -> &'static str {
        match self.style {
            Style::Postfix => "postfix-milter",
            Style::Sendmail => "sendmail-milter",
        }
    }

    fn listen(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    fn wire(&self) -> std::io::Result<Wire> {
        Wire::unix(self.socket())
    }

    fn abilities(&self) -> &'static [&'static str] {
        self.abilities
    }

    fn session(&mut self, helo: &str, mails: &[Prepared]) -> Result<Heard> {
        let peer = Peer { helo: helo.to_owned(), ..Peer::default() };
        let mut client = self.mta.client(Wire::unix(self.folder.path().join("milter.sock"))?, &peer)?;
        let mut heard = Heard { greeting: client.greeting.clone(), hello: client.hello.clone(), mails: Vec::new() };
        for mail in mails {
            heard.mails.push(if mail.rset {
                let told = client.envelope(&mail.from, &mail.to())?;
                client.reset()?;
                told
            } else {
                client.mail(&mail.from, &mail.to(), &mail.content)?
            });
        }
        client.quit()?;
        Ok(heard)
    }

    fn submit(&mut self, mail: &Prepared) -> Result<Option<bool>> {
        let told = self.mta.submit(Wire::unix(self.socket())?, &mail.from, &mail.to(), &mail.content)?;
        if !told.accepted() {
            self.mta.bounce(&mail.from);
        }
        Ok((self.style == Style::Sendmail).then_some(told.accepted()))
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn mailbox(&self, user: &str) -> Vec<Vec<u8>> {
        self.mta.mailbox(user)
    }

    fn held(&self) -> usize {
        self.mta.held_len()
    }

    fn release(&mut self) -> Result<()> {
        self.mta.release();
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        self.mta.clear();
        Ok(())
    }

    fn log(&self) -> String {
        String::new()
    }
}
