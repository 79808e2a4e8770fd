//! Milter packets as a mail server sends and reads them: a length, a code letter, octets. Written from
//! the protocol's description and from nothing of the product, so that both can be wrong only apart.
//! What a packet means is told in the modules beside this one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Answer;

use super::Fault;

/// A server sends no more of a body at once, and libmilter takes no more from a filter.
pub(super) const CHUNK: usize = 65535;

/// SMFIA_… and SMFIF_…: what a filter may do, as bits of the negotiation.
pub(super) mod action {
    pub(in super::super) const ADD_HEADERS: u32 = 0x01;
    pub(in super::super) const CHANGE_BODY: u32 = 0x02;
    pub(in super::super) const ADD_RECIPIENTS: u32 = 0x04;
    pub(in super::super) const DELETE_RECIPIENTS: u32 = 0x08;
    pub(in super::super) const CHANGE_HEADERS: u32 = 0x10;
    pub(in super::super) const QUARANTINE: u32 = 0x20;
    pub(in super::super) const CHANGE_SENDER: u32 = 0x40;
    pub(in super::super) const ADD_RECIPIENTS_WITH_PARAMETERS: u32 = 0x80;
    pub(in super::super) const SET_MACROS: u32 = 0x100;
}

/// SMFIP_…: which steps a filter wants, which it answers, and what it understands.
pub(super) mod step {
    pub(in super::super) const NO_CONNECT: u32 = 0x1;
    pub(in super::super) const NO_HELO: u32 = 0x2;
    pub(in super::super) const NO_MAIL: u32 = 0x4;
    pub(in super::super) const NO_RCPT: u32 = 0x8;
    pub(in super::super) const NO_BODY: u32 = 0x10;
    pub(in super::super) const NO_HEADERS: u32 = 0x20;
    pub(in super::super) const NO_EOH: u32 = 0x40;
    pub(in super::super) const NR_HEADER: u32 = 0x80;
    pub(in super::super) const NO_DATA: u32 = 0x200;
    pub(in super::super) const SKIP: u32 = 0x400;
    pub(in super::super) const NR_CONNECT: u32 = 0x1000;
    pub(in super::super) const NR_HELO: u32 = 0x2000;
    pub(in super::super) const NR_MAIL: u32 = 0x4000;
    pub(in super::super) const NR_RCPT: u32 = 0x8000;
    pub(in super::super) const NR_DATA: u32 = 0x10000;
    pub(in super::super) const NR_EOH: u32 = 0x40000;
    pub(in super::super) const NR_BODY: u32 = 0x80000;
    pub(in super::super) const LEADING_SPACE: u32 = 0x10_0000;
}

/// One packet from a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The code letter.
    pub code: u8,
    /// What follows it.
    pub data: Vec<u8>,
}

/// A connection to a filter, for packets and for raw octets.
#[derive(Debug)]
pub struct Wire(Socket);

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Wire {
    /// Connects to a Unix socket.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self(Socket::Unix(UnixStream::connect(path)?)))
    }

    /// Uses a TCP connection that the caller has made, in whatever network.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(Socket::Tcp(stream)))
    }

    /// Whether a filter is there: it answers a negotiation.
    pub fn negotiates(&mut self) -> bool {
        let offer = super::Offer::FULL;
        let numbers = [offer.version, offer.actions, offer.steps].map(u32::to_be_bytes).concat();
        let asked = self.set_patience(Duration::from_secs(10)).and_then(|()| self.send(&packet(b'O', &numbers)));
        let answer = asked.and_then(|()| self.receive());
        // The goodbye is no matter of life and death.
        let _ = self.send(&packet(b'Q', b""));
        answer.is_ok_and(|answer| answer.is_some_and(|packet| packet.code == b'O'))
    }

    /// Writes octets as they are.
    pub fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Socket::Unix(stream) => stream.write_all(octets),
            Socket::Tcp(stream) => stream.write_all(octets),
        }
    }

    /// Says that nothing more will be written, while answers may still come.
    pub fn finish(&mut self) -> io::Result<()> {
        match &self.0 {
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// How long [`Wire::receive`] waits.
    pub fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        match &self.0 {
            Socket::Unix(stream) => stream.set_read_timeout(Some(patience)),
            Socket::Tcp(stream) => stream.set_read_timeout(Some(patience)),
        }
    }

    /// The next packet; `None` when the filter has closed the connection between two packets.
    pub fn receive(&mut self) -> io::Result<Option<Packet>> {
        let mut length = [0; 4];
        if self.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        self.read_exact(&mut length[1..])?;
        let length = u32::from_be_bytes(length) as usize;
        if !(1..=CHUNK + 1).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} octets")));
        }
        let mut octets = vec![0; length];
        self.read_exact(&mut octets)?;
        let code = octets.remove(0);
        Ok(Some(Packet { code, data: octets }))
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Unix(stream) => stream.read(into),
            Socket::Tcp(stream) => stream.read(into),
        }
    }
}

