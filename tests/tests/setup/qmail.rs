//! qmail, by both methods: the driver's programs in its places, and a real one, where there is one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use checkpost_tests::StartError;
use checkpost_tests::qmail::{Qmail, StandIn};

use crate::host::{ALICE, Host, SENDER, Snapshot, infected, programs, same, walk};

/// The driver, and a real one unless there is none.
fn hosts() -> Vec<Host> {
    let stub = Path::new(env!("CARGO_BIN_EXE_stub-qmail"));
    let driver = StandIn::root(stub).bind(programs(), "/opt/checkpost").start();
    let real = Qmail::folder()
        .map_err(StartError::from)
        .and_then(|folder| Qmail::root(folder).bind(programs(), "/opt/checkpost").start());
    [driver, real].into_iter().filter_map(Host::of).collect()
}

fn snapshot(host: &Host) -> Snapshot {
    let mut all = host.snapshot();
    for folder in ["/var/qmail/bin", "/var/qmail/control"] {
        walk(&host.root, folder, &mut all);
    }
    all
}

/// A local program's mail: does qmail-inject take it?
fn inject(host: &Host, mail: &[u8]) -> Option<i32> {
    let mut command = host.root.command_as("alice", "/var/qmail/bin/qmail-inject");
    let mut child = command.args(["-f", SENDER, ALICE]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &checkpost_tests::mails::as_stored(mail)).unwrap();
    child.wait().unwrap().code()
}

fn there_and_back(words: &[&str], local_too: bool) {
    for host in hosts() {
        one_there_and_back(&host, words, local_too);
    }
}

fn one_there_and_back(host: &Host, words: &[&str], local_too: bool) {
    let before = snapshot(host);
    let apply = [&["--yes", "--set", "to=staff@example.test"], words].concat();
    let said = host.expect(0, &apply);
    assert!(said.contains("Mail is filtered.") && said.contains("one copy was delivered"), "{said}\n{}", host.said());
    assert!(said.contains("ok   without the daemon, fail-"), "{said}");
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    assert!(!host.send(&infected()).accepted(), "{}", host.said());
    // 100: for good (qmail-inject(8)).
    assert_eq!(inject(host, &infected()), Some(if local_too { 100 } else { 0 }), "{}", host.said());
    host.expect(0, &["undo", "--yes"]);
    same(&before, &snapshot(host));
    let mode = |name: &str| {
        fs::metadata(host.root.path("/var/qmail/bin").join(name)).map(|is| is.permissions().mode() & 0o7777).ok()
    };
    assert_eq!((mode("qmail-queue"), mode("qmail-queue.orig")), (Some(0o4711), None));
    host.flows_as_before();
    assert_eq!(inject(host, &infected()), Some(0), "{}", host.said());
}

#[test]
fn qmail_in_its_queues_place_there_and_back() {
    there_and_back(&[], true);
}

#[test]
fn qmail_in_its_queues_place_left_out_when_down() {
    there_and_back(&["--set", "when_down=open"], true);
}

#[test]
fn qmail_by_its_variable_there_and_back() {
    there_and_back(&["--set", "method=qmail-queue/variable"], false);
}

#[test]
fn an_upgrade_of_qmail_is_told_by_check() {
    for host in hosts() {
        host.expect(0, &["--yes", "--set", "prove=no"]);
        host.expect(0, &["check"]);
        // As `make setup` of a new one does it.
        host.shell(
            "cd /var/qmail/bin; cp -p qmail-queue.orig new; echo >> new; chown qmailq:qmail new; chmod 4711 new; mv new qmail-queue",
        );
        let said = host.expect(1, &["check"]);
        assert!(said.contains("TROUBLE") && said.contains("qmail was upgraded"), "{said}");
        let said = host.expect(1, &["undo", "--yes"]);
        assert!(said.contains("/var/qmail/bin/qmail-queue"), "{said}");
    }
}
