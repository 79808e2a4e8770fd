//! The program's own settings: a small file of lines `key = value`, each with a default. It is no part of the daemon's
//! configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings, SettingsError, WhenDown};

/// Where the settings are, unless the command line says otherwise.
pub const FILE: &str = "/etc/checkpost/pipe.conf";

/// What the program goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `socket`: the daemon's check socket.
    pub socket: PathBuf,
    /// `exim`: the program that takes a mail back into Exim.
    pub exim: PathBuf,
    /// `sendmail`: the program that takes a mail back into Postfix.
    pub sendmail: PathBuf,
    /// `when_down`: what is done while the daemon cannot be asked.
    pub when_down: WhenDown,
    /// `check_time`: how long the daemon may take. The mail waits in a queue, so nobody else does.
    pub check_time: Duration,
    /// `spool`: the folder for messages of more than 1 MiB while they are checked. Nothing in it has a name.
    pub spool: PathBuf,
}

const KEYS: [&str; 6] = ["socket", "exim", "sendmail", "when_down", "check_time", "spool"];

impl Config {
    /// Reads a file; where there is none, all has its default.
    ///
    /// # Errors
    /// It cannot be read, or says what is not understood.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let mut settings = Settings::read(file)?;
        let config = Self {
            socket: settings.take_path("socket")?.unwrap_or_else(|| "/run/checkpost/pipe.sock".into()),
            exim: settings.take_path("exim")?.unwrap_or_else(|| "/usr/sbin/exim4".into()),
            sendmail: settings.take_path("sendmail")?.unwrap_or_else(|| "/usr/sbin/sendmail".into()),
            when_down: WhenDown::take(&mut settings)?,
            check_time: settings.take_seconds("check_time", 1, 3600)?.unwrap_or(Duration::from_secs(120)),
            spool: settings.take_path("spool")?.unwrap_or_else(|| "/var/tmp".into()),
        };
        settings.finish(&KEYS)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_refused_by_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipe.conf");
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Config::load(&file).map_err(|error| error.to_string())
        };
        let defaults = Config::load(Path::new("/nonexistent/pipe.conf")).unwrap();
        assert_eq!(check("# nothing\n"), Ok(defaults.clone()));
        assert_eq!(defaults.exim, Path::new("/usr/sbin/exim4"));
        let set = check("exim = /usr/sbin/exim\nwhen_down = pass\ncheck_time = 600s\n").unwrap();
        assert_eq!((set.exim, set.when_down), ("/usr/sbin/exim".into(), WhenDown::Pass));
        for (text, said) in [
            ("exim = exim4", ":1: exim: \"exim4\" is not understood; accepted: an absolute path"),
            ("\nwhen_down = no", ":2: when_down: \"no\" is not understood; accepted: defer, pass"),
            ("exim4 = /x", "unknown key; accepted: socket, exim, "),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(said) && error.contains("pipe.conf"), "{error}");
        }
    }
}
