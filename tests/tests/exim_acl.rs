//! Exim's DATA ACL asks Checkpost, in a real Exim: as clamd over TCP (a stream) and over a Unix socket (a file by name), as
//! spamd, and as rspamd; each with the lines of the plug-in's recipes, for mail by SMTP and of local programs. The daemon
//! runs in the root, as a user of Exim's group, since over the Unix socket it opens Exim's files.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use checkpost_exim::setup::Step;
use checkpost_exim::setup::acl::RECIPES;
use checkpost_tests::{Daemon, Exim, Root, mails, program};

const SOON: Duration = Duration::from_secs(60);

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
name = "not for Bob"
when = { recipient = "bob@example.test", header = { name = "Subject", contains = "not for bob" } }
then = { reject = "5.7.1 Bob gets nothing" }

[[rule]]
name = "nothing"
when = { header = { name = "Subject", contains = "discard me" } }
then = { discard = true }

[[rule]]
name = "hold"
when = { header = { name = "Subject", contains = "hold me" } }
then = { hold = "for the postmaster" }
"#;

/// How Exim asks.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Asks {
    Stream,
    File,
    Spamd,
    Rspamd,
}

struct Scene {
    root: Root,
    daemon: Option<Daemon>,
    _folder: tempfile::TempDir,
}

/// What the recipe of a kind says: the main options, and the two ACL files.
fn recipe(kind: &str) -> [&'static str; 3] {
    let recipe = RECIPES.iter().find(|recipe| recipe.kind == kind).unwrap();
    let [
        Step::Lines { lines: data, .. },
        Step::Lines { lines: not_smtp, .. },
        Step::Lines { lines: main, .. },
        Step::Restart,
    ] = recipe.steps
    else {
        panic!("{:?}", recipe.steps)
    };
    [main, data, not_smtp]
}

