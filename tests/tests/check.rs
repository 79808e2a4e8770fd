//! The check socket of a real daemon, asked by the client in `examples/check.py`, by another user, and by many at once.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use checkpost_tests::{Daemon, Skip, program};

const RULES: &str = r#"
[[rule]]
name = "no malware"
when = { finding = "malware" }
then = { reject = "5.7.1 Message contains malware ({name})" }

[[rule]]
name = "tag"
when = { recipient = "tag@example.org" }
then = { subject_tag = "[TAG]", add_header = "X-Checked: yes" }

[[rule]]
name = "new body"
when = { recipient = "body@example.org" }
then = { replace_body = "It was removed." }

[[rule]]
name = "nothing"
when = { recipient = "gone@example.org" }
then = { discard = true }
"#;

struct Scene {
    daemon: Option<Daemon>,
    folder: tempfile::TempDir,
}

fn scene(lines: &str) -> Scene {
    // Where other users can come, too.
    let folder = tempfile::Builder::new().prefix("checkpost-check-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let socket = folder.path().join("check.sock");
    let config = format!(
        "[daemon]\nstate = {state:?}\n[[way]]\nkind = \"check\"\nlisten = \"unix:{socket}\"\n{lines}{RULES}",
        state = folder.path(),
        socket = socket.display(),
    );
    let ready = || UnixStream::connect(&socket).is_ok();
    let daemon = Daemon::start_when(Command::new(program("checkpostd")), folder.path(), &config, ready).unwrap();
    Scene { daemon: Some(daemon), folder }
}

impl Scene {
    fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("check.sock")
    }

    fn client(&self, words: &[&str]) -> Command {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/check.py");
        // Its text, not its path: another user may not come to where the sources are.
        let mut command = Command::new("python3");
        command.arg("-c").arg(std::fs::read_to_string(example).unwrap());
        command.arg("--socket").arg(self.socket()).args(words).current_dir("/");
        command
    }
}

fn run(mut command: Command, message: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|threads| {
        // It may end without having read all.
        threads.spawn(move || input.write_all(message).is_ok());
        child.wait_with_output().unwrap()
    })
}

fn check(scene: &Scene, words: &[&str], message: &str, status: i32, out: &str, said: &str) {
    for how in [&[][..], &["--descriptor"]] {
        let output = run(scene.client(&[how, words].concat()), message.as_bytes());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {errors}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), out, "{words:?}");
        assert!(errors.contains(said), "{words:?}: {errors}");
    }
}

fn eicar() -> String {
    format!("Subject: x\n\n{}{}\n", "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*")
}

#[test]
fn the_example_client_does_what_it_is_told() {
    let scene = scene("");
    let mail = "Subject: a\nTo: b\n\nbody\n";
    check(&scene, &["a@example.org", "b@example.org"], mail, 0, mail, "b@example.org: deliver 0");
    let tagged = "X-Checked: yes\nSubject: [TAG] a\nTo: b\n\nbody\n";
    check(&scene, &["a@example.org", "tag@example.org"], mail, 0, tagged, "tag@example.org: deliver 0");
    let crlf = |text: &str| text.replace('\n', "\r\n");
    check(&scene, &["", "tag@example.org"], &crlf(mail), 0, &crlf(tagged), "deliver 0");
    let new = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 7bit\n\
               Subject: a\nTo: b\n\nIt was removed.\n";
    check(&scene, &["a@example.org", "body@example.org"], mail, 0, new, "deliver 0");
    check(&scene, &["a@example.org", "gone@example.org"], mail, 0, "", "gone@example.org: discard");
    let refused = "reject 550 5.7.1 Message contains malware (Eicar-Test-Signature)";
    check(&scene, &["a@example.org", "b@example.org"], &eicar(), 1, "", refused);
    let large = format!("Subject: a\n\n{}", "0123456789abcde\n".repeat(300_000));
    let two = ["a@example.org", "b@example.org", "gone@example.org"];
    check(&scene, &two, &large, 0, &large, "gone@example.org: discard");
    let log = scene.log();
    let lines = log.lines().filter(|line| line.contains("mail done")).count();
    assert_eq!(lines, 14, "one closing line for each mail: {log}");
    assert!(log.contains("<b@example.org> passed, <gone@example.org> discarded"), "{log}");
}

#[test]
fn a_daemon_that_is_down_means_try_again() {
    let mut scene = scene("");
    let socket = scene.socket();
    // It is there, and nobody listens.
    scene.daemon.take().unwrap().kill().unwrap();
    assert!(UnixStream::connect(&socket).is_err());
    check(&scene, &["a@example.org", "b@example.org"], "Subject: a\n\n", 75, "", "not checked: ");
}

#[test]
fn another_user_may_ask_and_is_named_in_the_log() {
    if !rustix::process::geteuid().is_root() {
        checkpost_tests::skip(&Skip("another user can only be played by root".into()));
        return;
    }
    let scene = scene("");
    for how in ["--descriptor", "--"] {
        let mut client = scene.client(&[how, "a@example.org", "b@example.org"]);
        client.uid(65534).gid(65534);
        let output = run(client, b"Subject: a\n\nbody\n");
        assert!(output.status.success(), "{output:?}");
    }
    let log = scene.log();
    assert_eq!(
        log.lines().filter(|line| line.contains("user=65534") && line.contains("mail done")).count(),
        2,
        "{log}"
    );
}
