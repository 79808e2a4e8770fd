//! The engine on small trees of every MTA and layout: done twice, taken back, failing at every step, and killed at every
//! step. The real mail servers are in the whole-system tests.

#![allow(clippy::unwrap_used)]

mod fixtures;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use checkpost_setup::{Change, Owner};
use configure_mta::compose::{Composed, compose};
use configure_mta::dialogue::{self, Given};
use configure_mta::engine::{ApplyError, Engine, Quiet, Setup, Watch};
use configure_mta::journal::{Begin, JournalError, Journals, Part};
use configure_mta::machine::Machine;
use configure_mta::tree::Tree;
use configure_mta::undo::{self, UndoError};
use fixtures::{Fixture, StandIns};
use rustix::process::{Signal, getpid, kill_process};

/// Ends the run at a point, by an error or for good.
struct EndAt {
    point: usize,
    kill: bool,
}

impl Watch for EndAt {
    fn step(&mut self, what: &str) -> io::Result<()> {
        if self.point == 0 {
            if self.kill {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
            return Err(io::Error::other(format!("injected at {what}")));
        }
        self.point -= 1;
        Ok(())
    }

    fn within(&mut self, what: &str) -> io::Result<()> {
        self.step(what)
    }
}

/// Lets every step pass and counts them.
#[derive(Default)]
struct Count(usize);

impl Watch for Count {
    fn step(&mut self, _what: &str) -> io::Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn within(&mut self, what: &str) -> io::Result<()> {
        self.step(what)
    }
}

fn plan(machine: &Machine<'_>, method: &str, answers: &[(&str, &str)], source: &Path) -> Composed {
    let mut given = Given::default();
    given.answers.extend(answers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    given.answers.insert("method".into(), method.into());
    let chosen = dialogue::choose(machine, &mut given).unwrap();
    compose(machine, &chosen, false, source).unwrap()
}

/// Another thread's child may have our descriptor until it becomes its program.
fn lock(tree: &Tree) -> Journals {
    loop {
        match Journals::lock(tree) {
            Err(JournalError::Busy(_)) => std::thread::yield_now(),
            locked => return locked.unwrap(),
        }
    }
}

/// A tree, its programs, and a folder with ours.
struct Scene {
    fixture: Fixture,
    tree: Tree,
    tools: StandIns,
    source: tempfile::TempDir,
}

impl Scene {
    fn new(fixture: Fixture) -> Self {
        fixtures::stand_ins(fixture.folder.path());
        let source = tempfile::tempdir().unwrap();
        for program in [
            "checkpost-courier",
            "checkpost-qmail-queue",
            "checkpost-zmailer",
            "libcheckpost_exim_local_scan.so",
            "checkpost-pipe",
        ] {
            fs::write(source.path().join(program), format!("#!/bin/sh\nexit 0 # {program}\n")).unwrap();
        }
        let tree = Tree::open(fixture.folder.path()).unwrap();
        let tools = StandIns::new(fixture.folder.path());
        Self { fixture, tree, tools, source }
    }

    fn machine(&self) -> Machine<'_> {
        Machine { tree: &self.tree, tools: &self.tools }
    }

    fn plan(&self) -> Composed {
        plan(&self.machine(), self.fixture.method, self.fixture.answers, self.source.path())
    }

    fn apply(&self, setup: &Setup, watch: &mut dyn Watch) -> Result<(), ApplyError> {
        let journals = lock(&self.tree);
        let programs = |name: &str| fs::read(self.source.path().join(name));
        let stop = AtomicBool::new(false);
        let done = Engine { machine: self.machine(), watch, stop: &stop, programs: &programs }.apply(&journals, setup);
        journals.leave();
        done
    }

    fn undo(&self, force: bool) -> Result<(), UndoError> {
        let journals = lock(&self.tree);
        let runs = journals.runs().unwrap();
        let done = undo::undo_all(&self.machine(), &journals, &runs, force, &mut Quiet);
        journals.leave();
        done
    }

    fn heal(&self) -> bool {
        let journals = lock(&self.tree);
        let programs = |name: &str| fs::read(self.source.path().join(name));
        let stop = AtomicBool::new(false);
        let mut engine = Engine { machine: self.machine(), watch: &mut Quiet, stop: &stop, programs: &programs };
        let healed = engine.heal(&journals).unwrap();
        journals.leave();
        healed
    }

    /// As before, but for folders of ours above, which a run leaves when something else may be in them.
    fn is(&self, expected: &fixtures::Snapshot, when: &str) {
        let now = self.fixture.snapshot();
        let ignored = |path: &Path| {
            matches!(path.to_str().unwrap(), "var" | "var/lib" | "var/lib/configure_mta" | "var/lib/configure_mta/lock")
        };
        for path in expected.keys().chain(now.keys()).filter(|path| !ignored(path)) {
            let (was, is) = (expected.get(path), now.get(path));
            let text = |one: Option<&(u32, u32, u32, Vec<u8>)>| {
                one.map(|one| (one.0, String::from_utf8_lossy(&one.3).into_owned()))
            };
            assert!(was == is, "{} {when}: {path:?}\nWAS {:?}\nIS {:?}", self.fixture.name, text(was), text(is));
        }
    }
}

#[test]
fn applied_twice_the_second_plan_is_empty_and_undone_all_is_as_before() {
    for fixture in fixtures::all() {
        let scene = Scene::new(fixture);
        let before = scene.fixture.snapshot();
        let composed = scene.plan();
        assert!(!composed.setup.is_empty(), "{}", scene.fixture.name);
        scene.is(&before, "after a plan");
        scene.apply(&composed.setup, &mut Quiet).unwrap();
        assert_ne!(scene.fixture.snapshot(), before, "{}", scene.fixture.name);
        let again = scene.plan();
        assert!(again.setup.is_empty(), "{}: {:#?}", scene.fixture.name, again.setup);
        scene.undo(false).unwrap();
        scene.is(&before, "after undo");
        // And once more, since what was undone may be wanted again.
        scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
        scene.undo(false).unwrap();
        scene.is(&before, "after the second undo");
    }
}

#[test]
fn a_failure_at_any_step_leaves_all_as_it_was() {
    for fixture in fixtures::all() {
        let scene = Scene::new(fixture);
        let before = scene.fixture.snapshot();
        let composed = scene.plan();
        let mut count = Count::default();
        scene.apply(&composed.setup, &mut count).unwrap();
        scene.undo(false).unwrap();
        assert!(count.0 > 5);
        for point in 0..count.0 {
            let failed = scene.apply(&composed.setup, &mut EndAt { point, kill: false });
            assert!(matches!(failed, Err(ApplyError::RolledBack { .. })), "{} {point}: {failed:?}", scene.fixture.name);
            scene.is(&before, &format!("failed at {point}"));
        }
    }
}

/// Not a test of its own: the child that the next test kills.
#[test]
fn a_child_that_is_killed() {
    let Ok(words) = std::env::var("CONFIGURE_MTA_KILLED") else { return };
    let words: Vec<&str> = words.split('|').collect();
    let [root, source, method, answers, point, undoes] = words[..] else { panic!("{words:?}") };
    let (tree, tools) = (Tree::open(Path::new(root)).unwrap(), StandIns::new(Path::new(root)));
    let machine = || Machine { tree: &tree, tools: &tools };
    let answers: Vec<(&str, &str)> = answers.split(',').filter_map(|pair| pair.split_once('=')).collect();
    let journals = lock(&tree);
    let mut watch = EndAt { point: point.parse().unwrap(), kill: true };
    if undoes == "undo" {
        undo::undo_all(&machine(), &journals, &journals.runs().unwrap(), false, &mut watch).unwrap();
        return;
    }
    let composed = plan(&machine(), method, &answers, Path::new(source));
    let programs = |name: &str| fs::read(Path::new(source).join(name));
    let stop = AtomicBool::new(false);
    Engine { machine: machine(), watch: &mut watch, stop: &stop, programs: &programs }
        .apply(&journals, &composed.setup)
        .unwrap();
}

impl Scene {
    /// True if it was killed, false if it came to its end.
    fn killed_at(&self, point: usize, undoes: bool) -> bool {
        let answers: Vec<String> = self.fixture.answers.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let words = [
            self.fixture.folder.path().to_str().unwrap(),
            self.source.path().to_str().unwrap(),
            self.fixture.method,
            &answers.join(","),
            &point.to_string(),
            if undoes { "undo" } else { "apply" },
        ]
        .join("|");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_child_that_is_killed"])
            .env("CONFIGURE_MTA_KILLED", words)
            .output()
            .unwrap();
        let killed = output.status.signal() == Some(9);
        assert!(killed || output.status.success(), "{output:?}");
        killed
    }
}

#[test]
fn killed_at_any_step_the_next_run_heals() {
    for fixture in fixtures::all() {
        let scene = Scene::new(fixture);
        let before = scene.fixture.snapshot();
        let mut point = 0;
        while scene.killed_at(point, false) {
            scene.heal();
            scene.is(&before, &format!("killed at {point}"));
            point += 1;
        }
        assert!(point > 5, "{}", scene.fixture.name);
        // It has come to its end now; the same for the way back.
        assert!(!scene.heal());
        let applied = scene.fixture.snapshot();
        let mut point = 0;
        while scene.killed_at(point, true) {
            scene.heal();
            scene.is(&before, &format!("killed at {point} of the undo"));
            scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
            let now = scene.fixture.snapshot();
            let paths = |snapshot: &fixtures::Snapshot| snapshot.keys().cloned().collect::<Vec<_>>();
            assert_eq!(paths(&now), paths(&applied));
            point += 1;
        }
        scene.is(&before, "after undo");
    }
}

#[test]
fn what_others_change_stays_and_what_they_change_of_ours_is_shown() {
    let scene = Scene::new(fixtures::all().remove(0));
    let main_cf = scene.fixture.at("/etc/postfix/main.cf");
    let before = fs::read_to_string(&main_cf).unwrap();
    scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
    let ours = fs::read_to_string(&main_cf).unwrap();
    // Somebody else's line, far from ours: it stays.
    fs::write(&main_cf, format!("# new on top\n{ours}")).unwrap();
    scene.undo(false).unwrap();
    assert_eq!(fs::read_to_string(&main_cf).unwrap(), format!("# new on top\n{before}"));
    // Our own line: nothing is undone, and it is shown.
    fs::write(&main_cf, &before).unwrap();
    scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
    let theirs = ours.replace("milter_default_action = tempfail", "milter_default_action = accept");
    assert_ne!(theirs, ours);
    fs::write(&main_cf, &theirs).unwrap();
    let all = scene.fixture.snapshot();
    let Err(UndoError::Changed(conflicts)) = scene.undo(false) else { panic!("it was not refused") };
    assert!(
        conflicts[0].diff.contains("-milter_default_action = tempfail\n+milter_default_action = accept"),
        "{conflicts:?}"
    );
    scene.is(&all, "after an undo that was refused");
    scene.undo(true).unwrap();
    assert_eq!(fs::read_to_string(&main_cf).unwrap(), before);
    assert_eq!(fs::read_to_string(scene.fixture.at("/etc/postfix/main.cf.before-undo")).unwrap(), theirs);
}

#[test]
fn a_file_that_changed_since_the_plan_is_not_overwritten() {
    let sendmail = fixtures::all().into_iter().find(|fixture| fixture.name == "sendmail").unwrap();
    let scene = Scene::new(sendmail);
    let composed = scene.plan();
    fs::write(scene.fixture.at("/etc/mail/sendmail.mc"), "quite another\nMAILER(`smtp')dnl\n").unwrap();
    let before = scene.fixture.snapshot();
    let failed = scene.apply(&composed.setup, &mut Quiet).unwrap_err();
    let ApplyError::RolledBack { why, .. } = failed else { panic!("{failed:?}") };
    assert!(why.to_string().contains("has changed since the plan was made"), "{why}");
    scene.is(&before, "after a refusal");
}

#[test]
fn hostile_names_and_links_are_not_followed() {
    let scene = Scene::new(fixtures::all().remove(0));
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "root:x\n").unwrap();
    // A mail server's own folder is a link that leads out of the tree.
    fs::create_dir_all(scene.fixture.at("/srv")).unwrap();
    std::os::unix::fs::symlink(outside.path(), scene.fixture.at("/srv/away")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("passwd"), scene.fixture.at("/srv/file")).unwrap();
    let before = scene.fixture.snapshot();
    for path in ["/srv/away/passwd", "/srv/file", "/srv/../../x", "relative"] {
        let change = Change::write(path, None, "ours\n", Owner::root(), 0o644, "test").unwrap();
        let part = Part { title: "test".into(), check: Vec::new(), activate: Vec::new(), settle: Vec::new() };
        let begin = Begin {
            mta: "x".into(),
            instance: None,
            method: "x".into(),
            answers: BTreeMap::new(),
            filters: Vec::new(),
            at: 0,
        };
        let setup = Setup { begin, parts: vec![(part, vec![change])] };
        let failed = scene.apply(&setup, &mut Quiet);
        assert!(matches!(failed, Err(ApplyError::RolledBack { .. })), "{path}: {failed:?}");
        scene.is(&before, path);
        assert_eq!(fs::read_to_string(outside.path().join("passwd")).unwrap(), "root:x\n", "{path}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}

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

#[test]
fn an_upgrade_of_qmail_is_seen() {
    let scene = Scene::new(fixtures::all().into_iter().find(|fixture| fixture.method == "qmail-queue").unwrap());
    scene.apply(&scene.plan().setup, &mut Quiet).unwrap();
    // `make setup` writes a new program in the place of ours.
    fs::remove_file(scene.fixture.at("/var/qmail/bin/qmail-queue")).unwrap();
    scene.fixture.file("/var/qmail/bin/qmail-queue", "a newer original");
    scene.fixture.mode("/var/qmail/bin/qmail-queue", 0o4711);
    let Err(UndoError::Changed(conflicts)) = scene.undo(false) else { panic!("the new one would be lost") };
    assert_eq!(conflicts[0].path, "/var/qmail/bin/qmail-queue");
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
