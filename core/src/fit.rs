//! From what policy wants to what a way in can do: one pure function, so that every way steps down
//! alike and says what was lost.
//!
//! The order of preference, when one answer must serve recipients of different outcomes:
//! 1. anyone deferred: all are deferred, nobody gets the mail twice, nobody loses it;
//! 2. anyone delivered (or held): the answer is "accepted"; who was to be refused does not get the mail, and a
//!    copy is kept in quarantine, since nobody is told;
//! 3. anyone refused: the refusal (nobody gets the mail, so it is true for all);
//! 4. all discarded: "accepted"; where that would be taken for "deliver it", refused.
//!
//! A mail that is to be held in the MTA's own quarantine counts as delivered; where the MTA cannot hold
//! it, or others get it, a copy is kept in ours and nobody gets it.
//!
//! Where the body was to be replaced and cannot be (for all who get the mail alike), a copy is kept and
//! nobody gets it: the old body may be what must not be delivered.
//!
//! Where a refusal makes the MTA bounce, it is passed on only when the bounce is safe: an
//! authenticated sender, not null, no malware. Else a copy is kept and nobody is told.

use std::fmt;
use std::sync::Arc;

use crate::abilities::{Abilities, Refusal, Replies};
use crate::edit::Edit;
use crate::finding::Kind;
use crate::mail::{Address, Mail, OriginClass};
use crate::reply::{Deferral, Rejection};
use crate::verdict::{Disposition, Outcome, Verdict};

/// What a way in is to do, all of it within its abilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// One per recipient, in the envelope's order.
    pub outcomes: Vec<Outcome>,
    /// The one answer, when there is only one: what the sender is told.
    pub answer: Answer,
    /// What had to be stepped down.
    pub losses: Vec<Loss>,
}

/// The one answer for a whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Each recipient is answered by its outcome.
    ByRecipient,
    /// Accepted, if the next hop accepts what is delivered.
    Accept,
    /// Refused, for good or for now.
    Refuse(Disposition),
}

/// Something wanted that this way could not do for a recipient, and what was done instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Index of the recipient; `None`: all.
    pub recipient: Option<usize>,
    /// What was wanted.
    pub wanted: &'static str,
    /// What is done instead, and why.
    pub instead: &'static str,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} became {}", self.wanted, self.instead)
    }
}

impl Fitted {
    /// Does any outcome want a copy kept?
    pub fn wants_quarantine(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.quarantine)
    }

    /// When the copy could not be kept: who was to have one kept is deferred instead, and with one
    /// answer for all, so is everybody.
    pub fn without_quarantine(mut self) -> Self {
        let deferred = Outcome::defer(Deferral::local_problem(), "<quarantine failed>");
        let one_answer = self.answer != Answer::ByRecipient;
        for (index, outcome) in self.outcomes.iter_mut().enumerate() {
            if outcome.quarantine || one_answer {
                let wanted = outcome.disposition.as_str();
                *outcome = deferred.clone();
                self.losses.push(Loss { recipient: Some(index), wanted, instead: "defer: no copy could be kept" });
            }
        }
        if one_answer {
            self.answer = Answer::Refuse(deferred.disposition);
        }
        self
    }

    /// Does one of these recipients, who gets the mail, have this address? Domains are compared without case.
    pub fn is_handed_to(&self, to: &Address, recipients: &[Address]) -> bool {
        let handed_on = recipients.iter().zip(&self.outcomes).filter(|(_, outcome)| outcome.disposition.is_handed_on());
        handed_on
            .map(|(known, _)| known)
            .any(|known| known.local() == to.local() && known.domain().eq_ignore_ascii_case(to.domain()))
    }

    /// What the MTA is to keep in its own quarantine: the edits and the recipients.
    pub fn held(&self) -> Option<(Arc<[Edit]>, Vec<usize>)> {
        let is_held = |index: &usize| matches!(self.outcomes[*index].disposition, Disposition::Hold(_));
        let members: Vec<usize> = (0..self.outcomes.len()).filter(is_held).collect();
        members.first().map(|&first| (Arc::clone(&self.outcomes[first].edits), members.clone()))
    }

    /// Recipients that get the mail, grouped by the edits they get: `(edits, indices)`, in the order
    /// of their first recipient.
    pub fn deliveries(&self) -> Vec<(Arc<[Edit]>, Vec<usize>)> {
        let mut groups: Vec<(Arc<[Edit]>, Vec<usize>)> = Vec::new();
        for (index, outcome) in self.outcomes.iter().enumerate() {
            if outcome.disposition != Disposition::Deliver {
                continue;
            }
            match groups.iter_mut().find(|(edits, _)| *edits == outcome.edits) {
                Some((_, members)) => members.push(index),
                None => groups.push((Arc::clone(&outcome.edits), vec![index])),
            }
        }
        groups
    }
}

