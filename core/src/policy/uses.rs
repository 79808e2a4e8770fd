//! What the rules may ask of a way in: for ways that must ask their MTA for each ability.

use crate::edit::Edit;

use super::Policy;
use super::condition::Condition;
use super::rule::{Fate, TextEdit};

/// The abilities that some rule makes use of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses {
    /// Bodies are replaced.
    pub edit_body: bool,
    /// Recipients are added.
    pub add_recipients: bool,
    /// Senders are changed.
    pub change_sender: bool,
    /// Mails are held in the MTA's own quarantine.
    pub hold: bool,
    /// Outcomes may differ from recipient to recipient of one mail.
    pub by_recipient: bool,
}

impl Policy {
    /// What the rules may ask for. Header fields are not told of: what was delivered unscanned is marked
    /// in any case.
    pub fn uses(&self) -> Uses {
        let makes = |wanted: fn(&TextEdit) -> bool| self.rules.iter().any(|rule| rule.then.edits.iter().any(wanted));
        Uses {
            edit_body: makes(|edit| matches!(edit, TextEdit::ReplaceBody(_))),
            add_recipients: makes(|edit| matches!(edit, TextEdit::Fixed(Edit::AddRecipient(_)))),
            change_sender: makes(|edit| matches!(edit, TextEdit::Fixed(Edit::ChangeSender(_)))),
            hold: self.rules.iter().any(|rule| matches!(rule.then.fate, Some(Fate::Hold(_)))),
            by_recipient: self
                .rules
                .iter()
                .any(|rule| rule.mentions(|condition| matches!(condition, Condition::Recipient(_)))),
        }
    }
}
