//! What a way in can do. Declared as data by each way, so that `fit`, `config check` and the
//! documentation read the same table.

/// The abilities of one way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Abilities {
    /// How many answers a message gets.
    pub replies: Replies,
    /// What becomes of a refusal.
    pub refusal: Refusal,
    /// Can header fields be added, removed and changed?
    pub edit_headers: bool,
    /// Can the body be replaced?
    pub edit_body: bool,
    /// Can recipients be added?
    pub add_recipients: bool,
    /// Can the envelope's sender be changed?
    pub change_sender: bool,
    /// Can the MTA be told to keep the mail, whole and for all its recipients, in its own quarantine?
    pub hold: bool,
    /// Can recipients be left out while others get the mail?
    pub drop_recipients: bool,
    /// Can the mail be taken and handed to nobody? Who can only say "pass" or "refuse" cannot.
    pub discard: bool,
    /// Can recipients get different contents of the same mail?
    pub contents_by_recipient: bool,
}

/// How many answers a message gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replies {
    /// One for all its recipients (SMTP).
    PerMessage,
    /// One for each recipient (LMTP, PRDR).
    PerRecipient,
}

/// What becomes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The sending system is told in its session and keeps the mail.
    InSession,
    /// The MTA has taken the mail already and makes a bounce of it.
    Bounces,
}

impl Abilities {
    /// The name of each ability that is missing, out of those that matter to rules.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            (self.edit_headers, "edit-headers"),
            (self.edit_body, "edit-body"),
            (self.add_recipients, "add-recipients"),
            (self.change_sender, "change-sender"),
            (self.hold, "hold"),
            (self.drop_recipients, "drop-recipients"),
            (self.discard, "discard"),
            (self.contents_by_recipient, "contents-by-recipient"),
            (self.replies == Replies::PerRecipient, "reply-per-recipient"),
            (self.refusal == Refusal::InSession, "refuse-in-session"),
        ]
        .into_iter()
        .filter_map(|(has, name)| (!has).then_some(name))
        .collect()
    }
}
