//! What `checkpost check` and `explain` tell of one message. It decides nothing: it puts the engine's
//! verdict into words, as data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpost_adapter::Way;
use checkpost_core::fit::Answer;
use checkpost_core::{
    Address, Content, Disposition, Engine, Envelope, Finding, Kind, Mail, MailId, Origin, OriginClass, Outcome, fit,
};
use serde::{Deserialize, Serialize};

/// Envelope and origin to check a message with. What is left out is as for a mail from outside with a
/// null sender and one recipient, `postmaster`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Circumstances {
    /// Envelope sender; empty: the null sender.
    pub sender: String,
    /// Envelope recipients.
    pub recipients: Vec<String>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// What the client said at HELO.
    pub helo: Option<String>,
    /// The authenticated user.
    pub user: Option<String>,
    /// Inbound, submission or internal.
    pub origin: Option<OriginClass>,
    /// The name of the way in.
    pub way: Option<String>,
}

/// One message, judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The id of this check, in the daemon's log too.
    pub mail: String,
    /// In one word.
    pub outlook: Outlook,
    /// For each recipient.
    pub outcomes: Vec<RecipientOutcome>,
    /// What the filters found.
    pub findings: Vec<FindingReport>,
    /// The mail's score before rules added to it.
    pub score: f32,
    /// Octets of the message, CRLF line ends.
    pub octets: u64,
    /// How long the check took, in milliseconds.
    pub took_ms: u64,
    /// `explain` only: every rule tried, and why it held or not, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// `explain` only: what each enabled way in would make of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<WayOutcome>,
}

/// A message in one word; the exit codes 0, 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outlook {
    /// Every recipient gets it, as it is.
    Deliverable,
    /// For some recipient it would be refused, put off, discarded or changed.
    RefusedOrChanged,
    /// A filter could not look, and so it would be put off.
    NotJudged,
}

/// What one recipient gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientOutcome {
    /// Who.
    pub recipient: String,
    /// `deliver`, `reject`, `defer`, `discard` or `hold`.
    pub disposition: String,
    /// The reply of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// Changes on the way to this recipient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<String>,
    /// Is a copy kept?
    pub quarantine: bool,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FindingReport {
    /// As in rules.
    pub kind: String,
    /// As in rules.
    pub class: String,
    /// The signature, symbol, rule or reason.
    pub name: String,
    /// Who found it.
    pub filter: String,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// More.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// What a way in would make of the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOutcome {
    /// Its name.
    pub way: String,
    /// Its kind.
    pub kind: String,
    /// What the sending system is told.
    pub answer: String,
    /// What had to be stepped down, and to what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<String>,
}

/// Has the engine check a message and puts the verdict into words; `explain` adds the trace and what
/// the ways would make of it.
pub async fn examine(
    engine: &Engine,
    ways: &[Arc<dyn Way>],
    circumstances: &Circumstances,
    content: Content,
    within: Duration,
    explain: bool,
) -> Report {
    let mail = circumstances.mail(content);
    let start = Instant::now();
    let (verdict, trace) = if explain {
        let (verdict, trace) = engine.explain(&mail, start + within).await;
        (verdict, Some(trace.to_string()))
    } else {
        (engine.check(&mail, start + within).await, None)
    };
    let asked = |way: &&Arc<dyn Way>| circumstances.way.as_deref().is_none_or(|name| name == &**way.name());
    let ways = ways.iter().filter(|way| explain && asked(way)).map(|way| {
        let fitted = fit(&mail, &verdict, &way.abilities());
        let told = |loss: &checkpost_core::fit::Loss| match loss.recipient.and_then(|i| mail.envelope.recipients.get(i))
        {
            Some(recipient) => format!("{recipient}: {loss}"),
            None => loss.to_string(),
        };
        WayOutcome {
            way: way.name().to_string(),
            kind: way.kind().name.to_owned(),
            answer: match &fitted.answer {
                Answer::ByRecipient => "one answer for each recipient".to_owned(),
                Answer::Accept => "accepted".to_owned(),
                Answer::Refuse(disposition) => disposition.reply().map(ToString::to_string).unwrap_or_default(),
            },
            losses: fitted.losses.iter().map(told).collect(),
        }
    });
    let ways = ways.collect();
    let to = mail.envelope.recipients.iter().zip(&verdict.outcomes);
    Report {
        mail: mail.id.to_string(),
        outlook: Outlook::of(&verdict.outcomes, &verdict.findings),
        outcomes: to.map(|(recipient, outcome)| RecipientOutcome::new(recipient, outcome)).collect(),
        findings: verdict.findings.iter().map(FindingReport::from).collect(),
        // An empty sum is -0.0.
        score: verdict.score + 0.0,
        octets: mail.content.len(),
        took_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        trace,
        ways,
    }
}

