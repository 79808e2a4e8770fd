//! What plans say of each MTA: what they leave alone, what goes together with settings of others, what they warn of. The
//! engine that carries them out is in `trees.rs`.

#![allow(clippy::unwrap_used)]

mod fixtures;

use std::fs;

use checkpost_setup::Change;
use configure_mta::compose::{Composed, compose};
use configure_mta::dialogue::{self, Given};
use configure_mta::engine::Quiet;
use fixtures::Fixture;
use fixtures::scene::Scene;

#[test]
fn what_is_not_understood_is_left_alone() {
    let refused = |fixture: Fixture, edit: &dyn Fn(&Fixture), expected: &str| {
        let scene = Scene::new(fixture);
        edit(&scene.fixture);
        let before = scene.fixture.snapshot();
        let machine = scene.machine();
        let mut given = Given::default();
        given.answers.insert("method".into(), scene.fixture.method.into());
        let chosen = dialogue::choose(&machine, &mut given).unwrap();
        let why = compose(&machine, &chosen, false, scene.source.path()).unwrap_err().to_string();
        assert!(why.contains(expected), "{why:?} instead of {expected:?}");
        scene.is(&before, "after a refusal");
    };
    let named = |name: &str| fixtures::all().into_iter().find(|fixture| fixture.name == name).unwrap();
    let method = |method: &str| fixtures::all().into_iter().find(|fixture| fixture.method == method).unwrap();
    let file = |path: &'static str, text: &'static str| move |fixture: &Fixture| fixture.file(path, text);
    refused(
        method("postfix-after-queue"),
        &file("/etc/postfix/main.cf", "content_filter = amavis:[127.0.0.1]:10024\n"),
        "another filter",
    );
    refused(
        method("postfix-before-queue"),
        &file("/etc/postfix/master.cf", "pickup unix n - y 60 1 pickup\n"),
        "no smtpd",
    );
    let line = |path: &'static str, line: &'static str| {
        move |fixture: &Fixture| {
            let text = fs::read_to_string(fixture.at(path)).unwrap();
            fixture.file(path, &format!("{text}{line}\n"));
        }
    };
    let pipe = || named("postfix pipe");
    refused(
        pipe(),
        &line("/etc/postfix/main.cf", "content_filter = checkpost:dummy"),
        "content_filter is checkpost:dummy",
    );
    refused(
        pipe(),
        &file(
            "/etc/postfix/master.cf",
            "smtp inet n - y - - smtpd\npickup unix n - y 60 1 pickup -o content_filter=x:\n",
        ),
        "filtered again",
    );
    for users in ["authorized_submit_users = root", "authorized_submit_users ="] {
        refused(pipe(), &line("/etc/postfix/main.cf", users), "authorized_submit_users is");
    }
    // An action of its own needs blanks, which postconf -P does not take.
    let accept = line("/etc/postfix/main.cf", "milter_default_action = accept");
    refused(named("postfix with a milter at a service"), &accept, "has its own smtpd_milters");
    let no_milters = line("/etc/postfix/main.cf", "receive_override_options = no_milters");
    refused(named("postfix"), &no_milters, "no milter is asked there");
    refused(
        method("postfix-after-queue"),
        &file("/etc/postfix/master.cf", "smtp inet n - y - - smtpd -o content_filter=\n"),
        "an empty content_filter of its own",
    );
    refused(
        method("postfix-after-queue"),
        &line("/etc/postfix/master.cf", "checkpost unix - - n - - smtp"),
        "another service checkpost/unix",
    );
    refused(
        named("sendmail"),
        &|fixture| fs::remove_file(fixture.at("/etc/mail/sendmail.mc")).unwrap(),
        "not changed by hand",
    );
    refused(
        named("sendmail"),
        &file("/etc/mail/sendmail.mc", "INPUT_MAIL_FILTER(`checkpost', `S=x')dnl\nMAILER(x)\n"),
        "by hand",
    );
    refused(
        named("sendmail"),
        &file("/etc/mail/sendmail.mc", "MAILER(x)\ndefine(`confINPUT_MAIL_FILTERS', `x')\n"),
        "throw the filter out",
    );
    refused(named("sendmail"), &file("/etc/mail/sendmail.mc", "nothing known\n"), "MAILER line");
    refused(method("qmail-queue"), &|fixture| fixture.mode("/var/qmail/bin/qmail-queue", 0o711), "not set-uid");
    refused(
        method("qmail-queue/variable"),
        &file("/etc/tcp.smtp", ":allow,QMAILQUEUE=\"/bin/simscan\"\n"),
        "another program",
    );
    refused(
        named("courier"),
        &|fixture| fs::remove_file(fixture.at("/run/courier/courierfilter.pid")).unwrap(),
        "does not run",
    );
    let exim = |method| fixtures::exim("exim", method, false);
    refused(exim("exim-local-scan"), &file("/etc/exim4/exim4.conf", "# mine\n"), "written by hand");
    let other = "local_scan_path = /usr/lib/exim4/local_scan/sa-exim.so\n";
    let macros = |text: &'static str| file("/etc/exim4/exim4.conf.localmacros", text);
    refused(exim("exim-local-scan"), &macros(other), "takes local_scan_path once");
    for (method, lines, expected) in [
        ("exim-clamd", "av_scanner = clamd:/run/clamav/clamd.ctl\n", "takes av_scanner once"),
        ("exim-rspamd", "spamd_address = 127.0.0.1 783\n", "takes spamd_address once"),
        ("exim-clamd", "acl_not_smtp = acl_of_mine\n", "takes acl_not_smtp once"),
        ("exim-clamd", "MAIN_ACL_CHECK_DATA = acl_of_mine\n", "Debian's own ACL is not asked"),
        ("exim-transport", "smtp_accept_max = 30\n", "kept for mail that comes back"),
        ("exim-transport", "smtp_reserve_hosts = 192.0.2.1\n", "comes back from another host"),
        ("exim-transport", "smtp_accept_queue_per_connection = 10\n", "takes smtp_accept_queue_per_connection once"),
        ("exim-transport", "MAIN_ACL_CHECK_RCPT = ${if eq{a}{b}{c}{d}}\n", "no plain name"),
        ("exim-transport", "MAIN_ACL_CHECK_RCPT = a\nMAIN_ACL_CHECK_RCPT == b\n", "more than once"),
        ("exim-transport", "MAIN_LOCAL_INTERFACES = 192.0.2.1\n", "Debian's list does not count"),
        ("exim-transport", "# BEGIN checkpost\n", "are not what they were"),
    ] {
        refused(exim(method), &macros(lines), expected);
    }
    refused(exim("exim-clamd"), &file("/usr/lib/exim4/exim4", "a light one"), "no content scanning");
    let template = |from: &'static str, to: &'static str| {
        move |fixture: &Fixture| {
            let path = "/etc/exim4/exim4.conf.template";
            let text = fs::read_to_string(fixture.at(path)).unwrap();
            assert!(text.contains(from), "{text}");
            fixture.file(path, &text.replacen(from, to, 1));
        }
    };
    refused(exim("exim-transport"), &template("begin routers\n", ""), "there is no begin routers");
    refused(
        exim("exim-transport"),
        &template("acl_smtp_rcpt = MAIN_ACL_CHECK_RCPT", "acl_smtp_rcpt = acl_check_rcpt"),
        "and not MAIN_ACL_CHECK_RCPT as Debian has it",
    );
    let cutthrough = template("  accept\n", "  warn\n    control = cutthrough_delivery\n  accept\n");
    refused(exim("exim-pipe"), &cutthrough, "would not be checked");
    let included = |fixture: &Fixture| {
        fixture.file("/etc/exim4/exim4.conf.localmacros", "CHECK_RCPT_LOCAL_ACL_FILE = CONFDIR/rcpt\n");
        fixture.file("/etc/exim4/rcpt", "warn\n  control = cutthrough_delivery\n");
    };
    refused(exim("exim-transport"), &included, "/etc/exim4/rcpt says");
    refused(exim("exim-clamd"), &template("  .include CHECK_DATA_LOCAL_ACL_FILE\n", ""), "does not ask");
    let update = |text: &'static str| file("/etc/exim4/update-exim4.conf.conf", text);
    refused(exim("exim-transport"), &update("dc_local_interfaces='<, 127.0.0.1'\n"), "not separated by semicolons");
    refused(
        exim("exim-transport"),
        &file("/etc/default/exim4", "SMTPLISTENEROPTIONS='-oX 192.0.2.1.25'\n"),
        "Debian's list does not count",
    );
    // Exim's port for what comes back, in hexadecimal.
    let taken = "  sl  local_address rem_address   st\n   0: 0100007F:272A 00000000:0000 0A 0\n";
    refused(exim("exim-transport"), &file("/proc/net/tcp", taken), "port 10026 already");
    let taken = "  sl  local_address rem_address   st\n   0: 0100007F:33FE 00000000:0000 0A 0\n";
    refused(exim("exim-clamd"), &file("/proc/net/tcp", taken), "port 13310 already");
    // As update-exim4.conf(8): it is read in the place of the file that Debian ships.
    let instead = "/etc/exim4/conf.d/main/02_exim4-config_options.rul";
    refused(
        fixtures::exim("exim", "exim-spamd", true),
        &file(instead, "# mine\n"),
        "do not have Debian's line `acl_smtp_data",
    );
    let conf = "/opt/zmailer/share/smtpserver.conf";
    refused(named("zmailer"), &file(conf, "PARAM contentfilter /usr/lib/other\n"), "another filter, /usr/lib/other");
    let several = |fixture: &Fixture| {
        fs::remove_file(fixture.at(conf)).unwrap();
        fs::create_dir(fixture.at(conf)).unwrap();
    };
    refused(named("zmailer"), &several, "several smtpservers");
    let options = "MAILBIN=/b\nMAILSHARE=/opt/zmailer/share\nMAILVAR=/v\nPOSTOFFICE=/var/spool/postoffice\nSMTPOPTIONS='-s -C other.conf'\n";
    refused(named("zmailer"), &file("/etc/zmailer.conf", options), "another configuration");
    refused(named("zmailer"), &file("/etc/zmailer.conf", "MAILBIN=$(pwd)\n"), "is not understood: MAILBIN");
    refused(named("zmailer"), &file("/var/spool/postoffice/.pid.router", "999999998\n"), "does not run");
    let by_hand = |fixture: &Fixture| {
        fs::remove_file(fixture.at("/sbin/start-stop-daemon")).unwrap();
    };
    refused(named("zmailer"), &by_hand, "neither systemd nor start-stop-daemon");
    let process = "/opt/zmailer/share/cf/process.cf";
    let own = "process (file) {\n\tcase \"$file\" in\n\t[0-9]*)\tmine \"$file\" ;;\n\tesac\n}\n";
    refused(named("zmailer, router"), &file(process, own), "not the two that ship");
    refused(named("zmailer, router"), &|fixture| fs::remove_file(fixture.at(process)).unwrap(), "there is no");
    refused(named("postfix"), &file("/etc/checkpost/checkpost.toml", "[[way]\n"), "is no TOML");
}

