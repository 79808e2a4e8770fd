//! The mail server's own program, started with a mail as its standard input. It has the mail when it ends with 0.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use checkpost_client::runs::Run;
use checkpost_client::spool::in_memory;
use checkpost_pipe::{Origin, exim, postfix};
use rustix::fs::{SeekFrom, seek};
use rustix::io::{pread, retry_on_intr};

/// So much of what the program says is told on, in octets.
const SAID: usize = 400;

/// Where a mail goes back.
pub(crate) enum Door {
    Exim(PathBuf),
    Postfix(PathBuf),
}

impl Door {
    /// Hands over one mail; if this succeeds, the mail server has it.
    pub(crate) fn give(&self, run: &Run, content: OwnedFd, origin: &Origin) -> Result<(), String> {
        let words = match self {
            Self::Exim(_) => exim::words(run, origin),
            Self::Postfix(_) => postfix::words(run),
        };
        let mut command = self.command();
        command.args(words);
        let failed = |error: io::Error| format!("{}: {error}", self.path().display());
        // A content of the daemon's may stand anywhere.
        seek(&content, SeekFrom::Start(0)).map_err(|errno| failed(errno.into()))?;
        command.stdin(File::from(content));
        let (status, said) = run_and_hear(command).map_err(failed)?;
        if status.success() {
            return Ok(());
        }
        let said = first_line(&said);
        Err(format!("{} did not take the mail back ({status}){said}", self.path().display()))
    }

    /// Does Exim trust this user? Asked as that user.
    pub(crate) fn trusts(&self, user: u32) -> bool {
        let mut command = self.command();
        command.args(["-bP", "trusted_users"]).stdin(Stdio::null());
        let Ok((status, answer)) = run_and_hear(command) else { return false };
        status.success() && exim::is_trusted(&answer, &name_of(user), user)
    }

    fn path(&self) -> &PathBuf {
        match self {
            Self::Exim(path) | Self::Postfix(path) => path,
        }
    }

    /// Nothing in the environment is the program's: MAIL_CONFIG, for one, would make it another Postfix.
    fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command
    }
}

/// Runs it to its end; what it says goes into a file. A pipe would be held open by deliveries that it begins, and so would
/// the mail server's own, which it reads to the end.
fn run_and_hear(mut command: Command) -> io::Result<(std::process::ExitStatus, String)> {
    let said = File::from(in_memory()?);
    command.stdout(said.try_clone()?).stderr(said.try_clone()?);
    let status = command.status()?;
    let mut text = vec![0; SAID];
    let count = retry_on_intr(|| pread(said.as_fd(), &mut text, 0))?;
    text.truncate(count);
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

fn first_line(said: &str) -> String {
    said.lines().find(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim())).unwrap_or_default()
}

/// By /etc/passwd; whoever is elsewhere must be in trusted_users by number.
fn name_of(user: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let is = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(user);
    users.lines().find(is).and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
}
