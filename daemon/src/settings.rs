//! The section `[daemon]`: what the program as a whole needs. Every way, filter and rule owns its own
//! section.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use checkpost_core::Spool;
use checkpost_core::config::{Document, Located, Problem, Problems, Size, Time};
use checkpost_core::filter::Unpacking;
use serde::Deserialize;

use crate::logging::{Format, Level};
use crate::privileges::Account;

/// Where configuration is, unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/checkpost/checkpost.toml";

/// `[daemon]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    user: Option<Located<String>>,
    group: Option<String>,
    state: Option<PathBuf>,
    spool: Option<PathBuf>,
    memory_limit: Option<Size>,
    admin_socket: Option<PathBuf>,
    log_format: Format,
    log_level: Option<Located<String>>,
    check_time: Option<Time>,
    drain_time: Option<Time>,
    pool_connections: Option<usize>,
    pool_time: Option<Time>,
}

/// `[unpacking]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WrittenUnpacking {
    size: Option<Size>,
    items: Option<u32>,
    depth: Option<u32>,
    ratio: Option<u32>,
}

/// What it means.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `user`, `group`: whom to become when started as root. Default: stay.
    pub account: Option<(String, Account)>,
    /// `state`: the directory for all that must outlive the process. Default `/var/lib/checkpost`.
    pub state: PathBuf,
    /// `spool` and `memory_limit`: mails above the limit lie there without a name while they are
    /// checked. Default `spool` in the state directory, 1280 KiB.
    pub spool: Arc<Spool>,
    /// `admin_socket`: default `/run/checkpost/admin.sock`; `admin.sock` in the state directory when
    /// that one is configured, so that two daemons on one machine do not meet.
    pub admin_socket: PathBuf,
    /// `log_format`: `plain` or `json`. Default plain. Changes at a restart only.
    pub log_format: Format,
    /// `log_level`: as in `"info"` or `"info,checkpost_smtp=debug"`. Default info.
    pub log_level: Level,
    /// `check_time`: how long a check over the admin socket may take. The ways have their MTA's.
    /// Default 60s.
    pub check_time: Duration,
    /// `drain_time`: how long sessions may go on after SIGTERM. Default 60s, which is less than
    /// systemd waits (90s).
    pub drain_time: Duration,
    /// `pool_connections`: idle connections kept for each next hop; 0 keeps none. Default 20. Changes
    /// at a restart only.
    pub pool_connections: usize,
    /// `pool_time`: how long they are kept. Default 4s: Postfix drops an idle client after 10s under
    /// stress (smtpd_timeout). Changes at a restart only.
    pub pool_time: Duration,
    /// `[unpacking]`: `size`, `items`, `depth`, `ratio`: see [`Unpacking`].
    pub unpacking: Unpacking,
}

impl Settings {
    /// Takes `[daemon]` and `[unpacking]`.
    pub fn take(document: &mut Document, problems: &mut Problems) -> Self {
        let written: Written = document.take_section_or_default("daemon", problems);
        let unpacking: WrittenUnpacking = document.take_section_or_default("unpacking", problems);
        let own_state = written.state.is_some();
        let state = written.state.unwrap_or_else(|| "/var/lib/checkpost".into());
        let run = if own_state { state.clone() } else { PathBuf::from("/run/checkpost") };
        let account = match &written.user {
            Some(user) => match Account::look_up(&user.value, written.group.as_deref()) {
                Ok(account) => Some((user.value.clone(), account)),
                Err(error) => {
                    problems.push(Problem::at(&user.place, "daemon.user", error.to_string()));
                    None
                }
            },
            None => {
                if written.group.is_some() {
                    problems.push(Problem::general("daemon.group", "a group without a user").hint("set user, too"));
                }
                None
            }
        };
        let log_level = match written.log_level.map(|level| (level.value.parse::<Level>(), level.place)) {
            None => Level::default(),
            Some((Ok(level), _)) => level,
            Some((Err(error), place)) => {
                problems.push(Problem::at(&place, "daemon.log_level", error.to_string()));
                Level::default()
            }
        };
        let usual = Unpacking::default();
        Self {
            account,
            spool: Arc::new(Spool {
                memory_limit: written.memory_limit.map_or(Spool::MEMORY_LIMIT, Size::as_usize),
                ..Spool::new(written.spool.unwrap_or_else(|| state.join("spool")))
            }),
            admin_socket: written.admin_socket.unwrap_or_else(|| run.join("admin.sock")),
            state,
            log_format: written.log_format,
            log_level,
            check_time: written.check_time.unwrap_or(Time::seconds(60)).duration(),
            drain_time: written.drain_time.unwrap_or(Time::seconds(60)).duration(),
            pool_connections: written.pool_connections.unwrap_or(20),
            pool_time: written.pool_time.unwrap_or(Time::seconds(4)).duration(),
            unpacking: Unpacking {
                octets: unpacking.size.map_or(usual.octets, Size::as_u64),
                items: unpacking.items.unwrap_or(usual.items),
                depth: unpacking.depth.unwrap_or(usual.depth),
                ratio: unpacking.ratio.unwrap_or(usual.ratio),
            },
        }
    }

    /// The account's part.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref().map(|(_, account)| account)
    }

    /// The directories that the program makes for itself, with their permission bits. Programs of other users ask at
    /// sockets beside the admin socket, which each have a mode of their own.
    pub fn directories(&self) -> impl Iterator<Item = (&Path, u32)> {
        let run = self.admin_socket.parent().filter(|run| *run != self.state).map(|run| (run, 0o755));
        [(&*self.state, 0o750), (&*self.spool.directory, 0o750)].into_iter().chain(run)
    }

    /// The key of the marks on mail that is handed in again: made at the start where there is none.
    pub fn mark_key(&self) -> PathBuf {
        self.state.join("mark.key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Settings, String) {
        let mut problems = Problems::default();
        let mut document = Document::parse("x.toml", text, &mut problems);
        let settings = Settings::take(&mut document, &mut problems);
        document.finish(&mut problems);
        (settings, problems.to_string())
    }

    #[test]
    fn defaults_and_the_state_directory() {
        let (settings, problems) = read("");
        assert_eq!(problems, "");
        assert_eq!(settings.spool.directory, Path::new("/var/lib/checkpost/spool"));
        assert_eq!(settings.admin_socket, Path::new("/run/checkpost/admin.sock"));
        let (settings, problems) = read("[daemon]\nstate = '/x'\nmemory_limit = '1 KiB'\n[unpacking]\ndepth = 3\n");
        assert_eq!(problems, "");
        assert_eq!(settings.admin_socket, Path::new("/x/admin.sock"));
        assert_eq!((settings.spool.memory_limit, settings.unpacking.depth), (1024, 3));
    }

    #[test]
    fn problems_have_their_places() {
        let (_, problems) = read("[daemon]\nuser = 'no-such-user'\nlog_level = 'loud'\ndrain_tme = '1s'\n");
        let lines: Vec<_> = problems.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("x.toml:4:1: daemon.drain_tme: unknown key"), "{problems}");
        let (_, problems) = read("[daemon]\nuser = 'no-such-user'\nlog_level = 'loud'\n");
        let lines: Vec<_> = problems.lines().collect();
        assert!(lines[0].starts_with("x.toml:2:8: daemon.user: no user \"no-such-user\""), "{problems}");
        assert!(lines[1].starts_with("x.toml:3:13: daemon.log_level: not a log level"), "{problems}");
    }
}
