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
use configure_mta::engine::{ApplyError, Engine, Quiet, Setup, Watch};
use configure_mta::journal::{Begin, Part};
use configure_mta::machine::Machine;
use configure_mta::tree::Tree;
use configure_mta::undo::{self, UndoError};
use fixtures::StandIns;
use fixtures::scene::{Scene, lock, plan};
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
