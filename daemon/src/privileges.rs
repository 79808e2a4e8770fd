//! From root to an own user, and the limits of the process. It reads no configuration.
//!
//! systemd's `User=` is the normal way; this one is for starts by hand and other init systems. It
//! works on the calling thread, so it must be called before there is a second one: threads started
//! later inherit it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// A user to run as.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    user: u32,
    group: u32,
    supplementary: Vec<u32>,
}

/// Why privileges could not be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// No such user in `/etc/passwd`.
    #[error("no user {0:?} in /etc/passwd; make one with: useradd --system --home-dir /var/lib/checkpost {0}")]
    NoUser(String),
    /// No such group in `/etc/group`.
    #[error("no group {0:?} in /etc/group; make one with: groupadd --system {0}")]
    NoGroup(String),
    /// A file of accounts cannot be read.
    #[error("cannot read {0}")]
    Unreadable(&'static str, #[source] io::Error),
    /// A user was named, but the program was not started as root and is somebody else.
    #[error("cannot become user {0:?}: not started as root; remove `user` and `group` from [daemon]")]
    NotRoot(String),
    /// The kernel refused.
    #[error("cannot drop privileges; start as that user instead (systemd: User=)")]
    Refused(#[source] io::Error),
}

impl Account {
    /// Looks a user up in `/etc/passwd` and `/etc/group`; numbers are taken as they are. The group is
    /// the user's own unless another is named.
    pub fn look_up(user: &str, group: Option<&str>) -> Result<Self, PrivilegeError> {
        let read = |path| std::fs::read_to_string(path).map_err(|error| PrivilegeError::Unreadable(path, error));
        Self::look_up_in(&read("/etc/passwd")?, &read("/etc/group")?, user, group)
    }

    fn look_up_in(passwd: &str, groups: &str, user: &str, group: Option<&str>) -> Result<Self, PrivilegeError> {
        let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
            let found = fields.len() >= 4 && (fields[0] == user || fields[2] == user);
            found.then(|| Some((fields[0].to_owned(), fields[2].parse().ok()?, fields[3].parse().ok()?)))?
        });
        let (name, user, own_group) = match (entry, user.parse::<u32>()) {
            (Some(entry), _) => entry,
            (None, Ok(number)) => (String::new(), number, number),
            (None, Err(_)) => return Err(PrivilegeError::NoUser(user.to_owned())),
        };
        let mut supplementary = Vec::new();
        let mut named = None;
        for fields in groups.lines().map(|line| line.split(':').collect::<Vec<_>>()) {
            let [group_name, _, number, members, ..] = fields[..] else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            if Some(group_name) == group {
                named = Some(number);
            }
            if members.split(',').any(|member| member == name && !name.is_empty()) {
                supplementary.push(number);
            }
        }
        let group = match (group, named) {
            (None, _) => own_group,
            (Some(_), Some(number)) => number,
            (Some(group), None) => group.parse().map_err(|_| PrivilegeError::NoGroup(group.to_owned()))?,
        };
        Ok(Self { user, group, supplementary })
    }

    /// Becomes this user for good. Only binding ports below 1024 is kept, so that a reload can open
    /// a new listener. Does nothing when the process is this user already.
    pub fn become_it(&self, name: &str) -> Result<(), PrivilegeError> {
        if rustix::process::geteuid().as_raw() == self.user {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err(PrivilegeError::NotRoot(name.to_owned()));
        }
        self.drop_all().map_err(|error| PrivilegeError::Refused(error.into()))
    }

    fn drop_all(&self) -> rustix::io::Result<()> {
        let groups: Vec<Gid> = self.supplementary.iter().map(|&group| Gid::from_raw(group)).collect();
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        let low_ports = CapabilitySet::NET_BIND_SERVICE & rustix::thread::capabilities(None)?.permitted;
        let sets = CapabilitySets { effective: low_ports, permitted: low_ports, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
        rustix::thread::set_no_new_privs(true)
    }
}

/// Makes a directory of ours with these permission bits if it is not there, and gives it to the account.
pub fn own_directory(path: &Path, mode: u32, account: Option<&Account>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
    if let Some(account) = account
        && std::fs::metadata(path)?.uid() != account.user
    {
        std::os::unix::fs::chown(path, Some(account.user), Some(account.group))?;
    }
    Ok(())
}

/// Raises the soft limit on open files to the hard one: each session takes two descriptors and more.
/// The limit now in force; `None` is "no limit".
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(limit.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\ncheckpost:x:990:991::/var/lib/checkpost:/usr/sbin/nologin\nodd\n";
    const GROUPS: &str = "root:x:0:\ncheckpost:x:991:\npostfix:x:110:\nclamav:x:115:someone,checkpost\nodd:line\n";

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let check = |user, group, expected: Option<(u32, u32, &[u32])>| {
            let found = Account::look_up_in(PASSWD, GROUPS, user, group).ok();
            let found = found.as_ref().map(|a| (a.user, a.group, &a.supplementary[..]));
            assert_eq!(found, expected, "{user} {group:?}");
        };
        check("checkpost", None, Some((990, 991, &[115])));
        check("990", None, Some((990, 991, &[115])));
        check("checkpost", Some("postfix"), Some((990, 110, &[115])));
        check("4711", None, Some((4711, 4711, &[])));
        check("4711", Some("12"), Some((4711, 12, &[])));
        check("nobody-here", None, None);
        check("checkpost", Some("no-group"), None);
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        let hard = raise_open_files().unwrap();
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, hard);
    }
}
