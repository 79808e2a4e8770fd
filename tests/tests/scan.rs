//! Checkpost in a scanner's place: real clamdscan, spamc and rspamc ask it, in a root where no scanner runs. The daemon
//! runs in the root, too, so that both mean the same by the name of a file.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use checkpost_tests::{Daemon, Root, Scanners, mails, program};

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "no spam"
when = { score = ">= 15" }
then = { reject = "5.7.1 Message looks like spam" }

[[rule]]
name = "tag"
when = { header = { name = "Subject", contains = "tag me" } }
then = { subject_tag = "[TAG]", add_header = "X-Checked: yes" }

[[rule]]
name = "not for Bob"
when = { recipient = "bob@example.test" }
then = { reject = "5.7.1 Bob gets nothing" }
"#;

/// A daemon in a root, both gone when dropped.
struct Scene {
    root: Root,
    daemon: Option<Daemon>,
    /// Seen under the same name on both sides.
    folder: tempfile::TempDir,
}

impl Scene {
    /// `None`: skipped. `filters`: of the configuration.
    fn start(filters: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("checkpost-scan-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(folder.path().join("mails")).unwrap();
        let programs = program("checkpostd").parent().unwrap().to_owned();
        let here = folder.path().to_str().unwrap();
        let root = Root::of(&Scanners).bind(folder.path(), here).bind(programs, "/lab/bin").start_or_skip()?;
        for (file, text) in [
            ("unix.conf", format!("LocalSocket {here}/clamd.sock\n")),
            ("tcp.conf", "TCPSocket 3310\nTCPAddr 127.0.0.1\n".to_owned()),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let config = format!(
            "[daemon]\nstate = \"{here}\"\n\
             [[way]]\nkind = \"scan-clamd\"\nlisten = [\"unix:{here}/clamd.sock\", \"127.0.0.1:3310\"]\n\
             paths = [\"{here}/mails\"]\nmax_size = \"64 MiB\"\n\
             [[way]]\nkind = \"scan-spamd\"\nlisten = [\"unix:{here}/spamd.sock\", \"127.0.0.1:783\"]\n\
             [[way]]\nkind = \"scan-rspamd\"\nlisten = \"127.0.0.1:11334\"\n{filters}{RULES}"
        );
        let socket = folder.path().join("clamd.sock");
        let ready = || UnixStream::connect(&socket).is_ok();
        let command = root.command("/lab/bin/checkpostd");
        let daemon = Daemon::start_when(command, folder.path(), &config, ready).unwrap();
        Some(Self { root, daemon: Some(daemon), folder })
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join("mails").join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn run(&self, program: &str, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.root.command(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|threads| {
            // It may end without having read all.
            threads.spawn(move || stdin.write_all(input).is_ok());
            child.wait_with_output().unwrap()
        })
    }

    /// The exit code and what was said.
    fn said(&self, program: &str, words: &[&str], input: &[u8]) -> (i32, String) {
        let output = self.run(program, words, input);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap_or(-1), text)
    }

    fn clamdscan(&self, config: &str, words: &[&str], files: &[&Path]) -> (i32, String) {
        let config = format!("--config-file={}", self.folder.path().join(config).display());
        let mut all = vec![&*config, "--no-summary"];
        all.extend(words);
        all.extend(files.iter().map(|file| file.to_str().unwrap()));
        self.said("clamdscan", &all, b"")
    }

    fn closing_lines(&self) -> Vec<String> {
        let log = self.daemon.as_ref().unwrap().log();
        log.lines().filter(|line| line.contains("mail done")).map(str::to_owned).collect()
    }
}

fn mail(subject: &str, text: &str) -> Vec<u8> {
    mails::plain("sender@example.net", "alice@example.test", subject, text)
}

fn virus() -> Vec<u8> {
    mails::with_attachment("sender@example.net", "alice@example.test", "x", "a.zip", &mails::eicar_in_nested_zip())
}

/// A filter that nobody answers for.
const DOWN: &str = "[filter.clamd]\naddress = \"unix:/nonexistent\"\n";

#[test]
fn clamdscan_in_all_its_ways() {
    let Some(scene) = Scene::start("") else { return };
    let clean = scene.file("clean", &mail("x", "text\n"));
    let eicar = scene.file("eicar", &virus());
    let spam = scene.file("spam", &mail("x", &mails::gtube()));
    // Above the limit for contents in memory.
    let large = scene.file("large", &mail("x", &"0123456789abcdef\n".repeat(1 << 20)));
    let larger = scene.file("larger", &vec![b'x'; 65 << 20]);
    let ways: [(&str, &[&str]); 6] = [
        ("unix.conf", &[]),
        ("unix.conf", &["--fdpass"]),
        ("unix.conf", &["--stream"]),
        ("unix.conf", &["--multiscan", "--fdpass"]),
        ("unix.conf", &["--multiscan", "--stream"]),
        ("tcp.conf", &[]),
    ];
    for (config, words) in ways {
        let check = |file: &Path, code: i32, wanted: &str| {
            let (exit, said) = scene.clamdscan(config, words, &[file]);
            assert!(exit == code && said.contains(wanted), "{config} {words:?} {}: {exit}: {said}", file.display());
        };
        check(&clean, 0, "clean: OK");
        check(&eicar, 1, "eicar: Eicar-Test-Signature FOUND");
        check(&spam, 1, "spam: Checkpost.Spam.GTUBE FOUND");
        check(&large, 0, "large: OK");
        check(&larger, 2, "ERROR");
        // Several files: with --multiscan in one session.
        let (exit, said) = scene.clamdscan(config, words, &[&clean, &eicar, &large, &spam, &clean]);
        assert_eq!(
            (exit, said.matches(": OK").count(), said.matches(" FOUND").count()),
            (1, 3, 2),
            "{words:?}: {said}"
        );
    }
    assert!(
        scene.closing_lines().iter().any(|line| line.contains("way=scan-clamd") && line.contains("<> rejected (550"))
    );
    // Only what is allowed may be named; whoever may read a file can still pass it.
    let (exit, said) = scene.clamdscan("unix.conf", &[], &[Path::new("/etc/passwd")]);
    assert!(exit == 2 && said.contains("not beneath a folder that is allowed"), "{exit}: {said}");
    let link = scene.folder.path().join("mails/link");
    std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
    let mut socket = UnixStream::connect(scene.folder.path().join("clamd.sock")).unwrap();
    socket.write_all(format!("SCAN {}\n", link.display()).as_bytes()).unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.contains("link: not beneath a folder that is allowed ERROR"), "{said}");
    let (exit, said) = scene.clamdscan("unix.conf", &["--fdpass"], &[Path::new("/etc/passwd")]);
    assert!(exit == 0 && said.contains("OK"), "{exit}: {said}");
    let (exit, said) = scene.clamdscan("unix.conf", &["--version"], &[]);
    assert!(exit == 0 && said.contains("ClamAV ") && said.contains("(Checkpost "), "{exit}: {said}");
    let (exit, said) = scene.clamdscan("unix.conf", &["--ping", "1"], &[]);
    assert!(exit == 0, "{exit}: {said}");
}

#[test]
fn what_was_not_scanned_is_an_error_for_each_client() {
    let Some(scene) = Scene::start(DOWN) else { return };
    let clean = scene.file("clean", &mail("x", "text\n"));
    for words in [&[][..], &["--stream"], &["--fdpass"], &["--multiscan", "--stream"]] {
        let (exit, said) = scene.clamdscan("unix.conf", words, &[&clean]);
        assert!(exit == 2 && said.contains("could not be checked"), "{words:?}: {exit}: {said}");
    }
    let text = mail("x", "text\n");
    for words in [&["-c", "-x"][..], &["-x"], &["-R", "-x"], &["-E", "-x"]] {
        let all: Vec<&str> = ["-d", "127.0.0.1"].iter().chain(words).copied().collect();
        let (exit, said) = scene.said("spamc", &all, &text);
        // sysexits.h: none of them is 0 or 1, which are spamc's "ham" and "spam".
        assert!(exit >= 64, "{words:?}: {exit}: {said}");
    }
    let (exit, said) = scene.said("rspamc", &["-h", "127.0.0.1:11334", clean.to_str().unwrap()], b"");
    assert!(exit == 0 && said.contains("Action: soft reject"), "{exit}: {said}");
    let lines = scene.closing_lines();
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("deferred (451 4.7.1 Message could not be checked")), "{lines:?}");
}

