//! What a client asks: envelope, origin, what it can do, and how the message comes.

use std::net::IpAddr;
use std::time::Duration;

use super::ListError;
use super::list::{List, Writer};

/// A mail that is to be checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The client program and its version, for the log.
    pub program: String,
    /// The envelope's sender without angle brackets; empty: the null sender. No NUL.
    pub sender: Vec<u8>,
    /// The recipients, at least one, likewise. Outcomes come back in this order.
    pub recipients: Vec<Vec<u8>>,
    /// The direction of the mail, if the client knows.
    pub class: Option<Class>,
    /// The host that sent it.
    pub client: Option<IpAddr>,
    /// That host's name.
    pub client_name: Option<String>,
    /// What it said at HELO or EHLO.
    pub helo: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    /// Did it come over TLS?
    pub tls: bool,
    /// The mail server's own id of the mail.
    pub queue_id: Option<String>,
    /// What the client can do with an answer. What it does not name it cannot.
    pub can: Can,
    /// The answer is of use that long, from when the request is whole; whole seconds, at least one.
    pub within: Option<Duration>,
    /// How the message comes.
    pub content: Carried,
    /// So many octets at the start of a descriptor's file are not the message: a mail server's own lines about it.
    pub skip: u64,
    /// How a changed message is to come back.
    pub changed: Changed,
}

/// The three directions that policies tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// From outside.
    Inbound,
    /// From an authenticated user or one of our own networks.
    Submission,
    /// From the mail server itself or between our own hosts.
    Internal,
}

/// How a message goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carried {
    /// As a descriptor of a regular file, sent with the first octet of the request (SCM_RIGHTS). Read from offset 0, or
    /// from behind what [`Request::skip`] says.
    #[default]
    Descriptor,
    /// So many octets behind the list.
    Inline(u64),
}

/// How a changed message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changed {
    /// As a read-only descriptor, sent with the first octet of the answer.
    Descriptor,
    /// As pieces of the old and new octets behind the answer's list.
    #[default]
    Pieces,
}

bitflags::bitflags! {
    /// What a client can do with an answer; the words are those of `checkpost ways`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Can: u16 {
        /// Hand on a message with another header.
        const EDIT_HEADERS = 1;
        /// Hand on a message with another body.
        const EDIT_BODY = 1 << 1;
        /// Hand it to more recipients.
        const ADD_RECIPIENTS = 1 << 2;
        /// Hand it on with another sender.
        const CHANGE_SENDER = 1 << 3;
        /// Have the mail server keep it in a quarantine of its own.
        const HOLD = 1 << 4;
        /// Leave out some recipients.
        const DROP_RECIPIENTS = 1 << 5;
        /// Hand different contents to different recipients.
        const CONTENTS_BY_RECIPIENT = 1 << 6;
        /// Answer each recipient on its own.
        const REPLY_PER_RECIPIENT = 1 << 7;
        /// A refusal is told in the sender's session; without it, it becomes a bounce.
        const REFUSE_IN_SESSION = 1 << 8;
    }
}

/// Words and flags of [`Can`].
const WORDS: [(&str, Can); 9] = [
    ("edit-headers", Can::EDIT_HEADERS),
    ("edit-body", Can::EDIT_BODY),
    ("add-recipients", Can::ADD_RECIPIENTS),
    ("change-sender", Can::CHANGE_SENDER),
    ("hold", Can::HOLD),
    ("drop-recipients", Can::DROP_RECIPIENTS),
    ("contents-by-recipient", Can::CONTENTS_BY_RECIPIENT),
    ("reply-per-recipient", Can::REPLY_PER_RECIPIENT),
    ("refuse-in-session", Can::REFUSE_IN_SESSION),
];

impl Request {
    /// The list, without [`super::HELLO`] before it and without a message behind it.
    ///
    /// # Errors
    /// [`ListError::Nul`] when an address has one.
    pub fn encode(&self) -> Result<Vec<u8>, ListError> {
        let mut list = Writer::default();
        list.text("check", &self.program);
        list.octets("sender", &self.sender)?;
        for recipient in &self.recipients {
            list.octets("recipient", recipient)?;
        }
        if let Some(class) = self.class {
            list.text("class", class.as_str());
        }
        if let Some(client) = self.client {
            list.text("client", &client.to_string());
        }
        for (name, value) in [
            ("client_name", &self.client_name),
            ("helo", &self.helo),
            ("user", &self.user),
            ("queue_id", &self.queue_id),
        ] {
            if let Some(value) = value {
                list.text(name, value);
            }
        }
        if self.tls {
            list.text("tls", "yes");
        }
        let words: Vec<&str> =
            WORDS.iter().filter(|(_, flag)| self.can.contains(*flag)).map(|(word, _)| *word).collect();
        list.text("can", &words.join(" "));
        if let Some(within) = self.within {
            list.text("within", &within.as_secs().max(1).to_string());
        }
        match self.content {
            Carried::Descriptor if self.skip == 0 => list.text("content", "descriptor"),
            Carried::Descriptor => list.text("content", &format!("descriptor {}", self.skip)),
            Carried::Inline(length) => list.text("content", &format!("inline {length}")),
        }
        list.text("changed", self.changed.as_str());
        Ok(list.finish())
    }

