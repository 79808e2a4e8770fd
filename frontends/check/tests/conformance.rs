//! The conformance battery over the check protocol: a client that answers each recipient on its own and one that gives one
//! answer, with descriptors and with octets.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::{Played, Point, Scene, Slicing, Way, run};
use checkpost_check::CHECK;
use checkpost_core::abilities::Replies;
use checkpost_core::{Abilities, Mail, Outcome};
use checkpost_wire::check::Can;
use common::Setup;
use common::client::Client;

struct Asking {
    by_recipient: bool,
    inline: bool,
}

impl Asking {
    fn can(&self) -> Can {
        if self.by_recipient { Can::all() } else { Can::all() - Can::REPLY_PER_RECIPIENT - Can::CONTENTS_BY_RECIPIENT }
    }
}

impl Way for Asking {
    fn name(&self) -> String {
        let answers = if self.by_recipient { "an answer for each" } else { "one answer for all" };
        format!("check, {answers}, {}", if self.inline { "octets" } else { "descriptors" })
    }

    fn abilities(&self) -> Abilities {
        if self.by_recipient {
            CHECK.abilities
        } else {
            Abilities { replies: Replies::PerMessage, contents_by_recipient: false, ..CHECK.abilities }
        }
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let outcomes = move |mail: &Mail| -> Vec<Outcome> {
            let content = mail.content.as_slice().unwrap();
            let known = known.iter().find(|known| known.content == content).expect("the content is as it was sent");
            known.verdict.outcomes.clone()
        };
        let setup = Setup::new(&format!("max_size = \"{} B\"\n", scene.max_size)).judged(outcomes).sliced(slicing);
        let client = Client::new(scene.mails.clone(), self.can(), self.inline, scene.abort);
        setup.play(&client);
        client.played()
    }
}

#[test]
fn an_answer_for_each_with_descriptors() {
    run(&Asking { by_recipient: true, inline: false });
}

#[test]
fn an_answer_for_each_with_octets() {
    run(&Asking { by_recipient: true, inline: true });
}

#[test]
fn one_answer_with_descriptors() {
    run(&Asking { by_recipient: false, inline: false });
}

#[test]
fn one_answer_with_octets() {
    run(&Asking { by_recipient: false, inline: true });
}
