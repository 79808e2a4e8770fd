//! Looks into a mail: its parts, messages within messages, encodings, archives.
//!
//! It judges nothing. A [`Visitor`] is shown every item's octets, decoded, and every octet of the
//! mail as it stands; what was found in them is the visitor's affair. Where mail readers differ in
//! what they make of a mail, all readings are shown. Memory does not grow with the mail: contents
//! in memory are borrowed, spooled ones pass by blocks, see [`budget::MEMORY`] for the rest.

mod boundary;
pub mod budget;
pub(crate) mod decode;
mod fields;
pub(crate) mod source;

use std::cell::Cell;

use memchr::memmem;

use self::boundary::{Hit, Level, find_boundary, match_boundary};
use self::budget::{Budget, Halt, Spill, Stop};
use self::decode::{Base64, Produce, QuotedPrintable, Uu};
use self::fields::{Coding, Collector, Fields, Oddity};
use self::source::{BLOCK, Source, Window};
use crate::content::{Content, zip};

/// Octets of the block before that are shown again at the start of the next, so that what lies
/// across the border of two is seen whole.
pub const OVERLAP: usize = 256;

/// Something with octets of its own: a part, a member of an archive, a uuencoded file.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// `1.2` as IMAP counts parts, `1.2/a.zip/b.exe` within an archive.
    pub path: &'a str,
    /// The file names it is declared with, decoded; several where the declarations differ.
    pub names: &'a [String],
    /// The media types it is declared with, in lower case.
    pub types: &'a [String],
    /// Is it a member of an archive?
    pub archived: bool,
}

