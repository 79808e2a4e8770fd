//! The reading side of the file store: what is kept, its record, its bytes.
//! It changes nothing, and needs no store that runs.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Entry, QuarantineConfig, QuarantineError};

/// A record longer than this is none of ours: one of 10,000 recipients has some 2 MiB.
const MAX_RECORD: u64 = 64 << 20;

/// Reads a quarantine of files. All its methods block.
#[derive(Debug, Clone)]
pub struct QuarantineReader {
    directory: PathBuf,
}

impl QuarantineReader {
    /// The one of this configuration; touches nothing yet.
    pub fn new(config: &QuarantineConfig) -> Self {
        Self { directory: config.directory.clone() }
    }

    /// All that is kept, the oldest first. A record that cannot be read is left out, with a warning
    /// in the log; [`QuarantineReader::show`] tells what is wrong with it. Nothing when there is no
    /// directory yet.
    pub fn list(&self) -> Result<Vec<Entry>, QuarantineError> {
        let files = match std::fs::read_dir(&self.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::new();
        for file in files {
            let name = file?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|id| is_id(id)) else {
                continue;
            };
            match self.show(id) {
                Ok(entry) => entries.push(entry),
                // Removed since the directory was read.
                Err(QuarantineError::NotFound(_)) => {}
                Err(error) => tracing::warn!(mail = id, %error, "a quarantined mail's record cannot be read"),
            }
        }
        entries.sort_by(|a, b| (&a.time, &a.id).cmp(&(&b.time, &b.id)));
        Ok(entries)
    }

    /// The record of one mail. The id may come from anywhere.
    pub fn show(&self, id: &str) -> Result<Entry, QuarantineError> {
        let mut text = Vec::new();
        self.file(id, "json")?.take(MAX_RECORD).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text).map_err(io::Error::from)?)
    }

    /// The exact bytes of one mail. The id may come from anywhere.
    pub fn open(&self, id: &str) -> Result<File, QuarantineError> {
        self.file(id, "eml")
    }

    fn file(&self, id: &str, extension: &str) -> Result<File, QuarantineError> {
        let path = path(&self.directory, id, extension)?;
        // No link is followed: the reader may be root, and the directory is not root's.
        match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(rustix::io::Errno::NOENT) => Err(QuarantineError::NotFound(id.into())),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

/// The id's form, so that no other file can be named by one.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 13 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// Where a mail of this id has its bytes (`eml`) or its record (`json`).
pub(super) fn path(directory: &Path, id: &str, extension: &str) -> Result<PathBuf, QuarantineError> {
    if is_id(id) { Ok(directory.join(format!("{id}.{extension}"))) } else { Err(QuarantineError::BadId) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::MailId;

    #[test]
    fn only_ids_name_files() {
        assert!(is_id(MailId::new().as_str()));
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("quarantine");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(directory.path().join("0000000000000.eml"), "outside").unwrap();
        std::os::unix::fs::symlink(directory.path().join("0000000000000.eml"), inner.join("000000000LINK.eml"))
            .unwrap();
        let reader = QuarantineReader { directory: inner };
        for id in ["../0000000000000", "", ".", "/etc/passwd", "0000000000000.eml", "000000000000a", "00000000000 \0"] {
            assert!(matches!(reader.open(id), Err(QuarantineError::BadId)), "{id}");
            assert!(matches!(reader.show(id), Err(QuarantineError::BadId)), "{id}");
        }
        assert!(matches!(reader.open("0000000000000"), Err(QuarantineError::NotFound(_))));
        assert!(matches!(reader.open("000000000LINK"), Err(QuarantineError::Io(_))));
    }

    #[test]
    fn no_directory_is_an_empty_quarantine() {
        let reader = QuarantineReader { directory: "/nonexistent/quarantine".into() };
        assert_eq!(reader.list().unwrap(), []);
    }

    proptest! {
        #[test]
        fn a_path_never_leaves_the_directory(id in "[./\\PC]{0,20}|[0-9A-Z./]{13}") {
            if let Ok(path) = path(Path::new("/q"), &id, "eml") {
                prop_assert_eq!(path.parent(), Some(Path::new("/q")));
                prop_assert!(!path.file_name().unwrap().to_str().unwrap().starts_with('.'));
            }
        }
    }
}