#[test]
fn exims_settings_and_ours_go_together() {
    let scene = Scene::new(fixtures::exim_with_settings("exim", "exim-transport"));
    scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
    let text = |path: &str| fs::read_to_string(scene.fixture.at(path)).unwrap();
    let macros = text("/etc/exim4/exim4.conf.localmacros");
    let (theirs, ours) = macros.split_once("# BEGIN checkpost\n").unwrap();
    assert!(theirs.starts_with("MAIN_ACL_CHECK_RCPT = acl_of_mine\n") && theirs.ends_with("local_data_acl\n"));
    for line in [
        "MAIN_ACL_CHECK_RCPT == ${if eq{$received_port}{10026}{accept hosts = 127.0.0.1}{acl_of_mine}}\n",
        "MESSAGE_SIZE_LIMIT == ${if eq{$received_port}{10026}{0}{100M}}\n",
        "MAIN_ACL_CHECK_DATA = ${if eq{$received_port}{10026}{accept hosts = 127.0.0.1}{acl_check_data}}\n",
    ] {
        assert!(ours.contains(line), "{macros}");
    }
    assert!(!ours.contains("smtp_accept_max =") && !ours.contains("smtp_reserve_hosts"), "{macros}");
    let update = text("/etc/exim4/update-exim4.conf.conf");
    assert!(update.starts_with("dc_local_interfaces='0.0.0.0 ; ::0 ; 127.0.0.1.10026'\n"), "{update}");
    let template = text("/etc/exim4/exim4.conf.template");
    assert!(template.contains("begin routers\n# BEGIN checkpost router\ncheckpost:\n"), "{template}");

    let scene = Scene::new(fixtures::exim_with_settings("exim", "exim-clamd"));
    scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
    let text = |path: &str| fs::read_to_string(scene.fixture.at(path)).unwrap();
    let macros = text("/etc/exim4/exim4.conf.localmacros");
    assert!(macros.contains("CHECK_DATA_LOCAL_ACL_FILE == /etc/exim4/checkpost_check_data\n"), "{macros}");
    // Ours asks first: what theirs accept was asked about.
    let data = text("/etc/exim4/checkpost_check_data");
    let (asks, theirs) = (data.find("malware = *\n").unwrap(), data.find(".include CONFDIR/local_data_acl\n").unwrap());
    assert!(asks < theirs, "{data}");
    assert!(!text("/etc/exim4/checkpost_not_smtp").contains(".include"));
}