impl Circumstances {
    fn mail(&self, content: Content) -> Mail {
        let recipients: Vec<Address> = match &*self.recipients {
            [] => vec!["postmaster".into()],
            given => given.iter().map(|recipient| Address::from(&**recipient)).collect(),
        };
        let mut origin = Origin::inbound(self.way.as_deref().unwrap_or("check"));
        origin.class = self.origin.unwrap_or(OriginClass::Inbound);
        origin.client = self.client;
        origin.helo = self.helo.as_deref().map(Into::into);
        origin.user = self.user.as_deref().map(Into::into);
        Mail {
            id: MailId::new(),
            envelope: Envelope { sender: Address::from(&*self.sender), recipients },
            origin,
            content,
        }
    }
}

impl Outlook {
    /// Deferred while some filter did not look counts as not judged.
    pub fn of(outcomes: &[Outcome], findings: &[Finding]) -> Self {
        let unscanned = findings.iter().any(|finding| matches!(finding.kind, Kind::Unscanned(_)));
        let one = |outcome: &Outcome| match outcome.disposition {
            Disposition::Defer(_) if unscanned => Self::NotJudged,
            Disposition::Deliver if outcome.edits.is_empty() => Self::Deliverable,
            _ => Self::RefusedOrChanged,
        };
        outcomes.iter().map(one).max().unwrap_or(Self::Deliverable)
    }

    /// The exit code of `checkpost check`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Deliverable => 0,
            Self::RefusedOrChanged => 1,
            Self::NotJudged => 2,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deliverable => "deliverable",
            Self::RefusedOrChanged => "would be refused or changed",
            Self::NotJudged => "could not be judged",
        }
    }
}

impl RecipientOutcome {
    fn new(recipient: &Address, outcome: &Outcome) -> Self {
        Self {
            recipient: recipient.as_str().to_owned(),
            disposition: outcome.disposition.as_str().to_owned(),
            reply: outcome.disposition.reply().map(ToString::to_string),
            edits: outcome.edits.iter().map(ToString::to_string).collect(),
            quarantine: outcome.quarantine,
            rule: outcome.rule.as_deref().map(str::to_owned),
        }
    }
}

impl From<&Finding> for FindingReport {
    fn from(finding: &Finding) -> Self {
        Self {
            kind: finding.kind.as_str().to_owned(),
            class: finding.class.to_string(),
            name: finding.name.to_string(),
            filter: finding.filter.to_string(),
            part: finding.part.as_deref().map(str::to_owned),
            detail: finding.detail.as_deref().map(str::to_owned),
            score: matches!(finding.kind, Kind::Spam { .. }).then(|| finding.score()),
        }
    }
}

#[cfg(test)]
mod tests {
    use checkpost_core::finding::Unscanned;
    use checkpost_core::{Deferral, Rejection};

    use super::*;

    #[test]
    fn the_worst_outcome_gives_the_exit_code() {
        let filter: Arc<str> = "clamd".into();
        let unscanned = [Finding::unscanned(&filter, Unscanned::Timeout, Duration::ZERO, "")];
        let deliver = Outcome::deliver();
        let defer = Outcome::defer(Deferral::unchecked(), "r");
        let reject =
            Outcome { disposition: Disposition::Reject(Rejection::parse("no").unwrap()), ..Outcome::deliver() };
        let check = |outcomes: &[&Outcome], findings: &[Finding], expected| {
            let outcomes: Vec<_> = outcomes.iter().copied().cloned().collect();
            assert_eq!(Outlook::of(&outcomes, findings).exit_code(), expected, "{outcomes:?}");
        };
        check(&[&deliver], &[], 0);
        check(&[&deliver], &unscanned, 0);
        check(&[&deliver, &reject], &[], 1);
        check(&[&defer], &[], 1);
        check(&[&reject], &unscanned, 1);
        check(&[&reject, &defer], &unscanned, 2);
    }
}
