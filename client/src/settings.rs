//! The settings of a small program: a file of lines `key = value`, comments begin with `#`.
//!
//! TOML would be most of such a program. A value may stand in double quotes, as in the daemon's files.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// More than this is no settings file, in octets.
const MAX_SIZE: u64 = 64 << 10;

/// What a file says, until it is taken.
#[derive(Debug, Default)]
pub struct Settings {
    file: PathBuf,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    key: String,
    value: String,
}

/// Something in a file that cannot be used: file, line, key, and what would be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

/// `when_down`: what is done while the daemon cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenDown {
    /// `defer`: the sender is told to try again.
    #[default]
    Defer,
    /// `pass`: the mail goes on without a check, and a line in the log says so.
    Pass,
}

impl WhenDown {
    /// Takes the key.
    ///
    /// # Errors
    /// Another word.
    pub fn take(settings: &mut Settings) -> Result<Self, SettingsError> {
        let read = |value: &str| match value {
            "defer" => Some(Self::Defer),
            "pass" => Some(Self::Pass),
            _ => None,
        };
        Ok(settings.take("when_down", "defer, pass", read)?.unwrap_or_default())
    }
}

impl Settings {
    /// Reads a file; one that is not there says nothing.
    ///
    /// # Errors
    /// It cannot be read, is too long, or has a line that is no setting.
    pub fn read(file: &Path) -> Result<Self, SettingsError> {
        Self::read_if(file, |_| Ok(()))
    }

    /// As [`Self::read`], for a program that any local user may start: nobody but root and the owner of `program` may
    /// own the file, and nobody else may write to it.
    ///
    /// # Errors
    /// As well when others may write to it.
    pub fn read_trusted(file: &Path, program: &Path) -> Result<Self, SettingsError> {
        Self::read_if(file, |open| {
            let (is, owner) = (open.metadata()?, program.metadata().map_or(0, |program| program.uid()));
            if (is.uid() == 0 || is.uid() == owner) && is.mode() & 0o022 == 0 {
                return Ok(());
            }
            let why = "others can write to it; accepted: owned by root, writable by nobody else";
            Err(std::io::Error::other(why))
        })
    }

    fn read_if(file: &Path, may: impl FnOnce(&File) -> std::io::Result<()>) -> Result<Self, SettingsError> {
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            match File::open(file) {
                Ok(open) => {
                    may(&open)?;
                    open.take(MAX_SIZE + 1).read_to_string(&mut text)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if text.len() as u64 > MAX_SIZE {
                return Err(std::io::Error::other(format!("more than {MAX_SIZE} octets")));
            }
            Ok(text)
        };
        let text = read().map_err(|error| SettingsError(format!("{}: {error}", file.display())))?;
        Self::parse(file, &text)
    }

    fn parse(file: &Path, text: &str) -> Result<Self, SettingsError> {
        let mut lines: Vec<Line> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let (number, line) = (index + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let place = format!("{}:{number}", file.display());
            let Some((key, value)) = line.split_once('=') else {
                return Err(SettingsError(format!("{place}: not a setting; accepted: key = value")));
            };
            let (key, value) = (key.trim(), value.trim());
            if lines.iter().any(|known| known.key == key) {
                return Err(SettingsError(format!("{place}: {key}: set twice")));
            }
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            lines.push(Line { number, key: key.to_owned(), value: value.to_owned() });
        }
        Ok(Self { file: file.to_owned(), lines })
    }

    /// Takes a key's value; `None`: it is not set. `accepted` says what the value may be.
    ///
    /// # Errors
    /// `read` does not take the value.
    pub fn take<T>(
        &mut self,
        key: &str,
        accepted: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(at) = self.lines.iter().position(|line| line.key == key) else { return Ok(None) };
        let line = self.lines.swap_remove(at);
        read(&line.value).map(Some).ok_or_else(|| {
            let place = format!("{}:{}", self.file.display(), line.number);
            SettingsError(format!("{place}: {key}: {:?} is not understood; accepted: {accepted}", line.value))
        })
    }

    /// Takes an absolute path.
    ///
    /// # Errors
    /// It is none.
    pub fn take_path(&mut self, key: &str) -> Result<Option<PathBuf>, SettingsError> {
        self.take(key, "an absolute path", |value| value.starts_with('/').then(|| value.into()))
    }

    /// Takes a time of whole seconds, as `90` or `90s`, within these bounds.
    ///
    /// # Errors
    /// It is none, or out of bounds.
    pub fn take_seconds(&mut self, key: &str, from: u64, to: u64) -> Result<Option<Duration>, SettingsError> {
        self.take(key, &format!("{from}s to {to}s"), |value| {
            let seconds = u64::from_str(value.strip_suffix('s').unwrap_or(value).trim_end()).ok()?;
            (from..=to).contains(&seconds).then(|| Duration::from_secs(seconds))
        })
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// A key that nobody took: the known ones are told.
    pub fn finish(self, known: &[&str]) -> Result<(), SettingsError> {
        match self.lines.first() {
            None => Ok(()),
            Some(line) => {
                let (file, accepted) = (self.file.display(), known.join(", "));
                Err(SettingsError(format!("{file}:{}: {}: unknown key; accepted: {accepted}", line.number, line.key)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(Option<PathBuf>, Option<Duration>), String> {
        let read = || {
            let mut settings = Settings::parse(Path::new("x.conf"), text)?;
            let all = (settings.take_path("socket")?, settings.take_seconds("time", 1, 120)?);
            settings.finish(&["socket", "time"])?;
            Ok(all)
        };
        read().map_err(|error: SettingsError| error.to_string())
    }

    #[test]
    fn settings_are_read_and_errors_have_their_place() {
        assert_eq!(check("# nothing\n\n"), Ok((None, None)));
        let both = Ok((Some("/run/x".into()), Some(Duration::from_secs(90))));
        assert_eq!(check("socket = /run/x\ntime=90s"), both);
        assert_eq!(check("  socket = \"/run/x\" \n time = 90"), both);
        for (wrong, said) in [
            ("socket /x", "x.conf:1: not a setting; accepted: key = value"),
            ("\nsocket = x", "x.conf:2: socket: \"x\" is not understood; accepted: an absolute path"),
            ("time = 121", "x.conf:1: time: \"121\" is not understood; accepted: 1s to 120s"),
            ("time = 1\ntime = 2", "x.conf:2: time: set twice"),
            ("tme = 1", "x.conf:1: tme: unknown key; accepted: socket, time"),
        ] {
            assert_eq!(check(wrong), Err(said.to_owned()));
        }
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        assert!(Settings::read(Path::new("/nonexistent/x.conf")).unwrap().lines.is_empty());
        assert!(Settings::read(Path::new("/")).is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (file, program) = (folder.path().join("x.conf"), folder.path().join("program"));
        std::fs::write(&program, "").unwrap();
        assert!(Settings::read_trusted(&file, &program).unwrap().lines.is_empty());
        std::fs::write(&file, "a = b\n").unwrap();
        for (mode, trusted) in [(0o644, true), (0o600, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            let read = Settings::read_trusted(&file, &program).map_err(|error| error.to_string());
            assert_eq!(read.is_ok(), trusted, "{mode:o}");
            assert!(trusted || read.unwrap_err().contains("x.conf: others can write to it; accepted: owned by root"));
        }
    }
}
