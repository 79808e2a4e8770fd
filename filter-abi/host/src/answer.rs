//! What a library answers, checked. Garbage is never silently dropped and never clean: it becomes a failure of the call.

#![allow(unsafe_code, reason = "the library's strings are read")]

use checkpost_filter_abi::raw;

/// What a library found in a mail, and whether it looked at all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// What it reported and what is usable of it, in that order. It counts whatever the failures are.
    pub findings: Vec<Found>,
    /// Why the mail counts as not, or not wholly, looked at. Empty: it was looked at.
    pub failures: Vec<(Failure, String)>,
}

/// One thing found. All strings are within the contract's bounds; they may have control characters.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Points; finite, 0 for all but spam.
    pub score: f32,
    /// Never empty.
    pub name: String,
    /// A finer class in kebab case, if there is one.
    pub class: Option<String>,
    /// Where, if not the mail as a whole.
    pub part: Option<String>,
    /// More for the log.
    pub detail: Option<String>,
}

/// The contract's kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the header has them")]
pub enum Kind {
    Malware,
    Phishing,
    Spam,
    Policy,
    Encrypted,
    Limit,
    Auth,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Malware, Self::Phishing, Self::Spam, Self::Policy, Self::Encrypted, Self::Limit, Self::Auth];

    fn number(self) -> u32 {
        match self {
            Self::Malware => raw::MALWARE,
            Self::Phishing => raw::PHISHING,
            Self::Spam => raw::SPAM,
            Self::Policy => raw::POLICY,
            Self::Encrypted => raw::ENCRYPTED,
            Self::Limit => raw::LIMIT,
            Self::Auth => raw::AUTH,
        }
    }

    pub(crate) fn bit(self) -> u32 {
        1 << self.number()
    }

    /// As rules write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malware => "malware",
            Self::Phishing => "phishing",
            Self::Spam => "spam",
            Self::Policy => "policy",
            Self::Encrypted => "encrypted",
            Self::Limit => "limit",
            Self::Auth => "auth",
        }
    }
}

/// Why a mail counts as not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The filter itself could not.
    Error,
    /// The mail is larger than it looks at.
    TooLarge,
    /// Some part could not be looked into.
    Unreadable,
    /// Not done in time, or cancelled.
    Timeout,
    /// Too much work at once.
    Busy,
    /// The content could not be read.
    ReadError,
    /// It caught a crash of its own.
    Panicked,
    /// It broke the contract: an unknown code, or garbage for a finding.
    Garbage,
}

impl Failure {
    /// `None`: the code says that all is well.
    pub(crate) fn of_code(code: i32) -> Option<Self> {
        Some(match code {
            raw::OK => return None,
            raw::ERROR => Self::Error,
            raw::TOO_LARGE => Self::TooLarge,
            raw::UNREADABLE => Self::Unreadable,
            raw::TIMEOUT => Self::Timeout,
            raw::BUSY => Self::Busy,
            raw::READ_ERROR => Self::ReadError,
            raw::PANICKED => Self::Panicked,
            _ => Self::Garbage,
        })
    }
}

/// What comes in while the library looks.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    findings: Vec<Found>,
    /// The first thing that broke the contract, and how many did.
    flaw: Option<String>,
    flaws: u64,
    too_many: bool,
}

impl Collected {
    /// Takes one more finding. What is usable of it counts, even if the rest breaks the contract: malware with too
    /// long a name is malware.
    ///
    /// # Safety
    /// `finding` is null or leads to a finding by the contract.
    pub(crate) unsafe fn report(&mut self, finding: *const raw::Finding) -> i32 {
        if self.findings.len() >= raw::MAX_FINDINGS {
            if !self.too_many {
                self.too_many = true;
                self.flaw(format!("more than {} findings", raw::MAX_FINDINGS));
            }
            return raw::STOP;
        }
        let before = self.flaws;
        // SAFETY: by the caller's word.
        if let Some(found) = unsafe { self.check(finding) } {
            self.findings.push(found);
        }
        if self.flaws == before { raw::TAKEN } else { raw::REFUSED }
    }

