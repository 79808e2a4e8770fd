//! What must stand in Exim's configuration for the ways after its queue, as data: shown by `configure_mta`, used by the
//! tests against a real Exim, and explained in the README. Nothing is written from here.
//!
//! Debian has two layouts, and each way a recipe for both: many files in `conf.d`, where ours are files of their own, and
//! one file, `exim4.conf.template`, which has to be edited. The texts are the same.
//!
//! Sources: spec.txt (Exim's manual), README.Debian and update-exim4.conf(8) of exim4-config.

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Lines for a place in Exim's configuration.
    Lines {
        /// The file.
        file: &'static str,
        /// Where in it.
        place: &'static str,
        /// The lines, each with its end.
        lines: &'static str,
        /// The reason, for the administrator.
        why: &'static str,
    },
    /// Debian's list of addresses gets the one at which checked mail comes back.
    Listen,
    /// The configuration is made anew, checked, and the daemon started anew.
    Restart,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        match self {
            Self::Lines { file, place, lines, why } => {
                Entry { file: Some(file), lines: Some((place, lines)), why: Some(why), ..Entry::default() }
            }
            Self::Listen => Entry {
                file: Some("/etc/exim4/update-exim4.conf.conf"),
                run: Some(LISTEN.into()),
                undo: Some(LISTEN_NO_MORE.into()),
                why: Some(WHY_LISTEN),
                ..Entry::default()
            },
            Self::Restart => Entry { run: Some(RESTART.into()), undo: Some(RESTART.into()), ..Entry::default() },
        }
    }
}

/// An empty list means all addresses, and stays that.
const LISTEN: &str = "grep -q '127[.]0[.]0[.]1[.]10026' /etc/exim4/update-exim4.conf.conf || sed -i \
                      -e \"s/^dc_local_interfaces=''/dc_local_interfaces='0.0.0.0 ; ::0'/\" \
                      -e \"s/^dc_local_interfaces='\\(.*\\)'/dc_local_interfaces='\\1 ; 127.0.0.1.10026'/\" \
                      /etc/exim4/update-exim4.conf.conf";
const LISTEN_NO_MORE: &str = "sed -i -e \"s/^\\(dc_local_interfaces='.*\\) ; 127.0.0.1.10026'/\\1'/\" \
                              -e \"s/^dc_local_interfaces='0.0.0.0 ; ::0'/dc_local_interfaces=''/\" \
                              /etc/exim4/update-exim4.conf.conf";
const WHY_LISTEN: &str = "checked mail comes back at 127.0.0.1, port 10026. It is not checked again there: no other host may \
                          reach that port";
const RESTART: &str = "update-exim4.conf && exim4 -bV >/dev/null && service exim4 restart";

const SPLIT: &str = "in Debian's split configuration";
const WHOLE: &str = "in Debian's configuration of one file";
const NEW: &str = "the whole file";
const ANYWHERE: &str = "at its start; the file may be new";
const MACROS: &str = "/etc/exim4/exim4.conf.localmacros";
const TEMPLATE: &str = "/etc/exim4/exim4.conf.template";
const ROUTERS: &str = "below the line \"begin routers\"";
const TRANSPORTS: &str = "below the line \"begin transports\"";
const RETRY: &str = "below the line \"begin retry\"";

/// Options may stand once in the whole configuration: whoever has one of these already changes that one.
const BACK_MAIN: &str = "\
# Checkpost: the port at which checked mail comes back takes all from this host.
MAIN_ACL_CHECK_MAIL = ${if eq{$received_port}{10026}{accept hosts = 127.0.0.1\\n control = dkim_disable_verify}{acl_check_mail}}
MAIN_ACL_CHECK_RCPT = ${if eq{$received_port}{10026}{accept hosts = 127.0.0.1}{acl_check_rcpt}}
MAIN_ACL_CHECK_DATA = ${if eq{$received_port}{10026}{accept hosts = 127.0.0.1}{acl_check_data}}
MESSAGE_SIZE_LIMIT = ${if eq{$received_port}{10026}{0}{50M}}
smtp_accept_max = 40
smtp_accept_reserve = 20
smtp_reserve_hosts = 127.0.0.1
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
";
const WHY_BACK_MAIN: &str = "what the first listener decided stays decided; clients from outside cannot take the connections \
                             that checked mail comes back by; and no mail that comes back is left to the next queue run";

const ROUTER: &str = "\
checkpost:
  driver = manualroute
  domains = *
  condition = ${if !eq{$received_port}{10026}}
  transport = checkpost
  route_list = * 127.0.0.1 byname
  self = send
  no_verify
  no_expn
";
const WHY_ROUTER: &str = "every mail goes to Checkpost first, bounces and local mail as well, save what came back; addresses \
                          are verified and aliases expanded as before";

const TRANSPORT: &str = "\
checkpost:
  driver = smtp
  protocol = lmtp
  port = 10025
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_chunking =
  hosts_try_prdr =
  connection_max_messages = 1
  max_rcpt = 0
";
const WHY_TRANSPORT: &str = "LMTP, so that each recipient has an answer of its own";

const RETRIES: &str = "127.0.0.1  *  F,2h,1m; F,4d,15m\n";
const WHY_RETRIES: &str = "after an outage of Checkpost all mail would wait for 15 minutes, and now does for one";

const PIPE_ROUTER: &str = "\
checkpost:
  driver = accept
  condition = ${if !eq{$received_protocol}{checkpost}}
  transport = checkpost
  no_verify
  no_expn
";

