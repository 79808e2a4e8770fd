//! The conformance battery over `local_scan()`: Exim's header lines and envelope in, changes to them and a code out, with
//! the daemon's own session between. What touches Exim's memory is left to `stand_in.rs`.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::conformance::{
    HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, TestMail, Told, Way, run,
};
use checkpost_check::{Settings, Written};
use checkpost_core::config::{Document, Located, Problems};
use checkpost_core::{Abilities, Mail as Judged, Verdict};
use checkpost_exim::local_scan::LOCAL_SCAN;
use checkpost_exim_local_scan::{CAN, Changes, Code, Field, Mail, Origin, Shown, Work, request, work};
use checkpost_wire::check::Can;

struct LocalScan {
    /// `spool_wireformat`: the body's lines end with CRLF.
    wire: bool,
}

fn settings(max_size: u64) -> Settings {
    let kind = LOCAL_SCAN.name;
    let text = format!("[[way]]\nkind = \"{kind}\"\nlisten = \"unix:/run/x.sock\"\nmax_size = \"{max_size} B\"\n");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("x.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap();
    Settings::new(&written.remove(0).value).unwrap()
}

/// Header lines and body, as Exim keeps them.
fn kept(content: &[u8], wire: bool) -> (Vec<String>, String) {
    let text = String::from_utf8(content.to_vec()).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").expect("a test's mail has a header and a body");
    let mut lines: Vec<String> = Vec::new();
    for line in header.split("\r\n") {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => last.push_str(&format!("{line}\n")),
            _ => lines.push(format!("{line}\n")),
        }
    }
    (lines, if wire { body.to_owned() } else { body.replace("\r\n", "\n") })
}

/// The mail as Exim would deliver it, with CRLF.
fn delivered(lines: &[String], changes: &Changes, body: &str) -> Vec<u8> {
    let mut text = String::new();
    let added = |text: &mut String, behind: Option<usize>| {
        let here = changes.added.iter().filter(|added| added.behind == behind);
        here.for_each(|added| text.push_str(std::str::from_utf8(&added.text).unwrap()));
    };
    added(&mut text, None);
    for (index, line) in lines.iter().enumerate() {
        if !changes.removed.contains(&index) {
            text.push_str(line);
        }
        added(&mut text, Some(index));
    }
    format!("{text}\n{body}").replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

impl LocalScan {
    fn mail(&self, stage: &mut Stage, mail: &TestMail, max_size: u64) -> (Told, Option<HandedOn>) {
        let (lines, body) = kept(&mail.content, self.wire);
        let held = Mail {
            fields: lines.iter().map(|line| Field { text: line.as_bytes(), kind: b' ' }).collect(),
            sender: mail.sender.as_bytes(),
            recipients: mail.recipients.iter().map(String::as_bytes).collect(),
            origin: Origin { client: Some("192.0.2.7".into()), ..Origin::default() },
        };
        let shown = Shown::new(&held.fields, self.wire).unwrap();
        let message = [&shown.octets, body.as_bytes()].concat();
        let total = message.len() as u64;
        let asked = request(&held, "test");
        let abilities = LOCAL_SCAN.abilities;
        let (answer, octets) =
            checkpost_check::conformance::ask_in_pieces(stage, settings(max_size), abilities, &asked, message)
                .expect("the daemon answers");
        let Work { code, text, header, removed, added, .. } = work(&answer, &octets, &held, &shown, total).unwrap();
        match code {
            Code::Reject => return (Told::Rejected(text), None),
            Code::Defer => return (Told::Deferred(text), None),
            Code::Accept | Code::Freeze => {}
        }
        let stay = mail.recipients.iter().enumerate().filter(|(index, _)| !removed.contains(index));
        let recipients: Vec<String> = stay.map(|(_, recipient)| recipient.clone()).chain(added).collect();
        let handed_on = HandedOn {
            sender: mail.sender.clone(),
            recipients,
            content: delivered(&lines, &header, &body),
            held: code == Code::Freeze,
        };
        // With nobody left it is gone.
        (Told::Accepted, (!handed_on.recipients.is_empty()).then_some(handed_on))
    }
}

impl Way for LocalScan {
    fn name(&self) -> String {
        format!("exim-local-scan, spool_wireformat = {}", self.wire)
    }

    fn abilities(&self) -> Abilities {
        LOCAL_SCAN.abilities
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let wire = self.wire;
        let judge = move |mail: &Judged| -> Verdict {
            let content = String::from_utf8(mail.content.as_slice().unwrap().to_vec()).unwrap();
            let content = if wire { content } else { content.replace('\n', "\r\n") };
            let known = known.iter().find(|known| known.content == content.as_bytes());
            known.expect("the content is as it was sent").verdict.clone()
        };
        let mut stage = Stage::new(LOCAL_SCAN.abilities, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            if scene.abort == Some(index) {
                // Exim has no whole mail, and does not call.
                played.told.push(vec![Told::Nothing; mail.recipients.len()]);
                break;
            }
            let (told, handed_on) = self.mail(&mut stage, mail, scene.max_size);
            played.handed_on.extend(handed_on);
            played.told.push(vec![told; mail.recipients.len()]);
        }
        played
    }
}

#[test]
fn local_scan() {
    run(&LocalScan { wire: true });
    run(&LocalScan { wire: false });
}

#[test]
fn the_library_claims_what_the_kind_says() {
    let abilities = LOCAL_SCAN.abilities;
    for (can, has) in [
        (Can::EDIT_HEADERS, abilities.edit_headers),
        (Can::EDIT_BODY, abilities.edit_body),
        (Can::ADD_RECIPIENTS, abilities.add_recipients),
        (Can::CHANGE_SENDER, abilities.change_sender),
        (Can::HOLD, abilities.hold),
        (Can::DROP_RECIPIENTS, abilities.drop_recipients),
        (Can::CONTENTS_BY_RECIPIENT, abilities.contents_by_recipient),
        (Can::REPLY_PER_RECIPIENT, abilities.replies == checkpost_core::abilities::Replies::PerRecipient),
        (Can::REFUSE_IN_SESSION, abilities.refusal == checkpost_core::abilities::Refusal::InSession),
    ] {
        assert_eq!(CAN.contains(can), has, "{can:?}");
    }
}
