//! A mail as Exim holds it when it calls: views of its header lines and envelope. Nothing is copied here.

/// All of it but the body, which is in a file.
#[derive(Debug, Clone, Default)]
pub struct Mail<'a> {
    /// The header fields in their order, without those that Exim has deleted (type `*`).
    pub fields: Vec<Field<'a>>,
    /// The envelope's sender; empty: the null sender.
    pub sender: &'a [u8],
    /// The recipients that Exim has accepted. There may be none, when an ACL has discarded them all.
    pub recipients: Vec<&'a [u8]>,
    /// Where it came from.
    pub origin: Origin,
}

/// A header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The whole of it, with LF at its end and within where it is folded.
    pub text: &'a [u8],
    /// Exim's letter for it: `F` for From, `P` for Received, a blank for most.
    pub kind: u8,
}

/// What Exim knows of who sent a mail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The sending host's address; `None`: a program on this machine.
    pub client: Option<String>,
    /// That host's name, if Exim looked it up.
    pub client_name: Option<String>,
    /// Its HELO or EHLO.
    pub helo: Option<String>,
    /// The authenticated user, or the local user whose program it was.
    pub user: Option<String>,
    /// Is there nobody whom a reply reaches at once, that is, did it come by no SMTP session?
    pub is_silent: bool,
    /// Did it come over TLS?
    pub tls: bool,
    /// Exim's id of the mail.
    pub id: Option<String>,
}

impl Mail<'_> {
    /// A mail without a sender from this machine: a bounce of Exim's own, or an automatic reply. If one is refused, it is
    /// Exim that is told, and it freezes the mail that could not be delivered.
    pub fn is_local_bounce(&self) -> bool {
        self.sender.is_empty() && self.origin.client.is_none()
    }

    /// A program's mail, of which Exim keeps nothing when it is refused for now, and most programs do not either.
    pub(crate) fn is_lost_if_deferred(&self) -> bool {
        self.origin.is_silent && !self.is_local_bounce()
    }
}

impl Field<'_> {
    /// The name, without the blanks that may stand before the colon.
    pub(crate) fn name(&self) -> &[u8] {
        let end = self.text.iter().position(|octet| *octet == b':').unwrap_or(0);
        self.text[..end].trim_ascii_end()
    }
}
