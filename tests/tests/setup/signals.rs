//! Somebody ends `configure_mta` while it works: on a real Postfix, after each step that it tells of.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use checkpost_tests::{Courier, Exim, Postfix, Recipe, Sendmail};

use crate::host::{Host, SOON, same};

/// Runs it with `words`, and sends `signal` when it has said its `at`th step; its exit code, or `None` if it ended by the signal, and
/// what it said. `at` beyond the last step: no signal is sent.
fn signalled(host: &Host, words: &str, signal: &str, at: usize) -> (Option<i32>, String, usize) {
    let script = format!("echo $$; exec /opt/checkpost/configure_mta {words} 2>&1");
    let mut child = host.root.command("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = lines.next().unwrap();
    let (mut said, mut steps) = (String::new(), 0);
    for line in lines {
        if line.starts_with("  .. ") {
            if steps == at {
                // At the last step it may be at its end.
                host.shell(&format!("kill -{signal} {pid} 2> /dev/null || true"));
            }
            steps += 1;
        }
        said.push_str(&line);
        said.push('\n');
    }
    (child.wait().unwrap().code(), said, steps)
}

#[test]
fn a_signal_at_any_step_leaves_all_as_it_was() {
    let Some(host) = Host::start(&Postfix::new(), Some("/var/spool/postfix/checkpost")) else { return };
    let before = host.snapshot();
    let mut rolled_back = 0;
    for at in 0.. {
        let signal = ["INT", "TERM", "HUP"][at % 3];
        let (code, said, steps) = signalled(&host, "--yes", signal, at);
        if code == Some(3) {
            assert!(said.contains("interrupted by a signal") && said.contains("as it was before"), "{said}");
            same(&before, &host.snapshot());
            rolled_back += 1;
            continue;
        }
        // It came when all was in place: then it is, and is not half proved.
        if steps > at {
            assert!(said.contains("all is in place") && !said.contains("Mail is filtered."), "{at} {code:?}: {said}");
        } else {
            assert_eq!(code, Some(0), "{said}");
        }
        host.expect(0, &["check"]);
        host.expect(0, &["undo", "--yes"]);
        same(&before, &host.snapshot());
        if steps <= at {
            break;
        }
    }
    assert!(rolled_back > 10, "{rolled_back}");
    host.flows_as_before();
}

/// Waits until no command of a run that was killed is at work.
fn alone(host: &Host) {
    let end = Instant::now() + SOON;
    while host.shell(
        "flock -n /var/lib/configure_mta/lock true && echo free || [ ! -e /var/lib/configure_mta/lock ] || echo busy",
    ) == "busy\n"
    {
        assert!(Instant::now() < end, "{}", host.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn undone(host: &Host) -> String {
    alone(host);
    host.expect(0, &["undo", "--yes"])
}

/// Killed at each step on its way there, and at each step of its way back.
fn killed(recipe: &dyn Recipe, words: &str) {
    let Some(host) = Host::boot(recipe) else { return };
    let before = host.snapshot();
    for at in 0.. {
        let (code, said, steps) = signalled(&host, &format!("--yes --set prove=no {words}"), "KILL", at);
        if steps <= at {
            assert_eq!(code, Some(0), "{said}");
            break;
        }
        let healed = undone(&host);
        // One that came after the last step came too late.
        let word = if said.contains("all is in place") { "To be taken back" } else { "was put back" };
        assert!(healed.contains(word), "{at}: {said}\n{healed}");
        same(&before, &host.snapshot());
    }
    // The way back, in the same manner: each time a little further, until nothing is left.
    let mut cut_off = 0;
    for at in 0.. {
        alone(&host);
        let (_, said, steps) = signalled(&host, "undo --yes", "KILL", at);
        if steps <= at {
            break;
        }
        cut_off += usize::from(!said.contains("ok   everything"));
    }
    assert!(cut_off > 0);
    undone(&host);
    same(&before, &host.snapshot());
    host.flows_as_before();
}

#[test]
fn killed_on_postfix() {
    killed(&Postfix::new(), "");
}

#[test]
fn killed_on_postfix_after_its_queue() {
    killed(&Postfix::new(), "--set method=postfix-after-queue");
}

#[test]
fn killed_on_sendmail() {
    killed(&Sendmail::new(), "");
}

#[test]
fn killed_on_courier() {
    killed(&Courier::new(), "");
}

#[test]
fn killed_on_exim() {
    killed(&Exim::new(), "");
}

#[test]
fn killed_on_exim_after_its_queue() {
    killed(&Exim::new().split(), "--set method=exim-transport");
}

#[test]
fn a_signal_while_it_undoes_does_not_stop_it() {
    let Some(host) = Host::start(&Postfix::new(), Some("/var/spool/postfix/checkpost")) else { return };
    let before = host.snapshot();
    for signal in ["INT", "TERM", "HUP"] {
        host.expect(0, &["--yes", "--set", "prove=no"]);
        let (code, said, steps) = signalled(&host, "undo --yes", signal, 1);
        assert!(code == Some(0) && steps > 3, "{code:?} {said}");
        same(&before, &host.snapshot());
    }
    host.flows_as_before();
}
