//! Conditions: what they ask, and whether they hold for a mail. No I/O but reading the header, and
//! that only when a condition asks for it.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use crate::config::{AddressSet, List, Network, glob};
use crate::content::header::Header;
use crate::finding::{Finding, Kind, Unscanned};
use crate::mail::{Address, Mail, Origin, OriginClass};

use super::written::Range;

/// One condition, names resolved.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    Finding(FindingTest),
    Score(Vec<Range>),
    Way(Vec<String>),
    Origin(Vec<OriginClass>),
    Sender(Addresses),
    Recipient(Addresses),
    Client(Networks),
    Helo(Vec<String>),
    Authenticated(bool),
    Size(Vec<Range>),
    Header(Vec<HeaderTest>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
}

/// Tests that one and the same finding must pass; an empty list lets everything pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct FindingTest {
    pub(super) kinds: Vec<&'static str>,
    pub(super) names: Vec<String>,
    pub(super) classes: Vec<String>,
    pub(super) filters: Vec<String>,
    pub(super) reasons: Vec<Unscanned>,
}

/// Addresses inline and from lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Addresses {
    pub(super) written: Vec<String>,
    pub(super) own: AddressSet,
    pub(super) lists: Vec<Arc<List>>,
}

/// Networks inline and from lists.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Networks {
    pub(super) written: Vec<String>,
    pub(super) all: Vec<Network>,
}

/// One header field's test.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeaderTest {
    pub(super) name: String,
    pub(super) asks: HeaderAsks,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum HeaderAsks {
    Exists(bool),
    Matches(Vec<String>),
    Contains(Vec<String>),
}

/// A mail and what was found in it.
pub(super) struct Facts<'a> {
    pub(super) mail: &'a Mail,
    pub(super) findings: &'a [Finding],
    header: OnceCell<Option<Header>>,
}

/// What a condition is asked about, beside the facts.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) score: f32,
    pub(super) recipient: &'a Address,
}

/// Indices of findings.
pub(super) type Matched = Vec<usize>;

impl<'a> Facts<'a> {
    pub(super) fn new(mail: &'a Mail, findings: &'a [Finding]) -> Self {
        Self { mail, findings, header: OnceCell::new() }
    }

    /// `None`: the spool cannot be read.
    fn header(&self) -> Option<&Header> {
        self.header.get_or_init(|| Header::of(&self.mail.content).ok()).as_ref()
    }

    /// Was the header asked for, and could not be read?
    pub(super) fn header_failed(&self) -> bool {
        matches!(self.header.get(), Some(None))
    }
}

impl Condition {
    /// Does it hold? The findings that made it hold are added to `matched`.
    pub(super) fn holds(&self, facts: &Facts<'_>, case: Case<'_>, matched: &mut Matched) -> bool {
        match self {
            Self::Finding(test) => {
                let before = matched.len();
                for (index, finding) in facts.findings.iter().enumerate() {
                    if test.fits(finding) {
                        matched.push(index);
                    }
                }
                matched.len() > before
            }
            Self::Score(ranges) => ranges.iter().any(|range| range.holds(f64::from(case.score))),
            Self::Way(_) | Self::Origin(_) | Self::Client(_) | Self::Helo(_) | Self::Authenticated(_) => {
                self.fits_origin(&facts.mail.origin)
            }
            Self::Sender(addresses) => addresses.contains(&facts.mail.envelope.sender),
            Self::Recipient(addresses) => addresses.contains(case.recipient),
            Self::Size(ranges) => {
                let size = facts.mail.content.len() as f64;
                ranges.iter().any(|range| range.holds(size))
            }
            Self::Header(tests) => facts.header().is_some_and(|header| tests.iter().any(|test| test.holds(header))),
            Self::All(conditions) => {
                let before = matched.len();
                let all = conditions.iter().all(|condition| condition.holds(facts, case, matched));
                if !all {
                    matched.truncate(before);
                }
                all
            }
            // Every branch is asked, since each may add to what was matched.
            Self::Any(conditions) => {
                let mut any = false;
                for condition in conditions {
                    any |= condition.holds(facts, case, matched);
                }
                any
            }
            Self::Not(condition) => !condition.holds(facts, case, &mut Matched::new()),
        }
    }

    /// Does it hold for a mail of this origin? `false` for conditions that ask for anything else.
    pub(super) fn fits_origin(&self, origin: &Origin) -> bool {
        match self {
            Self::Way(names) => names.iter().any(|name| **name == *origin.way),
            Self::Origin(classes) => classes.contains(&origin.class),
            Self::Client(networks) => {
                origin.client.is_some_and(|client| networks.all.iter().any(|network| network.contains(client)))
            }
            Self::Helo(patterns) => {
                origin.helo.as_deref().is_some_and(|helo| patterns.iter().any(|pattern| glob::matches(pattern, helo)))
            }
            Self::Authenticated(wanted) => origin.user.is_some() == *wanted,
            _ => false,
        }
    }

