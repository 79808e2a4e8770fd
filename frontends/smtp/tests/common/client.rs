//! Clients: a script of turns, and one that sends mails as an MTA does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use checkpost_adapter::conformance::{Does, Peer, TestMail, Then, Told};
use checkpost_wire::smtp::reply::{PeerReply, ReplyParser};

/// What a client heard, as text and as replies.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub text: Vec<u8>,
    pub replies: Vec<PeerReply>,
}

/// Words, and how many replies to wait for before the next.
#[derive(Debug, Clone)]
pub struct Turn {
    pub does: Does,
    pub replies: usize,
}

/// Says its turns one after another and then goes.
pub struct Scripted {
    turns: VecDeque<Turn>,
    due: usize,
    parser: ReplyParser,
    buffer: BytesMut,
    heard: Arc<Mutex<Heard>>,
    /// What it does after the last turn and its replies.
    end: Then,
}

impl Scripted {
    /// Waits for the greeting (`greeting`: 1) before the first turn.
    pub fn new(turns: impl IntoIterator<Item = Turn>, greeting: usize, end: Then) -> (Box<Self>, Arc<Mutex<Heard>>) {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let client = Self {
            turns: turns.into_iter().collect(),
            due: greeting,
            parser: ReplyParser::new(),
            buffer: BytesMut::new(),
            heard: Arc::clone(&heard),
            end,
        };
        (Box::new(client), heard)
    }
}

impl Peer for Scripted {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.heard.lock().unwrap().text.extend_from_slice(bytes);
        self.buffer.extend_from_slice(bytes);
        while let Ok(Some(reply)) = self.parser.push(&mut self.buffer) {
            self.due = self.due.saturating_sub(1);
            self.heard.lock().unwrap().replies.push(reply);
        }
        Does::default()
    }

    fn idle(&mut self) -> Does {
        if self.due > 0 {
            return Does::default();
        }
        match self.turns.pop_front() {
            Some(turn) => {
                self.due = turn.replies;
                turn.does
            }
            None => Does { then: self.end, ..Does::default() },
        }
    }
}

/// How a [`Mailer`] sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// One command at a time, DATA.
    Patient,
    /// Envelope and DATA in one write.
    Pipelined,
    /// Two chunks, with the envelope in one write.
    Chunks,
}

/// Sends mails one after another and notes what it was told.
pub struct Mailer {
    pub lmtp: bool,
    pub manner: Manner,
    pub mails: VecDeque<TestMail>,
    /// How many mails until it goes within a content.
    pub abort: Option<usize>,
    told: Arc<Mutex<Vec<Vec<Told>>>>,
    parser: ReplyParser,
    buffer: BytesMut,
    at: At,
    /// Commands of the envelope that are not sent yet.
    envelope: VecDeque<String>,
    replies: VecDeque<PeerReply>,
    due: usize,
    accepted: Vec<usize>,
    next_recipient: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Greeting,
    Hello,
    Mail,
    Recipients,
    Data,
    Content,
    Reset,
    Quit,
}

impl Mailer {
    pub fn new(
        lmtp: bool,
        manner: Manner,
        mails: Vec<TestMail>,
        abort: Option<usize>,
    ) -> (Box<Self>, Arc<Mutex<Vec<Vec<Told>>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mailer = Self {
            lmtp,
            manner,
            mails: mails.into(),
            abort,
            told: Arc::clone(&told),
            parser: ReplyParser::new(),
            buffer: BytesMut::new(),
            at: At::Greeting,
            envelope: VecDeque::new(),
            replies: VecDeque::new(),
            due: 1,
            accepted: Vec::new(),
            next_recipient: 0,
        };
        (Box::new(mailer), told)
    }

