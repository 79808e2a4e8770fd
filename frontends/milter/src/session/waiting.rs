//! A mail whose content is here, until its answer is out and the log has its line.

use std::time::Instant;

use bytes::Bytes;
use checkpost_adapter::Judged;
use checkpost_adapter::report::{Fate, Report};
use checkpost_core::content::header::Header;
use checkpost_core::fit::Answer;
use checkpost_core::{Address, MailId, Origin};

use super::Reports;
use super::message::{Message, Recipient};

/// A header larger than this is not edited, in octets. Postfix bounds a field, but not how many there are.
const MAX_HEADER: usize = 4 << 20;

/// A mail that waits for the engine or for its answer to be written.
pub(super) struct Waiting {
    pub(super) id: MailId,
    pub(super) recipients: Vec<Recipient>,
    pub(super) judged: Option<Box<Judged>>,
    origin: Origin,
    sender: Address,
    refused: Vec<(Address, Fate)>,
    fields: usize,
    header: u64,
    forged: bool,
    size: u64,
    started: Instant,
}

impl Waiting {
    /// What is left of a message, and the end of its content that was not stored.
    pub(super) fn new(message: &mut Message, origin: Origin, now: Instant) -> (Box<Self>, Bytes) {
        let waiting = Self {
            id: message.id,
            recipients: std::mem::take(&mut message.recipients),
            judged: None,
            origin,
            sender: message.sender.clone(),
            refused: std::mem::take(&mut message.refused),
            fields: message.fields,
            header: message.header,
            forged: message.forged,
            size: message.size(),
            started: message.started.unwrap_or(now),
        };
        (Box::new(waiting), std::mem::take(&mut message.content).freeze())
    }

    /// The header, if something in it is to be edited. An error is in the log.
    pub(super) fn header_to_edit(&self, judged: &Judged) -> Result<Option<Header>, ()> {
        let mut handed_on =
            judged.fitted.outcomes.iter().filter(|outcome| outcome.disposition.is_handed_on()).peekable();
        let is_refused = matches!(judged.fitted.answer, Answer::Refuse(_)) || handed_on.peek().is_none();
        if is_refused || !(self.forged || handed_on.any(|outcome| !outcome.edits.is_empty())) {
            return Ok(None);
        }
        let length = usize::try_from(self.header).map_or(MAX_HEADER, |length| length.min(MAX_HEADER));
        let error = match judged.mail.content.prefix(length).map(Header::parse) {
            Ok(header) if header.fields().count() == self.fields => return Ok(Some(header)),
            // An index counted wrong would change another field than was meant.
            Ok(_) => "it does not read as it was shown".to_owned(),
            Err(error) => format!("the spool cannot be read: {error}"),
        };
        tracing::error!(mail = %self.id, error, "the header cannot be edited, so the mail is deferred");
        Err(())
    }

    /// Writes the closing line; a fate for each recipient that was not refused at RCPT.
    pub(super) fn report(self, fates: Vec<Fate>, now: Instant, reports: &mut Reports) {
        let (refused, their_fates): (Vec<Address>, Vec<Fate>) = self.refused.into_iter().unzip();
        let accepted = self.recipients.into_iter().map(|recipient| recipient.address);
        let recipients: Vec<Address> = accepted.chain(refused).collect();
        let fates: Vec<Fate> = fates.into_iter().chain(their_fates).collect();
        reports(Report {
            id: self.id,
            origin: &self.origin,
            sender: &self.sender,
            recipients: &recipients,
            fates: &fates,
            size: self.size,
            judged: self.judged.as_deref(),
            took: now.duration_since(self.started),
        });
    }
}
