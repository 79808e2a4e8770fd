//! What a filter answers: edits, and one decision.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::MAX_DATA;
use super::frame::{Packet, put_packet, write_packet};

mod code;

/// One reply. Edits only between the end of a message and its decision.
///
/// Octets are written so that both mail servers read one thing in them: within a string, NUL, CR and LF become
/// `?`, but line ends within a header value become folds. A string that would make the packet longer than
/// [`MAX_DATA`] is cut.
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
    /// Refuse in these words, `550 5.7.1 text` (`SMFIR_REPLYCODE`); a line feed begins a further line, which
    /// gets the same codes. Sendmail takes a single `%` for a format, so each is written twice, and both make
    /// one of it. It also takes off the eighth bit, which can make line ends: what is not printable ASCII
    /// becomes `?`. A text that is no 4xx or 5xx is sent as [`Reply::TempFail`], since the two differ on it.
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
            Self::Code(text) => match code::lines(text) {
                Some(lines) => write_packet(b'y', &[lines.as_bytes(), b"\0"], out),
                None => Self::TempFail.encode(out),
            },
            Self::AddHeader { name, value } => put_packet(b'h', out, |out| field(None, name, value, out)),
            Self::InsertHeader { index, name, value } => {
                put_packet(b'i', out, |out| field(Some(index), name, value, out));
            }
            Self::ChangeHeader { index, name, value } => {
                put_packet(b'm', out, |out| field(Some(index), name, value, out));
            }
            // An empty body is said by an empty packet.
            Self::ReplaceBody([]) => write_packet(b'b', &[], out),
            Self::ReplaceBody(octets) => {
                out.reserve(octets.len() + 5 * octets.len().div_ceil(MAX_DATA));
                octets.chunks(MAX_DATA).for_each(|chunk| write_packet(b'b', &[chunk], out));
            }
            Self::AddRecipient { address, parameters } => {
                let code = if parameters.is_some_and(|parameters| !parameters.is_empty()) { b'2' } else { b'+' };
                put_packet(code, out, |out| words(address, parameters, out));
            }
            Self::DeleteRecipient(address) => put_packet(b'-', out, |out| words(address, None, out)),
            Self::ChangeSender { address, parameters } => put_packet(b'e', out, |out| words(address, parameters, out)),
            Self::Quarantine(reason) => put_packet(b'q', out, |out| words(reason, None, out)),
        }
    }
}

fn field(index: Option<u32>, name: &[u8], value: &[u8], out: &mut BytesMut) {
    let mut room = MAX_DATA - 2;
    if let Some(index) = index {
        out.put_u32(index);
        room -= 4;
    }
    let name = &name[..name.len().min(room)];
    word(name, out);
    folded(value, room - name.len(), out);
    out.put_u8(0);
}

/// Both mail servers want all parameters in one string, and none rather than an empty one.
fn words(first: &[u8], parameters: Option<&[u8]>, out: &mut BytesMut) {
    let room = MAX_DATA - 2;
    let first = &first[..first.len().min(room)];
    word(first, out);
    if let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) {
        word(&parameters[..parameters.len().min(room - first.len())], out);
    }
}

/// A string and its NUL. It stays one string, and one line wherever the mail server puts it.
fn word(text: &[u8], out: &mut BytesMut) {
    let start = out.len();
    out.extend_from_slice(text);
    out[start..].iter_mut().filter(|octet| matches!(octet, 0 | b'\r' | b'\n')).for_each(|octet| *octet = b'?');
    out.put_u8(0);
}

