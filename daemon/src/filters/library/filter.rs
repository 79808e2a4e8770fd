//! A library's instance as a `Filter`: from the engine's types to the host's and back, and the blocking call on a thread.
//! It reads no configuration.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use checkpost_core::finding::Unscanned;
use checkpost_core::{About, Content, Context, Filter, FilterError, Finding, Kind, Mail};
use checkpost_filter_host::{Answer, Call, Failure, Found, Identity, Instance, Level, Origin};

use super::gate::{Gate, Working};
use super::{Config, Trouble};

/// The filter. Cheap to clone; clones share the instance.
#[derive(Clone)]
pub(super) struct LibraryFilter(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    opened: OnceLock<Opened>,
}

struct Opened {
    about: Arc<About>,
    gate: Arc<Gate>,
    /// `None` only while this is dropped.
    instance: Option<Arc<Instance>>,
}

impl LibraryFilter {
    /// It looks at nothing before [`LibraryFilter::open`].
    pub(super) fn new(config: &Config) -> Self {
        Self(Arc::new(Inner { name: Arc::clone(&config.name), opened: OnceLock::new() }))
    }

    /// Loads the library and makes the instance. Blocks.
    pub(super) fn open(&self, config: &Config) -> Result<(), Trouble> {
        let instance = super::create(config)?;
        let library = instance.library();
        let about = About {
            name: Arc::clone(&config.name),
            version: Some(match library.version() {
                Some(version) => format!("{} {version}", library.name()),
                None => library.name().to_owned(),
            }),
            data_version: None,
            finds: library.finds(),
        };
        let gate = gate(library.identity(), &config.name, config.threads);
        // Nobody opens twice; if somebody did, the first would stay.
        let _ = self.0.opened.set(Opened { about: Arc::new(about), gate, instance: Some(Arc::new(instance)) });
        Ok(())
    }
}

/// The gate outlives a reload: threads that are held before it are held after it.
fn gate(library: Identity, name: &Arc<str>, threads: usize) -> Arc<Gate> {
    type Gates = HashMap<(Identity, Arc<str>, usize), Arc<Gate>>;
    static GATES: Mutex<Option<Gates>> = Mutex::new(None);
    let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
    let gates = gates.get_or_insert_default();
    Arc::clone(gates.entry((library, Arc::clone(name), threads)).or_insert_with(|| Arc::new(Gate::new(threads))))
}

#[async_trait]
impl Filter for LibraryFilter {
    fn about(&self) -> Arc<About> {
        match self.0.opened.get() {
            Some(opened) => Arc::clone(&opened.about),
            None => Arc::new(About {
                name: Arc::clone(&self.0.name),
                version: None,
                data_version: None,
                finds: &["unscanned"],
            }),
        }
    }

    async fn check(&self, mail: &Mail, context: &Context) -> Result<Vec<Finding>, FilterError> {
        let name = &self.0.name;
        let start = Instant::now();
        let opened = self.0.opened.get().and_then(|opened| Some((&opened.gate, opened.instance.as_ref()?)));
        let Some((gate, instance)) = opened else {
            return Err(FilterError::new(Unscanned::LocalError, "its library is not loaded"));
        };
        // A little before the engine's own deadline: the reason told here is the better one.
        let left = context.left();
        let deadline = start + left.saturating_sub(Duration::from_millis(50).min(left / 10));
        let entered = gate.enter(deadline).await;
        let (waiting, working) = entered.map_err(|why| FilterError::new(Unscanned::Busy, why))?;
        let (instance, name_there, mail_there) = (Arc::clone(instance), Arc::clone(name), mail.clone());
        let called = tokio::task::spawn_blocking(move || call(&instance, &name_there, &mail_there, deadline, &working));
        // When the engine's deadline passes, this is dropped here, and `waiting` with it.
        let answer = called.await;
        drop(waiting);
        let answer = answer.map_err(|panic| FilterError::new(Unscanned::Panicked, panic.to_string()))?;
        Ok(findings(answer, name, mail, start.elapsed()))
    }
}

