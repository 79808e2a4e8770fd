//! Values that a mail server sends along with a command.

use bytes::Bytes;

/// The macros of one stage: `name NUL value NUL …`, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macros {
    /// The code of the command that they belong to; it need not follow.
    pub stage: u8,
    pairs: Bytes,
}

impl Macros {
    /// Of a stage, with these names and values.
    pub fn new(stage: u8, pairs: &[(&str, &str)]) -> Self {
        let mut octets = Vec::new();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            octets.extend(text.bytes().filter(|octet| *octet != 0));
            octets.push(0);
        }
        Self { stage, pairs: octets.into() }
    }

    pub(super) fn parse(mut data: Bytes) -> Option<Self> {
        let stage = *data.first()?;
        let pairs = data.split_off(1);
        Some(Self { stage, pairs })
    }

    /// All of them, as sent; a last name without a value has an empty one.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.pairs[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let name = next(&mut rest);
            Some((name, next(&mut rest)))
        })
    }

    /// The value of this name; braces or none, on both sides.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let wanted = bare(name.as_bytes());
        self.iter().find(|(name, _)| bare(name) == wanted).map(|(_, value)| value)
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.pairs
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = memchr::memchr(0, rest).unwrap_or(rest.len());
    let text = &rest[..end];
    *rest = rest.get(end + 1..).unwrap_or_default();
    text
}

fn bare(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"{").and_then(|name| name.strip_suffix(b"}")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_odd_form() {
        let macros = Macros::parse(Bytes::from_static(b"Mi\x004711\0{auth_authen}\0\0{x}\0y")).unwrap();
        assert_eq!(macros.stage, b'M');
        assert_eq!(macros.get("i"), Some(&b"4711"[..]));
        assert_eq!(macros.get("{i}"), Some(&b"4711"[..]));
        assert_eq!(macros.get("auth_authen"), Some(&b""[..]));
        assert_eq!(macros.get("x"), Some(&b"y"[..]));
        assert_eq!(macros.get("j"), None);
        let empty = Macros::parse(Bytes::from_static(b"H")).unwrap();
        assert_eq!(empty.iter().count(), 0);
        let odd = Macros::parse(Bytes::from_static(b"Cj\0mx\0_\0")).unwrap();
        assert_eq!(odd.iter().last(), Some((&b"_"[..], &b""[..])));
        assert_eq!(Macros::parse(Bytes::new()), None);
    }
}
