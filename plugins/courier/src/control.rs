//! Courier's control file: a mail's envelope, one record a line, its kind in the first octet. Reads it, and
//! writes the records that a filter may append (courierfilter(8), submit(8), Courier's description of its queue).
//!
//! It opens no file. Records that it does not know are left alone: newer versions add some.

use std::net::IpAddr;

/// The largest control file, in octets.
pub const MAX_SIZE: usize = 8 << 20;
/// The most recipients in one control file. By default Courier begins another one after 100.
pub const MAX_RECIPIENTS: usize = 50_000;

/// What a control file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// The envelope's sender (`s`); empty: the null sender.
    pub sender: Vec<u8>,
    /// In the order of their records (`r`); delivery records count them from 0, in each file anew.
    pub recipients: Vec<Recipient>,
    /// Who sent it (`f`).
    pub from: From,
    /// The authenticated user (`i`).
    pub user: Option<String>,
    /// Which of Courier's doors it came through (`u`): `smtp`, `authsmtp`, `local`, `uucp`.
    pub source: String,
    /// The address of the client (`O`, TCPREMOTEIP).
    pub client: Option<IpAddr>,
    /// The client may send to anywhere (`O`, RELAYCLIENT).
    pub relay: bool,
    /// The mail's id in Courier's log (`M`).
    pub id: Option<String>,
    /// The mail has octets beyond ASCII (`8`).
    pub eight_bit: bool,
    /// Its header has (`m`).
    pub utf8_header: bool,
    /// The last line has its line feed.
    pub whole: bool,
}

/// One recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipient {
    /// As Courier delivers to it: rewritten, aliases expanded.
    pub address: Vec<u8>,
    /// A record says that there is nothing left to do for it: an alias that was expanded, or another filter
    /// has taken it out.
    pub finished: bool,
}

/// The record `f`: `dns; helo (host [address])`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct From {
    /// What the client said at EHLO or HELO.
    pub helo: Option<String>,
    /// Its name in the DNS.
    pub host: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// Why a control file is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The first record is not the sender's.
    #[error("the sender is not its first record")]
    NoSender,
    /// Larger than any.
    #[error("more than {MAX_SIZE} octets")]
    TooLarge,
    /// More recipients than any.
    #[error("more than {MAX_RECIPIENTS} recipients")]
    Recipients,
    /// A NUL in an address.
    #[error("a NUL in an address")]
    Nul,
}

impl Control {
    /// Reads a control file.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &[u8]) -> Result<Self, ControlError> {
        if text.len() > MAX_SIZE {
            return Err(ControlError::TooLarge);
        }
        let mut control = Self { whole: text.ends_with(b"\n"), ..Self::default() };
        let mut lines = text.split(|octet| *octet == b'\n');
        match lines.next().and_then(|line| line.split_first()) {
            Some((b's', sender)) => control.sender = address(sender)?,
            _ => return Err(ControlError::NoSender),
        }
        // A delivery record may stand before the record of its recipient, in principle.
        let mut finished = Vec::new();
        for line in lines {
            let Some((kind, value)) = line.split_first() else { continue };
            match kind {
                b'r' if control.recipients.len() == MAX_RECIPIENTS => return Err(ControlError::Recipients),
                b'r' => control.recipients.push(Recipient { address: address(value)?, finished: false }),
                b'f' => control.from = From::parse(&text_of(value)),
                b'i' => control.user = some(value),
                b'u' => control.source = text_of(value),
                b'M' => control.id = some(value),
                b'O' => control.environment(&text_of(value)),
                b'8' => control.eight_bit = true,
                b'm' => control.utf8_header = true,
                b'S' | b'F' => finished.extend(index(value)),
                _ => {}
            }
        }
        for index in finished {
            if let Some(recipient) = control.recipients.get_mut(index) {
                recipient.finished = true;
            }
        }
        Ok(control)
    }

    fn environment(&mut self, setting: &str) {
        match setting.split_once('=') {
            Some(("TCPREMOTEIP", value)) => self.client = parse_ip(value),
            // It is set, to whatever; empty is the usual value.
            Some(("RELAYCLIENT", _)) => self.relay = true,
            _ => {}
        }
    }

    /// The client's address, from wherever it is known.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.client.or(self.from.address)
    }
}

impl From {
    fn parse(value: &str) -> Self {
        let value = value.strip_prefix("dns;").unwrap_or(value).trim();
        let (helo, rest) = value.split_once(" (").unwrap_or((value, ""));
        let inner = rest.strip_suffix(')').unwrap_or(rest);
        let (host, address) = match inner.split_once('[') {
            Some((host, address)) => (host.trim(), parse_ip(address.trim_end_matches(']'))),
            None => match parse_ip(inner) {
                Some(address) => ("", Some(address)),
                None => (inner, None),
            },
        };
        // What identd said of the user stands before the name.
        let host = host.rsplit('@').next().unwrap_or(host);
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self { helo: some(helo), host: some(host), address }
    }
}

/// The records that take a recipient out, without a word to anybody: it counts as delivered.
pub fn drop_silently(index: usize, unix_time: u64) -> String {
    format!("I{index} R 250 Ok - not delivered, by policy\nS{index} {unix_time}\n")
}

/// The records that add a recipient; `None`: no record can carry the address. It is delivered to as it is,
/// without a look at aliases, and nobody gets a report about it.
pub fn add_recipient(address: &str) -> Option<Vec<u8>> {
    let carried = !address.is_empty() && !address.chars().any(char::is_control);
    carried.then(|| format!("r{address}\nR\nN\n").into_bytes())
}

/// The record of a mail with octets beyond ASCII.
pub const EIGHT_BIT: &str = "8\n";
/// The record of a header with octets beyond ASCII.
pub const UTF8_HEADER: &str = "m\n";

