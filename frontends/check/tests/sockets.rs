//! The check socket as it is: descriptors of all sorts, our blocking client, and users that are greedy.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::io::{IoSlice, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpost_adapter::listen::Listener;
use checkpost_adapter::pool::Pool;
use checkpost_adapter::tls::Connectors;
use checkpost_adapter::{Host, Way};
use checkpost_check::{CHECK, CheckWay, Written};
use checkpost_client::{AskError, ask, asynchronous};
use checkpost_core::config::{Document, Lists, Located, Origins, Problems};
use checkpost_core::filter::{About, Context, Unpacking};
use checkpost_core::policy::{Names, Policy};
use checkpost_core::{Engine, Filter, FilterError, Finding, Mail, Spool};
use checkpost_wire::check::{Can, Decision, Done, Form, Outcome, Part, Request};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const RULES: &str = r#"
[[rule]]
name = "tag"
when = { recipient = "tag@x" }
then = { subject_tag = "[TAG]" }

[[rule]]
name = "no"
when = { recipient = "no@x" }
then = { reject = "5.7.1 Not for you" }
"#;

/// A way on a socket, with its spool.
struct Scene {
    socket: PathBuf,
    folder: tempfile::TempDir,
    // Dropped, it would mean "drain"; the runtime serves as long as it lives.
    _drain: tokio::sync::watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

fn scene(lines: &str, memory_limit: usize) -> Scene {
    scene_with(Vec::new(), lines, memory_limit)
}

fn scene_with(filters: Vec<Arc<dyn Filter>>, lines: &str, memory_limit: usize) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("check.sock");
    let text = format!("[[way]]\nkind = \"check\"\nlisten = \"unix:{}\"\n{lines}{RULES}", socket.display());
    let mut problems = Problems::default();
    let mut document = Document::parse("test.toml", &text, &mut problems);
    let mut written: Vec<Located<Written>> = document.take_list("way", &mut problems);
    let names = Names { filters: &[], ways: &["check"], lists: &Lists::default() };
    let policy = Policy::load(&mut document, &names, &mut problems);
    problems.into_result().unwrap_or_else(|error| panic!("{text}\n{error:?}"));
    let way = Arc::new(CheckWay::new(CHECK, &written.remove(0).value, Arc::new(Origins::default())).unwrap());
    let (drain, drained) = tokio::sync::watch::channel(false);
    let spool = folder.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let host = Arc::new(Host {
        engine: Arc::new(Engine::new(filters, policy, Unpacking::default())),
        quarantine: None,
        spool: Arc::new(Spool { memory_limit, ..Spool::new(spool) }),
        pool: Pool::new(1, Duration::from_secs(1)),
        connectors: Connectors::new().unwrap(),
        drain: drained,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(Listener::bind(&way.listen()[0])).unwrap();
    runtime.spawn(async move {
        while let Ok(connection) = listener.accept().await {
            tokio::spawn(Arc::clone(&way).serve(connection, Arc::clone(&host)));
        }
    });
    Scene { socket, folder, _drain: drain, _runtime: runtime }
}

fn request(recipients: &[&str]) -> Request {
    Request {
        program: "test".into(),
        sender: b"a@x".to_vec(),
        recipients: recipients.iter().map(|to| to.as_bytes().to_vec()).collect(),
        can: Can::all() - Can::REPLY_PER_RECIPIENT,
        ..Request::default()
    }
}

fn memory(octets: &[u8]) -> File {
    let mut file = File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(octets).unwrap();
    file
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn our_client_is_answered_and_gets_changed_contents() {
    for memory_limit in [1 << 20, 16] {
        let scene = scene("", memory_limit);
        let mail = format!("Subject: a\n\n{}", "body\n".repeat(20_000));
        // Its offset is at its end, and stays there.
        let mut file = memory(mail.as_bytes());
        let mut reply = ask(&scene.socket, request(&["tag@x", "b@x"]), file.as_fd(), PATIENCE).unwrap();
        assert_eq!(file.stream_position().unwrap(), mail.len() as u64);
        assert_eq!(reply.answer.decision, Decision::Accept);
        assert_eq!(reply.answer.outcomes, [Outcome::Deliver(0), Outcome::Deliver(1)]);
        assert_eq!(
            reply.answer.contents.iter().map(|content| &content.form).collect::<Vec<_>>(),
            [&Form::Descriptor, &Form::Same]
        );
        let mut changed = String::new();
        File::from(reply.contents.remove(0).unwrap()).read_to_string(&mut changed).unwrap();
        assert_eq!(changed, mail.replace("Subject: a", "Subject: [TAG] a"));
        assert!(reply.contents.remove(0).is_none());
        reply.done(&Done::Carried).unwrap();
    }
}

/// Never answers.
struct Hanging;

#[async_trait]
impl Filter for Hanging {
    fn about(&self) -> Arc<About> {
        Arc::new(About { name: "hanging".into(), version: None, data_version: None, finds: &["unscanned"] })
    }

    async fn check(&self, _: &Mail, _: &Context) -> Result<Vec<Finding>, FilterError> {
        std::future::pending().await
    }
}

#[test]
fn a_scanner_that_hangs_is_told_before_the_client_gives_up() {
    let scene = scene_with(vec![Arc::new(Hanging)], "", 1 << 20);
    let file = memory(b"A: 1\n\n");
    let reply = ask(&scene.socket, request(&["b@x"]), file.as_fd(), Duration::from_secs(3)).unwrap();
    let Decision::Defer(reply) = &reply.answer.decision else { panic!("{:?}", reply.answer) };
    assert!(reply.contains("could not be checked"), "{reply}");
}

#[test]
fn the_daemon_has_less_time_than_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (ours, its) in [(1, 1), (3, 2), (90, 88)] {
        let asked = std::thread::scope(|threads| {
            let asked = threads.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = vec![0; 4096];
                let count = stream.read(&mut asked).unwrap();
                stream.write_all(b"checkpost-check 1\0error=busy\0\0").unwrap();
                asked.truncate(count);
                asked
            });
            let within = Duration::from_secs(ours);
            ask(&socket, request(&["b@x"]), memory(b"A: 1\n\n").as_fd(), within).unwrap_err();
            asked.join().unwrap()
        });
        let list = asked.strip_prefix(checkpost_wire::check::HELLO).unwrap();
        let request = Request::decode(checkpost_wire::check::List::new(list)).unwrap();
        assert_eq!(request.within, Some(Duration::from_secs(its)));
    }
}

