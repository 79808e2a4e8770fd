//! The same with systemd, as on most machines: the unit in the place of a script in /etc/init.d.

use std::time::{Duration, Instant};

use checkpost_tests::{Courier, Exim, Postfix, Recipe, Sendmail};

use crate::host::{Host, SOON, infected, same};

/// What a unit has to say of itself.
fn property(host: &Host, name: &str) -> String {
    host.shell(&format!("systemctl show checkpost --property={name} --value")).trim().to_owned()
}

/// Kills the daemon, and returns when the next one serves.
fn killed(host: &Host) {
    let pid = property(host, "MainPID");
    let end = Instant::now() + SOON;
    host.shell(&format!("kill -KILL {pid}"));
    while [&*pid, "0"].contains(&&*property(host, "MainPID")) || property(host, "ActiveState") != "active" {
        assert!(Instant::now() < end, "{} {}", property(host, "Result"), host.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn there_and_back(recipe: &dyn Recipe, words: &[&str], refused_in_session: bool) {
    let Some(host) = Host::boot(recipe) else { return };
    let before = host.snapshot();
    let said = host.expect(0, &[&["--yes", "--set", "to=staff@example.test"], words].concat());
    assert!(said.contains("Mail is filtered.") && said.contains("one copy was delivered"), "{said}\n{}", host.said());
    assert!(said.contains("ok   without the daemon"), "{said}");
    assert_eq!(property(&host, "ActiveState"), "active");
    assert_eq!(property(&host, "UnitFileState"), "enabled");
    assert_eq!(property(&host, "User"), "checkpost");
    assert_eq!(property(&host, "ProtectSystem"), "strict");
    let unit = match recipe.name() {
        "postfix" => "postfix@-.service",
        "exim" => "exim4.service",
        "courier" => "courier-mta.service",
        _ => "sendmail.service",
    };
    assert_eq!(host.shell(&format!("systemctl is-active {unit}")).trim(), "active");
    let later = property(&host, "Before");
    assert!(later.split(' ').any(|other| other == unit), "{unit} is not started after Checkpost: {later}");
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    assert_eq!(host.send(&infected()).accepted(), !refused_in_session, "{}", host.said());
    // A daemon that is killed comes back by itself.
    killed(&host);
    host.expect(0, &["check"]);
    host.expect(0, &["undo", "--yes"]);
    assert_eq!(property(&host, "LoadState"), "not-found");
    same(&before, &host.snapshot());
    host.flows_as_before();
}

#[test]
fn a_daemon_that_fails_again_and_again_is_started_again_and_again() {
    let Some(host) = Host::boot(&Postfix::new()) else { return };
    host.expect(0, &["--yes", "--set", "prove=no"]);
    // systemd's own limit is five starts in ten seconds.
    for _ in 0..7 {
        killed(&host);
    }
    assert!(!host.send(&infected()).accepted(), "{}", host.said());
}

#[test]
fn postfix_by_milter() {
    there_and_back(&Postfix::new().alias("staff: alice"), &[], true);
}

#[test]
fn postfix_after_its_queue() {
    let words = ["--set", "method=postfix-after-queue"];
    there_and_back(&Postfix::new().alias("staff: alice"), &words, false);
}

#[test]
fn postfix_by_a_program() {
    there_and_back(&Postfix::new().alias("staff: alice"), &["--set", "method=postfix-pipe"], false);
}

#[test]
fn sendmail_by_milter() {
    there_and_back(&Sendmail::new().alias("staff: alice"), &[], true);
}

#[test]
fn exim_by_local_scan() {
    there_and_back(&Exim::new().alias("staff: alice"), &[], true);
}

#[test]
fn exim_by_a_transport() {
    there_and_back(&Exim::new().alias("staff: alice"), &["--set", "method=exim-transport"], false);
}

#[test]
fn exim_by_a_program() {
    there_and_back(&Exim::new().split().alias("staff: alice"), &["--set", "method=exim-pipe"], false);
}

#[test]
fn exim_by_rspamd() {
    there_and_back(&Exim::new().alias("staff: alice"), &["--set", "method=exim-rspamd"], true);
}

#[test]
fn courier_by_its_filter() {
    there_and_back(&Courier::new().alias("staff: alice"), &[], true);
}