fn address(value: &[u8]) -> Result<Vec<u8>, ControlError> {
    if value.contains(&0) { Err(ControlError::Nul) } else { Ok(value.to_vec()) }
}

fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().filter(|c| !c.is_control()).collect()
}

fn some(value: &[u8]) -> Option<String> {
    Some(text_of(value)).filter(|text| !text.is_empty())
}

/// `12 1795518000 r`.
fn index(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEEN: &str = "ssender@example.net\nfdns; client.example.net (mail.example.test [::ffff:192.0.2.7])\ne\nt\n\
        M00000000009C64F5.000000006B0514B0.0000009D\nralice@example.test\nRrfc822;alice@example.test\nN\n\
        rbob@example.test\nR\nNF\n8\nOTCPREMOTEIP=::ffff:192.0.2.7\nORELAYCLIENT=\nicarol\nuauthsmtp\nE1\np1\nW1\nYnew\n";

    #[test]
    fn a_control_file_is_read() {
        let control = Control::parse(SEEN.as_bytes()).unwrap();
        assert_eq!(control.sender, b"sender@example.net");
        let addresses: Vec<_> = control.recipients.iter().map(|r| String::from_utf8_lossy(&r.address)).collect();
        assert_eq!(addresses, ["alice@example.test", "bob@example.test"]);
        let address = "192.0.2.7".parse().ok();
        let from = From { helo: Some("client.example.net".into()), host: Some("mail.example.test".into()), address };
        assert_eq!(control.from, from);
        assert_eq!((control.client_address(), control.user.as_deref()), (address, Some("carol")));
        assert_eq!((control.source.as_str(), control.relay, control.eight_bit), ("authsmtp", true, true));
        assert_eq!(control.id.as_deref(), Some("00000000009C64F5.000000006B0514B0.0000009D"));
        assert!(control.whole && !control.utf8_header);
        assert_eq!(Control::parse(b"s").unwrap(), Control::default());
    }

    #[test]
    fn who_is_finished_is_known() {
        let text =
            "s\nra@x\nR\nN\nI0 R 250 Ok - delivered to alias.\nS0 17 r\nrb@x\nR\nN\nD1 17\nrc@x\nF2 17\nS9 17\nSx\n";
        let control = Control::parse(text.as_bytes()).unwrap();
        assert_eq!(control.recipients.iter().map(|r| r.finished).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn where_it_came_from() {
        fn check(value: &str, helo: Option<&str>, host: Option<&str>, address: Option<&str>) {
            let wanted = From {
                helo: helo.map(str::to_owned),
                host: host.map(str::to_owned),
                address: address.map(|address| address.parse().unwrap()),
            };
            assert_eq!(From::parse(value), wanted, "{value}");
        }
        check("dns; a.example (b.example [192.0.2.1])", Some("a.example"), Some("b.example"), Some("192.0.2.1"));
        check("dns; a.example ([2001:db8::1])", Some("a.example"), None, Some("2001:db8::1"));
        check("dns; a.example (::ffff:192.0.2.1)", Some("a.example"), None, Some("192.0.2.1"));
        check("dns; localhost (localhost [127.0.0.1])", Some("localhost"), Some("localhost"), Some("127.0.0.1"));
        check("dns; a (joe@b.example [192.0.2.1])", Some("a"), Some("b.example"), Some("192.0.2.1"));
        check("dns; a.example", Some("a.example"), None, None);
        check("", None, None, None);
        check("x (y", Some("x"), Some("y"), None);
    }

    #[test]
    fn what_is_no_control_file_is_refused() {
        assert_eq!(Control::parse(b""), Err(ControlError::NoSender));
        assert_eq!(Control::parse(b"ra@x\ns\n"), Err(ControlError::NoSender));
        assert_eq!(Control::parse(b"s\0\n"), Err(ControlError::Nul));
        assert_eq!(Control::parse(b"s\nra\0\n"), Err(ControlError::Nul));
        assert_eq!(Control::parse(&vec![b's'; MAX_SIZE + 1]), Err(ControlError::TooLarge));
        let many = format!("s\n{}", "ra@x\n".repeat(MAX_RECIPIENTS + 1));
        assert_eq!(Control::parse(many.as_bytes()), Err(ControlError::Recipients));
    }

    #[test]
    fn what_no_record_can_carry_is_not_written() {
        assert_eq!(add_recipient("a@x").unwrap(), b"ra@x\nR\nN\n");
        for wrong in ["", "a\nrb@x", "a\0", "a\r"] {
            assert_eq!(add_recipient(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Control::parse(&octets);
            let _ = Control::parse(&[b"s\n", &octets[..]].concat());
        }

        #[test]
        fn what_is_appended_is_read(count in 1usize..5, dropped in 0usize..5, added in "[a-z]{1,9}@[a-z]{1,9}") {
            let dropped = dropped.min(count - 1);
            let mut text = b"s\n".to_vec();
            text.extend((0..count).flat_map(|n| format!("r{n}@x\nR\nN\n").into_bytes()));
            text.extend(drop_silently(dropped, 1_795_518_000).into_bytes());
            text.extend(add_recipient(&added).unwrap());
            text.extend(EIGHT_BIT.bytes().chain(UTF8_HEADER.bytes()));
            let control = Control::parse(&text).unwrap();
            prop_assert!(control.eight_bit && control.utf8_header);
            prop_assert_eq!(control.recipients.len(), count + 1);
            for (index, recipient) in control.recipients.iter().enumerate() {
                prop_assert_eq!(recipient.finished, index == dropped);
            }
            prop_assert_eq!(&control.recipients[count].address, added.as_bytes());
        }
    }
}
