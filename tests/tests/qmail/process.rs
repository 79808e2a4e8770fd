//! The program as a process: what it hands on of its own, what it never starts, and what it may be deprived of.

use std::os::unix::fs::chown;
use std::path::Path;

use checkpost_tests::{Skip, skip};

use super::*;

#[test]
fn the_originals_exit_code_comes_back() {
    let scene = Scene::new("text = auto");
    let caller = scene.caller();
    for code in [0, 11, 31, 51, 53, 71, 81, 91, 100, 120] {
        scene.home.script(&[code]).unwrap();
        assert_eq!(caller.deliver(&mail(), &to(&["b@x"])).code, Some(code));
    }
    scene.home.forget().unwrap();
    // Of two contents the first is not taken: its own code. The second is not: some have it, so "later".
    for (codes, code, runs) in [(&[31, 0][..], 31, 1), (&[0, 53], 53, 2)] {
        scene.home.script(codes).unwrap();
        let left = caller.deliver(&mail(), &to(&["b@x", "tag@x"]));
        assert_eq!((left.code, scene.home.started()), (Some(code), runs), "{left:?}");
        scene.home.forget().unwrap();
    }
    fs::remove_file(scene.home.bin("qmail-queue")).unwrap();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert_eq!(left.reply, "451 unable to exec qq (#4.3.0)", "{left:?}");
    assert!(left.log.contains("qmail-queue"), "{left:?}");
}

#[test]
fn the_original_gets_the_process_as_the_caller_made_it() {
    let scene = Scene::new("text = auto");
    let mut caller = scene.caller().with("KEPT", "yes");
    caller.before = "umask 027; exec 9</dev/null 7</dev/null".into();
    if rustix::process::geteuid().is_root() {
        caller.uid = Some(65_534);
        // As in qmail-queue's place: the caller may run it, and not read it.
        fs::set_permissions(&scene.program, PermissionsExt::from_mode(0o711)).unwrap();
    }
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert_eq!(left.code, Some(0), "{left:?}");
    let call = scene.home.calls().remove(0);
    let about = |name: &str| call.about(name).unwrap_or_default();
    let uid = caller.uid.unwrap_or_else(|| rustix::process::getuid().as_raw()).to_string();
    assert_eq!((about("uid"), about("effective")), (&*uid, &*uid));
    assert_eq!((about("umask"), about("offset0"), about("offset1")), ("27", "0", "0"));
    assert_eq!(about("folder"), fs::canonicalize(scene.home.path()).unwrap().to_str().unwrap());
    assert_eq!(about("env KEPT"), "yes");
    assert_eq!(call.about("env QMAILQUEUE"), None, "it would start us again");
    for number in ["3:", "4:", "7:", "9:"] {
        assert!(!about("descriptors").split(' ').any(|one| one.starts_with(number)), "{}", about("descriptors"));
    }
    scene.home.forget().unwrap();
    let words = "554 Message contains malware (Eicar-Test-Signature) (#5.7.1)";
    refused(&scene, &caller.deliver(&infected(), &to(&["b@x"])), words);
}

#[test]
fn the_original_has_the_callers_signals_and_its_noise_is_not_the_programs() {
    let scene = Scene::new("");
    // Without a fork, for which a shell blocks signals.
    let script = "#!/bin/sh\nwhile read -r line; do echo \"$line\"; done < /proc/self/status > log/signals\n\
                  echo noise\necho noise >&2\ncat > log/message\nexit 31\n";
    fs::remove_file(scene.home.bin("qmail-queue")).unwrap();
    fs::write(scene.home.bin("qmail-queue"), script).unwrap();
    fs::set_permissions(scene.home.bin("qmail-queue"), PermissionsExt::from_mode(0o755)).unwrap();
    let left = scene.caller().deliver(&mail(), &to(&["b@x"]));
    assert_eq!((left.code, &*left.log), (Some(31), "noise\n"), "{left:?}");
    assert_eq!(fs::read(scene.home.path().join("log/message")).unwrap(), mail());
    let mask = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let signals = fs::read_to_string(scene.home.path().join("log/signals")).unwrap();
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    // 13: every caller in qmail ignores SIGPIPE. What is blocked here is blocked there.
    assert_eq!(mask(&signals, "SigIgn:") & 1 << 12, 1 << 12, "{signals}");
    assert_eq!(mask(&signals, "SigBlk:"), mask(&own, "SigBlk:"), "{signals}");
}

