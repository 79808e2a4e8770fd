//! What is written about a kept mail: the JSON beside its bytes.
//! Not a protocol: readers ignore fields that they do not know, and none is ever renamed.

use std::sync::Arc;
use std::time::SystemTime;

use checkpost_wire::smtp::received::rfc3339;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::fit::Fitted;
use crate::mail::{Mail, Origin, OriginClass};
use crate::verdict::{Disposition, Verdict};

/// The record of one kept mail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// The version of this form: 1.
    pub format: u32,
    /// The mail's id, as in every log line about it.
    pub id: String,
    /// When it was kept: RFC 3339, UTC, `2026-11-24T14:03:26.500Z`.
    pub time: String,
    /// The way in, by its name in the configuration.
    pub way: String,
    /// Where it came from.
    pub origin: OriginRecord,
    /// The envelope's sender; empty for the null sender.
    pub sender: String,
    /// The envelope's recipients in their order, and what became of each.
    pub recipients: Vec<RecipientRecord>,
    /// What the filters found.
    pub findings: Vec<FindingRecord>,
    /// The mail's score before rules added to it.
    pub score: f32,
    /// What this way could not do for the mail as a whole, and what was done instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
    /// Octets of the mail.
    pub octets: u64,
}

/// Where a kept mail came from; see [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OriginRecord {
    /// Inbound, submission, internal.
    pub class: OriginClass,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<std::net::IpAddr>,
    /// The client's host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// What it said at HELO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The authenticated user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Did it come over TLS?
    pub tls: bool,
    /// The MTA's queue id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<String>,
}

/// A recipient, and what was done for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecipientRecord {
    /// As the envelope has it.
    pub address: String,
    /// What this way was to do: `deliver`, `reject`, `defer`, `discard`, `hold`.
    pub outcome: String,
    /// What policy wanted, where this way could not do it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// The reply's text, for a rejection or a deferral.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Is the copy kept for this recipient?
    pub quarantine: bool,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The changes made for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<String>,
    /// What this way could not do for it, and what was done instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
}

/// One finding; see [`Finding`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FindingRecord {
    /// As rules write it.
    pub kind: String,
    /// The finer class.
    pub class: String,
    /// The signature's or rule's name, as the filter gave it: may hold anything.
    pub name: String,
    /// Who found it.
    pub filter: String,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Points, for spam.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

impl Entry {
    /// The record of a mail kept at this time.
    pub fn new(mail: &Mail, verdict: &Verdict, fitted: &Fitted, time: SystemTime) -> Self {
        let losses_of = |recipient: Option<usize>| {
            fitted.losses.iter().filter(|loss| loss.recipient == recipient).map(ToString::to_string).collect()
        };
        let recipients = mail.envelope.recipients.iter().enumerate().map(|(index, address)| {
            let wanted = verdict.outcomes.get(index).map(|outcome| &outcome.disposition);
            let outcome = fitted.outcomes.get(index);
            let done = outcome.map(|outcome| &outcome.disposition);
            RecipientRecord {
                address: address.as_str().to_owned(),
                outcome: done.map_or("unknown", Disposition::as_str).to_owned(),
                wanted: wanted.filter(|wanted| Some(*wanted) != done).map(|wanted| wanted.as_str().to_owned()),
                reply: done.and_then(Disposition::reply).map(ToString::to_string),
                quarantine: outcome.is_some_and(|outcome| outcome.quarantine),
                rule: outcome.and_then(|outcome| outcome.rule.as_deref().map(str::to_owned)),
                edits: outcome.iter().flat_map(|outcome| outcome.edits.iter().map(ToString::to_string)).collect(),
                losses: losses_of(Some(index)),
            }
        });
        Self {
            format: 1,
            id: mail.id.to_string(),
            time: rfc3339(time),
            way: mail.origin.way.to_string(),
            origin: OriginRecord::from(&mail.origin),
            sender: mail.envelope.sender.as_str().to_owned(),
            recipients: recipients.collect(),
            findings: verdict.findings.iter().map(FindingRecord::from).collect(),
            score: finite(verdict.score),
            losses: losses_of(None),
            octets: mail.content.len(),
        }
    }
}

impl From<&Origin> for OriginRecord {
    fn from(origin: &Origin) -> Self {
        Self {
            class: origin.class,
            client: origin.client,
            client_name: origin.client_name.as_deref().map(str::to_owned),
            helo: origin.helo.as_deref().map(str::to_owned),
            user: origin.user.as_deref().map(str::to_owned),
            tls: origin.tls,
            queue_id: origin.queue_id.as_deref().map(str::to_owned),
        }
    }
}

impl From<&Finding> for FindingRecord {
    fn from(finding: &Finding) -> Self {
        let Finding { kind, class, name, filter, part, detail } = finding;
        let spam = matches!(kind, crate::finding::Kind::Spam { .. });
        Self {
            kind: kind.as_str().to_owned(),
            class: text(class),
            name: name.to_string(),
            filter: text(filter),
            part: part.as_deref().map(str::to_owned),
            detail: detail.as_deref().map(str::to_owned),
            score: spam.then(|| finite(finding.score())),
        }
    }
}

fn text(shared: &Arc<str>) -> String {
    shared.to_string()
}

/// JSON has no other numbers: an infinite one would be written as null and not be read back.
fn finite(score: f32) -> f32 {
    if score.is_finite() { score } else { 0.0 }
}
