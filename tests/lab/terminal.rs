//! A program in a pseudo-terminal of 100 by 40, and what a person would see of it: its screens, and those that are kept
//! as golden files (`UPDATE_SCREENS=1` writes them anew). What is asked and answered is the test's business.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: (u16, u16) = (40, 100);

/// The program, and its screen.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    screen: Screen,
    golden: PathBuf,
}

struct Screen(vt100::Parser);

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.screen().contents())
    }
}

impl Terminal {
    /// Starts a program there, by its words alone; its golden screens are in this folder.
    ///
    /// # Errors
    /// When there is no pseudo-terminal, or no such program.
    pub fn start(program: &Command, golden: impl Into<PathBuf>) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let open = || rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let size = Winsize { ws_row: SIZE.0, ws_col: SIZE.1, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(open()?.as_fd(), size)?;
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(program.get_program()).args(program.get_args());
        command.env("TERM", "xterm").env("NO_COLOR", "1");
        let child = command.stdin(open()?).stdout(open()?).stderr(open()?).spawn()?;
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone()?;
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
        let screen = Screen(vt100::Parser::new(SIZE.0, SIZE.1, 1000));
        Ok(Self { child, keyboard, output, screen, golden: golden.into() })
    }

    /// Presses keys.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("we hold the terminal");
    }

    /// Reads on until the screen is as wanted.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn until(&mut self, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(&self.screen.0.screen().contents()) {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(octets) => self.takes(&octets),
                Err(error) => panic!("{error}: the screen is\n{}", self.screen.0.screen().contents()),
            }
        }
    }

    fn takes(&mut self, octets: &[u8]) {
        self.screen.0.process(octets);
        // Who asks where the cursor is, is told.
        if octets.windows(4).any(|four| four == b"\x1b[6n") {
            let (row, column) = self.screen.0.screen().cursor_position();
            self.types(&format!("\x1b[{};{}R", row + 1, column + 1));
        }
    }

    /// The screen has this text, and is as its golden file says.
    ///
    /// # Panics
    /// When it is not.
    pub fn shows(&mut self, text: &str, name: &str) {
        self.until(|screen| screen.contains(text));
        self.golden(name);
    }

    /// The screen is, or becomes, as its golden file says.
    ///
    /// # Panics
    /// When it does not.
    pub fn golden(&mut self, name: &str) {
        let path = self.golden.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_SCREENS").is_some() {
            // By hand only: what belongs to one screen may come in pieces.
            while let Ok(octets) = self.output.recv_timeout(Duration::from_secs(1)) {
                self.takes(&octets);
            }
            fs::create_dir_all(&self.golden).expect("the folder of the golden files");
            fs::write(&path, self.lines()).expect("a golden file");
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
    pub fn lines(&self) -> String {
        self.screen.0.screen().contents().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// The exit code, when it has ended; all that it wrote is on the screen.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn ends(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while let Ok(octets) = self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.takes(&octets);
        }
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
