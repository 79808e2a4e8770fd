//! The filter against a clamd that can be slow, cut off, silent, or lie.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fake::{Behaviour, Fake, MARKER};
use super::{Clamd, ClamdConfig, Transfer};
use crate::config::{Size, Time};
use crate::content::{Content, ContentWriter, Spool};
use crate::filter::{Context, Filter, FilterError, Unpacking};
use crate::finding::{Finding, Kind, Unscanned};
use crate::mail::{Envelope, Mail, MailId, Origin};

fn filter(address: &str, change: impl FnOnce(&mut ClamdConfig)) -> Clamd {
    let mut config = ClamdConfig { address: address.parse().unwrap(), ..ClamdConfig::default() };
    change(&mut config);
    Clamd::new("clamd", config).unwrap()
}

fn mail(content: Content) -> Mail {
    let envelope = Envelope { sender: "a@example.org".into(), recipients: vec!["b@example.org".into()] };
    Mail { id: MailId::new(), envelope, origin: Origin::inbound("test"), content }
}

fn memory(bytes: &[u8]) -> Mail {
    mail(Bytes::copy_from_slice(bytes).into())
}

fn spooled(bytes: &[u8]) -> Mail {
    let spool = Arc::new(Spool { directory: std::env::temp_dir(), memory_limit: 0 });
    let mut writer = ContentWriter::new(spool);
    writer.append(bytes).unwrap();
    mail(writer.finish())
}

async fn check_within(filter: &Clamd, mail: &Mail, time: Duration) -> Result<Vec<Finding>, FilterError> {
    filter.check(mail, &Context { deadline: Instant::now() + time, unpacking: Unpacking::default() }).await
}

async fn check(filter: &Clamd, mail: &Mail) -> Result<Vec<Finding>, FilterError> {
    check_within(filter, mail, Duration::from_secs(30)).await
}

/// Why it was not scanned. A test that waits for a time-out gives it little time.
async fn reason(filter: &Clamd, mail: &Mail, time: Duration) -> Unscanned {
    match check_within(filter, mail, time).await {
        Err(error) => error.reason,
        Ok(findings) => panic!("scanned: {findings:?}"),
    }
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);

fn text(length: usize, marker: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = b"Subject: x\r\n\r\n0123456789abcdef\r\n".iter().copied().cycle().take(length).collect();
    if marker {
        bytes.truncate(length - MARKER.len());
        bytes.extend_from_slice(MARKER);
    }
    bytes
}

#[tokio::test]
async fn every_way_of_handing_over_brings_the_exact_bytes() {
    let unix = Fake::unix(Behaviour::Honest);
    let tcp = Fake::tcp(Behaviour::Honest);
    let (small, large) = (100, 700_001);
    for (fake, transfer, in_memory, length, way) in [
        (&unix, Transfer::Auto, true, small, "stream"),
        (&unix, Transfer::Auto, true, large, "descriptor"),
        (&unix, Transfer::Auto, false, small, "descriptor"),
        (&unix, Transfer::Auto, false, large, "descriptor"),
        (&unix, Transfer::Stream, true, large, "stream"),
        (&unix, Transfer::Stream, false, large, "stream"),
        (&unix, Transfer::Stream, true, 0, "stream"),
        (&unix, Transfer::Descriptor, true, 0, "descriptor"),
        (&unix, Transfer::Descriptor, true, small, "descriptor"),
        (&tcp, Transfer::Auto, true, small, "stream"),
        (&tcp, Transfer::Auto, false, large, "stream"),
        (&tcp, Transfer::Stream, true, 256 << 10, "stream"),
    ] {
        let filter = filter(&fake.address, |config| config.transfer = transfer);
        for marker in [false, true, false] {
            let bytes = text(length, marker && length > 0);
            let mail = if in_memory { memory(&bytes) } else { spooled(&bytes) };
            let findings = check(&filter, &mail).await.unwrap();
            let log = fake.log.lock().unwrap();
            assert_eq!(log.scans.last(), Some(&(way, bytes)), "{transfer:?} {in_memory} {length}");
            let names: Vec<_> =
                findings.iter().map(|finding| (&*finding.name, finding.kind, &*finding.class)).collect();
            let expected: &[_] =
                if marker && length > 0 { &[("Fake.Marker-1", Kind::Malware, "malware")] } else { &[] };
            assert_eq!(names, expected);
        }
    }
}

#[tokio::test]
async fn one_connection_serves_many_mails() {
    let fake = Fake::unix(Behaviour::Pieces);
    let filter = filter(&fake.address, |_| ());
    *filter.0.version_asked.lock().unwrap() = Some(Instant::now());
    for marker in [true, false, true, false] {
        assert_eq!(check(&filter, &memory(&text(50, marker))).await.unwrap().len(), usize::from(marker));
    }
    assert_eq!(fake.log.lock().unwrap().connections, 1);
}

