//! What a filter answers: edits, and one decision.

use bytes::{Buf, Bytes, BytesMut};

use super::MAX_DATA;
use super::frame::{Packet, write_packet};

/// One reply. Edits only between the end of a message and its decision.
///
/// Octets are written so that both mail servers read one thing in them: a NUL within a string becomes `?`,
/// a string that would make the packet longer than [`MAX_DATA`] is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Go on (`SMFIR_CONTINUE`).
    Continue,
    /// Go on, and ask no more (`SMFIR_ACCEPT`).
    Accept,
    /// Refuse for good (`SMFIR_REJECT`).
    Reject,
    /// Refuse for now (`SMFIR_TEMPFAIL`).
    TempFail,
    /// Take it and drop it (`SMFIR_DISCARD`).
    Discard,
    /// Leave out the rest of this step; as an answer to a body only (`SMFIR_SKIP`).
    Skip,
    /// A sign of life; after the end of a message only (`SMFIR_PROGRESS`).
    Progress,
    /// Refuse in these words, `550 5.7.1 text` on one line (`SMFIR_REPLYCODE`). Sendmail takes a single `%`
    /// for a format, so each is written twice, and both make one of it.
    Code(&'a str),
    /// Add a header field at the end; where one has the name, Sendmail puts it above that (`SMFIR_ADDHEADER`).
    AddHeader {
        /// The name.
        name: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Insert a header field (`SMFIR_INSHEADER`).
    InsertHeader {
        /// 0: above the mail server's own Received field; 1: below it.
        index: u32,
        /// The name.
        name: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Change a header field, or delete it (`SMFIR_CHGHEADER`).
    ChangeHeader {
        /// From 1, among the fields of this name that were shown.
        index: u32,
        /// The name.
        name: &'a [u8],
        /// Empty: delete it.
        value: &'a [u8],
    },
    /// The whole new body, in as many packets as it takes (`SMFIR_REPLBODY`).
    ReplaceBody(&'a [u8]),
    /// Add a recipient; the address in brackets (`SMFIR_ADDRCPT`, `SMFIR_ADDRCPT_PAR`).
    AddRecipient {
        /// `<a@b>`.
        address: &'a [u8],
        /// ESMTP parameters, one string with blanks; NOTIFY and ORCPT only.
        parameters: Option<&'a [u8]>,
    },
    /// Remove a recipient, as it was given (`SMFIR_DELRCPT`).
    DeleteRecipient(&'a [u8]),
    /// Change the sender (`SMFIR_CHGFROM`).
    ChangeSender {
        /// `<a@b>`, or `<>`.
        address: &'a [u8],
        /// ESMTP parameters, one string with blanks.
        parameters: Option<&'a [u8]>,
    },
    /// Hold the mail; the reason, not empty (`SMFIR_QUARANTINE`).
    Quarantine(&'a [u8]),
}

impl Reply<'_> {
    /// Writes it.
    pub fn encode(&self, out: &mut BytesMut) {
        match *self {
            Self::Continue => write_packet(b'c', &[], out),
            Self::Accept => write_packet(b'a', &[], out),
            Self::Reject => write_packet(b'r', &[], out),
            Self::TempFail => write_packet(b't', &[], out),
            Self::Discard => write_packet(b'd', &[], out),
            Self::Skip => write_packet(b's', &[], out),
            Self::Progress => write_packet(b'p', &[], out),
            Self::Code(text) => write_packet(b'y', &[&string(text.replace('%', "%%").as_bytes(), 0)], out),
            Self::AddHeader { name, value } => field(b'h', &[], name, value, out),
            Self::InsertHeader { index, name, value } => field(b'i', &index.to_be_bytes(), name, value, out),
            Self::ChangeHeader { index, name, value } => field(b'm', &index.to_be_bytes(), name, value, out),
            // An empty body is said by an empty packet.
            Self::ReplaceBody([]) => write_packet(b'b', &[], out),
            Self::ReplaceBody(octets) => {
                octets.chunks(MAX_DATA).for_each(|chunk| write_packet(b'b', &[chunk], out));
            }
            Self::AddRecipient { address, parameters: None } => write_packet(b'+', &[&string(address, 0)], out),
            Self::AddRecipient { address, parameters: Some(parameters) } => two(b'2', address, parameters, out),
            Self::DeleteRecipient(address) => write_packet(b'-', &[&string(address, 0)], out),
            Self::ChangeSender { address, parameters: None } => write_packet(b'e', &[&string(address, 0)], out),
            Self::ChangeSender { address, parameters: Some(parameters) } => two(b'e', address, parameters, out),
            Self::Quarantine(reason) => write_packet(b'q', &[&string(reason, 0)], out),
        }
    }
}

/// A string and its NUL, cut so that with `taken` octets before it the packet is not too long.
fn string(octets: &[u8], taken: usize) -> Vec<u8> {
    let most = octets.len().min(MAX_DATA.saturating_sub(taken + 1));
    let mut text: Vec<u8> = octets[..most].iter().map(|octet| if *octet == 0 { b'?' } else { *octet }).collect();
    text.push(0);
    text
}

fn two(code: u8, first: &[u8], second: &[u8], out: &mut BytesMut) {
    let first = string(first, 1);
    let second = string(second, first.len());
    write_packet(code, &[&first, &second], out);
}

fn field(code: u8, index: &[u8], name: &[u8], value: &[u8], out: &mut BytesMut) {
    let name = string(name, index.len() + 1);
    let value = string(&folded(value), index.len() + name.len());
    write_packet(code, &[index, &name, &value], out);
}

/// Lines end in LF (smfi_addheader.html), and each further line begins with a blank, so that no value ends
/// its field.
fn folded(value: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(value.len() + 1);
    let mut octets = value.iter().copied().peekable();
    while let Some(octet) = octets.next() {
        if octet == b'\r' && octets.peek() == Some(&b'\n') {
            continue;
        }
        if !matches!(octet, b'\r' | b'\n') {
            lines.push(octet);
            continue;
        }
        lines.push(b'\n');
        if !matches!(octets.peek(), Some(b' ' | b'\t')) {
            lines.push(b' ');
        }
    }
    lines
}

/// A reply as a mail server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// One of `c a r t d s p`, without data.
    Plain(u8),
    /// `SMFIR_REPLYCODE`, as sent.
    Code(Bytes),
    /// `h`, `i` or `m`: code, index (0 for `h`), name, value.
    Field(u8, u32, Bytes, Bytes),
    /// `SMFIR_REPLBODY`.
    Body(Bytes),
    /// `+`, `2`, `-`, `e` or `q`: code, string, parameters.
    Text(u8, Bytes, Option<Bytes>),
}

/// What is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed milter reply {:?}", char::from(*.0))]
pub struct ReplyError(
    /// The code.
    pub u8,
);

impl Said {
    /// Reads a packet as strictly as Postfix does: no data where there should be none, every string with
    /// its NUL, nothing behind the last.
    ///
    /// # Errors
    /// When it is no reply.
    pub fn parse(packet: Packet) -> Result<Self, ReplyError> {
        let Packet { code, mut data } = packet;
        let error = ReplyError(code);
        let said = match code {
            b'c' | b'a' | b'r' | b't' | b'd' | b's' | b'p' => Self::Plain(code),
            b'y' => Self::Code(ended(&mut data).ok_or(error)?),
            b'h' => Self::Field(code, 0, ended(&mut data).ok_or(error)?, ended(&mut data).ok_or(error)?),
            b'i' | b'm' if data.len() >= 4 => {
                let index = data.get_u32();
                Self::Field(code, index, ended(&mut data).ok_or(error)?, ended(&mut data).ok_or(error)?)
            }
            b'b' => Self::Body(std::mem::take(&mut data)),
            b'+' | b'-' | b'q' => Self::Text(code, ended(&mut data).ok_or(error)?, None),
            b'2' | b'e' => {
                let first = ended(&mut data).ok_or(error)?;
                let second = if data.is_empty() { None } else { Some(ended(&mut data).ok_or(error)?) };
                Self::Text(code, first, second)
            }
            _ => return Err(error),
        };
        if data.is_empty() { Ok(said) } else { Err(error) }
    }
}

fn ended(data: &mut Bytes) -> Option<Bytes> {
    let end = memchr::memchr(0, data)?;
    let text = data.split_to(end);
    data.advance(1);
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::take_packet;
    use super::*;

    fn said(reply: Reply<'_>) -> Vec<Said> {
        let mut wire = BytesMut::new();
        reply.encode(&mut wire);
        std::iter::from_fn(|| take_packet(&mut wire, MAX_DATA + 1).unwrap()).map(|p| Said::parse(p).unwrap()).collect()
    }

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn replies_are_written_as_both_mail_servers_take_them() {
        for (reply, code) in [
            (Reply::Continue, b'c'),
            (Reply::Accept, b'a'),
            (Reply::Reject, b'r'),
            (Reply::TempFail, b't'),
            (Reply::Discard, b'd'),
            (Reply::Skip, b's'),
            (Reply::Progress, b'p'),
        ] {
            let mut wire = BytesMut::new();
            reply.encode(&mut wire);
            assert_eq!(wire[..], [0, 0, 0, 1, code]);
        }
        assert_eq!(said(Reply::Code("550 5.7.1 100% bad")), [Said::Code(bytes("550 5.7.1 100%% bad"))]);
        let inserted = said(Reply::InsertHeader { index: 1, name: b"X", value: b" a\r\nBcc: b\r\n\tc\rd\0" });
        assert_eq!(inserted, [Said::Field(b'i', 1, bytes("X"), bytes(" a\n Bcc: b\n\tc\n d?"))]);
        let deleted = said(Reply::ChangeHeader { index: 2, name: b"X", value: b"" });
        assert_eq!(deleted, [Said::Field(b'm', 2, bytes("X"), Bytes::new())]);
        let added = said(Reply::AddRecipient { address: b"<a@b>", parameters: Some(b"NOTIFY=NEVER") });
        assert_eq!(added, [Said::Text(b'2', bytes("<a@b>"), Some(bytes("NOTIFY=NEVER")))]);
        assert_eq!(said(Reply::DeleteRecipient(b"<a@b>")), [Said::Text(b'-', bytes("<a@b>"), None)]);
        let null = said(Reply::ChangeSender { address: b"<>", parameters: None });
        assert_eq!(null, [Said::Text(b'e', bytes("<>"), None)]);
    }

    #[test]
    fn a_body_goes_in_pieces_that_every_mail_server_takes() {
        assert_eq!(said(Reply::ReplaceBody(b"")), [Said::Body(Bytes::new())]);
        let large = vec![b'x'; MAX_DATA * 2 + 1];
        let pieces: Vec<usize> = said(Reply::ReplaceBody(&large))
            .iter()
            .map(|said| match said {
                Said::Body(piece) => piece.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pieces, [MAX_DATA, MAX_DATA, 1]);
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_whole_reply(
            one in proptest::collection::vec(any::<u8>(), 0..200),
            two in proptest::collection::vec(any::<u8>(), 0..200),
            index: u32,
        ) {
            let text = String::from_utf8_lossy(&one).into_owned();
            for reply in [
                Reply::Code(&text),
                Reply::AddHeader { name: &one, value: &two },
                Reply::InsertHeader { index, name: &one, value: &two },
                Reply::ChangeHeader { index, name: &one, value: &two },
                Reply::AddRecipient { address: &one, parameters: Some(&two) },
                Reply::ChangeSender { address: &one, parameters: Some(&two) },
                Reply::Quarantine(&one),
            ] {
                prop_assert_eq!(said(reply).len(), 1);
            }
        }

        #[test]
        fn a_long_text_is_cut(length in MAX_DATA - 10..MAX_DATA + 10) {
            let long = vec![b'x'; length];
            for reply in [
                Reply::AddHeader { name: &long, value: &long },
                Reply::InsertHeader { index: 1, name: b"X", value: &long },
                Reply::ChangeSender { address: &long, parameters: Some(&long) },
                Reply::Quarantine(&long),
            ] {
                let mut wire = BytesMut::new();
                reply.encode(&mut wire);
                prop_assert!(wire.len() <= 5 + MAX_DATA);
                let packet = take_packet(&mut wire, MAX_DATA + 1).unwrap().unwrap();
                prop_assert!(Said::parse(packet).is_ok());
            }
        }

        #[test]
        fn no_octets_make_it_panic(code: u8, octets in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Said::parse(Packet { code, data: octets.into() });
        }
    }
}
