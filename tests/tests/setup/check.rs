//! `configure_mta check` on real mail servers, as by cron: one line when all is well, and what it says when not. And filters of
//! others, before and after ours.

use checkpost_tests::{Courier, Daemon, Postfix, Sendmail, program};

use crate::host::{Host, SOON, clean, infected, same};
use crate::postfix::{MILTER, postfix};

/// As cron runs it, with docs/configure_mta.8.md's own line.
fn by_cron(host: &Host) -> String {
    let manual = include_str!("../../../docs/configure_mta.8.md");
    let line = manual.lines().map(str::trim).find(|line| line.ends_with("configure_mta check >/dev/null")).unwrap();
    let command = line.split_once(" root ").unwrap().1.replace("/usr/bin/", "/opt/checkpost/");
    host.shell(&format!("{{ {command}; }} 2>&1 || true"))
}

/// What it says of a trouble, and that it is gone when it is mended.
fn tells(host: &Host, breaks: &str, mends: &str, expected: &str) {
    host.shell(breaks);
    let said = host.expect(1, &["check"]);
    assert!(said.contains("TROUBLE") && said.contains(expected), "{breaks}: {said}");
    assert!(by_cron(host).contains(expected), "cron mails it");
    host.shell(mends);
    host.expect(0, &["check"]);
}

#[test]
fn all_is_well_in_one_line_and_each_trouble_is_told() {
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    let said = host.expect(1, &["check"]);
    assert!(said.contains("nothing is set up"), "{said}");
    host.expect(0, &["apply", "--yes", "--no-prove"]);
    let said = host.expect(0, &["check"]);
    assert_eq!(said.trim(), "ok   postfix-milter of postfix: all is in place");
    assert_eq!(by_cron(&host), "");
    let folder = "/var/spool/postfix/checkpost";
    for (breaks, mends, expected) in [
        ("/etc/init.d/checkpost stop", "/etc/init.d/checkpost start", "milter.sock can be reached by postfix: "),
        (
            &*format!("chmod 0700 {folder}/milter.sock"),
            &*format!("chmod 0770 {folder}/milter.sock"),
            "milter.sock can be reached by postfix: ",
        ),
        (
            &*format!("chmod g-s {folder}"),
            &*format!("chmod g+s {folder}"),
            "/checkpost is there and is not as it must be",
        ),
        ("postfix stop", "postfix start", "Postfix does not run"),
        (
            "postconf -e milter_content_timeout=60s",
            "postconf -X milter_content_timeout",
            "milter_content_timeout is 60s",
        ),
        (
            "postconf -e smtpd_milters=",
            "postconf -e smtpd_milters=unix:checkpost/milter.sock",
            "not in place: run postconf -c /etc/postfix -e smtpd_milters=",
        ),
    ] {
        tells(&host, breaks, mends, expected);
    }
}

/// A key of the way in checkpost.toml, and without it again.
fn key(line: &str) -> [String; 2] {
    let edit = |script: &str| format!("sed -i '{script}' /etc/checkpost/checkpost.toml");
    [edit(&format!("/^kind/a {line}")), edit(&format!("/^{line}$/d"))]
}

#[test]
fn the_times_of_every_way_of_postfix_are_compared() {
    for (way, limit, expected) in [
        ("postfix-before-queue", "smtpd_proxy_timeout", "60s, and Checkpost may take 90s"),
        ("postfix-pipe", "checkpost_time_limit", "60s, and Checkpost may take 120s (check_time 120s)"),
    ] {
        let Some(host) = Host::start(&postfix(), MILTER) else { return };
        host.expect(0, &["apply", way, "--yes", "--no-prove"]);
        let [set, unset] = [format!("postconf -e {limit}=60s"), format!("postconf -X {limit}")];
        tells(&host, &set, &unset, &format!("{limit} is {expected}"));
    }
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    host.expect(0, &["apply", "postfix-after-queue", "--yes", "--no-prove"]);
    let [set, unset] = key("hop_final_timeout = \"20m\"");
    tells(&host, &set, &unset, "lmtp_data_done_timeout is 1200s, and Checkpost may take 1290s");
}

