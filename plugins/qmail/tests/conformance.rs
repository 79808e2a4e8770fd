//! The conformance battery over qmail-queue's interface: envelope and message in, runs of the original or an exit code
//! out, with the daemon's own session between.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::conformance::{HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, Told, Way, run};
use checkpost_check::{Settings, Written};
use checkpost_core::config::{Document, Located, Problems};
use checkpost_core::{Abilities, Mail, Verdict};
use checkpost_qmail::QUEUE;
use checkpost_qmail::map::{Convention, Plan, can, plan};
use checkpost_qmail::session::{Envelope, EnvelopeReader};
use checkpost_wire::check::Request;

const TEXT: Convention = Convention { descriptor: 6, code: 82, most: 255 };

struct Qmail;

fn settings(max_size: u64) -> Settings {
    let text = format!("[[way]]\nkind = \"qmail-queue\"\nlisten = \"unix:/run/x.sock\"\nmax_size = \"{max_size} B\"\n");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("x.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap();
    Settings::new(&written.remove(0).value).unwrap()
}

/// The envelope as it came through a pipe; `None`: it was taken back.
fn envelope(bytes: &[u8], slicing: Slicing) -> Option<Envelope> {
    let mut reader = EnvelopeReader::default();
    let size = match slicing {
        Slicing::Whole => bytes.len(),
        Slicing::Bytes => 1,
        Slicing::Seeded(_) => 5,
    };
    for part in bytes.chunks(size) {
        reader.feed(part).unwrap();
    }
    reader.finish().ok()
}

impl Way for Qmail {
    fn name(&self) -> String {
        "qmail-queue".into()
    }

    fn abilities(&self) -> Abilities {
        QUEUE.abilities
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let judge = move |mail: &Mail| -> Verdict {
            let content = mail.content.as_slice().unwrap();
            known.iter().find(|known| known.content == content).expect("the content is as it was sent").verdict.clone()
        };
        let mut stage = Stage::new(QUEUE.abilities, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            let mut sent = format!("F{}\0", mail.sender);
            mail.recipients.iter().for_each(|to| sent.push_str(&format!("T{to}\0")));
            if scene.abort != Some(index) {
                sent.push('\0');
            }
            let Some(envelope) = envelope(sent.as_bytes(), slicing) else {
                assert_eq!(scene.abort, Some(index));
                played.told.push(vec![Told::Nothing; mail.recipients.len()]);
                break;
            };
            let request = Request {
                sender: envelope.sender().to_vec(),
                recipients: envelope.recipients().map(<[u8]>::to_vec).collect(),
                can: can(false),
                ..Request::default()
            };
            let (settings, content) = (settings(scene.max_size), mail.content.clone());
            let asked = checkpost_check::conformance::ask(&mut stage, settings, QUEUE.abilities, &request, content);
            let (answer, contents) = asked.expect("the daemon answers");
            let told = match plan(&answer, &envelope, Some(TEXT), false) {
                Plan::Refuse(why) => panic!("{why}: {answer:?}"),
                Plan::End(exit, text) => {
                    let text = text.map(|text| String::from_utf8(text).unwrap());
                    match (exit.code(), text.as_deref().map(|text| text.split_at(1))) {
                        (0, None) => Told::Accepted,
                        (82, Some(("D", text))) => Told::Rejected(text.into()),
                        (82, Some(("Z", text))) => Told::Deferred(text.into()),
                        other => panic!("{other:?}"),
                    }
                }
                Plan::Hand(runs) => {
                    played.handed_on.extend(runs.iter().map(|run| {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        HandedOn {
                            sender: text(run.envelope.sender()),
                            recipients: run.envelope.recipients().map(text).collect(),
                            content: contents[run.content].clone().unwrap_or_else(|| mail.content.clone()),
                            held: false,
                        }
                    }));
                    Told::Accepted
                }
            };
            played.told.push(vec![told; mail.recipients.len()]);
        }
        played
    }
}

#[test]
fn qmail_queue() {
    run(&Qmail);
}