/// What could not be looked at, or is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Nested deeper than [`crate::filter::Unpacking::depth`].
    Depth,
    /// More items than [`crate::filter::Unpacking::items`].
    Items,
    /// More octets than [`crate::filter::Unpacking::octets`].
    Octets,
    /// It grew more than [`crate::filter::Unpacking::ratio`].
    Ratio,
    /// A header field longer than any reader takes.
    LongField,
    /// A member is encrypted.
    Encrypted,
    /// Malformed, or packed in an unknown way.
    Unreadable(&'static str),
    /// A header says two things. All readings were looked at.
    Ambiguous(&'static str),
    /// A piece of a message that arrives in several mails (RFC 2046 section 5.2.2).
    Fragment,
}

/// Is shown what is in a mail.
pub trait Visitor {
    /// An item starts; its octets follow in [`Visitor::data`], perhaps in several readings.
    fn item(&mut self, item: &Item<'_>);

    /// Some of an item's octets. `offset` is that of `data[0]` within the item; the first octets
    /// may be the last [`OVERLAP`] of the call before.
    fn data(&mut self, item: &Item<'_>, data: &[u8], offset: u64);

    /// Octets of the mail as they stand, which are not shown as an item's: headers, what is before
    /// and after parts, base64 with something else in between. (Quoted-printable says nothing that
    /// decoding does not show.) `path` is that of the nearest part, empty for the mail itself.
    fn raw(&mut self, path: &str, data: &[u8]);

    /// This item is an archive with an office document's macros in it.
    fn macros(&mut self, item: &Item<'_>);

    /// Something is wrong with an item.
    fn problem(&mut self, path: &str, problem: Problem);
}

/// Shows a mail's inside to the visitor.
///
/// Running out of octets or items is told to the visitor as a problem, and all of the mail is shown
/// raw instead. `Err` is the deadline or a failure to read; what was shown before stays valid.
pub fn walk(content: &Content, budget: &mut Budget, visitor: &mut dyn Visitor) -> Result<(), Stop> {
    let source = Source::content(content);
    let mut walker = Walker { budget, visitor };
    let problem = match walker.message(source, Start::Header, "", 0) {
        Ok(()) => return Ok(()),
        Err(Stop::Octets) => Problem::Octets,
        Err(Stop::Items) => Problem::Items,
        Err(stop) => return Err(stop),
    };
    walker.visitor.problem("", problem);
    walker.raw(&mut Window::new(source), 0, source.len(), "")
}

/// What a message starts with.
#[derive(Clone, Copy)]
enum Start<'a> {
    Header,
    /// Its header was outside: it is a multipart whose parts were encoded as a whole.
    Body(&'a Fields),
}

/// Where an item's octets come from.
enum Input<'i, 's> {
    At(Source<'s>),
    /// Made by a decoder; the function starts it anew.
    Made(&'i dyn Fn() -> Box<dyn Produce + 's>),
}

/// What the next octets of a message are.
enum Region {
    /// A part's body.
    Leaf { fields: Fields, path: String, depth: u32 },
    /// Before the first part.
    Preamble { fields: Fields, path: String, depth: u32 },
    /// After the last.
    Epilogue { path: String },
}

struct Head {
    fields: Fields,
    body: u64,
    hit: Option<Hit>,
}

/// What an item's octets look like.
#[derive(Default)]
struct Looks {
    zip: bool,
    message: bool,
    uuencoded: bool,
    multipart: bool,
    zip_end: bool,
    /// It may hold uuencoded files: a text as mail readers show it, which what is in base64 is not to them.
    text: bool,
}

impl Looks {
    fn worth_keeping(&self) -> bool {
        self.zip || self.message || self.multipart || self.uuencoded || self.zip_end
    }
}

struct Walker<'v> {
    budget: &'v mut Budget,
    visitor: &'v mut dyn Visitor,
}

impl Walker<'_> {
    /// One pass over a message with all that is nested in it without an encoding of its own.
    fn message(&mut self, source: Source<'_>, start: Start<'_>, path: &str, depth: u32) -> Result<(), Stop> {
        let mut window = Window::new(source);
        let mut shown = Window::new(source);
        let mut levels: Vec<Level> = Vec::new();
        let (mut region, mut from, mut hit);
        match start {
            Start::Header => {
                (region, from, hit) =
                    self.part(&mut window, &mut shown, &mut levels, (0, 0), (path.to_owned(), true, depth))?;
            }
            Start::Body(outer) => {
                levels.push(Level { boundaries: outer.boundaries.clone(), path: path.to_owned(), parts: 0, depth });
                let fields = Fields { codings: vec![Coding::Identity], ..Fields::default() };
                (region, from, hit) = (Region::Preamble { fields, path: path.to_owned(), depth }, 0, None);
            }
        }
        loop {
            let found = match hit.take() {
                Some(hit) => Some(hit),
                None => find_boundary(&mut window, from, &levels, self.budget)?,
            };
            let to = found.as_ref().map_or(source.len(), |hit| hit.end.max(from));
            let body = source.range(from, to);
            match region {
                Region::Leaf { fields, path, depth } => self.leaf(body, &fields, &path, depth)?,
                // Without any part it is not a multipart but to the header: a reader may show it as text.
                Region::Preamble { fields, path, depth } if levels.last().is_none_or(|level| level.parts == 0) => {
                    let untouched = found.as_ref().is_none_or(|hit| hit.level + 1 < levels.len() || hit.closes);
                    if untouched {
                        let path = if path.is_empty() { "1".to_owned() } else { path };
                        self.leaf(body, &fields, &path, depth)?;
                    } else {
                        self.raw(&mut shown, from, to, &path)?;
                    }
                }
                Region::Preamble { path, .. } | Region::Epilogue { path } => self.raw(&mut shown, from, to, &path)?,
            }
            let Some(found) = found else { return Ok(()) };
            levels.truncate(found.level + 1);
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if found.closes {
                // A reader may take parts after the closing line too: the level stays open.
                region = Region::Epilogue { path: level.path.clone() };
                from = found.next;
                self.raw(&mut shown, found.line, found.next, &level.path)?;
                continue;
            }
            level.parts += 1;
            let place = (join(&level.path, level.parts), false, level.depth);
            (region, from, hit) = self.part(&mut window, &mut shown, &mut levels, (found.line, found.next), place)?;
        }
    }

    /// A part's header, and those of messages right within it.
    fn part(
        &mut self,
        window: &mut Window<'_>,
        shown: &mut Window<'_>,
        levels: &mut Vec<Level>,
        (mut line, mut at): (u64, u64),
        (mut path, mut whole, mut depth): (String, bool, u32),
    ) -> Result<(Region, u64, Option<Hit>), Stop> {
        loop {
            self.budget.item()?;
            let Head { fields, body, hit } = self.header(window, at, levels)?;
            self.raw(shown, line, body, &path)?;
            let deep = depth >= self.budget.limits().depth;
            match fields.problem {
                Some(Oddity::TwoTypes) => self.visitor.problem(&path, Problem::Ambiguous("two content types")),
                Some(Oddity::TwoEncodings) => self.visitor.problem(&path, Problem::Ambiguous("two encodings")),
                Some(Oddity::LongBoundary) => self.visitor.problem(&path, Problem::Unreadable("an overlong boundary")),
                Some(Oddity::LongField) => self.visitor.problem(&path, Problem::LongField),
                None => {}
            }
            if fields.is_partial() {
                self.visitor.problem(&path, Problem::Fragment);
            }
            if fields.is_multipart() || (fields.is_message() && fields.is_identity()) {
                if deep {
                    self.visitor.problem(&path, Problem::Depth);
                } else if fields.is_multipart() {
                    let boundaries = self.boundaries(window, &fields, body)?;
                    if !boundaries.is_empty() {
                        levels.push(Level { boundaries, path: path.clone(), parts: 0, depth: depth + 1 });
                        return Ok((Region::Preamble { fields, path, depth }, body, None));
                    }
                } else if hit.is_none() {
                    if whole {
                        path = join(&path, 1);
                    }
                    (line, at, whole, depth) = (body, body, true, depth + 1);
                    continue;
                }
            }
            if whole {
                path = join(&path, 1);
            }
            return Ok((Region::Leaf { fields, path, depth }, body, hit));
        }
    }

    /// Those of the header; of a multipart that names none, what its first line with dashes says.
    fn boundaries(&mut self, window: &mut Window<'_>, fields: &Fields, body: u64) -> Result<Vec<Vec<u8>>, Stop> {
        if !fields.boundaries.is_empty() {
            return Ok(fields.boundaries.clone());
        }
        let view = window.at(body, 4096)?;
        let view = &view[..view.len().min(4096)];
        let first = view.split(|octet| *octet == b'\n').find_map(|line| line.strip_prefix(b"--"));
        Ok(first
            .map(<[u8]>::trim_ascii_end)
            .filter(|guess| !guess.is_empty())
            .map(<[u8]>::to_vec)
            .into_iter()
            .collect())
    }

    /// From `from` to the empty line, or to a boundary where that is missing.
    fn header(&mut self, window: &mut Window<'_>, from: u64, levels: &[Level]) -> Result<Head, Stop> {
        /// Longer lines come in pieces.
        const LINE: usize = 64 << 10;
        let mut collector = Collector::default();
        let (mut at, mut first, mut checked) = (from, true, from);
        loop {
            if at - checked >= BLOCK as u64 {
                self.budget.in_time()?;
                checked = at;
            }
            let view = window.at(at, LINE)?;
            let view = &view[..view.len().min(LINE)];
            let line = &view[..memchr::memchr(b'\n', view).map_or(view.len(), |end| end + 1)];
            let whole_line = line.ends_with(b"\n");
            if line.is_empty() {
                return Ok(Head { fields: collector.finish(), body: at, hit: None });
            }
            if first && (line == b"\n" || line == b"\r\n") {
                return Ok(Head { fields: collector.finish(), body: at + line.len() as u64, hit: None });
            }
            if first
                && line.starts_with(b"--")
                && let Some(mut hit) = match_boundary(line, levels)
            {
                (hit.end, hit.line, hit.next) = (at, at, at + line.len() as u64);
                return Ok(Head { fields: collector.finish(), body: at, hit: Some(hit) });
            }
            collector.line(line, first);
            at += line.len() as u64;
            first = whole_line;
        }
    }

    /// Shows octets as they stand.
    fn raw(&mut self, window: &mut Window<'_>, from: u64, to: u64, path: &str) -> Result<(), Stop> {
        let mut at = from;
        while at < to {
            let view = window.at(at, BLOCK.min((to - at).try_into().unwrap_or(BLOCK)))?;
            let view = &view[..view.len().min((to - at).try_into().unwrap_or(usize::MAX))];
            if view.is_empty() {
                break;
            }
            self.visitor.raw(path, view);
            at += view.len() as u64;
            if at < to {
                // Once more from a little before; a block is far longer than the overlap.
                at = at.saturating_sub(OVERLAP as u64).max(from);
                self.budget.in_time()?;
            }
        }
        Ok(())
    }

    /// A part's body, in every encoding that its header names.
    fn leaf(&mut self, body: Source<'_>, fields: &Fields, path: &str, depth: u32) -> Result<(), Stop> {
        let item = Item { path, names: &fields.names, types: &fields.types, archived: false };
        self.visitor.item(&item);
        for coding in &fields.codings {
            match coding {
                Coding::Identity => self.look(&item, &Input::At(body), Some(fields), depth)?,
                Coding::Base64 => {
                    let garbage = Cell::new(false);
                    let input = Input::Made(&|| Box::new(Base64::new(body, &garbage)));
                    self.look(&item, &input, Some(fields), depth)?;
                    if garbage.get() {
                        self.raw(&mut Window::new(body), 0, body.len(), path)?;
                    }
                }
                Coding::QuotedPrintable => {
                    self.look(&item, &Input::Made(&|| Box::new(QuotedPrintable::new(body))), Some(fields), depth)?;
                }
            }
        }
        Ok(())
    }

    /// Shows an item's octets, then what is within them.
    fn look(
        &mut self,
        item: &Item<'_>,
        input: &Input<'_, '_>,
        fields: Option<&Fields>,
        depth: u32,
    ) -> Result<(), Stop> {
        let mut looks = Looks { text: fields.is_some_and(|fields| !fields.is_base64()), ..Looks::default() };
        if let Some(fields) = fields
            && !fields.is_identity()
        {
            looks.message = fields.is_message();
            looks.multipart = fields.is_multipart() && !fields.boundaries.is_empty();
        }
        let mut spill = Spill::default();
        let result = match input {
            Input::At(source) => {
                self.show(item, *source, &mut looks)?;
                self.inside(item, *source, &looks, fields, depth)
            }
            Input::Made(start) => {
                let declared = looks.worth_keeping();
                let kept = self.show_made(item, &mut *start(), &mut looks, &mut spill, declared)?;
                if looks.worth_keeping() && !kept {
                    self.keep(item, &mut *start(), &mut spill)?;
                }
                self.inside(item, spill.source(), &looks, fields, depth)
            }
        };
        spill.release(self.budget);
        result
    }

    fn show(&mut self, item: &Item<'_>, source: Source<'_>, looks: &mut Looks) -> Result<(), Stop> {
        let mut window = Window::new(source);
        let mut at = 0;
        loop {
            let view = window.at(at, BLOCK)?;
            sniff(view, at == 0, looks);
            self.visitor.data(item, view, at);
            let end = at + view.len() as u64;
            if end >= source.len() || view.is_empty() {
                return Ok(());
            }
            at = end.saturating_sub(OVERLAP as u64).max(at + 1);
            self.budget.in_time()?;
        }
    }

    /// True when all of it was kept in `spill`.
    fn show_made(
        &mut self,
        item: &Item<'_>,
        producer: &mut dyn Produce,
        looks: &mut Looks,
        spill: &mut Spill,
        declared: bool,
    ) -> Result<bool, Stop> {
        let mut block = Vec::new();
        let (mut offset, mut keeps) = (0u64, declared);
        loop {
            let old = block.len();
            let more = producer.produce(&mut block, self.budget);
            self.budget.spend(block.len() - old)?;
            if block.len() > old || (offset == 0 && old == 0) {
                let first = offset == 0 && old == 0;
                sniff(&block, first, looks);
                keeps |= first && looks.worth_keeping();
                self.visitor.data(item, &block, offset);
            }
            if keeps {
                spill.append(&block[old..], self.budget)?;
            }
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(keeps),
                Err(halt) => {
                    self.halted(item, halt)?;
                    return Ok(keeps);
                }
            }
            let drop = block.len().saturating_sub(OVERLAP);
            block.copy_within(drop.., 0);
            block.truncate(block.len() - drop);
            offset += drop as u64;
        }
    }

    fn keep(&mut self, item: &Item<'_>, producer: &mut dyn Produce, spill: &mut Spill) -> Result<(), Stop> {
        let mut block = Vec::new();
        loop {
            block.clear();
            let more = producer.produce(&mut block, self.budget);
            self.budget.spend(block.len())?;
            spill.append(&block, self.budget)?;
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(halt) => return self.halted(item, halt),
            }
        }
    }

    fn halted(&mut self, item: &Item<'_>, halt: Halt) -> Result<(), Stop> {
        let problem = match halt {
            Halt::Stop(stop) => return Err(stop),
            Halt::Ratio => Problem::Ratio,
            Halt::Unreadable(why) => Problem::Unreadable(why),
        };
        self.visitor.problem(item.path, problem);
        Ok(())
    }

    /// What an item holds.
    fn inside(
        &mut self,
        item: &Item<'_>,
        source: Source<'_>,
        looks: &Looks,
        fields: Option<&Fields>,
        depth: u32,
    ) -> Result<(), Stop> {
        if !looks.worth_keeping() {
            return Ok(());
        }
        if depth >= self.budget.limits().depth {
            self.visitor.problem(item.path, Problem::Depth);
            return Ok(());
        }
        if looks.zip || looks.zip_end {
            self.archive(item, source, looks.zip, depth + 1)?;
        }
        if looks.message || looks.multipart {
            // A second pass over octets that were counted only once.
            self.budget.spend(usize::try_from(source.len()).unwrap_or(usize::MAX))?;
        }
        if let (true, Some(fields)) = (looks.multipart, fields) {
            self.message(source, Start::Body(fields), item.path, depth + 1)?;
        } else if looks.message {
            self.message(source, Start::Header, item.path, depth + 1)?;
        }
        if looks.uuencoded {
            self.uuencoded(item, source, depth + 1)?;
        }
        Ok(())
    }

    fn archive(&mut self, item: &Item<'_>, source: Source<'_>, surely: bool, depth: u32) -> Result<(), Stop> {
        let Some(directory) = zip::directory(source, self.budget)? else {
            if surely {
                self.visitor.problem(item.path, Problem::Unreadable("an archive without a directory"));
            }
            return Ok(());
        };
        if let Some(problem) = directory.problem {
            self.visitor.problem(item.path, Problem::Unreadable(problem));
        }
        let base = match item.names.first() {
            Some(name) if !item.archived => inner_path(item.path, name),
            _ => item.path.to_owned(),
        };
        for member in &directory.members {
            if member.is_folder() {
                continue;
            }
            self.budget.item()?;
            let path = inner_path(&base, &member.name);
            let names = [member.name.clone()];
            let inner = Item { path: &path, names: &names, types: &[], archived: true };
            self.visitor.item(&inner);
            if member.encrypted {
                self.visitor.problem(&path, Problem::Encrypted);
                continue;
            }
            if member.name.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case("vbaProject.bin")) {
                self.visitor.macros(item);
            }
            if directory.problem.is_some() {
                continue;
            }
            match member.stored(source) {
                Some(stored) => {
                    self.budget.spend(usize::try_from(stored.len()).unwrap_or(usize::MAX))?;
                    self.look(&inner, &Input::At(stored), None, depth)?;
                }
                None => self.look(&inner, &Input::Made(&|| Box::new(member.unpack(source))), None, depth)?,
            }
        }
        Ok(())
    }

    fn uuencoded(&mut self, item: &Item<'_>, source: Source<'_>, depth: u32) -> Result<(), Stop> {
        let mut window = Window::new(source);
        let mut at = 0;
        while at < source.len() {
            let view = window.at(at, BLOCK)?;
            let Some((name, after)) = find_begin(view, at == 0) else {
                let end = at + view.len() as u64;
                if end >= source.len() {
                    break;
                }
                at = end.saturating_sub(OVERLAP as u64).max(at + 1);
                continue;
            };
            let from = at + after as u64;
            self.budget.item()?;
            let path = inner_path(item.path, &name);
            let names = [name];
            let inner = Item { path: &path, names: &names, types: &[], archived: false };
            self.visitor.item(&inner);
            self.look(&inner, &Input::Made(&|| Box::new(Uu::new(source, from))), None, depth)?;
            // No line of it starts like a new `begin`, so none is taken for one. The line end counts.
            at = from - 1;
        }
        Ok(())
    }
}

