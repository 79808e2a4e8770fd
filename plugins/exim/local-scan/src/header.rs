//! From Exim's header lines to the octets that the daemon is shown, and from its answer in pieces to changes of
//! single header lines. Exim's memory is not touched here.

use checkpost_wire::check::Part;

use crate::mail::Field;
use crate::map::Cannot;

/// The header as the daemon is shown it, with the empty line behind it.
#[derive(Debug)]
pub struct Shown {
    /// The octets.
    pub octets: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
}

/// What becomes of the header. Numbers are those of [`crate::Mail::fields`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Fields that go, ascending.
    pub removed: Vec<usize>,
    /// Fields that come, in their order.
    pub added: Vec<Added>,
}

/// A new field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The field that it stands behind, whether that goes or stays; `None`: on top.
    pub behind: Option<usize>,
    /// The whole of it, with LF at its ends of lines.
    pub text: Vec<u8>,
    /// Exim's letter: that of the field whose name it has, else a blank.
    pub kind: u8,
}

impl Shown {
    /// `crlf`: the body's lines end with CRLF, so the header's must as well. `None`: there is not so much memory.
    pub fn new(fields: &[Field<'_>], crlf: bool) -> Option<Self> {
        let lines = |field: &Field<'_>| if crlf { memchr_count(field.text) } else { 0 };
        let length = fields.iter().map(|field| field.text.len() + lines(field)).sum::<usize>();
        let (mut octets, mut ends) = (Vec::new(), Vec::new());
        octets.try_reserve_exact(length + 2).ok()?;
        ends.try_reserve_exact(fields.len()).ok()?;
        for field in fields {
            for line in field.text.split_inclusive(|octet| *octet == b'\n') {
                match line.strip_suffix(b"\n") {
                    Some(line) if crlf && !line.ends_with(b"\r") => {
                        octets.extend_from_slice(line);
                        octets.extend_from_slice(b"\r\n");
                    }
                    _ => octets.extend_from_slice(line),
                }
            }
            ends.push(octets.len());
        }
        octets.extend_from_slice(if crlf { b"\r\n" } else { b"\n" });
        Some(Self { octets, ends })
    }

    /// What the pieces of the answer make of the header. `total`: octets of the whole message as it was shown; `new`:
    /// the octets for the pieces that are new.
    ///
    /// # Errors
    /// They change the body, or make something that is no header.
    pub fn changes(&self, fields: &[Field<'_>], parts: &[Part], mut new: &[u8], total: u64) -> Result<Changes, Cannot> {
        let header_end = self.ends.last().copied().unwrap_or(0);
        let mut edit = Edit { shown: self, fields, changes: Changes::default(), kept: None, pending: Vec::new() };
        // Where the body goes on, once it has begun, with the empty line before it.
        let mut body = None;
        for part in parts {
            match *part {
                Part::Put(length) => {
                    let length = usize::try_from(length).ok().filter(|length| *length <= new.len());
                    let (octets, rest) = new.split_at(length.ok_or(Cannot::Pieces)?);
                    new = rest;
                    if body.is_some() && !octets.is_empty() {
                        return Err(Cannot::Body);
                    }
                    edit.pending.extend_from_slice(octets);
                }
                Part::Keep(offset, length) => {
                    let end = offset.checked_add(length).filter(|end| *end <= total).ok_or(Cannot::Pieces)?;
                    let in_header = |at: u64| usize::try_from(at).map_or(header_end, |at| at.min(header_end));
                    let (from, to) = (in_header(offset), in_header(end));
                    if from < to {
                        if body.is_some() {
                            return Err(Cannot::Body);
                        }
                        edit.keep(from, to)?;
                    }
                    if end > header_end as u64 {
                        if offset.max(header_end as u64) != body.unwrap_or(header_end as u64) {
                            return Err(Cannot::Body);
                        }
                        body = Some(end);
                    }
                }
            }
        }
        if body != Some(total) {
            return Err(Cannot::Body);
        }
        if new.is_empty() { edit.finish() } else { Err(Cannot::Pieces) }
    }
}

/// A new header in the making.
struct Edit<'a> {
    shown: &'a Shown,
    fields: &'a [Field<'a>],
    changes: Changes,
    /// The last field that is as it was.
    kept: Option<usize>,
    /// What came since, which is no field as it was.
    pending: Vec<u8>,
}

