//! The cached layers: one Debian base, and on it one overlay layer for each recipe. And the folders
//! of running roots, with those of dead owners swept away.
//!
//! A layer's folder carries a digest of everything that went into it, so that checkouts with other
//! recipes never disturb each other, and a layer in use is never written again.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::lab::{Lab, RUN_TIME, Recipe};
use crate::{Skip, StartError};

/// The Debian release in the roots. Its versions are what the plug-ins' READMEs speak of.
const SUITE: &str = "bookworm";

const BASE: &str = include_str!("recipes/base.sh");
const ENTER: &str = include_str!("recipes/enter.sh");

/// A layer that no start has used for so long is removed when another one is built.
const KEEP_UNUSED: Duration = Duration::from_secs(14 * 24 * 3600);

/// Returns the lower folders for `recipe`, topmost first, and builds what is missing. One builder at
/// a time; the others wait.
pub(crate) fn layers(recipe: &dyn Recipe) -> Result<Vec<PathBuf>, StartError> {
    let build_part = recipe.script().split(RUN_TIME).next().unwrap_or_default();
    let base = layer_path("base", &[SUITE, BASE]);
    let layer = layer_path(recipe.name(), &[SUITE, BASE, build_part]);
    if !base.is_dir() || !layer.is_dir() {
        let _one_at_a_time = locked(&Lab::cache().join("build.lock"))?;
        if !base.is_dir() {
            drop_unused()?;
            build_base(&base)?;
        }
        if !layer.is_dir() {
            build_layer(recipe, &base, &layer)?;
        }
    }
    for path in [&base, &layer] {
        // Only for `drop_unused`; a read-only cache is fine otherwise.
        let _ = fs::write(used_mark(path), "");
    }
    Ok(vec![layer, base])
}

