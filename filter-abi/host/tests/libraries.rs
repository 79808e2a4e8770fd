//! Real libraries through the real loader: the examples do what they say, and of every misbehaviour it is told what the host
//! does about it. What would end the process is tested where the host is a child: `daemon/tests/libraries.rs`.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checkpost_filter_fixtures::{Libraries, has_compiler};
use checkpost_filter_host::{Answer, Call, Content, CreateError, Failure, Instance, Level, Library, Origin};

const MAIL: &[u8] = b"From: a@example.org\r\nSubject: You won\r\n the LOTTERY\r\n\r\nA confidential text\r\n";

fn no_log(_: Level, _: &str) {}

fn settings(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn instance(path: &Path, all: &[(&str, &str)]) -> Instance {
    Library::load(path).unwrap().create(&settings(all), &no_log).unwrap()
}

fn ask(instance: &Instance, content: &dyn Content) -> Answer {
    instance.check(&Call {
        id: "ID",
        sender: "a@example.org",
        recipients: &["b@example.net"],
        origin: Origin { way: "w", class: "inbound", ..Origin::default() },
        content,
        deadline: Instant::now() + Duration::from_secs(60),
        cancelled: &AtomicBool::new(false),
        log: &no_log,
    })
}

/// A content that is not in memory, and is read in small pieces.
struct Spooled<'a>(&'a [u8]);

impl Content for Spooled<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let few = buffer.len().min(7);
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let count = few.min(rest.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

struct InMemory<'a>(&'a [u8]);

impl Content for InMemory<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn as_slice(&self) -> Option<&[u8]> {
        Some(self.0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        Spooled(self.0).read_at(buffer, offset)
    }
}

/// A content whose disk has failed.
struct Broken;

impl Content for Broken {
    fn len(&self) -> u64 {
        100
    }

    fn as_slice(&self) -> Option<&[u8]> {
        None
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> std::io::Result<usize> {
        Err(std::io::Error::other("the disk"))
    }
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.findings.iter().map(|found| &*found.name).collect()
}

#[test]
fn the_example_in_rust_looks_at_subjects() {
    let libraries = Libraries::new();
    let path = libraries.example_rust();
    let filter = instance(&path, &[("words", "prince"), ("words", "lottery"), ("score", "2.5")]);
    assert_eq!(filter.library().name(), "subject words (example)");
    assert_eq!(filter.library().finds(), ["spam", "unscanned"]);
    for content in [&Spooled(MAIL) as &dyn Content, &InMemory(MAIL)] {
        let answer = ask(&filter, content);
        let [found] = &answer.findings[..] else { panic!("{answer:?}") };
        assert_eq!((&*found.name, found.score, found.detail.as_deref()), ("Subject.Word", 2.5, Some("lottery")));
        assert_eq!(answer.failures, []);
    }
    // As qmail and Courier show it.
    let bare: Vec<u8> = MAIL.iter().copied().filter(|octet| *octet != b'\r').collect();
    assert_eq!(ask(&filter, &InMemory(&bare)), ask(&filter, &InMemory(MAIL)));
    assert_eq!(ask(&filter, &Spooled(b"Subject: hello\r\n\r\nlottery\r\n")), Answer::default());
    let answer = ask(&filter, &Spooled(b"Subject: without an end\r\n"));
    assert_eq!(answer.failures[0].0, Failure::Unreadable);
    assert_eq!(ask(&filter, &Broken).failures[0].0, Failure::ReadError);
    let create = |all| Library::load(&path).unwrap().create(&settings(all), &no_log).unwrap_err().to_string();
    assert_eq!(create(&[("wrods", "x")]), "unknown key \"wrods\"; accepted: words, score");
    assert_eq!(create(&[("words", "x"), ("score", "NaN")]), "score: \"NaN\" where a number is wanted");
}

#[test]
fn the_example_in_c_looks_at_contents() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let filter = instance(&libraries.example_c(), &[("word", "confidential")]);
    assert_eq!(names(&ask(&filter, &Spooled(MAIL))), ["Body.Word"]);
    assert_eq!(ask(&filter, &Spooled(b"\r\n")), Answer::default());
    let answer = ask(&filter, &Broken);
    assert_eq!(answer.failures, [(Failure::ReadError, "it does not say why (code 6)".to_owned())]);
    // Over the border of two pieces.
    let mut large = vec![b'x'; 65_530];
    large.extend(b"confidential");
    large.extend([b'x'; 100_000]);
    assert_eq!(names(&ask(&filter, &Spooled(&large))), ["Body.Word"]);
    assert_eq!(names(&ask(&filter, &InMemory(&large))), ["Body.Word"]);
    let refused = Library::load(&libraries.example_c()).unwrap().create(&[], &no_log).unwrap_err();
    assert!(refused.to_string().starts_with("the setting \"word\" is missing"), "{refused}");
}

