//! CommuniGate Pro, whose settings an administrator enters: the driver in its place, since the real one is not to be had.

use std::fs;
use std::path::Path;

use checkpost_tests::communigate::StandIn;

use crate::host::{Host, infected, programs, same};

const TO: &str = "to=alice@example.test";

fn host() -> Option<Host> {
    let program = Path::new(env!("CARGO_BIN_EXE_stub-communigate"));
    let root = StandIn::root(program).bind(programs(), "/opt/checkpost").start_or_skip()?;
    Some(Host { root })
}

/// What an administrator copies from the screen to the pages: the lines below "WebAdmin, …" and "then …".
fn pages(plan: &str) -> (String, String) {
    let below = |heading: &str| {
        let lines = plan.lines().skip_while(|line| !line.trim_start().starts_with(heading)).skip(1);
        let page = lines.take_while(|line| line.trim_start().contains(": ") && !line.trim_start().starts_with("then "));
        page.map(|line| format!("{}\n", line.trim())).collect::<String>()
    };
    (below("WebAdmin, Settings, General, Helpers"), below("then Settings, Rules"))
}

fn enter(host: &Host, page: &str, text: &str) {
    fs::write(host.root.path("/var/CommuniGate").join(page), text).unwrap();
}

fn there_and_back(when_down: &str) {
    let Some(host) = host() else { return };
    let before = host.snapshot();
    let answer = format!("when_down={when_down}");
    let said = host.expect(0, &["--yes", "--set", "prove=no", "--set", TO, "--set", &answer]);
    let (helper, rule) = pages(&said);
    assert!(helper.contains("Program Path: /usr/bin/checkpost-communigate"), "{helper:?} of {said}");
    assert!(rule.contains("ExternalFilter"), "{rule:?} of {said}");
    // Nothing is entered.
    let said = host.expect(1, &["check"]);
    assert!(said.contains("TROUBLE") && said.contains("by hand"), "{said}");
    // The helper alone checks nothing: mail passes, and the proof says so.
    enter(&host, "helpers", &helper);
    let prove = ["prove", "--set", TO];
    let said = host.expect(1, &[&prove[..], &["--set", "outage=no"]].concat());
    assert!(said.contains("FAIL a clean mail") && said.contains("Checkpost has not seen the mail"), "{said}");
    assert!(said.contains("FAIL EICAR"), "{said}");
    enter(&host, "rules", &rule);
    let said = host.expect(0, &prove);
    assert!(said.contains("Mail is filtered.") && said.contains("ok   without the daemon, fail-"), "{said}");
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    let said = host.expect(0, &["undo", "--yes"]);
    assert!(said.contains("By hand: WebAdmin, Settings, Rules: delete the rule Checkpost"), "{said}");
    enter(&host, "rules", "");
    enter(&host, "helpers", "");
    same(&before, &host.snapshot());
    host.flows_as_before();
    assert!(host.send(&infected()).accepted());
}

#[test]
fn communigate_with_the_steps_by_hand_there_and_back() {
    there_and_back("closed");
}

#[test]
fn communigate_with_mail_that_passes_when_down() {
    there_and_back("open");
}
