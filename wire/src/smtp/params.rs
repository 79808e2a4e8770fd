//! Parameters of MAIL and RCPT: kept in order and exactly as given (RFC 5321 section 4.1.2).
//! Which of them may pass is decided against the next hop's extensions, not here.

use bytes::BytesMut;

use super::CommandError;
use super::extensions::Extensions;

/// BODY= of RFC 6152 and RFC 3030.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`: only over BDAT.
    BinaryMime,
}

/// RET= of RFC 3461.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// `FULL`.
    Full,
    /// `HDRS`.
    Headers,
}

/// A list of `KEYWORD[=value]`.
///
/// Keywords are unique; values of the keywords with an accessor here are known to be well-formed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(Box<str>, Option<Box<str>>)>);

impl Params {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what follows the path: nothing, or a blank and parameters.
    pub fn parse(input: &[u8]) -> Result<Self, CommandError> {
        let input = std::str::from_utf8(input).map_err(|_| CommandError::NotUtf8)?;
        if !input.is_empty() && !input.starts_with([' ', '\t']) {
            return Err(CommandError::Parameters);
        }
        let mut params = Self::new();
        for word in input.split([' ', '\t']).filter(|word| !word.is_empty()) {
            let (keyword, value) = match word.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (word, None),
            };
            if !is_keyword(keyword) || value.is_some_and(|value| !is_value(value)) || params.has(keyword) {
                return Err(CommandError::Parameters);
            }
            if !known_value_is_valid(keyword, value) {
                return Err(CommandError::ParameterValue);
            }
            params.0.push((keyword.into(), value.map(Into::into)));
        }
        Ok(params)
    }

    /// Whether the keyword is there, in any case.
    #[must_use]
    pub fn has(&self, keyword: &str) -> bool {
        self.0.iter().any(|(seen, _)| seen.eq_ignore_ascii_case(keyword))
    }

    /// Its value, when it is there and has one.
    #[must_use]
    pub fn value(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find(|(seen, _)| seen.eq_ignore_ascii_case(keyword))?.1.as_deref()
    }

    /// Keyword and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(keyword, value)| (&**keyword, value.as_deref()))
    }

    /// False when some value may travel only under SMTPUTF8 (RFC 6531), such as `ORCPT=utf-8;…`.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.0.iter().all(|(_, value)| value.as_deref().is_none_or(str::is_ascii))
    }

    /// No parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets or adds a parameter of our own, in place when it was there. Ignores what could not be written.
    pub fn set(&mut self, keyword: &str, value: Option<&str>) {
        if !is_keyword(keyword) || value.is_some_and(|value| !is_value(value)) {
            return;
        }
        match self.0.iter_mut().find(|(seen, _)| seen.eq_ignore_ascii_case(keyword)) {
            Some((_, old)) => *old = value.map(Into::into),
            None => self.0.push((keyword.into(), value.map(Into::into))),
        }
    }

    /// Takes a parameter out.
    pub fn remove(&mut self, keyword: &str) {
        self.0.retain(|(seen, _)| !seen.eq_ignore_ascii_case(keyword));
    }

    /// SIZE= in octets (RFC 1870).
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        // Twenty digits can be more than a u64: then it is over any limit.
        self.value("SIZE").map(|value| value.parse().unwrap_or(u64::MAX))
    }

    /// BODY=.
    #[must_use]
    pub fn body(&self) -> Option<Body> {
        self.value("BODY").and_then(parse_body)
    }

    /// SMTPUTF8 (RFC 6531) was asked for.
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.has("SMTPUTF8")
    }

    /// REQUIRETLS (RFC 8689) was asked for.
    #[must_use]
    pub fn requiretls(&self) -> bool {
        self.has("REQUIRETLS")
    }

    /// RET= (RFC 3461).
    #[must_use]
    pub fn ret(&self) -> Option<Ret> {
        self.value("RET").and_then(parse_ret)
    }

    /// ENVID=, still xtext.
    #[must_use]
    pub fn envid(&self) -> Option<&str> {
        self.value("ENVID")
    }

    /// NOTIFY= as given: `NEVER` or a comma-separated list.
    #[must_use]
    pub fn notify(&self) -> Option<&str> {
        self.value("NOTIFY")
    }

    /// ORCPT= as given: `type;xtext`.
    #[must_use]
    pub fn orcpt(&self) -> Option<&str> {
        self.value("ORCPT")
    }

    /// AUTH= (RFC 4954 section 5), still xtext; `<>` when the submitter is not known.
    #[must_use]
    pub fn auth(&self) -> Option<&str> {
        self.value("AUTH")
    }

    /// MT-PRIORITY= (RFC 6710), −9 to 9.
    #[must_use]
    pub fn mt_priority(&self) -> Option<i8> {
        self.value("MT-PRIORITY").and_then(parse_priority)
    }

    /// Every parameter must belong to an extension in `offered` (what we announced, or the next hop did); `mail`
    /// says for which command. The error is the 555 of RFC 5321 section 4.1.1.11.
    pub fn check(&self, offered: &Extensions, mail: bool) -> Result<(), CommandError> {
        if self.iter().all(|(keyword, value)| offered.allows(keyword, value, mail)) {
            Ok(())
        } else {
            Err(CommandError::UnknownParameter)
        }
    }

    /// Writes ` KEYWORD=value` for each parameter that `filter` lets through.
    pub fn write_to(&self, out: &mut BytesMut, mut filter: impl FnMut(&str, Option<&str>) -> bool) {
        for (keyword, value) in self.iter() {
            if filter(keyword, value) {
                out.extend_from_slice(b" ");
                out.extend_from_slice(keyword.as_bytes());
                if let Some(value) = value {
                    out.extend_from_slice(b"=");
                    out.extend_from_slice(value.as_bytes());
                }
            }
        }
    }
}

