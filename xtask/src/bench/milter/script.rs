//! What an MTA says to a milter, prepared once: the packets of a connection's opening and of one message, in turns that
//! each end where an answer comes.
//! Not the protocol of the product: it is written from the protocol's description, knows one good session, and so shares
//! no mistake with the code that it measures.

use std::ops::Range;

use super::super::mail::Mail;

/// A packet holds no more body than this (MILTER_CHUNK_SIZE).
const CHUNK: usize = 65_535;

/// Version, actions and protocol steps that Postfix offers: everything of version 6.
const OFFER: [u32; 3] = [6, 0x1ff, 0x001f_ffff];

/// Lines begin with their white space (SMFIP_HDR_LEADSPC); without it one space behind the colon is dropped.
const LEADING_SPACE: u32 = 0x0010_0000;

/// A packet's length and code.
pub(super) const HEAD: usize = 5;

/// A kind of event: its code, the step bit by which it is not sent, the one by which it is not answered, and the macro
/// list it has (SMFIM_*).
struct Event(u8, u32, u32, usize);

const CONNECT: Event = Event(b'C', 0x1, 0x1000, 0);
const HELO: Event = Event(b'H', 0x2, 0x2000, 1);
const MAIL: Event = Event(b'M', 0x4, 0x4000, 2);
const RCPT: Event = Event(b'R', 0x8, 0x8000, 3);
const DATA: Event = Event(b'T', 0x200, 0x1_0000, 4);
const HEADER: Event = Event(b'L', 0x20, 0x80, 6);
const END_OF_HEADER: Event = Event(b'N', 0x40, 0x4_0000, 6);
const BODY: Event = Event(b'B', 0x10, 0x8_0000, 5);
const END_OF_MESSAGE: Event = Event(b'E', 0, 0, 5);

/// The macros that Postfix sends by itself, for each list.
const DEFAULT_MACROS: [&str; 7] = [
    "j {daemon_name} {daemon_addr} v _",
    "{tls_version} {cipher} {cipher_bits} {cert_subject} {cert_issuer}",
    "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}",
    "i {rcpt_addr} {rcpt_host} {rcpt_mailer}",
    "i",
    "i",
    "i",
];

/// Their values for a client without TLS and authentication; what is missing here is not sent. The queue id is known
/// only behind the first recipient.
const MACRO_VALUES: [(&str, &str); 16] = [
    ("_", "client.example [192.0.2.7]"),
    ("i", "4cTq2W3kYzz9sV"),
    ("j", "mail.example"),
    ("v", "Postfix 3.7.11"),
    ("{client_addr}", "192.0.2.7"),
    ("{client_name}", "client.example"),
    ("{client_port}", "51234"),
    ("{client_ptr}", "client.example"),
    ("{daemon_addr}", "192.0.2.1"),
    ("{daemon_name}", "mail.example"),
    ("{mail_addr}", "ada@sender.example"),
    ("{mail_host}", "sender.example"),
    ("{mail_mailer}", "smtp"),
    ("{rcpt_addr}", "ben@receiver.example"),
    ("{rcpt_host}", "receiver.example"),
    ("{rcpt_mailer}", "smtp"),
];

/// What the filter asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    steps: u32,
    /// Macro lists of its own, by number; empty where it has none.
    lists: [String; 7],
}

impl Terms {
    /// Reads the data of the filter's answer to the offer; `None` when it is none.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let (fixed, mut rest) = data.split_at_checked(12)?;
        let mut terms = Self { steps: number(&fixed[8..])?, lists: Default::default() };
        while !rest.is_empty() {
            let (stage, list) = rest.split_at_checked(4)?;
            let end = list.iter().position(|byte| *byte == 0)?;
            if let Some(place) = terms.lists.get_mut(number(stage)? as usize) {
                *place = String::from_utf8_lossy(&list[..end]).into_owned();
            }
            rest = &list[end + 1..];
        }
        (number(fixed)? <= OFFER[0] && terms.steps & !OFFER[2] == 0).then_some(terms)
    }

    fn macros(&self, list: usize) -> &str {
        if self.lists[list].is_empty() { DEFAULT_MACROS[list] } else { &self.lists[list] }
    }
}

