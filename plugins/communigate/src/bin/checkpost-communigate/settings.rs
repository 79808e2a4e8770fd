//! The program's settings, `/etc/checkpost/communigate.conf`. They are read anew for each mail, so that a change, or the
//! repair of a mistake, needs no restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings as File, SettingsError, WhenDown};

/// Where the settings are, unless an argument says otherwise.
pub(crate) const FILE: &str = "/etc/checkpost/communigate.conf";

const KEYS: &[&str] = &["socket", "timeout", "when_down", "requests", "state"];

/// What may be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The daemon's check socket.
    pub(crate) socket: PathBuf,
    /// From a request to our answer, 5 s to 600 s: less than the helper's Time-out in the server, which ends the program.
    pub(crate) timeout: Duration,
    /// While the daemon gives no answer.
    pub(crate) when_down: WhenDown,
    /// Mails at once; more wait. Read at the start only.
    pub(crate) requests: usize,
    /// The folder of the journal and the key. Read at the start only.
    pub(crate) state: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            socket: "/run/checkpost/communigate.sock".into(),
            timeout: Duration::from_secs(100),
            when_down: WhenDown::Defer,
            requests: 100,
            state: "/var/lib/checkpost-communigate".into(),
        }
    }
}

impl Settings {
    /// Reads them; a file that is not there sets nothing. They say where a program of root's writes, so nobody else may
    /// write them.
    pub(crate) fn read(file: &Path) -> Result<Self, SettingsError> {
        let program = std::env::current_exe().unwrap_or_else(|_| "/".into());
        let mut file = File::read_trusted(file, &program)?;
        let mut settings = Self::default();
        if let Some(socket) = file.take_path("socket")? {
            settings.socket = socket;
        }
        if let Some(timeout) = file.take_seconds("timeout", 5, 600)? {
            settings.timeout = timeout;
        }
        settings.when_down = WhenDown::take(&mut file)?;
        let requests =
            file.take("requests", "1 to 400", |value| value.parse().ok().filter(|number| (1..=400).contains(number)))?;
        settings.requests = requests.unwrap_or(settings.requests);
        if let Some(state) = file.take_path("state")? {
            settings.state = state;
        }
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
            let file = folder.path().join("communigate.conf");
            std::fs::write(&file, text).unwrap();
            let read = Settings::read(&file).map_err(|error| error.to_string());
            let place = file.display().to_string();
            assert_eq!(read, result.map_err(|error| error.replace("FILE", &place)));
        }
        check("", Ok(Settings::default()));
        check(
            "socket = /run/c\ntimeout = 30s\nwhen_down = pass\nrequests = 7\nstate = /srv/x\n",
            Ok(Settings {
                socket: "/run/c".into(),
                timeout: Duration::from_secs(30),
                when_down: WhenDown::Pass,
                requests: 7,
                state: "/srv/x".into(),
            }),
        );
        check("timeout = 601", Err("FILE:1: timeout: \"601\" is not understood; accepted: 5s to 600s"));
        check("\nwhen_down = accept", Err("FILE:2: when_down: \"accept\" is not understood; accepted: defer, pass"));
        check("requests = 0", Err("FILE:1: requests: \"0\" is not understood; accepted: 1 to 400"));
        check("soket = /x", Err("FILE:1: soket: unknown key; accepted: socket, timeout, when_down, requests, state"));
    }
}
