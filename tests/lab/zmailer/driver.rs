//! smtpserver with a post office in a folder: mails in, replies and files out.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::filter::{Filter, give_away};
use super::spool::Mail;
use super::talk::Open;

/// A post office.
#[derive(Debug)]
pub struct Driver {
    folder: PathBuf,
    /// Removed when dropped, if it was made here.
    _made: Option<tempfile::TempDir>,
}

/// What became of a spool file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// In the router's folder.
    Routed(PathBuf),
    /// In the freezer.
    Frozen(PathBuf),
    /// Deleted.
    Deleted,
}

/// What became of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The reply to the final dot.
    pub reply: String,
    /// Of its file.
    pub fate: Fate,
    /// It was accepted without a verdict.
    pub open: Option<Open>,
}

impl Driver {
    /// An empty one, with the folders and modes of ZMailer's.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("checkpost-lab-").tempdir()?;
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        for (name, mode) in [("public", 0o1777), ("router", 0o1777), ("freezer", 0o750)] {
            fs::create_dir(folder.path().join(name))?;
            fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(mode))?;
        }
        Ok(Self { folder: folder.path().to_owned(), _made: Some(folder) })
    }

    /// One that is there.
    pub(super) fn at(folder: &str) -> Self {
        Self { folder: folder.into(), _made: None }
    }

    /// `$POSTOFFICE`.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// One SMTP session: what became of each of its mails, and all that it and the filter said to each other.
    pub fn session(&self, filter: &Filter, mails: &[Mail]) -> io::Result<(Vec<Told>, Vec<String>)> {
        let mut connection = filter.session();
        let mut told = Vec::new();
        for mail in mails {
            told.push(self.mail(mail, |path| connection.ask(path))?);
        }
        Ok((told, connection.said))
    }

    /// One mail, and its verdict.
    pub(super) fn mail(&self, mail: &Mail, ask: impl FnOnce(&str) -> Result<super::Verdict, Open>) -> io::Result<Told> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("mail.example.test:{}{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.path().join("public").join(&name);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        give_away(&file)?;
        file.write_all(&mail.spooled())?;
        let before = file.metadata()?;
        let verdict = ask(&path.display().to_string());
        // It is still open. Deleted or renamed, the session would end without a reply.
        let after = file.metadata()?;
        let there = fs::symlink_metadata(&path)?;
        let same =
            (before.ino(), before.mode(), before.uid(), 1) == (after.ino(), after.mode(), after.uid(), after.nlink());
        if !same || there.ino() != before.ino() {
            return Err(io::Error::other(format!("{name} is another file than it was: {after:?}")));
        }
        let id = format!("S{}", before.ino());
        let (reply, number, open) = match verdict {
            Ok(verdict) => (verdict.reply(&id), verdict.number, None),
            Err(why) => (format!("250 2.0.0 accepted; {id}"), 0, Some(why)),
        };
        let fate = match number {
            ..0 => {
                fs::remove_file(&path)?;
                Fate::Deleted
            }
            0 => Fate::Routed(self.renamed(&path, &format!("router/{}", before.ino()))?),
            1.. => Fate::Frozen(self.renamed(&path, &format!("freezer/{}policy-{number}", before.ino()))?),
        };
        file.rewind()?;
        Ok(Told { reply, fate, open })
    }

    fn renamed(&self, from: &Path, to: &str) -> io::Result<PathBuf> {
        let to = self.path().join(to);
        fs::rename(from, &to)?;
        Ok(to)
    }

    /// What the router makes of a mail that was accepted, or an administrator of one in the freezer.
    pub fn routed(told: &Told) -> io::Result<Mail> {
        let (Fate::Routed(path) | Fate::Frozen(path)) = &told.fate else { return Err(io::ErrorKind::NotFound.into()) };
        let mut text = Vec::new();
        File::open(path)?.read_to_end(&mut text)?;
        Mail::routed(&text)
            .ok_or_else(|| io::Error::other(format!("no spool file: {}", String::from_utf8_lossy(&text))))
    }

    /// What is left in `public`.
    pub fn left(&self) -> io::Result<usize> {
        Ok(fs::read_dir(self.path().join("public"))?.count())
    }
}
