//! The mock server against a filter of a few lines that plays given answers.
//! The product's own filter is tried in `tests/milter.rs`.

use std::io::Read;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

use super::*;
use crate::mails;

const MAIL: &[u8] = b"Subject: s\r\n\r\nbody\r\n";
const ALICE: &str = "alice@example.test";

/// A filter that answers the negotiation with `agree`, each command with `c` and the end of a mail with
/// `end`. Returns the codes of all that it was sent.
struct Scripted {
    folder: tempfile::TempDir,
    serving: JoinHandle<String>,
}

impl Scripted {
    fn start(agree: [u32; 3], end: &[(u8, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let end: Vec<u8> = end.iter().flat_map(|(code, data)| packet(*code, data)).collect();
        let serving = std::thread::spawn(move || serve(listener.accept().unwrap().0, agree, &end));
        Self { folder, serving }
    }

    fn wire(&self) -> Wire {
        Wire::unix(self.folder.path().join("s")).unwrap()
    }
}

fn serve(mut mta: UnixStream, agree: [u32; 3], end: &[u8]) -> String {
    let mut codes = String::new();
    loop {
        let mut length = [0; 4];
        if mta.read_exact(&mut length).is_err() {
            return codes;
        }
        let mut octets = vec![0; u32::from_be_bytes(length) as usize];
        mta.read_exact(&mut octets).unwrap();
        codes.push(char::from(octets[0]));
        let answer = match octets[0] {
            b'O' => packet(b'O', &agree.map(u32::to_be_bytes).concat()),
            b'D' | b'A' | b'Q' => continue,
            b'E' => end.to_vec(),
            _ => packet(b'c', b""),
        };
        std::io::Write::write_all(&mut mta, &answer).ok();
    }
}

#[test]
fn each_style_says_what_its_model_says() {
    for (style, dialogue) in [(Style::Postfix, "ODCDHDMDRDTDLDNDBDEADMAAAQ"), (Style::Sendmail, "ODCDHDMDRTLNBDEDMQ")] {
        let filter = Scripted::start([6, 0x1FF, 0], &[(b'h', b"X\0y\0"), (b'c', b"")]);
        let mut mta = MockMta::new(style, Offer::FULL);
        let mut client = mta.client(filter.wire(), &Peer::default()).unwrap();
        assert!(client.mail("a@example.net", &[ALICE], MAIL).unwrap().accepted());
        client.envelope("", &[]).unwrap();
        client.reset().unwrap();
        client.quit().unwrap();
        assert_eq!(filter.serving.join().unwrap(), dialogue, "{style:?}");
        let stored = String::from_utf8(mta.mailbox("alice")[0].clone()).unwrap();
        assert!(stored.ends_with("\nSubject: s\nX: y\n\nbody\n"), "{stored}");
    }
}

#[test]
fn unedited_mail_is_stored_as_it_came() {
    let mail = mails::plain("a@example.net", ALICE, "s", ".dots\n..\nGr\u{fc}\u{df}e\n\n\n");
    for (style, offer) in [(Style::Postfix, Offer::FULL), (Style::Sendmail, Offer::OLD)] {
        let filter = Scripted::start([2, 0, 0], &[(b'a', b"")]);
        let mut mta = MockMta::new(style, offer).alias("staff", &["alice", "bob"]);
        let mut client = mta.client(filter.wire(), &Peer::default()).unwrap();
        let told = client.mail("a@example.net", &["staff@example.test", "nobody@example.test"], &mail).unwrap();
        assert_eq!(told.recipients[1].1.code, 550);
        client.quit().unwrap();
        for user in ["alice", "bob"] {
            assert!(mta.mailbox(user)[0].ends_with(&mails::as_stored(&mail)));
        }
    }
}

#[test]
fn decisions_at_the_end() {
    fn check(end: &[(u8, &[u8])], told: Option<u16>, delivered: usize, held: usize) {
        let filter = Scripted::start([6, 0x1FF, 0], end);
        let mut mta = MockMta::new(Style::Postfix, Offer::FULL);
        let mut client = mta.client(filter.wire(), &Peer::default()).unwrap();
        let code = client.mail("a@example.net", &[ALICE], MAIL).ok().map(|told| told.last().code);
        assert_eq!((code, mta.mailbox("alice").len(), mta.held_len()), (told, delivered, held), "{end:?}");
        mta.release();
        assert_eq!(mta.mailbox("alice").len(), delivered + held);
    }
    check(&[(b'c', b"")], Some(250), 1, 0);
    check(&[(b'p', b""), (b'a', b"")], Some(250), 1, 0);
    check(&[(b'y', b"550 5.7.1 no\0")], Some(550), 0, 0);
    check(&[(b'b', b"new"), (b't', b"")], Some(451), 0, 0);
    check(&[(b'd', b"")], Some(250), 0, 0);
    check(&[(b'q', b"look at it\0"), (b'a', b"")], Some(250), 0, 1);
    // Nonsense.
    check(&[(b's', b"")], None, 0, 0);
    check(&[(b'c', b"x")], None, 0, 0);
    check(&[(b'y', b"250 2.0.0 fine\0")], None, 0, 0);
    check(&[(b'z', b"")], None, 0, 0);
}

#[test]
fn a_filter_that_wants_too_much_is_refused() {
    for agree in [[7, 0, 0], [1, 0, 0], [6, 0x200, 0], [6, 0, 0x1000_0000]] {
        let filter = Scripted::start(agree, &[]);
        let mut mta = MockMta::new(Style::Postfix, Offer::FULL);
        assert!(mta.client(filter.wire(), &Peer::default()).is_err(), "{agree:?}");
    }
}
