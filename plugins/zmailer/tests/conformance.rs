//! The conformance battery for both of ZMailer's ways: spool files in memory, answered by a session of the check front end;
//! what the program would write, hand in and say is applied, and then read as ZMailer would.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::Kind;
use checkpost_adapter::conformance::{
    HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, TestMail, Told, Way, run,
};
use checkpost_check::{Settings, Written};
use checkpost_core::{Abilities, Mail, Verdict};
use checkpost_wire::check::Request;
use checkpost_zmailer::map::{self, Made, Plan};
use checkpost_zmailer::session::Verdict as Said;
use checkpost_zmailer::spool::{Envelope, Reader};
use checkpost_zmailer::{ROUTER, SMTP};

struct ZMailer {
    kind: Kind,
}

fn spooled(mail: &TestMail) -> Vec<u8> {
    let mut text = String::from("external\nrcvdfrom c ([192.0.2.1]:5 \"EHLO c\" x)\nwith ESMTP\n");
    text.push_str(&if mail.sender.is_empty() { "channel error\n".into() } else { format!("from <{}>\n", mail.sender) });
    for to in &mail.recipients {
        text.push_str(&format!("todsn INRCPT=rfc822;{to}\nto <{to}>\n"));
    }
    [text.as_bytes(), b"env-end\n", &mail.content].concat()
}

fn read(octets: &[u8], slicing: Slicing) -> Envelope {
    let (mut reader, mut rest, mut step) = (Reader::default(), octets, 1);
    loop {
        let length = match slicing {
            Slicing::Whole => rest.len(),
            Slicing::Bytes => 1,
            Slicing::Seeded(seed) => {
                step = (step * 7 + usize::try_from(seed).unwrap()) % 40 + 1;
                step.min(rest.len())
            }
        };
        let (head, tail) = rest.split_at(length);
        if reader.take(head).unwrap() {
            return reader.finish(true).unwrap();
        }
        rest = tail;
    }
}

/// What the router makes of a spool file.
fn handed_on(file: &[u8], held: bool) -> HandedOn {
    let envelope = read(file, Slicing::Whole);
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    HandedOn {
        sender: text(envelope.sender().unwrap()),
        recipients: envelope.recipients().map(text).collect(),
        content: file[usize::try_from(envelope.length()).unwrap()..].to_vec(),
        held,
    }
}

impl ZMailer {
    fn ask(
        &self,
        stage: &mut Stage,
        file: &[u8],
        envelope: &Envelope,
        max_size: u64,
    ) -> checkpost_check::conformance::Answered {
        let recipients = envelope.recipients().map(<[u8]>::to_vec).collect();
        let can = if self.kind.name == SMTP.name { map::SMTP } else { map::ROUTER };
        let request = Request { can, ..map::request(envelope, recipients, "bob", "1", "test") };
        let settings = settings(&self.kind, max_size);
        checkpost_check::conformance::ask(stage, settings, self.kind.abilities, &request, file.to_vec()).unwrap()
    }

    /// One mail: what its client is told, and what was handed on.
    fn mail(&self, stage: &mut Stage, mail: &TestMail, max_size: u64, slicing: Slicing) -> (Told, Vec<HandedOn>) {
        let file = spooled(mail);
        let envelope = read(&file, slicing);
        assert_eq!(&file[usize::try_from(envelope.length()).unwrap()..], mail.content);
        let (answer, contents) = self.ask(stage, &file, &envelope, max_size);
        let written = |made: &Made| match made.content {
            Some(number) => [&made.envelope[..], contents[number].as_ref().unwrap()].concat(),
            None => [&made.envelope[..], &mail.content].concat(),
        };
        if self.kind.name == SMTP.name {
            let work = map::work(&envelope, &answer).unwrap();
            let file = work.made.as_ref().map_or(file, &written);
            let printed = String::from_utf8(work.verdict.print()).unwrap();
            let line = printed.strip_suffix("\n#hungry\n").unwrap();
            // As smtpserver takes it.
            return match (line.split_once(' ').unwrap(), &work.verdict) {
                (("0", _), Said::Accept) => (Told::Accepted, vec![handed_on(&file, false)]),
                (("1", _), Said::Freeze) => (Told::Accepted, vec![handed_on(&file, true)]),
                (("-1", reply), Said::Discard) if reply.starts_with('2') => (Told::Accepted, vec![]),
                (("-1", reply), Said::Refuse(_)) if reply.starts_with('4') => (Told::Deferred(reply.into()), vec![]),
                (("-1", reply), Said::Refuse(_)) if reply.starts_with('5') => (Told::Rejected(reply.into()), vec![]),
                _ => panic!("{line}"),
            };
        }
        let recipients: Vec<Vec<u8>> = envelope.recipients().map(<[u8]>::to_vec).collect();
        match map::plan(&envelope, &recipients, "bob", &answer).unwrap() {
            Plan::Route => (Told::Accepted, vec![handed_on(&file, false)]),
            Plan::Replace(mades) => {
                (Told::Accepted, mades.iter().map(|made| handed_on(&written(made), false)).collect())
            }
            Plan::Hold(made) => (Told::Accepted, vec![handed_on(&made.as_ref().map_or(file, written), true)]),
            Plan::Remove => (Told::Accepted, vec![]),
            Plan::Later(line) => (Told::Deferred(line), vec![]),
            Plan::Bounce(line) => (Told::Rejected(line), vec![]),
        }
    }
}

fn settings(kind: &Kind, max_size: u64) -> Settings {
    let listen = checkpost_core::config::OneOrMany(vec!["unix:/x".parse().unwrap()]);
    let written = Written {
        kind: kind.name.into(),
        name: None,
        listen,
        socket_mode: None,
        origin: None,
        max_sessions: None,
        max_sessions_per_user: None,
        max_size: Some(format!("{max_size} B").parse().unwrap()),
        max_recipients: None,
        check_timeout: None,
        command_timeout: None,
    };
    Settings::new(&written).unwrap()
}

impl Way for ZMailer {
    fn name(&self) -> String {
        self.kind.name.into()
    }

    fn abilities(&self) -> Abilities {
        self.kind.abilities
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let judge = move |mail: &Mail| -> Verdict {
            let content = mail.content.as_slice().unwrap();
            known.iter().find(|known| known.content == content).expect("as it was sent").verdict.clone()
        };
        let mut stage = Stage::new(self.kind.abilities, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            if scene.abort == Some(index) {
                // ZMailer asks after the whole mail only: of this one nobody hears.
                played.told.push(vec![Told::Nothing; mail.recipients.len()]);
                break;
            }
            let (told, handed_on) = self.mail(&mut stage, mail, scene.max_size, slicing);
            played.told.push(vec![told; mail.recipients.len()]);
            played.handed_on.extend(handed_on);
        }
        played
    }
}

#[test]
fn in_the_session() {
    run(&ZMailer { kind: SMTP });
}

#[test]
fn before_the_router() {
    run(&ZMailer { kind: ROUTER });
}
