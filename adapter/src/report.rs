//! The closing line of each mail: what became of it for every recipient.

use std::fmt;
use std::time::Duration;

use checkpost_core::edit::HeaderText;
use checkpost_core::fit::Answer;
use checkpost_core::reply::{Deferral, Rejection};
use checkpost_core::{Address, Disposition, MailId, Origin, Outcome};
use checkpost_wire::smtp::reply::PeerReply;

use crate::host::Judged;

/// What became of a mail for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The next hop took it.
    Delivered(PeerReply),
    /// The MTA that asked was told to go on with it.
    Passed,
    /// The MTA that asked was told to keep it in its own quarantine: the reason.
    Held(HeaderText),
    /// The next hop refused it (or we did, before it was judged), for good or for now.
    Answered(PeerReply),
    /// Policy refused it.
    Rejected(Rejection),
    /// Policy deferred it.
    Deferred(Deferral),
    /// Taken and handed to nobody.
    Discarded,
    /// Taken, handed to nobody, and a copy is kept.
    Quarantined,
    /// It did not come to handing it on: the sender tries again.
    NotHandedOn(&'static str),
    /// Handed on whole, but the answer was lost: the sender tries again, and it may come twice.
    Unknown,
}

impl Fate {
    /// What becomes of each recipient, where an MTA asks and carries out what it is told.
    pub fn all(judged: &Judged) -> Vec<Self> {
        let one = |outcome: &Outcome| {
            let disposition = match &judged.fitted.answer {
                Answer::Refuse(disposition) => disposition,
                _ => &outcome.disposition,
            };
            match disposition {
                Disposition::Discard if outcome.quarantine => Self::Quarantined,
                disposition => Self::of(disposition),
            }
        };
        judged.fitted.outcomes.iter().map(one).collect()
    }

    /// What becomes of a recipient of this disposition, likewise.
    pub fn of(disposition: &Disposition) -> Self {
        match disposition {
            Disposition::Deliver => Self::Passed,
            Disposition::Hold(reason) => Self::Held(reason.clone()),
            Disposition::Reject(rejection) => Self::Rejected(rejection.clone()),
            Disposition::Defer(deferral) => Self::Deferred(deferral.clone()),
            Disposition::Discard => Self::Discarded,
        }
    }

    /// Is the sender told to try again?
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Answered(reply) => reply.is_transient(),
            Self::Deferred(_) | Self::NotHandedOn(_) | Self::Unknown => true,
            _ => false,
        }
    }

    /// Is the sender told that it is refused for good?
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Answered(reply) => reply.is_permanent(),
            Self::Rejected(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(reply) => write!(f, "delivered ({} {})", reply.code, reply.text()),
            Self::Passed => f.write_str("passed"),
            Self::Held(reason) => write!(f, "held ({})", reason.as_str()),
            Self::Answered(reply) => write!(f, "refused ({} {})", reply.code, reply.text()),
            Self::Rejected(rejection) => write!(f, "rejected ({rejection})"),
            Self::Deferred(deferral) => write!(f, "deferred ({deferral})"),
            Self::Discarded => f.write_str("discarded"),
            Self::Quarantined => f.write_str("quarantined"),
            Self::NotHandedOn(why) => write!(f, "deferred (not handed on: {why})"),
            Self::Unknown => f.write_str("deferred (handed on, but the answer was lost: may come twice)"),
        }
    }
}

/// All that the closing line says.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The mail's id.
    pub id: MailId,
    /// Where it came from.
    pub origin: &'a Origin,
    /// The envelope's sender.
    pub sender: &'a Address,
    /// The recipients that were accepted before the content came.
    pub recipients: &'a [Address],
    /// One for each of them.
    pub fates: &'a [Fate],
    /// Octets.
    pub size: u64,
    /// Findings and step-downs, when it came to that.
    pub judged: Option<&'a Judged>,
    /// From the first byte of the content to the answer.
    pub took: Duration,
}

impl Report<'_> {
    /// Writes the line to the log.
    pub fn log(&self) {
        let findings = self.judged.map(|judged| list(judged.verdict.findings.iter())).unwrap_or_default();
        let losses = self.judged.map(|judged| list(judged.fitted.losses.iter())).unwrap_or_default();
        let rules: Vec<&str> = self.judged.map(rules).unwrap_or_default();
        tracing::info!(
            mail = %self.id,
            way = %self.origin.way,
            origin = %self.origin.class,
            client = self.origin.client.map(tracing::field::display),
            user = self.origin.user.as_deref(),
            queue_id = self.origin.queue_id.as_deref(),
            sender = %self.sender,
            fates = %list(self.recipients.iter().zip(self.fates).map(|(to, fate)| format!("{to} {fate}"))),
            size = self.size,
            findings = (!findings.is_empty()).then_some(&*findings),
            rules = (!rules.is_empty()).then(|| rules.join(",")),
            stepped_down = (!losses.is_empty()).then_some(&*losses),
            ms = self.took.as_millis() as u64,
            "mail done"
        );
    }
}

fn rules(judged: &Judged) -> Vec<&str> {
    let mut rules: Vec<&str> = judged.fitted.outcomes.iter().filter_map(|outcome| outcome.rule.as_deref()).collect();
    rules.dedup();
    rules
}

fn list<T: fmt::Display>(items: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for item in items {
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{item}"));
    }
    text
}
