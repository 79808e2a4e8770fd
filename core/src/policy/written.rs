//! Rules as they are written in the file. What they mean is in [`super::load`].

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::config::{Located, OneOrMany, Size};
use crate::finding::{Kind, Unscanned};
use crate::mail::OriginClass;

/// `[[rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: Option<Located<String>>,
    #[serde(default)]
    pub(super) when: Option<When>,
    pub(super) then: Located<Then>,
}

/// Conditions: all that are given must hold; of a list, any one.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct When {
    pub(super) finding: Option<Located<OneOrMany<KindName>>>,
    pub(super) name: Option<Located<OneOrMany<String>>>,
    pub(super) class: Option<Located<OneOrMany<String>>>,
    pub(super) filter: Option<Located<OneOrMany<Located<String>>>>,
    pub(super) unscanned: Option<Located<OneOrMany<Reason>>>,
    pub(super) score: Option<Located<OneOrMany<ScoreRange>>>,
    pub(super) way: Option<Located<OneOrMany<Located<String>>>>,
    pub(super) origin: Option<Located<OneOrMany<OriginClass>>>,
    pub(super) sender: Option<Located<OneOrMany<Located<String>>>>,
    pub(super) recipient: Option<Located<OneOrMany<Located<String>>>>,
    pub(super) client: Option<Located<OneOrMany<Located<String>>>>,
    pub(super) helo: Option<Located<OneOrMany<String>>>,
    pub(super) authenticated: Option<bool>,
    pub(super) size: Option<Located<OneOrMany<SizeRange>>>,
    pub(super) header: Option<Located<OneOrMany<Located<Header>>>>,
    pub(super) any: Option<Located<Vec<When>>>,
    pub(super) all: Option<Located<Vec<When>>>,
    pub(super) not: Option<Box<When>>,
}

/// `{ name = "List-Id", contains = "…" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) name: String,
    pub(super) exists: Option<bool>,
    #[serde(default)]
    pub(super) matches: OneOrMany<String>,
    #[serde(default)]
    pub(super) contains: OneOrMany<String>,
}

/// Actions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Then {
    pub(super) deliver: Option<True>,
    pub(super) reject: Option<Located<String>>,
    pub(super) defer: Option<Located<String>>,
    pub(super) discard: Option<True>,
    pub(super) hold: Option<Located<String>>,
    pub(super) quarantine: Option<bool>,
    pub(super) add_header: OneOrMany<Located<String>>,
    pub(super) append_header: OneOrMany<Located<String>>,
    pub(super) set_header: OneOrMany<Located<String>>,
    pub(super) remove_header: OneOrMany<Located<String>>,
    pub(super) subject_tag: Option<Located<String>>,
    pub(super) replace_body: Option<Located<String>>,
    pub(super) add_recipient: OneOrMany<Located<String>>,
    pub(super) change_sender: Option<Located<String>>,
    pub(super) score: Option<f32>,
    pub(super) stop: Option<True>,
    pub(super) go_on: Option<True>,
}

/// `true`: to say `false` would only raise the question what that means.
#[derive(Debug)]
pub(super) struct True;

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            Ok(Self)
        } else {
            Err(de::Error::custom("only true is accepted: leave the key out instead"))
        }
    }
}

/// The name of a kind of finding.
#[derive(Debug, Clone, Copy)]
pub(super) struct KindName(pub(super) &'static str);

impl<'de> Deserialize<'de> for KindName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = String::deserialize(deserializer)?;
        let known = Kind::NAMES.iter().find(|name| **name == given);
        known.map(|name| Self(name)).ok_or_else(|| de::Error::unknown_variant(&given, &Kind::NAMES))
    }
}

/// The reason of an `unscanned` finding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reason(pub(super) Unscanned);

static REASONS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| Unscanned::ALL.into_iter().map(Unscanned::as_str).collect());

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = String::deserialize(deserializer)?;
        let known = Unscanned::ALL.into_iter().find(|reason| reason.as_str() == given);
        known.map(Self).ok_or_else(|| de::Error::unknown_variant(&given, &REASONS))
    }
}

/// `">= 6"`, or several that must all hold: `">= 6, < 15"`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    pub(super) tests: Vec<(Comparison, f64)>,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

impl Range {
    fn parse(text: &str, number: fn(&str) -> Option<f64>) -> Option<Self> {
        const WRITTEN: [(&str, Comparison); 5] = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            (">", Comparison::Above),
            ("<", Comparison::Below),
            ("=", Comparison::Equal),
        ];
        let tests = text
            .split(',')
            .map(|test| {
                let (sign, comparison) = WRITTEN.iter().find(|(sign, _)| test.trim_start().starts_with(sign))?;
                Some((*comparison, number(test.trim_start().strip_prefix(sign)?.trim())?))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { tests, text: text.trim().to_owned() })
    }

    pub(super) fn holds(&self, value: f64) -> bool {
        self.tests.iter().all(|(comparison, bound)| match comparison {
            Comparison::AtLeast => value >= *bound,
            Comparison::AtMost => value <= *bound,
            Comparison::Above => value > *bound,
            Comparison::Below => value < *bound,
            Comparison::Equal => value == *bound,
        })
    }

    /// Does every value in this range lie in the other? Only what can be told at a glance.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        use Comparison::{Above, AtLeast, AtMost, Below, Equal};
        other.tests.iter().all(|(outer, bound)| {
            self.tests.iter().any(|(inner, value)| match (inner, outer) {
                (Equal, _) => Self { tests: vec![(*outer, *bound)], text: String::new() }.holds(*value),
                (AtLeast | Above, AtLeast) | (Above, Above) => value >= bound,
                (AtLeast, Above) => value > bound,
                (AtMost | Below, AtMost) | (Below, Below) => value <= bound,
                (AtMost, Below) => value < bound,
                _ => false,
            })
        })
    }
}

macro_rules! range {
    ($name:ident, $expecting:literal, $number:expr) => {
        /// A range as written.
        #[derive(Debug)]
        pub(super) struct $name(pub(super) Range);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        let range = Range::parse(text, $number);
                        range.map($name).ok_or_else(|| E::custom(concat!("not a comparison; accepted: ", $expecting)))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

range!(ScoreRange, "a text such as \">= 6\" or \">= 6, < 15\"", |text| {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
});
range!(SizeRange, "a text such as \"> 10 MiB\" or \">= 1 MiB, < 5 MiB\"", |text| {
    text.parse::<Size>().ok().map(|size| size.as_u64() as f64)
});
