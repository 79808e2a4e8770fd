//! XCLIENT and XFORWARD attributes (Postfix XCLIENT_README, XFORWARD_README): who the real client is.
//! Does not decide whom to believe: take these from trusted peers only.

use std::net::IpAddr;

use super::xtext;

/// The names both commands use. XCLIENT and XFORWARD each allow a part of them; what a server announced decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// Client host name.
    Name,
    /// Client address; IPv6 with the prefix `IPV6:` on the wire.
    Addr,
    /// Client port.
    Port,
    /// `SMTP`, `ESMTP`, `LMTP` …
    Proto,
    /// What the client said in HELO or EHLO.
    Helo,
    /// XFORWARD only: the queue id of the server before.
    Ident,
    /// XFORWARD only: `LOCAL` or `REMOTE`.
    Source,
    /// XCLIENT only: the authenticated user.
    Login,
    /// XCLIENT only: the address the client connected to.
    DestAddr,
    /// XCLIENT only: the port the client connected to.
    DestPort,
    /// XCLIENT only: the name the address maps to, unverified.
    ReverseName,
}

/// Longest decoded value, in octets.
pub const MAX_VALUE: usize = 255;
/// Longest command written, in octets with CRLF.
pub const MAX_COMMAND: usize = 512;

impl Attribute {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 11] = [
        Self::Name,
        Self::Addr,
        Self::Port,
        Self::Proto,
        Self::Helo,
        Self::Ident,
        Self::Source,
        Self::Login,
        Self::DestAddr,
        Self::DestPort,
        Self::ReverseName,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "NAME",
            Self::Addr => "ADDR",
            Self::Port => "PORT",
            Self::Proto => "PROTO",
            Self::Helo => "HELO",
            Self::Ident => "IDENT",
            Self::Source => "SOURCE",
            Self::Login => "LOGIN",
            Self::DestAddr => "DESTADDR",
            Self::DestPort => "DESTPORT",
            Self::ReverseName => "REVERSE_NAME",
        }
    }

    /// By its name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.as_str().eq_ignore_ascii_case(name))
    }
}

/// A set of attribute names, as a server announces it after XCLIENT or XFORWARD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttributeSet(u16);

impl AttributeSet {
    /// Nothing: the keyword is not announced.
    pub const EMPTY: Self = Self(0);

    /// What an XFORWARD server knows.
    #[must_use]
    pub fn xforward() -> Self {
        use Attribute::{Addr, Helo, Ident, Name, Port, Proto, Source};
        [Name, Addr, Port, Proto, Helo, Ident, Source].into_iter().collect()
    }

    /// What an XCLIENT server knows.
    #[must_use]
    pub fn xclient() -> Self {
        use Attribute::{Addr, DestAddr, DestPort, Helo, Login, Name, Port, Proto, ReverseName};
        [Name, Addr, Port, Proto, Helo, Login, DestAddr, DestPort, ReverseName].into_iter().collect()
    }

    /// Whether the attribute is in the set.
    #[must_use]
    pub fn contains(self, attribute: Attribute) -> bool {
        self.0 & (1 << attribute as u16) != 0
    }

    /// Adds one.
    pub fn insert(&mut self, attribute: Attribute) {
        self.0 |= 1 << attribute as u16;
    }

    /// No attribute at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members in writing order.
    pub fn iter(self) -> impl Iterator<Item = Attribute> {
        Attribute::ALL.into_iter().filter(move |&attribute| self.contains(attribute))
    }
}

impl FromIterator<Attribute> for AttributeSet {
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        let mut set = Self::EMPTY;
        attributes.into_iter().for_each(|attribute| set.insert(attribute));
        set
    }
}

/// Attributes with their decoded values, in the order given. `None` is `[UNAVAILABLE]` or `[TEMPUNAVAIL]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<(Attribute, Option<Box<[u8]>>)>);