fn start(asks: Asks, filters: &str) -> Option<Scene> {
    let folder = tempfile::Builder::new().prefix("checkpost-acl-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let here = folder.path().to_str().unwrap();
    let [main, data, not_smtp] = recipe(match asks {
        Asks::Stream | Asks::File => "exim-clamd",
        Asks::Spamd => "exim-spamd",
        Asks::Rspamd => "exim-rspamd",
    });
    let main = match asks {
        Asks::File => main.replace("127.0.0.1 13310", &format!("{here}/clamd.sock")),
        _ => main.to_owned(),
    };
    let exim = Exim::new()
        .alias("staff: alice, bob")
        .main(&main)
        .file("checkpost_check_data", data)
        .file("checkpost_not_smtp", not_smtp);
    let exim = if asks == Asks::Stream { exim } else { exim.split() };
    let programs = program("checkpostd").parent().unwrap().to_owned();
    let root = Root::of(&exim).bind(folder.path(), here).bind(programs, "/lab/bin").start_or_skip()?;
    let added = root.command("usermod").args(["-aG", "Debian-exim", "checkpost"]).status().unwrap();
    assert!(added.success());
    let config = format!(
        "[daemon]\nstate = \"{here}/state\"\n\
         [[way]]\nkind = \"exim-clamd\"\nlisten = [\"unix:{here}/clamd.sock\", \"127.0.0.1:13310\"]\nsocket_mode = \"0666\"\n\
         [[way]]\nkind = \"exim-spamd\"\nlisten = \"127.0.0.1:13312\"\n\
         [[way]]\nkind = \"exim-rspamd\"\nlisten = \"127.0.0.1:13311\"\n{filters}{RULES}"
    );
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::set_permissions(folder.path().join("state"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let command = root.command_as("checkpost", "/lab/bin/checkpostd");
    let daemon = Daemon::start_when(command, folder.path(), &config, || root.connect(13311).is_ok()).unwrap();
    Some(Scene { root, daemon: Some(daemon), _folder: folder })
}

impl Scene {
    /// The last reply, and to whom it was delivered, in all so many mails.
    fn send(&self, from: &str, to: &[&str], subject: &str, text: &str) -> String {
        let mail = mails::plain("sender@example.net", to[0], subject, text);
        let told = self.root.send(from, to, &mail).unwrap();
        format!("{told:?}")
    }

    fn closing_lines(&self) -> Vec<String> {
        let log = self.daemon.as_ref().unwrap().log();
        log.lines().filter(|line| line.contains("mail done")).map(str::to_owned).collect()
    }

    fn last(&self) -> String {
        self.closing_lines().pop().unwrap_or_default()
    }
}

const ALICE: &[&str] = &["alice@example.test"];

fn all_cases(asks: Asks) {
    let Some(mut scene) = start(asks, "") else { return };
    let eicar = String::from_utf8(mails::eicar()).unwrap();
    let context = |scene: &Scene, said: &str| {
        let daemon = scene.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("{asks:?}: {said}\n{}\n{daemon}", scene.root.log())
    };
    let check = |scene: &Scene, said: &str, wanted: &str| assert!(said.contains(wanted), "{}", context(scene, said));

    let said = scene.send("sender@example.net", ALICE, "clean", "text\n");
    check(&scene, &said, "250");
    assert_eq!(scene.root.wait_mailbox("alice", 1, SOON).len(), 1, "{}", context(&scene, &said));
    check(&scene, &scene.last(), "sender=<sender@example.net> fates=<alice@example.test> passed");
    // The null sender, and an alias that is expanded once, after we were asked.
    let said = scene.send("", &["staff@example.test"], "bounce", "text\n");
    check(&scene, &said, "250");
    assert_eq!(scene.root.wait_mailbox("bob", 1, SOON).len(), 1, "{}", context(&scene, &said));
    assert_eq!(scene.root.wait_mailbox("alice", 2, SOON).len(), 2, "{}", context(&scene, &said));
    check(&scene, &scene.last(), "sender=<> fates=<staff@example.test> passed");
    assert_eq!(scene.closing_lines().len(), 2, "{}", context(&scene, "each mail was asked about once"));

    let said = scene.send("sender@example.net", ALICE, "virus", &eicar);
    check(&scene, &said, "550");
    check(
        &scene,
        &scene.last(),
        "<alice@example.test> rejected (550 5.7.1 Message contains malware (Eicar-Test-Signature))",
    );
    if asks == Asks::Stream || asks == Asks::File {
        check(&scene, &said, "This message was refused (Eicar-Test-Signature)");
    }
    let said = scene.send("sender@example.net", ALICE, "spam", &mails::gtube());
    check(&scene, &said, "550");
    // A header of the same name as Exim's own lines is the mail's.
    let forged =
        b"X-Envelope-To: forged@example.test\r\nX-Envelope-From: <forged@example.test>\r\nSubject: x\r\n\r\ntext\r\n";
    scene.root.send("sender@example.net", ALICE, forged).unwrap();
    check(&scene, &scene.last(), "sender=<sender@example.net> fates=<alice@example.test> passed");
    assert_eq!(scene.root.wait_mailbox("alice", 3, SOON).len(), 3);

    // One answer for two who want different things: put off.
    let both = ["alice@example.test", "bob@example.test"];
    let said = scene.send("sender@example.net", &both, "not for bob", "text\n");
    check(&scene, &said, "451");
    check(&scene, &scene.last(), "stepped_down=");
    let said = scene.send("sender@example.net", &both[1..], "not for bob", "text\n");
    check(&scene, &said, "550");

    let said = scene.send("sender@example.net", ALICE, "discard me", "text\n");
    check(&scene, &said, if asks == Asks::Rspamd { "250" } else { "550" });
    if asks == Asks::Rspamd {
        let said = scene.send("sender@example.net", ALICE, "hold me", "text\n");
        check(&scene, &said, "250");
        assert_eq!((scene.root.queue_len(), scene.root.held_len()), (1, 1), "{}", context(&scene, &said));
        let removed = scene.root.command("sh").args(["-c", "exiqgrep -z -i | xargs exim4 -Mrm"]).output().unwrap();
        assert!(removed.status.success(), "{removed:?}");
        // Who sent it is told by this form.
        check(&scene, &scene.last(), "client=127.0.0.1");
    }

    // A local program's mail.
    let submit = |scene: &Scene, text: &str| {
        let mail = format!("Subject: local\n\n{text}\n");
        let output = scene.root.submit("alice@example.test", &["bob"], mail.as_bytes()).unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (good, said) = submit(&scene, "text");
    assert!(good, "{}", context(&scene, &said));
    assert_eq!(scene.root.wait_mailbox("bob", 2, SOON).len(), 2, "{}", context(&scene, &said));
    let (good, said) = submit(&scene, &eicar);
    assert!(!good, "{}", context(&scene, &said));
    check(&scene, &scene.last(), "rejected (550 5.7.1 Message contains malware");

    // Nobody answers: put off, in either case.
    scene.daemon.take().unwrap().kill().unwrap();
    let said = scene.send("sender@example.net", ALICE, "down", "text\n");
    check(&scene, &said, "451");
    let (good, said) = submit(&scene, "text");
    assert!(!good, "{}", context(&scene, &said));
    assert!(scene.root.wait_queue_empty(SOON), "{}", context(&scene, "the queue"));
    assert_eq!((scene.root.mailbox("alice").len(), scene.root.mailbox("bob").len()), (3, 2));
}

#[test]
fn malware_by_a_stream() {
    all_cases(Asks::Stream);
}

#[test]
fn malware_by_a_file() {
    all_cases(Asks::File);
}

#[test]
fn spam_as_spamd() {
    all_cases(Asks::Spamd);
}

#[test]
fn spam_as_rspamd() {
    all_cases(Asks::Rspamd);
}

/// A filter that does not answer, behind a daemon that does.
#[test]
fn what_was_not_scanned_is_put_off() {
    for asks in [Asks::Stream, Asks::File, Asks::Spamd, Asks::Rspamd] {
        let Some(scene) = start(asks, "[filter.clamd]\naddress = \"unix:/nonexistent\"\n") else { return };
        let said = scene.send("sender@example.net", ALICE, "clean", "text\n");
        let log = scene.root.log();
        assert!(said.contains("451"), "{asks:?}: {said}\n{log}");
        assert!(
            scene.last().contains("deferred (451 4.7.1 Message could not be checked"),
            "{asks:?}: {}",
            scene.last()
        );
        assert!(scene.root.wait_queue_empty(SOON) && scene.root.mailbox("alice").is_empty());
    }
}
