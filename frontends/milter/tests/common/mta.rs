//! A mail server's side of milter, by the protocol's descriptions and not by our codec: what it sends, where
//! it waits, and what it makes of our edits. Anything that Postfix or Sendmail would take for a protocol
//! error fails the test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use checkpost_adapter::conformance::{Does, HandedOn, Peer, Played, TestMail, Then, Told};

// mfdef.h: what is not sent, and what is not answered.
const NO_CONNECT: u32 = 0x1;
const NO_DATA: u32 = 0x200;
const NR_HEADER: u32 = 0x80;
const NR_CONNECT: u32 = 0x1000;
const NR_HELO: u32 = 0x2000;
const NR_MAIL: u32 = 0x4000;
const NR_RECIPIENT: u32 = 0x8000;
const NR_DATA: u32 = 0x1_0000;
const NR_END_OF_HEADER: u32 = 0x4_0000;
const NR_BODY: u32 = 0x8_0000;
const LEADING_SPACE: u32 = 0x10_0000;

/// Version, actions, steps as Postfix 3.7 and Sendmail 8.17 offer them.
pub const OFFER: (u32, u32, u32) = (6, 0x1ff, 0x1f_ffff);
/// As a mail server of 2003 would.
pub const OLD_OFFER: (u32, u32, u32) = (2, 0x3f, 0x7f);

/// How the connection ends when the client goes within a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// ABORT, then QUIT (Postfix).
    Abort,
    /// QUIT only (Sendmail).
    Quit,
    /// Nothing but the end (Sendmail, client lost in DATA).
    End,
}

/// A mail server with mails to send over one SMTP session.
pub struct Mta {
    offer: (u32, u32, u32),
    steps: u32,
    mails: VecDeque<TestMail>,
    abort: Option<usize>,
    leaving: Leaving,
    index: usize,
    acts: VecDeque<Act>,
    awaits: Option<Await>,
    incoming: Vec<u8>,
    edits: Vec<(u8, Vec<u8>)>,
    refused: bool,
    current: Option<TestMail>,
    told_recipients: Vec<Told>,
    played: Arc<Mutex<Played>>,
    then: Then,
}