/// What the octets look like, from their beginning and from marks within.
fn sniff(view: &[u8], first: bool, looks: &mut Looks) {
    if first {
        looks.zip |= view.starts_with(zip::LOCAL) || view.starts_with(zip::END) || view.starts_with(b"PK00PK\x03\x04");
        looks.message |= looks_like_message(view);
        looks.uuencoded |= looks.text && view.starts_with(b"begin ") && find_begin(view, true).is_some();
    }
    looks.zip_end = looks.zip_end || memmem::find(view, zip::END).is_some();
    looks.uuencoded = looks.uuencoded || (looks.text && find_begin(view, false).is_some());
}

/// A header at the start, whatever the declared type says: a known field, and one of MIME's.
fn looks_like_message(view: &[u8]) -> bool {
    const STARTS: [&[u8]; 14] = [
        b"received:",
        b"return-path:",
        b"from:",
        b"to:",
        b"subject:",
        b"date:",
        b"message-id:",
        b"mime-version:",
        b"content-type:",
        b"content-transfer-encoding:",
        b"delivered-to:",
        b"dkim-signature:",
        b"reply-to:",
        b"x-",
    ];
    let starts = |line: &[u8], with: &[u8]| line.get(..with.len()).is_some_and(|s| s.eq_ignore_ascii_case(with));
    if !STARTS.iter().any(|start| starts(view, start)) {
        return false;
    }
    let head = &view[..view.len().min(16 << 10)];
    let head = &head[..memmem::find(head, b"\n\r\n").or_else(|| memmem::find(head, b"\n\n")).unwrap_or(head.len())];
    head.split(|octet| *octet == b'\n').any(|line| starts(line, b"content-type:"))
}

