//! The conformance battery for the helper: a queue file and a request line in, answered by a session of the check front
//! end; what the program would hand in is put together, stripped, and read as the server reads it.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::Kind;
use checkpost_adapter::conformance::{
    HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, TestMail, Told, Way, run,
};
use checkpost_check::{Settings, Written};
use checkpost_communigate::envelope::{self, Envelope};
use checkpost_communigate::map::{self, Message, Piece, Replacement, Work};
use checkpost_communigate::session::{Event, Session};
use checkpost_communigate::submitted::{Strip, envelope_lines};
use checkpost_communigate::{HELPER, SYNCHRONOUS, string};
use checkpost_core::config::{Document, Located, Problems};
use checkpost_core::{Abilities, Mail, Verdict};

struct CommuniGate(Kind);

fn settings(max_size: u64) -> Settings {
    let text = format!("[[way]]\nkind = \"communigate\"\nlisten = \"unix:/run/x.sock\"\nmax_size = \"{max_size} B\"\n");
    let mut problems = Problems::default();
    let mut written: Vec<Located<Written>> =
        Document::parse("x.toml", &text, &mut problems).take_list("way", &mut problems);
    problems.into_result().unwrap();
    Settings::new(&written.remove(0).value).unwrap()
}

fn file(mail: &TestMail) -> Vec<u8> {
    let recipients: String = mail.recipients.iter().map(|to| format!("R W 0000 ____ _FY_ <{to}>\n")).collect();
    let head = format!("S SMTP [192.0.2.1]\nA mx [192.0.2.2]\nP I 0000 ____ ____ <{}>\n{recipients}\n", mail.sender);
    [head.as_bytes(), &mail.content].concat()
}

/// The session's events for these octets, in pieces.
fn hear(session: &mut Session, octets: &[u8], slicing: Slicing) -> Vec<Event> {
    let size = match slicing {
        Slicing::Whole => octets.len(),
        Slicing::Bytes => 1,
        Slicing::Seeded(_) => 7,
    };
    octets.chunks(size).flat_map(|piece| session.take(piece)).collect()
}

/// The mail that these pieces make.
fn content(pieces: &[Piece], message: &[u8], put: &[u8]) -> Vec<u8> {
    let part = |piece: &Piece| match piece {
        Piece::Keep(offset, length) => &message[*offset as usize..(offset + length) as usize],
        Piece::Put(range) => &put[range.clone()],
    };
    pieces.iter().flat_map(part).copied().collect()
}

/// What the server makes of a mail in `Submitted`.
fn submitted(one: &Replacement, message: &[u8], put: &[u8]) -> HandedOn {
    let mut text = envelope_lines(one.sender.as_deref(), &one.recipients);
    let mut strip = Strip::new(&[]);
    strip.take(&content(&one.pieces, message, put), &mut text);
    strip.finish(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (mut sender, mut recipients, mut rest) = (None, Vec::new(), &*text);
    while let Some((line, behind)) = rest.split_once('\n') {
        let address = |line: &str| line.split_once(": <").and_then(|(_, to)| to.strip_suffix('>')).map(str::to_owned);
        match line.split(':').next() {
            Some("Return-Path") => sender = address(line),
            Some("Envelope-To") => recipients.extend(address(line)),
            _ => break,
        }
        rest = behind;
    }
    HandedOn { sender: sender.unwrap(), recipients, content: rest.as_bytes().to_vec(), held: false }
}

impl CommuniGate {
    fn mail(&self, stage: &mut Stage, mail: &TestMail, max_size: u64, slicing: Slicing) -> (Told, Vec<HandedOn>) {
        let mut session = Session::default();
        let mut said = hear(&mut session, b"1 INTF 4\n002 FILE Queue/1.msg HEADERS\r\n", slicing);
        assert_eq!(said.remove(0), Event::Say(b"1 INTF 3\n".to_vec()));
        let Event::Check(number, path) = said.remove(0) else { panic!("no request") };
        assert_eq!(path, b"Queue/1.msg");
        let file = file(mail);
        let length = envelope::length(&file, &mut 0).unwrap();
        let (head, message) = file.split_at(length);
        let envelope = Envelope::parse(head).unwrap();
        let mut request = map::request(&envelope, "test", &path);
        request.skip = length as u64;
        let asked = checkpost_check::conformance::ask_in_pieces(
            stage,
            settings(max_size),
            self.0.abilities,
            &request,
            file.clone(),
        );
        let (answer, put) = asked.unwrap();
        let about = Message { length: message.len() as u64, start: message };
        let (reply, handed_on) = match map::work(&envelope, &answer, &put, about).unwrap() {
            Work::Say(reply) => (reply, None),
            Work::Replace(all) => {
                let all: Vec<HandedOn> = all.iter().map(|one| submitted(one, message, &put)).collect();
                (checkpost_communigate::session::Reply::Discard, Some(all))
            }
        };
        let lines = session.answer(&number, &reply);
        let line = String::from_utf8(lines.concat()).unwrap();
        let (word, rest) =
            line.strip_prefix("002 ").unwrap().trim_end().split_once(' ').unwrap_or((line[4..].trim_end(), ""));
        let text = |rest: &str| String::from_utf8(string::read(rest.as_bytes()).unwrap().0).unwrap();
        let kept = |content: Vec<u8>| HandedOn {
            sender: mail.sender.clone(),
            recipients: mail.recipients.clone(),
            content,
            held: false,
        };
        match word {
            "OK" => (Told::Accepted, vec![kept(mail.content.clone())]),
            "ADDHEADER" => {
                // Where the server puts them is its own; here they stand where they were wanted, and none is missing.
                assert!(rest.ends_with("\" OK"), "{line}");
                let new = text(rest);
                let mut fields: Vec<&str> = new.split('\n').collect();
                let checkpost_wire::check::Form::Pieces(parts) = &answer.contents[0].form else { panic!() };
                let mut at = 0;
                let whole: Vec<u8> = parts
                    .iter()
                    .flat_map(|part| match *part {
                        checkpost_wire::check::Part::Keep(from, length) => {
                            message[from as usize..(from + length) as usize].to_vec()
                        }
                        checkpost_wire::check::Part::Put(length) => {
                            let put = &put[at..at + length as usize];
                            at += length as usize;
                            for line in std::str::from_utf8(put).unwrap().lines() {
                                assert_eq!(line, fields.remove(0));
                            }
                            put.to_vec()
                        }
                    })
                    .collect();
                assert!(fields.is_empty());
                (Told::Accepted, vec![kept(whole)])
            }
            "DISCARD" => (Told::Accepted, handed_on.unwrap_or_default()),
            "ERROR" => (Told::Rejected(text(rest)), Vec::new()),
            "REJECTED" => (Told::Deferred(text(rest)), Vec::new()),
            _ => panic!("{line}"),
        }
    }
}

impl Way for CommuniGate {
    fn name(&self) -> String {
        self.0.name.into()
    }

    fn abilities(&self) -> Abilities {
        self.0.abilities
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let judge = move |mail: &Mail| -> Verdict {
            let content = mail.content.as_slice().unwrap();
            known.iter().find(|known| known.content == content).expect("without the envelope").verdict.clone()
        };
        let mut stage = Stage::new(self.0.abilities, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            if scene.abort == Some(index) {
                // The server asks about whole mails only: of this one nobody hears.
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
fn refusals_may_bounce() {
    run(&CommuniGate(HELPER));
}

#[test]
fn refusals_are_told_in_the_session() {
    run(&CommuniGate(SYNCHRONOUS));
}
