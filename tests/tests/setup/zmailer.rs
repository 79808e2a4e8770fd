//! ZMailer, in all its ways: the driver in its place, which reads the same files, and a real one, where there is one.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use checkpost_tests::zmailer::{StandIn, ZMailer};
use checkpost_tests::{Builder, StartError};

use crate::host::{Host, Snapshot, infected, programs, same, walk};

/// All that a set-up may touch of ZMailer's, but for what the router compiles of it.
fn snapshot(host: &Host) -> Snapshot {
    let mut all = host.snapshot();
    walk(&host.root, "/opt/zmailer/share/smtpserver.conf", &mut all);
    walk(&host.root, "/opt/zmailer/share/cf/process.cf", &mut all);
    walk(&host.root, "/opt/zmailer/var/db", &mut all);
    walk(&host.root, "/run/checkpost-zmailer/filter.sock", &mut all);
    all
}

/// The driver, and a real one unless there is none.
fn hosts(with: impl Fn(Builder<'static>) -> Builder<'static>) -> Vec<Host> {
    let program = Path::new(env!("CARGO_BIN_EXE_stub-zmailer"));
    let driver = with(StandIn::root(program).bind(programs(), "/opt/checkpost")).start();
    let real = ZMailer::home()
        .map_err(StartError::from)
        .and_then(|home| with(ZMailer::root(home).bind(programs(), "/opt/checkpost")).start());
    [driver, real].into_iter().filter_map(Host::of).collect()
}

/// Mails in alice's mailbox.
fn mailbox(host: &Host) -> usize {
    let text = fs::read(host.root.path("/var/mail/alice")).unwrap_or_default();
    let text = format!("\n{}", String::from_utf8_lossy(&text));
    text.matches("\nFrom ").count() + host.root.mailbox("alice").len()
}

/// ZMailer's scheduler now and then misses the word of a mail, and comes to it a minute later.
const LATE: Duration = Duration::from_secs(180);

fn flows_as_before(host: &Host) {
    let before = mailbox(host);
    for mail in [infected(), crate::host::clean()] {
        assert!(host.send(&mail).accepted(), "{}", said(host));
    }
    let end = Instant::now() + LATE;
    while mailbox(host) < before + 2 {
        assert!(Instant::now() < end, "{}", said(host));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn said(host: &Host) -> String {
    let read = |path| fs::read_to_string(host.root.path(path)).unwrap_or_default();
    let parts = ["/var/log/mail/smtpserver", "/var/log/mail/router", "/var/log/checkpost-zmailer.log"];
    let last =
        |text: String| text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    format!("{}\n{}", parts.map(|part| format!("{part}\n{}", last(read(part)))).join("\n"), host.said())
}

fn there_and_back(words: &[&str], proofs: &[&str], refused_in_session: bool) {
    for host in hosts(|root| root) {
        one_there_and_back(&host, words, proofs, refused_in_session);
    }
}

fn one_there_and_back(host: &Host, words: &[&str], proofs: &[&str], refused_in_session: bool) {
    let before = snapshot(host);
    let apply = [&["--yes", "--set", "to=alice@example.test"], words].concat();
    let done = host.expect(0, &apply);
    assert!(done.contains("Mail is filtered."), "{done}\n{}", said(host));
    assert!(["one copy was delivered", "no copy was seen"].iter().any(|seen| done.contains(seen)), "{done}");
    for proof in proofs {
        assert!(done.contains(proof), "{proof}: {done}");
    }
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    assert_eq!(host.send(&infected()).accepted(), !refused_in_session, "{}", said(host));
    host.expect(0, &["undo", "--yes"]);
    same(&before, &snapshot(host));
    flows_as_before(host);
}

const CLOSED: &str = "without the daemon, fail-closed";
const OPEN: &str = "without the daemon, fail-open";

#[test]
fn zmailer_by_socket_there_and_back() {
    there_and_back(&[], &[CLOSED, "filter.sock can be reached by daemon"], true);
}

#[test]
fn zmailer_by_program_there_and_back() {
    there_and_back(&["--set", "method=zmailer-smtp/program"], &[CLOSED], true);
}

#[test]
fn zmailer_by_program_left_out_when_down() {
    there_and_back(&["--set", "method=zmailer-smtp/program", "--set", "when_down=open"], &[OPEN], true);
}

#[test]
fn zmailer_before_its_router_there_and_back() {
    there_and_back(&["--set", "method=zmailer-router"], &[CLOSED, "it waited in the queue"], false);
}

#[test]
fn a_filter_of_zmailers_that_is_gone_is_told_by_check_and_started_again() {
    for host in hosts(|root| root) {
        let before = snapshot(&host);
        let apply = ["--yes", "--set", "prove=no"];
        host.expect(0, &apply);
        host.shell("kill -KILL $(cat /run/checkpost-zmailer.pid)");
        assert!(host.send(&infected()).accepted(), "it was refused without a filter");
        let told = host.expect(1, &["check"]);
        assert!(told.contains("TROUBLE not so: unix:/run/checkpost-zmailer/filter.sock can be reached"), "{told}");
        host.expect(0, &apply);
        host.expect(0, &["check"]);
        assert!(!host.send(&infected()).accepted(), "{}", said(&host));
        host.expect(0, &["undo", "--yes"]);
        same(&before, &snapshot(&host));
    }
}

/// systemd holds the socket, so a filter that is killed costs no mail.
#[test]
fn zmailer_by_socket_with_systemd() {
    for host in hosts(Builder::boots) {
        one_there_and_back(&host, &[], &[CLOSED, "filter.sock can be reached by daemon"], true);
        host.expect(0, &["--yes", "--set", "prove=no"]);
        for _ in 0..5 {
            host.shell("systemctl kill --signal=KILL checkpost-zmailer.service");
            assert!(!host.send(&infected()).accepted(), "{}", said(&host));
        }
        let property = |name: &str| {
            host.shell(&format!("systemctl show checkpost-zmailer.service --property={name} --value")).trim().to_owned()
        };
        assert_eq!((property("User"), property("UnitFileState")), ("daemon".into(), "enabled".into()));
        host.expect(0, &["undo", "--yes"]);
        assert_eq!(property("LoadState"), "not-found");
    }
}
