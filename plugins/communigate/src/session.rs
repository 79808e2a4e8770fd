//! The lines of a CommuniGate helper (Guide/Helpers.html): numbered requests in, answers in any order out. Octets in any
//! slicing; no pipes, no files, no clock.
//!
//! How the words mislead: `ERROR` refuses for good, `REJECTED` keeps the mail in the server's queue for later, and
//! `FAILURE` lets it go on.

use crate::string;

/// The longest line in either direction, in octets with its line feed. A pipe takes that much in one piece, too.
pub const MAX_LINE: usize = 4096;
/// The interface that is spoken, if the server's is not older.
pub const INTERFACE: u32 = 3;
/// The longest number of a request, in digits.
const MAX_NUMBER: usize = 32;
/// From here on what is added ends with a word.
const FINAL_WORD: u32 = 3;

/// The number of a request, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Number(Box<str>);

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To be written, in one piece: a line with its end.
    Say(Vec<u8>),
    /// A mail is to be checked; answered by [`Session::answer`].
    Check(Number, Vec<u8>),
}

/// The answer to a mail. The default is "later".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It goes on.
    Ok,
    /// It goes on with these fields, made by [`Reply::add_header`].
    AddHeader(Vec<u8>),
    /// It is refused for good: what the sender is told.
    Error(String),
    /// It is dropped, and nobody is told.
    Discard,
    /// It stays in the server's queue and is asked about again: why.
    Rejected(String),
    /// It was not looked at, and goes on all the same.
    Failure,
}

impl Default for Reply {
    fn default() -> Self {
        Self::Rejected("Message could not be checked, try again later".into())
    }
}

/// One server.
#[derive(Debug, Default)]
pub struct Session {
    lines: Lines,
    /// What the two have agreed on.
    interface: Option<u32>,
    /// Requests without an answer.
    open: usize,
    /// `QUIT`: answered when nothing is open.
    quits: Vec<Number>,
}

impl Session {
    /// Takes what came.
    pub fn take(&mut self, octets: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for line in self.lines.take(octets) {
            self.line(&line, &mut events);
        }
        events
    }

    fn line(&mut self, line: &Line, events: &mut Vec<Event>) {
        let Some((number, command, rest)) = split(&line.octets) else {
            if !line.octets.trim_ascii().is_empty() {
                events.push(Event::Say(note("a line that is no request is left alone")));
            }
            return;
        };
        let mut say = |reply: &str| events.push(Event::Say(format!("{} {reply}\n", number.0).into_bytes()));
        match &*command.to_ascii_uppercase() {
            b"INTF" => {
                // A number that is not understood is a newer one's.
                let theirs = std::str::from_utf8(word(rest)).ok().and_then(|word| word.parse().ok());
                let agreed = theirs.map_or(INTERFACE, |theirs: u32| theirs.min(INTERFACE));
                self.interface = Some(agreed);
                say(&format!("INTF {agreed}"));
            }
            b"KEY" => say("OK"),
            b"QUIT" => {
                self.quits.push(number);
                self.quit(events);
            }
            b"FILE" => {
                self.open += 1;
                match path(rest) {
                    Some(path) if line.whole => events.push(Event::Check(number, path)),
                    _ => {
                        let reply = Reply::Rejected("Message could not be checked: no path".into());
                        events.extend(self.answer(&number, &reply).into_iter().map(Event::Say));
                    }
                }
            }
            // It is about no mail that is known of, and whatever it is shall not wait for us.
            _ => say("FAILURE"),
        }
    }

    /// The lines for the answer to a mail, each to be written in one piece.
    pub fn answer(&mut self, number: &Number, reply: &Reply) -> Vec<Vec<u8>> {
        let mut lines = vec![reply.print(number, self.interface.unwrap_or(0))];
        self.open = self.open.saturating_sub(1);
        let mut events = Vec::new();
        self.quit(&mut events);
        lines.extend(
            events.into_iter().filter_map(|event| if let Event::Say(line) = event { Some(line) } else { None }),
        );
        lines
    }