/// A packet as octets.
pub fn packet(code: u8, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len() + 1).expect("packets are small");
    let mut octets = length.to_be_bytes().to_vec();
    octets.push(code);
    octets.extend_from_slice(data);
    octets
}

/// Strings, each with a NUL behind it.
pub(super) fn strings(of: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for string in of {
        data.extend_from_slice(string);
        data.push(0);
    }
    data
}

/// A packet's data, taken apart from its front; what is left over at the end is a fault.
#[derive(Debug)]
pub(super) struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self) -> Result<u32, Fault> {
        let (number, rest) =
            self.0.split_first_chunk().ok_or_else(|| Fault::filter("a packet ends within a number"))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    pub(super) fn octets(&mut self) -> Result<&'a [u8], Fault> {
        let end = self.0.iter().position(|octet| *octet == 0).ok_or_else(|| Fault::filter("a string without NUL"))?;
        let string = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Ok(string)
    }

    pub(super) fn string(&mut self) -> Result<String, Fault> {
        let octets = self.octets()?.to_vec();
        String::from_utf8(octets).map_err(|_| Fault::filter("a string that is no UTF-8"))
    }

    pub(super) fn end(self) -> Result<(), Fault> {
        if self.0.is_empty() { Ok(()) } else { Err(Fault::filter("more in a packet than belongs there")) }
    }
}

/// Reads the text of a reply of the filter's own (SMFIR_REPLYCODE) as strictly as any server does.
pub(super) fn reply(data: &[u8]) -> Result<Answer, Fault> {
    let mut data = Data::new(data);
    let text = data.string()?;
    data.end()?;
    let bad = |why: &str| Err(Fault::Filter(format!("{why} in the reply {text:?}")));
    let lines: Vec<&str> = text.split("\r\n").collect();
    let Some(code) = text.get(..3).filter(|code| code.bytes().all(|digit| digit.is_ascii_digit())) else {
        return bad("no code");
    };
    if !code.starts_with(['4', '5']) {
        return bad("a code that refuses nothing");
    }
    if lines.len() > 32 {
        return bad("too many lines");
    }
    let mut texts = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mark = if n + 1 == lines.len() { " " } else { "-" };
        let Some(rest) = line.strip_prefix(code).and_then(|rest| rest.strip_prefix(mark)) else {
            return bad("a line that does not fit the others");
        };
        if line.len() > 980 || !line.bytes().all(|octet| (b' '..=b'~').contains(&octet)) {
            return bad("a line too long or not of printable ASCII");
        }
        // Sendmail uses the text as a format; only a doubled per cent sign stands for itself.
        if rest.replace("%%", "").contains('%') {
            return bad("a single per cent sign");
        }
        let enhanced = rest.split(' ').next().unwrap_or_default();
        let digits = enhanced.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if enhanced.split('.').count() == 3 && digits && !enhanced.starts_with(&code[..1]) {
            return bad("an enhanced code of another class");
        }
        texts.push(rest.replace("%%", "%"));
    }
    Ok(Answer { code: code.parse().expect("three digits"), text: texts.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_strictly() {
        fn check(text: &str, read: Option<(u16, &str)>) {
            let read_now = reply(&strings(&[text.as_bytes()])).ok();
            assert_eq!(read_now, read.map(|(code, text)| Answer { code, text: text.to_owned() }), "{text}");
        }
        check("550 5.7.1 no", Some((550, "5.7.1 no")));
        check("550 100%% bad", Some((550, "100% bad")));
        check("550-5.7.1 a\r\n550 5.7.1 b", Some((550, "5.7.1 a\n5.7.1 b")));
        for bad in [
            "",
            "55",
            "250 2.0.0 fine",
            "550",
            "550 4.7.1 no",
            "550 100% bad",
            "550 a\r\n",
            "550-a",
            "550-a\r\n551 b",
            "550 gr\u{fc}n",
            "550 a\nb",
        ] {
            check(bad, None);
        }
        assert!(reply(b"550 no NUL").is_err());
        assert!(reply(b"550 a\0more\0").is_err());
    }
}
