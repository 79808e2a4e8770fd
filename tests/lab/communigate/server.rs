//! The server: its base directory and queue, what it asks of its helper, and what it does with each answer.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::helper::{Ended, Helper, SOON, Said, names, read};
use super::pipe::Sub;
use super::reply::Reply;

/// A mail as it comes to the queue.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The line that says where it came from, without its kind.
    pub source: String,
    /// The envelope's sender.
    pub sender: String,
    /// Those of the envelope.
    pub recipients: Vec<String>,
    /// LF line ends.
    pub message: Vec<u8>,
    /// Of the envelope's lines.
    pub order: Order,
}

/// Versions write the envelope's lines in different orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `S` first.
    SourceFirst,
    /// `P` first.
    SenderFirst,
    /// `R` first, without `A` and `O`, and with a kind of line that nobody knows.
    Odd,
}

impl Mail {
    /// From outside, by SMTP.
    pub fn new(recipients: &[&str], message: &[u8]) -> Self {
        Self {
            source: "SMTP [192.0.2.7]".into(),
            sender: "s@example.net".into(),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            message: message.to_vec(),
            order: Order::SourceFirst,
        }
    }

    /// As it stands in the queue.
    pub fn file(&self) -> Vec<u8> {
        let source = format!("S {}\n", self.source);
        let local = "A mx.example.test [198.51.100.1]\nO L\n";
        let sender = format!("P I 27-11-2026 15:57:14 0000 ____ ____ <{}>\n", self.sender);
        let recipient = |to: &String| format!("R W 27-11-2026 15:57:14 0000 ____ _FY_ <{to}>\n");
        let recipients: String = self.recipients.iter().map(recipient).collect();
        let lines = match self.order {
            Order::SourceFirst => format!("{source}{local}{sender}{recipients}"),
            Order::SenderFirst => format!("{sender}{source}{local}{recipients}"),
            Order::Odd => format!("{recipients}N <new@x> 7\n{source}{sender}"),
        };
        [lines.as_bytes(), b"\n", &self.message].concat()
    }
}

/// A mail that went on to its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The envelope's sender.
    pub sender: String,
    /// Who got it.
    pub recipients: Vec<String>,
    /// With the fields that were added, on top.
    pub message: Vec<u8>,
}

/// A server with a helper.
#[derive(Debug)]
pub struct Server {
    base: PathBuf,
    /// Removed when dropped, if it was made here.
    _made: Option<tempfile::TempDir>,
    program: PathBuf,
    /// The helper's argument, if it has one.
    settings: Option<PathBuf>,
    user: Option<u32>,
    helper: Option<Helper>,
    interface: u32,
    number: u64,
    file: u64,
    queue: HashMap<String, Mail>,
    open: HashMap<String, Asked>,
    answers: HashMap<String, (Reply, Vec<String>)>,
    /// Lines for the log.
    pub log: Vec<String>,
    /// What went on, in order.
    pub delivered: Vec<Delivered>,
    /// Whom the server told of a refusal: the sender, and the words.
    pub refused: Vec<(String, String)>,
    /// Mails that were dropped.
    pub dropped: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// About this file.
    File(String),
    /// Something else: the answer that is due.
    Other(&'static str),
}

impl Server {
    /// A server that will start this program with this settings file.
    pub fn new(program: &Path, settings: &Path) -> io::Result<Self> {
        let base = tempfile::Builder::new().prefix("checkpost-cgp-").tempdir()?;
        for folder in ["Queue/01-09", "Submitted"] {
            fs::create_dir_all(base.path().join(folder))?;
        }
        // As the server's own folders are: not for others.
        fs::set_permissions(base.path().join("Queue"), fs::Permissions::from_mode(0o700))?;
        let path = base.path().to_owned();
        Ok(Self {
            _made: Some(base),
            program: program.to_owned(),
            settings: Some(settings.to_owned()),
            ..Self::at(path)
        })
    }

    /// One with a base directory that is there.
    pub(super) fn at(base: impl Into<PathBuf>) -> Self {
        Self {
            base: base.into(),
            _made: None,
            program: PathBuf::new(),
            settings: None,
            user: None,
            helper: None,
            interface: 0,
            number: 0,
            file: 0,
            queue: HashMap::new(),
            open: HashMap::new(),
            answers: HashMap::new(),
            log: Vec::new(),
            delivered: Vec::new(),
            refused: Vec::new(),
            dropped: 0,
        }
    }

    /// The base directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// A file in the base directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// From its next start on the helper is this user's, as of a server that has given up root. The program is copied to
    /// where that user can start it.
    pub fn run_as(&mut self, user: u32) {
        let copy = self.path("helper");
        fs::copy(&self.program, &copy).expect("the program is there");
        (self.program, self.user) = (copy, Some(user));
    }

