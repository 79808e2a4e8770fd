//! What a mail server offers at the beginning of a connection, and what a filter takes of it.

use bitflags::bitflags;
use bytes::{Bytes, BytesMut};

use super::frame::write_packet;

bitflags! {
    /// What a filter may do to a mail. Bits without a name are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Actions: u32 {
        /// Add and insert header fields (`SMFIF_ADDHDRS`).
        const ADD_HEADERS = 0x1;
        /// Replace the body (`SMFIF_CHGBODY`).
        const CHANGE_BODY = 0x2;
        /// Add recipients (`SMFIF_ADDRCPT`).
        const ADD_RECIPIENTS = 0x4;
        /// Remove recipients (`SMFIF_DELRCPT`).
        const DELETE_RECIPIENTS = 0x8;
        /// Change and delete header fields (`SMFIF_CHGHDRS`).
        const CHANGE_HEADERS = 0x10;
        /// Have the mail held (`SMFIF_QUARANTINE`).
        const QUARANTINE = 0x20;
        /// Change the envelope's sender (`SMFIF_CHGFROM`).
        const CHANGE_SENDER = 0x40;
        /// Add recipients with ESMTP parameters (`SMFIF_ADDRCPT_PAR`).
        const ADD_RECIPIENTS_WITH_PARAMETERS = 0x80;
        /// Say which macros are wanted (`SMFIF_SETSYMLIST`).
        const SET_MACROS = 0x100;
    }

    /// What is not sent, what is not answered, and what else is understood. Bits without a name are kept.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Steps: u32 {
        /// CONNECT is not sent (`SMFIP_NOCONNECT`).
        const NO_CONNECT = 0x1;
        /// HELO is not sent (`SMFIP_NOHELO`).
        const NO_HELO = 0x2;
        /// MAIL is not sent (`SMFIP_NOMAIL`).
        const NO_MAIL = 0x4;
        /// RCPT is not sent (`SMFIP_NORCPT`).
        const NO_RECIPIENT = 0x8;
        /// The body is not sent (`SMFIP_NOBODY`).
        const NO_BODY = 0x10;
        /// Header fields are not sent (`SMFIP_NOHDRS`).
        const NO_HEADERS = 0x20;
        /// The end of the header is not sent (`SMFIP_NOEOH`).
        const NO_END_OF_HEADER = 0x40;
        /// A header field is not answered (`SMFIP_NR_HDR`).
        const SILENT_HEADERS = 0x80;
        /// Unknown SMTP commands are not sent (`SMFIP_NOUNKNOWN`).
        const NO_UNKNOWN = 0x100;
        /// DATA is not sent (`SMFIP_NODATA`).
        const NO_DATA = 0x200;
        /// The filter may say SKIP (`SMFIP_SKIP`).
        const SKIP = 0x400;
        /// Recipients that the mail server refused are sent, too (`SMFIP_RCPT_REJ`).
        const REJECTED_RECIPIENTS = 0x800;
        /// CONNECT is not answered (`SMFIP_NR_CONN`).
        const SILENT_CONNECT = 0x1000;
        /// HELO is not answered (`SMFIP_NR_HELO`).
        const SILENT_HELO = 0x2000;
        /// MAIL is not answered (`SMFIP_NR_MAIL`).
        const SILENT_MAIL = 0x4000;
        /// RCPT is not answered (`SMFIP_NR_RCPT`).
        const SILENT_RECIPIENT = 0x8000;
        /// DATA is not answered (`SMFIP_NR_DATA`).
        const SILENT_DATA = 0x1_0000;
        /// Unknown SMTP commands are not answered (`SMFIP_NR_UNKN`).
        const SILENT_UNKNOWN = 0x2_0000;
        /// The end of the header is not answered (`SMFIP_NR_EOH`).
        const SILENT_END_OF_HEADER = 0x4_0000;
        /// A piece of the body is not answered (`SMFIP_NR_BODY`).
        const SILENT_BODY = 0x8_0000;
        /// Header values keep their leading blank, in both directions (`SMFIP_HDR_LEADSPC`).
        const LEADING_SPACE = 0x10_0000;
        /// Packets of up to 256 KiB (`SMFIP_MDS_256K`).
        const MDS_256K = 0x1000_0000;
        /// Packets of up to 1 MiB (`SMFIP_MDS_1M`).
        const MDS_1M = 0x2000_0000;
    }
}

/// What the mail server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Of the protocol.
    pub version: u32,
    /// As sent; see [`Offer::effective`].
    pub actions: Actions,
    /// As sent; see [`Offer::effective`].
    pub steps: Steps,
}

/// What the filter takes of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// At most what was offered.
    pub version: u32,
    /// Nothing but what was offered: both mail servers drop a filter that takes more.
    pub actions: Actions,
    /// Nothing but what was offered: Sendmail drops a filter that takes more.
    pub steps: Steps,
    /// The macros wanted at a stage: names with their braces, with blanks between; at most 50 for each
    /// stage (libmilter/docs/smfi_setsymlist.html).
    pub macros: Vec<(Stage, String)>,
}

/// When macros are sent, by the numbers of `SMFIM_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// `SMFIM_CONNECT`.
    Connect = 0,
    /// `SMFIM_HELO`.
    Helo = 1,
    /// `SMFIM_ENVFROM`.
    Sender = 2,
    /// `SMFIM_ENVRCPT`.
    Recipient = 3,
    /// `SMFIM_DATA`.
    Data = 4,
    /// `SMFIM_EOM`.
    EndOfMessage = 5,
    /// `SMFIM_EOH`.
    EndOfHeader = 6,
}

