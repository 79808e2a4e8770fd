//! The conformance battery over each protocol, played by a client that does what a mail server would: it hands a mail on
//! if it is told that it may pass, with the edits that the protocol can carry.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::{HandedOn, Played, Point, Scene, Slicing, TestMail, Told, Way, run};
use checkpost_core::{Abilities, Mail, Verdict};
use checkpost_scan::Protocol;
use common::{Client, Setup, chunks, exim};
use serde_json::Value;

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// A session with a stream for each mail.
    Clamd,
    /// A connection for each mail.
    Report,
    Process,
    Rspamd {
        actions: bool,
    },
    Old,
}

impl Form {
    fn protocol(self) -> Protocol {
        match self {
            Self::Clamd => Protocol::Clamd,
            Self::Report | Self::Process => Protocol::Spamd,
            Self::Rspamd { .. } | Self::Old => Protocol::Rspamd,
        }
    }

    fn lines(self) -> &'static str {
        match self {
            Self::Clamd | Self::Report | Self::Process => "envelope_lines = true\n",
            Self::Rspamd { actions: true } => "actions = [\"discard\", \"quarantine\"]\n",
            Self::Rspamd { actions: false } | Self::Old => "",
        }
    }

    fn request(self, mail: &TestMail) -> Vec<u8> {
        let shown = exim(&mail.sender, &mail.recipients, &mail.content);
        let spamd = |method: &str, version: &str| {
            let head = format!("{method} SPAMC/{version}\r\nContent-length: {}\r\n\r\n", shown.len());
            [head.as_bytes(), &shown].concat()
        };
        let rspamd = |line: &str| {
            let mut head = format!("{line}\r\nContent-length: {}\r\nFrom: <{}>\r\n", mail.content.len(), mail.sender);
            mail.recipients.iter().for_each(|to| head.push_str(&format!("Rcpt: <{to}>\r\n")));
            [head.as_bytes(), b"\r\n", &mail.content].concat()
        };
        match self {
            Self::Clamd => [&b"zINSTREAM\0"[..], &chunks(&shown, 50)].concat(),
            Self::Report => spamd("REPORT", "1.2"),
            Self::Process => spamd("PROCESS", "1.5"),
            Self::Rspamd { .. } => rspamd("POST /checkv2 HTTP/1.1"),
            Self::Old => rspamd("CHECK RSPAMC/1.3"),
        }
    }

    fn whole(self) -> fn(&[u8]) -> Option<usize> {
        match self {
            Self::Clamd => |heard| heard.iter().position(|octet| *octet == 0).map(|at| at + 1),
            Self::Rspamd { .. } => |heard| {
                let text = std::str::from_utf8(heard).ok()?;
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length: usize = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
                (body.len() >= length).then_some(head.len() + 4 + length)
            },
            // One answer is all.
            Self::Report | Self::Process | Self::Old => |_| None,
        }
    }

    /// What the client makes of an answer.
    fn carry_out(self, mail: &TestMail, answer: &[u8], played: &mut Played) {
        let answer = String::from_utf8(answer.to_vec()).expect("a test's mail is text");
        let (told, content, held) = match self {
            Self::Clamd => of_clamd(&answer, mail),
            Self::Report => of_report(&answer, mail),
            Self::Process => of_process(&answer, mail),
            Self::Rspamd { .. } => of_rspamd(&answer, mail),
            Self::Old => of_old(&answer, mail),
        };
        played.told.push(vec![told; mail.recipients.len()]);
        if let Some(content) = content {
            let (sender, recipients) = (mail.sender.clone(), mail.recipients.clone());
            played.handed_on.push(HandedOn { sender, recipients, content, held });
        }
    }
}

type Made = (Told, Option<Vec<u8>>, bool);

fn accepted(content: &[u8]) -> Made {
    (Told::Accepted, Some(content.to_vec()), false)
}

/// Protocols without a text for the sender leave it to the mail server.
fn own_text(mail: &TestMail) -> String {
    let rejected = mail.verdict.outcomes.iter().find_map(|outcome| outcome.disposition.reply());
    format!("{} Message refused", rejected.map_or("", |reply| reply.text()))
}

fn of_clamd(answer: &str, mail: &TestMail) -> Made {
    let said = answer.strip_suffix('\0').unwrap();
    let (number, said) = said.split_once(": ").unwrap();
    assert!(number.bytes().all(|octet| octet.is_ascii_digit()), "a session has numbers: {answer}");
    match said.strip_prefix("stream: ") {
        None if said == "INSTREAM size limit exceeded. ERROR" => (Told::Rejected(String::new()), None, false),
        Some("OK") => accepted(&mail.content),
        Some(said) if said.ends_with(" FOUND") => (Told::Rejected(own_text(mail)), None, false),
        Some(said) => (Told::Deferred(said.strip_suffix(" ERROR").unwrap().to_owned()), None, false),
        None => panic!("{answer}"),
    }
}

