//! Files of every shape in the queue.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use checkpost_tests::communigate::{Mail, Order, Reply};
use checkpost_tests::{Skip, skip};

use super::{MESSAGE, Scene, mail};

#[test]
fn mails_of_every_shape_go_on_to_the_byte() {
    let mut scene = Scene::new("");
    let many: Vec<String> = (0..1000).map(|number| format!("user{number}@x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let large = [b"Subject: x\n\n".to_vec(), b"0123456789abcde\n".repeat(3 << 16)].concat();
    let one = &["b@x"][..];
    for (recipients, message) in [
        (one, MESSAGE),
        (&many, MESSAGE),
        (&["\"a b\"@x", "\"a>b\"@x", "\"a<b>\\\"c\"@x"], MESSAGE),
        (one, &large),
        (one, b""),
        (one, b"\nbody without a header\n"),
        (one, b"Subject: x\n\n\nleading blank line\nR W <no@x>\n"),
        (one, b"Subject: x"),
        (one, b"Subject: \xe4\n\n\0 NUL, CR \r, 8-bit \xff\nno end"),
    ] {
        for order in [Order::SourceFirst, Order::SenderFirst, Order::Odd] {
            for sender in ["s@example.net", "", "\"s >\"@x"] {
                let mail = Mail { order, sender: sender.into(), ..Mail::new(recipients, message) };
                let shown = format!("{order:?} <{sender}> {} recipients, {} octets", recipients.len(), message.len());
                assert_eq!(scene.reply(mail), Reply::Ok, "{shown}");
                let delivered = scene.delivered();
                assert_eq!(delivered.len(), 1, "{shown}");
                assert!(delivered[0].message == message && delivered[0].sender == sender, "{shown}");
                assert_eq!(delivered[0].recipients, recipients, "{shown}");
            }
        }
    }
    // What the daemon was told.
    scene.daemon_is_done_with(81);
    let log = scene.daemon().log();
    assert!(log.contains(r#"<"a>b"@x> passed"#) && log.contains("<user999@x> passed"), "{log}");
    assert!(log.contains("client=192.0.2.7") && log.contains("queue_id=\"10001\""), "{log}");
    assert!(!log.contains("<no@x>"), "what stands in a body is no recipient: {log}");
    scene.end();
}

#[test]
fn what_is_no_mail_stays_where_it_is() {
    let mut scene = Scene::new("");
    let base = scene.server.base().to_owned();
    let write = |name: &str, text: &[u8]| fs::write(base.join(name), text).unwrap();
    write("Queue/empty.msg", b"");
    write("Queue/open.msg", b"P I <a@x>\nR W <b@x>\n");
    write("Queue/other.msg", b"Subject: x\n\nbody\n");
    write("Queue/nobody.msg", &mail(&[]).file());
    write("Queue/control.msg", b"P I <a@x>\nR W <b\0@x>\n\nbody\n");
    symlink("../secret", base.join("Queue/link.msg")).unwrap();
    write("secret", &mail(&["b@x"]).file());
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("Queue/pipe.msg"), rustix::fs::Mode::RWXU).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), mail(&["b@x"]).file()).unwrap();
    let outside = outside.path().to_string_lossy().into_owned();
    for name in [
        "Queue/missing.msg",
        "Queue/empty.msg",
        "Queue/open.msg",
        "Queue/other.msg",
        "Queue/nobody.msg",
        "Queue/control.msg",
        "Queue/link.msg",
        "Queue/pipe.msg",
        "Queue",
        "Queue/../secret",
        "../x.msg",
        &outside,
        "/etc/passwd",
    ] {
        scene.server.ask(name);
        scene.server.settle();
        assert!(matches!(scene.server.reply(name), Reply::Rejected(_)), "{name}");
    }
    for why in ["leads out of", "no regular file", "has no recipient", "does not end", "control character", "is known"]
    {
        scene.server.hear_note(why);
    }
    // The base directory's own name before it is no way out.
    let file = scene.server.put(mail(&["b@x"]));
    let whole = scene.server.path(&file).to_string_lossy().into_owned();
    scene.server.ask_as(&file, &format!("FILE {whole}"));
    scene.server.settle();
    assert_eq!(scene.server.reply(&file), Reply::Ok);
    scene.server.act();
    assert!(!scene.daemon().log().contains("root:"), "nothing of others was read");
    scene.end();
}

#[test]
fn what_only_root_can_read_stays_where_it_is() {
    if !rustix::process::geteuid().is_root() {
        return skip(&Skip("another user can only be played by root".into()));
    }
    let mut scene = Scene::stopped("communigate", "");
    scene.daemon = Some(scene.start_daemon());
    let base = scene.server.base().to_owned();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
    // A helper of a server that has dropped root, with a queue that it may read but for one mail.
    let nobody = 65_534;
    for folder in ["Queue", "Queue/01-09", "Submitted", "."] {
        std::os::unix::fs::chown(base.join(folder), Some(nobody), Some(nobody)).unwrap();
    }
    scene.server.run_as(nobody);
    scene.server.start(4);
    let (good, bad) = (scene.server.put(mail(&["tag@x"])), scene.server.put(mail(&["b@x"])));
    let restrict = |name: &Path, mode| fs::set_permissions(name, fs::Permissions::from_mode(mode)).unwrap();
    restrict(&base.join(&good), 0o644);
    restrict(&base.join(&bad), 0o600);
    for file in [&good, &bad] {
        scene.server.ask(file);
    }
    scene.server.settle();
    assert_eq!(scene.server.reply(&good), Reply::Discard);
    assert!(matches!(scene.server.reply(&bad), Reply::Rejected(_)));
    scene.server.hear_note("Permission denied");
    scene.end();
}
