//! From a fitted verdict to milter's packets, in the one order that Sendmail and Postfix both take: header
//! fields, envelope, quarantine, the whole body in one run, and last the decision.
//!
//! It decides nothing. All of it goes out in one write: a mail server that loses us half-way keeps the
//! edits that it has and then does as it is configured for a filter that is down.

use std::collections::{HashMap, HashSet};

use bytes::BytesMut;
use checkpost_core::abilities::{Refusal, Replies};
use checkpost_core::content::header::Header;
use checkpost_core::edit::{Change, Changes};
use checkpost_core::fit::Answer;
use checkpost_core::{Abilities, Address, Disposition, Edit, Fitted, Outcome, Reply as Said};
use checkpost_wire::milter::Reply;

/// What the protocol can do.
pub const MILTER: Abilities = Abilities {
    replies: Replies::PerMessage,
    refusal: Refusal::InSession,
    edit_headers: true,
    edit_body: true,
    add_recipients: true,
    change_sender: true,
    hold: true,
    drop_recipients: true,
    discard: true,
    contents_by_recipient: false,
};

/// Below the Received field of the MTA itself, which is 0 (Postfix cleanup_milter.c, Sendmail's
/// smfi_insheader). What is inserted later at one index stands above what was inserted before.
const TOP: u32 = 1;
/// Behind every field that a header may have; Sendmail takes the largest numbers for the top.
const BOTTOM: u32 = 1_000_000;
/// An archive's trouble is not the sender's: no bounce for a recipient that a rule added.
const ADDED: &[u8] = b"NOTIFY=NEVER";

/// A mail as the MTA knows it.
pub(crate) struct Known<'a> {
    /// The header, when there is something to edit in it.
    pub(crate) header: Option<&'a Header>,
    /// The recipients as the MTA gave them.
    pub(crate) raw: Vec<&'a [u8]>,
    pub(crate) recipients: &'a [Address],
    /// Values begin with their blank (HDR_LEADSPC).
    pub(crate) spaced: bool,
    /// ADDRCPT_PAR was agreed on.
    pub(crate) with_parameters: bool,
    /// See [`crate::Defaults::removes_mailboxes`].
    pub(crate) removes_mailboxes: bool,
}

/// Writes the answer to a mail.
pub(crate) fn write(fitted: &Fitted, known: &Known<'_>, out: &mut BytesMut) {
    if let Answer::Refuse(disposition) = &fitted.answer {
        return refuse(disposition, out);
    }
    let Some(outcome) = fitted.outcomes.iter().find(|outcome| outcome.disposition.is_handed_on()) else {
        return Reply::Discard.encode(out);
    };
    let edits = &*outcome.edits;
    let changes = known.header.map(|header| (header, Changes::new(header, edits)));
    if let Some((header, changes)) = &changes {
        write_fields(header, changes, known.spaced, out);
    }
    let mut removed: Vec<&[u8]> = Vec::new();
    for (raw, outcome) in known.raw.iter().zip(&fitted.outcomes) {
        // One deletion takes away all of the same address, so one that is added comes after it.
        if !outcome.disposition.is_handed_on() && !removed.contains(raw) {
            removed.push(raw);
            Reply::DeleteRecipient(raw).encode(out);
        }
    }
    if known.removes_mailboxes {
        for raw in removed_with_others(fitted, known) {
            Reply::AddRecipient { address: raw, parameters: None }.encode(out);
        }
    }
    for edit in edits {
        match edit {
            Edit::ChangeSender(sender) => {
                Reply::ChangeSender { address: sender.to_string().as_bytes(), parameters: None }.encode(out);
            }
            // Postfix delivers twice to who is added and there already.
            Edit::AddRecipient(to) if !fitted.is_handed_to(to, known.recipients) => {
                let parameters = known.with_parameters.then_some(ADDED);
                Reply::AddRecipient { address: to.to_string().as_bytes(), parameters }.encode(out);
            }
            _ => {}
        }
    }
    if let Disposition::Hold(reason) = &outcome.disposition {
        Reply::Quarantine(reason.as_str().as_bytes()).encode(out);
    }
    if let Some(body) = changes.and_then(|(_, changes)| changes.body) {
        Reply::ReplaceBody(body.octets()).encode(out);
    }
    Reply::Continue.encode(out);
}

/// A refusal in our words.
pub(crate) fn refuse(disposition: &Disposition, out: &mut BytesMut) {
    match disposition.reply() {
        Some(reply) => say(reply, out),
        None => Reply::TempFail.encode(out),
    }
}

pub(crate) fn say(reply: &Said, out: &mut BytesMut) {
    Reply::Code(&reply.to_string()).encode(out);
}

/// The highest index of a name first: after a deletion Postfix counts anew, and Sendmail does not. New
/// fields last, since they would be counted, too.
fn write_fields(header: &Header, changes: &Changes, spaced: bool, out: &mut BytesMut) {
    if changes.is_empty() {
        return;
    }
    let blank = |value: &[u8]| if spaced { [b" ", value].concat() } else { value.to_vec() };
    let mut count: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut fields = Vec::new();
    let mut wanted = changes.fields.iter().peekable();
    for (at, field) in header.fields().enumerate() {
        let index = count.entry(field.name.to_ascii_lowercase()).or_default();
        *index += 1;
        if let Some((_, change)) = wanted.next_if(|(wanted, _)| *wanted == at) {
            fields.push((field.name, *index, change));
        }
    }
    for (name, index, change) in fields.into_iter().rev() {
        let value = match change {
            Change::Remove => Vec::new(),
            Change::Value(value) => blank(value),
        };
        Reply::ChangeHeader { index, name, value: &value }.encode(out);
    }
    let lines = changes.top.iter().rev().map(|line| (TOP, line));
    for (index, line) in lines.chain(changes.bottom.iter().map(|line| (BOTTOM, line))) {
        let value = blank(line.value.as_bytes());
        Reply::InsertHeader { index, name: line.name.as_bytes(), value: &value }.encode(out);
    }
}

/// Who gets the mail and may have been removed with somebody else: `a@one.example` and `a@two.example` are one
/// local mailbox to Sendmail (removefromlist, sameaddr). To add who is there still does nothing there. Others
/// are not added: another filter may have removed them.
fn removed_with_others<'a>(fitted: &Fitted, known: &Known<'a>) -> Vec<&'a [u8]> {
    let user = |address: &Address| address.local().trim_matches('"').to_ascii_lowercase();
    let all = || known.recipients.iter().zip(&fitted.outcomes).zip(&known.raw);
    let gone: HashSet<String> = all()
        .filter(|((_, outcome), _)| !outcome.disposition.is_handed_on())
        .map(|((address, _), _)| user(address))
        .collect();
    let is_kept =
        |address: &Address, outcome: &Outcome| outcome.disposition.is_handed_on() && gone.contains(&user(address));
    all().filter(|((address, outcome), _)| is_kept(address, outcome)).map(|(_, raw)| *raw).collect()
}
