//! One mail as it comes in: envelope and content, rebuilt to the byte where the MTA lets us.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use checkpost_adapter::report::Fate;
use checkpost_core::{Address, MailId};
use checkpost_wire::milter::Path;

/// All recipients' octets together: what the count does not bound.
const MAX_ENVELOPE: usize = 4 << 20;
/// A content above this gets room for all that is kept in memory at once, in octets: to double it again and again
/// copies all of it, and the kernel clears each new place. Room that is not written to costs only addresses.
const LARGE: usize = 128 << 10;
/// A header field of this name is forged or from another Checkpost.
const OURS: &[u8] = b"X-Checkpost-";

/// A mail between MAIL and the end of its content.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: MailId,
    pub(super) sender: Address,
    pub(super) recipients: Vec<Recipient>,
    /// Refused at RCPT.
    pub(super) refused: Vec<(Address, Fate)>,
    envelope_octets: usize,
    /// What is not stored.
    pub(super) content: BytesMut,
    /// Octets that were stored.
    pub(super) stored: u64,
    /// Header fields that the MTA has shown.
    pub(super) fields: usize,
    /// Octets of the header, with the empty line, once it has ended.
    pub(super) header: u64,
    /// Is one of them by a name of ours?
    pub(super) forged: bool,
    pub(super) in_body: bool,
    pub(super) started: Option<Instant>,
    pub(super) fault: Option<Fault>,
}

/// A recipient, and what the MTA knows it by.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) raw: Bytes,
    pub(super) address: Address,
}

/// Why a mail cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    TooLarge,
    TooManyRecipients,
    NoRecipients,
    Spool,
}

impl Message {
    pub(super) fn new(sender: &Path) -> Self {
        Self {
            id: MailId::new(),
            sender: address(sender),
            recipients: Vec::new(),
            refused: Vec::new(),
            envelope_octets: 0,
            content: BytesMut::new(),
            stored: 0,
            fields: 0,
            header: 0,
            forged: false,
            in_body: false,
            started: None,
            fault: None,
        }
    }

    pub(super) fn add_recipient(&mut self, path: &Path, limit: usize) {
        self.envelope_octets += path.raw.len();
        if self.recipients.len() >= limit || self.envelope_octets > MAX_ENVELOPE {
            self.fault = Some(Fault::TooManyRecipients);
            return;
        }
        // The packet it is part of may be large: only the address is kept of it.
        let raw = Bytes::copy_from_slice(&path.raw);
        self.recipients.push(Recipient { raw, address: address(path) });
    }

    /// One header field: `name:value`, line ends as on the wire. `spaced`: the value has its leading
    /// blank; else the MTA took one away, and it is put back. (It takes no tab and no line end.)
    pub(super) fn add_field(&mut self, name: &[u8], value: &[u8], spaced: bool, limit: u64) {
        self.fields += 1;
        self.forged |= name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS));
        if !self.has_room(name.len() + value.len() + 4, limit) {
            return;
        }
        self.content.extend_from_slice(name);
        let whole = spaced || matches!(value.first(), Some(b'\t' | b'\n'));
        self.content.extend_from_slice(if whole { b":" } else { b": " });
        for (index, line) in value.split(|octet| *octet == b'\n').enumerate() {
            if index > 0 {
                self.content.extend_from_slice(b"\r\n");
            }
            self.content.extend_from_slice(line);
        }
        self.content.extend_from_slice(b"\r\n");
    }

    /// The empty line, once.
    pub(super) fn end_header(&mut self) {
        if !std::mem::replace(&mut self.in_body, true) {
            self.content.extend_from_slice(b"\r\n");
            self.header = self.size();
        }
    }

    pub(super) fn add_body(&mut self, octets: &[u8], limit: u64) {
        self.end_header();
        if self.has_room(octets.len(), limit) {
            self.content.extend_from_slice(octets);
        }
    }

    /// Makes room for `octets` more, for a content of which up to `held` octets are kept before they are stored.
    pub(super) fn make_room(&mut self, octets: usize, held: usize) {
        let wanted = self.content.len() + octets;
        if wanted > LARGE && wanted > self.content.capacity() {
            let whole = held.saturating_add(octets).max(wanted);
            self.content.reserve(whole - self.content.len());
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.stored + self.content.len() as u64
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.recipients.iter().map(|recipient| recipient.address.clone()).collect()
    }

    fn has_room(&mut self, octets: usize, limit: u64) -> bool {
        if self.fault.is_none() && self.size() + octets as u64 > limit {
            self.fault = Some(Fault::TooLarge);
            self.content = BytesMut::new();
        }
        self.fault.is_none()
    }
}

pub(super) fn address(path: &Path) -> Address {
    Address::new(String::from_utf8_lossy(path.address()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::new(&Path { raw: Bytes::from_static(b"<a@example.org>"), parameters: Vec::new() })
    }

    #[test]
    fn the_content_is_rebuilt_to_the_byte() {
        let mut mail = message();
        mail.add_field(b"Subject", b"  two\n\tfolded", true, 1000);
        mail.add_field(b"X", b"", true, 1000);
        mail.end_header();
        mail.add_body(b"a\r", 1000);
        mail.add_body(b"\nb", 1000);
        assert_eq!(&mail.content[..], b"Subject:  two\r\n\tfolded\r\nX:\r\n\r\na\r\nb");
        let mut old = message();
        old.add_field(b"Subject", b"one", false, 1000);
        old.add_body(b"x", 1000);
        assert_eq!(&old.content[..], b"Subject: one\r\n\r\nx");
        assert!(!old.forged);
        old.add_field(b"x-checkpost-unscanned", b" no", true, 1000);
        assert!(old.forged);
    }

    #[test]
    fn a_large_content_is_moved_once() {
        let mut mail = message();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..19 {
            mail.make_room(1 << 16, 20 << 16);
            mail.add_body(&[b'x'; 1 << 16], u64::MAX);
            places.insert(mail.content.as_ptr());
        }
        // Two at most while it is small, then one.
        assert!(places.len() <= 3 && mail.content.capacity() < 23 << 16, "{places:?}");
    }

    #[test]
    fn what_is_too_much_is_not_kept() {
        let mut mail = message();
        mail.add_body(&[b'x'; 600], 1000);
        mail.add_body(&[b'x'; 600], 1000);
        assert_eq!((mail.fault, mail.content.len()), (Some(Fault::TooLarge), 0));
        let path = Path { raw: Bytes::from_static(b"<b@example.org>"), parameters: Vec::new() };
        (0..5).for_each(|_| mail.add_recipient(&path, 3));
        assert_eq!((mail.fault, mail.recipients.len()), (Some(Fault::TooManyRecipients), 3));
    }
}