#[test]
fn what_stands_before_a_message_in_its_file_is_not_the_message() {
    for memory_limit in [1 << 20, 16] {
        let scene = scene("max_size = \"1 KiB\"\n", memory_limit);
        let lines = "P I <a@x>\n\n".repeat(200);
        let mail = "Subject: a\n\nbody\n";
        let file = memory([&lines, mail].concat().as_bytes());
        let ask_at = |skip: usize| {
            let request = Request { skip: skip as u64, ..request(&["tag@x"]) };
            ask(&scene.socket, request, file.as_fd(), PATIENCE)
        };
        let mut reply = ask_at(lines.len()).unwrap();
        let mut changed = String::new();
        File::from(reply.contents.remove(0).unwrap()).read_to_string(&mut changed).unwrap();
        assert_eq!(changed, mail.replace("Subject: a", "Subject: [TAG] a"));
        // The limit is the message's.
        assert_eq!(ask_at(0).unwrap().answer.decision, Decision::Reject("552 5.3.4 Message too large".into()));
        assert_eq!(ask_at(lines.len() + mail.len()).unwrap().answer.decision, Decision::Accept);
        let beyond = ask_at(lines.len() + mail.len() + 1).unwrap_err();
        assert!(matches!(&beyond, AskError::Refused(why) if why.contains("before its length")), "{beyond:?}");
    }
}

