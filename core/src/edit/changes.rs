//! From edits to changes of single header fields: one plan for all ways in, so that none edits
//! differently. Sequence and spelling on the wire are the way's.

use bytes::Bytes;

use super::{Body, Edit};
use crate::content::header::{Field, Header};

/// Fields whose names begin so are ours alone: incoming ones are forged or from another Checkpost, and go.
const OURS: &[u8] = b"X-Checkpost-";
/// Fields that describe the body.
const OF_BODY: &[u8] = b"Content-";

/// What a list of edits makes of a mail's header and body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// New fields above all others, the topmost first.
    pub top: Vec<Line>,
    /// Fields that change or go: indices into [`Header::fields`], ascending.
    pub fields: Vec<(usize, Change)>,
    /// New fields below all others, in order.
    pub bottom: Vec<Line>,
    /// The new body.
    pub body: Option<Body>,
}

/// A new field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name.
    pub name: Box<str>,
    /// The value, without the blank behind the colon.
    pub value: Box<str>,
}

/// What becomes of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It goes.
    Remove,
    /// It gets this value: without the blank behind the colon and the last line end, folded as it came.
    Value(Bytes),
}

impl Changes {
    /// The changes that these edits make. Edits of the envelope make none.
    pub fn new(header: &Header, edits: &[Edit]) -> Self {
        let mut changes = Self::default();
        let mut set: Vec<(&str, &str, bool)> = Vec::new();
        let mut removed: Vec<&str> = Vec::new();
        let mut tag: Option<&str> = None;
        for edit in edits {
            match edit {
                // Each one above the one before it, so that the last added is read first, as with milters.
                Edit::AddHeader(field) => changes.top.insert(0, Line::new(field.name.as_str(), field.value.as_str())),
                Edit::AppendHeader(field) => changes.bottom.push(Line::new(field.name.as_str(), field.value.as_str())),
                Edit::SetHeader(field) => put(&mut set, field.name.as_str(), field.value.as_str()),
                Edit::RemoveHeader(name) => removed.push(name.as_str()),
                Edit::TagSubject(text) => tag = Some(text.as_str()),
                Edit::ReplaceBody(body) => {
                    body.fields().into_iter().for_each(|(name, value)| put(&mut set, name, value));
                    changes.body = Some(body.clone());
                }
                Edit::AddRecipient(_) | Edit::ChangeSender(_) => {}
            }
        }
        for (index, field) in header.fields().enumerate() {
            if let Some(change) = change(&field, &mut set, &removed, &mut tag, changes.body.is_some()) {
                changes.fields.push((index, change));
            }
        }
        changes.top.extend(set.iter().filter(|(_, _, found)| !found).map(|(name, value, _)| Line::new(name, value)));
        changes.top.extend(tag.map(|tag| Line::new("Subject", tag)));
        changes
    }

    /// Nothing changes?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Line {
    fn new(name: &str, value: &str) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// Of several that set one name the last counts.
fn put<'a>(set: &mut Vec<(&'a str, &'a str, bool)>, name: &'a str, value: &'a str) {
    set.retain(|(known, _, _)| !known.eq_ignore_ascii_case(name));
    set.push((name, value, false));
}

/// `tag` is taken by the first subject.
fn change(
    field: &Field<'_>,
    set: &mut [(&str, &str, bool)],
    removed: &[&str],
    tag: &mut Option<&str>,
    body: bool,
) -> Option<Change> {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
    let begins = |start: &[u8]| field.name.get(..start.len()).is_some_and(|name| name.eq_ignore_ascii_case(start));
    let subject = if is("Subject") { tag.take() } else { None };
    if let Some((_, value, found)) = set.iter_mut().find(|(name, _, _)| is(name)) {
        let again = std::mem::replace(found, true);
        return Some(if again { Change::Remove } else { Change::Value(Bytes::copy_from_slice(value.as_bytes())) });
    }
    if begins(OURS) || removed.iter().any(|name| is(name)) || (body && begins(OF_BODY)) {
        return Some(Change::Remove);
    }
    tagged(field, subject?)
}

/// The subject with the tag before it; `None` when it is there already.
fn tagged(field: &Field<'_>, tag: &str) -> Option<Change> {
    let value = field.value.trim_ascii_start();
    if value.starts_with(tag.as_bytes()) {
        return None;
    }
    let mut tagged = Vec::with_capacity(tag.len() + 1 + value.len());
    tagged.extend_from_slice(tag.as_bytes());
    tagged.push(b' ');
    tagged.extend_from_slice(value);
    Some(Change::Value(tagged.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::{HeaderField, HeaderName, HeaderText};

    /// Each change as one line: `+` top, `-` removed, `=` value, `.` bottom.
    fn check(header: &'static str, edits: &[Edit], wanted: &[&str]) {
        let header = Header::parse(Bytes::from_static(header.as_bytes()));
        let changes = Changes::new(&header, edits);
        let line = |sign: char, Line { name, value }: &Line| format!("{sign}{name}: {value}");
        let mut seen: Vec<String> = changes.top.iter().map(|top| line('+', top)).collect();
        seen.extend(changes.fields.iter().map(|(index, change)| match change {
            Change::Remove => format!("-{index}"),
            Change::Value(value) => format!("={index} {}", String::from_utf8_lossy(value)),
        }));
        seen.extend(changes.bottom.iter().map(|bottom| line('.', bottom)));
        assert_eq!(seen, wanted);
    }

    fn field(line: &str) -> HeaderField {
        HeaderField::parse(line).unwrap()
    }

    #[test]
    fn each_edit_becomes_changes_of_fields() {
        let mail = "A: 1\r\nSubject: x\r\n y\r\na: 2\r\nX-CheckPost-Unscanned: no\r\n\r\n";
        let remove = |name| Edit::RemoveHeader(HeaderName::new(name).unwrap());
        let tag = || Edit::TagSubject(HeaderText::new("[T]").unwrap());
        check("A: 1\r\n\r\n", &[], &[]);
        check(mail, &[], &["-3"]);
        check(mail, &[remove("a")], &["-0", "-2", "-3"]);
        check(mail, &[Edit::SetHeader(field("A: 3"))], &["=0 3", "-2", "-3"]);
        check(mail, &[Edit::SetHeader(field("B: 3"))], &["+B: 3", "-3"]);
        check(mail, &[Edit::SetHeader(field("A: 3")), Edit::SetHeader(field("a: 4"))], &["=0 4", "-2", "-3"]);
        check(mail, &[tag()], &["=1 [T] x\r\n y", "-3"]);
        check("Subject: [T] x\r\n\r\n", &[tag()], &[]);
        check("B: 1\r\n\r\n", &[tag(), Edit::AddHeader(field("C: 1"))], &["+C: 1", "+Subject: [T]"]);
        let both = [Edit::AddHeader(field("C: 1")), Edit::AddHeader(field("D: 2")), Edit::AppendHeader(field("E: 3"))];
        check("B: 1\r\n\r\n", &both, &["+D: 2", "+C: 1", ".E: 3"]);
    }

    #[test]
    fn a_new_body_brings_its_own_description() {
        let body = Edit::ReplaceBody(Body::new("gone\n").unwrap());
        let mail = "Content-Type: multipart/mixed\r\ncontent-disposition: inline\r\nA: 1\r\n\r\nx";
        check(
            mail,
            &[body],
            &["+MIME-Version: 1.0", "+Content-Transfer-Encoding: 7bit", "=0 text/plain; charset=utf-8", "-1"],
        );
    }
}