    /// What is in `Submitted`.
    pub fn submitted(&self) -> Vec<String> {
        names(&self.path("Submitted"))
    }

    /// The running helper.
    pub fn helper(&mut self) -> &mut Helper {
        self.helper.as_mut().expect("a helper runs")
    }

    /// Starts the helper, asks for its interface at once, and asks again about all mails that have no answer.
    pub fn start(&mut self, interface: u32) {
        assert!(self.helper.is_none(), "one helper");
        let settings: Vec<&Path> = self.settings.iter().map(PathBuf::as_path).collect();
        let helper = Helper::start(&self.program, &settings, &self.base, self.user);
        self.helper = Some(helper.expect("the helper starts"));
        let mut again: Vec<String> = self.open.drain().filter_map(|(_, asked)| asked.file()).collect();
        again.sort();
        let agreed = if interface < 3 { ["INTF 0", "INTF 1", "INTF 2"][interface as usize] } else { "INTF 3" };
        self.interface = interface.min(3);
        self.say(&format!("INTF {interface}"), agreed);
        self.settle();
        for file in again {
            self.ask(&file);
        }
    }

    /// Starts this program as the helper, without an argument.
    pub(super) fn start_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
        self.start(3);
    }

    /// Asks about all mails in the queue, and waits for the answers.
    pub(super) fn ask_all(&mut self) {
        let mut files: Vec<String> = self.queue.keys().cloned().collect();
        files.sort();
        files.iter().for_each(|file| drop(self.ask(file)));
        self.settle();
    }

    /// Lets all mails go on, without a question.
    pub(super) fn pass(&mut self) {
        let files: Vec<String> = self.queue.keys().cloned().collect();
        self.answers.extend(files.into_iter().map(|file| (file, (Reply::Ok, Vec::new()))));
        self.act();
    }

    /// Puts a mail into the queue: the name of its file.
    pub fn put(&mut self, mail: Mail) -> String {
        self.file += 1;
        let folder = if self.file.is_multiple_of(2) { "Queue/01-09" } else { "Queue" };
        let name = format!("{folder}/{}.msg", 10_000 + self.file);
        fs::write(self.path(&name), mail.file()).expect("the queue can be written");
        self.queue.insert(name.clone(), mail);
        name
    }

    /// Mails in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Asks about a file: the number.
    pub fn ask(&mut self, file: &str) -> String {
        self.ask_as(file, &format!("FILE {file}"))
    }

    /// Asks about a file in these words.
    pub fn ask_as(&mut self, file: &str, words: &str) -> String {
        let number = self.number();
        self.open.insert(number.clone(), Asked::File(file.to_owned()));
        self.helper().send(format!("{number} {words}\n").as_bytes());
        number
    }

    /// Says something that is about no mail: this answer is due.
    pub fn say(&mut self, words: &str, due: &'static str) {
        let number = self.number();
        self.open.insert(number.clone(), Asked::Other(due));
        self.helper().send(format!("{number} {words}\n").as_bytes());
    }

    fn number(&mut self) -> String {
        self.number += 1;
        format!("{:06}", self.number)
    }

    /// Requests without an answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Hears a line within the time; `false`: there was none.
    pub fn hear(&mut self, within: Duration) -> bool {
        let Some(said) = self.helper().hear(within) else { return false };
        self.heard(&said);
        true
    }

    fn heard(&mut self, said: &Said) {
        let line = String::from_utf8(said.line.clone()).expect("lines are ASCII");
        if let Some(note) = line.strip_prefix("* ") {
            return self.log.push(note.to_owned());
        }
        let (number, text) = line.split_once(' ').unwrap_or_else(|| panic!("neither a note nor an answer: {line}"));
        match self.open.remove(number) {
            None => panic!("an answer to no open request: {line}"),
            Some(Asked::Other(due)) => assert_eq!(text, due, "{line}"),
            Some(Asked::File(file)) => {
                let reply = Reply::read(text.as_bytes(), self.interface);
                // What is handed in for it has its last name by now, unless it was asked about twice.
                if reply == Reply::Discard && !self.open.values().any(|asked| *asked == Asked::File(file.clone())) {
                    let id =
                        Path::new(&file).file_stem().map_or_else(String::new, |id| id.to_string_lossy().into_owned());
                    let is_draft = |name: &String| name.contains(&format!("-{id}-")) && name.ends_with(".tmp");
                    assert!(!said.submitted.iter().any(is_draft), "{file} dropped too early: {:?}", said.submitted);
                }
                self.answers.insert(file, (reply, said.submitted.clone()));
            }
        }
    }

