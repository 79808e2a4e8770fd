//! Every filter, in one list. A new one is one line here and a module or crate of its own.

use std::pin::Pin;
use std::sync::Arc;

use checkpost_core::Filter;
use checkpost_core::config::{Document, Item, Problems};
use checkpost_core::filters::builtin::{Builtin, BuiltinConfig};
use checkpost_core::filters::clamd::{Clamd, ClamdConfig};
use checkpost_core::policy::WhenUnscanned;

/// Makes a filter of its section, if it has one; `None`: it is wrong, and the problems say so.
type Build = fn(Option<Item>, &mut Problems) -> Option<Built>;

/// Work to be done in the background once the filter is in force: asking for a version, say.
pub type Probe = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Built {
    filter: Arc<dyn Filter>,
    probe: Option<Probe>,
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
    /// In the order of [`KINDS`].
    pub filters: Vec<Arc<dyn Filter>>,
    /// By name, for the rules.
    pub unscanned: Vec<(Arc<str>, WhenUnscanned)>,
    /// To be spawned once.
    pub probes: Vec<Probe>,
}

/// Takes every `[filter.NAME]`; `enabled = false` turns one off.
pub fn take(document: &mut Document, problems: &mut Problems) -> Filters {
    let mut all = Filters { filters: Vec::new(), unscanned: Vec::new(), probes: Vec::new() };
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
            all.unscanned.push((known.name.into(), unscanned));
            all.filters.push(built.filter);
            all.probes.extend(built.probe);
        }
    }
    all
}

fn built_in(item: Option<Item>, problems: &mut Problems) -> Option<Built> {
    let config = match &item {
        Some(item) => item.clone().finish(problems)?,
        None => BuiltinConfig::default(),
    };
    match Builtin::new(config) {
        Ok(filter) => Some(Built { filter: Arc::new(filter), probe: None }),
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
            Some(Built { filter: Arc::new(filter), probe: Some(Box::pin(probe)) })
        }
        Err((key, message)) => {
            problems.push(item.problem(key, message));
            None
        }
    }
}
