//! The lab itself: a real Postfix and a real clamd start, do their work, and leave nothing behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use checkpost_tests::{Clamd, Courier, Exim, Postfix, Root, Sendmail, mails};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn postfix_delivers_to_the_byte() {
    let Some(root) = Root::start_or_skip(&Postfix::new()) else { return };
    let mail = mails::plain("sender@example.net", "alice@example.test", "plain", ".dot\nplain text\n.\nend\n");
    let told = root.send("sender@example.net", &["alice@example.test"], &mail).unwrap();
    assert!(told.accepted(), "{told:?}");
    let mails = root.wait_mailbox("alice", 1, SOON);
    assert_eq!(mails.len(), 1, "{}", root.log());
    assert!(mails[0].ends_with(&mails::as_stored(&mail)));
    assert!(root.wait_queue_empty(SOON));
    assert!(root.wait_log("status=sent", SOON));
    assert!(root.mailbox("bob").is_empty());

    let told = root.send("sender@example.net", &["nobody-here@example.test"], &mail).unwrap();
    assert!(!told.accepted());
    assert_eq!(told.last().code, 550);
}

#[test]
fn sendmail_delivers_to_the_byte() {
    let sendmail = Sendmail::new().alias("staff: alice, bob");
    let Some(root) = Root::start_or_skip(&sendmail) else { return };
    let text = format!(".dot\nplain text\nFrom here on\n.\nGr\u{fc}\u{df}e\n{}\nend\n", "long ".repeat(180));
    let mail = mails::plain("sender@example.net", "alice@example.test", "plain", &text);
    let told = root.send("sender@example.net", &["alice@example.test"], &mail).unwrap();
    assert!(told.accepted(), "{told:?}");
    let there = root.wait_mailbox("alice", 1, SOON);
    assert_eq!(there.len(), 1, "{}", root.log());
    assert!(there[0].ends_with(&mails::as_stored(&mail)), "{}", String::from_utf8_lossy(&there[0]));
    assert!(there[0].starts_with(b"Return-Path: <sender@example.net>\n"), "{}", String::from_utf8_lossy(&there[0]));
    assert!(root.wait_queue_empty(SOON), "{}", root.log());
    assert!(root.wait_log("stat=Sent", SOON));
    // By way of the submission program, and of an alias.
    let output = root.submit("alice@example.test", &["staff"], b"Subject: local\n\ntext\n").unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(root.wait_mailbox("bob", 1, SOON).len(), 1, "{}", root.log());
    assert_eq!(root.wait_mailbox("alice", 2, SOON).len(), 2, "{}", root.log());
    assert!(root.wait_queue_empty(SOON), "{}", root.log());
}

#[test]
fn courier_delivers_to_the_byte() {
    let courier = Courier::new().batch_size(1).alias("staff: alice, bob");
    let Some(root) = Root::start_or_skip(&courier) else { return };
    let text = format!(".dot\nplain text\nFrom here on\n.\n{}\nend\n", "long ".repeat(180));
    let mail = mails::plain("sender@example.net", "alice@example.test", "plain", &text);
    let told = root.send("sender@example.net", &["alice@example.test"], &mail).unwrap();
    assert!(told.accepted(), "{told:?} {}", root.log());
    let there = root.wait_mailbox("alice", 1, SOON);
    assert_eq!(there.len(), 1, "{}", root.log());
    let shown = String::from_utf8_lossy(&there[0]).into_owned();
    assert!(shown.contains("\nReturn-Path: <sender@example.net>\n") && shown.ends_with(&text), "{shown}");
    // By its sendmail, with one control file for each of an alias's users.
    let output = root.submit("alice@example.test", &["staff"], b"Subject: local\n\ntext\n").unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(root.wait_mailbox("bob", 1, SOON).len(), 1, "{}", root.log());
    assert_eq!(root.wait_mailbox("alice", 2, SOON).len(), 2, "{}", root.log());
    assert!(root.wait_queue_empty(SOON), "{}", root.log());
}

/// The package's own configuration, in one file and in many.
#[test]
fn exim_delivers_to_the_byte() {
    for exim in [Exim::new(), Exim::new().split()] {
        let Some(root) = Root::start_or_skip(&exim.alias("staff: alice, bob")) else { return };
        let text = format!(".dot\nplain text\nFrom here on\n.\nGr\u{fc}\u{df}e\n{}\nend\n", "long ".repeat(180));
        let mail = mails::plain("sender@example.net", "alice@example.test", "plain", &text);
        let told = root.send("sender@example.net", &["alice@example.test"], &mail).unwrap();
        assert!(told.accepted(), "{told:?} {}", root.log());
        let there = root.wait_mailbox("alice", 1, SOON);
        assert_eq!(there.len(), 1, "{}", root.log());
        assert!(there[0].ends_with(&mails::as_stored(&mail)), "{}", String::from_utf8_lossy(&there[0]));
        assert!(there[0].starts_with(b"Return-path: <sender@example.net>\n"), "{}", String::from_utf8_lossy(&there[0]));
        // By /usr/sbin/sendmail, and an alias.
        let output = root.submit("alice@example.test", &["staff"], b"Subject: local\n\ntext\n").unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(root.wait_mailbox("bob", 1, SOON).len(), 1, "{}", root.log());
        assert_eq!(root.wait_mailbox("alice", 2, SOON).len(), 2, "{}", root.log());
        assert!(root.wait_queue_empty(SOON), "{}", root.log());
    }
}

