//! The life of the daemon: start, reload, drain, end.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use checkpost_adapter::SocketAddress;
use checkpost_adapter::host::Gauge;
use checkpost_adapter::pool::Pool;
use checkpost_adapter::stream::Connection;
use checkpost_adapter::way::Listen;
use checkpost_mark::Key;
use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc, watch};

use crate::admin::{FilterStatus, Status, WayStatus};
use crate::listeners::Listeners;
use crate::state::{Lasting, Loaded, State};
use crate::{admin, logging, notify, privileges};

/// The configuration is wrong (EX_CONFIG of sysexits.h). A restart would not help.
pub const EXIT_CONFIG: u8 = 78;
/// The system refused something: an address, a directory, a user (EX_OSERR).
pub const EXIT_SYSTEM: u8 = 71;

const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// A running daemon, as its tasks see it.
pub(crate) struct Daemon {
    config: PathBuf,
    started: Instant,
    state: ArcSwap<State>,
    listeners: Mutex<Listeners>,
    lasting: Lasting,
    /// Client connections now open.
    sessions: Arc<Gauge>,
    served: AtomicU64,
    reloads: AtomicU64,
    /// Clients of the admin socket.
    pub(crate) admins: Arc<Gauge>,
    /// Dropped by the last session: that is how the end of a drain is known.
    alive: mpsc::Sender<()>,
}

/// Runs the daemon to its end.
pub fn run(config: &Path) -> ExitCode {
    let mut loaded = match Loaded::read(config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems.to_string());
            let count = problems.len();
            complain(&format!("{count} problem{}; nothing was started", if count == 1 { "" } else { "s" }));
            return EXIT_CONFIG.into();
        }
    };
    logging::start(loaded.settings.log_format, &loaded.settings.log_level);
    if let Err(error) = privileges::raise_open_files() {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
    if let Err(error) = prepare(&loaded) {
        tracing::error!("{error:#}");
        return EXIT_SYSTEM.into();
    }
    if let Err(problems) = loaded.open() {
        problems.to_string().lines().for_each(|problem| tracing::error!("{problem}"));
        return EXIT_CONFIG.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads");
            return EXIT_SYSTEM.into();
        }
    };
    let code = runtime.block_on(serve(config, loaded));
    // A filter may hang in a blocking call; nothing waits for it any more.
    runtime.shutdown_background();
    code
}

