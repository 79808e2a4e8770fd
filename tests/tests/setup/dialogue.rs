//! Bare `configure_mta` at a terminal, before a real Postfix: from the first question to filtered mail, and a "no".
//! The screens are golden files in `screens`.

use checkpost_tests::Terminal;

use crate::host::{Host, clean, infected, same};
use crate::postfix::{MILTER, postfix};

const DOWN: &str = "\x1b[B";

fn start(host: &Host, words: &[&str]) -> Terminal {
    let mut command = host.root.command("env");
    command.args(["TERM=xterm", "NO_COLOR=1", "/opt/checkpost/configure_mta"]).args(words);
    Terminal::start(&command, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup/screens")).unwrap()
}

#[test]
fn a_person_is_led_from_an_untouched_postfix_to_filtered_mail_and_back() {
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    let before = host.snapshot();
    let mut terminal = start(&host, &[]);
    terminal.shows("How is Checkpost to get its mail?", "1-method");
    terminal.types("\r");
    terminal.shows("What becomes of mail", "2-when-down");
    terminal.types("\r");
    terminal.shows("Whose mail", "3-scope");
    terminal.types("\r");
    terminal.shows("Make these changes?", "4-plan");
    terminal.types("y\r");
    terminal.until(|screen| screen.contains("Send test mails through it?"));
    terminal.types("\r");
    assert_eq!(terminal.ends(), Some(0), "{terminal:?}");
    let seen = terminal.lines();
    for proof in ["a clean mail", "EICAR, the virus test", "GTUBE, the spam test", "without the daemon, fail-closed"] {
        assert!(seen.contains(&format!("ok   {proof}")), "{seen}\n{}", host.said());
    }
    assert!(seen.ends_with("Mail is filtered.\n"), "{seen}");
    assert!(!host.send(&infected()).accepted() && host.send(&clean()).accepted(), "{}", host.said());
    let mut terminal = start(&host, &["undo"]);
    terminal.shows("Take it back?", "5-undo");
    terminal.types("\r");
    assert_eq!(terminal.ends(), Some(0), "{terminal:?}");
    same(&before, &host.snapshot());
    host.flows_as_before();
}

#[test]
fn a_no_changes_nothing() {
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    let before = host.snapshot();
    for answer in ["n\r", "\r", "\x1b"] {
        let mut terminal = start(&host, &[]);
        terminal.until(|screen| screen.contains("How is Checkpost"));
        // Another way than the first: it asks for ports.
        terminal.types(DOWN);
        terminal.until(|screen| screen.contains("> postfix-before-queue"));
        terminal.types("\r");
        terminal.until(|screen| screen.contains("Which port of 127.0.0.1 does Checkpost take?"));
        terminal.types("\r");
        terminal.until(|screen| screen.contains("At which port"));
        terminal.types("\r");
        terminal.until(|screen| screen.contains("Make these changes?"));
        terminal.types(answer);
        assert_eq!(terminal.ends(), Some(1), "{answer:?} {terminal:?}");
        same(&before, &host.snapshot());
    }
    host.flows_as_before();
}