    fn quit(&mut self, events: &mut Vec<Event>) {
        if self.open == 0 {
            events.extend(self.quits.drain(..).map(|number| Event::Say(format!("{} OK\n", number.0).into_bytes())));
        }
    }

    /// Mails without an answer.
    pub fn open(&self) -> usize {
        self.open
    }
}

/// A line of the server's log, about no request.
pub fn note(text: &str) -> Vec<u8> {
    let mut line = b"* ".to_vec();
    line.extend(text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' }));
    line.truncate(MAX_LINE - 1);
    line.push(b'\n');
    line
}

impl Reply {
    /// Header fields without line ends, in their order, to be added by the server; `None`: they do not fit into a line, or
    /// have octets that must not be in one.
    pub fn add_header(fields: &[String]) -> Option<Self> {
        let fits = |field: &String| field.bytes().all(|octet| octet == b'\t' || (b' '..=b'~').contains(&octet));
        let (written, whole) = string::write(fields.join("\n").as_bytes(), Self::room("ADDHEADER", " OK"));
        (whole && !fields.is_empty() && fields.iter().all(fits)).then_some(Self::AddHeader(written))
    }

    /// Left for a string in a line, in octets.
    const fn room(word: &str, behind: &str) -> usize {
        MAX_LINE - MAX_NUMBER - 1 - word.len() - 1 - behind.len() - 1
    }

    fn print(&self, number: &Number, interface: u32) -> Vec<u8> {
        let text = |word: &str, text: &str| {
            // What is said of 8-bit text is nothing.
            let plain: String = text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
            [word.as_bytes(), b" ", &string::write(plain.as_bytes(), Self::room(word, "")).0].concat()
        };
        let words = match self {
            Self::Ok => b"OK".to_vec(),
            Self::AddHeader(fields) if interface >= FINAL_WORD => [b"ADDHEADER ", &**fields, b" OK"].concat(),
            Self::AddHeader(fields) => [b"ADDHEADER ", &**fields].concat(),
            Self::Error(why) => text("ERROR", why),
            Self::Discard => b"DISCARD".to_vec(),
            Self::Rejected(why) => text("REJECTED", why),
            Self::Failure => b"FAILURE".to_vec(),
        };
        [number.0.as_bytes(), b" ", &words, b"\n"].concat()
    }
}

/// Number, command and what is behind; `None`: no request.
fn split(line: &[u8]) -> Option<(Number, &[u8], &[u8])> {
    let line = line.trim_ascii_start();
    let number = word(line);
    if number.is_empty() || number.len() > MAX_NUMBER || !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let rest = line[number.len()..].trim_ascii_start();
    let command = word(rest);
    let number = Number(number.iter().copied().map(char::from).collect());
    Some((number, command, rest[command.len()..].trim_ascii()))
}

fn word(text: &[u8]) -> &[u8] {
    text.split(u8::is_ascii_whitespace).next().unwrap_or_default()
}

/// The first word, which may be a string. What is behind it is a newer server's.
fn path(rest: &[u8]) -> Option<Vec<u8>> {
    let path = if rest.starts_with(b"\"") { string::read(rest).ok()?.0 } else { word(rest).to_vec() };
    (!path.is_empty() && !path.contains(&0)).then_some(path)
}

/// Lines out of octets.
#[derive(Debug, Default)]
struct Lines {
    start: Line,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Without its end.
    octets: Vec<u8>,
    /// `false`: it was longer than any, and this is its start.
    whole: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self { octets: Vec::new(), whole: true }
    }
}