#[test]
fn sendmails_time_and_filters_are_looked_at() {
    let Some(host) = Host::start(&Sendmail::new(), Some("/run/checkpost")) else { return };
    host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert_eq!(host.expect(0, &["check"]).trim(), "ok   sendmail-milter of sendmail: all is in place");
    let [set, unset] = key("check_timeout = \"5m\"");
    tells(&host, &set, &unset, "is 300s, and Checkpost may take 300s (check_timeout 300s)");
    let line = "INPUT_MAIL_FILTER(`other'\\'', `S=inet:8891@localhost'\\'')dnl";
    let come = format!("cp -p /etc/mail/sendmail.mc /tmp/mc; echo '{line}' >> /etc/mail/sendmail.mc");
    tells(&host, &come, "cp -p /tmp/mc /etc/mail/sendmail.mc", "another filter came into the path: other");
}

#[test]
fn couriers_socket_and_filters_are_looked_at() {
    let Some(host) = Host::start(&Courier::new(), None) else { return };
    host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert_eq!(host.expect(0, &["check"]).trim(), "ok   courierfilter of courier: all is in place");
    let expected = "courier.sock can be reached by courier: ";
    tells(&host, "chmod 0700 /run/checkpost", "chmod 0755 /run/checkpost", expected);
    let expected = "another filter came into the path: dupfilter";
    tells(&host, "filterctl start dupfilter", "filterctl stop dupfilter", expected);
}

#[test]
fn a_filter_that_comes_later_is_told_until_it_is_taken_note_of() {
    let Some(host) = Host::start(&postfix(), MILTER) else { return };
    host.expect(0, &["apply", "postfix-before-queue", "--yes", "--no-prove"]);
    host.expect(0, &["check"]);
    let before = host.snapshot();
    let come = "postconf -e smtpd_milters=inet:127.0.0.1:8891";
    tells(
        &host,
        come,
        "postconf -X smtpd_milters",
        "another filter came into the path: smtpd_milters: inet:127.0.0.1:8891",
    );
    same(&before, &host.snapshot());
    host.shell(come);
    host.expect(1, &["check"]);
    let said = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(said.contains("taken note of"), "{said}");
    host.expect(0, &["check"]);
    assert_eq!(by_cron(&host), "");
    let said = host.expect(0, &["undo", "--yes"]);
    assert!(said.contains("everything is as it was before"), "{said}");
    assert_eq!(host.shell("postconf -h smtpd_milters").trim(), "inet:127.0.0.1:8891", "theirs stays");
}

/// A filter of somebody else: a daemon of ours plays it, with a header of its own, as long as the folder is there.
fn another(host: &Host, way: &str, port: u16) -> (Daemon, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[daemon]\nstate = \"{0}/state\"\nadmin_socket = \"{0}/admin.sock\"\n\n[[way]]\n{way}\n[[rule]]\nname = \"mark\"\n\
         when = {{}}\nthen = {{ add_header = \"X-Other: was here\" }}\n",
        folder.path().display()
    );
    let command = host.root.net_command(program("checkpostd"));
    let listens = || host.root.connect(port).is_ok();
    (Daemon::start_when(command, folder.path(), &config, listens).unwrap(), folder)
}

/// A clean mail has passed the other filter, and ours.
fn passes_both(host: &Host) {
    let count = host.root.mailbox("alice").len();
    assert!(host.send(&clean()).accepted(), "{}", host.said());
    let there = host.root.wait_mailbox("alice", count + 1, SOON);
    let text = String::from_utf8_lossy(there.last().unwrap()).into_owned();
    assert_eq!((there.len(), text.matches("X-Other: was here").count()), (count + 1, 1), "{text}\n{}", host.said());
}

