//! The conformance battery over what a pipe transport sends and hears: batched SMTP in, mails handed back or an exit code
//! out, with the daemon's own session between.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::conformance::{HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, Told, Way, run};
use checkpost_check::{Settings, Written};
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_core::config::{Document, Located, Problems};
use checkpost_core::{Abilities, Mail, Verdict};
use checkpost_pipe::Envelope;
use checkpost_pipe::bsmtp::{BsmtpError, Reader};
use checkpost_pipe::map::{Plan, plan, request};

/// As the plug-ins declare them.
const ABILITIES: Abilities = Abilities {
    replies: Replies::PerMessage,
    refusal: Refusal::Bounces,
    edit_headers: true,
    edit_body: true,
    add_recipients: true,
    change_sender: true,
    hold: false,
    discard: true,
    drop_recipients: true,
    contents_by_recipient: true,
};

struct Pipe;

fn settings(max_size: u64) -> Settings {
    let text = format!("[[way]]\nkind = \"exim-pipe\"\nlisten = \"unix:/run/x.sock\"\nmax_size = \"{max_size} B\"\n");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("x.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap();
    Settings::new(&written.remove(0).value).unwrap()
}

/// A mail as Exim writes it.
fn batched(sender: &str, recipients: &[String], content: &[u8]) -> Vec<u8> {
    let mut sent = format!("MAIL FROM:<{sender}>\n");
    recipients.iter().for_each(|to| sent.push_str(&format!("RCPT TO:<{to}>\n")));
    let mut sent = sent.into_bytes();
    sent.extend_from_slice(b"DATA\n");
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            sent.push(b'.');
        }
        sent.extend_from_slice(line);
    }
    sent.extend_from_slice(b".\n");
    sent
}

fn read(octets: &[u8], slicing: Slicing) -> Result<(Envelope, Vec<u8>), BsmtpError> {
    let size = match slicing {
        Slicing::Whole => octets.len(),
        Slicing::Bytes => 1,
        Slicing::Seeded(_) => 5,
    };
    let (mut reader, mut content) = (Reader::default(), Vec::new());
    for part in octets.chunks(size) {
        reader.feed(part, |octets| {
            content.extend_from_slice(octets);
            Ok::<(), BsmtpError>(())
        })?;
    }
    Ok((reader.finish()?, content))
}

impl Way for Pipe {
    fn name(&self) -> String {
        "pipe".into()
    }

    fn abilities(&self) -> Abilities {
        ABILITIES
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
        let mut stage = Stage::new(ABILITIES, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            let sent = batched(&mail.sender, &mail.recipients, &mail.content);
            let sent = if scene.abort == Some(index) { &sent[..sent.len() - 2] } else { &sent };
            let (envelope, content) = match read(sent, slicing) {
                Ok(whole) => whole,
                Err(error) => {
                    assert_eq!((scene.abort, error), (Some(index), BsmtpError::Unfinished));
                    played.told.push(vec![Told::Nothing; mail.recipients.len()]);
                    break;
                }
            };
            let (settings, request) = (settings(scene.max_size), request(&envelope, "checkpost-pipe"));
            let asked = checkpost_check::conformance::ask(&mut stage, settings, ABILITIES, &request, content);
            let (answer, contents) = asked.expect("the daemon answers");
            let told = match plan(&answer, &envelope) {
                Plan::Refuse(why) => panic!("{why}: {answer:?}"),
                Plan::End(exit, line) => match (exit.code(), line) {
                    (0, line) if line.is_empty() => Told::Accepted,
                    (77, line) => Told::Rejected(line),
                    (75, line) => Told::Deferred(line),
                    other => panic!("{other:?}"),
                },
                Plan::Hand(runs) => {
                    played.handed_on.extend(runs.iter().map(|run| {
                        let text = |octets: &Vec<u8>| String::from_utf8(octets.clone()).unwrap();
                        HandedOn {
                            sender: text(&run.sender),
                            recipients: run.recipients.iter().map(text).collect(),
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
fn pipe() {
    run(&Pipe);
}
