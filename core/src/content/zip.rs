//! ZIP archives: the central directory, checked, and the members' octets.
//!
//! It is no general reader: what two readers could understand differently is refused, not guessed.
//! (APPNOTE.TXT 6.3.10 has the format.)

use flate2::{Crc, Decompress, FlushDecompress, Status};
use memchr::memmem;

use super::mime::budget::{Budget, Halt, Stop};
use super::mime::decode::{CHUNK, Produce};
use super::mime::source::{Source, Window};

/// A local file header's mark.
pub(crate) const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// The end record's mark.
pub(crate) const END: &[u8; 4] = b"PK\x05\x06";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
/// The end record and the longest comment.
const TAIL: usize = 22 + 0xffff;
/// Longer member names are cut at their start: the end says how a file is opened.
const NAME: usize = 512;

/// What an archive's directory says.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) members: Vec<Member>,
    /// Why it is not to be trusted; its members are not unpacked then.
    pub(crate) problem: Option<&'static str>,
}

/// One member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) encrypted: bool,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Where its local header starts, in the source.
    header: u64,
    /// Where its octets start.
    data: u64,
}

/// Reads the directory. `None`: this is no archive, however it looks.
pub(crate) fn directory(source: Source<'_>, budget: &Budget) -> Result<Option<Directory>, Stop> {
    let Some(end) = find_end(source)? else { return Ok(None) };
    let mut directory = Directory::default();
    let mut window = Window::new(source);
    let mut at = end.start;
    while at < end.at {
        let Some(entry) = Entry::read(&mut window, at)? else { break };
        if directory.members.len() as u64 >= u64::from(budget.items()) {
            return Err(Stop::Items);
        }
        budget.in_time()?;
        at += entry.length;
        match entry.member(source, end.shift)? {
            Ok(member) => directory.members.push(member),
            Err(problem) => directory.problem = Some(problem),
        }
    }
    if directory.members.len() as u64 != end.count && directory.problem.is_none() {
        directory.problem = Some("the directory has not the members it says");
    }
    if directory.problem.is_none() {
        directory.problem = overlaps(source, &directory.members, end.start)?;
    }
    Ok(Some(directory))
}

struct End {
    at: u64,
    start: u64,
    count: u64,
    /// An archive put behind something else may count its offsets from its own start.
    shift: u64,
}

