//! A stand-in for qmail's own qmail-queue: it reads its two descriptors as that does, stores what it read in
//! its home, and ends with the exit code that it is told. It queues nothing.
//!
//! Its home is the folder above that of the program itself; see `lab/qmail/home.rs`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{Mode, tell};
use rustix::process::{getppid, umask};

/// One more byte in an address than the original takes.
const TOO_LONG: usize = 1003;

fn main() -> ExitCode {
    // What the original would say of an error of the disk.
    run().map_or(ExitCode::from(53), ExitCode::from)
}

fn run() -> io::Result<u8> {
    let program = std::env::current_exe()?;
    let home = program.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    let about = about();
    let (number, folder) = folder(&home.join("calls"))?;
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let mut message = Vec::new();
    file(stdin)?.read_to_end(&mut message)?;
    fs::write(folder.join("message"), &message)?;
    let mut bytes = io::BufReader::new(file(stdout)?).bytes();
    let mut envelope = Vec::new();
    let read = read(&mut bytes, &mut envelope);
    fs::write(folder.join("envelope"), &envelope)?;
    let exit = match read {
        Ok(()) => scripted(home, number)?,
        Err(code) => code,
    };
    let new = folder.join("about.new");
    File::create(&new)?.write_all(format!("exit={exit}\n{about}").as_bytes())?;
    fs::rename(new, folder.join("about"))?;
    Ok(exit)
}

fn file(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    Ok(File::from(descriptor.try_clone_to_owned()?))
}

/// `F sender NUL { T recipient NUL } NUL`; the error is the original's exit code.
fn read(bytes: &mut impl Iterator<Item = io::Result<u8>>, seen: &mut Vec<u8>) -> Result<(), u8> {
    let mut next = || -> Result<u8, u8> {
        let byte = bytes.next().and_then(Result::ok).ok_or(54)?;
        seen.push(byte);
        Ok(byte)
    };
    let mut letter = b'F';
    loop {
        match next()? {
            0 if letter == b'T' => return Ok(()),
            first if first == letter => {}
            _ => return Err(91),
        }
        letter = b'T';
        let mut length = 0;
        while next()? != 0 {
            length += 1;
            if length == TOO_LONG {
                return Err(11);
            }
        }
    }
}

/// A folder of its own for this run, numbered.
fn folder(calls: &Path) -> io::Result<(usize, PathBuf)> {
    let mut number = fs::read_dir(calls)?.count();
    loop {
        let path = calls.join(format!("{number:06}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok((number, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn scripted(home: &Path, number: usize) -> io::Result<u8> {
    let script = fs::read_to_string(home.join("exit"))?;
    let codes: Vec<&str> = script.lines().collect();
    let code = codes.get(number).or(codes.last()).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What the process was given; before anything is opened or read.
fn about() -> String {
    let mut descriptors = Vec::new();
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        for entry in entries.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let name = entry.file_name();
            // The listing itself is one of them.
            if !target.to_string_lossy().starts_with("/proc/") {
                descriptors.push(format!("{}:{}", name.to_string_lossy(), target.display()));
            }
        }
    }
    descriptors.sort();
    let mask = umask(Mode::empty());
    umask(mask);
    let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let offset =
        |descriptor: BorrowedFd<'_>| tell(descriptor).map_or_else(|error| error.to_string(), |at| at.to_string());
    let mut lines = vec![
        format!("pid={}", std::process::id()),
        format!("parent={}", rustix::process::Pid::as_raw(getppid())),
        format!("uid={}", rustix::process::getuid().as_raw()),
        format!("effective={}", rustix::process::geteuid().as_raw()),
        format!("folder={}", std::env::current_dir().unwrap_or_default().display()),
        format!("umask={:o}", mask.as_raw_mode()),
        format!("arguments={}", arguments.join(" ")),
        format!("offset0={}", offset(rustix::stdio::stdin())),
        format!("offset1={}", offset(rustix::stdio::stdout())),
        format!("descriptors={}", descriptors.join(" ")),
    ];
    for (name, value) in std::env::vars_os() {
        lines.push(format!("env {}={}", name.to_string_lossy(), value.to_string_lossy().escape_default()));
    }
    lines.join("\n") + "\n"
}
