//! The PROXY protocol, versions 1 and 2: who the client behind a load balancer is (haproxy `proxy-protocol.txt`).
//! Only the receiving side, and only for listeners whose peers are known to send it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BytesMut};

/// What the header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is the balancer's own (a health check, v2 LOCAL): the real peer counts.
    Local,
    /// Nothing usable (v1 UNKNOWN, v2 UNSPEC or a Unix socket): the real peer counts.
    Unknown,
    /// The client and the address it connected to.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
}

/// Why the octets are no header. Close the connection without a word: the sender is not the one we trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// Neither version's signature.
    #[error("no PROXY protocol signature")]
    Signature,
    /// A malformed header.
    #[error("malformed PROXY protocol header")]
    Syntax,
    /// A version or command of the future.
    #[error("unsupported PROXY protocol version or command")]
    Version,
    /// Longer than the protocol or [`MAX_V2`] allows.
    #[error("PROXY protocol header too long")]
    TooLong,
}

/// Longest version 1 header with CRLF (from the specification).
pub const MAX_V1: usize = 107;
/// Most octets taken after the 16 of a version 2 header: addresses and extension fields. The specification asks for
/// no more than 520 (536 in all) to fit the smallest TCP segment.
pub const MAX_V2: usize = 520;

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl ProxyHeader {
    /// Takes a header from the front of the buffer. `Ok(None)`: read more; the buffer stays as it is and the header
    /// needs at most 536 octets. Extension fields of version 2 are skipped.
    pub fn parse(buffer: &mut BytesMut) -> Result<Option<Self>, ProxyError> {
        let (header, length) = match &buffer[..] {
            input if input.len() >= V2.len() && input.starts_with(V2) => match v2(input)? {
                Some(parsed) => parsed,
                None => return Ok(None),
            },
            input if input.starts_with(V1) => match v1(input)? {
                Some(parsed) => parsed,
                None => return Ok(None),
            },
            input if V1.starts_with(input) || V2.starts_with(input) => return Ok(None),
            _ => return Err(ProxyError::Signature),
        };
        buffer.advance(length);
        Ok(Some(header))
    }

    /// The client, when the header names one.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { source, .. } => Some(*source),
            Self::Local | Self::Unknown => None,
        }
    }
}

type Parsed = Option<(ProxyHeader, usize)>;

fn v1(input: &[u8]) -> Result<Parsed, ProxyError> {
    let window = &input[..input.len().min(MAX_V1)];
    let Some(lf) = memchr::memchr(b'\n', window) else {
        return if input.len() >= MAX_V1 { Err(ProxyError::TooLong) } else { Ok(None) };
    };
    let line = window[V1.len()..lf].strip_suffix(b"\r").ok_or(ProxyError::Syntax)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Syntax)?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Some((ProxyHeader::Unknown, lf + 1)));
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let addresses = address().zip(address());
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        if word.bytes().all(|octet| octet.is_ascii_digit()) { word.parse().ok() } else { None }
    };
    let ports = port().zip(port());
    match (addresses, ports, words.next()) {
        (Some((source, destination)), Some((from, to)), None) => {
            let header = ProxyHeader::Tcp {
                source: SocketAddr::new(source, from),
                destination: SocketAddr::new(destination, to),
            };
            Ok(Some((header, lf + 1)))
        }
        _ => Err(ProxyError::Syntax),
    }
}