/// What the filter answers at the end of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// One packet, to go on.
    Go,
    /// The same, or that it has seen enough of the body.
    GoOrSkip,
    /// Any number of changes, then the decision.
    Decision,
}

/// Packets up to one that is answered.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    /// For error messages: the code of the answered command.
    pub(super) command: u8,
    pub(super) packets: Range<usize>,
    pub(super) expected: Expected,
}

/// A sequence of turns.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    bytes: Vec<u8>,
    turns: Vec<Turn>,
    /// Where the message's number stands.
    number_at: Option<usize>,
}

impl Script {
    /// The packet that offers everything.
    pub(super) fn offer() -> Vec<u8> {
        let mut script = Self::default();
        let data: Vec<u8> = OFFER.iter().flat_map(|field| field.to_be_bytes()).collect();
        script.packet(b'O', &[&data]);
        script.bytes
    }

    /// How Postfix leaves: it aborts twice, then quits.
    pub(super) fn farewell() -> Vec<u8> {
        let mut script = Self::default();
        for code in [b'A', b'A', b'Q'] {
            script.packet(code, &[]);
        }
        script.bytes
    }

    /// Client and HELO.
    pub(super) fn opening(terms: &Terms) -> Self {
        let mut script = Self::default();
        script.event(terms, &CONNECT, &[b"client.example\0", b"4", &51_234_u16.to_be_bytes(), b"192.0.2.7\0"]);
        script.event(terms, &HELO, &[b"sender.example\0"]);
        script
    }

    /// One message, beginning with the abort that Postfix sends before every MAIL but a connection's first.
    pub(super) fn message(terms: &Terms, mail: &Mail) -> Self {
        let mut script = Self::default();
        let content = mail.bytes();
        let header_ends = find(content, b"\r\n\r\n").map_or(content.len(), |at| at + 2);
        let header = String::from_utf8_lossy(&content[..header_ends]);
        let body = content.get(header_ends + 2..).unwrap_or_default();

        script.packet(b'A', &[]);
        let size = format!("SIZE={}\0", content.len());
        script.event(terms, &MAIL, &[b"<ada@sender.example>\0", size.as_bytes()]);
        script.event(terms, &RCPT, &[b"<ben@receiver.example>\0"]);
        script.event(terms, &DATA, &[]);
        for (name, value) in fields(&header, terms.steps & LEADING_SPACE != 0) {
            script.event(terms, &HEADER, &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
        }
        script.event(terms, &END_OF_HEADER, &[]);
        for chunk in body.chunks(CHUNK) {
            script.event(terms, &BODY, &[chunk]);
        }
        script.event(terms, &END_OF_MESSAGE, &[]);
        script.number_at = find(&script.bytes, mail.number());
        script
    }

    pub(super) fn turns(&self) -> &[Turn] {
        &self.turns
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What follows the last turn: packets that nobody answers.
    pub(super) fn unanswered(&self) -> &[u8] {
        &self.bytes[self.answered()..]
    }

    /// Gives the message the number of `mail`.
    pub(super) fn number_as(&mut self, mail: &Mail) {
        if let Some(at) = self.number_at {
            self.bytes[at..at + mail.number().len()].copy_from_slice(mail.number());
        }
    }

    fn answered(&self) -> usize {
        self.turns.last().map_or(0, |turn| turn.packets.end)
    }

    /// The macros come also for an event that the filter does not want; Postfix does that.
    fn event(&mut self, terms: &Terms, event: &Event, data: &[&[u8]]) {
        let Event(code, not_sent, not_answered, list) = *event;
        self.macros(code, terms.macros(list));
        if terms.steps & not_sent != 0 {
            return;
        }
        self.packet(code, data);
        if terms.steps & not_answered == 0 {
            let expected = match code {
                b'B' => Expected::GoOrSkip,
                b'E' => Expected::Decision,
                _ => Expected::Go,
            };
            let packets = self.answered()..self.bytes.len();
            self.turns.push(Turn { command: code, packets, expected });
        }
    }

    fn macros(&mut self, code: u8, names: &str) {
        let mut data = vec![code];
        for name in names.split([' ', ',']) {
            if name == "i" && matches!(code, b'C' | b'H' | b'M' | b'R') {
                continue;
            }
            if let Some((name, value)) = MACRO_VALUES.iter().find(|(known, _)| *known == name) {
                data.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
            }
        }
        self.packet(b'D', &[&data]);
    }

    #[allow(clippy::cast_possible_truncation)] // Own packets, below 64 KiB.
    fn packet(&mut self, code: u8, data: &[&[u8]]) {
        let length = 1 + data.iter().map(|part| part.len()).sum::<usize>() as u32;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.push(code);
        data.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }
}

/// Names and values of header fields: folds are a bare LF, the last line end is gone.
fn fields(header: &str, leading_space: bool) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in header.split_terminator("\r\n") {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => {
                value.push('\n');
                value.push_str(line);
            }
            (false, _, Some((name, value))) => {
                let value = if leading_space { value } else { value.strip_prefix(' ').unwrap_or(value) };
                fields.push((name.to_string(), value.to_string()));
            }
            _ => {}
        }
    }
    fields
}

