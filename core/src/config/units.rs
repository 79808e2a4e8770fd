//! Values with units: sizes and times. A bare number is refused, since nobody remembers its unit.
//! Their text forms are read back as what they were.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A number of octets, written `"64 KiB"`, `"10 MiB"`, `"1 GiB"` or `"512 B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(u64);

/// A span of time, written `"500ms"`, `"5s"`, `"10m"`, `"2h"` or `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(Duration);

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// In milliseconds.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_HINT: &str = "a whole number with a unit: B, KiB, MiB, GiB or TiB, as in \"10 MiB\"";
const TIME_HINT: &str = "a whole number with a unit: ms, s, m, h or d, as in \"30s\"";

impl Size {
    /// So many octets.
    pub const fn octets(octets: u64) -> Self {
        Self(octets)
    }

    /// So many KiB.
    pub const fn kibibytes(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many MiB.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// In octets.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// In octets, at most what an address can count.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Time {
    /// This long.
    pub const fn new(duration: Duration) -> Self {
        Self(duration)
    }

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// For std and tokio.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text, &SIZES).map(Self).ok_or_else(|| format!("not a size: {text:?}; accepted: {SIZE_HINT}"))
    }
}

impl FromStr for Time {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        number_and_unit(text, &TIMES)
            .map(|milliseconds| Self(Duration::from_millis(milliseconds)))
            .ok_or_else(|| format!("not a time: {text:?}; accepted: {TIME_HINT}"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = largest_unit(self.0, &SIZES).unwrap_or(("B", 1));
        write!(f, "{} {unit}", self.0 / factor)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, factor) = largest_unit(milliseconds, &TIMES).unwrap_or(("s", 1000));
        write!(f, "{}{unit}", milliseconds / factor)
    }
}

/// What follows the digits must be a unit, blanks between them allowed.
fn number_and_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..end].parse().ok()?;
    let unit = text[end..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// `None` for zero, which all units divide.
fn largest_unit(value: u64, units: &[(&'static str, u64)]) -> Option<(&'static str, u64)> {
    units.iter().filter(|(_, factor)| value != 0 && value.is_multiple_of(*factor)).max_by_key(|(_, f)| *f).copied()
}

macro_rules! as_text {
    ($name:ident, $hint:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($hint)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

as_text!(Size, SIZE_HINT);
as_text!(Time, TIME_HINT);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_read() {
        for (text, octets) in
            [("64 KiB", 64 << 10), ("10MiB", 10 << 20), (" 1 GiB ", 1 << 30), ("512 B", 512), ("0 B", 0)]
        {
            assert_eq!(text.parse::<Size>().unwrap().as_u64(), octets, "{text}");
        }
        for (text, milliseconds) in [("500ms", 500), ("5s", 5000), ("10 m", 600_000), ("2h", 7_200_000), ("0s", 0)] {
            assert_eq!(text.parse::<Time>().unwrap().duration().as_millis(), milliseconds, "{text}");
        }
        assert_eq!("30d".parse::<Time>().unwrap().duration(), Duration::from_secs(30 * 86_400));
    }

    #[test]
    fn what_has_no_clear_unit_is_refused() {
        for text in ["10", "", "MiB", "10 MB", "10 mib", "-1 B", "1.5 GiB", "99999999999 TiB", "1 B x"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        for text in ["10", "", "s", "10 sec", "1m30s", "999999999999999999999s", "99999999999999999d"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value: u64) {
            prop_assert_eq!(Size(value).to_string().parse::<Size>().unwrap(), Size(value));
            let time = Time::milliseconds(value);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }
    }
}
