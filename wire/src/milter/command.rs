//! What a mail server sends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{Packet, write_packet};
use super::macros::Macros;
use super::options::Offer;

/// One command. Octets share memory with the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The first of a connection (`SMFIC_OPTNEG`).
    Options(Offer),
    /// Values for a command; it need not follow (`SMFIC_MACRO`).
    Macros(Macros),
    /// A client has connected (`SMFIC_CONNECT`).
    Connect {
        /// Its name, or its address in brackets.
        host: Bytes,
        /// Its address.
        peer: Peer,
    },
    /// HELO, EHLO; again after STARTTLS (`SMFIC_HELO`).
    Helo(Bytes),
    /// A mail begins (`SMFIC_MAIL`).
    Mail(Path),
    /// One recipient (`SMFIC_RCPT`).
    Recipient(Path),
    /// DATA (`SMFIC_DATA`).
    Data,
    /// A header field (`SMFIC_HEADER`).
    Header {
        /// Without the colon.
        name: Bytes,
        /// Folded lines are joined by LF, without CR.
        value: Bytes,
    },
    /// The header is complete (`SMFIC_EOH`).
    EndOfHeader,
    /// A piece of the body, its borders anywhere (`SMFIC_BODY`).
    Body(Bytes),
    /// The mail is complete; may hold a last piece of the body (`SMFIC_BODYEOB`).
    EndOfMessage(Bytes),
    /// The mail under way is void; the connection goes on (`SMFIC_ABORT`).
    Abort,
    /// An SMTP command that the mail server does not know (`SMFIC_UNKNOWN`).
    Unknown(Bytes),
    /// The end (`SMFIC_QUIT`).
    Quit,
    /// The end of this client's session; another CONNECT follows (`SMFIC_QUIT_NC`).
    QuitNewConnection,
}

/// A client's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// None: the mail server's own input.
    Unknown,
    /// A Unix socket.
    Local(Bytes),
    /// An address; port 0: made up.
    Inet {
        /// Mapped IPv4 addresses as IPv4.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// A family that we know with an address that we cannot read.
    Unreadable(Bytes),
}

/// The argument of MAIL or RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// As sent, with its brackets if it had some.
    pub raw: Bytes,
    /// ESMTP parameters, `NAME=value`.
    pub parameters: Vec<Bytes>,
}

/// What is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Nobody knows this code.
    #[error("unknown milter command {0:#04x}")]
    Unknown(u8),
    /// Something is missing in its data.
    #[error("malformed milter command {:?}", char::from(*.0))]
    Malformed(u8),
}

impl Command {
    /// Reads a packet. A missing NUL at the end of the last string is let pass, and so is data where there
    /// should be none.
    ///
    /// # Errors
    /// When the code is unknown, or something is missing.
    pub fn parse(packet: Packet) -> Result<Self, CommandError> {
        let Packet { code, mut data } = packet;
        let malformed = CommandError::Malformed(code);
        Ok(match code {
            b'O' => Self::Options(Offer::parse(&data).ok_or(malformed)?),
            b'D' => Self::Macros(Macros::parse(data).ok_or(malformed)?),
            b'C' => {
                let host = string(&mut data).ok_or(malformed)?;
                Self::Connect { host, peer: peer(data).ok_or(malformed)? }
            }
            b'H' => Self::Helo(string(&mut data).ok_or(malformed)?),
            b'M' => Self::Mail(Path::parse(data).ok_or(malformed)?),
            b'R' => Self::Recipient(Path::parse(data).ok_or(malformed)?),
            b'T' => Self::Data,
            b'L' => {
                let name = string(&mut data).ok_or(malformed)?;
                Self::Header { name, value: string(&mut data).unwrap_or_default() }
            }
            b'N' => Self::EndOfHeader,
            b'B' => Self::Body(data),
            b'E' => Self::EndOfMessage(data),
            b'A' => Self::Abort,
            b'U' => Self::Unknown(string(&mut data).unwrap_or_default()),
            b'Q' => Self::Quit,
            b'K' => Self::QuitNewConnection,
            _ => return Err(CommandError::Unknown(code)),
        })
    }