#[test]
fn a_library_is_loaded_once_and_each_instance_has_its_own_settings() {
    let libraries = Libraries::new();
    let path = libraries.example_rust();
    let (a, b) = (instance(&path, &[("words", "lottery")]), instance(&path, &[("words", "prince")]));
    // The same file by another name, which a hard link is.
    let other = libraries.folder().join("other.so");
    std::fs::hard_link(&path, &other).unwrap();
    assert_eq!(Library::load(&other).unwrap().identity(), a.library().identity());
    assert_eq!(maps(&path) + maps(&other), 1, "it is mapped more than once");
    assert_eq!(names(&ask(&a, &Spooled(MAIL))), ["Subject.Word"]);
    assert_eq!(ask(&b, &Spooled(MAIL)), Answer::default());
    drop(a);
    assert_eq!(ask(&b, &Spooled(MAIL)), Answer::default());

    // A new file in its place is another library; the old one goes on.
    let new = libraries.folder().join("new.so");
    std::fs::copy(&path, &new).unwrap();
    std::fs::rename(&new, &path).unwrap();
    let c = instance(&path, &[("words", "lottery")]);
    assert_ne!(c.library().identity(), b.library().identity());
    assert_eq!(names(&ask(&c, &Spooled(MAIL))), ["Subject.Word"]);
    assert_eq!(ask(&b, &Spooled(MAIL)), Answer::default());

    // A loaded file that was written over would crash us sooner or later.
    let file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() + 1).unwrap();
    let error = Library::load(&path).unwrap_err().to_string();
    assert!(error.starts_with("the file was changed in place since it was loaded"), "{error}");
}

/// How often the file is mapped from its beginning.
fn maps(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = path.to_str().unwrap();
    maps.lines().filter(|line| line.ends_with(path) && line.split(' ').nth(2) == Some("00000000")).count()
}

#[test]
fn what_is_no_filter_is_refused_with_its_reason() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let text = libraries.folder().join("text.so");
    std::fs::write(&text, "no library").unwrap();
    let check = |path: &Path, expected: &str| {
        for _ in 0..2 {
            let error = Library::load(path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    };
    check(&text, "the dynamic linker refuses it: file too short");
    for (variant, expected) in [
        ("NO_SYMBOL", "it has no symbol \"checkpost_filter\""),
        ("WRONG_MAGIC", "does not begin with CHECKPOST_FILTER_MAGIC but with 0x0000000000001234"),
        ("WRONG_VERSION", "it was made for version 99 of the filter ABI; this program has version 1"),
        ("WRONG_SIZE", "its descriptor says it has 72 octets; version 1 has 80"),
        ("NAME_GARBLED", "its name is not UTF-8"),
        ("NAME_NULL", "its name is NULL with a length"),
        ("NULL_CHECK", "its function \"check\" is NULL"),
        ("UNRESOLVED", "the dynamic linker refuses it: undefined symbol: there_is_no_such_function"),
    ] {
        check(&libraries.misbehaving(variant), expected);
    }
    // None of them stands in the way of a good one.
    instance(&libraries.misbehaving("GOOD"), &[]);
}

#[test]
fn garbage_makes_the_mail_count_as_not_looked_at_and_what_is_right_counts() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let cut = "x".repeat(256);
    type Failures = &'static [(Failure, &'static str)];
    let table: &[(&str, &[&str], Failures)] = &[
        ("GOOD", &["Right"], &[]),
        ("BAD_KIND", &["Right"], &[(Failure::Garbage, "it reported a finding of the unknown kind 4711")]),
        ("NULL_FINDING", &["Right"], &[(Failure::Garbage, "it reported NULL for a finding")]),
        (
            "NULL_STRING",
            &["Right", "unnamed"],
            &[(Failure::Garbage, "it reported NULL with a length for a name (and 1 more such)")],
        ),
        ("BAD_UTF8", &["Right", "A\u{fffd}(B"], &[]),
        ("NAN_SCORE", &["Right"], &[(Failure::Garbage, "it reported a score of NaN")]),
        (
            "OVERSIZE",
            &["Right", &cut],
            &[(Failure::Garbage, "it reported a name of 1048576 octets where 256 are allowed (and 2 more such)")],
        ),
        ("OLD_FINDING", &["Right"], &[(Failure::Garbage, "it reported a finding of 16 octets where there are 80")]),
        ("UNKNOWN_CODE", &["Right"], &[(Failure::Garbage, "it returned the unknown code -12345")]),
        ("COULD_NOT", &["Right"], &[(Failure::Unreadable, "no rules are loaded")]),
        ("READS", &["Right"], &[]),
    ];
    for (variant, findings, failures) in table {
        let answer = ask(&instance(&libraries.misbehaving(variant), &[]), &Spooled(MAIL));
        assert_eq!(names(&answer), *findings, "{variant}");
        let failures: Vec<_> = failures.iter().map(|(failure, text)| (*failure, (*text).to_owned())).collect();
        assert_eq!(answer.failures, failures, "{variant}");
    }
    let answer = ask(&instance(&libraries.misbehaving("MILLION"), &[]), &Spooled(MAIL));
    assert_eq!(answer.findings.len(), 1000);
    assert_eq!(answer.failures, [(Failure::Garbage, "it reported more than 1000 findings".to_owned())]);
}