#[test]
fn spamc_in_all_its_ways() {
    let Some(scene) = Scene::start("") else { return };
    let socket = scene.folder.path().join("spamd.sock").to_str().unwrap().to_owned();
    let (clean, spam) = (mail("x", "text\n"), mail("x", &mails::gtube()));
    for to in [&["-d", "127.0.0.1"][..], &["-U", &socket]] {
        let spamc = |words: &[&str], input: &[u8]| scene.said("spamc", &[to, &["-x"], words].concat(), input);
        assert_eq!(spamc(&["-c"], &clean), (0, "0.0/15.0\n".into()));
        assert_eq!(spamc(&["-c"], &spam), (1, "1000.0/15.0\n".into()));
        let virus = virus();
        assert_eq!(spamc(&["-c"], &virus), (1, "15.0/15.0\n".into()));
        let (exit, said) = spamc(&["-R"], &spam);
        assert!(exit == 0 && said.starts_with("1000.0/15.0\nCheckpost: Message looks like spam"), "{exit}: {said}");
        let (exit, said) = spamc(&["-r"], &clean);
        assert_eq!((exit, &*said), (0, ""));
        let (exit, said) = spamc(&["-y"], &spam);
        assert!(exit == 0 && said.contains("GTUBE"), "{exit}: {said}");
        // The mail itself comes back.
        let (exit, said) = spamc(&["-E"], &clean);
        let wanted =
            format!("X-Spam-Status: No, score=0.0 required=15.0 tests=\r\n{}", String::from_utf8_lossy(&clean));
        assert_eq!((exit, said), (0, wanted));
        let (exit, said) = spamc(&["-E"], &spam);
        assert!(
            exit == 1 && said.starts_with("X-Spam-Flag: YES\r\nX-Spam-Status: Yes, score=1000.0"),
            "{exit}: {said}"
        );
        let tagged = mail("tag me", "text\n");
        let wanted = |rest: &str| {
            format!(
                "{rest}X-Checked: yes\r\n{}",
                String::from_utf8_lossy(&tagged).replace("Subject: ", "Subject: [TAG] ")
            )
        };
        let status = "X-Spam-Status: No, score=0.0 required=15.0 tests=\r\n";
        assert_eq!(spamc(&[], &tagged), (0, wanted(status)));
        assert_eq!(spamc(&["--headers"], &tagged), (0, wanted(status)));
        let large = mail("tag me", &"0123456789abcdef\n".repeat(1 << 17));
        let (exit, said) = spamc(&["-s", "100000000"], &large);
        assert!(
            exit == 0 && said.len() > large.len() && said.contains("Subject: [TAG] tag me"),
            "{exit}: {}",
            said.len()
        );
        let (exit, said) = spamc(&["-K"], b"");
        assert_eq!(exit, 0, "{said}");
        let (exit, said) = spamc(&["-L", "spam"], &spam);
        assert!(exit != 0, "nothing is learned: {exit}: {said}");
    }
    // Without -x spamc lets a mail through when something is wrong; that is spamc's own way.
    drop(scene.daemon);
}