impl Edit<'_> {
    /// Octets of the header as it was.
    fn keep(&mut self, mut from: usize, to: usize) -> Result<(), Cannot> {
        let mut index = self.shown.ends.partition_point(|end| *end <= from);
        while from < to {
            let end = self.shown.ends[index];
            let start = index.checked_sub(1).map_or(0, |before| self.shown.ends[before]);
            let whole = from == start && end <= to;
            let in_order = self.kept.is_none_or(|kept| kept < index);
            if whole && in_order && (self.pending.is_empty() || self.pending.ends_with(b"\n")) {
                self.flush(index)?;
                self.kept = Some(index);
            } else {
                self.pending.extend_from_slice(&self.shown.octets[from..end.min(to)]);
            }
            from = end;
            index += 1;
        }
        Ok(())
    }

    /// Everything before this field has its place.
    fn flush(&mut self, index: usize) -> Result<(), Cannot> {
        self.changes.removed.extend(self.kept.map_or(0, |kept| kept + 1)..index);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        while !rest.is_empty() {
            let (field, behind) = rest.split_at(field_end(rest).ok_or(Cannot::Header)?);
            rest = behind;
            let text = without_cr(field);
            let name = Field { text: &text, kind: b' ' }.name().to_owned();
            if name.is_empty() || text.contains(&0) || !name.iter().all(u8::is_ascii_graphic) {
                return Err(Cannot::Header);
            }
            let like = self.fields.iter().find(|field| field.name().eq_ignore_ascii_case(&name));
            let kind = like.map_or(b' ', |field| field.kind);
            self.changes.added.push(Added { behind: self.kept, text, kind });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Changes, Cannot> {
        self.flush(self.fields.len())?;
        Ok(self.changes)
    }
}

/// Behind the line end of the last line of the first field: the next begins with no blank. `None`: it has no line end.
fn field_end(octets: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        end += octets[end..].iter().position(|octet| *octet == b'\n')? + 1;
        if !matches!(octets.get(end), Some(b' ' | b'\t')) {
            return Some(end);
        }
    }
}

fn without_cr(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    for line in field.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(line) => {
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            None => text.extend_from_slice(line),
        }
    }
    text
}

