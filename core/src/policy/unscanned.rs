//! What becomes of a mail that a filter did not scan and that the rules would deliver.

use std::fmt;
use std::sync::LazyLock;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::finding::Unscanned;
use crate::mail::OriginClass;

/// A filter's key `when_unscanned`:
///
/// * `"defer"`, for all mail, or
/// * `{ inbound = "defer", submission = "defer", internal = "deliver" }`; what is not given is
///   deferred; and besides, for a reason of its own,
/// * `{ inbound = "defer", too-large = "deliver" }` or `{ too-large = { internal = "deliver" } }`,
///   which goes before the origin.
///
/// The default is to defer everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WhenUnscanned {
    general: ByOrigin,
    reasons: Vec<(Unscanned, ByOrigin)>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// 451: it comes again, when the filter may look.
    #[default]
    Defer,
    /// 550.
    Reject,
    /// Let through, marked with the header field `X-Checkpost-Unscanned`.
    Deliver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ByOrigin([Fate; 3]);

impl WhenUnscanned {
    /// The same for all mail.
    pub fn always(fate: Fate) -> Self {
        Self { general: ByOrigin([fate; 3]), reasons: Vec::new() }
    }

    /// What becomes of a mail of this origin, not scanned for this reason.
    pub fn fate(&self, origin: OriginClass, reason: Unscanned) -> Fate {
        let special = self.reasons.iter().find(|(own, _)| *own == reason);
        special.map_or(self.general, |(_, by_origin)| *by_origin).0[index(origin)]
    }

    /// Is there a reason for which mail of this origin is let through?
    pub fn may_deliver(&self, origin: OriginClass) -> bool {
        Unscanned::ALL.into_iter().any(|reason| self.fate(origin, reason) == Fate::Deliver)
    }
}

fn index(origin: OriginClass) -> usize {
    match origin {
        OriginClass::Inbound => 0,
        OriginClass::Submission => 1,
        OriginClass::Internal => 2,
    }
}

const ORIGINS: [OriginClass; 3] = [OriginClass::Inbound, OriginClass::Submission, OriginClass::Internal];

static ORIGIN_KEYS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| ORIGINS.into_iter().map(OriginClass::as_str).collect());
static KEYS: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| ORIGIN_KEYS.iter().copied().chain(Unscanned::ALL.into_iter().map(Unscanned::as_str)).collect());

fn origin_named(name: &str) -> Option<OriginClass> {
    ORIGINS.into_iter().find(|origin| origin.as_str() == name)
}

impl<'de> Deserialize<'de> for WhenUnscanned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = WhenUnscanned;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"defer\", \"deliver\", \"reject\", or a table of them by origin or reason")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<WhenUnscanned, E> {
                Ok(WhenUnscanned::always(Fate::deserialize(de::value::StrDeserializer::new(text))?))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WhenUnscanned, A::Error> {
                let mut when = WhenUnscanned::default();
                while let Some(Key(key)) = map.next_key()? {
                    if let Some(origin) = origin_named(key) {
                        when.general.0[index(origin)] = map.next_value()?;
                    } else if let Some(reason) = Unscanned::ALL.into_iter().find(|reason| reason.as_str() == key) {
                        when.reasons.push((reason, map.next_value()?));
                    }
                }
                Ok(when)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// A key of the table, known before its value is read.
struct Key(&'static str);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = String::deserialize(deserializer)?;
        let known = KEYS.iter().find(|key| **key == given);
        known.map(|key| Self(key)).ok_or_else(|| de::Error::unknown_field(&given, &KEYS))
    }
}

impl<'de> Deserialize<'de> for ByOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = ByOrigin;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"defer\", \"deliver\", \"reject\", or a table of them by origin")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByOrigin, E> {
                Ok(ByOrigin([Fate::deserialize(de::value::StrDeserializer::new(text))?; 3]))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByOrigin, A::Error> {
                let mut by_origin = ByOrigin::default();
                while let Some(Key(key)) = map.next_key()? {
                    let origin = origin_named(key).ok_or_else(|| de::Error::unknown_field(key, &ORIGIN_KEYS))?;
                    by_origin.0[index(origin)] = map.next_value()?;
                }
                Ok(by_origin)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, Problems};

    fn read(value: &str) -> Result<WhenUnscanned, String> {
        #[derive(Deserialize)]
        struct Section {
            when_unscanned: WhenUnscanned,
        }
        let mut problems = Problems::default();
        let text = format!("[f]\nwhen_unscanned = {value}\n");
        let section: Option<Section> = Document::parse("x", &text, &mut problems).take_section("f", &mut problems);
        section.map(|section| section.when_unscanned).ok_or_else(|| problems.to_string())
    }

    #[test]
    fn origin_and_reason_decide() {
        use Fate::{Defer, Deliver, Reject};
        use OriginClass::{Inbound, Internal, Submission};
        for (value, origin, reason, fate) in [
            ("'deliver'", Inbound, Unscanned::Timeout, Deliver),
            ("{}", Internal, Unscanned::Timeout, Defer),
            ("{ internal = 'deliver' }", Internal, Unscanned::Timeout, Deliver),
            ("{ internal = 'deliver' }", Submission, Unscanned::Timeout, Defer),
            ("{ internal = 'deliver', too-large = 'reject' }", Internal, Unscanned::TooLarge, Reject),
            ("{ too-large = { inbound = 'reject' } }", Inbound, Unscanned::TooLarge, Reject),
            ("{ too-large = { inbound = 'reject' } }", Internal, Unscanned::TooLarge, Defer),
        ] {
            assert_eq!(read(value).unwrap().fate(origin, reason), fate, "{value}");
        }
        assert!(read("'pass'").unwrap_err().starts_with("x:2:18: f.when_unscanned: unknown when_unscanned \"pass\""));
        assert!(read("{ inbond = 'defer' }").unwrap_err().contains("did you mean \"inbound\"?"));
    }
}