#[test]
fn settings_that_are_refused_say_why() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let check = |variant: &str, expected: &CreateError| {
        let library = Library::load(&libraries.misbehaving(variant)).unwrap();
        assert_eq!(&library.create(&[], &no_log).unwrap_err(), expected);
    };
    check("CREATE_REFUSES", &CreateError::Refused("the setting \"rules\" is missing".to_owned()));
    check("CREATE_SILENT", &CreateError::Silent(1));
    check("CREATE_UNKNOWN_CODE", &CreateError::UnknownCode(77));
    let good = Library::load(&libraries.misbehaving("GOOD")).unwrap();
    assert_eq!(good.create(&settings(&[("a", "b\0")]), &no_log).unwrap_err(), CreateError::Nul("a".to_owned()));
}

/// Memory that the library never frees is its own: the host keeps copies, frees nothing and looks at nothing later.
#[test]
fn memory_that_is_never_freed_is_neither_freed_nor_read_by_the_host() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let filter = instance(&libraries.misbehaving("LEAK"), &[]);
    let answers: Vec<_> = (0..100).map(|_| ask(&filter, &Spooled(MAIL))).collect();
    for answer in answers {
        assert_eq!((names(&answer), answer.failures.len()), (vec!["Right", "Leaked"], 0));
    }
}

#[test]
fn a_panic_is_caught_in_the_library() {
    let libraries = Libraries::new();
    let path = libraries.panicking();
    let library = Library::load(&path).unwrap();
    let error = library.create(&settings(&[("panics", "create")]), &no_log).unwrap_err();
    assert_eq!(error, CreateError::Panicked("as asked in create".to_owned()));
    let answer = ask(&instance(&path, &[("panics", "check")]), &Spooled(MAIL));
    assert_eq!(names(&answer), ["Found.Before"]);
    assert_eq!(answer.failures, [(Failure::Panicked, "as asked in check".to_owned())]);
    drop(instance(&path, &[("panics", "drop")]));
    assert_eq!(ask(&instance(&path, &[]), &Spooled(MAIL)).failures, []);
}

#[test]
fn a_call_that_nobody_waits_for_is_told_so() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let filter = instance(&libraries.misbehaving("LATE"), &[]);
    let cancelled = AtomicBool::new(false);
    let call = |deadline| Call {
        id: "ID",
        sender: "",
        recipients: &["b@example.net"],
        origin: Origin::default(),
        content: &Spooled(MAIL),
        deadline,
        cancelled: &cancelled,
        log: &no_log,
    };
    // By the deadline.
    let late = filter.check(&call(Instant::now()));
    assert_eq!(late.failures[0].0, Failure::Timeout);
    // By word.
    let answer = std::thread::scope(|scope| {
        let call = call(Instant::now() + Duration::from_secs(600));
        let filter = &filter;
        let checking = scope.spawn(move || filter.check(&call));
        cancelled.store(true, Ordering::Relaxed);
        checking.join().unwrap()
    });
    assert_eq!(answer.failures[0].0, Failure::Timeout);
}

#[test]
fn a_chatty_library_does_not_fill_the_log() {
    if !has_compiler() {
        return;
    }
    let libraries = Libraries::new();
    let filter = instance(&libraries.misbehaving("CHATTY"), &[]);
    let lines = Mutex::new(Vec::new());
    let log = |level: Level, text: &str| lines.lock().unwrap().push((level, text.to_owned()));
    let answer = filter.check(&Call {
        id: "ID",
        sender: "",
        recipients: &["b@example.net"],
        origin: Origin::default(),
        content: &Spooled(MAIL),
        deadline: Instant::now() + Duration::from_secs(60),
        cancelled: &AtomicBool::new(false),
        log: &log,
    });
    assert_eq!(answer.failures, []);
    let lines = lines.into_inner().unwrap();
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[0], (Level::Warn, "line feed".to_owned()));
    assert_eq!(lines[100].1, "more lines than are written");
}