    /// Writes it, as a mail server does.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Options(offer) => offer.encode(out),
            Self::Macros(macros) => write_packet(b'D', &[&[macros.stage], macros.octets()], out),
            Self::Connect { host, peer } => {
                let (family, port, address): (u8, u16, Bytes) = match peer {
                    Peer::Unknown => return write_packet(b'C', &[host, b"\0U"], out),
                    Peer::Local(path) => (b'L', 0, path.clone()),
                    Peer::Inet { address: IpAddr::V4(address), port } => (b'4', *port, address.to_string().into()),
                    Peer::Inet { address: IpAddr::V6(address), port } => (b'6', *port, address.to_string().into()),
                    Peer::Unreadable(text) => (b'4', 0, text.clone()),
                };
                write_packet(b'C', &[host, b"\0", &[family], &port.to_be_bytes(), &address, b"\0"], out);
            }
            Self::Helo(name) => write_packet(b'H', &[name, b"\0"], out),
            Self::Mail(path) => path.encode(b'M', out),
            Self::Recipient(path) => path.encode(b'R', out),
            Self::Data => write_packet(b'T', &[], out),
            Self::Header { name, value } => write_packet(b'L', &[name, b"\0", value, b"\0"], out),
            Self::EndOfHeader => write_packet(b'N', &[], out),
            Self::Body(octets) => write_packet(b'B', &[octets], out),
            Self::EndOfMessage(octets) => write_packet(b'E', &[octets], out),
            Self::Abort => write_packet(b'A', &[], out),
            Self::Unknown(line) => write_packet(b'U', &[line, b"\0"], out),
            Self::Quit => write_packet(b'Q', &[], out),
            Self::QuitNewConnection => write_packet(b'K', &[], out),
        }
    }
}

impl Path {
    fn parse(mut data: Bytes) -> Option<Self> {
        let raw = string(&mut data)?;
        let parameters = std::iter::from_fn(|| string(&mut data)).collect();
        Some(Self { raw, parameters })
    }

    /// Without brackets and the blanks around them; empty for the null sender. A source route stays.
    pub fn address(&self) -> &[u8] {
        let trimmed = self.raw.trim_ascii();
        trimmed.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).unwrap_or(trimmed)
    }

    /// The value of a parameter, its name without case; empty when it has none.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find_map(|parameter| {
            let end = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
            let found = parameter[..end].eq_ignore_ascii_case(name.as_bytes());
            found.then(|| parameter.get(end + 1..).unwrap_or_default())
        })
    }

    fn encode(&self, code: u8, out: &mut BytesMut) {
        let mut pieces: Vec<&[u8]> = vec![&self.raw, b"\0"];
        for parameter in &self.parameters {
            pieces.extend([&parameter[..], b"\0"]);
        }
        write_packet(code, &pieces, out);
    }
}

/// The next string, up to its NUL or the end; `None` when nothing is left.
fn string(data: &mut Bytes) -> Option<Bytes> {
    if data.is_empty() {
        return None;
    }
    let end = memchr::memchr(0, data).unwrap_or(data.len());
    let text = data.split_to(end);
    if !data.is_empty() {
        data.advance(1);
    }
    Some(text)
}

fn peer(mut data: Bytes) -> Option<Peer> {
    // A peer without any family is as unknown as one that says so.
    let Some(family) = data.first().copied() else { return Some(Peer::Unknown) };
    data.advance(1);
    if family == b'U' {
        return Some(Peer::Unknown);
    }
    if data.len() < 2 {
        return None;
    }
    let port = data.get_u16();
    let text = string(&mut data).unwrap_or_default();
    Some(match family {
        b'L' => Peer::Local(text),
        b'4' | b'6' => address(&text).map_or(Peer::Unreadable(text), |address| Peer::Inet { address, port }),
        _ => Peer::Unreadable(text),
    })
}

/// Sendmail writes `IPv6:` before an IPv6 address, and does not shorten it.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = text.get(..5).filter(|start| start.eq_ignore_ascii_case("IPv6:")).map_or(text, |_| &text[5..]);
    let v6 = || plain.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    plain.parse::<Ipv4Addr>().ok().map(IpAddr::V4).or_else(v6).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