fn v2(input: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(&[version, family, high, low]) = input.get(12..16) else { return Ok(None) };
    if version >> 4 != 2 || version & 0x0f > 1 {
        return Err(ProxyError::Version);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    let Some(body) = input.get(16..16 + length) else { return Ok(None) };
    let header = if version & 0x0f == 0 {
        ProxyHeader::Local
    } else {
        match family {
            // AF_INET or AF_INET6 over STREAM. The rest (UNSPEC, DGRAM, UNIX) says nothing about a TCP client.
            0x11 => tcp(body.first_chunk::<12>().ok_or(ProxyError::Syntax)?),
            0x21 => tcp(body.first_chunk::<36>().ok_or(ProxyError::Syntax)?),
            _ => ProxyHeader::Unknown,
        }
    };
    Ok(Some((header, 16 + length)))
}

/// Two addresses of equal length, then two ports.
fn tcp(body: &[u8]) -> ProxyHeader {
    let (addresses, ports) = body.split_at(body.len() - 4);
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    ProxyHeader::Tcp {
        source: SocketAddr::new(ip(source), port(0)),
        destination: SocketAddr::new(ip(destination), port(2)),
    }
}

fn ip(octets: &[u8]) -> IpAddr {
    match octets.first_chunk::<16>() {
        Some(octets) => IpAddr::V6(Ipv6Addr::from(*octets)),
        None => {
            octets.first_chunk::<4>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |octets| IpAddr::V4((*octets).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whole and byte by byte, with a command behind it that must stay.
    fn check(header: &[u8], expected: Result<ProxyHeader, ProxyError>) {
        let mut buffer = BytesMut::from(&[header, b"EHLO a\r\n"].concat()[..]);
        let whole = ProxyHeader::parse(&mut buffer).map(Option::unwrap);
        assert_eq!(whole, expected, "{:?}", String::from_utf8_lossy(header));
        if whole.is_ok() {
            assert_eq!(&buffer[..], b"EHLO a\r\n");
        }
        let mut buffer = BytesMut::new();
        for (at, octet) in header.iter().enumerate() {
            buffer.extend_from_slice(&[*octet]);
            match ProxyHeader::parse(&mut buffer) {
                Ok(None) => {}
                Ok(Some(parsed)) => {
                    assert_eq!((Ok(parsed), at + 1), (expected, header.len()));
                    return;
                }
                Err(error) => {
                    assert_eq!(Err(error), expected);
                    return;
                }
            }
        }
        panic!("no result byte by byte");
    }

    fn tcp(source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [V2, &[version, family][..], &length, body].concat()
    }

    #[test]
    fn version_1() {
        check(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 25\r\n", Ok(tcp("192.0.2.1:4711", "198.51.100.1:25")));
        check(b"PROXY TCP6 2001:db8::1 ::1 65535 25\r\n", Ok(tcp("[2001:db8::1]:65535", "[::1]:25")));
        check(b"PROXY UNKNOWN\r\n", Ok(ProxyHeader::Unknown));
        check(b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", Ok(ProxyHeader::Unknown));
        for wrong in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 25\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.1 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.1 1 2 3\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.1 +1 2\r\n",
            "PROXY UDP4 1.1.1.1 1.1.1.1 1 2\r\n",
        ] {
            check(wrong.as_bytes(), Err(ProxyError::Syntax));
        }
        check(format!("PROXY UNKNOWN {}\r\n", "a".repeat(100)).as_bytes(), Err(ProxyError::TooLong));
        check(b"EHLO a\r\n", Err(ProxyError::Signature));
        check(b"PROXX", Err(ProxyError::Signature));
    }

    #[test]
    fn version_2() {
        let body4 = [&[192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 25][..], b"\x03\x00\x04abcd"].concat();
        check(&v2(0x21, 0x11, &body4), Ok(tcp("192.0.2.1:4711", "198.51.100.1:25")));
        let mut body6 = [0u8; 36];
        body6[..2].copy_from_slice(&[0x20, 0x01]);
        (body6[15], body6[31], body6[33], body6[35]) = (1, 2, 3, 25);
        check(&v2(0x21, 0x21, &body6), Ok(tcp("[2001::1]:3", "[::2]:25")));
        check(&v2(0x20, 0x00, b""), Ok(ProxyHeader::Local));
        check(&v2(0x20, 0x11, &body4), Ok(ProxyHeader::Local));
        check(&v2(0x21, 0x00, b""), Ok(ProxyHeader::Unknown));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(ProxyHeader::Unknown));
        check(&v2(0x21, 0x11, &body4[..11]), Err(ProxyError::Syntax));
        check(&v2(0x11, 0x11, &body4), Err(ProxyError::Version));
        check(&v2(0x22, 0x11, &body4), Err(ProxyError::Version));
        check(&v2(0x21, 0x11, &[0; MAX_V2 + 1]), Err(ProxyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_octets_are_safe(prefix in prop_oneof![Just(V1), Just(&V2[..]), Just(&b""[..])], tail: Vec<u8>) {
            let _ = ProxyHeader::parse(&mut BytesMut::from(&[prefix, &tail].concat()[..]));
        }
    }
}