/// Everything that must happen while there is one thread only.
fn prepare(loaded: &Loaded) -> anyhow::Result<()> {
    use anyhow::Context;
    let settings = &loaded.settings;
    for (directory, mode) in settings.directories().chain([(&*loaded.quarantine.directory, 0o750)]) {
        privileges::own_directory(directory, mode, settings.account())
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    match &settings.account {
        Some((name, account)) => account.become_it(name)?,
        None if rustix::process::geteuid().is_root() => {
            tracing::warn!("running as root; set `user` in [daemon], or User= in the unit");
        }
        None => {}
    }
    // For the programs beside mail servers. The daemon itself marks nothing, and is no reason not to start.
    if let Err(error) = Key::ensure(&settings.mark_key()) {
        tracing::warn!(
            error = format!("{:#}", anyhow::Error::from(error)),
            "no key for the marks on mail that is handed in again"
        );
    }
    settings.spool.unnamed_file().map(drop).with_context(|| {
        format!("cannot write to the spool {}; see `state` and `spool` in [daemon]", settings.spool.directory.display())
    })
}

async fn serve(config: &Path, loaded: Loaded) -> ExitCode {
    let (mut reload_signal, mut end, mut interrupt) = match signals() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "no signals");
            return EXIT_SYSTEM.into();
        }
    };
    let (drain, draining) = watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel(1);
    let lasting =
        Lasting { pool: Pool::new(loaded.settings.pool_connections, loaded.settings.pool_time), drain: draining };
    lasting.pool.spawn_sweeper();
    let risks = loaded.risks.clone();
    let state = match State::new(loaded, &lasting, None) {
        Ok(state) => state,
        Err(error) => {
            tracing::error!("{error:#}");
            return EXIT_SYSTEM.into();
        }
    };
    let daemon = Arc::new(Daemon {
        config: config.to_owned(),
        started: Instant::now(),
        state: ArcSwap::from_pointee(state),
        listeners: Mutex::default(),
        lasting,
        sessions: Arc::default(),
        served: AtomicU64::new(0),
        reloads: AtomicU64::new(0),
        admins: Arc::default(),
        alive,
    });
    let state = daemon.state();
    let problems = daemon.listen(&state).await;
    if !problems.is_empty() {
        problems.iter().for_each(|problem| tracing::error!("{problem}"));
        return EXIT_SYSTEM.into();
    }
    let admin = daemon.listen_for_admins(&state).await;
    risks.iter().for_each(|risk| tracing::warn!("{risk}"));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ways = state.ways.len(), "serving");
    notify::ready("serving");
    notify::spawn_watchdog();
    daemon.spawn_sweeper();
    loop {
        tokio::select! {
            _ = reload_signal.recv() => {
                // The reload has logged what is wrong.
                let _ = daemon.reload().await;
            }
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    let patience = daemon.state().settings.drain_time;
    notify::stopping(patience);
    tracing::info!(sessions = daemon.sessions.count(), "ending: taking no more connections, finishing sessions");
    daemon.listeners.lock().await.close();
    drop(admin);
    drain.send_replace(true);
    let pool = Arc::clone(&daemon.lasting.pool);
    let sessions = Arc::clone(&daemon.sessions);
    drop((daemon, state));
    tokio::select! {
        _ = all_gone.recv() => {}
        () = tokio::time::sleep(patience) => {
            tracing::warn!(sessions = sessions.count(), "sessions cut off: they did not end in time");
        }
        _ = end.recv() => tracing::warn!(sessions = sessions.count(), "sessions cut off by a second signal"),
        _ = interrupt.recv() => tracing::warn!(sessions = sessions.count(), "sessions cut off by a second signal"),
    }
    pool.close();
    tracing::info!("ended");
    ExitCode::SUCCESS
}

impl Daemon {
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Reads the configuration again. What is wrong with it is logged and returned; then the old one
    /// stays in force. `Err`: the daemon is about to end.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Vec<String>, String> {
        if *self.lasting.drain.borrow() {
            return Err("the daemon is ending".to_owned());
        }
        notify::reloading();
        let problems = self.try_reload().await;
        if problems.is_empty() {
            self.reloads.fetch_add(1, Ordering::Relaxed);
            tracing::info!("configuration reloaded");
        } else {
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
            tracing::error!(problems = problems.len(), "configuration not reloaded; the old one stays in force");
        }
        notify::ready("serving");
        Ok(problems)
    }

    async fn try_reload(self: &Arc<Self>) -> Vec<String> {
        let config = self.config.clone();
        let read = move || {
            let mut loaded = Loaded::read(&config)?;
            loaded.open().map(|()| loaded)
        };
        let loaded = match tokio::task::spawn_blocking(read).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(problems)) => return problems.to_string().lines().map(str::to_owned).collect(),
            Err(crashed) => return vec![crashed.to_string()],
        };
        let risks = loaded.risks.clone();
        let old = self.state();
        let state = match State::new(loaded, &self.lasting, Some(&old)) {
            Ok(state) => Arc::new(state),
            Err(error) => return vec![format!("{error:#}")],
        };
        let problems = self.listen(&state).await;
        if problems.is_empty() {
            for (changed, key) in [
                (old.settings.admin_socket != state.settings.admin_socket, "admin_socket"),
                (old.settings.log_format != state.settings.log_format, "log_format"),
                (old.settings.account != state.settings.account, "user"),
            ] {
                if changed {
                    tracing::warn!(key, "this change of [daemon] needs a restart");
                }
            }
            logging::set_level(&state.settings.log_level);
            risks.iter().for_each(|risk| tracing::warn!("{risk}"));
        }
        problems
    }

    /// Opens what the state wants and puts it into force; or, with problems, changes nothing.
    async fn listen(self: &Arc<Self>, state: &Arc<State>) -> Vec<String> {
        let wanted = state.listens();
        let mut listeners = self.listeners.lock().await;
        let bound = match listeners.bind_missing(&wanted).await {
            Ok(bound) => bound,
            Err(failed) => return failed.iter().map(ToString::to_string).collect(),
        };
        self.state.store(Arc::clone(state));
        let daemon = Arc::downgrade(self);
        let serve = move |address: &SocketAddress, connection| {
            if let Some(daemon) = daemon.upgrade() {
                daemon.spawn_session(address, connection);
            }
        };
        listeners.switch(&wanted, bound, &Arc::new(serve));
        Vec::new()
    }

    /// Keeps the quarantine within its age and size, every ten minutes.
    fn spawn_sweeper(self: &Arc<Self>) {
        let daemon = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP_EVERY);
            loop {
                tick.tick().await;
                let Some(quarantine) = daemon.upgrade().map(|daemon| daemon.state().quarantine.clone()) else { return };
                match quarantine.sweep().await {
                    Ok(swept) if swept.old + swept.over > 0 => {
                        tracing::info!(old = swept.old, over = swept.over, octets = swept.left, "quarantine swept");
                    }
                    Ok(_) => {}
                    Err(error) => tracing::error!(%error, "the quarantine cannot be swept"),
                }
            }
        });
    }

    fn spawn_session(&self, address: &SocketAddress, connection: Connection) {
        let state = self.state.load();
        let Some(way) = state.way_at(address).cloned() else { return };
        let host = Arc::clone(&state.host);
        let ticket = self.sessions.enter(usize::MAX);
        let alive = self.alive.clone();
        self.served.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let name = Arc::clone(way.name());
            // The panic hook has logged where; the connection is closed, and nothing was answered.
            if AssertUnwindSafe(way.serve(connection, host)).catch_unwind().await.is_err() {
                tracing::error!(way = %name, "a session crashed; its mail was not accepted");
            }
            drop((ticket, alive));
        });
    }

    /// The admin socket. Without it mail is served all the same.
    async fn listen_for_admins(self: &Arc<Self>, state: &State) -> Listeners {
        let address = SocketAddress::Unix(state.settings.admin_socket.clone());
        let wanted = [Listen { address, mode: 0o660, quick_ack: false, descriptors: false }];
        let mut listeners = Listeners::default();
        match listeners.bind_missing(&wanted).await {
            Ok(bound) => {
                let daemon = Arc::downgrade(self);
                let serve = move |_: &SocketAddress, connection| {
                    if let Some(daemon) = daemon.upgrade() {
                        tokio::spawn(admin::serve(connection, daemon));
                    }
                };
                listeners.switch(&wanted, bound, &Arc::new(serve));
            }
            Err(failed) => failed.iter().for_each(|error| tracing::error!("no admin socket: {error}")),
        }
        listeners
    }

    pub(crate) async fn status(&self) -> Status {
        let state = self.state();
        let addresses = self.listeners.lock().await.addresses();
        let listening = |listen: &Listen| match addresses.iter().find(|(address, _)| *address == listen.address) {
            Some((SocketAddress::Tcp(..), Some(local))) => local.to_string(),
            _ => listen.address.to_string(),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.config.display().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            reloads: self.reloads.load(Ordering::Relaxed),
            sessions: self.sessions.count(),
            sessions_served: self.served.load(Ordering::Relaxed),
            draining: *self.lasting.drain.borrow(),
            ways: state
                .ways
                .iter()
                .map(|way| WayStatus {
                    name: way.name().to_string(),
                    kind: way.kind().name.to_owned(),
                    listen: way.listen().iter().map(listening).collect(),
                })
                .collect(),
            filters: state
                .host
                .engine
                .filters()
                .iter()
                .map(|filter| {
                    let about = filter.about();
                    FilterStatus {
                        name: about.name.to_string(),
                        version: about.version.clone(),
                        data_version: about.data_version.clone(),
                    }
                })
                .collect(),
        }
    }
}

type Signals = (tokio::signal::unix::Signal, tokio::signal::unix::Signal, tokio::signal::unix::Signal);

fn signals() -> std::io::Result<Signals> {
    Ok((signal(SignalKind::hangup())?, signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
}

/// Before logging is set up: its form is in the configuration that is wrong.
#[allow(clippy::print_stderr, reason = "logging is not there yet")]
fn complain(text: &str) {
    eprintln!("{text}");
}