impl Attributes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what follows the verb. `None` on an unknown name, a bad value, a repeated name or no attribute at all.
    ///
    /// Values come from the network: they may hold any octet except control characters, which are refused here so
    /// that no CR or LF reaches a header or another command.
    #[must_use]
    pub fn parse(input: &[u8]) -> Option<Self> {
        let mut parsed = Self::new();
        for word in input.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty()) {
            let equals = memchr::memchr(b'=', word)?;
            let attribute = Attribute::from_name(std::str::from_utf8(&word[..equals]).ok()?)?;
            if parsed.0.iter().any(|(seen, _)| *seen == attribute) {
                return None;
            }
            let value = xtext::decode(&word[equals + 1..])?;
            let value = if value.eq_ignore_ascii_case(b"[UNAVAILABLE]") || value.eq_ignore_ascii_case(b"[TEMPUNAVAIL]")
            {
                None
            } else if !is_valid(&value) {
                return None;
            } else {
                Some(value.into())
            };
            parsed.0.push((attribute, value));
        }
        (!parsed.0.is_empty()).then_some(parsed)
    }

    /// Sets a value; `None` says "unavailable". Control characters are dropped, at most [`MAX_VALUE`] octets kept.
    pub fn set(&mut self, attribute: Attribute, value: Option<&str>) {
        let value = value.map(|value| {
            let mut clean: Vec<u8> = value.bytes().filter(|octet| !octet.is_ascii_control()).collect();
            clean.truncate(MAX_VALUE);
            clean.into_boxed_slice()
        });
        // An empty value means nothing to either side.
        let value = value.filter(|value| !value.is_empty());
        match self.0.iter_mut().find(|(seen, _)| *seen == attribute) {
            Some((_, old)) => *old = value,
            None => self.0.push((attribute, value)),
        }
    }

    /// Sets ADDR (or DESTADDR) with the prefix IPv6 needs. A mapped IPv4 address is written as IPv4.
    pub fn set_address(&mut self, attribute: Attribute, address: IpAddr) {
        let text = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("IPV6:{address}"),
        };
        self.set(attribute, Some(&text));
    }

    /// The value, when it was given and is not "unavailable".
    #[must_use]
    pub fn value(&self, attribute: Attribute) -> Option<&[u8]> {
        self.0.iter().find(|(seen, _)| *seen == attribute)?.1.as_deref()
    }

    /// The value as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self, attribute: Attribute) -> Option<std::borrow::Cow<'_, str>> {
        self.value(attribute).map(String::from_utf8_lossy)
    }

    /// ADDR as an address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.value(Attribute::Addr)?).ok()?;
        match text.split_at_checked(5) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => rest.parse().ok().map(IpAddr::V6),
            _ => text.parse().ok(),
        }
    }

    /// PORT as a number.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        std::str::from_utf8(self.value(Attribute::Port)?).ok()?.parse().ok()
    }

    /// Takes over what a later command said: its attributes replace ours, the others stay (one XFORWARD may be
    /// split into several commands).
    pub fn merge(&mut self, later: &Self) {
        for (attribute, value) in &later.0 {
            match self.0.iter_mut().find(|(seen, _)| seen == attribute) {
                Some((_, old)) => old.clone_from(value),
                None => self.0.push((*attribute, value.clone())),
            }
        }
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, Option<&[u8]>)> {
        self.0.iter().map(|(attribute, value)| (*attribute, value.as_deref()))
    }

    /// The commands, each with CRLF and at most [`MAX_COMMAND`] octets, that tell a server the attributes it
    /// announced. `verb` is `XCLIENT` or `XFORWARD`. Empty when nothing is to be said.
    #[must_use]
    pub fn commands(&self, verb: &str, announced: AttributeSet) -> Vec<String> {
        let mut commands: Vec<String> = Vec::new();
        for (attribute, value) in self.iter().filter(|(attribute, _)| announced.contains(*attribute)) {
            let encoded = value.map_or_else(|| "[UNAVAILABLE]".to_owned(), encode_bounded);
            let word = format!(" {}={encoded}", attribute.as_str());
            match commands.last_mut() {
                Some(last) if last.len() + word.len() + 2 <= MAX_COMMAND => last.push_str(&word),
                _ => commands.push(format!("{verb}{word}")),
            }
        }
        commands.iter_mut().for_each(|command| command.push_str("\r\n"));
        commands
    }
}

