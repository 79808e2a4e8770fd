//! Start-up and memory of the daemon: first banner, idle, and many large mails at the same time.
//! Not a leak test: each number is one peak of one process.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::client::{self, Client, Failure};
use super::load::{Load, Outcome};
use super::mail::Mail;
use super::process::{self, Usage};
use super::report::Fact;
use super::{daemon, sink};

const STARTS: usize = 11;
const LARGE_SESSIONS: usize = 50;
const LARGE_SIZE: usize = 10 << 20;
const MIB: f64 = (1 << 20) as f64;

/// Measures `program` and gives each number with its goal.
///
/// # Errors
/// When a process does not start; a mail that fails is a fact, not an error.
pub(super) fn measure(program: &Path, sink: Option<&Path>, cache: &Path) -> anyhow::Result<Vec<Fact>> {
    let sink = sink::start(sink, cache, 0)?;
    let folder = tempfile::tempdir()?;
    let mut facts = Vec::new();

    let mut banners = Vec::new();
    for _ in 0..STARTS {
        banners.push(daemon::start(program, folder.path(), sink.address)?.1.as_secs_f64() * 1000.0);
    }
    banners.sort_by(f64::total_cmp);
    facts.push(Fact::new("first banner after start, median", banners[STARTS / 2], "ms").at_most(50.0));
    facts.push(Fact::new("first banner after start, slowest", banners[STARTS - 1], "ms").at_most(50.0));

    let (server, _) = daemon::start(program, folder.path(), sink.address)?;
    // Whatever the daemon still does after its first banner belongs to the idle figure.
    thread::sleep(Duration::from_secs(1));
    let idle = Usage::of_tree(server.id())?;
    facts.push(Fact::new("memory, idle", idle.resident as f64 / MIB, "MiB").at_most(20.0));

    let quiet = small_mails(server.address)?;
    facts.push(Fact::new("4 KiB mail alone, p50", quiet.latency(0.5), "ms"));

    process::reset_peak(server.id());
    let begin = Instant::now();
    let (failures, busy) = large_mails(server.address, || small_mails(server.address))?;
    let peak = Usage::of_tree(server.id())?;
    facts.push(Fact::new("4 KiB mail beside 50 unfinished 10 MiB mails, p50", busy.latency(0.5), "ms"));
    facts.push(Fact::new("memory, 50 sessions with 10 MiB each, peak", peak.peak as f64 / MIB, "MiB").at_most(100.0));
    facts.push(Fact::new("memory, afterwards", peak.resident as f64 / MIB, "MiB"));
    facts.push(Fact::new("errors among the 50", failures.len() as f64, "").at_most(0.0));
    facts.push(Fact::new("time for all of it", begin.elapsed().as_secs_f64(), "s"));
    if let Some(failure) = failures.first() {
        facts.push(Fact::new(&format!("the first of them: {failure}"), 1.0, ""));
    }
    Ok(facts)
}

/// One session with small mails for a second.
fn small_mails(peer: SocketAddr) -> anyhow::Result<Outcome> {
    let mail = Mail::of_size(4 << 10).with_final_dot();
    let load = Load { mail: &mail, sessions: 1, time: Duration::from_secs(1) };
    load.run(&[], || |mail: &Mail| client::message(peer, mail, false))
}

/// Sends the large mails up to their final dots, calls `meanwhile`, and ends all of them at once.
fn large_mails<T>(
    peer: SocketAddr,
    meanwhile: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(Vec<Failure>, T)> {
    let mail = Mail::of_size(LARGE_SIZE);
    let gate = Gate::default();
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..LARGE_SESSIONS).map(|_| scope.spawn(|| large_mail(peer, &mail, &gate))).collect();
        let arrived = gate.wait_for(LARGE_SESSIONS, Duration::from_secs(120));
        let result = arrived.and_then(|()| meanwhile());
        gate.open();
        let mut failures = Vec::new();
        for session in sessions {
            failures.extend(session.join().map_err(|_| anyhow!("a session panicked"))?.err());
        }
        Ok((failures, result.context("beside the large mails")?))
    })
}

fn large_mail(peer: SocketAddr, mail: &Mail, gate: &Gate) -> Result<(), Failure> {
    let begun = Client::connect(peer).and_then(|mut client| {
        client.envelope(false)?;
        client.content(mail.bytes())?;
        Ok(client)
    });
    // Also who failed has arrived: the others must not wait for it.
    gate.arrive_and_wait();
    let mut client = begun?;
    client.content(b".\r\n")?;
    client.answer()?;
    client.quit()
}

/// Holds the sessions until all of them have arrived and it is opened.
#[derive(Default)]
struct Gate {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn arrive_and_wait(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        let open = self.changed.wait_while(state, |(_, open)| !*open);
        drop(open);
    }

    fn wait_for(&self, sessions: usize, patience: Duration) -> anyhow::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, late) = self
            .changed
            .wait_timeout_while(state, patience, |(arrived, _)| *arrived < sessions)
            .unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            bail!("only {} of {sessions} sessions could send their content", state.0);
        }
        Ok(())
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}
