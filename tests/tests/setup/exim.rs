//! Exim, in all its ways and both of Debian's layouts.

use checkpost_tests::{Exim, Root};

use crate::host::{ALICE, Host, SENDER, SOON, clean, infected, same};

fn exim(split: bool) -> Exim {
    let exim = Exim::new().alias("staff: alice");
    if split { exim.split() } else { exim }
}

/// From nothing to proved filtering, once more, and back, in both layouts.
fn there_and_back(method: &str, words: &[&str], refused_in_session: bool) {
    for split in [false, true] {
        let Some(host) = Host::start(&exim(split), None) else { return };
        let before = host.snapshot();
        let apply = [&["apply", method, "--yes", "--set", "to=staff@example.test"], words].concat();
        let said = host.expect(0, &apply);
        assert!(said.contains("Mail is filtered."), "{said}\n{}", host.said());
        for proof in ["a clean mail", "EICAR, the virus test", "GTUBE, the spam test", "without the daemon, fail-"] {
            assert!(said.contains(&format!("ok   {proof}")), "{said}\n{}", host.said());
        }
        assert!(said.contains("one copy was delivered"), "an alias is expanded once: {said}\n{}", host.said());
        let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
        assert!(again.contains("Nothing is to be done"), "{again}");
        host.expect(0, &["check"]);
        assert!(host.root.wait_queue_empty(SOON), "{}", host.said());
        let there = host.root.mailbox("alice").len();
        assert_eq!(host.send(&infected()).accepted(), !refused_in_session, "{}", host.said());
        // Behind it a clean one: when that is there, the other would be.
        assert!(host.send(&clean()).accepted(), "{}", host.said());
        assert!(host.root.wait_queue_empty(SOON), "{}", host.said());
        assert_eq!(host.root.wait_mailbox("alice", there + 1, SOON).len(), there + 1, "{}", host.said());
        host.expect(0, &["undo", "--yes"]);
        same(&before, &host.snapshot());
        host.flows_as_before();
    }
}

#[test]
fn exim_by_local_scan() {
    there_and_back("exim-local-scan", &[], true);
}

#[test]
fn exim_by_local_scan_that_is_left_out_when_down() {
    there_and_back("exim-local-scan", &["--set", "when_down=open"], true);
}

#[test]
fn exim_by_a_transport() {
    there_and_back("exim-transport", &[], false);
}

#[test]
fn exim_by_a_transport_at_other_ports() {
    there_and_back("exim-transport", &["--set", "port=10026", "--set", "back_port=10027"], false);
}

#[test]
fn exim_by_a_program() {
    there_and_back("exim-pipe", &[], false);
}

#[test]
fn exim_by_a_program_that_lets_pass_when_down() {
    there_and_back("exim-pipe", &["--set", "when_down=open"], false);
}

#[test]
fn exim_by_clamd() {
    there_and_back("exim-clamd", &[], true);
}

#[test]
fn exim_by_clamd_that_lets_pass_when_down() {
    there_and_back("exim-clamd", &["--set", "when_down=open"], true);
}

#[test]
fn exim_by_spamd() {
    there_and_back("exim-spamd", &[], true);
}

#[test]
fn exim_by_spamd_that_lets_pass_when_down() {
    there_and_back("exim-spamd", &["--set", "when_down=open"], true);
}

#[test]
fn exim_by_rspamd() {
    there_and_back("exim-rspamd", &[], true);
}

#[test]
fn exim_by_rspamd_that_lets_pass_when_down() {
    there_and_back("exim-rspamd", &["--set", "when_down=open"], true);
}

/// By default it is local_scan, whatever the layout.
#[test]
fn exim_by_default() {
    let Some(host) = Host::start(&exim(true), None) else { return };
    let before = host.snapshot();
    let said = host.expect(0, &["--yes", "--set", "to=staff@example.test"]);
    assert!(said.contains("Plan: exim-local-scan") && said.contains("Mail is filtered."), "{said}");
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
}

/// What was put off while Checkpost was down has a retry time, which an undo does not wait for.
#[test]
fn what_waits_in_exims_queue_is_delivered_after_an_undo() {
    for method in ["exim-transport", "exim-pipe"] {
        let Some(host) = Host::start(&exim(false), None) else { return };
        host.expect(0, &["apply", method, "--yes", "--no-prove"]);
        host.shell("/etc/init.d/checkpost stop");
        assert!(host.send(&clean()).accepted(), "{}", host.said());
        assert!(host.root.wait_log(" == alice@example.test R=checkpost", SOON), "{}", host.said());
        assert_eq!((host.root.queue_len(), host.root.mailbox("alice").len()), (1, 0), "{}", host.said());
        host.expect(0, &["undo", "--yes"]);
        assert_eq!(host.root.wait_mailbox("alice", 1, SOON).len(), 1, "{}", host.said());
        assert!(host.root.wait_queue_empty(SOON), "{}", host.said());
    }
}

/// Macros and options that others have set, and an ACL that others have put into Debian's place for it.
#[test]
fn settings_of_others_go_together_with_ours() {
    let theirs = "MAIN_ACL_CHECK_RCPT = acl_check_rcpt\nMESSAGE_SIZE_LIMIT = 20M\nsmtp_accept_max = 100\n\
                  CHECK_DATA_LOCAL_ACL_FILE = /etc/exim4/local_data_acl\n";
    let acl = "deny\n  condition = ${if match{$h_subject:}{not here}}\n  message = Not this subject\naccept\n";
    for (method, split) in [("exim-transport", false), ("exim-transport", true), ("exim-clamd", true)] {
        let exim = exim(split).main(theirs).file("local_data_acl", acl);
        let Some(host) = Host::start(&exim, None) else { return };
        let before = host.snapshot();
        let said = host.expect(0, &["apply", method, "--yes", "--set", "to=staff@example.test"]);
        assert!(said.contains("Mail is filtered."), "{said}\n{}", host.said());
        let told = host.send(b"Subject: not here\r\n\r\ntext\r\n");
        assert!(format!("{told:?}").contains("Not this subject"), "{told:?} {}", host.said());
        host.expect(0, &["undo", "--yes"]);
        same(&before, &host.snapshot());
        host.flows_as_before();
    }
}

/// Exim keeps what a scan said for the next mail of the connection, which must not be taken for an answer.
#[test]
fn without_the_daemon_the_last_answer_is_not_the_next() {
    let Some(host) = Host::start(&exim(false), None) else { return };
    host.expect(0, &["apply", "exim-rspamd", "--yes", "--no-prove", "--set", "when_down=open"]);
    let mut client = Root::client(&host.root).unwrap();
    assert!(!client.mail(SENDER, &[ALICE], &infected()).unwrap().accepted(), "{}", host.said());
    host.shell("/etc/init.d/checkpost stop");
    assert!(client.mail(SENDER, &[ALICE], &clean()).unwrap().accepted(), "{}", host.said());
}

#[test]
fn a_configuration_written_by_hand_is_not_touched() {
    let Some(host) = Host::start(&exim(false), None) else { return };
    host.shell("cp /var/lib/exim4/config.autogenerated /etc/exim4/exim4.conf");
    let before = host.snapshot();
    let said = host.expect(1, &["apply", "exim-transport", "--yes"]);
    assert!(said.contains("written by hand") && said.contains("configure_mta recipe exim-transport"), "{said}");
    same(&before, &host.snapshot());
}
