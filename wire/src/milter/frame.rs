//! Packets: a length of four octets, a code, data.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which command or reply.
    pub code: u8,
    /// What belongs to it; shares memory with what was read.
    pub data: Bytes,
}

/// What can be no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length counts the code, so it is never 0.
    #[error("a milter packet of no length")]
    Empty,
    /// Longer than the limit: the declared length.
    #[error("a milter packet of {0} octets is too long")]
    TooLong(u32),
}

/// Takes the first packet, when it is here whole. Nothing is reserved for a declared length: a peer that
/// promises much and sends little costs nothing.
///
/// # Errors
/// When the stream cannot be milter, or is milter beyond `limit` octets (code and data).
pub fn take_packet(input: &mut BytesMut, limit: usize) -> Result<Option<Packet>, FrameError> {
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let declared = u32::from_be_bytes(*head);
    let length = usize::try_from(declared).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > limit {
        return Err(FrameError::TooLong(declared));
    }
    if input.len() - 4 < length {
        return Ok(None);
    }
    input.advance(4);
    let mut data = input.split_to(length).freeze();
    let code = data.get_u8();
    Ok(Some(Packet { code, data }))
}

/// Who speaks something else to a milter port, by a connection's first four octets: a milter's first packet is
/// short, so its first octet is 0.
pub fn guess_protocol(first: &[u8]) -> Option<&'static str> {
    const CLAMD: &str = "clamd's protocol";
    let start = first.first_chunk::<4>()?;
    Some(match &start.map(|octet| octet.to_ascii_uppercase()) {
        [0x16, 3, ..] => "TLS",
        b"EHLO" | b"HELO" | b"MAIL" | b"RSET" | b"NOOP" | b"QUIT" | b"HELP" => "SMTP",
        b"LHLO" => "LMTP",
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"CONN" | b"PRI " => "HTTP",
        b"PING" | b"SCAN" | b"VERS" | b"INST" | b"CONT" => CLAMD,
        b"CHEC" | b"SYMB" | b"REPO" | b"PROC" | b"TELL" => "spamd's protocol",
        b"SSH-" => "SSH",
        b"PROX" | b"\r\n\r\n" => "the PROXY protocol",
        // Behind the mark for how lines end, a command.
        _ if matches!(start, [b'z' | b'n', command @ ..] if command.iter().all(u8::is_ascii_uppercase)) => CLAMD,
        text if text.iter().all(|octet| octet.is_ascii_graphic() || octet.is_ascii_whitespace()) => "plain text",
        _ => return None,
    })
}

/// Writes a packet; `data` in pieces, which must come to less than 4 GiB.
pub(super) fn write_packet(code: u8, data: &[&[u8]], out: &mut BytesMut) {
    let length: usize = data.iter().map(|piece| piece.len()).sum::<usize>() + 1;
    out.reserve(4 + length);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.put_u8(code);
    data.iter().for_each(|piece| out.extend_from_slice(piece));
}

/// Writes a packet whose data, less than 4 GiB, `fill` appends.
pub(super) fn put_packet(code: u8, out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(code);
    fill(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_one_by_one() {
        let mut input = BytesMut::new();
        write_packet(b'H', &[b"me", b"\0"], &mut input);
        write_packet(b'A', &[], &mut input);
        let second = input.split_off(8);
        for octet in input.split_off(3) {
            assert_eq!(take_packet(&mut input, 100), Ok(None));
            input.put_u8(octet);
        }
        let packet = take_packet(&mut input, 100).unwrap().unwrap();
        assert_eq!((packet.code, &packet.data[..]), (b'H', &b"me\0"[..]));
        input.unsplit(second);
        assert_eq!(take_packet(&mut input, 100).unwrap().unwrap().code, b'A');
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_no_packet_is_told_before_it_is_waited_for() {
        let take = |octets: &[u8]| take_packet(&mut BytesMut::from(octets), 100);
        assert_eq!(take(&[0, 0, 0, 0]), Err(FrameError::Empty));
        assert_eq!(take(&[0xff; 4]), Err(FrameError::TooLong(u32::MAX)));
        assert_eq!(take(&[0, 0, 0, 101]), Err(FrameError::TooLong(101)));
        assert_eq!(take(&[0, 0, 0, 100]), Ok(None));
    }

    #[test]
    fn other_protocols() {
        for (first, name) in [
            (&b"EHLO x\r\n"[..], Some("SMTP")),
            (b"helo x\r\n", Some("SMTP")),
            (b"LHLO x\r\n", Some("LMTP")),
            (b"QUIT\r\n", Some("SMTP")),
            (b"zPING\0", Some("clamd's protocol")),
            (b"nSCAN /\n", Some("clamd's protocol")),
            (b"zIDSESSION\0", Some("clamd's protocol")),
            (b"PING", Some("clamd's protocol")),
            (b"CHECK SPAMC/1.5\r\n", Some("spamd's protocol")),
            (b"get / HTTP/1.0", Some("HTTP")),
            (b"PRI * HTTP/2.0", Some("HTTP")),
            (b"POST /", Some("HTTP")),
            (b"\x16\x03\x01\x00\xc8", Some("TLS")),
            (b"SSH-2.0-x", Some("SSH")),
            (b"PROXY TCP4", Some("the PROXY protocol")),
            (b"\r\n\r\n\0\r\nQUIT\n", Some("the PROXY protocol")),
            (b"\r\n\r", None),
            (b"zebra", Some("plain text")),
            (b"\0\0\0\x0dO", None),
            (b"\0\x10\0\0", None),
            (b"\x80\0\0\0", None),
            (b"EHL", None),
            (b"", None),
        ] {
            assert_eq!(guess_protocol(first), name, "{first:?}");
        }
    }
}