/// A value of 255 octets may need 765 encoded; cut it so that one command always holds one attribute.
fn encode_bounded(value: &[u8]) -> String {
    const ROOM: usize = MAX_COMMAND - "XFORWARD REVERSE_NAME=\r\n".len();
    let mut length = value.len();
    loop {
        let encoded = xtext::encode(&value[..length]);
        if encoded.len() <= ROOM {
            return encoded;
        }
        length = length.saturating_sub((encoded.len() - ROOM).div_ceil(3));
    }
}

fn is_valid(value: &[u8]) -> bool {
    !value.is_empty() && value.len() <= MAX_VALUE && !value.iter().any(u8::is_ascii_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_postfix_sends() {
        let attributes = Attributes::parse(
            b"NAME=spike.example ADDR=IPV6:2001:db8::1 PORT=4711 HELO=a+20b IDENT=[UNAVAILABLE] PROTO=ESMTP source=REMOTE",
        )
        .unwrap();
        assert_eq!(attributes.text(Attribute::Name).unwrap(), "spike.example");
        assert_eq!(attributes.address(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(attributes.port(), Some(4711));
        assert_eq!(attributes.value(Attribute::Helo), Some(&b"a b"[..]));
        assert_eq!(attributes.value(Attribute::Ident), None);
        assert_eq!(Attributes::parse(b"ADDR=192.0.2.1").unwrap().address(), Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn refuses_bad_attributes() {
        for wrong in [
            &b""[..],
            b" ",
            b"NAME",
            b"FOO=bar",
            b"NAME=",
            b"NAME=a NAME=b",
            b"NAME=a+0D+0ARSET",
            b"NAME=+0",
            b"NAME=a+00",
        ] {
            assert_eq!(Attributes::parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(Attributes::parse(format!("NAME={}", "a".repeat(256)).as_bytes()), None);
    }

    #[test]
    fn long_attributes_are_split_into_commands() {
        let mut attributes = Attributes::new();
        attributes.set(Attribute::Name, Some(&"n".repeat(300)));
        attributes.set_address(Attribute::Addr, "::ffff:192.0.2.1".parse().unwrap());
        attributes.set(Attribute::Helo, Some(&"ä ".repeat(100)));
        attributes.set(Attribute::Ident, None);
        attributes.set(Attribute::Login, Some("not announced"));
        let commands = attributes.commands("XFORWARD", AttributeSet::xforward());
        assert_eq!(commands.len(), 3, "{commands:?}");
        assert!(commands.iter().all(|command| command.len() <= MAX_COMMAND && command.ends_with("\r\n")));
        assert!(commands[0].contains(" ADDR=192.0.2.1"));
        assert!(commands.concat().contains(" IDENT=[UNAVAILABLE]"));
        assert!(!commands.concat().contains("LOGIN"));
        assert!(attributes.commands("XFORWARD", AttributeSet::EMPTY).is_empty());
    }

    proptest! {
        #[test]
        fn written_is_read_back(values in proptest::collection::vec("\\PC{1,80}", 11)) {
            let mut attributes = Attributes::new();
            for (attribute, value) in Attribute::ALL.into_iter().zip(&values) {
                attributes.set(attribute, Some(value));
            }
            let mut read = Attributes::new();
            for command in attributes.commands("XCLIENT", Attribute::ALL.into_iter().collect()) {
                let rest = command.strip_prefix("XCLIENT ").unwrap().strip_suffix("\r\n").unwrap();
                read.merge(&Attributes::parse(rest.as_bytes()).unwrap());
            }
            // What had to be cut is a prefix; everything else is equal.
            for (attribute, value) in attributes.iter() {
                let value = value.unwrap();
                prop_assert!(value.starts_with(read.value(attribute).unwrap()));
                if value.len() * 3 <= 400 { prop_assert_eq!(Some(value), read.value(attribute)); }
            }
        }

        #[test]
        fn any_octets_are_safe(input: Vec<u8>) {
            let _ = Attributes::parse(&input);
        }
    }
}