/// Fits a verdict to a way's abilities.
pub fn fit(mail: &Mail, verdict: &Verdict, abilities: &Abilities) -> Fitted {
    let mut fitted = Fitted { outcomes: verdict.outcomes.clone(), answer: Answer::ByRecipient, losses: Vec::new() };
    if abilities.refusal == Refusal::Bounces {
        avoid_unsafe_bounces(mail, verdict, &mut fitted);
    }
    fit_holds(&mut fitted, abilities);
    drop_edits(&mut fitted, abilities);
    if !abilities.contents_by_recipient {
        unite_edits(&mut fitted);
    }
    if abilities.replies == Replies::PerMessage {
        unite_answers(&mut fitted, abilities);
    }
    fitted
}

fn avoid_unsafe_bounces(mail: &Mail, verdict: &Verdict, fitted: &mut Fitted) {
    let malware = verdict.findings.iter().any(|f| matches!(f.kind, Kind::Malware | Kind::Phishing));
    let trusted = mail.origin.user.is_some() || mail.origin.class != OriginClass::Inbound;
    if trusted && !malware && !mail.envelope.sender.is_null() {
        return;
    }
    for (index, outcome) in fitted.outcomes.iter_mut().enumerate() {
        if matches!(outcome.disposition, Disposition::Reject(_)) {
            outcome.disposition = Disposition::Discard;
            outcome.quarantine = true;
            fitted.losses.push(Loss {
                recipient: Some(index),
                wanted: "reject",
                instead: "quarantine: a bounce would not be safe",
            });
        }
    }
}

/// A mail is held for all its recipients or for none.
fn fit_holds(fitted: &mut Fitted, abilities: &Abilities) {
    let delivered = fitted.outcomes.iter().any(|outcome| outcome.disposition == Disposition::Deliver);
    let instead = match (abilities.hold, delivered) {
        (true, false) => return,
        (true, true) => "quarantine: the MTA holds a mail for all its recipients, and others get it",
        (false, _) => "quarantine: this way cannot have the MTA hold it",
    };
    for index in 0..fitted.outcomes.len() {
        if matches!(fitted.outcomes[index].disposition, Disposition::Hold(_)) {
            keep_instead(fitted, index, "hold", instead);
        }
    }
}

/// The recipient does not get the mail, and a copy is kept.
fn keep_instead(fitted: &mut Fitted, index: usize, wanted: &'static str, instead: &'static str) {
    fitted.outcomes[index].disposition = Disposition::Discard;
    fitted.outcomes[index].quarantine = true;
    fitted.losses.push(Loss { recipient: Some(index), wanted, instead });
}