#[test]
fn exims_files_that_are_none_of_ours_need_not_be_understood() {
    let scene = Scene::new(fixtures::exim("exim", "exim-clamd", true));
    let acl = "/etc/exim4/conf.d/acl/50_mine";
    scene.fixture.file(acl, "");
    fs::write(scene.fixture.at(acl), b"# Gr\xfc\xdfe\nacl_mine:\n  accept\n").unwrap();
    fs::create_dir(scene.fixture.at("/etc/exim4/conf.d/main/old")).unwrap();
    assert!(!scene.plan().setup.is_empty());
    // A link is not followed, and so not understood: it is told of, and there is no plan.
    let macros = scene.fixture.at("/etc/exim4/conf.d/main/000_localmacros");
    std::os::unix::fs::symlink("/etc/mailname", macros).unwrap();
    let mut given = Given::default();
    given.answers.insert("method".into(), "exim-clamd".into());
    let chosen = dialogue::choose(&scene.machine(), &mut given).unwrap();
    assert!(chosen.found.doubts[0].contains("000_localmacros"), "{:?}", chosen.found);
    assert!(compose(&scene.machine(), &chosen, false, scene.source.path()).is_err());
}

#[test]
fn what_does_not_fit_in_exim_is_told() {
    let warned = |method: &'static str, path: &str, text: &str, expected: &str| {
        let scene = Scene::new(fixtures::exim("exim", method, method == "exim-pipe"));
        assert_eq!(scene.plan().plan.warnings, [""; 0], "{method}");
        scene.fixture.file(path, text);
        let warnings = scene.plan().plan.warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
    };
    let router = "/etc/exim4/conf.d/router/01_mine";
    warned("exim-pipe", router, "mine:\n  driver = redirect\n", "router mine in");
    warned("exim-pipe", "/etc/checkpost/pipe.conf", "check_time = 1000s\n", "timeout of the transport is 900s");
    let macros = "/etc/exim4/exim4.conf.localmacros";
    warned("exim-local-scan", macros, "local_scan_timeout = 1m\n", "local_scan_timeout is 60s");
    let config = "/etc/checkpost/checkpost.toml";
    let way = "[[way]]\nkind = \"exim-clamd\"\nlisten = \"127.0.0.1:13310\"\ncheck_timeout = \"3m\"\n";
    warned("exim-clamd", config, way, "Exim's time for a scanner is 120s");
    let way = "[[way]]\nkind = \"exim-transport\"\nlisten = \"127.0.0.1:10025\"\ncheck_timeout = \"300s\"\n";
    warned("exim-transport", config, way, "final_timeout of the transport is 900s");
    warned("exim-transport", macros, "smtp_accept_max_per_host = 5\n", "smtp_accept_max_per_host is 5");
}