#[test]
fn rspamc_tells_the_envelope_and_shows_the_answer() {
    let Some(scene) = Scene::start("") else { return };
    let file = |name: &str, content: &[u8]| scene.file(name, content).to_str().unwrap().to_owned();
    let (clean, eicar) = (file("clean", &mail("x", "text\n")), file("eicar", &virus()));
    let tagged = file("tagged", &mail("tag me", "text\n"));
    let rspamc = |words: &[&str]| scene.said("rspamc", &[&["-h", "127.0.0.1:11334"], words].concat(), b"");
    let check = |words: &[&str], wanted: &[&str]| {
        let (exit, said) = rspamc(words);
        assert!(exit == 0 && wanted.iter().all(|wanted| said.contains(wanted)), "{words:?}: {exit}: {said}");
    };
    check(&[&clean], &["Action: no action", "Spam: false", "Score: 0.00 / 15.00"]);
    check(&["symbols", &eicar], &["Action: reject", "Spam: true", "Eicar-Test-Signature", "Score: 15.00 / 15.00"]);
    check(&["--json", &tagged], &["\"action\": \"no action\"", "\"Subject\": ", "[TAG] tag me", "\"X-Checked\": "]);
    let envelope = ["-F", "a@example.net", "-r", "bob@example.test", "-i", "192.0.2.7", "--helo", "h.example.net"];
    check(&[&envelope[..], &[&clean]].concat(), &["Action: reject"]);
    let lines = scene.closing_lines();
    let last = lines.last().unwrap();
    for part in
        ["client=192.0.2.7", "sender=<a@example.net>", "<bob@example.test> rejected (550 5.7.1 Bob gets nothing)"]
    {
        assert!(last.contains(part), "{last}");
    }
    // Two files, one after the other.
    let (exit, said) = rspamc(&[&clean, &eicar]);
    assert!(exit == 0 && said.matches("Action: ").count() == 2, "{exit}: {said}");
    let (exit, said) = rspamc(&["stat"]);
    assert!(exit == 0 && said.contains("Messages scanned: 6"), "{exit}: {said}");
    let (exit, said) = rspamc(&["learn_spam", &clean]);
    assert!(said.contains("404"), "{exit}: {said}");
}
