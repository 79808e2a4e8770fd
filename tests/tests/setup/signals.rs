//! Somebody ends `configure_mta` while it works: on a real Postfix, after each step that it tells of.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use checkpost_tests::Postfix;

use crate::host::{Host, same};

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
                host.shell(&format!("kill -{signal} {pid}"));
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
