//! Postfix: its ways in by milter (inside the session), by SMTP and LMTP (`smtpd_proxy_filter` before the
//! queue, `content_filter` after it), their abilities, and its setup recipes as data.
//!
//! The sessions are the milter front end's and the SMTP proxy's; what is Postfix's own is here. See the
//! README for the contract.

mod map;
pub mod setup;

use std::time::Duration;

use checkpost_adapter::Kind;
use checkpost_smtp::Defaults;

/// Before the queue: Postfix's smtpd is our client while its own client waits.
pub const BEFORE_QUEUE: Kind = Kind {
    name: "postfix-before-queue",
    about: "Postfix smtpd_proxy_filter: refused in the session, nothing queued while we are down",
    abilities: map::BEFORE_QUEUE,
};

/// After the queue: Postfix has taken the mail and hands it to us by SMTP or LMTP.
pub const AFTER_QUEUE: Kind = Kind {
    name: "postfix-after-queue",
    about: "Postfix content_filter: queued while we are down, a refusal becomes a bounce",
    abilities: map::AFTER_QUEUE,
};

/// Inside smtpd's session, without taking the mail over.
pub const MILTER: Kind = Kind {
    name: "postfix-milter",
    about: "Postfix smtpd_milters: answers inside the session, the mail never leaves Postfix",
    abilities: map::MILTER,
};

/// After the queue: Postfix has taken the mail and starts `checkpost-pipe` for it.
pub const PIPE: Kind = Kind {
    name: "postfix-pipe",
    about: "Postfix content_filter by pipe(8): checkpost-pipe asks for mail from outside, no second port",
    abilities: map::PIPE,
};

/// `milter_content_timeout` is 300 s (postconf(5)).
pub const MILTER_DEFAULTS: checkpost_milter::Defaults =
    checkpost_milter::Defaults { mta_timeout: Duration::from_secs(300), removes_mailboxes: false };

/// The kinds of way around it that this plug-in has, with what differs from a plain proxy.
pub fn kinds() -> [(Kind, Defaults); 2] {
    // Postfix adds a Received field of its own on both sides, so another would only tell the same.
    let around = Defaults { received: false, trust_loopback: true, ..Defaults::default() };
    // smtpd_proxy_timeout is 100 s for the answer to the final dot: check and next hop must fit in.
    let before =
        Defaults { check_timeout: Duration::from_secs(45), hop_final_timeout: Duration::from_secs(45), ..around };
    [(BEFORE_QUEUE, before), (AFTER_QUEUE, around)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_queue_we_answer_before_postfix_gives_up() {
        let [(_, before), _] = kinds();
        let smtpd_proxy_timeout = Duration::from_secs(100);
        assert!(before.check_timeout + before.hop_final_timeout < smtpd_proxy_timeout);
    }
}
