//! The program's own settings, `/etc/checkpost/zmailer.conf`: lines `key = value`, each with a default. They are read
//! anew for each mail, so that a change, or the repair of a mistake, needs no restart, during which mail would pass.
//!
//! It is no part of the daemon's configuration, and where the file lies is not the caller's to say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings, SettingsError, WhenDown};

/// The settings.
pub const FILE: &str = "/etc/checkpost/zmailer.conf";

/// What the program goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `socket`: the daemon's check socket of the way `zmailer-smtp`.
    pub socket: PathBuf,
    /// `router_socket`: that of `zmailer-router`.
    pub router_socket: PathBuf,
    /// `listen`: the socket that smtpserver asks at, where systemd does not hand one over.
    pub listen: PathBuf,
    /// `postoffice`: ZMailer's `POSTOFFICE`.
    pub postoffice: PathBuf,
    /// `user`: ZMailer's `TRUSTEDUSER`, who owns the spool files of SMTP sessions.
    pub user: String,
    /// `timeout`: until the content filter answers "try again later", 5 s to 110 s. A client waits 10 min after its
    /// dot (RFC 5321 section 4.5.3.2.6).
    pub timeout: Duration,
    /// `program_timeout`: the same for the filter as a program. There mails wait for a free copy, and smtpserver takes
    /// unchecked what has waited 120 s.
    pub program_timeout: Duration,
    /// `router_timeout`: the same before the router, of which there are four by default.
    pub router_timeout: Duration,
    /// `when_down`: what is done while the daemon cannot be asked. The client is told to try again, or the router tries
    /// again; or the mail passes unchecked.
    pub when_down: WhenDown,
    /// `defer_time`: so long the router tries a mail that is put off; then it goes to the freezer.
    pub defer_time: Duration,
    /// `sessions`: connections at once. Keep it above smtpserver's own limit: it does not wait for a free one.
    pub sessions: usize,
    /// `mark_key`: the key of marks, made by the daemon.
    pub mark_key: PathBuf,
}

const KEYS: &[&str] = &[
    "socket",
    "router_socket",
    "listen",
    "postoffice",
    "user",
    "timeout",
    "program_timeout",
    "router_timeout",
    "when_down",
    "defer_time",
    "sessions",
    "mark_key",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/checkpost/zmailer.sock".into(),
            router_socket: "/run/checkpost/zmailer-router.sock".into(),
            listen: "/run/checkpost-zmailer/filter.sock".into(),
            postoffice: "/var/spool/postoffice".into(),
            user: "daemon".into(),
            timeout: Duration::from_secs(100),
            program_timeout: Duration::from_secs(30),
            router_timeout: Duration::from_secs(100),
            when_down: WhenDown::Defer,
            defer_time: Duration::from_secs(5 * 24 * 3600),
            sessions: 1000,
            mark_key: "/var/lib/checkpost/mark.key".into(),
        }
    }
}

impl Config {
    /// Reads the settings; a file that is not there sets nothing.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn read(file: &Path) -> Result<Self, SettingsError> {
        let mut settings = Settings::read(file)?;
        let mut config = Self::default();
        for (key, path) in [
            ("socket", &mut config.socket),
            ("router_socket", &mut config.router_socket),
            ("listen", &mut config.listen),
            ("postoffice", &mut config.postoffice),
            ("mark_key", &mut config.mark_key),
        ] {
            if let Some(set) = settings.take_path(key)? {
                *path = set;
            }
        }
        for (key, from, to, time) in [
            ("timeout", 5, 110, &mut config.timeout),
            ("program_timeout", 5, 110, &mut config.program_timeout),
            ("router_timeout", 5, 600, &mut config.router_timeout),
            ("defer_time", 60, 30 * 24 * 3600, &mut config.defer_time),
        ] {
            if let Some(set) = settings.take_seconds(key, from, to)? {
                *time = set;
            }
        }
        if let Some(user) =
            settings.take("user", "a user's name or number", |user| (!user.is_empty()).then(|| user.to_owned()))?
        {
            config.user = user;
        }
        config.when_down = WhenDown::take(&mut settings)?;
        let sessions = settings.take("sessions", "20 to 10000", |value| {
            value.parse().ok().filter(|number| (20..=10_000).contains(number))
        })?;
        config.sessions = sessions.unwrap_or(config.sessions);
        settings.finish(KEYS)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_refused_by_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("zmailer.conf");
        assert_eq!(Config::read(&file).unwrap(), Config::default());
        let check = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Config::read(&file).map_err(|error| error.to_string())
        };
        let config = check(
            "# all\nsocket = /run/c\npostoffice = /p\nuser = mail\ntimeout = 20s\nwhen_down = pass\nsessions = 30\n",
        );
        let wanted = Config {
            socket: "/run/c".into(),
            postoffice: "/p".into(),
            user: "mail".into(),
            timeout: Duration::from_secs(20),
            when_down: WhenDown::Pass,
            sessions: 30,
            ..Config::default()
        };
        assert_eq!(config, Ok(wanted));
        for (text, said) in [
            ("timeout = 120s", ":1: timeout: \"120s\" is not understood; accepted: 5s to 110s"),
            ("\nwhen_down = open", ":2: when_down: \"open\" is not understood; accepted: defer, pass"),
            ("listen = filter.sock", "accepted: an absolute path"),
            ("sessions = 5", "accepted: 20 to 10000"),
            ("soket = /x", "soket: unknown key; accepted: socket, router_socket, "),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(said) && error.contains("zmailer.conf"), "{error}");
        }
    }
}