/// At most `room` octets of a header value. Lines end in LF (smfi_addheader.html), and each further line
/// begins with a blank, so that no value ends its field: line ends in a row are one, at the end none.
fn folded(value: &[u8], room: usize, out: &mut BytesMut) {
    let start = out.len();
    let left = |out: &BytesMut| room - (out.len() - start);
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..at.min(left(out))]);
        let ends = rest[at..].iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        rest = &rest[at + ends..];
        match rest.first() {
            // For LF, a blank, and something behind it.
            Some(_) if left(out) < 3 => rest = b"",
            Some(b' ' | b'\t') => out.put_u8(b'\n'),
            Some(_) => out.extend_from_slice(b"\n "),
            None => {}
        }
    }
    out.extend_from_slice(&rest[..rest.len().min(left(out))]);
    out[start..].iter_mut().filter(|octet| **octet == 0).for_each(|octet| *octet = b'?');
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
    fn a_value_never_ends_its_field() {
        for (value, written) in [
            ("a\nb", "a\n b"),
            ("a\r\n b\r\n\tc", "a\n b\n\tc"),
            ("a\rb\r\r\nc\n\nd", "a\n b\n c\n d"),
            ("a\r\n", "a"),
            ("a\n\n\r", "a"),
            ("\nBcc: x", "\n Bcc: x"),
            ("\r\n", ""),
            ("a\0\nb\0", "a?\n b?"),
            (" \n \n ", " \n \n "),
        ] {
            let added = said(Reply::AddHeader { name: b"X\r\nY\0", value: value.as_bytes() });
            assert_eq!(added, [Said::Field(b'h', 0, bytes("X??Y?"), bytes(written))], "{value:?}");
        }
    }

    #[test]
    fn addresses_stay_on_their_line() {
        let address = b"<a@b>\r\nx\0";
        let parameters = Some(&b"NOTIFY=NEVER\nORCPT=\0"[..]);
        let added = said(Reply::AddRecipient { address, parameters });
        assert_eq!(added, [Said::Text(b'2', bytes("<a@b>??x?"), Some(bytes("NOTIFY=NEVER?ORCPT=?")))]);
        let changed = said(Reply::ChangeSender { address, parameters });
        assert_eq!(changed, [Said::Text(b'e', bytes("<a@b>??x?"), Some(bytes("NOTIFY=NEVER?ORCPT=?")))]);
        assert_eq!(said(Reply::DeleteRecipient(address)), [Said::Text(b'-', bytes("<a@b>??x?"), None)]);
        assert_eq!(said(Reply::Quarantine(b"a\nb")), [Said::Text(b'q', bytes("a?b"), None)]);
        // No empty second string: Postfix drops the session for one that it does not expect.
        let none = Some(&b""[..]);
        let added = said(Reply::AddRecipient { address: b"<a@b>", parameters: none });
        assert_eq!(added, [Said::Text(b'+', bytes("<a@b>"), None)]);
        let changed = said(Reply::ChangeSender { address: b"<>", parameters: none });
        assert_eq!(changed, [Said::Text(b'e', bytes("<>"), None)]);
    }

    #[test]
    fn what_is_no_refusal_puts_off() {
        assert_eq!(said(Reply::Code("250 ok")), [Said::Plain(b't')]);
        assert_eq!(said(Reply::Code("550 5.7.1 a\nb")), [Said::Code(bytes("550-5.7.1 a\r\n550 5.7.1 b"))]);
    }

    #[test]
    fn what_postfix_takes_for_malformed() {
        for (code, data) in [
            (b'c', &b"x"[..]),
            (b'y', b"550 no"),
            (b'h', b"X\0"),
            (b'h', b"X\0a\0b\0"),
            (b'i', b"\0\0\0"),
            (b'm', b"\0\0\0\x01X\0a"),
            (b'+', b"<a@b>\0NOTIFY=NEVER\0"),
            (b'2', b"<a@b>\0A\0B\0"),
            (b'e', b""),
            (b'q', b"reason"),
            (b'4', b""),
            (b'f', b""),
            (b'O', b""),
        ] {
            let packet = Packet { code, data: Bytes::copy_from_slice(data) };
            assert_eq!(Said::parse(packet), Err(ReplyError(code)), "{data:?}");
        }
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
        fn every_value_is_one_field(
            value in "[ab: \\t\r\n\0]{0,40}",
            filling in (MAX_DATA - 60..MAX_DATA).prop_map(|length| "x".repeat(length)),
        ) {
            for value in [value.clone(), filling + &value] {
                let [Said::Field(_, _, _, written)] = &said(Reply::AddHeader { name: b"X", value: value.as_bytes() })[..]
                else { panic!() };
                prop_assert!(!written.iter().any(|octet| matches!(octet, 0 | b'\r')));
                for end in memchr::memchr_iter(b'\n', written) {
                    prop_assert!(matches!(written.get(end + 1), Some(b' ' | b'\t')), "{:?}", written);
                }
            }
        }

        #[test]
        fn what_is_well_formed_stays_as_it_is(
            name in "[!-9;-~]{1,20}",
            value in " ?[ -~]{0,30}(\n[ \t][ -~]{0,30}){0,3}",
            address in "<[!-~]{0,30}>",
            parameters in "[ -~]{1,30}",
            index: u32,
        ) {
            let (n, v) = (bytes(&name), bytes(&value));
            let inserted = said(Reply::InsertHeader { index, name: &n, value: &v });
            prop_assert_eq!(inserted, [Said::Field(b'i', index, n.clone(), v.clone())]);
            let changed = said(Reply::ChangeHeader { index, name: &n, value: &v });
            prop_assert_eq!(changed, [Said::Field(b'm', index, n, v)]);
            let (a, p) = (bytes(&address), bytes(&parameters));
            let added = said(Reply::AddRecipient { address: &a, parameters: Some(&p) });
            prop_assert_eq!(added, [Said::Text(b'2', a.clone(), Some(p.clone()))]);
            let sender = said(Reply::ChangeSender { address: &a, parameters: Some(&p) });
            prop_assert_eq!(sender, [Said::Text(b'e', a, Some(p))]);
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
