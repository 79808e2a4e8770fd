//! What a root needs of this machine, and what a recipe is.
//! Nothing is started here; see `root`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{Skip, StartError, cache};

/// The lab as a whole.
#[derive(Debug)]
pub struct Lab;

impl Lab {
    /// Whether roots can be started here. The first call tries it for real (some milliseconds);
    /// the answer is kept.
    pub fn available() -> Result<(), Skip> {
        static ANSWER: OnceLock<Result<(), Skip>> = OnceLock::new();
        ANSWER.get_or_init(look).clone()
    }

    /// Whether systemd can be process 1 of a root here: it needs a control group of its own.
    pub fn boots() -> Result<(), Skip> {
        static ANSWER: OnceLock<Result<(), Skip>> = OnceLock::new();
        ANSWER.get_or_init(look_for_groups).clone()
    }

    /// Where the built layers and the running roots are: `$CHECKPOST_LAB_CACHE`, else
    /// `checkpost-lab` in the user's cache folder.
    pub fn cache() -> PathBuf {
        if let Some(path) = std::env::var_os("CHECKPOST_LAB_CACHE") {
            return path.into();
        }
        let caches = std::env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
            PathBuf::from,
        );
        caches.join("checkpost-lab")
    }

    /// Builds what starts of `recipes` need and is not in the cache yet; the first time takes minutes.
    pub fn prepare(recipes: &[&dyn Recipe]) -> Result<(), StartError> {
        Self::available()?;
        recipes.iter().try_for_each(|recipe| cache::layers(*recipe).map(drop))
    }

    /// The Debian packages that this machine must have.
    pub const PACKAGES: &[&str] = &["mmdebstrap", "debian-archive-keyring", "util-linux", "mount"];
}

/// One kind of server: a shell file that knows how to install and start it, and the settings of one
/// instance. Adding a server means one file in `recipes/` and one small type with this trait.
pub trait Recipe {
    /// Short and of letters: part of file names.
    fn name(&self) -> &'static str;

    /// The shell file: `packages`, `preseed`, `build`, then a line that begins with
    /// `# ---- from here on`, then `configure` (the settings of one instance) and `start` (for roots that do not boot). Up to that line it decides what the cached layer holds.
    fn script(&self) -> &'static str;

    /// Files for `/lab/setup`, as name and content, read by `configure`.
    fn setup(&self) -> Vec<(&'static str, String)>;

    /// Where mails lie that are not delivered yet. A server without a queue has none.
    fn queue(&self) -> Queue {
        Queue::default()
    }
}

/// The folders of a server's queue. Each entry is an absolute path in the root, the last part of which
/// is how the names of the files begin that stand for one mail each; after a `/` it is any file, in any
/// depth. Behind a `*` it is how they end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    /// To be delivered, now or later.
    pub waiting: &'static [&'static str],
    /// Held or quarantined: not delivered until somebody releases them.
    pub held: &'static [&'static str],
    /// A file of `waiting` with a line that begins so is held, where one folder has both.
    pub held_mark: Option<&'static str>,
}

/// Begins the line in a recipe that ends what the cached layer depends on.
pub(crate) const RUN_TIME: &str = "# ---- from here on";

fn look() -> Result<(), Skip> {
    if !rustix::process::geteuid().is_root() {
        return Err(Skip("real servers need root (namespaces and mounts)".to_owned()));
    }
    for program in ["unshare", "nsenter", "mount", "chroot", "bash", "mmdebstrap"] {
        if !in_path(program) {
            return Err(Skip(format!("real servers need the program {program}")));
        }
    }
    std::fs::create_dir_all(Lab::cache())
        .map_err(|error| Skip(format!("cannot write {}: {error}", Lab::cache().display())))?;
    // Layers are built with their upper folder in the cache, running roots have theirs in memory.
    let script = r#"
        set -e
        mount --make-rprivate /
        t=$(mktemp -d "$0/try.XXXXXX")
        trap 'umount -l "$t/root" 2>/dev/null; rm -rf "$t"' EXIT
        mkdir "$t/lower" "$t/upper" "$t/work" "$t/root"
        mount -t overlay overlay -o "lowerdir=$t/lower,upperdir=$t/upper,workdir=$t/work" "$t/root"
    "#;
    let tried = Command::new("unshare")
        .args(["-m", "-p", "-n", "-i", "-u", "-f", "--kill-child", "bash", "-c", script])
        .arg(Lab::cache())
        .stdin(Stdio::null())
        .output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Skip(format!(
            "no namespaces or no overlayfs for {}: {}",
            Lab::cache().display(),
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) => Err(Skip(format!("cannot run unshare: {error}"))),
    }
}

fn look_for_groups() -> Result<(), Skip> {
    let script = r#"
        mount --make-rprivate /
        mount -t tmpfs tmpfs "$0"
        mount -t cgroup2 cgroup2 "$0"
        mkdir "$0/checkpost-lab-try-$$"
        rmdir "$0/checkpost-lab-try-$$"
    "#;
    let tried = Command::new("unshare")
        .args(["-m", "bash", "-ec", script])
        .arg(Lab::cache())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Skip(format!("cannot run unshare: {error}")))?;
    if tried.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    Err(Skip(format!("systemd needs control groups of the second version: {said}")))
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
