//! An example: flags mails whose subject has one of the words in its settings.
//! It decodes no encoded words (RFC 2047), so it is a model and no protection.
//!
//! ```toml
//! [filter.subject-words]
//! kind = "library"
//! path = "/usr/lib/checkpost/libcheckpost_filter_example.so"
//! settings = { words = ["lottery", "inheritance"], score = 2.5 }
//! ```

#![forbid(unsafe_code)]

use checkpost_filter_abi::{CouldNot, Finding, Host, Kind, LibraryFilter, Mail, Reason, Settings, export_filter};

/// Headers are seldom larger than a few KiB; a mail whose subject is not in here is not clean but not looked at.
const HEADER_LIMIT: usize = 256 << 10;

struct SubjectWords {
    /// In lower case.
    words: Vec<String>,
    /// For each word found.
    score: f32,
}

impl LibraryFilter for SubjectWords {
    const NAME: &'static str = "subject words (example)";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const FINDS: &'static [Kind] = &[Kind::Spam];

    fn create(settings: &Settings<'_>, _host: &Host<'_>) -> Result<Self, String> {
        settings.only(&["words", "score"])?;
        let words: Vec<String> = settings.all("words").map(str::to_lowercase).collect();
        if words.is_empty() {
            return Err("the setting \"words\" is missing; accepted: a list of words".to_owned());
        }
        let written = settings.text("score").unwrap_or("1");
        let score: Option<f32> = written.parse().ok().filter(|score: &f32| score.is_finite());
        let score = score.ok_or_else(|| format!("score: {written:?} where a number is wanted"))?;
        Ok(Self { words, score })
    }

    fn check(&self, mail: &Mail<'_>) -> Result<(), CouldNot> {
        let start = mail.prefix(HEADER_LIMIT)?;
        // Some mail servers show mails with CRLF, some with LF.
        let text = String::from_utf8_lossy(&start).replace("\r\n", "\n");
        let Some((header, _)) = text.split_once("\n\n") else {
            return Err(CouldNot::new(Reason::Unreadable, "the header does not end in its first 256 KiB"));
        };
        let subject = subject(header).to_lowercase();
        for word in self.words.iter().filter(|word| subject.contains(word.as_str())) {
            mail.report(&Finding::spam("Subject.Word", self.score).with_class("word").with_detail(word));
        }
        Ok(())
    }
}

/// The subject, folded lines made one (RFC 5322 section 2.2.3); empty if there is none.
fn subject(header: &str) -> String {
    let mut lines = header.lines().skip_while(|line| !line.to_ascii_lowercase().starts_with("subject:"));
    let first = lines.next().map(|line| line["subject:".len()..].to_owned()).unwrap_or_default();
    lines.take_while(|line| line.starts_with([' ', '\t'])).fold(first, |subject, line| subject + line)
}

export_filter!(SubjectWords);
