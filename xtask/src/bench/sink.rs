//! The next hop of every measurement: Postfix's `smtp-sink`, which takes mail as fast as it can and forgets it.
//! Not an installation: where Postfix is missing, its package is only unpacked into the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use super::process::{Server, free_port};

/// Starts `smtp-sink` on `port` of loopback (0: any). `program` is where the user says it is.
///
/// # Errors
/// When it can neither be found nor be had from apt, or does not start.
pub(super) fn start(program: Option<&Path>, cache: &Path, port: u16) -> anyhow::Result<Server> {
    let mut address = free_port()?;
    if port != 0 {
        address.set_port(port);
    }
    let mut command = command(program, cache)?;
    if rustix::process::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    // The last number is the listen backlog; -m is how many sessions it serves at the same time.
    command.args(["-h", "sink.example", "-m", "2000", &address.to_string(), "1024"]).stdout(Stdio::null());
    let mut sink = Server::start("smtp-sink", command, address)?;
    sink.greeting(Instant::now())?;
    Ok(sink)
}

fn command(program: Option<&Path>, cache: &Path) -> anyhow::Result<Command> {
    if let Some(program) = program {
        return Ok(Command::new(program));
    }
    let installed = Path::new("/usr/sbin/smtp-sink");
    if installed.exists() {
        return Ok(Command::new(installed));
    }
    let root = cache.join("postfix");
    let unpacked = root.join("usr/sbin/smtp-sink");
    if !unpacked.exists() {
        unpack(cache, &root).context(
            "there is no smtp-sink here: install the package postfix, name the program with --sink, or let \
             `apt-get download` work (after `apt-get update`)",
        )?;
    }
    let mut command = Command::new(&unpacked);
    command.env("LD_LIBRARY_PATH", library_path(&root));
    Ok(command)
}

/// Downloads the package, and the libraries it needs where this machine lacks them, and unpacks all into `root`.
fn unpack(cache: &Path, root: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(make(cache)?)?;
    let new = folder.path().join("root");
    download(folder.path(), &["postfix".to_string()], &new)?;
    let libraries = Command::new("ldd")
        .arg(new.join("usr/sbin/smtp-sink"))
        .env("LD_LIBRARY_PATH", library_path(&new))
        .output()
        .context("ldd")?;
    if String::from_utf8_lossy(&libraries.stdout).contains("not found") {
        download(folder.path(), &needed_libraries()?, &new)?;
    }
    fs::rename(&new, root).context("could not keep the unpacked package")
}

/// The library packages below `postfix`, the C library excepted: every Debian has that.
fn needed_libraries() -> anyhow::Result<Vec<String>> {
    let output = Command::new("apt-cache")
        .args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"])
        .args(["--no-replaces", "--no-enhances", "postfix"])
        .output()
        .context("apt-cache")?;
    let names = String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect::<Vec<_>>();
    let wanted = ["libdb", "libicu", "libnsl", "libtirpc", "libssl", "libsasl2-2"];
    Ok(names.into_iter().filter(|name| wanted.iter().any(|prefix| name.starts_with(prefix))).collect())
}

fn download(folder: &Path, packages: &[String], root: &Path) -> anyhow::Result<()> {
    // Without the sandbox user, who may not write into our folder; no other user's files are touched.
    let status = Command::new("apt-get")
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(folder)
        .status()
        .context("apt-get")?;
    ensure!(status.success(), "apt-get download ended with {status}");
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let status = Command::new("dpkg-deb").arg("-x").args([&path, root]).status().context("dpkg-deb")?;
            ensure!(status.success(), "dpkg-deb ended with {status}");
            fs::remove_file(&path)?;
        }
    }
    if !root.join("usr/sbin/smtp-sink").exists() {
        bail!("the package holds no smtp-sink");
    }
    Ok(())
}

/// Where the unpacked libraries are: Postfix's own folder and the multi-arch ones.
fn library_path(root: &Path) -> String {
    let mut folders = vec![root.join("usr/lib/postfix")];
    for parent in ["usr/lib", "lib"] {
        let architectures = fs::read_dir(root.join(parent)).into_iter().flatten().flatten();
        folders
            .extend(architectures.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("-linux-")));
    }
    folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

fn make(folder: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(folder.to_path_buf())
}