#[test]
fn what_was_entered_by_hand_in_exim_is_not_entered_again() {
    let scene = Scene::new(fixtures::exim("exim", "exim-pipe", true));
    for plan in configure_mta::by_hand::plans() {
        if plan.way == "exim-pipe" && plan.method.is_some_and(|method| method.contains("split")) {
            for step in plan.steps {
                if let (Some(file), Some((_, lines))) = (step.file, step.lines) {
                    scene.fixture.file(file, lines);
                }
            }
        }
    }
    let composed = scene.plan();
    let titles: Vec<String> = composed.plan.changes.iter().map(Change::title).collect();
    assert_eq!(titles, ["run update-exim4.conf"]);
}

/// What the words of a fixture's plan are, one change a line.
fn titles(composed: &Composed) -> String {
    let changes = composed.setup.parts.iter().flat_map(|(_, changes)| changes);
    changes.map(|change| format!("{}\n", change.title())).collect()
}

fn postfix(name: &str) -> Scene {
    Scene::new(fixtures::all().into_iter().find(|fixture| fixture.name == name).unwrap())
}

#[test]
fn what_a_service_overrides_itself_is_kept_and_added_to() {
    let scene = postfix("postfix pipe, open, postscreen");
    let said = titles(&scene.plan());
    assert!(said.contains("smtpd/pass/receive_override_options=no_milters,no_address_mappings"), "{said}");
    let scene = postfix("postfix after");
    let own = "smtp inet n - y - - smtpd -o receive_override_options=no_milters\n\
               submission inet n - y - - smtpd -o receive_override_options=no_milters -o content_filter=\n";
    scene.fixture.file("/etc/postfix/master.cf", own);
    let said = titles(&scene.plan());
    assert!(said.contains("smtp/inet/receive_override_options=no_milters,no_address_mappings"), "{said}");
    assert!(!said.contains("submission/inet"), "its mail is not filtered: {said}");
}

