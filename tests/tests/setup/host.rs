//! One mail server's machine, with Checkpost's programs in a folder and nothing else of it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use checkpost_tests::{Recipe, Root, StartError, Told, mails, program, skip};

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const SENDER: &str = "sender@example.net";
pub(crate) const ALICE: &str = "alice@example.test";

pub(crate) struct Host {
    pub(crate) root: Root,
}

/// Path, and all that an undo must bring back: kind, permissions, owner, content.
pub(crate) type Snapshot = BTreeMap<String, (u32, u32, u32, Vec<u8>)>;

impl Host {
    /// `None` if the test was skipped. The lab's mount for milters is taken away again: the product makes its own folder.
    pub(crate) fn start(recipe: &dyn Recipe, milter: Option<&str>) -> Option<Self> {
        Self::start_with(recipe, milter, "2g")
    }

    /// On a disk of this size.
    pub(crate) fn start_with(recipe: &dyn Recipe, milter: Option<&str>, size: &str) -> Option<Self> {
        let root = Root::of(recipe).bind(programs(), "/opt/checkpost").size(size).start_or_skip()?;
        let host = Self { root };
        if let Some(folder) = milter {
            host.shell(&format!("umount {folder}; rmdir {folder}"));
        }
        Some(host)
    }

    /// With systemd. `None` if the test was skipped.
    pub(crate) fn boot(recipe: &dyn Recipe) -> Option<Self> {
        Some(Self { root: Root::of(recipe).bind(programs(), "/opt/checkpost").boots().start_or_skip()? })
    }

    /// `None`: it was listed as skipped.
    pub(crate) fn of(root: Result<Root, StartError>) -> Option<Self> {
        match root {
            Ok(root) => Some(Self { root }),
            Err(StartError::Unavailable(why)) => {
                skip(&why);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn shell(&self, run: &str) -> String {
        let output = self.root.command("sh").args(["-ec", run]).output().unwrap();
        assert!(output.status.success(), "{run}: {output:?}\n{}", self.said());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `configure_mta` with these words.
    pub(crate) fn configure(&self, words: &[&str]) -> Output {
        self.root.command("/opt/checkpost/configure_mta").args(words).output().unwrap()
    }

    /// It ends with this code; what it printed.
    pub(crate) fn expect(&self, code: i32, words: &[&str]) -> String {
        let output = self.configure(words);
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let said = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{words:?}\n{said}\n{}", self.said());
        said
    }

    pub(crate) fn said(&self) -> String {
        let mut daemon = std::fs::read(self.root.path("/var/log/checkpost.log")).unwrap_or_default();
        let journal = self.root.command("journalctl").args(["-u", "checkpost", "--no-pager"]).output();
        daemon.extend(journal.map(|output| output.stdout).unwrap_or_default());
        format!("MTA\n{}\nCHECKPOST\n{}", self.root.log(), String::from_utf8_lossy(&daemon))
    }

    pub(crate) fn send(&self, mail: &[u8]) -> Told {
        self.root.send(SENDER, &[ALICE], mail).unwrap()
    }

    /// A mail without a filter: anything is delivered.
    pub(crate) fn flows_as_before(&self) {
        assert!(self.root.wait_queue_empty(SOON), "{}", self.said());
        let before = self.root.mailbox("alice").len();
        assert!(self.send(&infected()).accepted(), "{}", self.said());
        assert!(self.send(&clean()).accepted(), "{}", self.said());
        assert_eq!(self.root.wait_mailbox("alice", before + 2, SOON).len(), before + 2, "{}", self.said());
        assert!(self.root.wait_queue_empty(SOON), "{}", self.said());
    }

    /// All that a set-up may touch, and the folders around it.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_below("")
    }

    /// The same of a system in a folder.
    pub(crate) fn snapshot_below(&self, top: &str) -> Snapshot {
        let mut all = Snapshot::new();
        for folder in [
            "/etc",
            "/usr/bin",
            "/usr/sbin",
            "/usr/lib/courier/filters",
            "/usr/lib/exim4",
            "/var/lib/exim4",
            "/var/lib/configure_mta",
            "/var/spool/postfix/checkpost",
            "/var/spool/postfix-out/checkpost",
        ] {
            walk(&self.root, &format!("{top}{folder}"), &mut all);
        }
        all
    }
}

/// The folder with Checkpost's programs.
pub(crate) fn programs() -> PathBuf {
    program("configure_mta").parent().unwrap().to_owned()
}

pub(crate) fn same(before: &Snapshot, after: &Snapshot) {
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (before, after) = (before.get(path), after.get(path));
        let text = |one: Option<&(u32, u32, u32, Vec<u8>)>| {
            one.map(|(mode, uid, gid, content)| format!("{mode:o} {uid}:{gid}\n{}", String::from_utf8_lossy(content)))
        };
        assert!(before == after, "{path}\nBEFORE {:?}\nAFTER {:?}", text(before), text(after));
    }
}

pub(crate) fn walk(root: &Root, folder: &str, all: &mut Snapshot) {
    let here = root.path(folder);
    let Ok(about) = here.symlink_metadata() else { return };
    all.insert(folder.to_owned(), (about.mode(), about.uid(), about.gid(), content(&here)));
    if !about.is_dir() {
        return;
    }
    for entry in std::fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        walk(root, &format!("{folder}/{name}"), all);
    }
}

fn content(path: &Path) -> Vec<u8> {
    let about = path.symlink_metadata().unwrap();
    if about.is_symlink() {
        return std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes();
    }
    if !about.is_file() {
        return Vec::new();
    }
    // Large programs by their length alone.
    if about.len() > 4 << 20 { about.len().to_string().into_bytes() } else { std::fs::read(path).unwrap() }
}

pub(crate) fn clean() -> Vec<u8> {
    mails::plain(SENDER, ALICE, "clean", "Grüße\n\n.\nlast line\n")
}

pub(crate) fn infected() -> Vec<u8> {
    mails::with_attachment(SENDER, ALICE, "infected", "invoice.zip", &mails::eicar_in_nested_zip())
}