impl Stage {
    /// All, by number.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Helo, Self::Sender, Self::Recipient, Self::Data, Self::EndOfMessage, Self::EndOfHeader];
}

impl Offer {
    /// Zeros stand for what version 1 had (engine.c, `st_optionneg`).
    #[must_use]
    pub fn effective(self) -> Self {
        Self {
            version: self.version,
            actions: if self.actions.is_empty() { Actions::from_bits_retain(0x0f) } else { self.actions },
            steps: if self.steps.is_empty() { Steps::from_bits_retain(0x3f) } else { self.steps },
        }
    }

    /// More octets than twelve are let pass. `None`: fewer.
    pub(super) fn parse(data: &Bytes) -> Option<Self> {
        let (version, actions, steps) = numbers(data)?;
        Some(Self { version, actions: Actions::from_bits_retain(actions), steps: Steps::from_bits_retain(steps) })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let Self { version, actions, steps } = self;
        write_packet(b'O', &[&three(*version, actions.bits(), steps.bits())], out);
    }
}

impl Choice {
    /// Writes the answer to an offer.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut data = three(self.version, self.actions.bits(), self.steps.bits()).to_vec();
        for (stage, names) in &self.macros {
            data.extend_from_slice(&(*stage as u32).to_be_bytes());
            data.extend(names.bytes().filter(|octet| *octet != 0));
            data.push(0);
        }
        write_packet(b'O', &[&data], out);
    }

    /// Reads the data of such an answer, as a mail server does. `None`: it is none.
    pub fn parse(data: &Bytes) -> Option<Self> {
        let (version, actions, steps) = numbers(data)?;
        let mut rest = data.get(12..)?;
        let mut macros = Vec::new();
        while let Some((number, tail)) = rest.split_first_chunk::<4>() {
            let number = u32::from_be_bytes(*number);
            let end = memchr::memchr(0, tail)?;
            let names = std::str::from_utf8(&tail[..end]).ok()?;
            // Postfix skips a stage that it does not know.
            macros.extend(Stage::ALL.get(number as usize).map(|stage| (*stage, names.to_owned())));
            rest = &tail[end + 1..];
        }
        rest.is_empty().then(|| Self {
            version,
            actions: Actions::from_bits_retain(actions),
            steps: Steps::from_bits_retain(steps),
            macros,
        })
    }
}

fn numbers(data: &[u8]) -> Option<(u32, u32, u32)> {
    let number = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk::<4>()?));
    Some((number(0)?, number(4)?, number(8)?))
}

fn three(first: u32, second: u32, third: u32) -> [u8; 12] {
    let mut data = [0; 12];
    data[..4].copy_from_slice(&first.to_be_bytes());
    data[4..8].copy_from_slice(&second.to_be_bytes());
    data[8..].copy_from_slice(&third.to_be_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::super::take_packet;
    use super::*;

    #[test]
    fn the_answer_is_read_back() {
        let choice = Choice {
            version: 6,
            actions: Actions::ADD_HEADERS | Actions::SET_MACROS,
            steps: Steps::NO_UNKNOWN | Steps::LEADING_SPACE,
            macros: vec![(Stage::Sender, "i {auth_authen}".into()), (Stage::EndOfHeader, String::new())],
        };
        let mut out = BytesMut::new();
        choice.encode(&mut out);
        assert_eq!(out[4..17], [b'O', 0, 0, 0, 6, 0, 0, 1, 1, 0, 0x10, 1, 0]);
        assert_eq!(&out[17..], b"\0\0\0\x02i {auth_authen}\0\0\0\0\x06\0");
        let packet = take_packet(&mut out, 1000).unwrap().unwrap();
        assert_eq!(Choice::parse(&packet.data), Some(choice));
        for wrong in [&[0; 11][..], &[0; 13], b"123412341234\0\0\0\x02i"] {
            assert_eq!(Choice::parse(&Bytes::copy_from_slice(wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn all_that_has_a_name_is_what_mail_servers_offer_today() {
        assert_eq!(Actions::all().bits(), 0x1FF);
        assert_eq!(Steps::all().bits(), 0x1F_FFFF | 0x3000_0000);
        // Postfix and Sendmail; Postfix with milter_protocol=2; bits that nobody knows yet.
        for (data, offer) in [
            (&b"\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"[..], (6, 0x1FF, 0x1F_FFFF)),
            (b"\0\0\0\x02\0\0\x01\xff\0\0\0\x7f", (2, 0x1FF, 0x7F)),
            (b"\0\0\0\x07\xff\0\0\0\xc0\0\0\0more", (7, 0xFF00_0000, 0xC000_0000)),
        ] {
            let read = Offer::parse(&Bytes::from_static(data)).map(|o| (o.version, o.actions.bits(), o.steps.bits()));
            assert_eq!(read, Some(offer));
        }
        assert_eq!(Offer::parse(&Bytes::from_static(&[0; 11])), None);
    }

    #[test]
    fn zeros_are_version_ones_defaults() {
        let offer = Offer { version: 2, actions: Actions::empty(), steps: Steps::empty() }.effective();
        assert_eq!((offer.actions.bits(), offer.steps.bits()), (0x0f, 0x3f));
    }
}