/// A `begin 644 name` line: the name, and where the next line starts.
fn find_begin(view: &[u8], at_start: bool) -> Option<(String, usize)> {
    let line = |start: usize| {
        let rest = view.get(start..)?.strip_prefix(b"begin ")?;
        let rest = &rest[..memchr::memchr(b'\n', &rest[..rest.len().min(OVERLAP - 16)])?];
        let space = memchr::memchr(b' ', rest)?;
        let (mode, name) = (&rest[..space], rest[space..].trim_ascii());
        let valid = (3..=4).contains(&mode.len()) && mode.iter().all(|o| (b'0'..=b'7').contains(o)) && !name.is_empty();
        valid.then(|| (String::from_utf8_lossy(name).into_owned(), start + 6 + rest.len() + 1))
    };
    if at_start && let Some(found) = line(0) {
        return Some(found);
    }
    memmem::find_iter(view, b"\nbegin ").find_map(|at| line(at + 1))
}

/// `1.2` and the third: `1.2.3`.
fn join(path: &str, number: u32) -> String {
    if path.is_empty() { number.to_string() } else { format!("{path}.{number}") }
}

/// Within an archive. Long paths are cut in the middle of nowhere: they are for logs.
fn inner_path(path: &str, name: &str) -> String {
    const PATH: usize = 512;
    let room = PATH.saturating_sub(path.len());
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c });
    let mut whole = format!("{path}/");
    whole.extend(name.take(room));
    whole
}
