//! What a case file may say, and the mails that it describes.
//! What is done with it is in `check.rs`.

use std::path::Path;

use checkpost_tests::mails;
use serde::Deserialize;

/// One file of `cases/milter`. In `rules` and in expected bodies `@TEXT n@` stands for a text of about
/// `n` octets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The file's name without its ending.
    #[serde(skip)]
    pub(crate) name: String,
    /// What it is about, in a clause.
    pub(crate) title: String,
    /// Abilities that a server must have, in the words of `checkpost ways`.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// What stands in the configuration behind the way.
    #[serde(default)]
    pub(crate) rules: String,
    /// The client's name at EHLO.
    #[serde(default = "helo")]
    pub(crate) helo: String,
    /// In the order in which they are sent.
    pub(crate) mail: Vec<Mail>,
}

/// A mail and what is to become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mail {
    /// The envelope's; behind a `>` may be parameters of MAIL.
    #[serde(default = "sender")]
    pub(crate) from: String,
    #[serde(default = "alice")]
    pub(crate) to: Vec<String>,
    #[serde(default = "subject")]
    subject: String,
    #[serde(default)]
    without_subject: bool,
    /// More header fields, below the usual ones.
    #[serde(default)]
    header: String,
    #[serde(default = "body")]
    body: String,
    /// A body of about so many octets in place of `body`.
    body_size: Option<usize>,
    /// A body whose first 64 KiB - 1, which servers show in one piece, end between CR and LF.
    #[serde(default)]
    body_border: bool,
    /// With an attachment that every scanner knows.
    #[serde(default)]
    eicar: bool,
    /// On a connection of its own, and not on that of the mail before it.
    #[serde(default)]
    pub(crate) new_connection: bool,
    /// Submitted on the server by `/usr/sbin/sendmail`.
    #[serde(default)]
    pub(crate) local: bool,
    /// RSET after the recipients, in place of the content.
    #[serde(default)]
    pub(crate) rset: bool,
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// What is to become of a mail. What is not said must be as if there were no filter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// How the deciding answer begins: code, enhanced code, text.
    pub(crate) told: String,
    /// To what: greeting, mail, rcpt or end.
    pub(crate) at: Option<String>,
    /// How the answers to the recipients begin.
    pub(crate) recipients: Vec<String>,
    /// Who gets it: alice, bob. Unless given, the recipients, if it was taken.
    pub(crate) delivered: Option<Vec<String>>,
    /// Who gets a bounce.
    pub(crate) bounced: Vec<String>,
    /// All values of a header field from top to bottom; none if it must not be there.
    pub(crate) fields: toml::Table,
    /// Names of header fields, the first one of each above the first one of the next.
    pub(crate) order: Vec<String>,
    /// The body.
    pub(crate) body: Option<String>,
    /// The envelope's sender in the delivered mail.
    pub(crate) return_path: Option<String>,
    /// It is held by the server, and delivered so when released.
    pub(crate) held: bool,
    /// For this reason.
    pub(crate) hold_reason: Option<String>,
    /// A copy is in Checkpost's own quarantine.
    pub(crate) quarantined: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            told: "250".into(),
            at: None,
            recipients: Vec::new(),
            delivered: None,
            bounced: Vec::new(),
            fields: toml::Table::new(),
            order: Vec::new(),
            body: None,
            return_path: None,
            held: false,
            hold_reason: None,
            quarantined: false,
        }
    }
}

/// A mail ready to be sent.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// With CRLF line ends.
    pub(crate) content: Vec<u8>,
    /// By which it is found again.
    pub(crate) id: String,
    pub(crate) rset: bool,
}

impl Prepared {
    pub(crate) fn to(&self) -> Vec<&str> {
        self.to.iter().map(String::as_str).collect()
    }
}

impl Case {
    /// All cases in `folder`, by name.
    pub(crate) fn all(folder: &Path) -> Vec<Self> {
        let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml")).map(|p| read(p)).collect()
    }

    /// The mails to be sent.
    pub(crate) fn prepared(&self) -> Vec<Prepared> {
        let name = &self.name;
        let id = |n: usize| format!("<{n}.{name}@client.example.net>");
        self.mail.iter().enumerate().map(|(n, mail)| mail.prepared(id(n))).collect()
    }
}

impl Mail {
    fn prepared(&self, id: String) -> Prepared {
        let from = self.from.split('>').next().unwrap_or_default();
        let mut content = format!(
            "From: <{}>\r\nTo: <{}>\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: {id}\r\n",
            if from.is_empty() { "mailer-daemon@example.net" } else { from },
            // Sendmail writes domains in lower case.
            self.to.first().map(|to| to.to_lowercase()).unwrap_or_default(),
        );
        if !self.without_subject {
            content.push_str(&crlf(&format!("Subject: {}", self.subject)));
        }
        content.push_str(&crlf(&self.header));
        let mut content = content.into_bytes();
        if self.eicar {
            let mail = mails::with_attachment(from, "x", "x", "a.zip", &mails::eicar_in_nested_zip());
            let at = mail.windows(13).position(|part| part == b"MIME-Version:").unwrap();
            content.extend_from_slice(&mail[at..]);
        } else {
            content.extend_from_slice(b"\r\n");
            let body = match self.body_size {
                Some(size) => text(size),
                None if self.body_border => border(),
                None => self.body.clone(),
            };
            content.extend_from_slice(crlf(&body).as_bytes());
        }
        Prepared { from: self.from.clone(), to: self.to.clone(), content, id, rset: self.rset }
    }

    /// Who gets it.
    pub(crate) fn delivered(&self) -> Vec<String> {
        if let Some(users) = &self.expect.delivered {
            return users.clone();
        }
        if !self.expect.told.starts_with('2') || self.rset {
            return Vec::new();
        }
        self.to.iter().filter_map(|to| to.split('@').next().map(str::to_owned)).collect()
    }
}

/// Lines of text, about `size` octets with CRLF line ends.
pub(crate) fn text(size: usize) -> String {
    let line = |n: usize| format!("line {n:07} of a text that is long and says nothing at all, again and again\n");
    (0..).map(line).take(size.div_ceil(line(0).len() + 1)).collect()
}

/// Two chunks of 65535 octets and some more; a CR is the last octet of the first.
fn border() -> String {
    let line = format!("{}\n", "x".repeat(62));
    // 1023 lines of 64 octets with CRLF, and a line of 64 more: the LF is octet 65536.
    line.repeat(3000)
}

fn read(path: &Path) -> Case {
    let mut text = std::fs::read_to_string(path).unwrap();
    while let Some((before, rest)) = text.split_once("@TEXT ") {
        let (size, after) = rest.split_once('@').unwrap();
        text = format!("{before}{}{after}", self::text(size.parse().unwrap()));
    }
    let mut case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    case.name = path.file_stem().unwrap().to_string_lossy().into_owned();
    case
}

fn crlf(text: &str) -> String {
    let mut lines = text.replace("\r\n", "\n").replace('\n', "\r\n");
    if !lines.is_empty() && !lines.ends_with("\r\n") {
        lines.push_str("\r\n");
    }
    lines
}

fn helo() -> String {
    "client.example.net".into()
}

fn sender() -> String {
    "sender@example.net".into()
}

fn alice() -> Vec<String> {
    vec!["alice@example.test".into()]
}

fn subject() -> String {
    "a mail of the lab".into()
}

fn body() -> String {
    "The body.\n.\n..dots\n \ttrailing blanks  \nlast line\n".into()
}
