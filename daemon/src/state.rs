//! From the configuration files to a state of the program: everything that a reload makes anew.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use checkpost_adapter::pool::Pool;
use checkpost_adapter::tls::Connectors;
use checkpost_adapter::way::Listen;
use checkpost_adapter::{Host, SocketAddress, Way};
use checkpost_core::Engine;
use checkpost_core::config::{Document, Lists, Origins, Problems};
use checkpost_core::policy::{Names, Policy};
use checkpost_core::quarantine::{FileQuarantine, QuarantineConfig};
use tokio::sync::watch;

use crate::filters::{self, Filters, Opener, Probe};
use crate::settings::Settings;
use crate::ways;

/// A configuration that was read and has nothing wrong.
pub struct Loaded {
    /// `[daemon]` and `[unpacking]`.
    pub settings: Settings,
    /// `[[way]]`.
    pub ways: Vec<Arc<dyn Way>>,
    /// `[filter.*]`, `[[rule]]`.
    pub engine: Arc<Engine>,
    /// `[quarantine]`; not opened yet.
    pub quarantine: QuarantineConfig,
    /// What the filters do once they are in force.
    pub probes: Vec<Probe>,
    /// What they need done before they are asked: see [`Loaded::open`].
    pub openers: Vec<Opener>,
    /// What is allowed and probably not meant.
    pub risks: Vec<String>,
    /// The files, merged.
    pub document: Document,
}

/// One state of the program, shared by the sessions that began under it.
pub struct State {
    /// What the ways get.
    pub host: Arc<Host>,
    /// The ways in.
    pub ways: Vec<Arc<dyn Way>>,
    /// `[daemon]`.
    pub settings: Settings,
    /// Where copies go.
    pub quarantine: FileQuarantine,
    quarantine_config: QuarantineConfig,
    by_address: HashMap<SocketAddress, Arc<dyn Way>>,
}

/// What outlives a reload.
#[derive(Clone)]
pub struct Lasting {
    /// Kept connections.
    pub pool: Arc<Pool>,
    /// Turns true when the program is to end.
    pub drain: watch::Receiver<bool>,
}

impl Loaded {
    /// Reads the file and its drop-ins; everything that is wrong, at once. Touches nothing else than
    /// the files that the configuration names.
    pub fn read(path: &Path) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let document = Document::read(path, &mut problems);
        Self::from_document(document, problems)
    }

    /// The same from text.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let document = Document::parse(file, text, &mut problems);
        Self::from_document(document, problems)
    }

    fn from_document(mut document: Document, mut problems: Problems) -> Result<Self, Problems> {
        let settings = Settings::take(&mut document, &mut problems);
        let origins = Arc::new(Origins::take(&mut document, &mut problems));
        let lists = Lists::take(&mut document, &mut problems);
        let ways = ways::take(&mut document, &origins, &mut problems);
        let Filters { filters, unscanned, probes, openers } =
            filters::take(&mut document, settings.account.as_ref(), &mut problems);
        let way_names: Vec<&str> = ways.iter().map(|way| &**way.name()).collect();
        let names = Names { filters: &unscanned, ways: &way_names, lists: &lists };
        let policy = Policy::load(&mut document, &names, &mut problems);
        let quarantine = quarantine(&mut document, &settings, &mut problems);
        document.finish(&mut problems);
        problems.into_result()?;
        let abilities: Vec<_> = ways.iter().map(|way| (&**way.name(), way.abilities())).collect();
        let risks = policy.risks(&abilities).iter().map(ToString::to_string).collect();
        let engine = Arc::new(Engine::new(filters, policy, settings.unpacking));
        Ok(Self { settings, ways, engine, quarantine, probes, openers, risks, document })
    }

    /// Readies the filters: foreign code is loaded here, which [`Loaded::read`] only tried. To be called once, by a thread that may
    /// block, when the program has become the user whom it runs as. A filter that was not readied does not look.
    pub fn open(&mut self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        problems.extend(self.openers.drain(..).filter_map(|open| open().err()));
        problems.into_result()
    }
}

impl State {
    /// Opens what the configuration names, but for the listeners, and has the filters do their work in
    /// the background. A quarantine that did not change stays open. Must be called within the runtime.
    pub fn new(loaded: Loaded, lasting: &Lasting, old: Option<&Self>) -> anyhow::Result<Self> {
        let Loaded { settings, ways, engine, quarantine: quarantine_config, probes, .. } = loaded;
        let quarantine = match old {
            Some(old) if old.quarantine_config == quarantine_config => old.quarantine.clone(),
            _ => FileQuarantine::open(quarantine_config.clone())
                .with_context(|| format!("cannot use the quarantine {}", quarantine_config.directory.display()))?,
        };
        let connectors = Connectors::new()?;
        probes.into_iter().for_each(|probe| drop(tokio::spawn(probe)));
        let by_address = ways
            .iter()
            .flat_map(|way| way.listen().iter().map(|listen| (listen.address.clone(), Arc::clone(way))))
            .collect();
        let host = Host {
            engine,
            quarantine: Some(Arc::new(quarantine.clone())),
            spool: Arc::clone(&settings.spool),
            pool: Arc::clone(&lasting.pool),
            connectors,
            drain: lasting.drain.clone(),
        };
        Ok(Self { host: Arc::new(host), ways, settings, quarantine, quarantine_config, by_address })
    }

    /// The way that listens there.
    pub fn way_at(&self, address: &SocketAddress) -> Option<&Arc<dyn Way>> {
        self.by_address.get(address)
    }

    /// Where the ways listen.
    pub fn listens(&self) -> Vec<Listen> {
        self.ways.iter().flat_map(|way| way.listen().iter().cloned()).collect()
    }
}

/// Takes `[quarantine]`. Its directory is below the state's unless it says otherwise.
pub fn quarantine(document: &mut Document, settings: &Settings, problems: &mut Problems) -> QuarantineConfig {
    let usual = QuarantineConfig::below(&settings.state);
    let Some(item) = document.take_item("quarantine", problems) else { return usual };
    let elsewhere = item.has("directory");
    match item.finish::<QuarantineConfig>(problems) {
        Some(config) if elsewhere => config,
        Some(config) => QuarantineConfig { directory: usual.directory, ..config },
        None => usual,
    }
}