/// Exim bounces what a signal, a time-out or a code that is not in `temp_errors` ends: so all of them are named.
const PIPE_TRANSPORT: &str = "\
checkpost:
  driver = pipe
  command = /usr/bin/checkpost-pipe exim --exim-uid $exim_uid --caller-uid $originator_uid
  user = Debian-exim
  group = Debian-exim
  use_bsmtp
  message_prefix = \"XFORWARD IDENT=$message_exim_id PROTO=${sg{$received_protocol}{[^!-*,-<>-~]}{?}}\\
    ${if def:sender_host_address{ ADDR=${if isip6{$sender_host_address}{IPV6:}}$sender_host_address}}\\
    ${if def:sender_host_name{ NAME=${sg{$sender_host_name}{[^!-*,-<>-~]}{?}}}}\\
    ${if def:sender_helo_name{ HELO=${sg{$sender_helo_name}{[^!-*,-<>-~]}{?}}}}\\n\\
    ${if def:authenticated_id{XCLIENT LOGIN=${sg{$authenticated_id}{[^!-*,-<>-~]}{?}}\\n}}\"
  message_suffix =
  batch_max = 500
  return_fail_output
  log_fail_output
  log_defer_output
  temp_errors = 1:2:64:65:66:67:68:69:70:71:72:73:74:75:76:78:101:126:127
  timeout = 15m
  timeout_defer
  freeze_signal
  freeze_exec_fail
";
const WHY_PIPE: &str = "one program for each mail, which ends with 77 for a refusal and else with 0 or 75; nothing but 77 makes \
                        Exim bounce. The envelope goes as batched SMTP: Exim bounces what a stranger's address in a command \
                        line would hand over";

const WAY: &str = "[[way]]\nkind = \"exim-transport\"\nlisten = \"127.0.0.1:10025\"\nprotocol = \"lmtp\"\n\
                   hop_protocol = \"smtp\"\nnext_hop = \"127.0.0.1:10026\"\n";
const PIPE_WAY: &str = "[[way]]\nkind = \"exim-pipe\"\nlisten = \"unix:/run/checkpost/pipe.sock\"\n";

/// All recipes.
pub const RECIPES: [Recipe<Step>; 4] = [
    Recipe {
        kind: "exim-transport",
        method: Some(SPLIT),
        way: WAY,
        steps: &[
            Step::Lines {
                file: "/etc/exim4/conf.d/main/010_checkpost",
                place: NEW,
                lines: BACK_MAIN,
                why: WHY_BACK_MAIN,
            },
            Step::Lines { file: "/etc/exim4/conf.d/retry/10_checkpost", place: NEW, lines: RETRIES, why: WHY_RETRIES },
            Step::Lines {
                file: "/etc/exim4/conf.d/transport/35_checkpost",
                place: NEW,
                lines: TRANSPORT,
                why: WHY_TRANSPORT,
            },
            Step::Lines { file: "/etc/exim4/conf.d/router/050_checkpost", place: NEW, lines: ROUTER, why: WHY_ROUTER },
            Step::Listen,
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-transport",
        method: Some(WHOLE),
        way: WAY,
        steps: &[
            Step::Lines { file: MACROS, place: ANYWHERE, lines: BACK_MAIN, why: WHY_BACK_MAIN },
            Step::Lines { file: TEMPLATE, place: RETRY, lines: RETRIES, why: WHY_RETRIES },
            Step::Lines { file: TEMPLATE, place: TRANSPORTS, lines: TRANSPORT, why: WHY_TRANSPORT },
            Step::Lines { file: TEMPLATE, place: ROUTERS, lines: ROUTER, why: WHY_ROUTER },
            Step::Listen,
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-pipe",
        method: Some(SPLIT),
        way: PIPE_WAY,
        steps: &[
            Step::Lines {
                file: "/etc/exim4/conf.d/transport/35_checkpost",
                place: NEW,
                lines: PIPE_TRANSPORT,
                why: WHY_PIPE,
            },
            Step::Lines {
                file: "/etc/exim4/conf.d/router/050_checkpost",
                place: NEW,
                lines: PIPE_ROUTER,
                why: WHY_ROUTER,
            },
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-pipe",
        method: Some(WHOLE),
        way: PIPE_WAY,
        steps: &[
            Step::Lines { file: TEMPLATE, place: TRANSPORTS, lines: PIPE_TRANSPORT, why: WHY_PIPE },
            Step::Lines { file: TEMPLATE, place: ROUTERS, lines: PIPE_ROUTER, why: WHY_ROUTER },
            Step::Restart,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport;

    #[test]
    fn every_kind_has_a_recipe_for_both_layouts() {
        for kind in [transport::TRANSPORT, transport::PIPE] {
            let methods: Vec<_> =
                RECIPES.iter().filter(|recipe| recipe.kind == kind.name).map(|recipe| recipe.method).collect();
            assert_eq!(methods, [Some(SPLIT), Some(WHOLE)]);
        }
        for recipe in RECIPES {
            assert!(recipe.way.contains(&format!("\"{}\"", recipe.kind)));
            assert_eq!(recipe.steps.last(), Some(&Step::Restart));
            for step in recipe.steps {
                if let Step::Lines { lines, place, .. } = step {
                    assert!(lines.ends_with('\n') && !lines.contains("\n\n"), "{lines}");
                    assert!([NEW, ANYWHERE, ROUTERS, TRANSPORTS, RETRY].contains(place));
                }
            }
        }
    }

    #[test]
    fn the_router_knows_the_mark_that_the_program_sets() {
        assert!(PIPE_ROUTER.contains(&format!("!eq{{$received_protocol}}{{{}}}", checkpost_pipe::exim::PROTOCOL)));
        assert!(!PIPE_TRANSPORT.contains(":77"), "a refusal is a bounce");
    }
}
