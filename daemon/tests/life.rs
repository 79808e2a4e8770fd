//! The daemon's life, with the real program: start, reload, drain, end, and an admin socket that
//! takes no harm.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use checkpostd::admin::{Client, Request, Response};
use checkpostd::report::{Circumstances, Outlook};
use rustix::process::Signal;

use harness::{Daemon, PATIENCE};

fn way(name: &str, port: u16) -> String {
    format!(
        "[[way]]\nkind = \"smtp-proxy\"\nname = {name:?}\nlisten = \"127.0.0.1:{port}\"\nnext_hop = \"127.0.0.1:9\"\n"
    )
}

/// Free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A client that has read the banner.
fn client(port: u16) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = BufReader::new(stream);
    let mut banner = String::new();
    client.read_line(&mut banner).unwrap();
    assert!(banner.starts_with("220 "), "{banner}");
    client
}

fn say(client: &mut BufReader<TcpStream>, line: &str) -> String {
    client.get_mut().write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_line(&mut answer).unwrap();
    answer
}

#[test]
fn a_wrong_configuration_is_told_whole_with_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[daemon]\nstate = 5\n[[way]]\nkind = 'smtp-prxy'\n[filtr]\n[[rule]]\nname = 'x'\nwhen = { findng = 'malware' }\nthen = { reject = 'no' }\n";
    let (status, log) = Daemon::start_with(config, folder).end();
    assert_eq!(status.code(), Some(78), "{log}");
    for expected in [
        ":2:9: daemon.state:",
        ":4:8: way[0].kind: unknown kind of way \"smtp-prxy\"; did you mean \"smtp-proxy\"?",
        ":5:2: filtr: unknown section",
        ":8:10: rule[0].when.findng: unknown key",
    ] {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
}

#[test]
fn an_address_in_use_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[daemon]\nstate = {:?}\n{}", folder.path().join("state"), way("a", port));
    let (status, log) = Daemon::start_with(&config, folder).end();
    assert_eq!(status.code(), Some(71), "{log}");
    assert!(log.contains(&format!("cannot listen at 127.0.0.1:{port}")), "{log}");
}

#[test]
fn a_reload_opens_closes_and_keeps_and_a_wrong_one_changes_nothing() {
    let [a, b] = [port(), port()];
    let mut daemon = Daemon::start("", &way("a", a));
    let mut session = client(a);
    let old = std::fs::read_to_string(daemon.config()).unwrap();

    std::fs::write(daemon.config(), "[[way]]\nkind = 'none'\n").unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration not reloaded; the old one stays in force");
    assert!(daemon.log.contains("checkpost.toml:2:8: way[0].kind: unknown kind of way"), "{}", daemon.log);
    client(a);
    assert_eq!(daemon.status().reloads, 0);

    std::fs::write(daemon.config(), old.replace(&way("a", a), &way("b", b))).unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration reloaded");
    client(b);
    assert!(TcpStream::connect(("127.0.0.1", a)).is_err(), "the old way is still open");
    assert!(say(&mut session, "NOOP\r\n").starts_with("250"), "a session was dropped");
    let status = daemon.status();
    assert_eq!((status.reloads, &*status.ways[0].name), (1, "b"));
}

#[test]
fn the_end_waits_for_sessions_and_takes_no_new_ones() {
    let port = port();
    let mut daemon = Daemon::start("drain_time = '20s'", &way("a", port));
    let session = client(port);
    daemon.signal(Signal::TERM);
    daemon.wait_for("ending");
    // The session between two mails is told to go (RFC 5321 section 3.8: 421), and the program ends.
    let begin = Instant::now();
    let rest: Vec<String> = session.lines().map_while(Result::ok).collect();
    let (status, log) = daemon.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(begin.elapsed() < Duration::from_secs(15), "it waited for the whole of drain_time");
    assert!(rest.first().is_none_or(|line| line.starts_with("421")), "{rest:?}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn garbage_at_the_admin_socket_does_no_harm() {
    let port = port();
    let daemon = Daemon::start("", &way("a", port));
    let long = vec![b'x'; (1 << 20) + 1];
    let early = b"{\"request\":\"check\",\"octets\":10}\nabc".to_vec();
    let huge = b"{\"request\":\"check\",\"octets\":18446744073709551615}\n".to_vec();
    for garbage in
        [b"\n".to_vec(), b"\0\xff\n".to_vec(), b"{}\n".to_vec(), b"{\"request\":\"nope\"}\n".to_vec(), early, huge]
    {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("{\"problem\":"), "{answer} to {}", String::from_utf8_lossy(&garbage));
    }
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    // It may be closed before we are done.
    let _ = stream.write_all(&long);
    assert_eq!(daemon.status().sessions, 0);
    client(port);
}

#[test]
fn messages_are_checked_over_the_admin_socket() {
    let daemon = Daemon::start("memory_limit = '1 KiB'", &way("a", port()));
    let gtube = ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat();
    let spam = format!("Subject: s\n\n{gtube}\n");
    let large = format!("Subject: l\n\n{}", "0123456789\n".repeat(10_000));
    for (message, expected) in
        [("A: b\n\nc\n", Outlook::Deliverable), (&large, Outlook::Deliverable), (&spam, Outlook::RefusedOrChanged)]
    {
        let mut client = Client::connect(&daemon.socket()).unwrap();
        let request = Request::Explain { octets: message.len() as u64, circumstances: Circumstances::default() };
        let Response::Report(report) = client.ask(&request, Some(&mut message.as_bytes()), PATIENCE).unwrap() else {
            panic!("no report")
        };
        assert_eq!(report.outlook, expected, "{report:?}");
        assert_eq!(report.octets as usize, message.len() + message.matches('\n').count());
        assert_eq!(report.ways.len(), 1);
    }
}
