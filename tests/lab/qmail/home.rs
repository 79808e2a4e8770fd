//! A qmail's home with an original that stores what it is given, and what it stored.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder, gone when dropped: `bin/qmail-queue` is the stub original (`lab/bin/stub_qmail_queue.rs`).
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    /// Removed when dropped, if it was made here.
    _made: Option<tempfile::TempDir>,
}

/// One run of the original that came to its end.
#[derive(Debug, Clone)]
pub struct Call {
    /// Descriptor 0, to the byte.
    pub message: Vec<u8>,
    /// Descriptor 1, as far as the original reads it.
    pub envelope: Vec<u8>,
    /// Its exit code.
    pub exit: i32,
    about: Vec<(String, String)>,
}

impl Call {
    /// What it noted of its process: `pid`, `parent`, `uid`, `effective`, `folder`, `umask`, `arguments`,
    /// `offset0`, `offset1`, `descriptors`, and `env NAME` of each variable.
    pub fn about(&self, name: &str) -> Option<&str> {
        self.about.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The sender's bytes.
    pub fn sender(&self) -> Vec<u8> {
        self.parts()[0][1..].to_vec()
    }

    /// The recipients' bytes.
    pub fn recipients(&self) -> Vec<Vec<u8>> {
        self.parts()[1..].iter().map(|part| part[1..].to_vec()).collect()
    }

    fn parts(&self) -> Vec<&[u8]> {
        let whole = self.envelope.strip_suffix(b"\0\0").expect("an envelope that was taken is whole");
        whole.split(|byte| *byte == 0).collect()
    }
}

impl Home {
    /// A new one, with this program as the original.
    pub fn new(stub: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpost-lab-").tempdir()?;
        let home = Self { folder: folder.path().to_owned(), _made: Some(folder) };
        for (name, mode) in [("", 0o755), ("bin", 0o755), ("calls", 0o777), ("log", 0o777), ("spool", 0o1777)] {
            let path = home.path().join(name);
            fs::create_dir_all(&path)?;
            // Whatever the umask: others run here, too.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        home.install(stub, "qmail-queue")?;
        home.script(&[0])?;
        Ok(home)
    }

    /// One that is there.
    pub(super) fn at(folder: &str) -> Self {
        Self { folder: folder.into(), _made: None }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A file in `bin`.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.path().join("bin").join(name)
    }

    /// Copies a program into `bin`, for everybody to run.
    pub fn install(&self, program: &Path, name: &str) -> io::Result<PathBuf> {
        let path = self.bin(name);
        // A running program cannot be written to, but another can take its name. And what another process wrote no child of
        // ours can still have open for writing, which would keep it from being started.
        let new = self.bin(".new");
        let copied = Command::new("cp").arg(program).arg(&new).status()?;
        if !copied.success() {
            return Err(io::Error::other(format!("cp {}: {copied}", program.display())));
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::rename(&new, &path)?;
        Ok(path)
    }

    /// The exit codes of the original's runs, the last for all that follow.
    pub fn script(&self, codes: &[i32]) -> io::Result<()> {
        let lines: Vec<String> = codes.iter().map(i32::to_string).collect();
        fs::write(self.path().join("exit"), lines.join("\n"))
    }

    /// Every run of the original that came to its end, in order.
    pub fn calls(&self) -> Vec<Call> {
        let mut folders: Vec<PathBuf> =
            fs::read_dir(self.path().join("calls")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        folders.sort();
        folders.iter().filter_map(|folder| call(folder).ok()).collect()
    }

    /// The runs that came to a good end, which are then forgotten.
    pub(super) fn take(&self) -> io::Result<Vec<Call>> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(self.path().join("calls"))? {
            let folder = entry?.path();
            if let Some(call) = call(&folder).ok().filter(|call| call.exit == 0) {
                fs::remove_dir_all(folder)?;
                taken.push(call);
            }
        }
        Ok(taken)
    }

    /// How often the original was started.
    pub fn started(&self) -> usize {
        fs::read_dir(self.path().join("calls")).map_or(0, Iterator::count)
    }

    /// Forgets the runs so far.
    pub fn forget(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path().join("calls"))? {
            fs::remove_dir_all(entry?.path())?;
        }
        Ok(())
    }

    /// The names of files left in the folder for spools.
    pub fn spooled(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("spool")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

fn call(folder: &Path) -> io::Result<Call> {
    // Written last, so who finds it finds all.
    let about = fs::read_to_string(folder.join("about"))?;
    let about: Vec<(String, String)> = about
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let exit = about.iter().find(|(name, _)| name == "exit").and_then(|(_, value)| value.parse().ok());
    Ok(Call {
        message: fs::read(folder.join("message"))?,
        envelope: fs::read(folder.join("envelope"))?,
        exit: exit.ok_or(io::ErrorKind::InvalidData)?,
        about,
    })
}