    /// Hears until all has an answer.
    pub fn settle(&mut self) {
        let end = Instant::now() + SOON;
        while !self.open.is_empty() {
            let heard = self.hear(end.saturating_duration_since(Instant::now()));
            assert!(heard, "no answer to {:?}; log: {:#?}", self.open, self.log);
        }
    }

    /// Hears until the log has a line with this in it.
    pub fn hear_note(&mut self, text: &str) {
        let end = Instant::now() + SOON;
        while !self.log.iter().any(|line| line.contains(text)) {
            let heard = self.hear(end.saturating_duration_since(Instant::now()));
            assert!(heard, "no {text:?} in the log: {:#?}", self.log);
        }
    }

    /// Puts a mail into the queue, asks about it, and waits: the answer. The server does not act on it yet.
    pub fn check(&mut self, mail: Mail) -> (String, Reply) {
        let file = self.put(mail);
        self.ask(&file);
        self.settle();
        let reply = self.reply(&file);
        (file, reply)
    }

    /// The answer about a file, as it is here.
    pub fn reply(&self, file: &str) -> Reply {
        self.answers.get(file).unwrap_or_else(|| panic!("no answer about {file}")).0.clone()
    }

    /// What was in `Submitted` when the answer about a file was read.
    pub fn submitted_at(&self, file: &str) -> &[String] {
        &self.answers[file].1
    }

    /// The answer about a file was lost before the server had read it.
    pub fn forget(&mut self, file: &str) {
        self.answers.remove(file).expect("there is an answer");
    }

    /// Does what the answers say. What stays in the queue stays there.
    pub fn act(&mut self) {
        let mut answers: Vec<_> = self.answers.drain().collect();
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (file, (reply, _)) in answers {
            // A mail whose file is gone has had its answer before.
            let Some(mail) = self.queue.get(&file).cloned() else { continue };
            if let Reply::Rejected(_) = reply {
                continue;
            }
            assert_eq!(read(&self.path(&file)), mail.file(), "the queue's files are only read");
            match reply {
                Reply::Discard => self.dropped += 1,
                Reply::Error(text) => self.refused.push((mail.sender, text)),
                Reply::AddHeader(lines) => {
                    let added: String = lines.iter().map(|line| format!("{line}\n")).collect();
                    let message = [added.as_bytes(), &mail.message].concat();
                    self.delivered.push(Delivered { sender: mail.sender, recipients: mail.recipients, message });
                }
                _ => {
                    let Mail { sender, recipients, message, .. } = mail;
                    self.delivered.push(Delivered { sender, recipients, message });
                }
            }
            fs::remove_file(self.path(&file)).expect("it is there");
            self.queue.remove(&file);
        }
    }

    /// The PIPE module looks into its folder: the files of the mails that it makes of what it finds. It never takes what
    /// has not its last name.
    pub fn poll(&mut self) -> Vec<String> {
        let mut files = Vec::new();
        for name in self.submitted().into_iter().filter(|name| name.ends_with(".sub")) {
            let path = self.path("Submitted").join(&name);
            match Sub::read(&read(&path)) {
                Ok(sub) => {
                    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("addresses here are text");
                    let received = b"Received: from [127.0.0.1] by mx.example.test (PIPE); Fri, 27 Nov 2026\n";
                    files.push(self.put(Mail {
                        source: "PIPE".into(),
                        sender: text(sub.sender),
                        recipients: sub.recipients.into_iter().map(text).collect(),
                        message: [received.as_slice(), &sub.message].concat(),
                        order: Order::SourceFirst,
                    }));
                    fs::remove_file(path).expect("it is there");
                }
                Err(_) => fs::rename(&path, path.with_extension("bad")).expect("it is there"),
            }
        }
        files
    }

    /// Asks about every mail in the queue, acts, and takes what was handed in, until nothing is left but what is to stay:
    /// how many rounds it took.
    ///
    /// # Panics
    /// When it goes round and round.
    pub fn run(&mut self) -> usize {
        for round in 1..10 {
            self.ask_all();
            let stays = self.answers.values().all(|(reply, _)| matches!(reply, Reply::Rejected(_)));
            self.act();
            if self.poll().is_empty() && stays {
                return round;
            }
        }
        panic!("mail goes round and round; log: {:#?}", self.log);
    }

    /// Kills the helper. What has no answer is asked again when it is started.
    pub fn kill(&mut self, signal: rustix::process::Signal) -> Ended {
        self.helper.take().expect("a helper runs").kill(signal)
    }

    /// Ends the helper's lines, hears what it says to its end, and waits for it.
    pub fn end(&mut self) -> Ended {
        self.helper().end();
        while self.hear(SOON) {}
        self.helper.take().expect("a helper runs").ended()
    }
}

impl Asked {
    fn file(self) -> Option<String> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}
