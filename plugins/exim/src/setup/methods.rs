//! The ways that there are, and what is asked for each.

use checkpost_setup::{Choice, Method, Question, WHEN_DOWN};

use crate::acl::{CLAMD, RSPAMD, SPAMD};
use crate::local_scan::LOCAL_SCAN;
use crate::transport::{PIPE, TRANSPORT};

pub(super) const SCOPE: Question = Question {
    key: "scope",
    ask: "Whose mail goes through Checkpost?",
    choices: &[
        Choice { value: "all", about: "that of SMTP clients and of programs on this host" },
        Choice { value: "outside", about: "only that of SMTP clients" },
    ],
    default: "all",
};

const fn port(default: &'static str) -> Question {
    Question { key: "port", ask: "Which port of 127.0.0.1 does Checkpost take?", choices: &[], default }
}

pub(super) const BACK_PORT: Question = Question {
    key: "back_port",
    ask: "At which port of 127.0.0.1 does Exim take checked mail back?",
    choices: &[],
    default: "10026",
};

const ACL_DOWN: &str = "as chosen: clients and local programs are told to try again later (451), or mail passes unscanned, and so \
                        does what Checkpost puts off, since Exim cannot tell the two apart";

pub(super) const METHODS: [Method; 6] = [
    Method {
        name: LOCAL_SCAN.name,
        kind: LOCAL_SCAN.name,
        about: LOCAL_SCAN.about,
        when_down: "as chosen: clients and local programs are told to try again later (451), or mail passes unscanned",
        abilities: LOCAL_SCAN.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: TRANSPORT.name,
        kind: TRANSPORT.name,
        about: TRANSPORT.about,
        when_down: "mail stays in Exim's queue and is tried again",
        abilities: TRANSPORT.abilities,
        questions: &[port("10025"), BACK_PORT],
    },
    Method {
        name: PIPE.name,
        kind: PIPE.name,
        about: PIPE.about,
        when_down: "as chosen: mail stays in Exim's queue and is tried again, or it passes unscanned",
        abilities: PIPE.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: RSPAMD.name,
        kind: RSPAMD.name,
        about: RSPAMD.about,
        when_down: ACL_DOWN,
        abilities: RSPAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13311")],
    },
    Method {
        name: CLAMD.name,
        kind: CLAMD.name,
        about: CLAMD.about,
        when_down: ACL_DOWN,
        abilities: CLAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13310")],
    },
    Method {
        name: SPAMD.name,
        kind: SPAMD.name,
        about: SPAMD.about,
        when_down: ACL_DOWN,
        abilities: SPAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13312")],
    },
];
