//! One rule, names resolved: its conditions and actions, and the outcome that actions add up to.

use std::sync::Arc;

use crate::config::Place;
use crate::edit::{Body, Edit, HeaderField, HeaderName, HeaderText};
use crate::reply::{Deferral, Rejection};
use crate::verdict::Disposition;

use super::condition::{Case, Condition, Facts, Matched};
use super::text::{Names, Say, Template};

/// A rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) place: Place,
    /// Its number in the configuration, from 0.
    pub(super) index: usize,
    /// Conditions that are the same for all recipients of a mail.
    pub(super) fixed: Vec<Condition>,
    /// Those that may differ.
    pub(super) varying: Vec<Condition>,
    pub(super) then: Actions,
}

/// What a rule does.
#[derive(Debug, Clone)]
pub(super) struct Actions {
    pub(super) place: Place,
    pub(super) fate: Option<Fate>,
    pub(super) quarantine: Option<bool>,
    pub(super) edits: Vec<TextEdit>,
    pub(super) score: f32,
    /// Are later rules left out?
    pub(super) stop: bool,
}

/// A disposition with its text.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Deliver,
    Reject(Say<Rejection>),
    Defer(Say<Deferral>),
    Discard,
    Hold(Template),
}

/// An edit with its text.
#[derive(Debug, Clone)]
pub(super) enum TextEdit {
    Fixed(Edit),
    AddHeader(HeaderName, Template),
    AppendHeader(HeaderName, Template),
    SetHeader(HeaderName, Template),
    TagSubject(Template),
    ReplaceBody(Template),
}

impl Rule {
    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.fixed.iter().chain(&self.varying)
    }

    pub(super) fn fixed_hold(&self, facts: &Facts<'_>, case: Case<'_>, matched: &mut Matched) -> bool {
        self.fixed.iter().all(|condition| condition.holds(facts, case, matched))
    }

    pub(super) fn varying_hold(&self, facts: &Facts<'_>, case: Case<'_>, matched: &mut Matched) -> bool {
        self.varying.iter().all(|condition| condition.holds(facts, case, matched))
    }

    pub(super) fn mentions(&self, wanted: fn(&Condition) -> bool) -> bool {
        self.conditions().any(|condition| condition.mentions(wanted))
    }
}

impl Actions {
    pub(super) fn nothing(place: Place) -> Self {
        Self { place, fate: None, quarantine: None, edits: Vec::new(), score: 0.0, stop: false }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.fate.is_none() && self.quarantine.is_none() && self.edits.is_empty() && self.score == 0.0 && !self.stop
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let fate = match &self.fate {
            Some(Fate::Reject(say)) => Some(say.template()),
            Some(Fate::Defer(say)) => Some(say.template()),
            Some(Fate::Hold(reason)) => Some(reason),
            Some(Fate::Deliver | Fate::Discard) | None => None,
        };
        fate.into_iter().chain(self.edits.iter().filter_map(|edit| match edit {
            TextEdit::AddHeader(_, template)
            | TextEdit::AppendHeader(_, template)
            | TextEdit::SetHeader(_, template)
            | TextEdit::TagSubject(template)
            | TextEdit::ReplaceBody(template) => Some(template),
            TextEdit::Fixed(_) => None,
        }))
    }
}

impl Fate {
    pub(super) fn disposition(&self, names: &Names<'_>) -> Disposition {
        match self {
            Self::Deliver => Disposition::Deliver,
            Self::Reject(say) => Disposition::Reject(say.render(names)),
            Self::Defer(say) => Disposition::Defer(say.render(names)),
            Self::Discard => Disposition::Discard,
            Self::Hold(reason) => {
                // A finding's name may be empty, and a mail server may take no reason for none at all.
                let reason = reason.render(names);
                Disposition::Hold(HeaderText::lossy(if reason.trim().is_empty() { names.rule } else { &reason }))
            }
        }
    }
}

impl TextEdit {
    pub(super) fn edit(&self, names: &Names<'_>) -> Edit {
        let text = |template: &Template| HeaderText::lossy(&template.render(names));
        let field = |name: &HeaderName, template| HeaderField { name: name.clone(), value: text(template) };
        match self {
            Self::Fixed(edit) => edit.clone(),
            Self::AddHeader(name, template) => Edit::AddHeader(field(name, template)),
            Self::AppendHeader(name, template) => Edit::AppendHeader(field(name, template)),
            Self::SetHeader(name, template) => Edit::SetHeader(field(name, template)),
            Self::TagSubject(template) => Edit::TagSubject(text(template)),
            Self::ReplaceBody(template) => Edit::ReplaceBody(Body::lossy(&template.render(names))),
        }
    }
}