fn drop_edits(fitted: &mut Fitted, abilities: &Abilities) {
    let can = |edit: &Edit| match edit {
        Edit::ReplaceBody(_) => abilities.edit_body && abilities.edit_headers,
        Edit::AddRecipient(_) => abilities.add_recipients,
        Edit::ChangeSender(_) => abilities.change_sender,
        _ => abilities.edit_headers,
    };
    for index in 0..fitted.outcomes.len() {
        let outcome = &mut fitted.outcomes[index];
        let (kept, lost): (Vec<Edit>, Vec<Edit>) = outcome.edits.iter().cloned().partition(can);
        if lost.is_empty() {
            continue;
        }
        outcome.edits = kept.into();
        // What was to be replaced may be what must not be delivered.
        if outcome.disposition.is_handed_on() && lost.iter().any(|edit| matches!(edit, Edit::ReplaceBody(_))) {
            keep_instead(fitted, index, "new body", "quarantine: this way cannot replace a body");
        }
        let mut lose = |wanted, instead, is: fn(&Edit) -> bool| {
            if lost.iter().any(is) {
                fitted.losses.push(Loss { recipient: Some(index), wanted, instead });
            }
        };
        lose("header edit", "nothing: this way cannot edit", Edit::is_of_header);
        lose("added recipient", "nothing: this way cannot add one", |edit| matches!(edit, Edit::AddRecipient(_)));
        lose("changed sender", "nothing: this way cannot change it", |edit| matches!(edit, Edit::ChangeSender(_)));
    }
}

/// One content and one sender for all: the edits that every recipient gets, in the first one's order.
/// Who is added for one is added for all.
fn unite_edits(fitted: &mut Fitted) {
    let body = |outcome: &Outcome| outcome.edits.iter().find(|edit| matches!(edit, Edit::ReplaceBody(_))).cloned();
    let bodies: Vec<(usize, Option<Edit>)> =
        handed_on(fitted).into_iter().map(|index| (index, body(&fitted.outcomes[index]))).collect();
    if bodies.windows(2).any(|pair| pair[0].1 != pair[1].1) {
        // The old body may be what must not be delivered, and the others want theirs unchanged.
        for (index, _) in bodies.iter().filter(|(_, body)| body.is_some()) {
            keep_instead(fitted, *index, "new body for some recipients", "quarantine: all recipients get one content");
        }
    }
    let members = handed_on(fitted);
    let Some(&first) = members.first() else { return };
    let has = |edit: &Edit, index: usize| fitted.outcomes[index].edits.contains(edit);
    let for_all = |edit: &Edit| members.iter().all(|&index| has(edit, index));
    let mut common: Vec<Edit> = fitted.outcomes[first].edits.iter().filter(|edit| for_all(edit)).cloned().collect();
    for edit in members.iter().flat_map(|&index| fitted.outcomes[index].edits.iter()) {
        if matches!(edit, Edit::AddRecipient(_)) && !common.contains(edit) {
            common.push(edit.clone());
        }
    }
    let common: Arc<[Edit]> = common.into();
    for index in members {
        let outcome = &mut fitted.outcomes[index];
        let lost = outcome.edits.iter().any(|edit| !common.contains(edit));
        outcome.edits = Arc::clone(&common);
        if lost {
            fitted.losses.push(Loss {
                recipient: Some(index),
                wanted: "edit for some recipients",
                instead: "only the edits that all recipients get",
            });
        }
    }
}

/// Indices of the recipients that the MTA or the next hop gets the mail for.
fn handed_on(fitted: &Fitted) -> Vec<usize> {
    (0..fitted.outcomes.len()).filter(|&index| fitted.outcomes[index].disposition.is_handed_on()).collect()
}