fn memchr_count(text: &[u8]) -> usize {
    text.iter().filter(|octet| **octet == b'\n').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &str = "body\n.\n";

    fn fields<'a>(texts: &[&'a str]) -> Vec<Field<'a>> {
        texts.iter().map(|text| Field { text: text.as_bytes(), kind: text.as_bytes()[0] }).collect()
    }

    /// Behind which field, and its text.
    type New<'a> = (Option<usize>, &'a str);

    /// Keeps are of the texts as they are here; `crlf` shifts them.
    fn check(texts: &[&str], parts: &[Part], new: &str, expected: Result<(&[usize], &[New<'_>]), Cannot>) {
        let fields = fields(texts);
        let shown = Shown::new(&fields, false).unwrap();
        let total = (shown.octets.len() + BODY.len()) as u64;
        let changes = shown.changes(&fields, parts, new.as_bytes(), total);
        let changes = changes.map(|changes| {
            let text = |added: &Added| (added.behind, String::from_utf8(added.text.clone()).unwrap());
            (changes.removed, changes.added.iter().map(text).collect::<Vec<_>>())
        });
        let expected = expected.map(|(removed, added)| {
            (removed.to_vec(), added.iter().map(|(behind, text)| (*behind, (*text).to_owned())).collect())
        });
        assert_eq!(changes, expected, "{parts:?} {new:?}");
    }

    #[test]
    fn a_header_is_shown_with_the_bodys_line_ends() {
        let fields = fields(&["A: 1\n", "B: 2\n 3\n", "C: x\r\n"]);
        assert_eq!(Shown::new(&fields, false).unwrap().octets, b"A: 1\nB: 2\n 3\nC: x\r\n\n");
        assert_eq!(Shown::new(&fields, true).unwrap().octets, b"A: 1\r\nB: 2\r\n 3\r\nC: x\r\n\r\n");
        assert_eq!(Shown::new(&[], false).unwrap().octets, b"\n");
    }

    #[test]
    fn pieces_become_changes_of_header_lines() {
        use Part::{Keep, Put};
        // 0..5, 5..13, 13..18; the empty line is at 18, the end at 26.
        let header = ["A: 1\n", "B: 2\n 3\n", "C: 4\n"];
        check(&header, &[Keep(0, 26)], "", Ok((&[], &[])));
        check(&header, &[Keep(0, 7), Keep(7, 19)], "", Ok((&[1], &[(Some(0), "B: 2\n 3\n")])));
        check(&header, &[Put(5), Keep(0, 26)], "X: 1\n", Ok((&[], &[(None, "X: 1\n")])));
        check(&header, &[Keep(0, 18), Put(5), Keep(18, 8)], "X: 1\n", Ok((&[], &[(Some(2), "X: 1\n")])));
        check(&header, &[Keep(0, 5), Keep(13, 13)], "", Ok((&[1], &[])));
        check(&header, &[Keep(18, 8)], "", Ok((&[0, 1, 2], &[])));
        check(
            &header,
            &[Put(10), Keep(5, 8), Put(6), Keep(18, 1), Keep(19, 7)],
            "X: 1\nY: 2\nC: 45\n",
            Ok((&[0, 2], &[(None, "X: 1\n"), (None, "Y: 2\n"), (Some(1), "C: 45\n")])),
        );
        // A part of a field is kept.
        check(&header, &[Keep(0, 8), Put(1), Keep(8, 18)], "!", Ok((&[1], &[(Some(0), "B: !2\n 3\n")])));
        // In another order: each in the place where it is now.
        check(&header, &[Keep(13, 5), Keep(0, 5), Keep(18, 8)], "", Ok((&[0, 1], &[(Some(2), "A: 1\n")])));
        check(&header, &[Put(7), Keep(0, 26)], "X: 1\r\n\n", Err(Cannot::Header));
        check(&header, &[Put(6), Keep(0, 26)], "X: 1\r\n", Ok((&[], &[(None, "X: 1\n")])));
        check(&[], &[Put(5), Keep(0, 8)], "X: 1\n", Ok((&[], &[(None, "X: 1\n")])));
        check(&[], &[Keep(0, 8)], "", Ok((&[], &[])));
    }

    #[test]
    fn what_is_no_change_of_header_lines_is_refused() {
        use Part::{Keep, Put};
        let header = ["A: 1\n", "B: 2\n 3\n", "C: 4\n"];
        for (parts, new, why) in [
            (&[Keep(0, 25)][..], "", Cannot::Body),
            (&[Keep(0, 18)], "", Cannot::Body),
            (&[Keep(0, 18), Keep(19, 7)], "", Cannot::Body),
            (&[Keep(0, 26), Put(1)], "x", Cannot::Body),
            (&[Keep(0, 20), Put(1), Keep(20, 6)], "x", Cannot::Body),
            (&[Keep(0, 26), Keep(18, 8)], "", Cannot::Body),
            (&[Keep(0, 26), Keep(0, 5)], "", Cannot::Body),
            (&[], "", Cannot::Body),
            (&[Keep(0, 27)], "", Cannot::Pieces),
            (&[Keep(1, u64::MAX)], "", Cannot::Pieces),
            (&[Put(2), Keep(0, 26)], "x", Cannot::Pieces),
            (&[Keep(0, 26)], "x", Cannot::Pieces),
            (&[Put(5), Keep(0, 26)], "X\u{0}: 1", Cannot::Header),
            (&[Put(5), Keep(0, 26)], "X: \u{0}\n", Cannot::Header),
            (&[Put(6), Keep(0, 26)], "hello\n", Cannot::Header),
            (&[Put(5), Keep(0, 26)], " X: 1", Cannot::Header),
            (&[Put(5), Keep(0, 26)], ": 12\n", Cannot::Header),
            // It would be a continuation of the field before it.
            (&[Keep(0, 5), Put(3), Keep(5, 21)], " 2\n", Cannot::Header),
        ] {
            check(&header, parts, new, Err(why));
        }
    }

    #[test]
    fn a_field_keeps_its_letter() {
        let fields = [Field { text: b"From : a\n", kind: b'F' }, Field { text: b"X: 1\n", kind: b' ' }];
        let shown = Shown::new(&fields, false).unwrap();
        let parts = [Part::Put(13), Part::Keep(9, 6)];
        let changes = shown.changes(&fields, &parts, b"from: b\nY: 1\n", 15).unwrap();
        assert_eq!(changes.added.iter().map(|added| added.kind).collect::<Vec<_>>(), [b'F', b' ']);
    }

    fn field() -> impl Strategy<Value = String> {
        "[A-C]{1,2}: [a-z]{0,5}(\n [a-z]{1,4}){0,2}\n"
    }

    /// The header as it is with the changes.
    fn changed(fields: &[Field<'_>], changes: &Changes) -> Vec<u8> {
        let mut octets = Vec::new();
        let behind = |index: Option<usize>| changes.added.iter().filter(move |added| added.behind == index);
        behind(None).for_each(|added| octets.extend_from_slice(&added.text));
        for (index, field) in fields.iter().enumerate() {
            if !changes.removed.contains(&index) {
                octets.extend_from_slice(field.text);
            }
            behind(Some(index)).for_each(|added| octets.extend_from_slice(&added.text));
        }
        octets
    }

    proptest! {
        #[test]
        fn changes_make_what_the_pieces_make(texts in prop::collection::vec(field(), 0..6), picks in prop::collection::vec((0..6usize, prop::option::of(field())), 0..8), crlf: bool) {
            let fields: Vec<Field<'_>> = texts.iter().map(|text| Field { text: text.as_bytes(), kind: b' ' }).collect();
            let shown = Shown::new(&fields, crlf).unwrap();
            let header_end = shown.octets.len() - if crlf { 2 } else { 1 };
            let total = shown.octets.len() as u64 + 5;
            let (mut parts, mut new, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
            for (pick, text) in &picks {
                if let Some(text) = text {
                    let text = if crlf { text.replace('\n', "\r\n") } else { text.clone() };
                    parts.push(Part::Put(text.len() as u64));
                    new.extend_from_slice(text.as_bytes());
                    wanted.extend_from_slice(text.as_bytes());
                }
                if let Some(end) = shown.ends.get(*pick) {
                    let start = pick.checked_sub(1).map_or(0, |before| shown.ends[before]);
                    parts.push(Part::Keep(start as u64, (end - start) as u64));
                    wanted.extend_from_slice(&shown.octets[start..*end]);
                }
            }
            parts.push(Part::Keep(header_end as u64, total - header_end as u64));
            let changes = shown.changes(&fields, &parts, &new, total).unwrap();
            prop_assert_eq!(changed(&fields, &changes), without_cr(&wanted));
        }

        #[test]
        fn no_pieces_panic(parts in prop::collection::vec((any::<bool>(), 0..40u64, 0..40u64), 0..6), new: Vec<u8>, crlf: bool) {
            let fields = fields(&["A: 1\n", "B: 2\n 3\n"]);
            let shown = Shown::new(&fields, crlf).unwrap();
            let part = |(keep, a, b): &(bool, u64, u64)| if *keep { Part::Keep(*a, *b) } else { Part::Put(*a) };
            let parts: Vec<Part> = parts.iter().map(part).collect();
            if let Ok(changes) = shown.changes(&fields, &parts, &new, 30) {
                prop_assert!(changes.added.iter().all(|added| added.text.ends_with(b"\n")));
                prop_assert!(changes.removed.is_sorted());
            }
        }
    }
}
