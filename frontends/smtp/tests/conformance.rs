//! The conformance battery over the proxy: SMTP and LMTP on both sides.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use checkpost_adapter::conformance::{HandedOn, Played, Point, Scene, Slicing, TestMail, Told, Way, run};
use checkpost_core::{Abilities, Mail, Outcome};
use checkpost_smtp::Protocol;
use common::client::{Mailer, Manner};
use common::{Setup, abilities};

struct Proxied {
    client: Protocol,
    hop: Protocol,
    hop_pipelining: bool,
    hop_chunking: bool,
}

fn word(protocol: Protocol) -> &'static str {
    if protocol == Protocol::Lmtp { "lmtp" } else { "smtp" }
}

impl Proxied {
    /// SMTP has one answer for a mail, so towards an LMTP hop each recipient gets a mail of its own.
    fn splits(&self) -> bool {
        self.client == Protocol::Smtp && self.hop == Protocol::Lmtp
    }
}

impl Way for Proxied {
    fn name(&self) -> String {
        let Self { hop_pipelining, hop_chunking, .. } = self;
        let names = (word(self.client), word(self.hop));
        format!("{} to {} (pipelining {hop_pipelining}, chunking {hop_chunking})", names.0, names.1)
    }

    fn abilities(&self) -> Abilities {
        abilities(if self.splits() { Protocol::Lmtp } else { self.client })
    }

    fn points(&self) -> Vec<Point> {
        use Point::{Banner, Connect, Content, Data, Final, Hello, Recipient, Reset, Sender};
        let mut points = vec![Connect, Banner, Hello, Sender, Recipient, Final, Reset];
        if !self.hop_chunking {
            points.extend([Data, Content]);
        }
        points
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let lines = format!(
            "protocol = \"{}\"\nhop_protocol = \"{}\"\nmax_size = \"{} B\"\n",
            word(self.client),
            word(self.hop),
            scene.max_size
        );
        let known = scene.mails.clone();
        let outcomes = move |mail: &Mail| -> Vec<Outcome> {
            let content = mail.content.as_slice().unwrap();
            let known = known.iter().find(|known| known.content == content).expect("the content is as it was sent");
            let index = |to: &str| known.recipients.iter().position(|recipient| recipient == to).unwrap();
            mail.envelope.recipients.iter().map(|to| known.verdict.outcomes[index(to.as_str())].clone()).collect()
        };
        let setup = Setup::new(&lines).sliced(slicing).judged(outcomes).hop(|hop| {
            hop.trouble = scene.trouble;
            if !self.hop_pipelining {
                hop.without("PIPELINING");
            }
            if self.hop_chunking {
                hop.with("CHUNKING");
            }
        });
        let mut mails = scene.mails.clone();
        if self.splits() {
            let single = |mail: TestMail| {
                let recipients = mail.recipients.clone();
                recipients.into_iter().map(move |to| TestMail { recipients: vec![to], ..mail.clone() })
            };
            mails = mails.into_iter().flat_map(single).collect();
        }
        let manner = match slicing {
            Slicing::Whole => Manner::Pipelined,
            Slicing::Bytes => Manner::Patient,
            Slicing::Seeded(_) => Manner::Chunks,
        };
        let (client, told) = Mailer::new(self.client == Protocol::Lmtp, manner, mails, scene.abort);
        let mut theatre = setup.theatre();
        theatre.play(client);
        let mut told =
            Arc::try_unwrap(told).map_or_else(|told| told.lock().unwrap().clone(), |told| told.into_inner().unwrap());
        let log = theatre.hop.lock().unwrap();
        let mut handed_on = log.mails.clone();
        if self.splits() {
            told = joined(told, scene);
            handed_on = merged(&handed_on);
        }
        Played { told, handed_on }
    }
}

/// The answers for mails of one recipient each, by the mails that they were made of.
fn joined(told: Vec<Vec<Told>>, scene: &Scene) -> Vec<Vec<Told>> {
    let mut single = told.into_iter().flatten();
    let counts = scene.mails.iter().map(|mail| mail.recipients.len());
    counts.map(|count| single.by_ref().take(count).collect()).filter(|told: &Vec<_>| !told.is_empty()).collect()
}

/// Neighbours with the same content count as one mail for all their recipients.
fn merged(handed_on: &[HandedOn]) -> Vec<HandedOn> {
    let mut merged: Vec<HandedOn> = Vec::new();
    for mail in handed_on {
        match merged.last_mut() {
            Some(last) if last.content == mail.content && !last.recipients.contains(&mail.recipients[0]) => {
                last.recipients.extend(mail.recipients.clone());
            }
            _ => merged.push(mail.clone()),
        }
    }
    merged
}

fn check(client: Protocol, hop: Protocol) {
    for (hop_pipelining, hop_chunking) in [(true, false), (false, false), (true, true)] {
        run(&Proxied { client, hop, hop_pipelining, hop_chunking });
    }
}

#[test]
fn smtp_to_smtp() {
    check(Protocol::Smtp, Protocol::Smtp);
}

#[test]
fn smtp_to_lmtp() {
    check(Protocol::Smtp, Protocol::Lmtp);
}

#[test]
fn lmtp_to_smtp() {
    check(Protocol::Lmtp, Protocol::Smtp);
}

#[test]
fn lmtp_to_lmtp() {
    check(Protocol::Lmtp, Protocol::Lmtp);
}
