//! What must stand in Postfix's configuration for each way, as data: shown by `configure_mta`, used by
//! the tests against a real Postfix, and explained in the README. Nothing is written from here.
//!
//! Sources: FILTER_README, SMTPD_PROXY_README, postconf(5), master(5).

mod mta;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe, shell};

pub use mta::Postfix;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `postconf -e 'name=value'` in main.cf.
    Main {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: &'static str,
        /// The reason, for the administrator.
        why: &'static str,
    },
    /// An item at the end of a list in main.cf, which others may use, too: `postconf -e` with what
    /// `postconf -hx` says, and this, unless it is there.
    Append {
        /// The parameter.
        name: &'static str,
        /// The item; no blanks.
        item: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// `postconf -P 'service/type/name=value'`: an option of a service that is there.
    Option {
        /// `name/type` as in `postconf -M`.
        service: &'static str,
        /// The parameter.
        name: &'static str,
        /// Its value; no blanks.
        value: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// `postconf -Me 'name/type=entry'`: a service of ours in master.cf.
    Service {
        /// `name/type`.
        service: &'static str,
        /// The whole entry on one line.
        entry: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// `postfix reload`, then done.
    Reload,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    /// By Postfix's own editor.
    fn entry(&self) -> Entry {
        let (file, run, why) = match self {
            Self::Main { name, value, why } => {
                ("main.cf", shell(&["postconf", "-e", &format!("{name}={value}")]), Some(*why))
            }
            Self::Append { name, item, why } => {
                ("main.cf", format!("postconf -e \"{name}=$(postconf -hx {name}) {item}\""), Some(*why))
            }
            Self::Option { service, name, value, why } => {
                ("master.cf", shell(&["postconf", "-P", &format!("{service}/{name}={value}")]), Some(*why))
            }
            Self::Service { service, entry, why } => {
                ("master.cf", shell(&["postconf", "-Me", &format!("{service}={entry}")]), Some(*why))
            }
            Self::Reload => return Entry { run: Some("postfix reload".into()), ..Entry::default() },
        };
        Entry { file: Some(file), run: Some(run), why, ..Entry::default() }
    }
}

/// All recipes.
pub const RECIPES: [Recipe<Step>; 4] = [
    Recipe {
        kind: "postfix-milter",
        method: None,
        way: "[[way]]\nkind = \"postfix-milter\"\nlisten = \"unix:/var/spool/postfix/checkpost/milter.sock\"\n",
        steps: &[
            Step::Append {
                name: "smtpd_milters",
                item: "unix:checkpost/milter.sock",
                why: "every mail that comes by SMTP is checked in its session; the path counts from the queue \
                      directory, since Debian's smtpd cannot see beyond it",
            },
            Step::Append {
                name: "non_smtpd_milters",
                item: "unix:checkpost/milter.sock",
                why: "so is what programs of this host send by sendmail(1)",
            },
            Step::Main {
                name: "milter_default_action",
                value: "tempfail",
                why: "while Checkpost does not answer, clients are told to try again; nothing goes through unscanned",
            },
            Step::Reload,
        ],
    },
    Recipe {
        kind: "postfix-before-queue",
        method: None,
        way: "[[way]]\nkind = \"postfix-before-queue\"\nlisten = \"127.0.0.1:10025\"\nnext_hop = \"127.0.0.1:10026\"\n",
        steps: &[
            Step::Service {
                service: "127.0.0.1:10026/inet",
                entry: "127.0.0.1:10026 inet n - n - - smtpd -o smtpd_proxy_filter= -o content_filter= \
                        -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o smtpd_client_restrictions= \
                        -o smtpd_helo_restrictions= -o smtpd_sender_restrictions= -o smtpd_relay_restrictions= \
                        -o smtpd_recipient_restrictions=permit_mynetworks,reject -o smtpd_data_restrictions= \
                        -o mynetworks=127.0.0.0/8 -o message_size_limit=0 \
                        -o receive_override_options=no_unknown_recipient_checks",
                why: "checked mail comes back here; only this host may use it, and what smtpd decided stays decided",
            },
            Step::Option {
                service: "smtp/inet",
                name: "smtpd_proxy_filter",
                value: "127.0.0.1:10025",
                why: "every mail from outside goes through Checkpost before it is queued",
            },
            Step::Option {
                service: "smtp/inet",
                name: "smtpd_client_connection_count_limit",
                value: "10",
                why: "one client cannot take all of Checkpost's sessions",
            },
            Step::Reload,
        ],
    },
    Recipe {
        kind: "postfix-after-queue",
        method: None,
        way: "[[way]]\nkind = \"postfix-after-queue\"\nlisten = \"127.0.0.1:10025\"\nprotocol = \"lmtp\"\n\
              hop_protocol = \"smtp\"\nnext_hop = \"127.0.0.1:10026\"\n",
        steps: &[
            Step::Service {
                service: "127.0.0.1:10026/inet",
                entry: "127.0.0.1:10026 inet n - n - 10 smtpd -o content_filter= \
                        -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters \
                        -o smtpd_helo_restrictions= -o smtpd_client_restrictions= -o smtpd_sender_restrictions= \
                        -o smtpd_relay_restrictions= -o smtpd_recipient_restrictions=permit_mynetworks,reject \
                        -o mynetworks=127.0.0.0/8 -o smtpd_authorized_xforward_hosts=127.0.0.0/8 \
                        -o message_size_limit=0",
                why: "checked mail comes back here; content_filter must be empty or it goes round in circles",
            },
            Step::Service {
                service: "checkpost/unix",
                entry: "checkpost unix - - n - 10 lmtp -o lmtp_send_xforward_command=yes \
                        -o disable_mime_output_conversion=yes -o lmtp_generic_maps= -o lmtp_data_done_timeout=1200s",
                why: "the client towards Checkpost: LMTP, so that each recipient has an answer of its own; it waits until \
                      Checkpost has checked a mail and handed it on",
            },
            Step::Main {
                name: "receive_override_options",
                value: "no_address_mappings",
                why: "aliases are expanded once, behind Checkpost; it sees the addresses as they came",
            },
            Step::Main {
                name: "content_filter",
                value: "checkpost:inet:127.0.0.1:10025",
                why: "all mail, local mail included, goes through Checkpost after it is queued",
            },
            Step::Reload,
        ],
    },
    Recipe {
        kind: "postfix-pipe",
        method: None,
        way: "[[way]]\nkind = \"postfix-pipe\"\nlisten = \"unix:/run/checkpost/pipe.sock\"\n",
        steps: &[
            Step::Service {
                service: "checkpost/unix",
                entry: "checkpost unix - n n - 10 pipe flags=q null_sender= user=checkpost argv=/usr/bin/checkpost-pipe \
                        postfix -f ${sender} --client ${client_address} --client-name ${client_hostname} --helo \
                        ${client_helo} --user ${sasl_username} --id ${queue_id} -- ${recipient}",
                why: "starts checkpost-pipe for each mail; the null sender stays null, addresses keep their quotes",
            },
            Step::Option {
                service: "smtp/inet",
                name: "content_filter",
                value: "checkpost:dummy",
                why: "mail from outside is checked after it is queued. Not for all mail in main.cf: what is checked comes \
                      back by sendmail(1), and would go round in circles",
            },
            Step::Option {
                service: "smtp/inet",
                name: "receive_override_options",
                value: "no_address_mappings",
                why: "aliases are expanded once, behind Checkpost; it sees the addresses as they came",
            },
            Step::Reload,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_recipe_and_no_option_has_blanks() {
        for kind in [crate::MILTER, crate::BEFORE_QUEUE, crate::AFTER_QUEUE, crate::PIPE] {
            let recipe = RECIPES.iter().find(|recipe| recipe.kind == kind.name).unwrap();
            assert_eq!(recipe.steps.last(), Some(&Step::Reload));
            assert!(recipe.way.contains(kind.name));
            for step in recipe.steps {
                if let Step::Option { value, .. } | Step::Append { item: value, .. } = step {
                    // postconf -P of Postfix 3.7 refuses white space.
                    assert!(!value.contains(char::is_whitespace), "{value}");
                }
            }
        }
    }
}