/// On a thread of its own. When it ends, perhaps nobody waits for it any more.
fn call(instance: &Instance, name: &Arc<str>, mail: &Mail, deadline: Instant, working: &Working) -> Answer {
    let origin = &mail.origin;
    let client = origin.client.map(|client| client.to_string());
    let recipients: Vec<&str> = mail.envelope.recipients.iter().map(checkpost_core::Address::as_str).collect();
    instance.check(&Call {
        id: mail.id.as_str(),
        sender: mail.envelope.sender.as_str(),
        recipients: &recipients,
        origin: Origin {
            way: &origin.way,
            class: origin.class.as_str(),
            client: client.as_deref(),
            client_name: origin.client_name.as_deref(),
            helo: origin.helo.as_deref(),
            user: origin.user.as_deref(),
            queue_id: origin.queue_id.as_deref(),
            tls: origin.tls,
        },
        content: &Octets(&mail.content),
        deadline,
        cancelled: working.abandoned(),
        log: &log(name, mail.id.as_str()),
    })
}

/// What the library reported, and an unscanned finding for everything that kept it from a complete look.
fn findings(answer: Answer, name: &Arc<str>, mail: &Mail, after: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = answer.findings.into_iter().map(|found| finding(found, name)).collect();
    for (failure, text) in answer.failures {
        let reason = reason(failure);
        tracing::warn!(mail = %mail.id, filter = %name, reason = reason.as_str(), detail = text, "filter did not look");
        findings.push(Finding::unscanned(name, reason, after, &text));
    }
    findings
}

fn finding(found: Found, name: &Arc<str>) -> Finding {
    use checkpost_filter_host::Kind as Reported;
    let kind = match found.kind {
        Reported::Malware => Kind::Malware,
        Reported::Phishing => Kind::Phishing,
        Reported::Spam => Kind::Spam { score: found.score },
        Reported::Policy => Kind::Policy,
        Reported::Encrypted => Kind::Encrypted,
        Reported::Limit => Kind::Limit,
        Reported::Auth => Kind::Auth,
    };
    let mut finding = Finding::new(kind, name, &found.name);
    if let Some(class) = &found.class {
        finding = finding.with_class(class);
    }
    finding.part = found.part.map(Into::into);
    finding.detail = found.detail.map(Into::into);
    finding
}

fn reason(failure: Failure) -> Unscanned {
    match failure {
        Failure::Error => Unscanned::ScannerError,
        Failure::TooLarge => Unscanned::TooLarge,
        Failure::Unreadable => Unscanned::Unreadable,
        Failure::Timeout => Unscanned::Timeout,
        Failure::Busy => Unscanned::Busy,
        Failure::ReadError => Unscanned::LocalError,
        Failure::Panicked => Unscanned::Panicked,
        // Garbage, and whatever the contract may learn to say.
        _ => Unscanned::UnknownAnswer,
    }
}

/// The library's log lines, in ours.
pub(super) fn log(filter: &str, mail: &str) -> impl Fn(Level, &str) + Sync {
    move |level, text| match level {
        Level::Error => tracing::error!(filter, mail, text, "a library says"),
        Level::Warn => tracing::warn!(filter, mail, text, "a library says"),
        Level::Info => tracing::info!(filter, mail, text, "a library says"),
        Level::Debug => tracing::debug!(filter, mail, text, "a library says"),
    }
}

struct Octets<'a>(&'a Content);

impl checkpost_filter_host::Content for Octets<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn as_slice(&self) -> Option<&[u8]> {
        self.0.as_slice()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// Ending an instance calls the library, which may block; whoever drops a state is a task of the runtime.
impl Drop for Opened {
    fn drop(&mut self) {
        let instance = self.instance.take();
        let thread = std::thread::Builder::new().name("filter-end".to_owned());
        if let Err(error) = thread.spawn(move || drop(instance)) {
            tracing::warn!(%error, "no thread to end a filter's instance in; it was ended in place");
        }
    }
}
