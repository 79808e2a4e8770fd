//! A program in a pseudo-terminal of 100 by 40, and what a person would see of it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: (u16, u16) = (40, 100);

pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
}

impl Terminal {
    pub(crate) fn start(words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let open = || -> OwnedFd { rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap() };
        let size = Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(open().as_fd(), size).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(words).env("TERM", "xterm").env("NO_COLOR", "1");
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().unwrap();
        let (tell, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            // EIO: nobody has the other side open any more.
            while let Ok(n @ 1..) = reader.read(&mut octets) {
                if tell.send(octets[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, output, screen: vt100::Parser::new(SIZE.0, SIZE.1, 1000) }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads on until the screen is as wanted.
    pub(crate) fn until(&mut self, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(&self.screen.screen().contents()) {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(octets) => self.takes(&octets),
                Err(error) => panic!("{error}: the screen is\n{}", self.screen.screen().contents()),
            }
        }
    }

    fn takes(&mut self, octets: &[u8]) {
        self.screen.process(octets);
        // Who asks where the cursor is, is told.
        if octets.windows(4).any(|four| four == b"\x1b[6n") {
            let (row, column) = self.screen.screen().cursor_position();
            self.types(&format!("\x1b[{};{}R", row + 1, column + 1));
        }
    }

    /// The screen has this text, and is as it was before.
    pub(crate) fn shows(&mut self, text: &str, name: &str) {
        self.until(|screen| screen.contains(text));
        self.golden(name);
    }

    /// The screen is, or becomes, what it was before.
    pub(crate) fn golden(&mut self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/screens").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_SCREENS").is_some() {
            // By hand only: what belongs to one screen may come in pieces.
            while let Ok(octets) = self.output.recv_timeout(Duration::from_secs(1)) {
                self.takes(&octets);
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, self.lines()).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        let end = Instant::now() + PATIENCE;
        while self.lines() != golden {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(octets) => self.takes(&octets),
                Err(_) => break,
            }
        }
        assert_eq!(self.lines(), golden, "{} differs", path.display());
    }

    /// What is on the screen, without the blanks at the ends of lines.
    fn lines(&self) -> String {
        self.screen.screen().contents().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// The exit code, when it has ended; all that it wrote is on the screen.
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while let Ok(octets) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.takes(&octets);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