#[test]
fn an_event_loop_has_many_mails_open_and_gets_pieces() {
    let scene = scene("", 1 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mail = b"Subject: a\n\nbody\n";
    let file = Arc::new(memory(mail));
    let one = |to: &'static str| {
        let (socket, file) = (scene.socket.clone(), Arc::clone(&file));
        async move { asynchronous::ask(&socket, request(&[to]), file.as_fd(), PATIENCE).await }
    };
    runtime.block_on(async {
        // No `done` is said meanwhile, so all are open at once.
        let asked: Vec<_> =
            (0..100).map(|number| tokio::spawn(one(if number % 2 == 0 { "tag@x" } else { "no@x" }))).collect();
        for (number, asked) in asked.into_iter().enumerate() {
            let reply = asked.await.unwrap().unwrap();
            if number % 2 == 0 {
                let parts = vec![Part::Put(17), Part::Keep(11, 6)];
                assert_eq!(reply.answer.contents[0].form, Form::Pieces(parts));
                assert_eq!(reply.octets, b"Subject: [TAG] a\n");
            } else {
                assert_eq!(reply.answer.decision, Decision::Reject("550 5.7.1 Not for you".into()));
            }
            reply.done(&Done::Carried).unwrap();
        }
    });
}

#[test]
fn an_event_loop_is_told_of_daemons_that_are_down_or_late() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let file = memory(b"A: 1\n\n");
    let socket = folder.path().join("check.sock");
    let ask = |within| runtime.block_on(asynchronous::ask(&socket, request(&["b@x"]), file.as_fd(), within));
    assert!(matches!(ask(PATIENCE), Err(AskError::Down(_))));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let short = Duration::from_millis(50);
    assert!(matches!(ask(short), Err(AskError::Late)), "nobody accepts");
    // A queue that is full.
    let _waiting: Vec<UnixStream> = std::iter::from_fn(|| {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(folder.path().join("check.sock")).unwrap())
            .is_ok()
            .then(|| socket.into())
    })
    .collect();
    assert!(matches!(ask(short), Err(AskError::Late)), "no room");
    drop(listener);
    assert!(matches!(ask(PATIENCE), Err(AskError::Down(_))));
}

#[test]
fn a_refusal_has_our_words() {
    let scene = scene("", 1 << 20);
    let reply = ask(&scene.socket, request(&["no@x"]), memory(b"A: 1\n\n").as_fd(), PATIENCE).unwrap();
    assert_eq!(reply.answer.decision, Decision::Reject("550 5.7.1 Not for you".into()));
}

