//! What the filter notes while it is shown a mail's inside.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use super::attachment::Rules;
use crate::content::mime::{Item, Problem, Visitor};
use crate::finding::{Finding, Kind, Unscanned};

/// The EICAR test file (eicar.org), in two halves so that no scanner objects to this program.
const EICAR: [&str; 2] = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STAND", "ARD-ANTIVIRUS-TEST-FILE!$H+H*"];
/// SpamAssassin's "generic test for unsolicited bulk email".
const GTUBE: [&str; 2] = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STAND", "ARD-ANTI-UBE-TEST-EMAIL*C.34X"];

static EICAR_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(EICAR.concat().as_bytes()).into_owned());
static GTUBE_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(GTUBE.concat().as_bytes()).into_owned());
/// A stream of VBA code in an OLE2 document (MS-OVBA section 2.3.4): its name in the directory, UTF-16.
static VBA_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| ole2_name("_VBA_PROJECT"));
/// What an encrypted office document is kept in (MS-OFFCRYPTO section 2.3.4.4).
static ENCRYPTED_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| ole2_name("EncryptedPackage"));
const OLE2: &[u8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1";

/// Findings that differ in nothing but their part are as good as one; so many are kept.
const ALIKE: usize = 16;
/// How much of an item's start tells its type.
const HEAD: usize = 4096;

pub(super) struct Look<'a> {
    filter: &'a Arc<str>,
    eicar: bool,
    gtube: bool,
    rules: &'a Rules,
    findings: Vec<Finding>,
    /// The item being shown is an OLE2 document.
    ole2: bool,
    out_of_budget: bool,
}

impl<'a> Look<'a> {
    pub(super) fn new(filter: &'a Arc<str>, eicar: bool, gtube: bool, rules: &'a Rules) -> Self {
        Self { filter, eicar, gtube, rules, findings: Vec::new(), ole2: false, out_of_budget: false }
    }

    /// Did the look end before the mail did, for want of octets or items?
    pub(super) fn is_out_of_budget(&self) -> bool {
        self.out_of_budget
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    fn note(&mut self, kind: Kind, class: &str, name: &str, path: &str) {
        let part = (!path.is_empty()).then_some(path);
        let finding = Finding::new(kind, self.filter, name).with_class(class);
        self.add(if let Some(part) = part { finding.with_part(part) } else { finding });
    }

    /// What is new. A flood of one finding must not keep out another, so each is counted by itself.
    fn add(&mut self, finding: Finding) {
        let once = finding.kind == Kind::Limit || matches!(finding.kind, Kind::Spam { .. });
        let part = finding.part.as_deref().unwrap_or_default();
        let mut alike = 0;
        for known in &mut self.findings {
            if known.name != finding.name || known.class != finding.class {
                continue;
            }
            let known_part = known.part.as_deref().unwrap_or_default();
            if once || known_part == part {
                return;
            }
            // What lies within a part shows in the part's own octets first, or again.
            if &*finding.class == "test" {
                if is_within(known_part, part) {
                    return;
                }
                if is_within(part, known_part) {
                    *known = finding;
                    return;
                }
            }
            alike += 1;
        }
        if alike < ALIKE {
            self.findings.push(finding);
        }
    }

    fn strings(&mut self, path: &str, data: &[u8]) {
        if self.eicar && EICAR_FINDER.find(data).is_some() {
            self.note(Kind::Malware, "test", "Eicar-Test-Signature", path);
        }
        // Points count once for a mail, wherever and however often it says so.
        if self.gtube && GTUBE_FINDER.find(data).is_some() {
            self.note(Kind::Spam { score: 1000.0 }, "test", "GTUBE", path);
        }
    }

    fn attachments(&mut self, names: Vec<String>, path: &str) {
        for name in names {
            self.note(Kind::Policy, "attachment", &name, path);
        }
    }
}

impl Visitor for Look<'_> {
    fn item(&mut self, item: &Item<'_>) {
        let rules = self.rules;
        for name in item.names {
            for rule in rules.by_name(name, item.archived) {
                self.note(Kind::Policy, "attachment", rule, item.path);
            }
        }
    }

    fn data(&mut self, item: &Item<'_>, data: &[u8], offset: u64) {
        self.strings(item.path, data);
        if offset == 0 {
            self.ole2 = data.starts_with(OLE2);
        }
        if self.ole2 && has_entry(&ENCRYPTED_FINDER, data, offset) {
            self.note(Kind::Encrypted, "encrypted", "encrypted-document", item.path);
        }
        if !self.rules.look_at_types() {
            return;
        }
        if offset == 0 {
            let names = self.rules.by_octets(&data[..data.len().min(HEAD)], item.archived);
            let names = names.into_iter().map(str::to_owned).collect();
            self.attachments(names, item.path);
        }
        if self.ole2 && has_entry(&VBA_FINDER, data, offset) {
            let names = self.rules.by_macros(item.archived).map(str::to_owned).collect();
            self.attachments(names, item.path);
        }
    }

    fn raw(&mut self, path: &str, data: &[u8]) {
        self.strings(path, data);
    }

    fn macros(&mut self, item: &Item<'_>) {
        let names = self.rules.by_macros(item.archived).map(str::to_owned).collect();
        self.attachments(names, item.path);
    }

    fn problem(&mut self, path: &str, problem: Problem) {
        match problem {
            Problem::Depth => self.note(Kind::Limit, "depth", "nested-too-deep", path),
            Problem::Items => {
                self.out_of_budget = true;
                self.note(Kind::Limit, "items", "too-many-parts", path);
            }
            Problem::Octets => {
                self.out_of_budget = true;
                self.note(Kind::Limit, "octets", "too-much-to-unpack", path);
            }
            Problem::Ratio => self.note(Kind::Limit, "ratio", "grows-too-much", path),
            Problem::LongField => self.note(Kind::Limit, "header", "overlong-header-field", path),
            Problem::Fragment => self.note(Kind::Limit, "fragment", "piece-of-a-message", path),
            Problem::Encrypted => self.note(Kind::Encrypted, "encrypted", "encrypted-archive-member", path),
            Problem::Ambiguous(what) => self.note(Kind::Policy, "ambiguous", what, path),
            Problem::Unreadable(why) => {
                let reason = Unscanned::Unreadable;
                let finding = Finding::new(Kind::Unscanned(reason), self.filter, reason.as_str()).with_detail(why);
                self.add(if path.is_empty() { finding } else { finding.with_part(path) });
            }
        }
    }
}

/// Is the part of this path `outer`, or within it?
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '/']))
}

fn ole2_name(name: &str) -> Finder<'static> {
    let wide: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    Finder::new(&wide).into_owned()
}

/// Entries of an OLE2 directory begin with their name and are 128 octets long; sectors are a
/// multiple of that (MS-CFB section 2.6.1). A text that only mentions the name lies anywhere.
fn has_entry(name: &Finder<'_>, data: &[u8], offset: u64) -> bool {
    name.find_iter(data).any(|at| (offset + at as u64).is_multiple_of(128))
}