#[tokio::test]
async fn what_is_not_understood_is_neither_clean_nor_infected() {
    use Behaviour::{CloseAtOnce, Endless, Hang, Limit, Say, SayAndClose, SayEarly, SayEarlyAndClose};
    for (behaviour, reasons, time) in [
        (Say(b"1: stream: YES\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"stream: OK\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"2: stream: OK\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"1: fd[3]: OK\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"1: stream: OK\0\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"1: stream: OK\x001: stream: X FOUND\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"\xff\xfe\x01 FOUND\0"), Unscanned::UnknownAnswer, LONG),
        (Say(b"1: stream:  FOUND\0"), Unscanned::UnknownAnswer, LONG),
        (Endless, Unscanned::UnknownAnswer, LONG),
        (Say(b"1: stream: OK"), Unscanned::Timeout, SHORT),
        (Hang, Unscanned::Timeout, SHORT),
        (SayAndClose(b"1: stream: OK"), Unscanned::HalfAnswer, LONG),
        (SayAndClose(b"1: stream: X FOUND"), Unscanned::HalfAnswer, LONG),
        (SayAndClose(b""), Unscanned::HalfAnswer, LONG),
        (CloseAtOnce, Unscanned::HalfAnswer, LONG),
        (Say(b"1: stream: Can't allocate memory ERROR\0"), Unscanned::ScannerError, LONG),
        (Say(b"COMMAND READ TIMED OUT\0"), Unscanned::ScannerError, LONG),
        (SayEarlyAndClose(b"1: Some trouble. ERROR\0"), Unscanned::ScannerError, LONG),
        (Limit(99_999), Unscanned::TooLarge, LONG),
        (SayEarly(b"1: INSTREAM size limit exceeded. ERROR\0"), Unscanned::TooLarge, LONG),
        (SayEarlyAndClose(b"1: INSTREAM size limit exceeded. ERROR\0"), Unscanned::TooLarge, LONG),
    ] {
        let fake = Fake::unix(behaviour);
        let filter = filter(&fake.address, |config| config.transfer = Transfer::Stream);
        assert_eq!(reason(&filter, &memory(&text(100_000, true)), time).await, reasons, "{behaviour:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_mail_is_no_answer() {
    // More than the socket's buffers hold, so that the end cannot have been sent.
    let bytes = text(8 << 20, false);
    for said in [&b"1: stream: OK\0"[..], b"1: stream: X FOUND\0"] {
        for fake in [Fake::unix(Behaviour::SayEarlyAndClose(said)), Fake::tcp(Behaviour::SayEarlyAndClose(said))] {
            let filter = filter(&fake.address, |config| config.transfer = Transfer::Stream);
            let reason = reason(&filter, &memory(&bytes), LONG).await;
            // Over TCP the reset may throw away what was said.
            assert!(matches!(reason, Unscanned::UnknownAnswer | Unscanned::HalfAnswer), "{reason}");
        }
    }
}

#[tokio::test]
async fn nobody_there_is_refused_and_then_backed_off() {
    let fake = Fake::unix(Behaviour::Honest);
    let gone = filter(&fake.address, |_| ());
    drop(fake);
    assert_eq!(reason(&gone, &memory(b"x"), LONG).await, Unscanned::ConnectRefused);
    let start = Instant::now();
    assert_eq!(reason(&gone, &memory(b"x"), LONG).await, Unscanned::BackingOff);
    assert!(start.elapsed() < Duration::from_millis(500), "it waited");

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(reason(&filter(&address, |_| ()), &memory(b"x"), LONG).await, Unscanned::ConnectRefused);
}

#[tokio::test]
async fn it_is_found_again_after_the_pause() {
    let fake = Fake::unix(Behaviour::Honest);
    let filter = filter(&fake.address, |_| ());
    let began = Instant::now();
    filter.0.backoff.failed(began, began);
    assert_eq!(reason(&filter, &memory(b"x"), LONG).await, Unscanned::BackingOff);
    filter.0.backoff.failed(began + Duration::from_millis(1), began.checked_sub(LONG).unwrap());
    assert_eq!(check(&filter, &memory(b"x")).await.unwrap(), []);
    assert_eq!(check(&filter, &memory(MARKER)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_queue_is_a_connect_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clamd.sock");
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let filter = filter(&format!("unix:{}", path.display()), |config| config.connect_timeout = Time::milliseconds(100));
    assert_eq!(reason(&filter, &memory(b"x"), LONG).await, Unscanned::ConnectTimeout);
    assert_eq!(reason(&filter, &memory(b"x"), LONG).await, Unscanned::BackingOff);
}

#[tokio::test]
async fn above_max_size_nothing_is_sent() {
    let fake = Fake::unix(Behaviour::Honest);
    let filter = filter(&fake.address, |config| config.max_size = Size::octets(10));
    assert_eq!(reason(&filter, &memory(&[b'x'; 11]), LONG).await, Unscanned::TooLarge);
    assert_eq!(fake.log.lock().unwrap().connections, 0);
    assert_eq!(check(&filter, &memory(&[b'x'; 10])).await.unwrap(), []);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let fake = Fake::unix(Behaviour::CloseAfterAnswer);
    let filter = filter(&fake.address, |_| ());
    for marker in [false, true, true, false] {
        for length in [50, 50_000] {
            let findings = check(&filter, &memory(&text(length, marker))).await.unwrap();
            assert_eq!(findings.len(), usize::from(marker));
        }
    }
}

#[tokio::test]
async fn no_more_scans_at_once_than_configured() {
    let fake = Fake::unix(Behaviour::Honest);
    let filter = filter(&fake.address, |config| config.connections = 3);
    let mails: Vec<_> = (0..40).map(|n| memory(&text(20_000, n % 2 == 0))).collect();
    let all = futures_util::future::join_all(mails.iter().map(|mail| check(&filter, mail))).await;
    for (n, findings) in all.into_iter().enumerate() {
        assert_eq!(findings.unwrap().len(), usize::from(n % 2 == 0));
    }
    assert!(fake.log.lock().unwrap().most_at_once <= 3);

    let silent = Fake::unix(Behaviour::Hang);
    let filter = self::filter(&silent.address, |config| config.connections = 1);
    let (first, second) = (memory(b"x"), memory(b"x"));
    let (first, second) = tokio::join!(reason(&filter, &first, LONG / 60), reason(&filter, &second, SHORT));
    assert_eq!((first, second), (Unscanned::Timeout, Unscanned::Busy));
}

#[tokio::test]
async fn without_descriptor_passing_auto_streams() {
    let fake = Fake::unix(Behaviour::NoDescriptors);
    let auto = filter(&fake.address, |_| ());
    assert_eq!(check(&auto, &memory(&text(50_000, true))).await.unwrap().len(), 1);
    let only = filter(&fake.address, |config| config.transfer = Transfer::Descriptor);
    assert_eq!(reason(&only, &memory(&text(50_000, true)), LONG).await, Unscanned::ScannerError);
}

#[tokio::test]
async fn an_answer_to_a_mail_given_up_is_never_taken_for_the_next() {
    let fake = Fake::unix(Behaviour::HangOnce);
    let filter = filter(&fake.address, |_| ());
    let infected = memory(&text(60, true));
    // The engine drops a check when the mail's deadline passes.
    assert!(tokio::time::timeout(SHORT, check(&filter, &infected)).await.is_err());
    assert_eq!(check(&filter, &memory(&text(60, false))).await.unwrap(), []);
    assert_eq!(check(&filter, &infected).await.unwrap().len(), 1);
}

#[tokio::test]
async fn versions_are_told() {
    let fake = Fake::unix(Behaviour::Honest);
    let filter = filter(&fake.address, |_| ());
    assert_eq!(filter.about().data_version, None);
    let about = filter.refresh_version().await.unwrap();
    assert_eq!(about.version.as_deref(), Some("ClamAV 9.8.7"));
    assert_eq!(filter.about().data_version.as_deref(), Some("27500/Mon Nov 23 09:26:35 2026"));
}

/// Against a real clamd that knows EICAR, when `CHECKPOST_TEST_CLAMD` has its address.
#[tokio::test]
async fn a_real_clamd() -> io::Result<()> {
    let Ok(address) = std::env::var("CHECKPOST_TEST_CLAMD") else {
        println!("skipped: CHECKPOST_TEST_CLAMD does not name a clamd");
        return Ok(());
    };
    let eicar = [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat();
    let unix = address.starts_with("unix:");
    for transfer in [Transfer::Auto, Transfer::Stream, Transfer::Descriptor] {
        if transfer == Transfer::Descriptor && !unix {
            continue;
        }
        let filter = filter(&address, |config| config.transfer = transfer);
        assert!(filter.refresh_version().await.unwrap().version.is_some());
        for length in [0, 3000, 300_000, 3 << 20] {
            let clean = text(length, false);
            let infected = [&text(length, false)[..], eicar.as_bytes()].concat();
            for make in [memory, spooled] {
                assert_eq!(check(&filter, &make(&clean)).await.unwrap(), [], "{transfer:?} {length}");
                let findings = check(&filter, &make(&infected)).await.unwrap();
                assert_eq!((findings[0].kind, &*findings[0].class), (Kind::Malware, "test"), "{transfer:?} {length}");
            }
        }
        let huge = spooled(&vec![b'x'; 25 << 20 | 1]);
        assert_eq!(reason(&filter, &huge, LONG).await, Unscanned::TooLarge);
        let mails: Vec<_> = (0..200).map(|n| memory(&text(2000 + n * 100, false))).collect();
        for answer in futures_util::future::join_all(mails.iter().map(|mail| check(&filter, mail))).await {
            assert_eq!(answer.unwrap(), []);
        }
    }
    let filter = filter(&address, |config| {
        config.transfer = Transfer::Stream;
        config.max_size = Size::mebibytes(100);
    });
    let huge = spooled(&vec![b'x'; 60 << 20]);
    let reason = reason(&filter, &huge, LONG).await;
    assert!(reason == Unscanned::TooLarge || !unix && reason == Unscanned::HalfAnswer, "{reason}");
    Ok(())
}
