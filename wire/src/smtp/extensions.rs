//! Service extensions: what a server offered, and what we may offer in front of it.
//! The rule: announce the intersection. What we do not know is never passed, since an unknown verb can carry content
//! past the filters.

use super::attributes::{Attribute, AttributeSet};
use super::reply::PeerReply;

/// What an EHLO or LHLO reply offered, as far as we understand it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// 8BITMIME (RFC 6152).
    pub eightbitmime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// SIZE (RFC 1870) was offered: its limit in octets, 0 for "no fixed limit".
    pub size: Option<u64>,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhancedstatuscodes: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030).
    pub binarymime: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// AUTH (RFC 4954): the mechanisms in capitals.
    pub auth: Vec<Box<str>>,
    /// XCLIENT: its attributes; empty when not offered.
    pub xclient: AttributeSet,
    /// XFORWARD: its attributes; empty when not offered.
    pub xforward: AttributeSet,
    /// MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// REQUIRETLS (RFC 8689).
    pub requiretls: bool,
    /// LIMITS RCPTMAX (RFC 9422): recipients in one transaction.
    pub rcptmax: Option<u32>,
    /// LIMITS MAILMAX (RFC 9422): transactions in one session.
    pub mailmax: Option<u32>,
}

/// What this session can offer by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    /// Announce PIPELINING. We keep our own buffers, so the next hop does not matter.
    pub pipelining: bool,
    /// Announce CHUNKING. We put chunks together and pass them on in the way the next hop knows.
    pub chunking: bool,
    /// Our limit for a message in octets, 0 for none.
    pub size: u64,
    /// STARTTLS is possible and TLS is not up yet.
    pub starttls: bool,
    /// AUTH may be offered on this connection (a submission listener; TLS is up or not needed).
    pub auth: bool,
    /// We hold the promise of REQUIRETLS: verified TLS to the next hop.
    pub requiretls: bool,
    /// For trusted peers: XCLIENT attributes we take.
    pub xclient: AttributeSet,
    /// For trusted peers: XFORWARD attributes we take.
    pub xforward: AttributeSet,
}

impl Default for Ours {
    /// What is right towards a stranger: no TLS, no AUTH, nothing that needs trust, no limit.
    fn default() -> Self {
        Self {
            pipelining: true,
            chunking: true,
            size: 0,
            starttls: false,
            auth: false,
            requiretls: false,
            xclient: AttributeSet::EMPTY,
            xforward: AttributeSet::EMPTY,
        }
    }
}

impl Extensions {
    /// Reads the reply to EHLO or LHLO. Its first line is the greeting; unknown keywords are dropped.
    #[must_use]
    pub fn parse(reply: &PeerReply) -> Self {
        let mut offered = Self::default();
        for line in reply.lines.iter().skip(1) {
            if let Ok(line) = std::str::from_utf8(line) {
                offered.keyword(line);
            }
        }
        offered
    }

    fn keyword(&mut self, line: &str) {
        let line = line.to_ascii_uppercase();
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        match words.next().unwrap_or_default() {
            "PIPELINING" => self.pipelining = true,
            "8BITMIME" => self.eightbitmime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            // A limit that cannot be read is taken for none: the server will say so at MAIL.
            "SIZE" => self.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
            "DSN" => self.dsn = true,
            "ENHANCEDSTATUSCODES" => self.enhancedstatuscodes = true,
            "CHUNKING" => self.chunking = true,
            "BINARYMIME" => self.binarymime = true,
            "STARTTLS" => self.starttls = true,
            "AUTH" => self.mechanisms(words),
            "XCLIENT" => self.xclient = words.filter_map(Attribute::from_name).collect(),
            "XFORWARD" => self.xforward = words.filter_map(Attribute::from_name).collect(),
            "MT-PRIORITY" => self.mt_priority = true,
            "REQUIRETLS" => self.requiretls = true,
            "LIMITS" => {
                for word in words {
                    match word.split_once('=') {
                        Some(("RCPTMAX", value)) => self.rcptmax = value.parse().ok(),
                        Some(("MAILMAX", value)) => self.mailmax = value.parse().ok(),
                        _ => {}
                    }
                }
            }
            // `AUTH=PLAIN LOGIN`, from before RFC 2554; some servers still send both forms.
            word => {
                if let Some(first) = word.strip_prefix("AUTH=") {
                    self.mechanisms(std::iter::once(first).chain(words));
                }
            }
        }
    }

