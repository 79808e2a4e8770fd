//! The library's own settings: a small file of lines `key = value`, each with a default. They are read anew for each
//! mail, so a change needs no restart of Exim.
//!
//! Any local user may have Exim load the library, so neither the environment nor an argument names the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings, SettingsError, WhenDown};

/// The settings for all Exims on a machine.
const FILE: &str = "/etc/checkpost/exim.conf";
/// The name of the settings for one copy of the library: in its own folder, before [`FILE`].
const BESIDE: &str = "checkpost-exim.conf";

const KEYS: [&str; 5] = ["socket", "when_down", "check_time", "spool", "local_defer"];

/// What the library goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `socket`: the daemon's check socket.
    pub socket: PathBuf,
    /// `when_down`: what is done while the daemon cannot be asked.
    pub when_down: WhenDown,
    /// `check_time`: how long the daemon may take. Exim gives up after `local_scan_timeout`, 5 min if not set, and
    /// then drops the connection.
    pub check_time: Duration,
    /// `spool`: the folder for mails of more than 1 MiB while they are checked. Nothing in it has a name.
    pub spool: PathBuf,
    /// `local_defer`: what is done when mail of a local program is to be put off.
    pub local_defer: LocalDefer,
}

/// What is done when mail of a local program is to be put off. Exim has no "later" for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalDefer {
    /// `freeze`: Exim keeps it, and delivers it when the administrator says so.
    #[default]
    Freeze,
    /// `refuse`: Exim refuses it; a program that does not look at its exit code has lost it.
    Refuse,
}

impl LocalDefer {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "freeze" => Some(Self::Freeze),
            "refuse" => Some(Self::Refuse),
            _ => None,
        }
    }
}

impl Config {
    /// The settings for the library at this path.
    ///
    /// # Errors
    /// A file is there and cannot be used, or others than root and the library's owner can write to it.
    pub fn load(library: Option<&Path>) -> Result<Self, SettingsError> {
        let beside = library.map(|library| library.with_file_name(BESIDE)).filter(|beside| beside.exists());
        let file = beside.as_deref().unwrap_or(Path::new(FILE));
        let mut settings = Settings::read_trusted(file, library.unwrap_or(Path::new("/")))?;
        let config = Self {
            socket: settings.take_path("socket")?.unwrap_or_else(|| "/run/checkpost/exim.sock".into()),
            when_down: WhenDown::take(&mut settings)?,
            check_time: settings.take_seconds("check_time", 1, 240)?.unwrap_or(Duration::from_secs(90)),
            spool: settings.take_path("spool")?.unwrap_or_else(|| "/var/tmp".into()),
            local_defer: settings.take("local_defer", "freeze, refuse", LocalDefer::parse)?.unwrap_or_default(),
        };
        settings.finish(&KEYS)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn settings_are_read_and_refused_by_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let (library, file) = (folder.path().join("checkpost.so"), folder.path().join(BESIDE));
        std::fs::write(&library, "").unwrap();
        let check = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            Config::load(Some(&library)).map_err(|error| error.to_string())
        };
        let mut config = Config {
            socket: "/run/checkpost/exim.sock".into(),
            when_down: WhenDown::Defer,
            check_time: Duration::from_secs(90),
            spool: "/var/tmp".into(),
            local_defer: LocalDefer::Freeze,
        };
        assert_eq!(check("", 0o644), Ok(config.clone()));
        (config.socket, config.when_down) = ("/x".into(), WhenDown::Pass);
        (config.check_time, config.spool) = (Duration::from_secs(7), "/y".into());
        config.local_defer = LocalDefer::Refuse;
        let all = "socket = /x\nwhen_down = pass\ncheck_time = 7s\nspool = /y\nlocal_defer = refuse\n";
        assert_eq!(check(all, 0o600), Ok(config));
        for (text, mode, said) in [
            ("check_time = 241", 0o644, ":1: check_time: \"241\" is not understood; accepted: 1s to 240s"),
            ("\nwhen_down = open", 0o644, ":2: when_down: \"open\" is not understood; accepted: defer, pass"),
            (
                "original = /x",
                0o644,
                "original: unknown key; accepted: socket, when_down, check_time, spool, local_defer",
            ),
            ("", 0o666, "others can write to it"),
        ] {
            let error = check(text, mode).unwrap_err();
            assert!(error.contains(said) && error.contains(BESIDE), "{error}");
        }
    }
}
