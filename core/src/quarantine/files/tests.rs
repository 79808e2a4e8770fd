//! The file store on a real file system: exact bytes, crashes, retention, a full disk.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::config::{Size, Time};
use crate::content::{ContentWriter, Spool};
use crate::finding::{Finding, Kind};
use crate::fit::{Answer, Loss};
use crate::mail::{Envelope, MailId, Origin};
use crate::reply::Rejection;
use crate::verdict::{Disposition, Outcome};

const DAY: Duration = Duration::from_secs(86_400);

fn config(directory: &Path) -> QuarantineConfig {
    QuarantineConfig { directory: directory.into(), ..QuarantineConfig::default() }
}

fn mail(content: impl Into<Content>) -> Mail {
    Mail {
        id: MailId::new(),
        envelope: Envelope {
            sender: "a@example.org".into(),
            recipients: vec!["b@example.org".into(), "ü@example.org".into()],
        },
        origin: Origin { client: Some("192.0.2.1".parse().unwrap()), ..Origin::inbound("gateway") },
        content: content.into(),
    }
}

fn judged(mail: &Mail) -> (Verdict, Fitted) {
    let reject = Outcome {
        disposition: Disposition::Reject(Rejection::parse("5.7.1 no").unwrap()),
        quarantine: true,
        rule: Some("no malware".into()),
        ..Outcome::deliver()
    };
    let finding = Finding::new(Kind::Malware, &"clamd".into(), "Bad\r\n\0").with_part("1.2/a.zip");
    let verdict = Verdict::uniform(&reject, mail.envelope.recipients.len(), vec![finding]);
    let mut fitted = Fitted { outcomes: verdict.outcomes.clone(), answer: Answer::ByRecipient, losses: Vec::new() };
    fitted.outcomes[1].disposition = Disposition::Discard;
    fitted.losses.push(Loss { recipient: Some(1), wanted: "reject", instead: "quarantine" });
    (verdict, fitted)
}

async fn store(quarantine: &FileQuarantine, mail: &Mail) -> Result<Arc<str>, QuarantineError> {
    let (verdict, fitted) = judged(mail);
    quarantine.store(mail, &verdict, &fitted).await
}

