//! The conformance battery over milter: a mail server that offers everything, and an old one.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::{Played, Point, Scene, Slicing, Way, run};
use checkpost_core::{Abilities, Mail, Outcome};
use checkpost_milter::MILTER;
use common::Setup;
use common::mta::{Leaving, Mta, OFFER};

/// Rules that make use of everything, so that everything is asked for.
const ALL_USED: &str = r#"
[[rule]]
name = "uses"
when = { recipient = "nobody@example.invalid", size = "> 1 GiB" }
then = { hold = "x", replace_body = "x", add_recipient = "a@example.org", change_sender = "b@example.org" }
"#;

struct Connected {
    tcp: bool,
}

impl Way for Connected {
    fn name(&self) -> String {
        if self.tcp { "milter over TCP" } else { "milter" }.into()
    }

    fn abilities(&self) -> Abilities {
        MILTER
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
        let leaving = match slicing {
            Slicing::Whole => Leaving::Abort,
            Slicing::Bytes => Leaving::Quit,
            Slicing::Seeded(_) => Leaving::End,
        };
        let (mta, played) = Mta::new(OFFER, scene.mails.clone(), scene.abort, leaving);
        let mut setup = Setup::new(&format!("max_size = \"{} B\"\n", scene.max_size));
        setup.link.tcp = self.tcp;
        setup.rules(ALL_USED).judged(outcomes).sliced(slicing).play(mta);
        played.lock().unwrap().clone()
    }
}

#[test]
fn milter() {
    run(&Connected { tcp: false });
}

#[test]
fn milter_over_tcp() {
    run(&Connected { tcp: true });
}
