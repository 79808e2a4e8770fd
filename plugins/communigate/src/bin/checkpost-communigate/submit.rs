//! The folder `Submitted`: mails written there whole, on the disk, and only then given the name under which the server
//! takes them. And what the server did not take.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use checkpost_communigate::map::{Piece, Replacement};
use checkpost_communigate::submitted::{Strip, envelope_lines};
use checkpost_mark::{Key, header};

use crate::journal::sync_folder;
use crate::queue::{BLOCK, Mail, Section};

/// Our files begin so.
const OURS: &str = "checkpost-";
/// Ours that the server must not take yet, those that it may, and those that it did not like.
const NOT_YET: &str = "tmp";
const READY: &str = "sub";
const BAD: &str = "bad";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Submitted(PathBuf);

/// Mails that are written and not handed in. Dropped, they are removed.
#[derive(Debug)]
pub(crate) struct Drafts {
    folder: Submitted,
    names: Vec<String>,
    kept: bool,
}

impl Submitted {
    pub(crate) fn new(base: &Path) -> Self {
        Self(base.join("Submitted"))
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.0.join(format!("{name}.{ending}"))
    }

    /// Writes mails in this one's place, marked, and on the disk. `id` is the server's id of it, `octets` came with the
    /// daemon's answer, `rounds` is how many times it was handed in before.
    ///
    /// # Errors
    /// They cannot all be written; none is left.
    pub(crate) fn write(
        &self,
        id: &str,
        mail: &Mail,
        all: &[Replacement],
        octets: &[u8],
        rounds: usize,
        key: &Key,
    ) -> io::Result<Drafts> {
        let mut drafts = Drafts { folder: self.clone(), names: Vec::new(), kept: false };
        for one in all {
            let name = unique(id)?;
            drafts.names.push(name.clone());
            self.write_one(&self.file(&name, NOT_YET), mail, one, octets, rounds, key)?;
        }
        sync_folder(&self.0)?;
        Ok(drafts)
    }

    fn write_one(
        &self,
        path: &Path,
        mail: &Mail,
        one: &Replacement,
        octets: &[u8],
        rounds: usize,
        key: &Key,
    ) -> io::Result<()> {
        let file = self.create(path)?;
        let mut out = BufWriter::with_capacity(BLOCK, &file);
        let lines = envelope_lines(one.sender.as_deref(), &one.recipients);
        out.write_all(&lines)?;
        let mark_at = lines.len() as u64;
        // All marks have the same length, so its place can be kept.
        let now = SystemTime::now();
        let empty = header::line(&key.mark(io::empty(), now)?);
        out.write_all(empty.as_bytes())?;
        for _ in 0..rounds {
            out.write_all(format!("{}: before\n", header::FIELD).as_bytes())?;
        }
        copy(mail, one, octets, &mut out)?;
        out.flush()?;
        drop(out);
        let below = mark_at + empty.len() as u64;
        let end = (&file).seek(SeekFrom::End(0))?;
        let mark = header::line(&key.mark(Section { file: &file, at: below, end }, now)?);
        if mark.len() != empty.len() {
            return Err(io::Error::other("a mark of another length"));
        }
        file.write_all_at(mark.as_bytes(), mark_at)?;
        file.sync_all()
    }

