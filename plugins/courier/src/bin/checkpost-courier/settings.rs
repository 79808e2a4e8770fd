//! The program's settings, `/etc/checkpost/courier.conf`. They are read anew for each mail, so that a change, or the
//! repair of a mistake, needs no restart, during which mail would pass unchecked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings as File, SettingsError};

/// Where the settings are, unless the environment says otherwise.
pub(crate) const FILE: &str = "/etc/checkpost/courier.conf";
/// The environment's word for it. Variables for filters are set in `/etc/courier/courierd`.
pub(crate) const FILE_VARIABLE: &str = "CHECKPOST_COURIER_CONF";

const KEYS: &[&str] = &["socket", "timeout", "when_down", "when_broken", "sessions"];

/// What may be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The daemon's check socket.
    pub(crate) socket: PathBuf,
    /// From Courier's connection to our reply, 5 s to 120 s: Courier would wait for hours, its client does not.
    pub(crate) timeout: Duration,
    /// While the daemon gives no answer.
    pub(crate) when_down: WhenDown,
    /// Left behind by a fault of this program.
    pub(crate) when_broken: WhenBroken,
    /// Mails at once; more wait. Read at the start only.
    pub(crate) sessions: usize,
}

/// While the daemon gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenDown {
    /// Clients are told to try again.
    Defer,
    /// Mail passes unchecked, with a line in the log.
    Pass,
}

/// After a fault of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenBroken {
    /// The socket stays: Courier tells clients to try again.
    Closed,
    /// The socket goes: mail passes unchecked.
    Open,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: "/run/checkpost/courier.sock".into(),
            timeout: Duration::from_secs(100),
            when_down: WhenDown::Defer,
            when_broken: WhenBroken::Closed,
            sessions: 100,
        }
    }
}

impl Settings {
    /// Where they are.
    pub(crate) fn file() -> PathBuf {
        std::env::var_os(FILE_VARIABLE).map_or_else(|| FILE.into(), PathBuf::from)
    }

    /// Reads them; a file that is not there sets nothing, and one that others can write to is a mistake.
    pub(crate) fn read(file: &Path) -> Result<Self, SettingsError> {
        // A program that cannot be told is nobody's: then the file must be root's.
        let mut file = File::read_trusted(file, &std::env::current_exe().unwrap_or_default())?;
        let mut settings = Self::default();
        if let Some(socket) = file.take_path("socket")? {
            settings.socket = socket;
        }
        if let Some(timeout) = file.take_seconds("timeout", 5, 120)? {
            settings.timeout = timeout;
        }
        let when_down = file.take("when_down", "defer, pass", |value| match value {
            "defer" => Some(WhenDown::Defer),
            "pass" => Some(WhenDown::Pass),
            _ => None,
        })?;
        settings.when_down = when_down.unwrap_or(settings.when_down);
        let when_broken = file.take("when_broken", "closed, open", |value| match value {
            "closed" => Some(WhenBroken::Closed),
            "open" => Some(WhenBroken::Open),
            _ => None,
        })?;
        settings.when_broken = when_broken.unwrap_or(settings.when_broken);
        let sessions = file
            .take("sessions", "1 to 1000", |value| value.parse().ok().filter(|number| (1..=1000).contains(number)))?;
        settings.sessions = sessions.unwrap_or(settings.sessions);
        file.finish(KEYS)?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read() {
        fn check(text: &str, result: Result<Settings, &str>) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("courier.conf");
            std::fs::write(&file, text).unwrap();
            // Another test changes the process's umask.
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            let read = Settings::read(&file).map_err(|error| error.to_string());
            let place = file.display().to_string();
            assert_eq!(read, result.map_err(|error| error.replace("FILE", &place)));
        }
        check("", Ok(Settings::default()));
        check(
            "# all\nsocket = /run/c\ntimeout = 30s\nwhen_down = pass\nwhen_broken = open\nsessions = 7\n",
            Ok(Settings {
                socket: "/run/c".into(),
                timeout: Duration::from_secs(30),
                when_down: WhenDown::Pass,
                when_broken: WhenBroken::Open,
                sessions: 7,
            }),
        );
        check("timeout = 121", Err("FILE:1: timeout: \"121\" is not understood; accepted: 5s to 120s"));
        check("\nwhen_down = accept", Err("FILE:2: when_down: \"accept\" is not understood; accepted: defer, pass"));
        check("sessions = 0", Err("FILE:1: sessions: \"0\" is not understood; accepted: 1 to 1000"));
        check(
            "soket = /x",
            Err("FILE:1: soket: unknown key; accepted: socket, timeout, when_down, when_broken, sessions"),
        );
    }
}