fn is_keyword(keyword: &str) -> bool {
    keyword.starts_with(|first: char| first.is_ascii_alphanumeric())
        && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
}

/// RFC 5321 esmtp-value, plus UTF-8 (RFC 6531) and `=`, which some senders leave unencoded in ENVID.
fn is_value(value: &str) -> bool {
    !value.is_empty() && !value.chars().any(|c| c == ' ' || c.is_control())
}

fn known_value_is_valid(keyword: &str, value: Option<&str>) -> bool {
    let is = |name: &str| keyword.eq_ignore_ascii_case(name);
    let has = |test: fn(&str) -> bool| value.is_some_and(test);
    if is("SIZE") {
        has(|value| value.len() <= 20 && value.bytes().all(|octet| octet.is_ascii_digit()))
    } else if is("BODY") {
        has(|value| parse_body(value).is_some())
    } else if is("SMTPUTF8") || is("REQUIRETLS") {
        value.is_none()
    } else if is("RET") {
        has(|value| parse_ret(value).is_some())
    } else if is("NOTIFY") {
        has(is_notify)
    } else if is("ORCPT") {
        has(|value| value.split_once(';').is_some_and(|(kind, address)| !kind.is_empty() && !address.is_empty()))
    } else if is("MT-PRIORITY") {
        has(|value| parse_priority(value).is_some())
    } else if is("ENVID") || is("AUTH") {
        value.is_some()
    } else {
        true
    }
}

fn parse_body(value: &str) -> Option<Body> {
    [("7BIT", Body::SevenBit), ("8BITMIME", Body::EightBitMime), ("BINARYMIME", Body::BinaryMime)]
        .into_iter()
        .find_map(|(name, body)| name.eq_ignore_ascii_case(value).then_some(body))
}

fn parse_ret(value: &str) -> Option<Ret> {
    [("FULL", Ret::Full), ("HDRS", Ret::Headers)]
        .into_iter()
        .find_map(|(name, ret)| name.eq_ignore_ascii_case(value).then_some(ret))
}

fn parse_priority(value: &str) -> Option<i8> {
    value.parse().ok().filter(|priority| (-9..=9).contains(priority))
}

fn is_notify(value: &str) -> bool {
    value.eq_ignore_ascii_case("NEVER")
        || value
            .split(',')
            .all(|word| ["SUCCESS", "FAILURE", "DELAY"].into_iter().any(|name| name.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&[(&str, Option<&str>)], CommandError>) {
        let params = Params::parse(input.as_bytes());
        match (&params, expected) {
            (Ok(params), Ok(expected)) => assert_eq!(params.iter().collect::<Vec<_>>(), expected, "{input:?}"),
            (params, expected) => assert_eq!(params.as_ref().err(), expected.err().as_ref(), "{input:?}"),
        }
    }

    #[test]
    fn order_and_octets_stay() {
        check("", Ok(&[]));
        check("  ", Ok(&[]));
        check(" size=10 BODY=8bitmime  X-y ", Ok(&[("size", Some("10")), ("BODY", Some("8bitmime")), ("X-y", None)]));
        check(" ENVID=ab=+2B", Ok(&[("ENVID", Some("ab=+2B"))]));
        check(" ORCPT=utf-8;grün@example.org", Ok(&[("ORCPT", Some("utf-8;grün@example.org"))]));
    }

    #[test]
    fn malformed_parameters() {
        for input in ["SIZE=1", " =1", " SIZE=", " -a", " a_b=1", " SIZE=1 size=2", " X=a\u{7f}", " X=\u{1}"] {
            check(input, Err(CommandError::Parameters));
        }
        for input in [
            " SIZE",
            " SIZE=1k",
            " SIZE=-1",
            " BODY=9BIT",
            " SMTPUTF8=1",
            " RET=ALL",
            " NOTIFY=NEVER,DELAY",
            " ORCPT=a@b",
            " MT-PRIORITY=10",
            " REQUIRETLS=1",
            " AUTH",
            " SIZE=123456789012345678901",
        ] {
            check(input, Err(CommandError::ParameterValue));
        }
        assert_eq!(Params::parse(b" X=\xff"), Err(CommandError::NotUtf8));
    }

    #[test]
    fn accessors() {
        let params = Params::parse(
            b" SIZE=99999999999999999999 BODY=BINARYMIME SMTPUTF8 RET=hdrs ENVID=e AUTH=<> MT-PRIORITY=-3 REQUIRETLS",
        )
        .unwrap();
        assert_eq!(params.size(), Some(u64::MAX));
        assert_eq!(params.body(), Some(Body::BinaryMime));
        assert!(params.smtputf8() && params.requiretls());
        assert_eq!(params.ret(), Some(Ret::Headers));
        assert_eq!((params.envid(), params.auth(), params.mt_priority()), (Some("e"), Some("<>"), Some(-3)));
        let params = Params::parse(b" NOTIFY=SUCCESS,failure ORCPT=rfc822;a+2Bb@c").unwrap();
        assert_eq!((params.notify(), params.orcpt()), (Some("SUCCESS,failure"), Some("rfc822;a+2Bb@c")));
    }

    #[test]
    fn writes_what_the_filter_lets_through() {
        let mut params = Params::parse(b" SIZE=1 ret=FULL SMTPUTF8").unwrap();
        params.set("SIZE", Some("20"));
        params.set("X", Some("a b"));
        let mut out = BytesMut::new();
        params.write_to(&mut out, |keyword, _| keyword != "ret");
        assert_eq!(&out[..], b" SIZE=20 SMTPUTF8");
        params.remove("size");
        assert!(!params.has("SIZE"));
    }
}
