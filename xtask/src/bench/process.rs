//! The processes of a measurement: started, watched through /proc, and ended with it.
//! Not a supervisor: a process that ends by itself is an error of the run.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The kernel counts CPU time in /proc in units of USER_HZ, 100 a second on every platform that Rust's std supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process and its descendants have used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Seconds in user and kernel mode together; for a tree also those of its processes that have ended.
    pub(super) cpu: f64,
    /// Bytes of memory now.
    pub(super) resident: u64,
    /// The most bytes of memory so far, or since [`reset_peak`].
    pub(super) peak: u64,
}

impl Usage {
    /// Adds up the process `root` and all that descend from it.
    ///
    /// # Errors
    /// When there is no such process.
    pub(super) fn of_tree(root: u32) -> anyhow::Result<Self> {
        let (mut total, ended) = Self::of_process(root).with_context(|| format!("process {root} is gone"))?;
        total.cpu += ended;
        for pid in tree(root) {
            if pid != root
                && let Some((one, ended)) = Self::of_process(pid)
            {
                total.cpu += one.cpu + ended;
                total.resident += one.resident;
                total.peak += one.peak;
            }
        }
        Ok(total)
    }

    /// Of this process alone: the others of a measurement are its children.
    ///
    /// # Errors
    /// When /proc is not there.
    pub(super) fn of_self() -> anyhow::Result<Self> {
        Ok(Self::of_process(std::process::id()).context("no /proc here")?.0)
    }

    /// Of one process, and the CPU seconds of its children that have ended.
    fn of_process(pid: u32) -> Option<(Self, f64)> {
        let (_, cpu, ended) = parent_and_cpu(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let usage = Self { cpu, resident: kibibytes(&status, "VmRSS:"), peak: kibibytes(&status, "VmHWM:") };
        Some((usage, ended))
    }
}

/// Lets the peak of the process tree begin anew; where the kernel does not allow it the old peak stays.
pub(super) fn reset_peak(root: u32) {
    for pid in tree(root) {
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// The ids of `root` and its descendants.
fn tree(root: u32) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((parent, ..)) = parent_and_cpu(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut open) = (HashSet::from([root]), vec![root]);
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// Reads parent, CPU seconds and those of ended children from /proc/PID/stat (proc(5)): fields 4 and 14 to 17; the name
/// in field 2 may hold anything, so counting starts at its last bracket.
fn parent_and_cpu(stat: &str) -> Option<(u32, f64, f64)> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let seconds = |first: usize| Some((ticks(first)? + ticks(first + 1)?) as f64 / TICKS_PER_SECOND);
    Some((fields.get(1)?.parse().ok()?, seconds(11)?, seconds(13)?))
}

/// Reads one `Name: N kB` line of /proc/PID/status as bytes; 0 when it is missing.
fn kibibytes(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// A process of ours that listens, by default on a port of loopback. It is ended when this is dropped.
pub(super) struct Server<A = SocketAddr> {
    child: Child,
    name: String,
    pub(super) address: A,
}

impl<A: Display> Server<A> {
    /// Starts `command`, which must listen on `address` by itself.
    pub(super) fn start(name: &str, mut command: Command, address: A) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("could not start {name}"))?;
        Ok(Self { child, name: name.to_string(), address })
    }

    /// Waits until `answers` and says how long it took since `begin`.
    ///
    /// # Errors
    /// When the process ends or stays silent for 20 seconds.
    pub(super) fn wait(&mut self, begin: Instant, answers: impl Fn(&A) -> bool) -> anyhow::Result<Duration> {
        while begin.elapsed() < Duration::from_secs(20) {
            if answers(&self.address) {
                return Ok(begin.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}", self.name);
            }
            thread::sleep(Duration::from_micros(500));
        }
        bail!("{} does not answer on {}", self.name, self.address)
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Server {
    /// Waits for the greeting of an SMTP server; otherwise as [`Server::wait`].
    pub(super) fn greeting(&mut self, begin: Instant) -> anyhow::Result<Duration> {
        self.wait(begin, |address| greets(*address))
    }
}

impl<A> Drop for Server<A> {
    fn drop(&mut self) {
        // Nothing it holds is of value: ending it at once is kinder to the next measurement than a slow farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says whether something greets at `address` like an SMTP server.
pub(super) fn greets(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut code = [0; 3];
        stream.read_exact(&mut code)?;
        Ok(&code == b"220")
    };
    ask().unwrap_or(false)
}

/// A port of loopback that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_stat_is_read_behind_the_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 150 50 300 100 20 0 1 0 5 1 2";
        assert_eq!(parent_and_cpu(stat), Some((7, 2.0, 4.0)));
        for broken in ["", "42 (x", "42 (x) S", "42 (x) S 7 1 1 1 1 1 1 1 1 1 a b 0 0"] {
            assert_eq!(parent_and_cpu(broken), None, "{broken}");
        }
    }

    #[test]
    fn memory_lines_are_bytes() {
        assert_eq!(kibibytes("Name:\tx\nVmHWM:\t    1024 kB\nVmRSS:\t 7 kB\n", "VmHWM:"), 1 << 20);
        assert_eq!(kibibytes("Name:\tx\n", "VmHWM:"), 0);
    }

    #[test]
    fn a_tree_holds_its_children() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let server = Server { child, name: "sleep".into(), address: free_port().unwrap() };
        assert!(tree(std::process::id()).contains(&server.id()));
        assert!(Usage::of_tree(server.id()).unwrap().peak > 0);
        let id = server.id();
        drop(server);
        assert!(Usage::of_tree(id).is_err());
    }
}