    fn mechanisms<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        for name in names.filter(|name| !name.is_empty()) {
            if !self.auth.iter().any(|seen| &**seen == name) {
                self.auth.push(name.into());
            }
        }
    }

    /// The mechanisms whose exchange survives a proxy that ends TLS: no channel binding, no client certificate, no
    /// security layer that would encrypt the mail past us.
    pub fn relayable_mechanisms(&self) -> impl Iterator<Item = &str> {
        const NEVER: [&str; 5] = ["EXTERNAL", "GSSAPI", "DIGEST-MD5", "NTLM", "KERBEROS_V4"];
        let is_name =
            |name: &str| name.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'));
        self.auth
            .iter()
            .map(|name| &**name)
            .filter(move |name| !NEVER.contains(name) && !name.ends_with("-PLUS") && is_name(name))
    }

    /// With `self` as the next hop's extensions: what we offer the client.
    #[must_use]
    pub fn intersection(&self, ours: &Ours) -> Self {
        Self {
            pipelining: ours.pipelining,
            eightbitmime: self.eightbitmime,
            smtputf8: self.smtputf8,
            size: Some(match (self.size.unwrap_or(0), ours.size) {
                (0, only) | (only, 0) => only,
                (theirs, own) => theirs.min(own),
            }),
            dsn: self.dsn,
            enhancedstatuscodes: true,
            chunking: ours.chunking,
            binarymime: false,
            starttls: ours.starttls,
            auth: if ours.auth { self.relayable_mechanisms().map(Into::into).collect() } else { Vec::new() },
            xclient: ours.xclient,
            xforward: ours.xforward,
            mt_priority: self.mt_priority,
            requiretls: self.requiretls && ours.requiretls,
            rcptmax: None,
            mailmax: None,
        }
    }

    /// With `self` as the next hop's extensions: the keyword lines of our reply to EHLO or LHLO, for
    /// [`super::write_ehlo`].
    #[must_use]
    pub fn for_client(&self, ours: &Ours) -> Vec<String> {
        self.intersection(ours).keywords()
    }

    /// These extensions as keyword lines.
    #[must_use]
    pub fn keywords(&self) -> Vec<String> {
        let plain = [
            ("PIPELINING", self.pipelining),
            ("8BITMIME", self.eightbitmime),
            ("SMTPUTF8", self.smtputf8),
            ("DSN", self.dsn),
            ("ENHANCEDSTATUSCODES", self.enhancedstatuscodes),
            ("CHUNKING", self.chunking),
            ("BINARYMIME", self.binarymime),
            ("STARTTLS", self.starttls),
            ("MT-PRIORITY", self.mt_priority),
            ("REQUIRETLS", self.requiretls),
        ];
        let mut lines: Vec<String> =
            plain.iter().filter(|(_, offered)| *offered).map(|(keyword, _)| (*keyword).to_owned()).collect();
        match self.size {
            Some(0) => lines.push("SIZE".to_owned()),
            Some(size) => lines.push(format!("SIZE {size}")),
            None => {}
        }
        if !self.auth.is_empty() {
            lines.push(format!("AUTH {}", self.auth.join(" ")));
        }
        for (keyword, attributes) in [("XCLIENT", self.xclient), ("XFORWARD", self.xforward)] {
            if !attributes.is_empty() {
                let names: Vec<&str> = attributes.iter().map(Attribute::as_str).collect();
                lines.push(format!("{keyword} {}", names.join(" ")));
            }
        }
        lines
    }

    /// Whether a parameter of MAIL (`mail`) or RCPT belongs to one of these extensions.
    #[must_use]
    pub fn allows(&self, keyword: &str, value: Option<&str>, mail: bool) -> bool {
        match (keyword.to_ascii_uppercase().as_str(), mail) {
            ("SIZE", true) => self.size.is_some(),
            ("BODY", true) => {
                if value.is_some_and(|value| value.eq_ignore_ascii_case("BINARYMIME")) {
                    self.binarymime && self.chunking
                } else {
                    self.eightbitmime
                }
            }
            ("SMTPUTF8", true) => self.smtputf8,
            ("RET" | "ENVID", true) | ("NOTIFY" | "ORCPT", false) => self.dsn,
            ("AUTH", true) => !self.auth.is_empty(),
            ("MT-PRIORITY", true) => self.mt_priority,
            ("REQUIRETLS", true) => self.requiretls,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::{CommandError, Params};
    use bytes::Bytes;

    fn offered(keywords: &[&'static str]) -> Extensions {
        let lines = std::iter::once("mx.example at your service").chain(keywords.iter().copied());
        Extensions::parse(&PeerReply { code: 250, lines: lines.map(Bytes::from_static_str).collect() })
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Self;
    }
    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Self::from_static(text.as_bytes())
        }
    }

    fn check(next_hop: &[&'static str], ours: &Ours, expected: &[&str]) {
        assert_eq!(offered(next_hop).for_client(ours), expected, "{next_hop:?}");
    }

    #[test]
    fn the_client_sees_the_intersection() {
        let ours = Ours::default();
        check(&[], &ours, &["PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE"]);
        check(
            &[
                "PIPELINING",
                "SIZE 10240000",
                "VRFY",
                "ETRN",
                "STARTTLS",
                "AUTH PLAIN",
                "ENHANCEDSTATUSCODES",
                "8BITMIME",
                "DSN",
                "SMTPUTF8",
                "CHUNKING",
                "BINARYMIME",
                "BURL imap",
                "XCLIENT NAME ADDR",
                "XFORWARD NAME",
                "PRDR",
                "PIPECONNECT",
                "DELIVERBY",
                "FUTURERELEASE 1 2",
                "XEXCH50",
                "REQUIRETLS",
                "MT-PRIORITY MIXER",
                "LIMITS RCPTMAX=9",
            ],
            &ours,
            &[
                "PIPELINING",
                "8BITMIME",
                "SMTPUTF8",
                "DSN",
                "ENHANCEDSTATUSCODES",
                "CHUNKING",
                "MT-PRIORITY",
                "SIZE 10240000",
            ],
        );
        let ours = Ours {
            size: 5000,
            starttls: true,
            auth: true,
            requiretls: true,
            chunking: false,
            xforward: AttributeSet::xforward(),
            ..Ours::default()
        };
        check(
            &[
                "size 9000",
                "auth plain LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS EXTERNAL GSSAPI DIGEST-MD5 NTLM",
                "AUTH=PLAIN X",
                "REQUIRETLS",
            ],
            &ours,
            &[
                "PIPELINING",
                "ENHANCEDSTATUSCODES",
                "STARTTLS",
                "REQUIRETLS",
                "SIZE 5000",
                "AUTH PLAIN LOGIN SCRAM-SHA-256 X",
                "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
            ],
        );
        check(
            &["SIZE 100"],
            &ours,
            &[
                "PIPELINING",
                "ENHANCEDSTATUSCODES",
                "STARTTLS",
                "SIZE 100",
                "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
            ],
        );
        check(
            &["SIZE 0", "AUTH NTLM"],
            &Ours { size: 7, ..Ours::default() },
            &["PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE 7"],
        );
    }

    #[test]
    fn the_greeting_is_no_keyword() {
        let reply = PeerReply::new(250, "CHUNKING");
        assert_eq!(Extensions::parse(&reply), Extensions::default());
    }

    #[test]
    fn what_is_announced_is_understood_again() {
        let ours = Ours { auth: true, xclient: AttributeSet::xclient(), ..Ours::default() };
        let next_hop = offered(&["SIZE 99", "DSN", "8BITMIME", "AUTH PLAIN"]);
        let lines = std::iter::once("me".to_owned()).chain(next_hop.for_client(&ours)).map(Bytes::from).collect();
        assert_eq!(Extensions::parse(&PeerReply { code: 250, lines }), next_hop.intersection(&ours));
    }

    #[test]
    fn limits_are_read() {
        let limits = offered(&["LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1"]);
        assert_eq!((limits.rcptmax, limits.mailmax), (Some(20), Some(5)));
    }

    #[test]
    fn parameters_need_their_extension() {
        let params = |text: &str| Params::parse(text.as_bytes()).unwrap();
        let some = offered(&["SIZE", "DSN"]);
        assert_eq!(params(" SIZE=1 RET=FULL envid=x").check(&some, true), Ok(()));
        assert_eq!(params(" NOTIFY=NEVER ORCPT=rfc822;a").check(&some, false), Ok(()));
        for wrong in
            [" NOTIFY=NEVER", " BODY=8BITMIME", " SMTPUTF8", " AUTH=<>", " REQUIRETLS", " FOO=1", " MT-PRIORITY=1"]
        {
            assert_eq!(params(wrong).check(&some, true), Err(CommandError::UnknownParameter), "{wrong}");
        }
        assert_eq!(params(" SIZE=1").check(&some, false), Err(CommandError::UnknownParameter));
        let all = offered(&["8BITMIME", "CHUNKING"]);
        assert_eq!(params(" BODY=7BIT").check(&all, true), Ok(()));
        assert_eq!(params(" BODY=BINARYMIME").check(&all, true), Err(CommandError::UnknownParameter));
    }
}
