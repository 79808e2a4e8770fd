//! The conformance battery for the courierfilter: requests in Courier's words, with the mail's files in memory, answered by
//! a session of the check front end; the records and the content that the program would write are applied, and then read
//! as Courier's queue would.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use checkpost_adapter::conformance::{
    HandedOn, NoNetwork, Played, Point, Scene, Slicing, Stage, TestMail, Told, Way, run,
};
use checkpost_check::{Settings, Written};
use checkpost_core::{Abilities, Mail, Verdict};
use checkpost_courier::COURIERFILTER;
use checkpost_courier::control::Control;
use checkpost_courier::map::Envelope;
use checkpost_courier::session::{Reader, Reply};

struct Courier {
    /// Recipients in one control file.
    batch_size: usize,
}

/// A mail's files.
struct Files {
    data: Vec<u8>,
    controls: Vec<Vec<u8>>,
}

impl Files {
    fn new(mail: &TestMail, batch_size: usize) -> Self {
        let control = |recipients: &[String]| {
            let head = format!("s{}\nfdns; client (client [192.0.2.1])\nM1.2\n", mail.sender);
            let records: String = recipients.iter().map(|recipient| format!("r{recipient}\nR\nN\n")).collect();
            format!("{head}{records}usmtp\n").into_bytes()
        };
        Self { data: mail.content.clone(), controls: mail.recipients.chunks(batch_size).map(control).collect() }
    }

    /// As Courier writes it.
    fn request(&self) -> Vec<u8> {
        let controls: String = (1..=self.controls.len()).map(|n| format!("/tmp/C1.{n}\n")).collect();
        format!("/tmp/D1\n{controls}\n").into_bytes()
    }

    /// What would be delivered.
    fn handed_on(&self) -> Option<HandedOn> {
        let controls: Vec<Control> = self.controls.iter().map(|text| Control::parse(text).unwrap()).collect();
        let open = controls.iter().flat_map(|control| &control.recipients).filter(|recipient| !recipient.finished);
        let recipients: Vec<String> = open.map(|open| String::from_utf8(open.address.clone()).unwrap()).collect();
        let sender = String::from_utf8(controls[0].sender.clone()).unwrap();
        (!recipients.is_empty()).then(|| HandedOn { sender, recipients, content: self.data.clone(), held: false })
    }
}

impl Courier {
    /// One mail: what its client is told, and what was handed on.
    fn mail(&self, stage: &mut Stage, mail: &TestMail, max_size: u64, slicing: Slicing) -> (Told, Option<HandedOn>) {
        let mut files = Files::new(mail, self.batch_size);
        let request = read(&files.request(), slicing);
        assert_eq!((&request.data[..], request.controls.len()), (&b"/tmp/D1"[..], files.controls.len()));
        let envelope = Envelope::new(files.controls.iter().map(|text| Control::parse(text).unwrap()).collect());
        let question = envelope.request("test");
        let answer = checkpost_check::conformance::ask(
            stage,
            settings(max_size),
            COURIERFILTER.abilities,
            &question,
            files.data.clone(),
        );
        let (answer, mut contents) = answer.unwrap();
        let work = envelope.work(&answer, 1_795_518_000).unwrap();
        if let Some(number) = work.content {
            files.data = contents[number].take().unwrap();
        }
        for (control, records) in files.controls.iter_mut().zip(&work.records) {
            control.extend_from_slice(records);
        }
        let printed = String::from_utf8(work.reply.print()).unwrap();
        // As Courier takes it: by the first digit.
        match printed.as_bytes()[0] {
            b'4' => (Told::Deferred(printed), None),
            b'5' => (Told::Rejected(printed), None),
            _ => {
                assert_eq!(work.reply, Reply::Accept);
                (Told::Accepted, files.handed_on())
            }
        }
    }
}

/// The request in pieces: nothing is known before the empty line.
fn read(octets: &[u8], slicing: Slicing) -> checkpost_courier::session::Request {
    let mut reader = Reader::default();
    let mut rest = octets;
    let mut step = 1;
    while !rest.is_empty() {
        let length = match slicing {
            Slicing::Whole => rest.len(),
            Slicing::Bytes => 1,
            Slicing::Seeded(seed) => {
                step = (step * 7 + usize::try_from(seed).unwrap()) % 40 + 1;
                step.min(rest.len())
            }
        };
        let (head, tail) = rest.split_at(length);
        if let Some(request) = reader.take(head).unwrap() {
            assert!(tail.is_empty());
            return request;
        }
        rest = tail;
    }
    panic!("no request in {:?}", String::from_utf8_lossy(octets));
}

fn settings(max_size: u64) -> Settings {
    let listen = checkpost_core::config::OneOrMany(vec!["unix:/x".parse().unwrap()]);
    let written = Written {
        kind: COURIERFILTER.name.into(),
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

impl Way for Courier {
    fn name(&self) -> String {
        format!("courierfilter, {} recipients in a control file", self.batch_size)
    }

    fn abilities(&self) -> Abilities {
        COURIERFILTER.abilities
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
        let mut stage = Stage::new(COURIERFILTER.abilities, Box::new(judge), Box::new(NoNetwork), slicing);
        let mut played = Played::default();
        for (index, mail) in scene.mails.iter().enumerate() {
            if scene.abort == Some(index) {
                // Courier asks after the whole mail only: of this one no filter hears.
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
fn one_control_file() {
    run(&Courier { batch_size: 100 });
}

#[test]
fn several_control_files() {
    run(&Courier { batch_size: 1 });
    run(&Courier { batch_size: 2 });
}
