//! Postfix, in all its ways.

use checkpost_tests::{Postfix, program};

use crate::host::{Host, infected, same};

fn postfix() -> Postfix {
    Postfix::new().alias("staff: alice")
}

/// From nothing to proved filtering, once more, and back.
fn there_and_back(words: &[&str], refused_in_session: bool) {
    let Some(host) = Host::start(&postfix(), Some("/var/spool/postfix/checkpost")) else { return };
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
fn a_disk_that_is_full_leaves_all_as_it_was() {
    // Room for one of the programs, and not for both.
    let sizes = ["checkpostd", "checkpost"].map(|name| std::fs::metadata(program(name)).unwrap().len() >> 20);
    let size = format!("{}m", sizes[0] + sizes[1] / 2 + 4);
    let milter = Some("/var/spool/postfix/checkpost");
    let Some(host) = Host::start_with(&postfix(), milter, &size) else { return };
    let before = host.snapshot();
    let said = host.expect(3, &["--yes"]);
    assert!(said.contains("No space left on device") && said.contains("as it was before"), "{said}");
    same(&before, &host.snapshot());
    host.flows_as_before();
}
