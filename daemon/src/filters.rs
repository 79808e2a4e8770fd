//! Every filter, in one list. A new one is one line here and a module or crate of its own. Those that are not ours are
//! shared libraries, of which any number may be configured, each with a name of its own.

mod library;

use std::pin::Pin;
use std::sync::Arc;

use checkpost_core::Filter;
use checkpost_core::config::{Document, Item, Problem, Problems};
use checkpost_core::filters::builtin::{Builtin, BuiltinConfig};
use checkpost_core::filters::clamd::{Clamd, ClamdConfig};
use checkpost_core::policy::WhenUnscanned;

use crate::privileges::Account;

pub use self::library::probe_main;

/// Makes a filter of its section, if it has one; `None`: it is wrong, and the problems say so.
type Build = fn(Option<Item>, &mut Problems) -> Option<Built>;

/// Work to be done in the background once the filter is in force: asking for a version, say.
pub type Probe = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that must be done before the filter looks at mail, and as the user whom the program runs as: loading code, say. It
/// blocks.
pub type Opener = Box<dyn FnOnce() -> Result<(), Problem> + Send>;

struct Built {
    filter: Arc<dyn Filter>,
    probe: Option<Probe>,
    opener: Option<Opener>,
}

/// A filter that can be configured as `[filter.NAME]`.
pub struct FilterKind {
    /// Its name.
    pub name: &'static str,
    /// One line for administrators.
    pub about: &'static str,
    /// Is it on without a section of its own?
    pub by_default: bool,
    /// How one is made.
    build: Build,
}

/// All of them, in the order in which they are asked and shown.
pub static KINDS: &[FilterKind] = &[
    FilterKind {
        name: "built-in",
        about: "test strings (EICAR, GTUBE) and attachments by name and real type, archives included",
        by_default: true,
        build: built_in,
    },
    FilterKind { name: "clamd", about: "viruses, by ClamAV's daemon", by_default: false, build: clamd },
];

/// The filters that are on, each with what becomes of mail it did not scan.
pub struct Filters {
    /// In the order of [`KINDS`], then the libraries as written.
    pub filters: Vec<Arc<dyn Filter>>,
    /// By name, for the rules.
    pub unscanned: Vec<(Arc<str>, WhenUnscanned)>,
    /// To be spawned once.
    pub probes: Vec<Probe>,
    /// To be called once, before the filters are asked.
    pub openers: Vec<Opener>,
}

impl Filters {
    fn add(&mut self, name: &str, unscanned: WhenUnscanned, built: Built) {
        self.unscanned.push((name.into(), unscanned));
        self.filters.push(built.filter);
        self.probes.extend(built.probe);
        self.openers.extend(built.opener);
    }
}

/// Takes every `[filter.NAME]`; `enabled = false` turns one off. The account is whom the program will run as.
pub fn take(document: &mut Document, account: Option<&(String, Account)>, problems: &mut Problems) -> Filters {
    let mut all = Filters { filters: Vec::new(), unscanned: Vec::new(), probes: Vec::new(), openers: Vec::new() };
    for known in KINDS {
        let mut item = document.take_item(&format!("filter.{}", known.name), problems);
        let (mut enabled, mut unscanned) = (known.by_default, WhenUnscanned::default());
        if let Some(item) = &mut item {
            enabled = item.take_key("enabled", problems).unwrap_or(true);
            unscanned = item.take_key("when_unscanned", problems).unwrap_or_default();
        }
        // One that is off is read all the same: a mistake in it would show when it is turned on.
        if (item.is_some() || enabled)
            && let Some(built) = (known.build)(item, problems)
            && enabled
        {
            all.add(known.name, unscanned, built);
        }
    }
    for name in document.names("filter") {
        if KINDS.iter().all(|known| known.name != name) {
            take_library(&name, document, account, &mut all, problems);
        }
    }
    all
}

/// A filter with a name of the administrator's, which must be a library.
fn take_library(
    name: &str,
    document: &mut Document,
    account: Option<&(String, Account)>,
    all: &mut Filters,
    problems: &mut Problems,
) {
    let path = format!("filter.{name}");
    // Neither: a name that is mistyped, which the document tells best.
    if !document.has(&format!("{path}.kind")) && !document.has(&format!("{path}.path")) {
        return;
    }
    let Some(mut item) = document.take_item(&path, problems) else { return };
    let whole = item.clone();
    if name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        let problem = item.problem("", format!("not a name for a filter: {name:?}"));
        problems.push(problem.hint("accepted: up to 64 letters, digits, \"-\" and \"_\""));
        return;
    }
    let kind: Option<String> = item.need_key("kind", problems);
    let enabled = item.take_key("enabled", problems).unwrap_or(true);
    let unscanned = item.take_key("when_unscanned", problems).unwrap_or_default();
    match kind.as_deref() {
        None => {}
        Some("library") => {
            if let Some(built) = library::build(name, &item, enabled, account, problems)
                && enabled
            {
                all.add(name, unscanned, built);
            }
        }
        Some(other) => {
            let known: Vec<&str> = KINDS.iter().map(|known| known.name).collect();
            let hint = format!("accepted: library; or, without kind, [filter.NAME] with one of {}", known.join(", "));
            problems.push(whole.problem("kind", format!("unknown kind of filter {other:?}")).hint(hint));
        }
    }
}

fn built_in(item: Option<Item>, problems: &mut Problems) -> Option<Built> {
    let config = match &item {
        Some(item) => item.clone().finish(problems)?,
        None => BuiltinConfig::default(),
    };
    match Builtin::new(config) {
        Ok(filter) => Some(Built { filter: Arc::new(filter), probe: None, opener: None }),
        Err(error) => {
            if let Some(item) = item {
                problems.push(item.problem("attachment", error.to_string()));
            }
            None
        }
    }
}

fn clamd(item: Option<Item>, problems: &mut Problems) -> Option<Built> {
    let item = item?;
    let config: ClamdConfig = item.clone().finish(problems)?;
    match Clamd::new("clamd", config) {
        Ok(filter) => {
            let asked = filter.clone();
            let probe = async move {
                if let Err(error) = asked.refresh_version().await {
                    tracing::warn!(filter = "clamd", %error, "its version is not known yet");
                }
            };
            Some(Built { filter: Arc::new(filter), probe: Some(Box::pin(probe)), opener: None })
        }
        Err((key, message)) => {
            problems.push(item.problem(key, message));
            None
        }
    }
}
