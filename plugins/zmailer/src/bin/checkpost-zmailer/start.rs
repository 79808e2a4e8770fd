//! How smtpserver starts its filter (subdaemon-ctf.c): as root, with standard error on the same pipe as the verdicts.
//! Both are put right before anything else is done.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::User;
use rustix::fs::MemfdFlags;
use rustix::process::{Gid, Resource, Uid, geteuid, getrlimit, setrlimit};

/// Takes standard error away from the stream of verdicts: a word there would be a verdict, or spoil one.
pub(crate) fn quiet() {
    crate::log::to_syslog();
    let anything = || -> io::Result<OwnedFd> {
        let null = File::options().write(true).open("/dev/null").map(OwnedFd::from);
        null.or_else(|_| Ok(rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC)?))
    };
    // Without either it stays; our own lines do not go there, a fault's neither.
    if let Ok(other) = anything() {
        let _ = rustix::stdio::dup2_stderr(other);
    }
}

/// Becomes ZMailer's trusted user, for good, if root; else stays who it is. There must be one thread only.
pub(crate) fn drop_privileges(user: &str) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = look_up(user)?;
    if uid.is_root() {
        return Err(io::Error::other(format!("user {user}: is root; accepted: ZMailer's TRUSTEDUSER")));
    }
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(rustix::thread::set_no_new_privs(true)?)
}

fn look_up(user: &str) -> io::Result<(Uid, Gid)> {
    let found = match user.parse() {
        Ok(number) => User::from_uid(nix::unistd::Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    };
    let found = found.map_err(io::Error::from)?.ok_or_else(|| io::Error::other(format!("no user {user}")))?;
    Ok((Uid::from_raw(found.uid.as_raw()), Gid::from_raw(found.gid.as_raw())))
}

/// The listening socket that systemd has put in place of standard input (`StandardInput=socket`).
pub(crate) fn handed_over() -> Option<std::os::unix::net::UnixListener> {
    let stdin = io::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(stdin.as_fd()).unwrap_or(false);
    listens.then(|| stdin.as_fd().try_clone_to_owned().ok().map(Into::into)).flatten()
}

/// More descriptors, as far as they may be had.
pub(crate) fn raise_limit(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