/// Settings, a frozen mail and what waits in the queue; an unfit configuration is told.
#[test]
fn exim_takes_settings_and_shows_its_queue() {
    const LATER: &str = "later:\n  driver = redirect\n  local_parts = bob\n  data = :defer: not now\n  allow_defer\n  \
                         condition = ${if exists{/tmp/later}}\n  no_verify\n";
    const HOLD: &str = "warn\n  condition = ${if eq{$h_subject:}{for alice}}\n  control = freeze\n";
    let layouts = [
        Exim::new().insert("exim4.conf.template", "begin routers", LATER),
        Exim::new().split().file("conf.d/router/050_lab", LATER),
    ];
    for exim in layouts {
        let exim = exim
            .update("dc_local_interfaces", "127.0.0.1.25 ; 127.0.0.1.10026")
            .main("MAIN_LAB = it's set\nCHECK_DATA_LOCAL_ACL_FILE = CONFDIR/lab_data")
            .file("lab_data", HOLD);
        let Some(root) = Root::start_or_skip(&exim) else { return };
        assert!(root.connect(10026).is_ok());
        let seen = root.command("exim4").args(["-bP", "macro", "MAIN_LAB"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "MAIN_LAB=it's set\n");
        std::fs::write(root.path("/tmp/later"), "").unwrap();
        for user in ["alice", "bob"] {
            let to = format!("{user}@example.test");
            let mail = mails::plain("sender@example.net", &to, &format!("for {user}"), "text\n");
            assert!(root.send("sender@example.net", &[&to], &mail).unwrap().accepted(), "{}", root.log());
        }
        assert!(root.wait_log("defer (-1): not now", SOON), "{}", root.log());
        // The postmaster, who is alice, is told of the frozen one.
        assert_eq!(root.wait_mailbox("alice", 1, SOON).len(), 1, "{}", root.log());
        assert_eq!((root.queue_len(), root.held_len()), (2, 1), "{}", root.log());
        std::fs::remove_file(root.path("/tmp/later")).unwrap();
        Exim::run_queue(&root).unwrap();
        assert_eq!(root.mailbox("bob").len(), 1, "{}", root.log());
        assert!(root.wait_delivered(SOON));
        assert_eq!((root.queue_len(), root.held_len()), (1, 1));

        Exim::restart(&root).unwrap();
        assert!(root.connect(25).is_ok() && root.connect(10026).is_ok());
        std::fs::write(root.path("/etc/exim4/exim4.conf.localmacros"), "no_such_option = 1\n").unwrap();
        std::fs::write(root.path("/etc/exim4/conf.d/main/000_localmacros"), "no_such_option = 1\n").unwrap();
        let refused = Exim::restart(&root).unwrap_err().to_string();
        assert!(refused.contains("no_such_option"), "{refused}");
    }
}

#[test]
fn roots_do_not_see_each_other() {
    let postfix = Postfix::new();
    let Some(first) = Root::start_or_skip(&postfix) else { return };
    let second = Root::start(&postfix).unwrap();
    let mail = mails::plain("sender@example.net", "bob@example.test", "to the first", "text\n");
    assert!(first.send("sender@example.net", &["bob@example.test"], &mail).unwrap().accepted());
    assert_eq!(first.wait_mailbox("bob", 1, SOON).len(), 1);
    assert!(second.mailbox("bob").is_empty());
    // Nor does this machine's own network have the port.
    let listener = first.listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(std::net::TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), SOON).is_err());
    assert!(first.connect(port).is_ok());
    assert!(second.connect(port).is_err());
}

#[test]
fn programs_run_inside_and_beside() {
    let Some(root) = Root::start_or_skip(&Postfix::new()) else { return };
    let name = root.command("hostname").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&name.stdout), "mail.example.test\n");
    let user = root.command_as("checkpost", "id").arg("-un").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&user.stdout), "checkpost\n");
    // This machine's files, the root's network: one interface.
    let links = root.net_command("cat").arg("/proc/self/net/dev").output().unwrap();
    let links = String::from_utf8_lossy(&links.stdout).into_owned();
    assert_eq!(links.lines().filter(|line| line.contains(':')).count(), 1, "{links}");
    assert!(root.path("/etc/postfix/main.cf").is_file());
    std::fs::write(root.shared().join("hello"), "from outside").unwrap();
    let seen = root.command("cat").arg("/lab/shared/hello").output().unwrap();
    assert_eq!(seen.stdout, b"from outside");
}

