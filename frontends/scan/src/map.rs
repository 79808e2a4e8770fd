//! From a verdict to what all three protocols have of it: may it pass, why not, its score, what was found.
//!
//! It decides nothing: `fit` has made of the verdict what the way can say.

use checkpost_adapter::Judged;
use checkpost_core::edit::HeaderText;
use checkpost_core::finding::Kind;
use checkpost_core::fit::Answer;
use checkpost_core::{Deferral, Disposition, Edit, Finding, Rejection};
use checkpost_wire::spamd::{Tenths, Verdict};

/// So many findings are told. A hundred thousand parts may have one each.
const MOST: usize = 100;

/// The answer for the whole mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Gate<'a> {
    /// It may pass.
    Pass,
    /// Refuse it for good.
    Refuse(&'a Rejection),
    /// Refuse it for now.
    Later(Deferral),
    /// Take it, and nobody gets it.
    Discard,
    /// Keep it in the mail server's own quarantine.
    Hold(&'a HeaderText),
}

/// May it pass?
pub(crate) fn gate(judged: &Judged) -> Gate<'_> {
    let fitted = &judged.fitted;
    match &fitted.answer {
        Answer::Refuse(Disposition::Reject(rejection)) => Gate::Refuse(rejection),
        Answer::Refuse(Disposition::Defer(deferral)) => Gate::Later(deferral.clone()),
        Answer::Accept => {
            let mut all = fitted.outcomes.iter().map(|outcome| &outcome.disposition);
            let Some(first) = all.next() else { return Gate::Later(Deferral::local_problem()) };
            // One word stands for all. `fit` has seen to it that it can; if not, it must not become "pass".
            match first {
                Disposition::Deliver if all.all(|other| other == first) => Gate::Pass,
                Disposition::Discard if all.all(|other| other == first) => Gate::Discard,
                Disposition::Hold(reason) if all.all(|other| matches!(other, Disposition::Hold(_))) => {
                    Gate::Hold(reason)
                }
                _ => Gate::Later(Deferral::local_problem()),
            }
        }
        _ => Gate::Later(Deferral::local_problem()),
    }
}

/// The edits that everybody gets.
pub(crate) fn edits(judged: &Judged) -> &[Edit] {
    let first = judged.fitted.outcomes.iter().find(|outcome| outcome.disposition.is_handed_on());
    first.map_or(&[], |outcome| &outcome.edits)
}

/// What a refused mail is called, for who wants one word: the worst that was found, else the rule.
pub(crate) fn name(judged: &Judged) -> String {
    let rank = |finding: &&Finding| match finding.kind {
        Kind::Malware => 0,
        Kind::Phishing => 1,
        Kind::Policy => 2,
        Kind::Encrypted => 3,
        Kind::Limit => 4,
        Kind::Spam { score } if score > 0.0 => 5,
        _ => 9,
    };
    let worst = judged.verdict.findings.iter().min_by_key(rank).filter(|finding| rank(finding) < 9);
    match worst {
        Some(finding) if matches!(finding.kind, Kind::Spam { .. }) => format!("Checkpost.Spam.{}", finding.name),
        Some(finding) => finding.name.to_string(),
        None => {
            let rule = judged.fitted.outcomes.iter().find_map(|outcome| outcome.rule.as_deref());
            format!("Checkpost.Rule.{}", rule.unwrap_or("none").replace(' ', "-"))
        }
    }
}

/// Spam or not, and scores that fit it: clients compare them, and some look at nothing else. Rules decide, not the score,
/// so a refused mail has at least the score that makes spam, and one that may pass has less.
pub(crate) fn score(judged: &Judged, pass: bool, threshold: Tenths) -> Verdict {
    let tenths = (judged.verdict.score * 10.0).clamp(-1e6, 1e6).round();
    // A score that is no number becomes 0.
    let said = Tenths(tenths as i32);
    let score = if pass { said.min(Tenths(threshold.0 - 1)) } else { said.max(threshold) };
    Verdict { spam: !pass, score, threshold }
}

/// Something found, as the protocols of spam filters have it.
pub(crate) struct Symbol {
    /// One word of printable ASCII.
    pub(crate) name: String,
    /// Its part of the score.
    pub(crate) score: Tenths,
    /// Filter, kind and place.
    pub(crate) options: Vec<String>,
}

/// What was found, the most of it.
pub(crate) fn symbols(judged: &Judged) -> Vec<Symbol> {
    judged.verdict.findings.iter().take(MOST).map(symbol).collect()
}

fn symbol(finding: &Finding) -> Symbol {
    let word = |text: &str| -> String {
        text.chars()
            .take(120)
            .map(|c| if c.is_ascii_graphic() && !matches!(c, ',' | '(' | ')') { c } else { '_' })
            .collect()
    };
    let mut options = vec![word(&finding.filter), finding.kind.as_str().to_owned()];
    options.extend(finding.part.as_deref().map(word));
    let name = word(&finding.name);
    Symbol {
        name: if name.is_empty() { "UNNAMED".into() } else { name },
        score: Tenths((finding.score() * 10.0).clamp(-1e6, 1e6).round() as i32),
        options,
    }
}
