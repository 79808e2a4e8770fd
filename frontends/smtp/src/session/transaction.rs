//! One mail's envelope as the client gave it, and what the next hop said of it.

use checkpost_core::{Address, MailId};
use checkpost_wire::smtp::{Params, Path, PeerReply};

use crate::route::RouteIndex;

/// From MAIL to the answer to the content.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) id: MailId,
    pub(super) sender: Path,
    pub(super) params: Params,
    /// Accepted by the next hop, in order.
    pub(super) recipients: Vec<Recipient>,
    /// Relayed, and not answered yet.
    pub(super) pending: usize,
    /// All recipients of one mail go by one route.
    pub(super) route: Option<RouteIndex>,
    /// Did the next hop refuse the sender? Then that is the answer to every recipient.
    pub(super) refused: Option<PeerReply>,
}

/// One recipient.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) path: Path,
    pub(super) params: Params,
}

impl Transaction {
    pub(super) fn new(sender: Path, params: Params) -> Self {
        Self { id: MailId::new(), sender, params, recipients: Vec::new(), pending: 0, route: None, refused: None }
    }

    pub(super) fn sender_address(&self) -> Address {
        Address::from(self.sender.as_str())
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.recipients.iter().map(|recipient| Address::from(recipient.path.as_str())).collect()
    }
}