fn failed(answer: &str) -> Made {
    let text = answer.trim_end();
    if text.contains("too large") {
        return (Told::Rejected(text.to_owned()), None, false);
    }
    assert!(text.contains("/1.0 75 ") || text.contains("/1.3 75 "), "{answer}");
    (Told::Deferred(text.to_owned()), None, false)
}

/// As Exim 4.96 reads it.
fn of_report(answer: &str, mail: &TestMail) -> Made {
    let Some(rest) = answer.strip_prefix("SPAMD/1.1 0 EX_OK\r\nSpam: ") else { return failed(answer) };
    let (line, report) = rest.split_once("\r\n\r\n").unwrap();
    let (_, scores) = line.split_once(" ; ").unwrap();
    let (score, threshold) = scores.split_once(" / ").unwrap();
    if score.parse::<f64>().unwrap() >= threshold.parse().unwrap() {
        return (Told::Rejected(report.to_owned()), None, false);
    }
    accepted(&mail.content)
}

/// As a delivery agent that files by the flag.
fn of_process(answer: &str, mail: &TestMail) -> Made {
    if !answer.starts_with("SPAMD/1.1 0 EX_OK\r\nContent-length: ") {
        return failed(answer);
    }
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    let length: usize = head.split("Content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    assert_eq!(length, content.len());
    let spam = head.contains("Spam: True ; ");
    assert_eq!(spam, content.contains("X-Spam-Flag: YES\r\n"));
    if spam {
        return (Told::Rejected(own_text(mail)), None, false);
    }
    let lines = content.split_inclusive("\r\n").filter(|line| !line.starts_with("X-Spam-Status: No, score="));
    accepted(lines.collect::<String>().as_bytes())
}

fn of_rspamd(answer: &str, mail: &TestMail) -> Made {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    if head.starts_with("HTTP/1.1 413 ") {
        return (Told::Rejected(String::new()), None, false);
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    let text = || body["messages"]["smtp_message"].as_str().unwrap().to_owned();
    let spam = body["score"].as_f64().unwrap() >= body["required_score"].as_f64().unwrap();
    let action = body["action"].as_str().unwrap();
    assert_eq!(spam, action != "no action", "who looks at the score alone lets nothing pass: {body}");
    match action {
        "no action" => accepted(&edited(&mail.content, &body["milter"])),
        "reject" => (Told::Rejected(text()), None, false),
        "soft reject" => (Told::Deferred(text()), None, false),
        "discard" => (Told::Accepted, None, false),
        "quarantine" => (Told::Accepted, Some(mail.content.clone()), true),
        other => panic!("{other}"),
    }
}

/// As Exim 4.96 reads it.
fn of_old(answer: &str, mail: &TestMail) -> Made {
    let Some(rest) = answer.strip_prefix("RSPAMD/1.3 0 EX_OK\r\nMetric: default; ") else { return failed(answer) };
    let lines: Vec<&str> = rest.split("\r\n").collect();
    let scores: Vec<f64> = lines[0].split_once("; ").unwrap().1.split(" / ").map(|one| one.parse().unwrap()).collect();
    let action = lines[1].strip_prefix("Action: ").unwrap();
    assert_eq!(scores[0] >= scores[1], action != "no action");
    match action {
        "no action" => accepted(&mail.content),
        "reject" => (Told::Rejected(own_text(mail)), None, false),
        other => panic!("{other}"),
    }
}

/// Carries the changes out. A field that goes and comes is changed where it is: where it comes to stand is the client's.
fn edited(content: &[u8], milter: &Value) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut fields: Vec<String> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => *last = format!("{last}\r\n{line}"),
            _ => fields.push(line.to_owned()),
        }
    }
    let empty = serde_json::Map::new();
    let many = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let mut come: Vec<(String, Value)> = Vec::new();
    for (name, values) in milter["add_headers"].as_object().unwrap_or(&empty) {
        come.extend(many(values).into_iter().map(|value| (name.clone(), value)));
    }
    for (name, numbers) in milter["remove_headers"].as_object().unwrap_or(&empty) {
        let is = |field: &String| field.split(':').next().unwrap().eq_ignore_ascii_case(name);
        let numbers: Vec<u64> = many(numbers).iter().map(|number| number.as_u64().unwrap()).collect();
        let mut count = 0;
        for field in &mut fields {
            if is(field) {
                count += 1;
                if numbers == [0] || numbers.contains(&count) {
                    let new = come.iter().position(|(known, _)| known == name).map(|at| come.remove(at).1);
                    *field = new.map(|new| format!("{name}: {}", new["value"].as_str().unwrap())).unwrap_or_default();
                }
            }
        }
        fields.retain(|field| !field.is_empty());
    }
    for (name, value) in come {
        let line = format!("{name}: {}", value["value"].as_str().unwrap());
        match value["order"].as_i64().unwrap() {
            0 => fields.insert(0, line),
            -1 => fields.push(line),
            other => panic!("{other}"),
        }
    }
    format!("{}\r\n\r\n{body}", fields.join("\r\n")).into_bytes()
}