fn unite_answers(fitted: &mut Fitted, abilities: &Abilities) {
    let has = |wanted: fn(&Disposition) -> bool| fitted.outcomes.iter().find(|o| wanted(&o.disposition)).cloned();
    let deferred = has(|d| matches!(d, Disposition::Defer(_)));
    let delivered = has(Disposition::is_handed_on);
    let rejected = has(|d| matches!(d, Disposition::Reject(_)));
    if let Some(deferred) = deferred {
        defer_all(fitted, &deferred, "defer: one answer serves all recipients, and one is deferred");
        fitted.answer = Answer::Refuse(deferred.disposition);
    } else if delivered.is_some() {
        let left_out = fitted.outcomes.iter().any(|o| !o.disposition.is_handed_on());
        if left_out && !abilities.drop_recipients {
            let deferral = Outcome::defer(Deferral::unchecked(), "<fit>");
            defer_all(fitted, &deferral, "defer: recipients cannot be left out here");
            fitted.answer = Answer::Refuse(deferral.disposition);
            return;
        }
        for (index, outcome) in fitted.outcomes.iter_mut().enumerate() {
            if matches!(outcome.disposition, Disposition::Reject(_)) {
                outcome.disposition = Disposition::Discard;
                outcome.quarantine = true;
                fitted.losses.push(Loss {
                    recipient: Some(index),
                    wanted: "reject",
                    instead: "quarantine: one answer serves all recipients, and others get the mail",
                });
            }
        }
        fitted.answer = Answer::Accept;
    } else if let Some(rejected) = rejected {
        for (index, outcome) in fitted.outcomes.iter_mut().enumerate() {
            if outcome.disposition == Disposition::Discard {
                outcome.disposition = rejected.disposition.clone();
                fitted.losses.push(Loss {
                    recipient: Some(index),
                    wanted: "discard",
                    instead: "reject: one answer serves all recipients, and another is refused",
                });
            }
        }
        fitted.answer = Answer::Refuse(rejected.disposition);
    } else if abilities.discard || fitted.outcomes.is_empty() {
        fitted.answer = Answer::Accept;
    } else {
        // "Accepted" would be taken for "deliver it".
        refuse_all(fitted);
    }
}

/// Nobody was to get the mail, and nothing but a refusal keeps it from them. Copies that were wanted are kept.
fn refuse_all(fitted: &mut Fitted) {
    let refused = Disposition::Reject(Rejection::lossy(7, 1, "Message refused"));
    for (index, outcome) in fitted.outcomes.iter_mut().enumerate() {
        outcome.disposition = refused.clone();
        let wanted = if outcome.quarantine { "quarantine" } else { "discard" };
        let instead = "reject: this way can only let a mail pass or refuse it";
        fitted.losses.push(Loss { recipient: Some(index), wanted, instead });
    }
    fitted.answer = Answer::Refuse(refused);
}

