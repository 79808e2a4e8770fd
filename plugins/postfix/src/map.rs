//! What Postfix can be told: the abilities of its four ways in.

use checkpost_core::Abilities;
use checkpost_core::abilities::{Refusal, Replies};

/// All of the protocol (MILTER_README); a held mail goes to the `hold` queue.
pub(crate) const MILTER: Abilities = checkpost_milter::MILTER;

/// The reply to the final dot goes to smtpd's client verbatim.
pub(crate) const BEFORE_QUEUE: Abilities = checkpost_smtp::SMTP;

/// A 5xx makes Postfix bounce, a 4xx keeps the mail in its queue.
pub(crate) const AFTER_QUEUE: Abilities = Abilities { refusal: Refusal::Bounces, ..checkpost_smtp::SMTP };

/// The program's exit code is for all recipients of a mail, and a refusal is a bounce (pipe(8)).
pub(crate) const PIPE: Abilities = Abilities {
    replies: Replies::PerMessage,
    refusal: Refusal::Bounces,
    edit_headers: true,
    edit_body: true,
    add_recipients: true,
    change_sender: true,
    hold: false,
    discard: true,
    drop_recipients: true,
    contents_by_recipient: true,
};
