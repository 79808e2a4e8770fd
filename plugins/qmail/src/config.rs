//! The program's own settings: a small file of lines `key = value`, each with a default.
//!
//! It is no part of the daemon's configuration. Where the file lies is not the caller's to say: any local user may
//! start the program, so neither the environment nor an argument counts.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpost_client::settings::{Settings, SettingsError, WhenDown};

use crate::map::Convention;

/// The settings for all copies of the program on a machine.
pub const FILE: &str = "/etc/checkpost/qmail.conf";

/// The name of the settings for one copy: in the program's own folder, before [`FILE`].
pub const BESIDE: &str = "checkpost-qmail.conf";

/// What the program goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `socket`: the daemon's check socket.
    pub socket: PathBuf,
    /// `original`: the real qmail-queue.
    pub original: PathBuf,
    /// `text`: how texts of refusals go to the caller.
    pub text: Text,
    /// `when_down`: what is done while the daemon cannot be asked.
    pub when_down: WhenDown,
    /// `check_time`: how long the daemon may take. A client waits 10 min for the answer after its dot (RFC 5321
    /// section 4.5.3.2.6); many wait less.
    pub check_time: Duration,
    /// `spool`: the folder for messages of more than 1 MiB while they are checked. Nothing in it has a name.
    pub spool: PathBuf,
    /// `bounce_user`: who injects bounces, by name or number: the user of qmail-send.
    pub bounce_user: String,
}

/// How texts of refusals go to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// `off`: not at all; exit codes only. Every qmail understands them.
    Off,
    /// `auto`: by notqmail's or simscan's convention, if there is a pipe where it wants one.
    Auto,
    /// One convention, and the variable `ERROR_FD` may name another descriptor.
    By(Convention, bool),
}

const NOTQMAIL: Convention = Convention { descriptor: 6, code: 82, most: 255 };
const SIMSCAN: Convention = Convention { descriptor: 4, code: 82, most: 255 };
const SAGREDO: Convention = Convention { descriptor: 4, code: 88, most: 255 };
const INDIMAIL: Convention = Convention { descriptor: 2, code: 88, most: 1023 };

const KEYS: [&str; 7] = ["socket", "original", "text", "when_down", "check_time", "spool", "bounce_user"];

impl Config {
    /// The settings for the program at this path.
    ///
    /// # Errors
    /// A file is there and cannot be used, or others than root and the program's owner can write to it.
    pub fn load(program: &Path) -> Result<Self, SettingsError> {
        let beside = program.with_file_name(BESIDE);
        let file = if beside.exists() { &beside } else { Path::new(FILE) };
        Self::take(Settings::read_trusted(file, program)?, program)
    }

    fn take(mut settings: Settings, program: &Path) -> Result<Self, SettingsError> {
        let config = Self {
            socket: settings.take_path("socket")?.unwrap_or_else(|| "/run/checkpost/qmail.sock".into()),
            original: settings.take_path("original")?.unwrap_or_else(|| original_of(program)),
            text: settings.take("text", Text::ACCEPTED, Text::parse)?.unwrap_or(Text::Off),
            when_down: WhenDown::take(&mut settings)?,
            check_time: settings.take_seconds("check_time", 1, 120)?.unwrap_or(Duration::from_secs(90)),
            spool: settings.take_path("spool")?.unwrap_or_else(|| "/var/tmp".into()),
            bounce_user: settings
                .take("bounce_user", "a user's name or number", |value| (!value.is_empty()).then(|| value.to_owned()))?
                .unwrap_or_else(|| "qmails".into()),
        };
        settings.finish(&KEYS)?;
        Ok(config)
    }
}

/// In qmail-queue's place the original lies beside us, whatever qmail's home is.
fn original_of(program: &Path) -> PathBuf {
    if program.file_name() == Some(OsStr::new("qmail-queue")) {
        program.with_file_name("qmail-queue.orig")
    } else {
        "/var/qmail/bin/qmail-queue".into()
    }
}

impl Text {
    const ACCEPTED: &str = "off, auto, notqmail, simscan, qmail-ldap, sagredo, indimail";

    fn parse(value: &str) -> Option<Self> {
        Some(match value {
            "off" => Self::Off,
            "auto" => Self::Auto,
            "notqmail" => Self::By(NOTQMAIL, false),
            "simscan" | "qmail-ldap" => Self::By(SIMSCAN, false),
            "sagredo" => Self::By(SAGREDO, true),
            "indimail" => Self::By(INDIMAIL, true),
            _ => return None,
        })
    }