/// The folder of one running root. Its lock is held as long as the owner lives.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Instance {
    /// Makes a new folder with `setup/` and `shared/` in it, after sweeping those of dead owners.
    pub(crate) fn new(recipe: &dyn Recipe) -> Result<Self, StartError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let running = Lab::cache().join("run");
        fs::create_dir_all(&running)?;
        // Held so that nobody takes a new folder, not yet locked, for a stale one.
        let _sweeping = locked(&running.join("lock"))?;
        sweep(&running)?;
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = running.join(format!("{}-{}-{n}", recipe.name(), std::process::id()));
        fs::create_dir(&path)?;
        let lock = locked(&path.join("lock"))?;
        for folder in ["setup", "shared", "top"] {
            fs::create_dir(path.join(folder))?;
        }
        open_to_all(&path.join("shared"))?;
        write_setup(&path.join("setup"), recipe)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later start.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn sweep(running: &Path) -> io::Result<()> {
    for entry in fs::read_dir(running)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let stale = File::open(path.join("lock")).map_or(true, |lock| lock.try_lock().is_ok());
        if stale {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn write_setup(setup: &Path, recipe: &dyn Recipe) -> io::Result<()> {
    fs::write(setup.join("enter.sh"), ENTER)?;
    fs::write(setup.join(format!("{}.sh", recipe.name())), recipe.script())?;
    for (name, content) in recipe.setup() {
        fs::write(setup.join(name), content)?;
    }
    Ok(())
}

fn build_base(base: &Path) -> Result<(), StartError> {
    let packages = BASE
        .lines()
        .find_map(|line| line.strip_prefix("packages="))
        .map(|list| list.trim_matches('"').replace(' ', ","))
        .unwrap_or_default();
    let new = fresh(base)?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--mode=root", "--variant=apt", "--format=directory"])
        .args(["--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Languages \"none\""])
        .args(["--aptopt=Acquire::Retries \"3\"", "--dpkgopt=force-unsafe-io"])
        .arg(format!("--include={packages}"))
        .arg(SUITE)
        .arg(&new);
    if let Some(sources) = own_sources() {
        make.arg(sources);
    }
    finish("the base", make, "base")?;
    let mut build = Command::new("unshare");
    build
        .args(["-m", "-p", "-n", "-f", "--kill-child", "chroot"])
        .arg(&new)
        .args(["bash", "-euc", &format!("{BASE}\nbuild\n")])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    finish("the base", build, "base-setup")?;
    Ok(fs::rename(&new, base)?)
}

fn build_layer(recipe: &dyn Recipe, base: &Path, layer: &Path) -> Result<(), StartError> {
    let new = fresh(layer)?;
    let setup = new.join("setup");
    fs::create_dir_all(&setup)?;
    write_setup(&setup, recipe)?;
    let [archives, lists] = ["archives", "lists"].map(|folder| Lab::cache().join(folder));
    for folder in [&archives, &lists] {
        fs::create_dir_all(folder.join("partial"))?;
    }
    let mut build = Command::new("unshare");
    build
        .args(["-m", "-p", "-i", "-u", "-f", "--kill-child", "bash"])
        .arg(setup.join("enter.sh"))
        .args(["build", recipe.name()])
        .args([&new, base, &setup])
        .arg(format!("{}:/var/cache/apt/archives", archives.display()))
        .arg(format!("{}:/var/lib/apt/lists", lists.display()));
    finish(&format!("the layer of {}", recipe.name()), build, recipe.name())?;
    fs::rename(new.join("upper"), layer)?;
    Ok(fs::remove_dir_all(&new)?)
}

/// Runs one step of a build, its output in a log file of the cache.
#[allow(clippy::print_stderr)]
fn finish(what: &str, mut command: Command, log: &str) -> Result<(), StartError> {
    eprintln!("lab: building {what} (once; about a minute)");
    let log = Lab::cache().join(format!("build-{log}.log"));
    let output = File::create(&log)?;
    let status = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).status()?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(&log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let failed = format!("{what} could not be built, see {}: {}", log.display(), last_lines(&said, 3));
    // Without a mirror there is nothing to test against; that is no fault of what is tested.
    if ["Unable to fetch", "Failed to fetch", "Could not resolve", "Temporary failure resolving"]
        .iter()
        .any(|sign| said.contains(sign))
    {
        return Err(StartError::Unavailable(Skip(format!("packages cannot be fetched: {failed}"))));
    }
    Err(StartError::Failed(failed))
}

/// An empty folder beside `path`, to be renamed to it when complete.
fn fresh(path: &Path) -> io::Result<PathBuf> {
    let new = path.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new)?;
    }
    fs::create_dir_all(&new)?;
    Ok(new)
}

fn layer_path(name: &str, inputs: &[&str]) -> PathBuf {
    let mut digest = DefaultHasher::new();
    inputs.hash(&mut digest);
    Lab::cache().join("layers").join(format!("{name}-{:016x}", digest.finish()))
}

fn used_mark(layer: &Path) -> PathBuf {
    layer.with_extension("used")
}

fn drop_unused() -> io::Result<()> {
    let layers = Lab::cache().join("layers");
    fs::create_dir_all(&layers)?;
    for entry in fs::read_dir(&layers)? {
        let mark = entry?.path();
        if mark.extension().is_none_or(|ending| ending != "used") {
            continue;
        }
        let used = fs::metadata(&mark)?.modified()?;
        if SystemTime::now().duration_since(used).unwrap_or_default() > KEEP_UNUSED {
            let _ = fs::remove_dir_all(mark.with_extension(""));
            let _ = fs::remove_file(&mark);
        }
    }
    Ok(())
}

/// The machine's own package source, when it is of the same release: a local mirror stays in use.
fn own_sources() -> Option<PathBuf> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(SUITE)))
}

fn locked(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::create(path)?;
    file.lock()?;
    Ok(file)
}

fn open_to_all(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777))
}

pub(crate) fn last_lines(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(n)..].join(" | ")
}