fn find_end(source: Source<'_>) -> Result<Option<End>, Stop> {
    let tail_start = source.len().saturating_sub(TAIL as u64 + 1024);
    let mut tail = vec![0; (source.len() - tail_start) as usize];
    let count = source.read_at(&mut tail, tail_start)?;
    let tail = &tail[..count];
    for found in memmem::rfind_iter(tail, END) {
        let Some(record) = tail.get(found..found + 22) else { continue };
        let at = tail_start + found as u64;
        let (mut count, mut size, mut offset) =
            (u64::from(u16_at(record, 10)), u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
        let mut directory_end = at;
        if (count == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff)
            && let Some(locator) = found.checked_sub(20).and_then(|start| tail.get(start..start + 20))
            && locator.starts_with(b"PK\x06\x07")
        {
            // ZIP64: the larger end record stands right before its locator.
            let Some(start) = (at - 20).checked_sub(56) else { continue };
            let mut large = [0; 56];
            source.read_at(&mut large, start)?;
            if !large.starts_with(b"PK\x06\x06") {
                continue;
            }
            (count, size, offset) = (u64_at(&large, 32), u64_at(&large, 40), u64_at(&large, 48));
            directory_end = start;
        }
        let Some(start) = directory_end.checked_sub(size) else { continue };
        let Some(shift) = start.checked_sub(offset) else { continue };
        let mut mark = [0; 4];
        source.read_at(&mut mark, start)?;
        if mark == *CENTRAL || (count == 0 && size == 0) {
            return Ok(Some(End { at: directory_end, start, count, shift }));
        }
    }
    Ok(None)
}

/// An entry of the central directory.
struct Entry {
    length: u64,
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
    name: Vec<u8>,
}

impl Entry {
    fn read(window: &mut Window<'_>, at: u64) -> Result<Option<Self>, Stop> {
        let view = window.at(at, 46 + 3 * 0xffff)?;
        if view.len() < 46 || !view.starts_with(CENTRAL) {
            return Ok(None);
        }
        let name_length = usize::from(u16_at(view, 28));
        let extra_length = usize::from(u16_at(view, 30));
        let length = 46 + name_length + extra_length + usize::from(u16_at(view, 32));
        let (Some(name), Some(extra)) =
            (view.get(46..46 + name_length), view.get(46 + name_length..46 + name_length + extra_length))
        else {
            return Ok(None);
        };
        let mut entry = Self {
            length: length as u64,
            flags: u16_at(view, 8),
            method: u16_at(view, 10),
            crc: u32_at(view, 16),
            packed: u64::from(u32_at(view, 20)),
            size: u64::from(u32_at(view, 24)),
            offset: u64::from(u32_at(view, 42)),
            name: name[name.len().saturating_sub(NAME)..].to_vec(),
        };
        entry.zip64(extra);
        Ok(Some(entry))
    }

    /// APPNOTE 4.5.3: the values that did not fit, in this order.
    fn zip64(&mut self, mut extra: &[u8]) {
        while extra.len() >= 4 {
            let length = usize::from(u16_at(extra, 2));
            let Some(mut field) = extra.get(4..4 + length) else { return };
            if u16_at(extra, 0) == 1 {
                for value in [&mut self.size, &mut self.packed, &mut self.offset] {
                    if *value == 0xffff_ffff && field.len() >= 8 {
                        *value = u64_at(field, 0);
                        field = &field[8..];
                    }
                }
            }
            extra = &extra[4 + length..];
        }
    }

    /// Compares with the local header: a reader that goes by that one must see the same member.
    fn member(self, source: Source<'_>, shift: u64) -> Result<Result<Member, &'static str>, Stop> {
        let Some(header) = self.offset.checked_add(shift) else { return Ok(Err("a member lies outside")) };
        let mut local = [0; 30];
        if source.read_at(&mut local, header)? < local.len() || !local.starts_with(LOCAL) {
            return Ok(Err("a member is not where the directory says"));
        }
        let name_length = usize::from(u16_at(&local, 26));
        let data = header + 30 + name_length as u64 + u64::from(u16_at(&local, 28));
        let mut name = vec![0; name_length.min(NAME)];
        let kept = header + 30 + (name_length - name.len()) as u64;
        source.read_at(&mut name, kept)?;
        let encrypted = self.flags & 0x2041 != 0;
        if u16_at(&local, 8) != self.method || u16_at(&local, 6) & 1 != self.flags & 1 || name != self.name {
            return Ok(Err("a member's two headers differ"));
        }
        let local_packed = u64::from(u32_at(&local, 18));
        if u16_at(&local, 6) & 8 == 0 && local_packed != self.packed && local_packed != 0xffff_ffff {
            return Ok(Err("a member's two sizes differ"));
        }
        if data.checked_add(self.packed).is_none_or(|end| end > source.len()) {
            return Ok(Err("a member reaches beyond the end"));
        }
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let Self { method, crc, packed, size, .. } = self;
        Ok(Ok(Member { name, encrypted, method, crc, packed, size, header, data }))
    }
}

/// Members that share octets are how a small archive gets endless; octets of no member hide one.
fn overlaps(source: Source<'_>, members: &[Member], directory: u64) -> Result<Option<&'static str>, Stop> {
    let mut ranges: Vec<(u64, u64)> = members.iter().map(|m| (m.header, m.data + m.packed)).collect();
    ranges.sort_unstable();
    ranges.push((directory, directory));
    for pair in ranges.windows(2) {
        let (end, next) = (pair[0].1, pair[1].0);
        if end > next {
            return Ok(Some("members overlap"));
        }
        // Between them there may be a data descriptor of 12, 16, 20 or 24 octets.
        if next - end > 30 {
            let mut gap = [0; 28];
            source.read_at(&mut gap, end)?;
            if gap.windows(4).any(|mark| mark == LOCAL) {
                return Ok(Some("a member is not in the directory"));
            }
        }
    }
    Ok(None)
}

impl Member {
    /// Is it a folder, with nothing in it?
    pub(crate) fn is_folder(&self) -> bool {
        self.name.ends_with('/') && self.size == 0 && self.packed == 0
    }

    /// Its octets as they are in the archive, when it is stored without packing.
    pub(crate) fn stored<'a>(&self, source: Source<'a>) -> Option<Source<'a>> {
        (self.method == 0 && self.packed == self.size).then(|| source.range(self.data, self.data + self.packed))
    }

    /// Its octets, unpacked on the way.
    pub(crate) fn unpack<'a>(&self, source: Source<'a>) -> Unpack<'a> {
        Unpack {
            window: Window::new(source.range(self.data, self.data + self.packed)),
            position: 0,
            // A member that says stored and lies about its size is told from the method.
            inflate: (self.method == 8).then(|| Decompress::new(false)),
            crc: Crc::new(),
            member: self.clone(),
            out: 0,
        }
    }
}

/// Unpacks a member.
#[derive(Debug)]
pub(crate) struct Unpack<'a> {
    window: Window<'a>,
    position: u64,
    inflate: Option<Decompress>,
    crc: Crc,
    member: Member,
    out: u64,
}

impl Produce for Unpack<'_> {
    fn produce(&mut self, out: &mut Vec<u8>, budget: &mut Budget) -> Result<bool, Halt> {
        let Some(inflate) = &mut self.inflate else {
            return Err(Halt::Unreadable(match self.member.method {
                0 => "a stored member has two sizes",
                _ => "a member is packed in an unknown way",
            }));
        };
        let before = out.len();
        out.reserve(CHUNK);
        let view = self.window.at(self.position, CHUNK)?;
        let (in_before, out_before) = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress_vec(view, out, FlushDecompress::None);
        let read = inflate.total_in() - in_before;
        let made = inflate.total_out() - out_before;
        let starved = view.is_empty();
        self.position += read;
        self.out += made;
        self.crc.update(&out[before..]);
        let ratio = u64::from(budget.limits().ratio);
        if self.out > 1 << 20 && self.out / ratio.max(1) > self.member.packed {
            return Err(Halt::Ratio);
        }
        match status {
            Ok(Status::StreamEnd) => {
                if self.out != self.member.size || self.position != self.member.packed {
                    Err(Halt::Unreadable("a member's size is not what the directory says"))
                } else if self.crc.sum() != self.member.crc {
                    Err(Halt::Unreadable("a member's checksum does not fit"))
                } else {
                    Ok(false)
                }
            }
            Ok(_) if read == 0 && made == 0 && starved => Err(Halt::Unreadable("a member is cut off")),
            Ok(_) if read == 0 && made == 0 => Err(Halt::Unreadable("a member is damaged")),
            Ok(_) => Ok(true),
            Err(_) => Err(Halt::Unreadable("a member is damaged")),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
