//! Postfix, in all its ways.

use checkpost_tests::{Postfix, mails, program};

use crate::host::{ALICE, Host, SENDER, SOON, clean, infected, same};

pub(crate) fn postfix() -> Postfix {
    Postfix::new().alias("staff: alice")
}

/// The lab's own folder for milters.
pub(crate) const MILTER: Option<&str> = Some("/var/spool/postfix/checkpost");

fn there_and_back(words: &[&str], refused_in_session: bool) {
    there_and_back_in(&postfix(), words, refused_in_session);
}

/// From nothing to proved filtering, once more, and back.
fn there_and_back_in(postfix: &Postfix, words: &[&str], refused_in_session: bool) {
    let Some(host) = Host::start(postfix, MILTER) else { return };
    let before = host.snapshot();
    let settings = host.shell("postconf -n; postconf -Mf");
    let apply = [&["--yes", "--set", "to=staff@example.test"], words].concat();
    let said = host.expect(0, &apply);
    assert!(said.contains("Mail is filtered."), "{said}");
    for proof in ["a clean mail", "EICAR, the virus test", "GTUBE, the spam test", "without the daemon, fail-"] {
        assert!(said.contains(&format!("ok   {proof}")), "{said}\n{}", host.said());
    }
    assert!(said.contains("one copy was delivered"), "an alias is expanded once: {said}\n{}", host.said());
    // Once more: nothing is to be done.
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    assert_eq!(host.send(&infected()).accepted(), !refused_in_session, "{}", host.said());
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
    assert_eq!(host.shell("postconf -n; postconf -Mf"), settings);
    host.flows_as_before();
    let again = host.expect(0, &["undo", "--yes"]);
    assert!(again.contains("nothing to undo"), "{again}");
}

#[test]
fn postfix_by_default() {
    there_and_back(&[], true);
}

#[test]
fn postfix_before_its_queue() {
    there_and_back(&["--set", "method=postfix-before-queue"], true);
}

#[test]
fn postfix_after_its_queue() {
    there_and_back(&["--set", "method=postfix-after-queue"], false);
}

#[test]
fn postfix_milter_that_is_left_out_when_down() {
    there_and_back(&["--set", "method=postfix-milter", "--set", "when_down=open"], true);
}

#[test]
fn postfix_by_a_program() {
    there_and_back(&["--set", "method=postfix-pipe"], false);
}

#[test]
fn postfix_by_a_program_that_lets_mail_pass_when_down() {
    there_and_back(&["--set", "method=postfix-pipe", "--set", "when_down=open"], false);
}

/// Debian's smtpd is chrooted; others' is not.
#[test]
fn postfix_without_a_chroot() {
    let postfix = postfix().master_cf("smtp inet n - n - - smtpd").master_cf("cleanup unix n - n - 0 cleanup");
    there_and_back_in(&postfix, &[], true);
}

/// postscreen(8) at the port, as its README has it; smtpd behind it asks the filters.
fn behind_postscreen() -> Postfix {
    postfix()
        .master_cf("smtp inet n - y - 1 postscreen")
        .master_cf("smtpd pass - - y - - smtpd")
        .master_cf("dnsblog unix - - y - 0 dnsblog")
        .master_cf("tlsproxy unix - - y - 0 tlsproxy")
}

#[test]
fn postfix_behind_postscreen_by_default() {
    there_and_back_in(&behind_postscreen(), &[], true);
}

#[test]
fn postfix_behind_postscreen_before_its_queue() {
    there_and_back_in(&behind_postscreen(), &["--set", "method=postfix-before-queue"], true);
}

/// Queued mail names its filter, so it must be queued anew when that is gone.
#[test]
fn mail_that_waits_for_the_daemon_goes_on_after_an_undo() {
    for way in ["postfix-after-queue", "postfix-pipe"] {
        let Some(host) = Host::start(&postfix(), MILTER) else { return };
        host.expect(0, &["apply", way, "--yes", "--no-prove"]);
        host.shell("/etc/init.d/checkpost stop");
        let mail = clean();
        assert!(host.root.send(SENDER, &["staff@example.test"], &mail).unwrap().accepted());
        assert!(host.root.wait_log("status=deferred", SOON), "{}", host.said());
        host.expect(0, &["undo", "--yes"]);
        let there = host.root.wait_mailbox("alice", 1, SOON);
        assert_eq!(there.len(), 1, "{way}: {}", host.said());
        assert!(there[0].ends_with(&mails::as_stored(&mail)), "{way}: {}", host.said());
        host.flows_as_before();
    }
}

/// More mails at once than there may be programs.
#[test]
fn by_a_program_many_mails_at_once_are_each_checked_once() {
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    host.expect(0, &["apply", "postfix-pipe", "--yes", "--no-prove"]);
    let count = 40;
    for _ in 0..count {
        assert!(host.root.send(SENDER, &[ALICE, "bob@example.test"], &clean()).unwrap().accepted());
    }
    let there = host.root.wait_mailbox("alice", count, SOON);
    assert!(host.root.wait_queue_empty(SOON), "{}", host.said());
    assert_eq!((there.len(), host.root.mailbox("bob").len()), (count, count), "{}", host.said());
    let log = std::fs::read_to_string(host.root.path("/var/log/checkpost.log")).unwrap();
    assert_eq!(log.matches(" mail done ").count(), count, "{log}");
}

#[test]
fn a_disk_that_is_full_leaves_all_as_it_was() {
    // Room for one of the programs, and not for both.
    let sizes = ["checkpostd", "checkpost"].map(|name| std::fs::metadata(program(name)).unwrap().len() >> 20);
    let size = format!("{}m", sizes[0] + sizes[1] / 2 + 4);
    let Some(host) = Host::start_with(&postfix(), MILTER, &size) else { return };
    let before = host.snapshot();
    let said = host.expect(3, &["--yes"]);
    assert!(said.contains("No space left on device") && said.contains("as it was before"), "{said}");
    same(&before, &host.snapshot());
    host.flows_as_before();
}
