//! The secret of this machine, in a file that only its programs can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::from_hex;

/// In octets.
const LENGTH: usize = 32;
/// The owner and the group read it: a mail server's helper is of another user than the daemon.
const MODE: u32 = 0o640;

/// A key for marks.
#[derive(Debug, Clone)]
pub struct Key(hmac::Key);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read, or made.
    #[error("{}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner and group can read it, or others than its owner can write it.
    #[error("{}: others can read or write it; accepted: mode 0640 or stricter", .0.display())]
    Open(PathBuf),
    /// It holds no key.
    #[error("{}: no key; accepted: {} hexadecimal digits", .0.display(), 2 * LENGTH)]
    NoKey(PathBuf),
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// There is none, or it is nobody's secret.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { file: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o027 != 0 {
            return Err(KeyError::Open(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(2 * LENGTH as u64 + 2).read_to_end(&mut text).map_err(failed)?;
        let key = from_hex::<LENGTH>(text.trim_ascii_end()).ok_or_else(|| KeyError::NoKey(path.to_owned()))?;
        Ok(Self::of(&key))
    }

    /// Makes a file with a new key where there is none. It is complete before it has its name, and what is there
    /// stays, whoever came first.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn ensure(path: &Path) -> Result<(), KeyError> {
        if path.exists() {
            return Ok(());
        }
        let failed = |source| KeyError::File { file: path.to_owned(), source };
        let mut key = [0; LENGTH];
        SystemRandom::new().fill(&mut key).map_err(|_| failed(io::Error::other("no random octets")))?;
        let digits: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let made = write(&new, &format!("{digits}\n")).and_then(|()| match fs::hard_link(&new, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        });
        let _ = fs::remove_file(&new);
        made.map_err(failed)
    }

    pub(crate) fn of(key: &[u8; LENGTH]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    pub(crate) fn as_hmac(&self) -> &hmac::Key {
        &self.0
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // What a run that was killed has left.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark.key");
        assert!(matches!(Key::read(&path), Err(KeyError::File { .. })));
        Key::ensure(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        Key::ensure(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left");
        let (one, other) = (Key::read(&path).unwrap(), Key::read(&path).unwrap());
        let mark = one.mark(&b"x"[..], SystemTime::now()).unwrap();
        assert!(other.holds(&mark, &b"x"[..], SystemTime::now(), Duration::from_secs(9)).unwrap());
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark.key");
        let check = |text: &str, mode: u32, said: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = Key::read(&path).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("mark.key"), "{error}");
        };
        let good = "0f".repeat(LENGTH);
        check(&good, 0o644, "mode 0640 or stricter");
        check(&good, 0o660, "mode 0640 or stricter");
        check("", 0o600, "accepted: 64 hexadecimal digits");
        check(&good[1..], 0o640, "no key");
        check(&format!("{good}00"), 0o640, "no key");
        check(&format!("x{}", &good[1..]), 0o640, "no key");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        fs::write(&path, &good).unwrap();
        assert!(Key::read(&path).is_ok());
    }
}