/// Set-uid is not needed; where somebody does it, what the caller says of itself must not count.
#[test]
fn with_more_rights_than_the_caller_it_believes_nothing_of_the_environment() {
    if !rustix::process::geteuid().is_root() {
        return skip(&Skip("another user can only be played by root".into()));
    }
    let scene = Scene::new("text = sagredo");
    let mut caller = scene.caller().with("RELAYCLIENT", "").with("ERROR_FD", "6");
    caller.uid = Some(65_533);
    let origins =
        || scene.log().lines().filter(|line| line.contains("mail done")).map(str::to_owned).collect::<Vec<_>>();
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    let own = caller.deliver(&infected(), &to(&["b@x"]));
    assert_eq!(own.code, Some(88), "it may name a descriptor of its own: {own:?}");
    assert!(origins().iter().all(|line| line.contains("origin=submission client=192.0.2.7")), "{:?}", origins());
    chown(&scene.program, Some(65_534), None).unwrap();
    fs::set_permissions(&scene.program, PermissionsExt::from_mode(0o4755)).unwrap();
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    let line = origins().pop().unwrap();
    assert!(line.contains("origin=inbound") && !line.contains("192.0.2.7"), "{line}");
    let set_uid = caller.deliver(&infected(), &to(&["b@x"]));
    assert_eq!(set_uid.code, Some(31), "{set_uid:?}");
}

#[test]
fn in_the_originals_place_it_never_starts_itself() {
    let scene = Scene::new("");
    let conf = fs::read_to_string(scene.home.bin("checkpost-qmail.conf")).unwrap();
    let without_original: String =
        conf.lines().filter(|line| !line.starts_with("original")).map(|line| format!("{line}\n")).collect();
    fs::write(scene.home.bin("checkpost-qmail.conf"), without_original).unwrap();
    fs::rename(scene.home.bin("qmail-queue"), scene.home.bin("qmail-queue.orig")).unwrap();
    let place = scene.home.install(&scene.program, "qmail-queue").unwrap();
    let caller = Caller::new(&place, scene.home.path()).without("QMAILQUEUE");
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    // Saved over the original, linked, or named by another way: it is itself.
    let original = scene.home.bin("qmail-queue.orig");
    for make in [
        |from: &Path, to: &Path| fs::hard_link(from, to),
        |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to),
    ] {
        fs::remove_file(&original).unwrap();
        make(&place, &original).unwrap();
        let left = caller.deliver(&mail(), &to(&["b@x"]));
        refused(&scene, &left, "451 qq internal bug (#4.3.0)");
        assert!(left.log.contains("qmail-queue.orig"), "{left:?}");
    }
    // A copy is another file, and goes by the same settings.
    fs::remove_file(&original).unwrap();
    fs::copy(&place, &original).unwrap();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert!(left.reply.starts_with("451 ") && scene.home.started() == 0, "{left:?}");
    // A program that starts us again, in its own place or beside it.
    for start in ["exec", "env"] {
        fs::remove_file(&original).unwrap();
        fs::write(&original, format!("#!/bin/sh\n{start} '{}'\n", place.display())).unwrap();
        fs::set_permissions(&original, PermissionsExt::from_mode(0o755)).unwrap();
        let left = caller.deliver(&mail(), &to(&["b@x"]));
        refused(&scene, &left, "451 qq internal bug (#4.3.0)");
        assert!(left.log.contains("leads back to this program"), "{left:?}");
    }
}

#[test]
fn it_works_under_a_tight_softlimit() {
    let scene = Scene::new("");
    let mut caller = scene.caller();
    // softlimit -m sets these four (softlimit(8)).
    caller.before = "ulimit -d 8000; ulimit -s 8000; ulimit -l 8000; ulimit -v 8000".into();
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    // The stub holds all of it.
    passes(&scene, &caller, &large(2), &to(&["b@x"]));
    // Too tight to start: temporary, whatever it is that fails.
    caller.before = "ulimit -v 500".into();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert!(left.reply.starts_with("451 ") && scene.home.started() == 0, "{left:?}");
    // A file that may not grow: nothing is half stored.
    caller.before = "ulimit -f 100".into();
    let left = caller.deliver(&large(5), &to(&["b@x"]));
    assert!(left.reply.starts_with("451 ") && scene.home.started() == 0, "{left:?}");
}

#[test]
fn without_a_log_an_envelope_or_a_spool_nothing_is_lost() {
    let mut scene = Scene::new("");
    let mut caller = scene.caller();
    caller.before = "exec 1>&-".into();
    let left = caller.deliver(&mail(), &to(&["b@x"]));
    assert_eq!((left.code, scene.home.started()), (Some(54), 0), "{left:?}");
    // A large message cannot be stored, a small one needs no folder.
    caller.before.clear();
    fs::remove_dir(scene.home.path().join("spool")).unwrap();
    let left = caller.deliver(&large(2), &to(&["b@x"]));
    refused(&scene, &left, "451 qq write error or disk full (#4.3.0)");
    assert!(left.log.contains("message: cannot be stored: ") && left.log.contains("/spool: "), "{left:?}");
    passes(&scene, &caller, &mail(), &to(&["b@x"]));
    for before in ["exec 2>&-", "exec 2>/dev/full"] {
        caller.before = before.into();
        passes(&scene, &caller, &mail(), &to(&["b@x"]));
    }
    scene.daemon.take().unwrap().kill().unwrap();
    for before in ["exec 2>&-", "exec 2>/dev/full"] {
        caller.before = before.into();
        let left = caller.deliver(&mail(), &to(&["b@x"]));
        refused(&scene, &left, "451 communication with mail server failed (#4.4.2)");
    }
}