fn names(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn kept_since(directory: &Path, id: &str, age: Duration) {
    let record = OpenOptions::new().append(true).open(directory.join(format!("{id}.json"))).unwrap();
    record.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn bytes_and_record_are_kept_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("state/quarantine");
    let quarantine = FileQuarantine::open(config(&below)).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut spooled = ContentWriter::new(Arc::new(Spool { directory: directory.path().into(), memory_limit: 10 }));
    spooled.append(&bytes).unwrap();
    for mail in [mail(Bytes::from(bytes.clone())), mail(spooled.finish())] {
        let id = store(&quarantine, &mail).await.unwrap();
        assert_eq!(&*id, mail.id.as_str());
        let mut read = Vec::new();
        quarantine.reader().open(&id).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        let entry = quarantine.reader().show(&id).unwrap();
        assert_eq!((entry.sender.as_str(), entry.octets, entry.way.as_str()), ("a@example.org", 300_000, "gateway"));
        assert_eq!(entry.findings[0].name, "Bad\r\n\0");
        assert_eq!(entry.origin.client, mail.origin.client);
        let told: Vec<_> = entry
            .recipients
            .iter()
            .map(|to| (&*to.address, &*to.outcome, to.wanted.as_deref(), to.reply.as_deref(), to.losses.len()))
            .collect();
        assert_eq!(
            told,
            [
                ("b@example.org", "reject", None, Some("550 5.7.1 no"), 0),
                ("ü@example.org", "discard", Some("reject"), None, 1)
            ]
        );
        assert!(entry.time.ends_with('Z') && entry.time.starts_with("20"), "{}", entry.time);
        for file in ["eml", "json"] {
            let path = below.join(format!("{id}.{file}"));
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(store(&quarantine, &mail).await.is_err(), "a mail was kept twice, or overwritten");
    }
    assert_eq!(std::fs::metadata(&below).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(quarantine.reader().list().unwrap().len(), 2);
    assert_eq!(names(&below).len(), 4);
}

#[tokio::test]
async fn leftovers_of_a_crash_go_and_work_under_way_stays() {
    let directory = tempfile::tempdir().unwrap();
    let quarantine = FileQuarantine::open(config(directory.path())).unwrap();
    let whole = store(&quarantine, &mail(Bytes::from_static(b"whole"))).await.unwrap();
    let write = |name: &str| File::create(directory.path().join(name)).unwrap();
    for leftover in [".0000000000001.eml.new", ".0000000000001.json.new", "0000000000002.eml"] {
        write(leftover);
    }
    let foreign = ["notes.txt", ".hidden.new", "lost+found.eml"];
    foreign.iter().for_each(|name| drop(write(name)));
    let under_way = [".0000000000003.eml.new", "0000000000004.eml"].map(|name| {
        let file = write(name);
        file.lock().unwrap();
        (name, file)
    });
    assert_eq!(quarantine.reader().list().unwrap().len(), 1);
    let again = FileQuarantine::open(config(directory.path())).unwrap();
    let mut expected: BTreeSet<String> = foreign.map(str::to_owned).into();
    expected.extend([format!("{whole}.eml"), format!("{whole}.json")]);
    expected.extend(under_way.iter().map(|(name, _)| (*name).to_owned()));
    assert_eq!(names(directory.path()), expected);
    assert_eq!(again.reader().list().unwrap().len(), 1);
}

/// The writer is this very test, run once more as a process of its own, and killed at some moment.
#[tokio::test]
async fn what_was_told_to_be_kept_survives_a_kill() {
    const AS_WRITER: &str = "CHECKPOST_TEST_QUARANTINE_WRITER";
    let bytes = || Bytes::from(vec![b'x'; 50_000]);
    if let Some(directory) = std::env::var_os(AS_WRITER) {
        let quarantine = FileQuarantine::open(config(Path::new(&directory))).unwrap();
        loop {
            let stores = [(); 4].map(|()| async { store(&quarantine, &mail(bytes())).await.unwrap() });
            for id in futures_util::future::join_all(stores).await {
                println!("\nKEPT {id}");
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut told = BTreeSet::new();
    for round in 1..=5 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "quarantine::files::tests::what_was_told_to_be_kept_survives_a_kill", "--nocapture"])
            .env(AS_WRITER, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut ids = || lines.find_map(|line| line.strip_prefix("KEPT ").map(str::to_owned));
        told.extend((0..3 * round).map(|_| ids().expect("it keeps mails")));
        writer.kill().unwrap();
        writer.wait().unwrap();
        told.extend(std::iter::from_fn(ids));
        let reader = FileQuarantine::open(config(directory.path())).unwrap().reader();
        let listed: BTreeSet<String> = reader.list().unwrap().into_iter().map(|entry| entry.id).collect();
        assert!(listed.is_superset(&told), "{:?}", told.difference(&listed));
        let files = listed.iter().flat_map(|id| ["eml", "json"].map(|kind| format!("{id}.{kind}")));
        assert_eq!(names(directory.path()), files.collect());
        for id in &listed {
            let mut read = Vec::new();
            reader.open(id).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == bytes(), "{id} is not whole");
        }
    }
}

#[tokio::test]
async fn age_and_size_take_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let quarantine = FileQuarantine::open(config(directory.path())).unwrap();
    let mut ids = Vec::new();
    for days in [5, 40, 10, 31, 1] {
        let id = store(&quarantine, &mail(Bytes::from(vec![b'x'; 10_000]))).await.unwrap();
        kept_since(directory.path(), &id, days * DAY);
        ids.push(id);
    }
    let left = |quarantine: &FileQuarantine| -> BTreeSet<String> {
        quarantine.reader().list().unwrap().into_iter().map(|entry| entry.id).collect()
    };
    let some = |wanted: &[usize]| -> BTreeSet<String> { wanted.iter().map(|index| ids[*index].to_string()).collect() };
    let swept = quarantine.sweep().await.unwrap();
    assert_eq!((swept.old, swept.over), (2, 0));
    assert_eq!(left(&quarantine), some(&[0, 2, 4]));
    assert_eq!(names(directory.path()).len(), 6, "a mail without a record stayed");
    assert!((30_000..40_000).contains(&swept.left), "{swept:?}");

    // A smaller limit after a restart; then a mail that needs room.
    let config = QuarantineConfig { max_size: Size::octets(swept.left - 1), ..config(directory.path()) };
    let smaller = FileQuarantine::open(config).unwrap();
    assert_eq!(smaller.sweep().await.unwrap().over, 1);
    assert_eq!(left(&smaller), some(&[0, 4]));
    let new = store(&smaller, &mail(Bytes::from(vec![b'y'; 10_000]))).await.unwrap();
    let mut expected = some(&[4]);
    expected.insert(new.to_string());
    assert_eq!(left(&smaller), expected);
    let huge = store(&smaller, &mail(Bytes::from(vec![b'z'; 50_000]))).await;
    assert!(matches!(huge, Err(QuarantineError::Full)), "{huge:?}");
    assert_eq!(left(&smaller), expected, "mails made room for one that does not fit anyway");
}

#[tokio::test]
async fn stores_at_once_keep_to_the_size() {
    let directory = tempfile::tempdir().unwrap();
    let config = QuarantineConfig { max_size: Size::octets(60_000), ..config(directory.path()) };
    let quarantine = FileQuarantine::open(config).unwrap();
    let stores = (0..16).map(|_| {
        let quarantine = quarantine.clone();
        async move { store(&quarantine, &mail(Bytes::from(vec![b'x'; 10_000]))).await }
    });
    let kept = futures_util::future::join_all(stores).await.into_iter().filter(Result::is_ok).count();
    assert!(kept >= 4, "{kept}");
    let size: u64 = held(directory.path()).unwrap().iter().map(|held| held.octets).sum();
    assert!(size <= 60_000, "{size}");
    assert_eq!(quarantine.0.books().reserved, 0);
}

/// A tmpfs that ends with the test.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a small disk".into());
        }
        let point = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(point.path()).output();
        match mount {
            Ok(output) if output.status.success() => Ok(Self(point)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_leaves_nothing() {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            return;
        }
    };
    let directory = disk.0.path().join("quarantine");
    let quarantine = FileQuarantine::open(config(&directory)).unwrap();
    let small = store(&quarantine, &mail(Bytes::from_static(b"small"))).await.unwrap();
    let before = names(&directory);
    let error = store(&quarantine, &mail(Bytes::from(vec![b'x'; 100_000]))).await.unwrap_err();
    assert!(matches!(&error, QuarantineError::Io(error) if error.kind() == io::ErrorKind::StorageFull), "{error:?}");
    assert_eq!(names(&directory), before);
    assert_eq!(quarantine.0.books().reserved, 0);
    // And there is room again for what fits.
    store(&quarantine, &mail(Bytes::from_static(b"also small"))).await.unwrap();
    assert!(quarantine.reader().open(&small).is_ok());
}

#[test]
fn the_section_is_read() {
    let mut problems = crate::config::Problems::default();
    let text = "[quarantine]\nkeep_for = '7d'\nmax_size = '10 MiB'\n";
    let mut document = crate::config::Document::parse("x", text, &mut problems);
    let read: QuarantineConfig = document.take_section_or_default("quarantine", &mut problems);
    assert_eq!(problems.to_string(), "");
    assert_eq!(
        read,
        QuarantineConfig {
            keep_for: Time::seconds(7 * 86_400),
            max_size: Size::mebibytes(10),
            ..QuarantineConfig::default()
        }
    );
    assert_eq!(QuarantineConfig::default().directory, Path::new("/var/lib/checkpost/quarantine"));
}
