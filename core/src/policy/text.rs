//! Texts with places for names from findings: `Message contains malware ({name})`.
//!
//! What is put in comes from scanners and mails, so from anybody: it is cut short and everything
//! but printable ASCII becomes `?`, so that no text can end a line or a reply.

use std::borrow::Cow;

use crate::config::suggestion;
use crate::edit::Body;
use crate::finding::Finding;
use crate::reply::{Deferral, MAX_TEXT, Rejection, Reply};

/// The longest name put into a text, in characters.
const MAX_NAME: usize = 120;
const SLOTS: [&str; 8] = ["name", "filter", "kind", "class", "part", "rule", "id", "score"];
/// Slots that need a finding.
const OF_FINDING: [&str; 5] = ["name", "filter", "kind", "class", "part"];

/// A text in pieces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(String),
    Slot(&'static str),
}

/// What can be put in.
pub(super) struct Names<'a> {
    pub(super) finding: Option<&'a Finding>,
    pub(super) rule: &'a str,
    pub(super) id: &'a str,
    pub(super) score: f32,
}

impl Template {
    /// Reads one line; `{{` and `}}` stand for braces. The error says what is accepted.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| !(' '..='~').contains(&c)) {
            return Err("only printable ASCII can be said to every peer".into());
        }
        Self::parse_pieces(text)
    }

    /// Reads a text of many lines in any script, for a body.
    pub(super) fn parse_text(text: &str) -> Result<Self, String> {
        Body::new(text).map_err(|error| error.to_string())?;
        Self::parse_pieces(text)
    }

    fn parse_pieces(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            if rest[at + 1..].starts_with(brace) {
                literal.push_str(brace);
                rest = &rest[at + 2..];
                continue;
            }
            let end = rest[at..].find('}').filter(|_| brace == "{");
            let Some(end) = end else {
                return Err(format!("{brace:?} without its counterpart; write it twice to mean it"));
            };
            let name = &rest[at + 1..at + end];
            let Some(slot) = SLOTS.iter().find(|slot| **slot == name) else {
                return Err(format!("unknown \"{{{name}}}\"; {}", suggestion(name, &SLOTS)));
            };
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            pieces.push(Piece::Slot(slot));
            rest = &rest[at + end + 1..];
        }
        literal.push_str(rest);
        pieces.push(Piece::Literal(literal));
        pieces.retain(|piece| *piece != Piece::Literal(String::new()));
        Ok(Self(pieces))
    }

    /// The first slot that stays empty without a finding.
    pub(super) fn needs_finding(&self) -> Option<&'static str> {
        self.0.iter().find_map(|piece| match piece {
            Piece::Slot(slot) => OF_FINDING.iter().find(|of| *of == slot).copied(),
            Piece::Literal(_) => None,
        })
    }

    /// Can it be said before there is a content? What is found and the score are not known then.
    pub(super) fn is_of_session(&self) -> bool {
        self.needs_finding().is_none() && !self.0.contains(&Piece::Slot("score"))
    }

    /// The text: what is put in is printable ASCII only.
    pub(super) fn render(&self, names: &Names<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Slot(slot) => text.extend(names.value(slot).chars().take(MAX_NAME).map(harmless)),
            }
        }
        text
    }
}

impl Names<'_> {
    fn value(&self, slot: &str) -> Cow<'_, str> {
        let of_finding = |value: fn(&Finding) -> &str| Cow::from(self.finding.map_or("", value));
        match slot {
            "name" => of_finding(|finding| &finding.name),
            "filter" => of_finding(|finding| &finding.filter),
            "kind" => of_finding(|finding| finding.kind.as_str()),
            "class" => of_finding(|finding| &finding.class),
            "part" => of_finding(|finding| finding.part.as_deref().unwrap_or_default()),
            "rule" => self.rule.into(),
            "id" => self.id.into(),
            _ => format!("{:.1}", self.score).into(),
        }
    }
}

/// A text for a reply, with the codes it has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Say<R> {
    /// Valid by itself, slots still in it.
    written: R,
    template: Template,
}

macro_rules! say {
    ($reply:ident) => {
        impl Say<$reply> {
            /// Reads `[CODE] [X.Y.Z] text`.
            pub(super) fn parse(text: &str) -> Result<Self, String> {
                let written = $reply::parse(text).map_err(|error| error.to_string())?;
                let template = Template::parse(written.reply().text())?;
                Ok(Self { written, template })
            }

            pub(super) fn template(&self) -> &Template {
                &self.template
            }

            /// The reply.
            pub(super) fn render(&self, names: &Names<'_>) -> $reply {
                let mut text = self.template.render(names);
                text.truncate(MAX_TEXT);
                let reply = self.written.reply();
                let rendered = Reply::new(reply.code(), reply.enhanced(), &text).and_then($reply::try_from);
                rendered.unwrap_or_else(|_| self.written.clone())
            }
        }
    };
}

say!(Rejection);
say!(Deferral);

fn harmless(c: char) -> char {
    if (' '..='~').contains(&c) { c } else { '?' }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::finding::Kind;

    fn render(text: &str, name: &str) -> String {
        let finding = Finding::new(Kind::Malware, &"f".into(), name);
        let names = Names { finding: Some(&finding), rule: "r", id: "ID", score: 1.25 };
        Say::<Rejection>::parse(text).unwrap().render(&names).to_string()
    }

    #[test]
    fn names_are_put_in_and_made_harmless() {
        let text = "554 5.7.1 {kind} {name} by {filter} ({rule}, {id}, {score}) {{}}";
        assert_eq!(render(text, "Eicar"), "554 5.7.1 malware Eicar by f (r, ID, 1.2) {}");
        assert_eq!(render("bad: {name}", "a\r\n250 2.0.0 ok\0\u{2028}"), "550 5.7.1 bad: a??250 2.0.0 ok??");
        assert_eq!(render("bad: {name}", "{id}"), "550 5.7.1 bad: {id}");
        assert_eq!(render("bad: {name}", &"x".repeat(5000)).len(), "550 5.7.1 bad: ".len() + MAX_NAME);
        assert_eq!(render("{name}", ""), "550 5.7.1 {name}", "an empty reply cannot be said");
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, error) in [
            ("{nmae}", "unknown \"{nmae}\"; did you mean \"name\"? accepted: "),
            ("{name", "\"{\" without its counterpart"),
            ("name}", "\"}\" without its counterpart"),
            ("4.7.1 later", "enhanced code of class 4 does not fit"),
            ("na\u{ef}ve", "only printable ASCII"),
            ("", "the text is empty"),
        ] {
            let seen = Say::<Rejection>::parse(text).unwrap_err();
            assert!(seen.starts_with(error), "{text}: {seen}");
        }
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_reply(name: String, text in "[{}a-e ]{0,12}") {
            let reply = render("x {name}{name}{name}{name}{name}", &name);
            prop_assert!(reply.bytes().all(|b| (32..=126).contains(&b)) && reply.len() <= 10 + MAX_TEXT);
            let _ = Template::parse(&text);
        }
    }
}
