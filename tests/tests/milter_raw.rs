//! Octets on the milter's socket that are no mail server's, or a mail server's in odd pieces. Each ends
//! with its own connection and one line in the log, and nobody else sees anything of it.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use checkpost_tests::mock_mta::{MockMta, Offer, Peer, Style, Wire, packet};
use checkpost_tests::{Daemon, mails, program};

const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";
const SOON: Duration = Duration::from_secs(30);

struct Site {
    daemon: Daemon,
    folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let config = format!(
            "[daemon]\nstate = \"{0}/state\"\n\n[[way]]\nkind = \"postfix-milter\"\nlisten = \"unix:{0}/s\"\n",
            folder.path().display()
        );
        let ready = || Wire::unix(&socket).is_ok_and(|mut wire| wire.negotiates());
        let daemon = Daemon::start_when(Command::new(program("checkpostd")), folder.path(), &config, ready).unwrap();
        Self { daemon, folder }
    }

    fn wire(&self) -> Wire {
        Wire::unix(self.socket()).unwrap()
    }

    fn socket(&self) -> impl AsRef<Path> {
        self.folder.path().join("s")
    }

    /// Lines of the log with this in them, once there are as many as wanted or no time is left.
    fn lines(&self, with: &str, wanted: usize) -> Vec<String> {
        let end = Instant::now() + SOON;
        loop {
            let log = self.daemon.log();
            let lines: Vec<String> = log.lines().filter(|line| line.contains(with)).map(str::to_owned).collect();
            if lines.len() >= wanted || Instant::now() > end {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn offer() -> Vec<u8> {
    let Offer { version, actions, steps } = Offer::FULL;
    packet(b'O', &[version, actions, steps].map(u32::to_be_bytes).concat())
}

/// Up to a mail's content.
fn begun() -> Vec<u8> {
    let mut octets = offer();
    octets.extend(packet(b'C', b"localhost\x004\0\x19127.0.0.1\0"));
    octets.extend(packet(b'H', b"client.example.net\0"));
    octets.extend(packet(b'M', b"<sender@example.net>\0"));
    octets.extend(packet(b'R', b"<alice@example.test>\0"));
    octets
}

#[test]
fn milter_port_closes_strangers_with_one_line() {
    let site = Site::start();
    // Somebody else is in the middle of it all.
    let mut mta = MockMta::new(Style::Postfix, Offer::FULL);
    let mut bystander = mta.client(site.wire(), &Peer::default()).unwrap();
    assert!(bystander.envelope(SENDER, &[ALICE]).unwrap().recipients[0].1.is_positive());
    bystander.reset().unwrap();
    let mut strangers: Vec<(&str, Vec<u8>)> = vec![
        ("SMTP", b"EHLO client.example.net\r\n".to_vec()),
        ("clamd", b"zINSTREAM\0".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0".to_vec()),
        ("length 0", [&offer()[..], &[0, 0, 0, 0]].concat()),
        ("length 4 GiB", [&offer()[..], &[255, 255, 255, 255, b'B']].concat()),
        ("length 0 first", vec![0, 0, 0, 0]),
        ("unknown code", [offer(), packet(b'?', b"")].concat()),
        ("no negotiation", packet(b'C', b"localhost\0U\0")),
        ("two negotiations", [offer(), offer()].concat()),
        ("a short offer", packet(b'O', &[0, 0, 0, 6])),
        ("a recipient of nothing", [offer(), packet(b'R', b"<a@b>\0")].concat()),
        ("an end of nothing", [offer(), packet(b'E', b"")].concat()),
    ];
    // And whatever comes to a random generator's mind, which always begins as no packet may.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    strangers.extend((0..20).map(|_| {
        let mut octets = vec![255];
        octets.extend((0..200).map(|_| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()[0]
        }));
        ("random", octets)
    }));
    let count = strangers.len();
    for (n, (who, octets)) in strangers.into_iter().enumerate() {
        let mut wire = site.wire();
        wire.send(&octets).unwrap();
        wire.set_patience(SOON).unwrap();
        let mut rest = Vec::new();
        // It closes by itself: nobody has said that no more will come.
        match wire.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{who}"),
        }
        assert_eq!(site.lines("connection closed", n + 1).len(), n + 1, "{who}: {}", site.daemon.log());
    }
    // A look at the port and half a packet.
    drop(site.wire());
    let mut half = site.wire();
    half.send(&offer()[..7]).unwrap();
    half.finish().unwrap();
    assert_eq!(site.lines("connection closed", count + 2).len(), count + 2, "{}", site.daemon.log());
    let told = bystander.mail(SENDER, &[ALICE], &mails::plain(SENDER, ALICE, "s", "text\n")).unwrap();
    assert!(told.accepted(), "{told:?}");
    bystander.quit().unwrap();
    assert!(site.daemon.stop().unwrap().success());
}

/// A mail server that is gone within a content: the line in the log says so, and nothing is left of it.
#[test]
fn milter_lost_by_its_server_leaves_a_line() {
    let site = Site::start();
    for (n, more) in [packet(b'L', b"Subject\0 x\0"), packet(b'B', b"body\r\n")].into_iter().enumerate() {
        let mut wire = site.wire();
        wire.send(&[begun(), more].concat()).unwrap();
        drop(wire);
        let lines = site.lines("mail done", n + 1);
        assert_eq!(lines.len(), n + 1, "{}", site.daemon.log());
        assert!(lines[n].contains(ALICE) && !lines[n].contains("passed"), "{}", lines[n]);
    }
    assert!(site.daemon.stop().unwrap().success());
}

#[test]
fn milter_takes_octets_one_by_one_and_a_connection_twice() {
    let site = Site::start();
    let mut octets = begun();
    octets.extend(packet(b'T', b""));
    octets.extend(packet(b'L', b"Subject\0 x\0"));
    octets.extend(packet(b'N', b""));
    octets.extend(packet(b'B', b"body\r"));
    octets.extend(packet(b'B', b"\n"));
    // Old filters are given the last of the body with the end.
    octets.extend(packet(b'E', b"more\r\n"));
    // SMFIC_QUIT_NC: the next client, without another negotiation.
    octets.extend(packet(b'K', b""));
    octets.extend(begun().split_off(offer().len()));
    octets.extend(packet(b'L', b"Subject\0 y\0"));
    octets.extend(packet(b'N', b""));
    octets.extend(packet(b'E', b""));
    octets.extend(packet(b'Q', b""));
    let mut wire = site.wire();
    wire.set_patience(SOON).unwrap();
    for octet in octets {
        wire.send(&[octet]).unwrap();
    }
    let mut answers = Vec::new();
    while let Some(answer) = wire.receive().unwrap() {
        answers.push(char::from(answer.code));
    }
    let answers: String = answers.into_iter().collect();
    assert!(answers.starts_with('O') && answers[1..].chars().all(|code| "ca".contains(code)), "{answers}");
    let lines = site.lines("mail done", 2);
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("passed")), "{lines:?}");
    assert!(lines[0].contains("size=26 ") && lines[1].contains("size=14 "), "{lines:?}");
    assert!(site.daemon.stop().unwrap().success());
}