    fn begin_mail(&mut self) -> Does {
        let Some(mail) = self.mails.front() else {
            self.at = At::Quit;
            self.due = 1;
            return Does::say("QUIT\r\n");
        };
        self.told.lock().unwrap().push(vec![Told::Nothing; mail.recipients.len()]);
        self.accepted.clear();
        self.next_recipient = 0;
        self.envelope = [format!("MAIL FROM:<{}>\r\n", mail.sender)].into();
        self.envelope.extend(mail.recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>\r\n")));
        self.at = At::Mail;
        if self.manner == Manner::Patient {
            return self.say_next();
        }
        let mut all: String = self.envelope.drain(..).collect();
        self.due = 1 + mail.recipients.len();
        if self.manner == Manner::Pipelined {
            all.push_str("DATA\r\n");
            self.due += 1;
        }
        Does::say(all)
    }

    fn say_next(&mut self) -> Does {
        self.due = 1;
        match self.envelope.pop_front() {
            Some(command) => Does::say(command),
            None if self.accepted.is_empty() => self.reset(),
            None => {
                self.at = At::Data;
                Does::say("DATA\r\n")
            }
        }
    }

    fn reset(&mut self) -> Does {
        self.mails.pop_front();
        if let Some(abort) = &mut self.abort {
            *abort -= 1;
        }
        self.at = At::Reset;
        self.due = 1;
        Does::say("RSET\r\n")
    }

    fn content(&mut self) -> Does {
        let mail = self.mails.front().unwrap();
        let half = mail.content.len() / 2;
        self.at = At::Content;
        self.due = if self.lmtp { self.accepted.len() } else { 1 };
        let aborts = self.abort == Some(0);
        let mut say = Vec::new();
        if self.manner == Manner::Chunks {
            say.extend(format!("BDAT {half}\r\n").bytes());
            say.extend(&mail.content[..half]);
            self.due += 1;
            if !aborts {
                say.extend(format!("BDAT {} LAST\r\n", mail.content.len() - half).bytes());
                say.extend(&mail.content[half..]);
            }
        } else {
            let mut stuffer = checkpost_wire::smtp::Stuffer::new();
            let end = if aborts { half } else { mail.content.len() };
            say.extend(stuffer.stuff(&mail.content[..end]).flatten());
            if !aborts {
                say.extend(stuffer.finish());
            }
        }
        Does { say, then: if aborts { Then::Hangup } else { Then::Stay }, ..Does::default() }
    }

    fn tell(&self, index: usize, reply: &PeerReply) {
        let told = match reply.class() {
            2 => Told::Accepted,
            4 => Told::Deferred(reply.text()),
            _ => Told::Rejected(reply.text()),
        };
        self.told.lock().unwrap().last_mut().unwrap()[index] = told;
    }

    /// All replies of a group are here.
    fn go_on(&mut self) -> Does {
        let replies: Vec<PeerReply> = self.replies.drain(..).collect();
        let mut replies = replies.into_iter();
        match self.at {
            At::Greeting => {
                self.at = At::Hello;
                self.due = 1;
                Does::say(if self.lmtp { "LHLO client.example\r\n" } else { "EHLO client.example\r\n" })
            }
            At::Hello | At::Reset => self.begin_mail(),
            At::Quit => Does::hangup(),
            At::Mail | At::Recipients => {
                if self.at == At::Mail {
                    replies.next();
                    self.at = At::Recipients;
                }
                let total = self.mails.front().unwrap().recipients.len();
                for reply in replies.by_ref().take(total - self.next_recipient) {
                    let index = self.next_recipient;
                    self.next_recipient += 1;
                    if reply.class() == 2 {
                        self.accepted.push(index);
                    } else {
                        self.tell(index, &reply);
                    }
                }
                if self.next_recipient < total {
                    return self.say_next();
                }
                match self.manner {
                    Manner::Patient => self.say_next(),
                    Manner::Chunks if self.accepted.is_empty() => self.reset(),
                    Manner::Chunks => self.content(),
                    Manner::Pipelined => self.data_replied(&replies.next().unwrap()),
                }
            }
            At::Data => self.data_replied(&replies.next().unwrap()),
            At::Content => {
                if self.manner == Manner::Chunks {
                    let first = replies.next().unwrap();
                    assert_eq!(first.code, 250, "a chunk: {}", first.text());
                }
                if self.lmtp {
                    for (&index, reply) in self.accepted.iter().zip(replies) {
                        self.tell(index, &reply);
                    }
                } else {
                    let reply = replies.next().unwrap();
                    self.accepted.iter().for_each(|&index| self.tell(index, &reply));
                }
                self.mails.pop_front();
                if let Some(abort) = &mut self.abort {
                    *abort -= 1;
                }
                self.begin_mail()
            }
        }
    }

    fn data_replied(&mut self, reply: &PeerReply) -> Does {
        if reply.class() == 3 {
            return self.content();
        }
        for &index in &self.accepted {
            self.tell(index, reply);
        }
        self.reset()
    }
}

impl Peer for Mailer {
    fn hear(&mut self, bytes: &[u8]) -> Does {
        self.buffer.extend_from_slice(bytes);
        let mut does = Does::default();
        while let Some(reply) = self.parser.push(&mut self.buffer).unwrap() {
            self.replies.push_back(reply);
            if self.replies.len() == self.due {
                does = self.go_on();
            }
        }
        does
    }
}