#[test]
fn another_milter_is_kept_and_ours_is_behind_it() {
    let other = "inet:127.0.0.1:8891";
    let with_other = postfix()
        .main_cf("smtpd_milters", other)
        .main_cf("non_smtpd_milters", "$smtpd_milters")
        .main_cf("milter_default_action", "accept");
    let Some(host) = Host::start(&with_other, MILTER) else { return };
    let _other = another(&host, "kind = \"postfix-milter\"\nlisten = \"127.0.0.1:8891\"\n", 8891);
    passes_both(&host);
    let before = host.snapshot();
    let said = host.expect(0, &["detect"]);
    assert!(said.contains("another filter: smtpd_milters: inet:127.0.0.1:8891"), "{said}");
    let said = host.expect(0, &["--yes", "--set", "to=staff@example.test"]);
    assert!(said.contains("Mail is filtered.") && said.contains("put Checkpost before it"), "{said}\n{}", host.said());
    let list = host.shell("postconf -h smtpd_milters non_smtpd_milters milter_default_action");
    let expected =
        format!("{other} {{ unix:checkpost/milter.sock, default_action=tempfail }}\n$smtpd_milters\naccept\n");
    assert_eq!(list, expected);
    host.expect(0, &["check"]);
    passes_both(&host);
    assert!(!host.send(&infected()).accepted(), "{}", host.said());
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
    passes_both(&host);
}

#[test]
fn another_milter_of_one_service_is_kept_and_ours_is_behind_it() {
    let with_other = postfix().master_cf("smtp inet n - y - - smtpd -o smtpd_milters=inet:127.0.0.1:8891");
    let Some(host) = Host::start(&with_other, MILTER) else { return };
    let _other = another(&host, "kind = \"postfix-milter\"\nlisten = \"127.0.0.1:8891\"\n", 8891);
    passes_both(&host);
    let before = host.snapshot();
    let said = host.expect(0, &["detect"]);
    assert!(said.contains("another filter: smtp/inet: smtpd_milters: inet:127.0.0.1:8891"), "{said}");
    let said = host.expect(0, &["--yes", "--set", "to=staff@example.test"]);
    assert!(said.contains("Mail is filtered."), "{said}\n{}", host.said());
    let list = host.shell("postconf -P smtp/inet/smtpd_milters");
    assert_eq!(list.trim(), "smtp/inet/smtpd_milters = inet:127.0.0.1:8891,unix:checkpost/milter.sock");
    let again = host.expect(0, &["apply", "--yes", "--no-prove"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check"]);
    passes_both(&host);
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
    passes_both(&host);
}

#[test]
fn another_content_filter_is_kept_and_its_place_is_not_taken() {
    let back = "127.0.0.1:10031 inet n - n - 10 smtpd -o content_filter= -o mynetworks=127.0.0.0/8 \
                -o receive_override_options=no_unknown_recipient_checks,no_header_body_checks,no_milters \
                -o smtpd_authorized_xforward_hosts=127.0.0.0/8";
    let with_other: Postfix = postfix()
        .main_cf("content_filter", "other:[127.0.0.1]:10030")
        .main_cf("receive_override_options", "no_address_mappings")
        .master_cf("other unix - - n - 10 smtp -o smtp_send_xforward_command=yes")
        .master_cf(back);
    let Some(host) = Host::start(&with_other, MILTER) else { return };
    let way = "kind = \"postfix-after-queue\"\nlisten = \"127.0.0.1:10030\"\nnext_hop = \"127.0.0.1:10031\"\n";
    let _other = another(&host, way, 10030);
    passes_both(&host);
    let before = host.snapshot();
    let said = host.expect(0, &["detect"]);
    assert!(said.contains("another filter: content_filter: other:[127.0.0.1]:10030"), "{said}");
    for way in ["postfix-after-queue", "postfix-before-queue", "postfix-pipe"] {
        let said = host.expect(1, &["apply", way, "--yes"]);
        assert!(said.contains("content_filter is other:[127.0.0.1]:10030 already"), "{said}");
        assert!(said.contains("take postfix-milter"), "{said}");
        same(&before, &host.snapshot());
    }
    let said = host.expect(0, &["--yes", "--set", "to=alice@example.test"]);
    assert!(said.contains("Mail is filtered."), "{said}\n{}", host.said());
    passes_both(&host);
    host.expect(0, &["check"]);
    host.expect(0, &["undo", "--yes"]);
    same(&before, &host.snapshot());
    passes_both(&host);
}