    /// Can it differ from recipient to recipient? A score can: rules may add to it.
    pub(super) fn varies(&self) -> bool {
        match self {
            Self::Recipient(_) | Self::Score(_) => true,
            Self::All(conditions) | Self::Any(conditions) => conditions.iter().any(Self::varies),
            Self::Not(condition) => condition.varies(),
            _ => false,
        }
    }

    /// Is this anywhere in it?
    pub(super) fn mentions(&self, wanted: fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::All(conditions) | Self::Any(conditions) => conditions.iter().any(|c| c.mentions(wanted)),
                Self::Not(condition) => condition.mentions(wanted),
                _ => false,
            }
    }

    /// Must the other hold whenever this one does? Only what can be told at a glance; `false` when
    /// in doubt.
    pub(super) fn implies(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Finding(a), Self::Finding(b)) => a.implies(b),
            (Self::Score(a), Self::Score(b)) | (Self::Size(a), Self::Size(b)) => {
                a.iter().all(|range| b.iter().any(|outer| range.is_within(outer)))
            }
            (Self::Way(a), Self::Way(b)) | (Self::Helo(a), Self::Helo(b)) => a.iter().all(|item| b.contains(item)),
            (Self::Origin(a), Self::Origin(b)) => a.iter().all(|item| b.contains(item)),
            (Self::Sender(a), Self::Sender(b)) | (Self::Recipient(a), Self::Recipient(b)) => a.is_subset(b),
            (Self::Client(a), Self::Client(b)) => a.all.iter().all(|n| b.all.iter().any(|outer| outer.covers(n))),
            (Self::Header(a), Self::Header(b)) => a.iter().all(|item| b.contains(item)),
            (_, Self::Any(branches)) if self != other => branches.iter().any(|branch| self.implies(branch)),
            (Self::All(conditions), _) if self != other => conditions.iter().any(|condition| condition.implies(other)),
            _ => self == other,
        }
    }

    /// What was seen instead, for `explain`.
    pub(super) fn because(&self, facts: &Facts<'_>, case: Case<'_>) -> String {
        let origin = &facts.mail.origin;
        match self {
            Self::Finding(test) => {
                let fitting: Vec<String> =
                    facts.findings.iter().filter(|finding| test.fits(finding)).map(Finding::to_string).collect();
                match (fitting.is_empty(), facts.findings.is_empty()) {
                    (false, _) => format!("found {}", fitting.join(", ")),
                    (true, true) => "nothing was found".into(),
                    (true, false) => "no finding fits".into(),
                }
            }
            Self::Score(_) => format!("the score is {:.1}", case.score),
            Self::Way(_) => format!("the way is {}", origin.way),
            Self::Origin(_) => format!("it is {}", origin.class),
            Self::Sender(_) => format!("the sender is {}", facts.mail.envelope.sender),
            Self::Recipient(_) => format!("the recipient is {}", case.recipient),
            Self::Client(_) => {
                origin.client.map_or("the client is unknown".into(), |client| format!("the client is {client}"))
            }
            Self::Helo(_) => {
                origin.helo.as_deref().map_or("no HELO is known".into(), |helo| format!("HELO was {helo:?}"))
            }
            Self::Authenticated(_) => {
                origin.user.as_deref().map_or("not authenticated".into(), |user| format!("authenticated as {user:?}"))
            }
            Self::Size(_) => format!("the size is {} octets", facts.mail.content.len()),
            Self::Header(tests) => match facts.header() {
                None => "the header could not be read".into(),
                Some(header) => {
                    let seen: Vec<String> = tests.iter().map(|test| test.because(header)).collect();
                    seen.join(", ")
                }
            },
            Self::All(_) => "all of them must hold".into(),
            Self::Any(_) => "one of them must hold".into(),
            Self::Not(_) => "it must not hold".into(),
        }
    }

    /// The conditions within it.
    pub(super) fn parts(&self) -> &[Self] {
        match self {
            Self::All(conditions) | Self::Any(conditions) => conditions,
            Self::Not(condition) => std::slice::from_ref(condition),
            _ => &[],
        }
    }
}

impl FindingTest {
    /// Is it about findings of kind `unscanned`? Such a finding fits no test that does not say so:
    /// a rule for what a filter found must not hold because the filter is down.
    pub(super) fn is_about_unscanned(&self) -> bool {
        !self.reasons.is_empty() || self.kinds.contains(&"unscanned")
    }