impl Lines {
    fn take(&mut self, octets: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in octets.split_inclusive(|octet| *octet == b'\n') {
            let text = piece.strip_suffix(b"\n");
            let line = &mut self.start;
            let (piece, room) = (text.unwrap_or(piece), MAX_LINE - line.octets.len());
            line.whole &= piece.len() <= room;
            line.octets.extend_from_slice(&piece[..piece.len().min(room)]);
            if text.is_some() {
                let mut line = std::mem::take(line);
                while line.octets.last() == Some(&b'\r') {
                    line.octets.pop();
                }
                lines.push(line);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is said and what is to be checked, as text.
    fn heard(session: &mut Session, octets: &[u8]) -> String {
        let events = session.take(octets);
        events.iter().map(shown).collect()
    }

    fn shown(event: &Event) -> String {
        match event {
            Event::Say(line) => String::from_utf8(line.clone()).unwrap(),
            Event::Check(number, path) => format!("check {} {}\n", number.0, String::from_utf8_lossy(path)),
        }
    }

    fn number(number: &str) -> Number {
        Number(number.into())
    }

    fn said(lines: &[Vec<u8>]) -> String {
        String::from_utf8(lines.concat()).unwrap()
    }

    #[test]
    fn the_dialogue_of_the_vendors_page() {
        let mut session = Session::default();
        assert_eq!(heard(&mut session, b"00001 INTF 1\n"), "00001 INTF 1\n");
        let two = b"00002 FILE Queue/1.msg\n00003 FILE Queue/01-09/2.msg\n";
        assert_eq!(heard(&mut session, two), "check 00002 Queue/1.msg\ncheck 00003 Queue/01-09/2.msg\n");
        assert_eq!(said(&session.answer(&number("00003"), &Reply::Error("no".into()))), "00003 ERROR \"no\"\n");
        assert_eq!(heard(&mut session, b"00004 QUIT\n"), "");
        assert_eq!(session.open(), 1);
        assert_eq!(said(&session.answer(&number("00002"), &Reply::Ok)), "00002 OK\n00004 OK\n");
        assert_eq!(heard(&mut session, b"5 QUIT\n"), "5 OK\n");
    }

    #[test]
    fn the_interface_is_the_lower_one() {
        for (theirs, ours) in [("0", 0), ("1", 1), ("2", 2), ("3", 3), ("4", 3), ("99999999999", 3), ("", 3), ("x", 3)]
        {
            let said = heard(&mut Session::default(), format!("1 INTF {theirs}\n").as_bytes());
            assert_eq!(said, format!("1 INTF {ours}\n"));
        }
    }

    #[test]
    fn fields_are_added_as_the_interface_wants_it() {
        let fields = Reply::add_header(&["X-A: \"1\"".into(), "X-B:\t2".into()]).unwrap();
        for (interface, end) in [(None, ""), (Some("2"), ""), (Some("3"), " OK"), (Some("4"), " OK")] {
            let mut session = Session::default();
            if let Some(interface) = interface {
                session.take(format!("1 INTF {interface}\n").as_bytes());
            }
            session.take(b"2 FILE Queue/1.msg\n");
            let line = said(&session.answer(&number("2"), &fields));
            assert_eq!(line, format!("2 ADDHEADER \"X-A: \\\"1\\\"\\eX-B:\\t2\"{end}\n"), "{interface:?}");
        }
        assert_eq!(Reply::add_header(&[]), None);
        assert_eq!(Reply::add_header(&["X: \u{e4}".into()]), None);
        assert_eq!(Reply::add_header(&["X: a\nb".into()]), None);
        assert_eq!(Reply::add_header(&["x".repeat(MAX_LINE)]), None);
        let longest = Reply::add_header(&["x".repeat(Reply::room("ADDHEADER", " OK") - 2)]).unwrap();
        let line = longest.print(&number(&"0".repeat(MAX_NUMBER)), 3);
        assert_eq!((line.len(), line.ends_with(b"x\" OK\n")), (MAX_LINE, true));
    }

    #[test]
    fn commands_of_any_case_and_shape() {
        fn check(line: &str, wanted: &str) {
            assert_eq!(heard(&mut Session::default(), line.as_bytes()), wanted, "{line:?}");
        }
        check("7 file Queue/1.msg\r\n", "check 7 Queue/1.msg\n");
        check("7 File  \t Queue/1.msg HEADERS\r\r\n", "check 7 Queue/1.msg\n");
        check("007 FILE \"Queue/a \\\"b\\\".msg\" HEADERS x\n", "check 007 Queue/a \"b\".msg\n");
        check("  7 FILE Queue/1.msg\n", "check 7 Queue/1.msg\n");
        check("7 key abc\n", "7 OK\n");
        check("7 intf 4\n", "7 INTF 3\n");
        check("7 STATUS\n", "7 FAILURE\n");
        check("7\n", "7 FAILURE\n");
        check("7 \n", "7 FAILURE\n");
        let no_path = "7 REJECTED \"Message could not be checked: no path\"\n";
        check("7 FILE\n", no_path);
        check("7 FILE \"open\n", no_path);
        check("7 FILE \"\"\n", no_path);
        check("7 FILE a\0b\n", no_path);
        check("\n\r\n", "");
        let no_request = "* a line that is no request is left alone\n";
        check("FILE Queue/1.msg\n", no_request);
        check("x7 FILE Queue/1.msg\n", no_request);
        check("-1 FILE Queue/1.msg\n", no_request);
        check(&format!("{} FILE x\n", "1".repeat(MAX_NUMBER + 1)), no_request);
        // Without its end it is no line.
        check("7 FILE Queue/1.ms", "");
        let long = |command: &str| format!("7 {command} {}\n8 KEY\n", "x".repeat(2 * MAX_LINE));
        check(&long("FILE"), &format!("{no_path}8 OK\n"));
        check(&long("OTHER"), "7 FAILURE\n8 OK\n");
    }

    #[test]
    fn no_answer_is_longer_than_a_line_or_more_than_one() {
        let hostile = format!("a\n8 OK\r\"\\{}", "\u{e4}\"".repeat(MAX_LINE));
        for reply in [Reply::Error(hostile.clone()), Reply::Rejected(hostile.clone())] {
            let line = reply.print(&number(&"0".repeat(MAX_NUMBER)), 3);
            assert!(line.len() <= MAX_LINE && line.len() > MAX_LINE - 3, "{}", line.len());
            assert_eq!(line.iter().filter(|octet| **octet == b'\n').count(), 1);
            let at = line.iter().position(|octet| *octet == b'"').unwrap();
            let (text, rest) = string::read(&line[at..]).unwrap();
            assert_eq!(rest, b"\n");
            assert!(text.starts_with(b"a?8 OK?\"\\?\"?\"?"));
        }
        let line = note(&hostile);
        assert_eq!((line.len(), line.iter().filter(|octet| **octet == b'\n').count()), (MAX_LINE, 1));
        assert_eq!(number("7").0.len(), 1);
        assert!(said(&[Reply::default().print(&number("7"), 3)]).starts_with("7 REJECTED \""), "never OK by accident");
    }

    proptest! {
        #[test]
        fn slices_do_not_matter(text in "[0-9 FILEQUTKY\"\\\\/x\r\n\u{0}]{0,120}", cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let whole = Session::default().take(text.as_bytes());
            let (mut session, mut sliced, mut rest) = (Session::default(), Vec::new(), text.as_bytes());
            for length in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*length).min(rest.len()));
                sliced.extend(session.take(head));
                rest = tail;
            }
            prop_assert_eq!(whole, sliced);
        }

        #[test]
        fn every_mail_and_every_question_has_one_answer(requests in proptest::collection::vec(0u8..4, 0..40)) {
            let mut session = Session::default();
            let (mut open, mut answers, mut asked) = (Vec::new(), Vec::new(), 0);
            for (index, kind) in requests.iter().enumerate() {
                asked += 1;
                let line = match kind {
                    0 => format!("{index} FILE Queue/{index}.msg\n"),
                    1 => format!("{index} QUIT\n"),
                    2 => format!("{index} KEY\n"),
                    _ => format!("{index} NEW\n"),
                };
                for event in session.take(line.as_bytes()) {
                    match event {
                        Event::Say(line) => answers.push(line),
                        Event::Check(number, _) => open.push(number),
                    }
                }
            }
            prop_assert_eq!(session.open(), open.len());
            // The last first.
            for number in open.iter().rev() {
                answers.extend(session.answer(number, &Reply::Ok));
            }
            let mut numbers: Vec<String> = answers.iter().map(|line| said(std::slice::from_ref(line)).split(' ').next().unwrap().to_owned()).collect();
            numbers.sort();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), asked);
            prop_assert_eq!(answers.len(), asked);
        }
    }
}