    /// Makes a file that whoever may use the folder may use, and nobody else: the server may have given up its rights.
    fn create(&self, path: &Path) -> io::Result<File> {
        let folder = fs::metadata(&self.0)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(0o600 | (folder.mode() & 0o060)))?;
        Ok(file)
    }

    /// Gives these mails the name under which the server takes them, if they have it not yet: who is not there any more
    /// under the first name has had the other.
    ///
    /// # Errors
    /// One could not be; to be tried again.
    pub(crate) fn hand_in(&self, names: &[String]) -> io::Result<()> {
        for name in names {
            match fs::rename(self.file(name, NOT_YET), self.file(name, READY)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        sync_folder(&self.0)
    }

    /// Removes what was being written when the program was killed. `is_known` tells what is still to be handed in.
    pub(crate) fn sweep(&self, is_known: impl Fn(&str) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for name in self.ours(NOT_YET)?.iter().filter(|name| !is_known(name)) {
            fs::remove_file(self.file(name, NOT_YET))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Mails of ours that the server did not take. They wait for somebody.
    pub(crate) fn bad(&self) -> io::Result<Vec<String>> {
        Ok(self.ours(BAD)?.iter().map(|name| format!("{name}.{BAD}")).collect())
    }

    fn ours(&self, ending: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let Some((stem, found)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            if stem.starts_with(OURS) && found == ending {
                names.push(stem.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Drafts {
    /// Files without their endings.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// From here on they are the journal's.
    pub(crate) fn keep(mut self) -> Vec<String> {
        self.kept = true;
        std::mem::take(&mut self.names)
    }
}

impl Drop for Drafts {
    fn drop(&mut self) {
        if !self.kept {
            for name in &self.names {
                let _ = fs::remove_file(self.folder.file(name, NOT_YET));
            }
        }
    }
}

/// The new content, without what would choose another envelope.
fn copy(mail: &Mail, one: &Replacement, octets: &[u8], out: &mut impl Write) -> io::Result<()> {
    let field = header::FIELD.to_ascii_lowercase();
    let names = [field.as_bytes()];
    let mut strip = Strip::new(&names);
    let (mut block, mut stripped) = (vec![0; BLOCK], Vec::with_capacity(BLOCK));
    let mut write = |octets: &[u8], strip: &mut Strip<'_>| {
        stripped.clear();
        strip.take(octets, &mut stripped);
        out.write_all(&stripped)
    };
    for piece in &one.pieces {
        match piece {
            Piece::Put(range) => write(&octets[range.clone()], &mut strip)?,
            Piece::Keep(offset, length) => {
                let at = mail.offset + offset;
                let mut section = Section { file: &mail.file, at, end: at + length };
                loop {
                    match section.read(&mut block) {
                        Ok(0) => break,
                        Ok(count) => write(&block[..count], &mut strip)?,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
    let mut rest = Vec::new();
    strip.finish(&mut rest);
    out.write_all(&rest)
}

/// A name that nothing has, with the server's id of the mail in it for whoever looks.
fn unique(id: &str) -> io::Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())?;
    let id: String = id.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    Ok(format!("{OURS}{id}-{:016x}", u64::from_ne_bytes(random)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::queue::Base;

    struct Scene {
        folder: tempfile::TempDir,
        key: Key,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for name in ["Queue", "Submitted"] {
                fs::create_dir(folder.path().join(name)).unwrap();
            }
            let key = folder.path().join("key");
            Key::ensure(&key).unwrap();
            Self { key: Key::read(&key).unwrap(), folder }
        }

        fn submitted(&self) -> Submitted {
            Submitted::new(self.folder.path())
        }

        fn mail(&self, message: &str) -> Mail {
            let text = format!("S SMTP [192.0.2.1]\nP I <s@x>\nR W <a@x>\n\n{message}");
            fs::write(self.folder.path().join("Queue/12.msg"), text).unwrap();
            Base::new(self.folder.path().to_owned()).mail(b"Queue/12.msg").unwrap()
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(self.folder.path().join("Submitted")).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn replacement(pieces: Vec<Piece>) -> Replacement {
        Replacement { sender: Some(b"s@x".to_vec()), recipients: vec![b"a@x".to_vec(), b"b@x".to_vec()], pieces }
    }

    #[test]
    fn a_mail_is_written_marked_and_handed_in_once() {
        let scene = Scene::new();
        let submitted = scene.submitted();
        let message = "A: 1\nEnvelope-To: <v@x>\nX-Checkpost-Mark: old\nB: 2\n\nbody \0\u{e4}\nno end";
        let mail = scene.mail(message);
        let pieces = vec![Piece::Put(0..5), Piece::Keep(0, mail.length)];
        for rounds in [0, 1] {
            let drafts =
                submitted.write("12", &mail, &[replacement(pieces.clone())], b"X: 1\n", rounds, &scene.key).unwrap();
            assert!(scene.files().len() == 1 && scene.files()[0].ends_with(".tmp"), "{:?}", scene.files());
            let names = drafts.keep();
            submitted.hand_in(&names).unwrap();
            let file = scene.files().remove(0);
            assert_eq!(file, format!("{}.sub", names[0]));
            assert!(file.starts_with("checkpost-12-"));
            let path = submitted.0.join(&file);
            let text = fs::read_to_string(&path).unwrap();
            let (envelope, rest) = text.split_at(text.find("X-Checkpost-Mark").unwrap());
            assert_eq!(envelope, "Return-Path: <s@x>\nEnvelope-To: <a@x>\nEnvelope-To: <b@x>\n");
            let before = "X-Checkpost-Mark: before\n".repeat(rounds);
            assert!(rest.ends_with(&format!("{before}X: 1\nA: 1\nB: 2\n\nbody \0\u{e4}\nno end")), "{rest}");
            // As the server makes a mail of it.
            let queued = format!("Received: by us\n{rest}");
            let seen = header::look(&scene.key, queued.as_bytes(), SystemTime::now(), Duration::from_secs(60)).unwrap();
            assert!(seen.holds && seen.fields == rounds + 1, "{seen:?}");
            // Again, after it was killed: nothing happens, whether the server has taken it or not.
            submitted.hand_in(&names).unwrap();
            fs::remove_file(path).unwrap();
            submitted.hand_in(&names).unwrap();
            assert!(scene.files().is_empty());
        }
    }

    #[test]
    fn what_is_not_handed_in_is_removed() {
        let scene = Scene::new();
        let submitted = scene.submitted();
        let mail = scene.mail("A: 1\n\n");
        let whole = || replacement(vec![Piece::Keep(0, mail.length)]);
        drop(submitted.write("1", &mail, &[whole(), whole()], b"", 0, &scene.key).unwrap());
        assert!(scene.files().is_empty());
        // Beyond its end, as if the file had been cut.
        let wrong = replacement(vec![Piece::Keep(0, mail.length + 1)]);
        assert!(submitted.write("1", &mail, &[whole(), wrong], b"", 0, &scene.key).is_err());
        assert!(scene.files().is_empty());
        let kept = submitted.write("1", &mail, &[whole()], b"", 0, &scene.key).unwrap().keep();
        let lost = submitted.write("2", &mail, &[whole()], b"", 0, &scene.key).unwrap().keep();
        fs::write(submitted.0.join("other.tmp"), "").unwrap();
        fs::write(submitted.0.join("checkpost-3.bad"), "").unwrap();
        assert_eq!(submitted.sweep(|name| kept.iter().any(|kept| kept == name)).unwrap(), 1);
        assert!(!scene.files().iter().any(|name| name.starts_with(&lost[0])));
        assert_eq!(scene.files().len(), 3);
        assert_eq!(submitted.bad().unwrap(), ["checkpost-3.bad"]);
    }

    #[test]
    fn the_folder_says_who_may_read() {
        let scene = Scene::new();
        let submitted = scene.submitted();
        for (folder, file) in [(0o700, 0o600), (0o770, 0o660), (0o750, 0o640), (0o777, 0o660)] {
            fs::set_permissions(&submitted.0, fs::Permissions::from_mode(folder)).unwrap();
            let path = submitted.0.join(format!("checkpost-{folder:o}.tmp"));
            let made = submitted.create(&path).unwrap().metadata().unwrap();
            assert_eq!((made.mode() & 0o777, made.gid()), (file, fs::metadata(&submitted.0).unwrap().gid()));
            assert!(submitted.create(&path).is_err(), "no name is used again");
        }
    }
}