struct Act(Vec<u8>, Option<Await>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Await {
    Negotiation,
    Session,
    Sender,
    Recipient,
    Content,
    Decision,
}

/// One packet.
pub fn packet(code: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = (data.len() as u32 + 1).to_be_bytes().to_vec();
    packet.push(code);
    packet.extend_from_slice(data);
    packet
}

/// OPTNEG.
pub fn negotiation(offer: (u32, u32, u32)) -> Vec<u8> {
    packet(b'O', &[offer.0.to_be_bytes(), offer.1.to_be_bytes(), offer.2.to_be_bytes()].concat())
}

/// CONNECT from a host with a name.
pub fn connect() -> Vec<u8> {
    packet(b'C', b"client.example.net\x004\x12\x34192.0.2.7\0")
}

impl Mta {
    pub fn new(
        offer: (u32, u32, u32),
        mails: Vec<TestMail>,
        abort: Option<usize>,
        leaving: Leaving,
    ) -> (Box<Self>, Arc<Mutex<Played>>) {
        let played: Arc<Mutex<Played>> = Arc::default();
        let mta = Self {
            offer,
            steps: 0,
            mails: mails.into(),
            abort,
            leaving,
            index: 0,
            acts: VecDeque::new(),
            awaits: None,
            incoming: Vec::new(),
            edits: Vec::new(),
            refused: false,
            current: None,
            told_recipients: Vec::new(),
            played: Arc::clone(&played),
            then: Then::Stay,
        };
        (Box::new(mta), played)
    }

    fn act(&mut self, bytes: Vec<u8>, awaits: Await, silent: u32) {
        let awaits = (self.steps & silent == 0).then_some(awaits);
        self.acts.push_back(Act(bytes, awaits));
    }

    fn begin(&mut self) {
        let connect = [packet(b'D', b"Cj\0mx.example.org\0{daemon_name}\0mx\0"), connect()].concat();
        if self.steps & NO_CONNECT == 0 {
            self.act(connect, Await::Session, NR_CONNECT);
        }
        let helo = [packet(b'D', b"H"), packet(b'H', b"client.example.net\0")].concat();
        self.act(helo, Await::Session, NR_HELO);
        self.next_mail();
    }

    fn next_mail(&mut self) {
        let Some(mail) = self.mails.pop_front() else {
            self.acts.push_back(Act([packet(b'A', b""), packet(b'A', b""), packet(b'Q', b"")].concat(), None));
            self.then = Then::Finish;
            return;
        };
        self.edits.clear();
        self.told_recipients.clear();
        // Postfix says ABORT before each further MAIL.
        let mut sender = if self.index > 0 { packet(b'A', b"") } else { Vec::new() };
        sender.extend(packet(b'D', b"M{mail_addr}\0x\0"));
        sender.extend(packet(b'M', format!("<{}>\0SIZE={}\0", mail.sender, mail.content.len()).as_bytes()));
        self.act(sender, Await::Sender, NR_MAIL);
        for (at, to) in mail.recipients.iter().enumerate() {
            let macros = if at == 0 { packet(b'D', b"R{rcpt_addr}\0x\0") } else { packet(b'D', b"Ri\x004711\0") };
            let recipient = [macros, packet(b'R', format!("<{to}>\0").as_bytes())].concat();
            self.act(recipient, Await::Recipient, NR_RECIPIENT);
        }
        if self.steps & NO_DATA == 0 && self.offer.0 >= 4 {
            self.act([packet(b'D', b"Ti\x004711\0"), packet(b'T', b"")].concat(), Await::Content, NR_DATA);
        }
        let (fields, body) = split(&mail.content);
        for (name, value) in fields {
            let value = if self.steps & LEADING_SPACE == 0 {
                value.strip_prefix(' ').unwrap_or(&value).to_owned()
            } else {
                value
            };
            let data = format!("{name}\0{value}\0");
            self.act(
                [packet(b'D', b"Li\x004711\0"), packet(b'L', data.as_bytes())].concat(),
                Await::Content,
                NR_HEADER,
            );
        }
        self.act([packet(b'D', b"Ni\x004711\0"), packet(b'N', b"")].concat(), Await::Content, NR_END_OF_HEADER);
        let leaves = self.abort == Some(self.index);
        // Small pieces, so that their borders fall anywhere.
        let pieces: Vec<&[u8]> = body.chunks(if body.len() > 1000 { 65_535 } else { 7 }).collect();
        for piece in &pieces[..if leaves { pieces.len() / 2 } else { pieces.len() }] {
            self.act([packet(b'D', b"Bi\x004711\0"), packet(b'B', piece)].concat(), Await::Content, NR_BODY);
        }
        if leaves {
            self.mails.clear();
            self.played.lock().unwrap().told.push(vec![Told::Nothing; mail.recipients.len()]);
            let last = match self.leaving {
                Leaving::Abort => [packet(b'A', b""), packet(b'Q', b"")].concat(),
                Leaving::Quit => packet(b'Q', b""),
                Leaving::End => Vec::new(),
            };
            self.acts.push_back(Act(last, None));
            self.then = Then::Finish;
        } else {
            self.acts
                .push_back(Act([packet(b'D', b"Ei\x004711\0"), packet(b'E', b"")].concat(), Some(Await::Decision)));
        }
        self.index += 1;
        self.current = Some(mail);
    }

    /// Sends until an answer is to be waited for.
    fn speak(&mut self) -> Does {
        let mut say = Vec::new();
        while self.awaits.is_none() {
            let Some(Act(bytes, awaits)) = self.acts.pop_front() else { break };
            say.extend(bytes);
            self.awaits = awaits;
        }
        let then = if self.awaits.is_none() && self.acts.is_empty() { self.then } else { Then::Stay };
        Does { say, then, ..Does::default() }
    }

    fn answer(&mut self, code: u8, data: &[u8]) {
        let awaits = self.awaits.expect("an answer that nobody waits for");
        match (awaits, code) {
            (Await::Negotiation, b'O') => self.negotiated(data),
            (Await::Decision, b'p') => assert!(data.is_empty(), "PROGRESS has no data"),
            (Await::Decision, b'h' | b'i' | b'm' | b'b' | b'+' | b'2' | b'-' | b'e' | b'q') => {
                let after_body = self.edits.last().is_some_and(|(code, _)| *code == b'b');
                assert!(!after_body || code == b'b', "Postfix takes a body in one run at the end only");
                self.edits.push((code, data.to_vec()));
            }
            (_, b'c' | b'a' | b'r' | b't' | b'd') => {
                assert!(data.is_empty(), "{:?} has no data", code as char);
                self.decided(awaits, code, "");
            }
            (_, b'y') => {
                let text = std::str::from_utf8(data).unwrap().strip_suffix('\0').expect("ends in NUL");
                assert!(text.as_bytes()[..3].iter().all(u8::is_ascii_digit) && text.as_bytes()[3] == b' ', "{text}");
                assert_eq!(text.matches('%').count() % 2, 0, "Sendmail takes a single % for a format");
                self.decided(awaits, text.as_bytes()[0], &text.replace("%%", "%"));
            }
            _ => panic!("{:?} is no answer to {awaits:?}", code as char),
        }
    }

    fn negotiated(&mut self, data: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        assert!(number(0) <= self.offer.0, "a version that was not offered");
        assert_eq!(number(4) & !self.offer.1, 0, "actions that were not offered");
        assert_eq!(number(8) & !self.offer.2, 0, "steps that were not offered: Sendmail drops the filter");
        assert!(data.len() == 12 || self.offer.0 >= 6, "an old server takes no list of macros");
        assert!(data.len() == 12 || data.last() == Some(&0), "the lists end in NUL");
        self.offer.1 = number(4);
        self.steps = number(8);
        self.awaits = None;
        self.begin();
    }

    fn decided(&mut self, awaits: Await, code: u8, text: &str) {
        self.awaits = None;
        let told = match code {
            b'c' | b'a' | b'd' => Told::Accepted,
            b'r' | b'5' => Told::Rejected(text.to_owned()),
            _ => Told::Deferred(text.to_owned()),
        };
        match awaits {
            Await::Negotiation => panic!("no answer to the offer"),
            Await::Session => {
                assert!(matches!(code, b'c' | b'a' | b'r' | b't' | b'4' | b'5'), "not allowed at CONNECT and HELO");
                self.refused |= told != Told::Accepted;
            }
            Await::Recipient => self.told_recipients.push(told),
            Await::Sender | Await::Content if told == Told::Accepted && code != b'd' => {}
            Await::Sender | Await::Content => {
                let mail = self.current.take().unwrap();
                self.played.lock().unwrap().told.push(vec![told; mail.recipients.len()]);
                self.acts.clear();
                self.next_mail();
            }
            Await::Decision => {
                let mail = self.current.take().unwrap();
                if told == Told::Accepted && code != b'd' {
                    self.hand_on(&mail);
                }
                let mut all = self.told_recipients.clone();
                all.resize(mail.recipients.len(), Told::Accepted);
                let all = all.into_iter().map(|own| if own == Told::Accepted { told.clone() } else { own }).collect();
                self.played.lock().unwrap().told.push(all);
                self.next_mail();
            }
        }
    }

    /// The mail with our edits, as Postfix makes them.
    fn hand_on(&mut self, mail: &TestMail) {
        let accepted = |at: usize| self.told_recipients.get(at).is_none_or(|told| *told == Told::Accepted);
        let mut recipients: Vec<String> =
            mail.recipients.iter().enumerate().filter(|(at, _)| accepted(*at)).map(|(_, to)| to.clone()).collect();
        let mut sender = mail.sender.clone();
        let (shown, mut body) = split(&mail.content);
        // Ours is the first, and is not shown.
        let mut fields: Vec<(String, String, bool)> = vec![("Received".into(), " by us".into(), true)];
        fields.extend(shown.into_iter().map(|(name, value)| (name, value, false)));
        let mut new_body: Option<Vec<u8>> = None;
        let mut held = false;
        let spaced = self.steps & LEADING_SPACE != 0;
        let value_of = |octets: &[u8]| {
            let text = String::from_utf8(octets.to_vec()).unwrap();
            assert!(!text.contains('\r'), "header values have LF only");
            if spaced { text } else { format!(" {text}") }
        };
        for (code, data) in &self.edits {
            let need = match code {
                b'h' | b'i' => 0x1,
                b'b' => 0x2,
                b'+' => 0x4,
                b'-' => 0x8,
                b'm' => 0x10,
                b'q' => 0x20,
                b'e' => 0x40,
                _ => 0x80,
            };
            assert!(self.offer.1 & need != 0, "{:?} was not agreed on", *code as char);
            let strings: Vec<&[u8]> = data.split(|octet| *octet == 0).collect();
            match code {
                b'i' | b'm' => {
                    let index = u32::from_be_bytes(data[..4].try_into().unwrap()) as usize;
                    let rest: Vec<&[u8]> = data[4..].split(|octet| *octet == 0).collect();
                    assert_eq!((rest.len(), rest[2]), (3, &b""[..]), "two strings");
                    let name = String::from_utf8(rest[0].to_vec()).unwrap();
                    if *code == b'i' {
                        fields.insert(index.min(fields.len()), (name, value_of(rest[1]), false));
                        continue;
                    }
                    let found = (0..fields.len())
                        .filter(|&at| !fields[at].2 && fields[at].0.eq_ignore_ascii_case(&name))
                        .nth(index.max(1) - 1)
                        .expect("only what is there is changed");
                    if rest[1].is_empty() {
                        fields.remove(found);
                    } else {
                        fields[found].1 = value_of(rest[1]);
                    }
                }
                b'b' => {
                    assert!(data.len() <= 65_535);
                    new_body.get_or_insert_default().extend_from_slice(data);
                }
                b'+' | b'2' | b'-' | b'e' => {
                    let address = String::from_utf8(strings[0].to_vec()).unwrap();
                    let plain = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap().to_owned();
                    if strings.len() == 3 {
                        assert!(*code == b'2' && strings[1] == b"NOTIFY=NEVER", "{strings:?}");
                    } else {
                        assert_eq!((strings.len(), strings[1]), (2, &b""[..]), "{strings:?}");
                    }
                    match code {
                        b'-' => recipients.retain(|known| *known != plain),
                        b'e' => sender = plain,
                        _ => recipients.push(plain),
                    }
                }
                b'q' => {
                    assert!(!strings[0].is_empty(), "libmilter takes no empty reason");
                    held = true;
                }
                _ => panic!("{:?} is not used", *code as char),
            }
        }
        body = new_body.unwrap_or(body);
        let mut content = Vec::new();
        for (name, value, _) in fields.iter().filter(|(_, _, own)| !own) {
            content.extend(format!("{name}:{}\r\n", value.replace('\n', "\r\n")).into_bytes());
        }
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(&body);
        self.played.lock().unwrap().handed_on.push(HandedOn { sender, recipients, content, held });
    }
}

impl Peer for Mta {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        if bytes.is_empty() && self.index == 0 && self.awaits.is_none() {
            self.awaits = Some(Await::Negotiation);
            return Does::say(negotiation(self.offer));
        }
        self.incoming.extend_from_slice(bytes);
        while let Some(head) = self.incoming.first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            assert!(length > 0, "a packet of no length");
            if self.incoming.len() < 4 + length {
                break;
            }
            let packet: Vec<u8> = self.incoming.drain(..4 + length).collect();
            self.answer(packet[4], &packet[5..]);
        }
        if self.refused {
            // Postfix closes after a refusal at CONNECT or HELO, without QUIT.
            return Does::hangup();
        }
        self.speak()
    }
}

/// Header fields as milter shows them (name, value with LF folds), and the body.
fn split(content: &[u8]) -> (Vec<(String, String)>, Vec<u8>) {
    let text = String::from_utf8(content.to_vec()).expect("a test's mail is text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a test's mail has a header and a body");
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        match fields.last_mut() {
            Some((_, value)) if line.starts_with([' ', '\t']) => value.push_str(&format!("\n{line}")),
            _ => {
                let (name, value) = line.split_once(':').unwrap();
                fields.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    (fields, body.as_bytes().to_vec())
}