#[test]
fn dropped_root_leaves_nothing() {
    let Some(root) = Root::start_or_skip(&Postfix::new()) else { return };
    let folder = root.shared().parent().unwrap().to_owned();
    let mut sleeper =
        root.command("sh").args(["-c", "echo up; exec sleep 1000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    sleeper.stdout.take().unwrap().read_exact(&mut up).unwrap();
    drop(root);
    assert!(!folder.exists());
    assert!(!sleeper.wait().unwrap().success());
}

/// The owner is this very test, run once more as a process of its own.
#[test]
fn killed_owner_leaves_nothing() {
    const AS_OWNER: &str = "CHECKPOST_LAB_TEST_OWNER";
    let Some(root) = Root::start_or_skip(&Postfix::new()) else { return };
    if std::env::var_os(AS_OWNER).is_some() {
        println!("\nFOLDER {} {}", root.shared().display(), root.path("/").display());
        loop {
            std::thread::park();
        }
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_owner_leaves_nothing", "--nocapture"])
        .env(AS_OWNER, "1")
        .env_remove("CHECKPOST_SKIPS")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(owner.stdout.take().unwrap());
    let line = said.lines().map(Result::unwrap).find(|line| line.starts_with("FOLDER ")).unwrap();
    let [_, shared, inside] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
    assert!(Path::new(inside).join("etc/postfix").exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let end = Instant::now() + SOON;
    while Path::new(inside).exists() {
        assert!(Instant::now() < end, "processes outlive their owner");
        std::thread::yield_now();
    }
    assert!(Path::new(shared).exists(), "the sweep has something to do");
    let _next = Root::start(&Postfix::new()).unwrap();
    assert!(!Path::new(shared).exists());
}

#[test]
fn clamd_finds_eicar_only() {
    let Some(root) = Root::start_or_skip(&Clamd::new()) else { return };
    let ask = |content: &[u8]| {
        let mut clamd = UnixStream::connect(root.shared().join("clamd.sock")).unwrap();
        clamd.write_all(b"zINSTREAM\0").unwrap();
        clamd.write_all(&u32::try_from(content.len()).unwrap().to_be_bytes()).unwrap();
        clamd.write_all(content).unwrap();
        clamd.write_all(&[0; 4]).unwrap();
        let mut answer = String::new();
        clamd.read_to_string(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask(&mails::eicar()), "stream: Lab.Eicar-Test-Signature.UNOFFICIAL FOUND\0");
    assert_eq!(ask(&mails::eicar_in_nested_zip()), "stream: Lab.Eicar-Test-Signature.UNOFFICIAL FOUND\0");
    assert_eq!(ask(b"nothing"), "stream: OK\0");
    let mut clamd = root.connect(3310).unwrap();
    clamd.write_all(b"zPING\0").unwrap();
    let mut answer = String::new();
    clamd.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "PONG\0");
}

/// The entries for a filter before and after the queue, with a relay as the filter that only copies.
#[test]
fn postfix_sends_mail_through_its_filter() {
    let ways = [Postfix::new().before_queue("127.0.0.1:10025"), Postfix::new().after_queue("[127.0.0.1]:10025", false)];
    for postfix in ways {
        let Some(root) = Root::start_or_skip(&postfix) else { return };
        let listener = root.listen(10025).unwrap();
        let mail = mails::plain("sender@example.net", "alice@example.test", "through", "text\n");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = listener.accept().unwrap().0;
                let server = root.connect(10026).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                scope.spawn(move || {
                    std::io::copy(&mut from, &mut to).ok();
                    to.shutdown(Shutdown::Both).ok();
                });
                std::io::copy(&mut &server, &mut &client).ok();
                client.shutdown(Shutdown::Both).ok();
            });
            assert!(root.send("sender@example.net", &["alice@example.test"], &mail).unwrap().accepted());
        });
        let mails = root.wait_mailbox("alice", 1, SOON);
        assert_eq!(mails.len(), 1, "{}", root.log());
        assert!(mails[0].ends_with(&mails::as_stored(&mail)));
        // One Received field for each time that Postfix took it.
        let stored = String::from_utf8_lossy(&mails[0]).into_owned();
        assert_eq!(stored.matches("\nReceived: ").count(), 2, "{stored}");
        assert!(root.wait_queue_empty(SOON));
    }
}