    /// Puts the answer together, with the code that the library returned and its words for it.
    pub(crate) fn finish(self, code: i32, explained: Option<String>) -> Answer {
        let mut failures = Vec::new();
        match Failure::of_code(code) {
            None => {}
            Some(Failure::Garbage) => failures.push((Failure::Garbage, format!("it returned the unknown code {code}"))),
            Some(failure) => {
                failures.push((failure, explained.unwrap_or_else(|| format!("it does not say why (code {code})"))));
            }
        }
        if let Some(flaw) = self.flaw {
            let more = if self.flaws > 1 { format!(" (and {} more such)", self.flaws - 1) } else { String::new() };
            failures.push((Failure::Garbage, format!("it reported {flaw}{more}")));
        }
        Answer { findings: self.findings, failures }
    }

    fn flaw(&mut self, what: String) {
        self.flaws += 1;
        self.flaw.get_or_insert(what);
    }

    /// # Safety
    /// As for [`Collected::report`].
    unsafe fn check(&mut self, finding: *const raw::Finding) -> Option<Found> {
        if finding.is_null() {
            self.flaw("NULL for a finding".to_owned());
            return None;
        }
        // SAFETY: not null, so a finding, whose size is its first member.
        let size = unsafe { (&raw const (*finding).size).read_unaligned() };
        if size != size_of::<raw::Finding>() {
            self.flaw(format!("a finding of {size} octets where there are {}", size_of::<raw::Finding>()));
            return None;
        }
        // SAFETY: its size says that it is all there.
        let raw = unsafe { finding.read_unaligned() };
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.number() == raw.kind) else {
            self.flaw(format!("a finding of the unknown kind {}", raw.kind));
            return None;
        };
        let score = if kind == Kind::Spam { raw.score } else { 0.0 };
        if !score.is_finite() {
            self.flaw(format!("a score of {score}"));
            return None;
        }
        // SAFETY: by the caller's word the views are valid.
        let (name, class, part, detail) = unsafe {
            (
                self.text("name", raw.name, raw::MAX_NAME),
                self.text("class", raw.class, raw::MAX_CLASS),
                self.text("part", raw.part, raw::MAX_PART),
                self.text("detail", raw.detail, raw::MAX_DETAIL),
            )
        };
        let Some(name) = name else {
            self.flaw(format!("a {} finding without a name", kind.as_str()));
            return Some(Found { kind, score, name: "unnamed".to_owned(), class: None, part, detail });
        };
        let class = class.filter(|class| {
            let kebab = class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !kebab {
                self.flaw(format!("the class {class:?}, which is not of a-z, 0-9 and \"-\""));
            }
            kebab
        });
        Some(Found { kind, score, name, class, part, detail })
    }

    /// A copy, cut at its bound, what is not UTF-8 replaced. `None`: empty.
    ///
    /// # Safety
    /// The view is valid, if its pointer is not null.
    unsafe fn text(&mut self, what: &str, view: raw::Str, most: usize) -> Option<String> {
        if view.length == 0 {
            return None;
        }
        if view.data.is_null() {
            self.flaw(format!("NULL with a length for a {what}"));
            return None;
        }
        if view.length > most {
            self.flaw(format!("a {what} of {} octets where {most} are allowed", view.length));
        }
        // SAFETY: by the caller's word; no more than the bound is looked at.
        Some(lossy(unsafe { std::slice::from_raw_parts(view.data, view.length.min(most)) }, most))
    }
}

