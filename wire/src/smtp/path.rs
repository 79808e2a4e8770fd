//! Reverse and forward paths, kept exactly as they were given (RFC 5321 section 4.1.2).
//! Not an address validator: whether a domain or mailbox makes sense is the next hop's business.

use std::fmt;

/// The address between `<` and `>`, without a source route; empty for the null sender.
///
/// Always valid UTF-8, without control characters, with balanced quotes and without unquoted blanks: it can be
/// written into a command between angle brackets as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Path(Box<str>);

/// Why a path could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// Not `<address>`.
    Syntax,
    /// Octets that are not UTF-8.
    NotUtf8,
    /// Longer than [`MAX_PATH`].
    TooLong,
}

/// Longest address taken, in octets. RFC 5321 asks for 256; rewriting schemes (SRS, BATV) and UTF-8 need more.
pub const MAX_PATH: usize = 1000;

impl Path {
    /// Reads `<…>` at the front of `input` and returns the path and what comes after it.
    pub fn parse_prefix(input: &[u8]) -> Result<(Self, &[u8]), PathError> {
        let inner = input.strip_prefix(b"<").ok_or(PathError::Syntax)?;
        let inner = strip_route(inner)?;
        let end = address_end(inner)?;
        if inner.get(end) != Some(&b'>') {
            return Err(PathError::Syntax);
        }
        Ok((Self::from_bytes(&inner[..end])?, &inner[end + 1..]))
    }

    /// From an address without angle brackets; empty is the null sender.
    pub fn new(address: &str) -> Result<Self, PathError> {
        if address.starts_with('@') || address_end(address.as_bytes())? != address.len() {
            return Err(PathError::Syntax);
        }
        Self::from_bytes(address.as_bytes())
    }

    /// The null sender `<>`.
    #[must_use]
    pub fn null() -> Self {
        Self("".into())
    }

    /// The address without angle brackets, as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_empty()
    }

    /// `<postmaster>` without a domain, which every server must take (RFC 5321 section 4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.0.eq_ignore_ascii_case("postmaster")
    }

    /// False when the path may travel only under SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }

    /// What is before the last unquoted `@`, with its quotes.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.0[..self.at().unwrap_or(self.0.len())]
    }

    /// What is after the last unquoted `@`; empty when there is none.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.at().map_or("", |at| &self.0[at + 1..])
    }

    /// Neither a domain nor a literal can hold an `@`, so the last one is the separator unless it is in quotes.
    fn at(&self) -> Option<usize> {
        let at = self.0.rfind('@')?;
        (!self.0[at..].ends_with('"')).then_some(at)
    }

    fn from_bytes(address: &[u8]) -> Result<Self, PathError> {
        if address.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let address = std::str::from_utf8(address).map_err(|_| PathError::NotUtf8)?;
        if address.chars().any(char::is_control) {
            return Err(PathError::Syntax);
        }
        Ok(Self(address.into()))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

/// Drops `@a,@b:` (RFC 5321 section 3.6.1: ignore the route, keep the last hop).
fn strip_route(inner: &[u8]) -> Result<&[u8], PathError> {
    if inner.first() != Some(&b'@') {
        return Ok(inner);
    }
    let mut in_literal = false;
    for (at, &octet) in inner.iter().enumerate() {
        match octet {
            b'[' => in_literal = true,
            b']' => in_literal = false,
            // The colons of an IPv6 literal are not the end of the route.
            b':' if !in_literal => {
                let rest = &inner[at + 1..];
                return if matches!(rest.first(), None | Some(b'@' | b'>')) {
                    Err(PathError::Syntax)
                } else {
                    Ok(rest)
                };
            }
            b'@' | b',' | b'.' | b'-' | b'_' | b':' => {}
            octet if octet.is_ascii_alphanumeric() || octet >= 0x80 => {}
            _ => return Err(PathError::Syntax),
        }
    }
    Err(PathError::Syntax)
}

/// Where the address ends: at an unquoted `>`, or with the input.
fn address_end(input: &[u8]) -> Result<usize, PathError> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(&octet) = input.get(at) {
        match octet {
            0..=31 | 127 => return Err(PathError::Syntax),
            // RFC 5321 quoted-pairSMTP: any printable, also outside quotes as older senders write it.
            b'\\' => match input.get(at + 1) {
                Some(32..=126) => at += 1,
                _ => return Err(PathError::Syntax),
            },
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok(at),
            b'<' | b' ' if !quoted => return Err(PathError::Syntax),
            _ => {}
        }
        at += 1;
    }
    if quoted { Err(PathError::Syntax) } else { Ok(at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<(&str, &str), PathError>) {
        let parsed = Path::parse_prefix(input.as_bytes());
        let parsed = parsed.as_ref().map(|(path, rest)| (path.as_str(), std::str::from_utf8(rest).unwrap()));
        assert_eq!(parsed, expected.as_ref().map(|(path, rest)| (*path, *rest)), "{input:?}");
    }

    #[test]
    fn paths_stay_as_given() {
        check("<a@b>", Ok(("a@b", "")));
        check("<> SIZE=1", Ok(("", " SIZE=1")));
        check("<PostMaster>", Ok(("PostMaster", "")));
        check("<\"a b>c\\\"d\"@example.org> BODY=7BIT", Ok(("\"a b>c\\\"d\"@example.org", " BODY=7BIT")));
        check("<\"a@b\"@c>", Ok(("\"a@b\"@c", "")));
        check("<a\\ b@c>", Ok(("a\\ b@c", "")));
        check("<u@[IPv6:2001:db8::1]>", Ok(("u@[IPv6:2001:db8::1]", "")));
        check("<@a,@b:u@d>", Ok(("u@d", "")));
        check("<@[IPv6:::1]:u@d>", Ok(("u@d", "")));
        check("<grün@example.org>", Ok(("grün@example.org", "")));
    }

    #[test]
    fn wrong_paths_are_refused() {
        for input in [
            "a@b",
            "<a@b",
            "<a b@c>",
            "<\"a@b>",
            "<a<b@c>",
            "<@a>",
            "<@a:>",
            "<@a:@b:c@d>",
            "<@a b:c@d>",
            "",
            "<",
            "<a\u{7f}@b>",
            "<a\tb@c>",
            "<a\\",
            "<\"a\\\u{1}\"@b>",
            "<a\u{85}@b>",
        ] {
            check(input, Err(PathError::Syntax));
        }
        assert_eq!(Path::parse_prefix(b"<a\xff@b>").unwrap_err(), PathError::NotUtf8);
        check(&format!("<{}@b>", "a".repeat(MAX_PATH)), Err(PathError::TooLong));
    }

    #[test]
    fn parts() {
        let parts = |address: &str| {
            let path = Path::new(address).unwrap();
            (path.local().to_owned(), path.domain().to_owned())
        };
        assert_eq!(parts("a@b"), ("a".into(), "b".into()));
        assert_eq!(parts("\"a@b\"@c"), ("\"a@b\"".into(), "c".into()));
        assert_eq!(parts("\"a@b\""), ("\"a@b\"".into(), String::new()));
        assert_eq!(parts("postmaster"), ("postmaster".into(), String::new()));
        assert_eq!(parts(""), (String::new(), String::new()));
        assert!(Path::new("a>b@c").is_err());
        assert!(Path::new("@a:b@c").is_err());
    }
}
