//! What a plug-in may do to a machine: look.

use std::io;

/// A machine, or a folder that holds one. Paths are absolute and count from that folder. Symbolic links that others
/// than root may have made are not followed.
pub trait Look {
    /// The content of a regular file of at most 16 MiB; `None`: there is nothing of that name.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, or is larger.
    fn file(&self, path: &str) -> Result<Option<Vec<u8>>, LookError>;

    /// What is of that name, itself if it is a symbolic link; `None`: nothing.
    ///
    /// # Errors
    /// When the folder cannot be looked at.
    fn about(&self, path: &str) -> Result<Option<About>, LookError>;

    /// The names in a folder, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// When it cannot be read.
    fn names(&self, path: &str) -> Result<Vec<String>, LookError>;

    /// What a command says that changes nothing, within a minute. `None`: there is no such program.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    fn run(&self, command: &[&str]) -> Result<Option<Said>, LookError>;
}

impl dyn Look + '_ {
    /// The text of a file; octets that are no UTF-8 are an error, since what is not understood must not be edited.
    ///
    /// # Errors
    /// As [`Look::file`].
    pub fn text(&self, path: &str) -> Result<Option<String>, LookError> {
        let octets = self.file(path)?;
        octets.map(String::from_utf8).transpose().map_err(|_| LookError::new(path, io::ErrorKind::InvalidData.into()))
    }

    /// Is there anything of that name?
    ///
    /// # Errors
    /// As [`Look::about`].
    pub fn exists(&self, path: &str) -> Result<bool, LookError> {
        Ok(self.about(path)?.is_some())
    }

    /// Is systemd in charge?
    ///
    /// # Errors
    /// As [`Look::about`].
    pub fn has_systemd(&self) -> Result<bool, LookError> {
        self.exists("/run/systemd/system")
    }

    /// Will systemd be process 1 when this system is booted? For one in a folder.
    ///
    /// # Errors
    /// As [`Look::file`].
    pub fn will_have_systemd(&self) -> Result<bool, LookError> {
        let init = self.about("/sbin/init")?.map(|about| about.kind);
        Ok(matches!(init, Some(FileKind::Link(to)) if to.ends_with("/systemd/systemd")))
    }

    /// Who listens at a TCP port, on any address?
    ///
    /// # Errors
    /// As [`Look::file`].
    pub fn is_taken(&self, port: u16) -> Result<bool, LookError> {
        let wanted = format!(":{port:04X}");
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = self.text(table)?.unwrap_or_default();
            let listens = |line: &str| {
                let mut words = line.split_ascii_whitespace().skip(1);
                // 0A: TCP_LISTEN.
                words.next().is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A")
            };
            if text.lines().any(listens) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Said {
    /// Did it end well?
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// What stands in the place of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Of what kind it is.
    pub kind: FileKind,
    /// Permission bits, set-id bits among them.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Device and inode: the same for all names of a file.
    pub identity: (u64, u64),
}

/// Kinds of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, to this.
    Link(String),
    /// A socket.
    Socket,
    /// A device or a pipe.
    Other,
}

/// Something could not be looked at.
#[derive(Debug, thiserror::Error)]
#[error("cannot look at {what}")]
pub struct LookError {
    /// A path or a command.
    pub what: String,
    /// The reason.
    #[source]
    pub source: io::Error,
}

impl LookError {
    /// For a path or a command.
    pub fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }
}
