//! What a mail server offers, what the rules need, and what is agreed on. Asked for is only what will be
//! used: each ability that is asked for costs the MTA work, and Sendmail its early recipient checks.

use checkpost_core::Abilities;
use checkpost_core::policy::{Policy, Stage, Uses};
use checkpost_wire::milter::{self, Actions, Choice, Offer, Steps};

use super::Link;
use crate::config::Settings;
use crate::map::MILTER;

/// The oldest version that works: before it there were no per-message macros worth having.
pub(super) const OLDEST: u32 = 2;
/// Sendmail 8.14 and later, Postfix 2.6 and later.
const NEWEST: u32 = 6;

/// What both sides hold to.
#[derive(Debug, Clone)]
pub(super) struct Agreed {
    pub(super) actions: Actions,
    pub(super) steps: Steps,
    pub(super) abilities: Abilities,
    /// What some rule needs and this mail server does not offer: no mail may pass.
    pub(super) missing: Option<String>,
}

impl Agreed {
    /// The answer to an offer.
    pub(super) fn new(offer: &Offer, policy: &Policy, settings: &Settings, link: &Link) -> (Self, Choice) {
        let offer = offer.effective();
        let uses = policy.uses();
        let mut wanted = Actions::ADD_HEADERS | Actions::CHANGE_HEADERS | Actions::SET_MACROS;
        let mut want = |used: bool, action: Actions| {
            if used {
                wanted |= action;
            }
        };
        want(uses.edit_body, Actions::CHANGE_BODY);
        want(uses.add_recipients, Actions::ADD_RECIPIENTS | Actions::ADD_RECIPIENTS_WITH_PARAMETERS);
        want(uses.by_recipient, Actions::DELETE_RECIPIENTS);
        // Who was removed with somebody else is added again.
        want(uses.by_recipient && settings.removes_mailboxes, Actions::ADD_RECIPIENTS);
        want(uses.change_sender, Actions::CHANGE_SENDER);
        want(uses.hold, Actions::QUARANTINE);
        let actions = wanted & offer.actions;

        let mut wanted = Steps::NO_UNKNOWN
            | Steps::SILENT_HEADERS
            | Steps::SILENT_END_OF_HEADER
            | Steps::SILENT_BODY
            | Steps::LEADING_SPACE;
        // Over TCP an unanswered DATA makes Postfix write twice in a row, and wait 40 ms for our delayed
        // acknowledgement between them.
        if !link.tcp {
            wanted |= Steps::NO_DATA;
        }
        if !policy.asks_at(Stage::Connect) {
            wanted |= Steps::SILENT_CONNECT;
        }
        if !policy.asks_at(Stage::Helo) {
            wanted |= Steps::SILENT_HELO;
        }
        // MAIL is always answered: Sendmail would not say ABORT otherwise (sendmail/milter.c), and it is
        // where a session that we cannot serve is told so.
        if !policy.asks_at(Stage::Recipient) || link.refuse.is_some() {
            wanted |= Steps::SILENT_RECIPIENT;
        }
        let steps = wanted & offer.steps;

        let abilities = Abilities {
            edit_headers: actions.contains(Actions::ADD_HEADERS | Actions::CHANGE_HEADERS),
            edit_body: actions.contains(Actions::CHANGE_BODY),
            add_recipients: actions.contains(Actions::ADD_RECIPIENTS),
            drop_recipients: actions.contains(Actions::DELETE_RECIPIENTS),
            change_sender: actions.contains(Actions::CHANGE_SENDER),
            hold: actions.contains(Actions::QUARANTINE),
            ..MILTER
        };
        let agreed = Self { actions, steps, abilities, missing: missing(&uses, &abilities) };
        let macros = if actions.contains(Actions::SET_MACROS) { macros() } else { Vec::new() };
        (agreed, Choice { version: offer.version.min(NEWEST), actions, steps, macros })
    }

    pub(super) fn has(&self, step: Steps) -> bool {
        self.steps.contains(step)
    }
}

/// What is missing that a rule's safety hangs on. Header edits are a comfort: `fit` leaves them out, and
/// the log says so.
fn missing(uses: &Uses, abilities: &Abilities) -> Option<String> {
    let missing: Vec<&str> = [
        (uses.edit_body && !abilities.edit_body, "replace bodies"),
        (uses.add_recipients && !abilities.add_recipients, "add recipients"),
        (uses.by_recipient && !abilities.drop_recipients, "remove recipients"),
        (uses.change_sender && !abilities.change_sender, "change senders"),
        (uses.hold && !abilities.hold, "hold mails"),
    ]
    .into_iter()
    .filter_map(|(missing, what)| missing.then_some(what))
    .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// The macros that are looked at. With a list for the end of the message, Sendmail 8.17.1 asks whether
/// there is one for the end of the header, so both are given.
fn macros() -> Vec<(milter::Stage, String)> {
    [
        (milter::Stage::Helo, "{tls_version}"),
        (milter::Stage::Sender, "i {auth_authen}"),
        (milter::Stage::Recipient, "i"),
        (milter::Stage::EndOfHeader, "i"),
        (milter::Stage::EndOfMessage, "i"),
    ]
    .map(|(stage, names)| (stage, names.to_owned()))
    .into()
}
