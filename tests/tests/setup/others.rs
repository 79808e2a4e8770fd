//! Sendmail and Courier.

use checkpost_tests::{Courier, Recipe, Sendmail};

use crate::host::{Host, infected, same};

fn there_and_back(recipe: &dyn Recipe, milter: Option<&str>, words: &[&str]) {
    let Some(host) = Host::start(recipe, milter) else { return };
    let before = host.snapshot();
    let apply = [&["--yes", "--set", "to=staff@example.test"], words].concat();
    let said = host.expect(0, &apply);
    assert!(said.contains("Mail is filtered.") && said.contains("one copy was delivered"), "{said}\n{}", host.said());
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    assert!(!host.send(&infected()).accepted(), "{}", host.said());
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
    host.flows_as_before();
}

#[test]
fn sendmail_there_and_back() {
    there_and_back(&Sendmail::new().alias("staff: alice"), Some("/run/checkpost"), &[]);
}

#[test]
fn sendmail_left_out_when_down() {
    there_and_back(&Sendmail::new().alias("staff: alice"), Some("/run/checkpost"), &["--set", "when_down=open"]);
}

#[test]
fn courier_there_and_back() {
    there_and_back(&Courier::new().alias("staff: alice"), None, &[]);
}