impl Way for Form {
    fn name(&self) -> String {
        match self {
            Self::Clamd => "clamd, a session".into(),
            Self::Report => "spamd, REPORT".into(),
            Self::Process => "spamd, PROCESS".into(),
            Self::Rspamd { actions } => format!("rspamd, actions {actions}"),
            Self::Old => "rspamd, the old form".into(),
        }
    }

    fn abilities(&self) -> Abilities {
        let abilities = Setup::new(self.protocol(), self.lines()).abilities;
        match self {
            Self::Report | Self::Old => Abilities { edit_headers: false, edit_body: false, ..abilities },
            _ => abilities,
        }
    }

    fn points(&self) -> Vec<Point> {
        Vec::new()
    }

    fn play(&self, scene: &Scene, slicing: Slicing) -> Played {
        let known = scene.mails.clone();
        let verdict = move |mail: &Mail| -> Verdict {
            let content = mail.content.as_slice().unwrap();
            let known = known.iter().find(|known| known.content == content).expect("the content is as it was sent");
            assert_eq!(mail.envelope, known.mail().envelope);
            known.verdict.clone()
        };
        let requests: Vec<Vec<u8>> = scene.mails.iter().map(|mail| self.request(mail)).collect();
        // The lines before a mail count while they are not known to be lines.
        let lines = format!("{}max_size = \"{} B\"\n", self.lines(), scene.max_size);
        let mut setup = Setup::new(self.protocol(), &lines).judged(verdict).sliced(slicing);
        let mut stage = setup.stage();
        let mut answers = Vec::new();
        if self.protocol() == Protocol::Spamd || *self == Self::Old {
            for (index, request) in requests.into_iter().enumerate() {
                let abort = (scene.abort == Some(index)).then_some(0);
                let client = Client::new(vec![request], abort, self.whole());
                let heard = std::sync::Arc::clone(&client.heard);
                setup.session(&mut stage, Box::new(client));
                if abort.is_some() {
                    break;
                }
                answers.push(std::mem::take(&mut *heard.lock().unwrap()));
            }
        } else {
            let mut requests = requests;
            if *self == Self::Clamd {
                requests[0].splice(0..0, *b"zIDSESSION\0");
            }
            let mut done = 0;
            // clamd closes after a stream that was too large; the client comes again.
            while done < requests.len() {
                let abort = scene.abort.map(|abort| abort - done);
                let mut left = requests[done..].to_vec();
                if *self == Self::Clamd && done > 0 {
                    left[0].splice(0..0, *b"zIDSESSION\0");
                }
                let client = Client::new(left, abort, self.whole());
                let heard = std::sync::Arc::clone(&client.answers);
                setup.session(&mut stage, Box::new(client));
                let heard = std::mem::take(&mut *heard.lock().unwrap());
                assert!(!heard.is_empty() || abort.is_some(), "{} of {} mails", done, requests.len());
                done += heard.len();
                answers.extend(heard);
                if abort.is_some() {
                    break;
                }
            }
        }
        let mut played = Played::default();
        for (mail, answer) in scene.mails.iter().zip(&answers) {
            self.carry_out(mail, answer, &mut played);
        }
        if let Some(abort) = scene.abort {
            played.told.push(vec![Told::Nothing; scene.mails[abort].recipients.len()]);
        }
        played
    }
}

#[test]
fn streams_in_a_session_of_clamds() {
    run(&Form::Clamd);
}

#[test]
fn reports_of_spamd() {
    run(&Form::Report);
}

#[test]
fn mails_processed_by_spamd() {
    run(&Form::Process);
}

#[test]
fn checks_of_rspamd() {
    run(&Form::Rspamd { actions: false });
}

#[test]
fn checks_of_rspamd_with_all_actions() {
    run(&Form::Rspamd { actions: true });
}

#[test]
fn checks_in_rspamds_old_form() {
    run(&Form::Old);
}