/// Text from octets, at most so many octets of it.
pub(crate) fn lossy(bytes: &[u8], most: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: u32, name: &[u8]) -> raw::Finding {
        raw::Finding {
            size: size_of::<raw::Finding>(),
            kind,
            score: f32::NAN,
            name: raw::Str::of(name),
            class: raw::Str::NONE,
            part: raw::Str::NONE,
            detail: raw::Str::NONE,
        }
    }

    fn check(finding: &raw::Finding, expected: Result<Found, (Option<&str>, &str)>) {
        let mut collected = Collected::default();
        // SAFETY: it is a finding.
        let code = unsafe { collected.report(finding) };
        let answer = collected.finish(raw::OK, None);
        match expected {
            Ok(found) => {
                assert_eq!(answer, Answer { findings: vec![found], failures: Vec::new() });
                assert_eq!(code, raw::TAKEN);
            }
            Err((name, flaw)) => {
                assert_eq!(answer.findings.first().map(|found| &*found.name), name);
                let [(Failure::Garbage, text)] = &answer.failures[..] else { panic!("{answer:?}") };
                assert!(text.contains(flaw), "{text}");
                assert_eq!(code, raw::REFUSED);
            }
        }
    }

    #[test]
    fn every_finding_is_checked() {
        let found =
            |kind, name: &str| Found { kind, score: 0.0, name: name.into(), class: None, part: None, detail: None };
        let null = |length| raw::Str { data: std::ptr::null(), length };
        check(&finding(raw::MALWARE, b"A"), Ok(found(Kind::Malware, "A")));
        check(&finding(raw::MALWARE, b"A\xff"), Ok(found(Kind::Malware, "A\u{fffd}")));
        check(&finding(0, b"A"), Err((None, "unknown kind 0")));
        check(&finding(8, b"A"), Err((None, "unknown kind 8")));
        check(&finding(raw::SPAM, b"A"), Err((None, "a score of NaN")));
        let spam = |score| raw::Finding { score, ..finding(raw::SPAM, b"A") };
        check(&spam(f32::INFINITY), Err((None, "a score of inf")));
        check(&spam(-1.5), Ok(Found { score: -1.5, ..found(Kind::Spam, "A") }));
        check(&finding(raw::AUTH, b""), Err((Some("unnamed"), "without a name")));
        check(&raw::Finding { name: null(3), ..finding(raw::AUTH, b"") }, Err((Some("unnamed"), "NULL with a length")));
        check(&raw::Finding { size: 8, ..finding(raw::AUTH, b"A") }, Err((None, "a finding of 8 octets")));
        let long = [b'a'; raw::MAX_NAME + 1];
        let cut = "a".repeat(raw::MAX_NAME);
        check(&finding(raw::MALWARE, &long), Err((Some(&cut), "a name of 257 octets where 256 are allowed")));
        // Nobody looks behind the bound.
        let endless = raw::Str { data: long.as_ptr(), length: usize::MAX };
        check(&raw::Finding { name: endless, ..finding(raw::MALWARE, b"") }, Err((Some(&cut), "a name of 1844")));
        // Replacement characters take three octets each.
        let garbled = [0xff; raw::MAX_NAME];
        check(&finding(raw::MALWARE, &garbled), Ok(found(Kind::Malware, &"\u{fffd}".repeat(raw::MAX_NAME / 3))));
        let class = |class: &'static [u8]| raw::Finding { class: raw::Str::of(class), ..finding(raw::POLICY, b"A") };
        check(&class(b"a-1"), Ok(Found { class: Some("a-1".into()), ..found(Kind::Policy, "A") }));
        check(&class(b"A b"), Err((Some("A"), "the class \"A b\"")));
    }

    #[test]
    fn the_thousand_and_first_is_one_too_many() {
        let mut collected = Collected::default();
        let one = finding(raw::MALWARE, b"A");
        for index in 0..3000 {
            // SAFETY: it is a finding.
            let code = unsafe { collected.report(&one) };
            assert_eq!(code, if index < raw::MAX_FINDINGS { raw::TAKEN } else { raw::STOP });
        }
        let answer = collected.finish(raw::OK, None);
        assert_eq!(answer.findings.len(), raw::MAX_FINDINGS);
        assert_eq!(answer.failures, [(Failure::Garbage, "it reported more than 1000 findings".to_owned())]);
    }

    #[test]
    fn codes_and_words_make_failures() {
        let check = |code, explained: Option<&str>, expected: &[(Failure, &str)]| {
            let answer = Collected::default().finish(code, explained.map(str::to_owned));
            let expected: Vec<_> = expected.iter().map(|(failure, text)| (*failure, (*text).to_owned())).collect();
            assert_eq!(answer.failures, expected);
        };
        check(raw::OK, Some("nothing"), &[]);
        check(raw::ERROR, Some("no rules"), &[(Failure::Error, "no rules")]);
        check(raw::TOO_LARGE, None, &[(Failure::TooLarge, "it does not say why (code 2)")]);
        check(-1, Some("x"), &[(Failure::Garbage, "it returned the unknown code -1")]);
    }
}