/// Asks with this descriptor: what the daemon says to it.
fn said_to(scene: &Scene, descriptor: BorrowedFd<'_>) -> String {
    match ask(&scene.socket, request(&["b@x"]), descriptor, PATIENCE) {
        Ok(reply) => format!("{:?}", reply.answer.decision),
        Err(AskError::Refused(why)) => why,
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn a_descriptor_gives_no_more_than_its_holder_has() {
    let scene = scene("max_size = \"1 KiB\"\n", 1 << 20);
    let secret = scene.folder.path().join("secret");
    std::fs::write(&secret, "Subject: secret\n\n").unwrap();
    let open = |path: &Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let unreadable = "the descriptor is not open for reading";
    let no_file = "the descriptor is no regular file";
    let (end, _other) = rustix::pipe::pipe().unwrap();
    let cases: [(OwnedFd, &str); 8] = [
        (open(&secret, OFlags::RDONLY), "Accept"),
        (open(&secret, OFlags::RDWR), "Accept"),
        // Anybody who can name the file can have these two.
        (open(&secret, OFlags::PATH), unreadable),
        (open(&secret, OFlags::WRONLY), unreadable),
        (open(scene.folder.path(), OFlags::RDONLY), no_file),
        (end, no_file),
        (open(Path::new("/dev/zero"), OFlags::RDONLY), no_file),
        (memory(&[b'x'; 1025]).into(), "Reject(\"552 5.3.4 Message too large\")"),
    ];
    for (descriptor, wanted) in cases {
        assert_eq!(said_to(&scene, descriptor.as_fd()), wanted);
    }
    // What a file says of its length, it need not keep: /proc has files of length 0 with something in them.
    let longer = open(Path::new("/proc/self/environ"), OFlags::RDONLY);
    assert_eq!(said_to(&scene, longer.as_fd()), "the file goes on behind octet 0, its length");
}

#[test]
fn more_descriptors_than_requests_end_the_connection() {
    let scene = scene("", 1 << 20);
    let file = memory(b"A: 1\n\n");
    let stream = UnixStream::connect(&scene.socket).unwrap();
    let many = [file.as_fd(); 6];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(6))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
    sendmsg(&stream, &[IoSlice::new(b"checkpost")], &mut ancillary, SendFlags::empty()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&stream).read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn nobody_has_all_connections() {
    let scene = scene("max_sessions = 3\nmax_sessions_per_user = 2\ncommand_timeout = \"60s\"\n", 1 << 20);
    let hold = || {
        // Once the first request is answered, the connection is counted.
        ask(&scene.socket, request(&["b@x"]), memory(b"A: 1\n\n").as_fd(), PATIENCE).unwrap()
    };
    let held = [hold(), hold()];
    assert!(held.iter().all(|reply| reply.answer.decision == Decision::Accept));
    let third = hold();
    let Decision::Defer(reply) = &third.answer.decision else { panic!("{:?}", third.answer) };
    assert!(reply.contains("Too many connections"), "{reply}");
    drop((held, third));
    // The daemon hears of it in its own time.
    let again = std::iter::repeat_with(hold).take(1000).any(|reply| reply.answer.decision == Decision::Accept);
    assert!(again, "connections that were closed count no more");
}

#[test]
fn a_file_that_shrinks_is_not_taken_for_the_mail() {
    let scene = scene("", 1 << 20);
    let mut file = tempfile::tempfile_in(scene.folder.path()).unwrap();
    file.write_all(&vec![b'x'; 40 << 20]).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let cut = file.try_clone().unwrap();
    let said = std::thread::scope(|threads| {
        let asking = threads.spawn(|| said_to(&scene, file.as_fd()));
        while !asking.is_finished() && cut.set_len(0).is_ok() && cut.set_len(40 << 20).is_ok() {}
        asking.join().unwrap()
    });
    // Which of them is a matter of luck; never an answer about a part of it.
    let words = ["Accept", "the file ended at octet ", "the file goes on behind octet 0,"];
    assert!(words.iter().any(|word| said.starts_with(word)), "{said}");
}

#[test]
fn a_daemon_that_is_not_there_or_hangs_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let file = memory(b"A: 1\n\n");
    let asked = |within| ask(&socket, request(&["b@x"]), file.as_fd(), within).unwrap_err();
    assert!(matches!(asked(PATIENCE), AskError::Down(_)));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(asked(Duration::from_millis(200)), AskError::Late));
    let answer = |said: &'static [u8]| {
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                // The one that gave up above stands in the queue.
                while stream.write_all(said).is_err() || matches!(stream.read(&mut [0; 4096]), Ok(0) | Err(_)) {
                    stream = listener.accept().unwrap().0;
                }
            });
            asked(PATIENCE)
        })
    };
    assert!(matches!(answer(b"checkpost-check 2\0"), AskError::Malformed(_)));
    assert!(matches!(answer(b"checkpost-check 1\0answer=1\0decision=well\0\0"), AskError::Unclear(_)));
    assert!(matches!(
        answer(b"checkpost-check 1\0answer=1\0decision=accept\0outcome=discard\0\0x"),
        AskError::Malformed(_)
    ));
    assert!(matches!(answer(b"checkpost-check 1\0error=busy\0\0"), AskError::Refused(_)));
    assert!(matches!(answer(b"checkpost-check 1\0answer=1\0decision=acc"), AskError::Broken(_)));
}
