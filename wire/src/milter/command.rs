//! What a mail server sends.

use std::net::IpAddr;

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{Packet, write_packet};
use super::macros::Macros;
use super::options::Offer;

/// The most ESMTP parameters of one address; further ones are left out. There are some ten in all.
pub const MAX_PARAMETERS: usize = 128;

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
    /// The mail server says that there is none (`SMFIA_UNKNOWN`): its own input.
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
    /// Anything else, from the family on. Not to be trusted for a local one.
    Unreadable(Bytes),
}

/// The argument of MAIL or RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// As sent, with its brackets if it had some.
    pub raw: Bytes,
    /// ESMTP parameters, `NAME=value`, none empty, at most [`MAX_PARAMETERS`].
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
    /// Reads a packet. Missing NULs and strings are let pass, and so is data where there should be none: to end
    /// the connection makes Sendmail without `F=` deliver all that comes later unseen.
    ///
    /// # Errors
    /// When the code is unknown, or an offer or a stage of macros is cut short.
    pub fn parse(packet: Packet) -> Result<Self, CommandError> {
        let Packet { code, mut data } = packet;
        let malformed = CommandError::Malformed(code);
        Ok(match code {
            b'O' => Self::Options(Offer::parse(&data).ok_or(malformed)?),
            b'D' => Self::Macros(Macros::parse(data).ok_or(malformed)?),
            b'C' => Self::Connect { host: string(&mut data), peer: Peer::parse(data) },
            b'H' => Self::Helo(string(&mut data)),
            b'M' => Self::Mail(Path::parse(data)),
            b'R' => Self::Recipient(Path::parse(data)),
            b'T' => Self::Data,
            b'L' => Self::Header { name: string(&mut data), value: string(&mut data) },
            b'N' => Self::EndOfHeader,
            b'B' => Self::Body(data),
            b'E' => Self::EndOfMessage(data),
            b'A' => Self::Abort,
            b'U' => Self::Unknown(string(&mut data)),
            b'Q' => Self::Quit,
            b'K' => Self::QuitNewConnection,
            _ => return Err(CommandError::Unknown(code)),
        })
    }

    /// Writes it, as a mail server does. Strings must be without NUL.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Options(offer) => offer.encode(out),
            Self::Macros(macros) => write_packet(b'D', &[&[macros.stage], macros.octets()], out),
            Self::Connect { host, peer } => match peer {
                Peer::Unknown => write_packet(b'C', &[host, b"\0U"], out),
                Peer::Local(path) => write_packet(b'C', &[host, b"\0L\0\0", path, b"\0"], out),
                Peer::Inet { address, port } => {
                    let family: &[u8] = if address.is_ipv4() { b"\x004" } else { b"\x006" };
                    let address = address.to_string();
                    write_packet(b'C', &[host, family, &port.to_be_bytes(), address.as_bytes(), b"\0"], out);
                }
                Peer::Unreadable(octets) => write_packet(b'C', &[host, b"\0", octets], out),
            },
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

impl Peer {
    fn parse(data: Bytes) -> Self {
        let mut rest = data.clone();
        match rest.try_get_u8() {
            Ok(b'U') => return Self::Unknown,
            Ok(b'L') if rest.len() >= 2 => {
                rest.advance(2);
                return Self::Local(string(&mut rest));
            }
            Ok(b'4' | b'6') => {
                if let Ok(port) = rest.try_get_u16()
                    && let Some(address) = address(&string(&mut rest))
                {
                    return Self::Inet { address, port };
                }
            }
            _ => {}
        }
        Self::Unreadable(data)
    }
}

impl Path {
    fn parse(mut data: Bytes) -> Self {
        let raw = string(&mut data);
        let mut parameters = Vec::new();
        // Thousands of empty ones would cost far more than their packet.
        while !data.is_empty() && parameters.len() < MAX_PARAMETERS {
            let parameter = string(&mut data);
            if !parameter.is_empty() {
                parameters.push(parameter);
            }
        }
        Self { raw, parameters }
    }

    /// Without brackets and the blanks around them; empty for the null sender. A source route stays.
    pub fn address(&self) -> &[u8] {
        let trimmed = self.raw.trim_ascii();
        trimmed.strip_prefix(b"<").and_then(|rest| rest.strip_suffix(b">")).unwrap_or(trimmed).trim_ascii()
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

/// The next string, up to its NUL or the end.
fn string(data: &mut Bytes) -> Bytes {
    let Some(end) = memchr::memchr(0, data) else { return std::mem::take(data) };
    let text = data.split_to(end);
    data.advance(1);
    text
}

/// Sendmail writes `IPv6:` before an IPv6 address, and does not shorten it. A zone (`fe80::1%eth0`) is the
/// mail server's, and says nothing of the client.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let plain = text.get(..5).filter(|start| start.eq_ignore_ascii_case("IPv6:")).map_or(text, |_| &text[5..]);
    let plain = plain.split_once('%').map_or(plain, |(address, _)| address);
    plain.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests;
