//! The recipes for the ways after Exim's queue: by a transport, and by a program.

use checkpost_adapter::setup::Recipe;

use super::{
    MACROS, ONE_FILE, OWN_MAIN, OWN_RETRY, OWN_ROUTER, OWN_TRANSPORT, Place, RETRY, ROUTERS, SPLIT, Step, TEMPLATE,
    TRANSPORTS,
};

/// What is set already is merged, or in the way: `merge.rs`.
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

/// Checkpost may take 90 s for the check and Exim 10 min to take the mail back (`check_timeout`, `hop_final_timeout`): who gave
/// up before would send it once more.
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
  final_timeout = 15m
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

const fn lines(file: &'static str, place: Place, lines: &'static str, why: &'static str) -> Step {
    Step::Lines { file, place, lines, why }
}

/// All recipes.
pub const RECIPES: [Recipe<Step>; 4] = [
    Recipe {
        kind: "exim-transport",
        method: Some(SPLIT),
        way: WAY,
        steps: &[
            lines(OWN_MAIN, Place::Whole, BACK_MAIN, WHY_BACK_MAIN),
            lines(OWN_RETRY, Place::Whole, RETRIES, WHY_RETRIES),
            lines(OWN_TRANSPORT, Place::Whole, TRANSPORT, WHY_TRANSPORT),
            lines(OWN_ROUTER, Place::Whole, ROUTER, WHY_ROUTER),
            Step::Listen,
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-transport",
        method: Some(ONE_FILE),
        way: WAY,
        steps: &[
            lines(MACROS, Place::Macros, BACK_MAIN, WHY_BACK_MAIN),
            lines(TEMPLATE, RETRY, RETRIES, WHY_RETRIES),
            lines(TEMPLATE, TRANSPORTS, TRANSPORT, WHY_TRANSPORT),
            lines(TEMPLATE, ROUTERS, ROUTER, WHY_ROUTER),
            Step::Listen,
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-pipe",
        method: Some(SPLIT),
        way: PIPE_WAY,
        steps: &[
            lines(OWN_TRANSPORT, Place::Whole, PIPE_TRANSPORT, WHY_PIPE),
            lines(OWN_ROUTER, Place::Whole, PIPE_ROUTER, WHY_ROUTER),
            Step::Restart,
        ],
    },
    Recipe {
        kind: "exim-pipe",
        method: Some(ONE_FILE),
        way: PIPE_WAY,
        steps: &[
            lines(TEMPLATE, TRANSPORTS, PIPE_TRANSPORT, WHY_PIPE),
            lines(TEMPLATE, ROUTERS, PIPE_ROUTER, WHY_ROUTER),
            Step::Restart,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_knows_the_mark_that_the_program_sets() {
        assert!(PIPE_ROUTER.contains(&format!("!eq{{$received_protocol}}{{{}}}", checkpost_pipe::exim::PROTOCOL)));
        assert!(!PIPE_TRANSPORT.contains(":77"), "a refusal is a bounce");
    }

    #[test]
    fn exim_waits_longer_than_checkpost_may_take() {
        let defaults = checkpost_smtp::Defaults::default();
        let most = defaults.check_timeout + defaults.hop_final_timeout;
        assert!(TRANSPORT.contains("final_timeout = 15m") && most.as_secs() < 15 * 60, "{most:?}");
    }
}