    /// The convention to use. `is_pipe`: is this descriptor a pipe that is open for writing? Only that can be a
    /// caller's; what else there may be at the number is a stranger's. `variable`: the value of `ERROR_FD`.
    pub fn choose(self, variable: Option<&[u8]>, is_pipe: impl Fn(u32) -> bool) -> Option<Convention> {
        let convention = match self {
            Self::Off => None,
            Self::Auto => [NOTQMAIL, SIMSCAN].into_iter().find(|convention| is_pipe(convention.descriptor)),
            Self::By(convention, false) => Some(convention),
            Self::By(convention, true) => match variable {
                None => Some(convention),
                // -1 is "none", and so is what is no number.
                Some(value) => {
                    let number = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    number.filter(|number| *number >= 2).map(|descriptor| Convention { descriptor, ..convention })
                }
            },
        };
        convention.filter(|convention| is_pipe(convention.descriptor))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn defaults_depend_on_the_programs_place() {
        let config = Config::take(Settings::default(), Path::new("/usr/lib/checkpost/checkpost-qmail-queue")).unwrap();
        assert_eq!(config.original, Path::new("/var/qmail/bin/qmail-queue"));
        assert_eq!((config.text, config.when_down), (Text::Off, WhenDown::Defer));
        let config = Config::take(Settings::default(), Path::new("/opt/qmail/bin/qmail-queue")).unwrap();
        assert_eq!(config.original, Path::new("/opt/qmail/bin/qmail-queue.orig"));
    }

    #[test]
    fn files_are_read_and_refused_by_name_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("checkpost-qmail-queue");
        let file = folder.path().join(BESIDE);
        std::fs::write(&program, "").unwrap();
        let check = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            Config::load(&program).map_err(|error| error.to_string())
        };
        let config = check("text = notqmail\nwhen_down = pass\ncheck_time = 5s\n", 0o644).unwrap();
        assert_eq!((config.text, config.when_down), (Text::By(NOTQMAIL, false), WhenDown::Pass));
        for (text, mode, said) in [
            ("text = 7", 0o644, ":1: text: \"7\" is not understood; accepted: off, auto, "),
            ("\nwhen_down = open", 0o644, ":2: when_down: \"open\" is not understood; accepted: defer, pass"),
            ("check_time = 121s", 0o644, "accepted: 1s to 120s"),
            ("original = qmail-queue", 0o644, "accepted: an absolute path"),
            ("orginal = /x", 0o644, "orginal: unknown key; accepted: socket, original, "),
            ("", 0o666, "others can write to it"),
        ] {
            let error = check(text, mode).unwrap_err();
            assert!(error.contains(said) && error.contains(BESIDE), "{error}");
        }
    }

    #[test]
    fn texts_go_into_pipes_only() {
        let check = |text: &str, variable: Option<&str>, pipes: &[u32]| {
            let text = Text::parse(text).unwrap();
            text.choose(variable.map(str::as_bytes), |number| pipes.contains(&number)).map(|c| (c.descriptor, c.code))
        };
        for (text, variable, pipes, chosen) in [
            ("off", None, &[2, 4, 6][..], None),
            ("auto", None, &[2, 4, 6], Some((6, 82))),
            ("auto", None, &[2, 4], Some((4, 82))),
            ("auto", None, &[2], None),
            ("notqmail", None, &[4, 6], Some((6, 82))),
            ("notqmail", None, &[4], None),
            ("notqmail", Some("4"), &[4], None),
            ("simscan", None, &[4, 6], Some((4, 82))),
            ("qmail-ldap", None, &[4], Some((4, 82))),
            ("sagredo", None, &[4], Some((4, 88))),
            ("sagredo", Some("9"), &[4, 9], Some((9, 88))),
            ("sagredo", Some("9"), &[4], None),
            ("indimail", None, &[2], Some((2, 88))),
            ("indimail", Some("-1"), &[2], None),
            ("indimail", Some("1"), &[1, 2], None),
            ("indimail", Some("x"), &[2], None),
        ] {
            assert_eq!(check(text, variable, pipes), chosen, "{text} {variable:?} {pipes:?}");
        }
    }
}