/// The first four bytes as a number, most significant first.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(steps: u32) -> Terms {
        Terms { steps, lists: Default::default() }
    }

    /// The codes of all packets; lower case for those that are answered.
    fn codes(script: &Script) -> String {
        let (mut at, mut codes) = (0, String::new());
        while let Some(length) = number(&script.bytes[at..]) {
            let end = at + 4 + length as usize;
            let answered = script.turns.iter().any(|turn| turn.packets.end == end);
            let code = char::from(script.bytes[at + 4]);
            codes.push(if answered { code.to_ascii_lowercase() } else { code });
            at = end;
        }
        assert_eq!(at, script.bytes.len());
        codes
    }

    #[test]
    fn answers_come_where_the_steps_say() {
        let (small, large) = (Mail::of_size(4096), Mail::of_size(100_000));
        let check = |steps: u32, opening: &str, mail: &Mail, message: &str| {
            assert_eq!(codes(&Script::opening(&terms(steps))), opening, "{steps:x}");
            assert_eq!(codes(&Script::message(&terms(steps), mail)), message, "{steps:x}");
        };
        check(0, "DcDh", &small, &format!("ADmDrDt{}DnDbDe", "Dl".repeat(9)));
        check(0, "DcDh", &large, &format!("ADmDrDt{}DnDbDbDe", "Dl".repeat(8)));
        check(0xc_0080, "DcDh", &large, &format!("ADmDrDt{}DNDBDBDe", "DL".repeat(8)));
        check(0x1f_f0ff, "DD", &small, &format!("ADDDT{}DDDe", "D".repeat(9)));
    }

    #[test]
    fn the_filter_chooses_its_macros() {
        let mut data = [6_u32, 0x1ff, 0x80].map(u32::to_be_bytes).concat();
        data.extend_from_slice(b"\0\0\0\0{client_addr} {client_port}\0\0\0\0\x05i\0");
        let terms = Terms::read(&data).unwrap();
        assert_eq!((terms.steps, terms.macros(0), terms.macros(5)), (0x80, "{client_addr} {client_port}", "i"));
        let opening = Script::opening(&terms);
        assert!(find(&opening.bytes, b"DC{client_addr}\x00192.0.2.7\0{client_port}\x0051234\0").is_some());
        for broken in [&data[..11], &data[..data.len() - 1], &[7_u32, 0, 0].map(u32::to_be_bytes).concat()] {
            assert_eq!(Terms::read(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn fields_are_as_an_mta_shows_them() {
        let header = "A: x;\r\n\ty\r\nB:z\r\nC:\r\n";
        let pairs = |leading_space| fields(header, leading_space);
        let owned = |pairs: [(&str, &str); 3]| pairs.map(|(name, value)| (name.to_string(), value.to_string()));
        assert_eq!(pairs(false), owned([("A", "x;\n\ty"), ("B", "z"), ("C", "")]));
        assert_eq!(pairs(true), owned([("A", " x;\n\ty"), ("B", "z"), ("C", "")]));
    }

    #[test]
    fn each_message_has_its_number() {
        let mut mail = Mail::of_size(4096);
        let mut script = Script::message(&terms(0), &mail);
        mail.set_number(0xabc);
        script.number_as(&mail);
        assert!(find(&script.bytes, b"Message-ID\0<0000000000000abc.bench@").is_some());
    }
}