#[test]
fn a_services_own_list_of_milters_is_added_to_and_others_keep_their_action() {
    let scene = postfix("postfix with a milter at a service");
    let said = titles(&scene.plan());
    assert!(said.contains("smtp/inet/smtpd_milters=inet:localhost:8891,unix:checkpost/milter.sock"), "{said}");
    assert!(said.contains("smtpd_milters={ unix:checkpost/milter.sock, default_action=tempfail }"), "{said}");
    assert!(!said.contains("milter_default_action="), "theirs stays: {said}");
}

#[test]
fn only_the_instance_that_was_chosen_is_touched() {
    for name in ["postfix, second instance", "postfix after, second instance"] {
        let scene = postfix(name);
        let first = ["main.cf", "master.cf"].map(|file| format!("/etc/postfix/{file}"));
        let read = || first.each_ref().map(|path| fs::read_to_string(scene.fixture.at(path)).unwrap());
        let before = read();
        scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
        assert_eq!(read(), before);
        let second = fs::read_to_string(scene.fixture.at("/etc/postfix-out/main.cf")).unwrap();
        assert!(second.contains("checkpost"), "{second}");
    }
    let scene = postfix("postfix, second instance");
    let mut given = Given::default();
    given.answers.insert("mta".into(), "postfix:/etc/postfix-out".into());
    given.answers.insert("method".into(), "postfix-pipe".into());
    let chosen = dialogue::choose(&scene.machine(), &mut given).unwrap();
    let why = compose(&scene.machine(), &chosen, false, scene.source.path()).unwrap_err().to_string();
    assert!(why.contains("hands mail back to the first instance"), "{why}");
}

#[test]
fn times_that_do_not_fit_are_told() {
    let said = |name: &str, files: &[(&str, &str)]| {
        let scene = postfix(name);
        for (path, line) in files {
            let there = fs::read_to_string(scene.fixture.at(path)).unwrap_or_default();
            scene.fixture.file(path, &format!("{there}{line}\n"));
        }
        scene.plan().plan.warnings.join("\n")
    };
    let main_cf = "/etc/postfix/main.cf";
    let toml = "/etc/checkpost/checkpost.toml";
    for name in ["postfix", "postfix before", "postfix after", "postfix pipe", "sendmail", "sendmail, open"] {
        assert_eq!(said(name, &[]), "", "{name}");
    }
    let short = said("postfix before", &[(main_cf, "smtpd_proxy_timeout = 60s")]);
    assert!(short.contains("smtpd_proxy_timeout is 60s, and Checkpost may take 90s"), "{short}");
    let way = |kind: &str, more: &str| format!("[[way]]\nkind = \"{kind}\"\n{more}\n");
    let long = way("postfix-before-queue", "check_timeout = \"80s\"");
    let long = said("postfix before", &[(toml, &long)]);
    assert!(long.contains("may take 125s (check_timeout 80s and hop_final_timeout 45s)"), "{long}");
    let long = way("postfix-milter", "check_timeout = \"5m\"\nmta_timeout = \"10m\"");
    assert!(said("postfix", &[(toml, &long)]).contains("milter_content_timeout is 300s"));
    assert_eq!(said("postfix", &[(toml, &long), (main_cf, "milter_content_timeout = 10m")]), "");
    // Of a file in conf.d, too.
    let long = way(
        "postfix-after-queue",
        "hop_final_timeout = \"20m\"\nlisten = \"127.0.0.1:10025\"\nprotocol = \"lmtp\"\nhop_protocol = \"smtp\"\n\
         next_hop = \"127.0.0.1:10026\"",
    );
    let long = said("postfix after, outside", &[("/etc/checkpost/conf.d/after.toml", &long)]);
    assert!(long.contains("lmtp_data_done_timeout is 1200s, and Checkpost may take 1290s"), "{long}");
    let long = said("postfix pipe", &[("/etc/checkpost/pipe.conf", "check_time = 1200s")]);
    assert!(long.contains("command_time_limit is 1000s, and Checkpost may take 1200s (check_time 1200s)"), "{long}");
    let long = way("courierfilter", "check_timeout = \"2m\"");
    let long = said("courier", &[(toml, &long)]);
    assert!(long.contains("timeout in /etc/checkpost/courier.conf is 100s, and Checkpost may take 120s"), "{long}");
    let long = way("sendmail-milter", "check_timeout = \"5m\"\nmta_timeout = \"10m\"");
    let long = said("sendmail", &[(toml, &long)]);
    assert!(
        long.contains("T=E: of the filter in /etc/mail/sendmail.mc is 300s, and Checkpost may take 300s"),
        "{long}"
    );
}
