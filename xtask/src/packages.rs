//! Debian packages that a task needs: installed where that is allowed, else named.

use std::process::Command;

use crate::run::watched;

/// Installs those of `packages` that are missing.
///
/// Returns why that was not possible, as a clause for the user; it names the packages.
pub(crate) fn ensure(packages: &[&str]) -> Result<(), String> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() {
        return Err(format!("packages missing, please run: sudo apt-get install {list}"));
    }
    let install = || {
        let mut command = Command::new("apt-get");
        command
            .args(["-q", "-y", "-o", "DPkg::Lock::Timeout=600", "install", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive");
        watched(&format!("installing {list}"), &mut command)
    };
    if install().is_ok_and(|done| done.status.success()) {
        return Ok(());
    }
    // The lists may never have been fetched on this machine.
    let _ = watched("fetching the package lists", Command::new("apt-get").args(["-q", "update"]));
    match install() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(format!("apt-get could not install {list}: {}", done.lines.last().map_or("", String::as_str))),
        Err(error) => Err(format!("packages missing and no apt-get: {list} ({error})")),
    }
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${Status}", package])
        .output()
        .is_ok_and(|output| output.stdout.ends_with(b" installed"))
}