fn defer_all(fitted: &mut Fitted, deferred: &Outcome, why: &'static str) {
    for (index, outcome) in fitted.outcomes.iter_mut().enumerate() {
        if !matches!(outcome.disposition, Disposition::Defer(_)) {
            let wanted = outcome.disposition.as_str();
            *outcome = deferred.clone();
            // The mail comes again, and with it the copy: keeping one now would keep two.
            fitted.losses.push(Loss { recipient: Some(index), wanted, instead: why });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::edit::{Body, HeaderField, HeaderText};
    use crate::finding::Finding;
    use crate::mail::{Address, Envelope, MailId, Origin};

    const SMTP: Abilities = Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: true,
        hold: false,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: true,
    };
    const MILTER: Abilities = Abilities { hold: true, contents_by_recipient: false, ..SMTP };
    const LMTP: Abilities = Abilities { replies: Replies::PerRecipient, ..SMTP };
    const AFTER_QUEUE: Abilities = Abilities { refusal: Refusal::Bounces, ..SMTP };

    fn outcome(letter: char) -> Outcome {
        let disposition = match letter {
            'd' => Disposition::Deliver,
            'r' => Disposition::Reject(Rejection::parse("no").unwrap()),
            'l' => Disposition::Defer(Deferral::parse("later").unwrap()),
            'x' => Disposition::Discard,
            'h' => Disposition::Hold(HeaderText::new("why").unwrap()),
            _ => unreachable!(),
        };
        Outcome { disposition, ..Outcome::deliver() }
    }

    fn mail(sender: &str, recipients: usize) -> Mail {
        Mail {
            id: MailId::new(),
            envelope: Envelope { sender: sender.into(), recipients: vec![Address::from("b@example.org"); recipients] },
            origin: Origin::inbound("test"),
            content: Bytes::new().into(),
        }
    }

    /// Letters wanted → letters done (capital: a copy is kept), and the one answer's letter.
    fn check(wanted: &str, abilities: &Abilities, done: &str, answer: char) {
        let outcomes: Vec<_> = wanted.chars().map(outcome).collect();
        let verdict = Verdict { findings: Arc::from([]), score: 0.0, outcomes };
        let fitted = fit(&mail("a@example.org", wanted.len()), &verdict, abilities);
        let seen: String = fitted
            .outcomes
            .iter()
            .map(|o| {
                let letter = match o.disposition {
                    Disposition::Deliver => 'd',
                    Disposition::Reject(_) => 'r',
                    Disposition::Defer(_) => 'l',
                    Disposition::Discard => 'x',
                    Disposition::Hold(_) => 'h',
                };
                if o.quarantine { letter.to_ascii_uppercase() } else { letter }
            })
            .collect();
        assert_eq!(seen, done, "{wanted}");
        let seen = match &fitted.answer {
            Answer::ByRecipient => '*',
            Answer::Accept => 'd',
            Answer::Refuse(Disposition::Reject(_)) => 'r',
            Answer::Refuse(Disposition::Defer(_)) => 'l',
            Answer::Refuse(_) => '?',
        };
        assert_eq!(seen, answer, "{wanted}");
        let changed = wanted.chars().zip(done.chars()).filter(|(a, b)| a != b).count();
        assert_eq!(fitted.losses.len(), changed, "{wanted}: every step down is told");
    }

    #[test]
    fn one_answer_for_all_loses_nobodys_mail() {
        check("dd", &SMTP, "dd", 'd');
        check("dx", &SMTP, "dx", 'd');
        check("dr", &SMTP, "dX", 'd');
        check("dl", &SMTP, "ll", 'l');
        check("rl", &SMTP, "ll", 'l');
        check("rx", &SMTP, "rr", 'r');
        check("rr", &SMTP, "rr", 'r');
        check("xx", &SMTP, "xx", 'd');
        check("dx", &Abilities { drop_recipients: false, ..SMTP }, "ll", 'l');
        check("drlx", &LMTP, "drlx", '*');
        check("hd", &SMTP, "Xd", 'd');
        check("hd", &MILTER, "Xd", 'd');
        check("hh", &MILTER, "hh", 'd');
        check("hr", &MILTER, "hX", 'd');
        check("hx", &MILTER, "hx", 'd');
        check("hl", &MILTER, "ll", 'l');
    }

    #[test]
    fn who_can_only_pass_or_refuse_never_passes_what_nobody_was_to_get() {
        const GATE: Abilities = Abilities { drop_recipients: false, discard: false, edit_body: false, ..SMTP };
        check("x", &GATE, "r", 'r');
        check("xx", &GATE, "rr", 'r');
        check("rx", &GATE, "rr", 'r');
        check("dx", &GATE, "ll", 'l');
        check("dr", &GATE, "ll", 'l');
        check("lx", &GATE, "ll", 'l');
        let fitted = |outcome: Outcome| {
            let verdict = Verdict { findings: Arc::from([]), score: 0.0, outcomes: vec![outcome] };
            let fitted = fit(&mail("a@example.org", 1), &verdict, &GATE);
            let losses: Vec<String> = fitted.losses.iter().map(Loss::to_string).collect();
            (
                matches!(fitted.answer, Answer::Refuse(Disposition::Reject(_))),
                fitted.wants_quarantine(),
                losses.join(", "),
            )
        };
        let kept = "quarantine became reject: this way can only let a mail pass or refuse it";
        assert_eq!(fitted(Outcome { quarantine: true, ..outcome('x') }), (true, true, kept.into()));
        let held = format!("hold became quarantine: this way cannot have the MTA hold it, {kept}");
        assert_eq!(fitted(outcome('h')), (true, true, held));
        let body = Edit::ReplaceBody(Body::new("gone").unwrap());
        let new = Outcome { edits: vec![body].into(), ..Outcome::deliver() };
        assert_eq!(
            fitted(new),
            (true, true, format!("new body became quarantine: this way cannot replace a body, {kept}"))
        );
    }

    #[test]
    fn no_unsafe_bounce() {
        check("rr", &AFTER_QUEUE, "XX", 'd');
        check("dr", &AFTER_QUEUE, "dX", 'd');
        let verdict =
            |findings: Vec<Finding>| Verdict { outcomes: vec![outcome('r')], findings: findings.into(), score: 0.0 };
        let mut known = mail("a@example.org", 1);
        known.origin.user = Some("a".into());
        let policy = vec![Finding::new(Kind::Policy, &"f".into(), "x")];
        let malware = vec![Finding::new(Kind::Malware, &"f".into(), "x")];
        let refused = |mail: &Mail, findings: &Vec<Finding>| {
            matches!(fit(mail, &verdict(findings.clone()), &AFTER_QUEUE).answer, Answer::Refuse(_))
        };
        assert!(refused(&known, &policy));
        assert!(!refused(&known, &malware));
        known.envelope.sender = Address::null();
        assert!(!refused(&known, &policy));
    }

    #[test]
    fn a_copy_that_cannot_be_kept_defers() {
        let outcomes = vec![outcome('d'), outcome('r')];
        let verdict = Verdict { findings: Arc::from([]), score: 0.0, outcomes };
        let fitted = fit(&mail("a@example.org", 2), &verdict, &SMTP).without_quarantine();
        assert!(fitted.outcomes.iter().all(|o| matches!(o.disposition, Disposition::Defer(_))));
        assert!(matches!(fitted.answer, Answer::Refuse(Disposition::Defer(_))));
    }

    #[test]
    fn contents_are_united_where_they_cannot_differ() {
        let tag: Arc<[Edit]> = Arc::from([Edit::AddHeader(HeaderField::parse("X: 1").unwrap())]);
        let mut tagged = outcome('d');
        tagged.edits = tag;
        let verdict = Verdict { findings: Arc::from([]), score: 0.0, outcomes: vec![tagged, outcome('d')] };
        let two = fit(&mail("a@example.org", 2), &verdict, &SMTP);
        assert_eq!(two.deliveries().len(), 2);
        let one = fit(&mail("a@example.org", 2), &verdict, &Abilities { contents_by_recipient: false, ..SMTP });
        assert_eq!(one.deliveries().len(), 1);
        assert_eq!(one.losses.len(), 1);
    }

    #[test]
    fn the_old_body_is_not_delivered_in_place_of_a_new_one() {
        let with = |edit: Edit| Outcome { edits: Arc::from([edit]), ..outcome('d') };
        let replaced = with(Edit::ReplaceBody(Body::new("gone").unwrap()));
        let fit = |outcomes: Vec<Outcome>, abilities: &Abilities| {
            let mail = mail("a@example.org", outcomes.len());
            super::fit(&mail, &Verdict { findings: Arc::from([]), score: 0.0, outcomes }, abilities)
        };
        let kept = |fitted: &Fitted, index: usize| {
            fitted.outcomes[index].disposition == Disposition::Discard && fitted.outcomes[index].quarantine
        };
        let both = fit(vec![replaced.clone(), replaced.clone()], &MILTER);
        assert_eq!((both.deliveries().len(), both.losses.len()), (1, 0));
        let one = fit(vec![replaced.clone(), outcome('d')], &MILTER);
        assert!(kept(&one, 0) && one.outcomes[1] == outcome('d') && one.losses.len() == 1, "{one:?}");
        let cannot = fit(vec![replaced], &Abilities { edit_body: false, ..MILTER });
        assert!(kept(&cannot, 0) && cannot.losses.len() == 1, "{cannot:?}");
    }

    #[test]
    fn who_is_added_for_one_is_added_for_all_and_a_sender_is_everybodys() {
        let with = |edits: Vec<Edit>| Outcome { edits: edits.into(), ..outcome('d') };
        let add = Edit::AddRecipient("archive@example.org".into());
        let sender = Edit::ChangeSender(Address::null());
        let outcomes = vec![with(vec![sender, add.clone()]), outcome('d')];
        let verdict = Verdict { findings: Arc::from([]), score: 0.0, outcomes };
        let fitted = fit(&mail("a@example.org", 2), &verdict, &MILTER);
        assert_eq!(fitted.deliveries(), [(Arc::from([add]), vec![0, 1])]);
        assert_eq!(fitted.losses.len(), 1);
    }
}