    /// Reads a list that begins with `check`.
    ///
    /// # Errors
    /// A value that is not understood, one that is there twice, or none where there must be one. What is not known
    /// is overlooked.
    pub fn decode(list: List<'_>) -> Result<Self, ListError> {
        let mut request = Self::default();
        let (mut sender, mut content) = (None, None);
        let mut seen = Vec::new();
        for attribute in list.attributes() {
            let (name, value) = attribute?;
            let Some(&known) = SINGLE.iter().find(|known| **known == name) else {
                if name == "recipient" {
                    request.recipients.push(value.to_vec());
                }
                continue;
            };
            if seen.contains(&known) {
                return Err(ListError::Twice(known));
            }
            seen.push(known);
            let bad = || ListError::value(name, value);
            let text = || String::from_utf8_lossy(value).into_owned();
            let word = std::str::from_utf8(value).map_err(|_| bad());
            match known {
                "check" => request.program = text(),
                "sender" => sender = Some(value.to_vec()),
                "class" => request.class = Some(Class::read(word?).ok_or_else(bad)?),
                "client" => request.client = Some(word?.parse().map_err(|_| bad())?),
                "client_name" => request.client_name = Some(text()),
                "helo" => request.helo = Some(text()),
                "user" => request.user = Some(text()),
                "queue_id" => request.queue_id = Some(text()),
                "tls" => {
                    request.tls = match word? {
                        "yes" => true,
                        "no" => false,
                        _ => return Err(bad()),
                    }
                }
                // A word that is not known is an ability that we make no use of.
                "can" => request.can = word?.split(' ').filter_map(flag).collect(),
                "within" => {
                    let seconds =
                        word?.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(bad)?;
                    request.within = Some(Duration::from_secs(seconds));
                }
                "content" => {
                    content = Some(match word?.split_once(' ') {
                        None if value == b"descriptor" => Carried::Descriptor,
                        Some(("descriptor", skip)) => {
                            request.skip = skip.parse().map_err(|_| bad())?;
                            Carried::Descriptor
                        }
                        Some(("inline", length)) => Carried::Inline(length.parse().map_err(|_| bad())?),
                        _ => return Err(bad()),
                    });
                }
                "changed" => request.changed = Changed::read(word?).ok_or_else(bad)?,
                _ => {}
            }
        }
        request.sender = sender.ok_or(ListError::Missing("sender"))?;
        request.content = content.ok_or(ListError::Missing("content"))?;
        if request.recipients.is_empty() {
            return Err(ListError::Missing("recipient"));
        }
        Ok(request)
    }
}

/// All but `recipient`.
const SINGLE: [&str; 13] = [
    "check",
    "sender",
    "class",
    "client",
    "client_name",
    "helo",
    "user",
    "queue_id",
    "tls",
    "can",
    "within",
    "content",
    "changed",
];

fn flag(word: &str) -> Option<Can> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, flag)| *flag)
}

impl Class {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Submission => "submission",
            Self::Internal => "internal",
        }
    }

    fn read(word: &str) -> Option<Self> {
        [Self::Inbound, Self::Submission, Self::Internal].into_iter().find(|class| class.as_str() == word)
    }
}

impl Changed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Descriptor => "descriptor",
            Self::Pieces => "pieces",
        }
    }

    fn read(word: &str) -> Option<Self> {
        [Self::Descriptor, Self::Pieces].into_iter().find(|changed| changed.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_strictly_where_it_matters() {
        let check = |text: &str| Request::decode(List::new(text.as_bytes()));
        let whole = "check=x 1\0sender=\0recipient=a@b\0content=inline 3\0new=thing\0can=hold fly edit-body\0\0";
        let request = check(whole).unwrap();
        assert_eq!(request.recipients, [b"a@b"]);
        assert_eq!((request.content, request.can), (Carried::Inline(3), Can::HOLD | Can::EDIT_BODY));
        for (wrong, error) in [
            ("check=x\0recipient=a\0content=descriptor\0", "sender is missing"),
            ("check=x\0sender=\0content=descriptor\0", "recipient is missing"),
            ("check=x\0sender=\0recipient=a\0", "content is missing"),
            ("check=x\0sender=\0sender=b\0recipient=a\0content=descriptor\0", "sender is there twice"),
            ("check=x\0sender=\0recipient=a\0content=inline -1\0", "content=inline -1: not understood"),
            ("check=x\0sender=\0recipient=a\0content=inline\0", "content=inline: not understood"),
            ("check=x\0sender=\0recipient=a\0content=descriptor -1\0", "content=descriptor -1: not understood"),
            ("check=x\0sender=\0recipient=a\0content=descriptor\0class=foe\0", "class=foe: not understood"),
            ("check=x\0sender=\0recipient=a\0content=descriptor\0within=0\0", "within=0: not understood"),
            ("check=x\0sender\0", "an attribute without a name"),
        ] {
            assert_eq!(check(wrong).unwrap_err().to_string(), error, "{wrong:?}");
        }
    }

    prop_compose! {
        fn request()(
            sender in proptest::collection::vec(1u8.., 0..12),
            recipients in proptest::collection::vec(proptest::collection::vec(1u8.., 0..12), 1..5),
            client in any::<Option<IpAddr>>(),
            helo in proptest::option::of("[^\0]{0,12}"),
            can in 0u16..512,
            within in proptest::option::of(1u64..86_400),
            tls in any::<bool>(),
            length in any::<Option<u64>>(),
            skip in any::<u64>(),
        ) -> Request {
            Request {
                program: "test 1".into(),
                sender,
                recipients,
                class: Some(Class::Submission),
                client,
                helo,
                user: Some("anna".into()),
                tls,
                can: Can::from_bits_truncate(can),
                within: within.map(Duration::from_secs),
                content: length.map_or(Carried::Descriptor, Carried::Inline),
                skip: if length.is_none() { skip } else { 0 },
                changed: Changed::Descriptor,
                ..Request::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in request()) {
            let list = request.encode().unwrap();
            prop_assert_eq!(Request::decode(List::new(&list)).unwrap(), request);
        }

        #[test]
        fn no_list_panics(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::decode(List::new(&octets));
        }
    }
}