    pub(super) fn fits(&self, finding: &Finding) -> bool {
        let within = |patterns: &[String], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| glob::matches(pattern, text))
        };
        let kind = match finding.kind {
            Kind::Unscanned(reason) => {
                self.is_about_unscanned() && (self.reasons.is_empty() || self.reasons.contains(&reason))
            }
            _ => self.reasons.is_empty(),
        };
        kind && (self.kinds.is_empty() || self.kinds.contains(&finding.kind.as_str()))
            && within(&self.names, &finding.name)
            && within(&self.classes, &finding.class)
            && (self.filters.is_empty() || self.filters.iter().any(|filter| **filter == *finding.filter))
    }

    fn implies(&self, other: &Self) -> bool {
        fn narrower<T: PartialEq>(inner: &[T], outer: &[T]) -> bool {
            outer.is_empty() || (!inner.is_empty() && inner.iter().all(|item| outer.contains(item)))
        }
        narrower(&self.kinds, &other.kinds)
            && narrower(&self.names, &other.names)
            && narrower(&self.classes, &other.classes)
            && narrower(&self.filters, &other.filters)
            && narrower(&self.reasons, &other.reasons)
            // The other, when not about unscanned, misses the unscanned findings that this one fits.
            && (other.is_about_unscanned() || !self.is_about_unscanned())
    }
}

impl Addresses {
    pub(super) fn contains(&self, address: &Address) -> bool {
        self.own.contains(address) || self.lists.iter().any(|list| list.addresses.contains(address))
    }

    fn is_subset(&self, other: &Self) -> bool {
        self.own.is_subset(&other.own) && self.lists.iter().all(|list| other.lists.contains(list))
    }
}

impl HeaderTest {
    fn holds(&self, header: &Header) -> bool {
        let mut values = header.named(&self.name);
        match &self.asks {
            HeaderAsks::Exists(wanted) => values.next().is_some() == *wanted,
            HeaderAsks::Matches(patterns) => values.any(|field| {
                let text = field.text();
                patterns.iter().any(|pattern| glob::matches(pattern, &text))
            }),
            HeaderAsks::Contains(pieces) => values.any(|field| {
                let text = field.text().to_ascii_lowercase();
                pieces.iter().any(|piece| text.contains(piece.as_str()))
            }),
        }
    }

    fn because(&self, header: &Header) -> String {
        let values: Vec<String> = header.named(&self.name).map(|field| field.text()).collect();
        match &values[..] {
            [] => format!("there is no {}", self.name),
            values => format!("{} is {:?}", self.name, values.join(" and ")),
        }
    }
}

/// As the rule has it.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |ranges: &[Range]| ranges.iter().map(|range| range.text.as_str()).collect::<Vec<_>>().join(" or ");
        match self {
            Self::Finding(test) => test.fmt(f),
            Self::Score(ranges) => write!(f, "score {}", texts(ranges)),
            Self::Size(ranges) => write!(f, "size {}", texts(ranges)),
            Self::Way(names) => write!(f, "way = {}", names.join(" or ")),
            Self::Origin(classes) => {
                write!(f, "origin = {}", classes.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(" or "))
            }
            Self::Sender(addresses) => write!(f, "sender = {}", quoted(&addresses.written)),
            Self::Recipient(addresses) => write!(f, "recipient = {}", quoted(&addresses.written)),
            Self::Client(networks) => write!(f, "client = {}", networks.written.join(" or ")),
            Self::Helo(patterns) => write!(f, "helo = {}", quoted(patterns)),
            Self::Authenticated(wanted) => write!(f, "authenticated = {wanted}"),
            Self::Header(tests) => {
                let tests: Vec<String> = tests
                    .iter()
                    .map(|HeaderTest { name, asks }| match asks {
                        HeaderAsks::Exists(true) => format!("header {name} exists"),
                        HeaderAsks::Exists(false) => format!("header {name} does not exist"),
                        HeaderAsks::Matches(patterns) => format!("header {name} matches {}", quoted(patterns)),
                        HeaderAsks::Contains(pieces) => format!("header {name} contains {}", quoted(pieces)),
                    })
                    .collect();
                f.write_str(&tests.join(" or "))
            }
            Self::All(_) => f.write_str("all"),
            Self::Any(_) => f.write_str("any"),
            Self::Not(_) => f.write_str("not"),
        }
    }
}

impl fmt::Display for FindingTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<String> = self.reasons.iter().map(Unscanned::to_string).collect();
        let kinds: Vec<String> = self.kinds.iter().map(|kind| (*kind).to_owned()).collect();
        let asked: Vec<String> = [
            ("finding", &kinds),
            ("name", &self.names),
            ("class", &self.classes),
            ("filter", &self.filters),
            ("unscanned", &reasons),
        ]
        .into_iter()
        .filter(|(_, accepted)| !accepted.is_empty())
        .map(|(key, accepted)| format!("{key} = {}", accepted.join(" or ")))
        .collect();
        f.write_str(&asked.join(", "))
    }
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" or ")
}
