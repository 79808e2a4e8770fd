//! `[filter.NAME]` with `kind = "library"`: a filter of somebody else's in a shared library.
//! What a library may be and say is the matter of `checkpost-filter-host`; here it is configured and becomes a `Filter`.
//!
//! It happens in two steps. When the configuration is read, a child process tries the library (`probe`), so one that
//! crashes or refuses its settings is a problem with file and line, and no code of it has run in here. When all is right and
//! the program has become the user that it runs as, it is loaded ([`Opener`]).

mod filter;
mod gate;
mod probe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use checkpost_core::config::{Item, Located, Problem, Problems, Time};
use checkpost_filter_host::{CreateError, Library, LoadError};
use serde::Deserialize;
use serde_json::Value;

use self::filter::LibraryFilter;
use super::{Built, Opener};
use crate::privileges::Account;

pub use self::probe::probe_main;

/// Calls at once. As many as clamd is asked at once by default.
const THREADS: usize = 10;
const MOST_THREADS: usize = 256;

const ACCEPTED: &str =
    "accepted: a library made with checkpost_filter.h that only root and the user of the daemon can write";

/// `[filter.NAME]` as written, without what all filters have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The library: an absolute path without symbolic links.
    path: Located<PathBuf>,
    /// The library's own. Default: none.
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    /// `check` runs so many times at once; more mails wait. Default 10.
    threads: Option<Located<usize>>,
    /// How long loading and taking the settings may last when they are tried. Default 30s.
    start_time: Option<Time>,
}

/// What makes an instance.
#[derive(Debug, Clone)]
struct Config {
    name: Arc<str>,
    path: PathBuf,
    settings: Vec<(String, String)>,
    threads: usize,
    start_time: Duration,
}

/// Which key is wrong, and why.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Trouble {
    with_settings: bool,
    message: String,
}

/// Makes the filter of its section. One that is not enabled is read, and its library is left alone.
pub(super) fn build(
    name: &str,
    item: &Item,
    enabled: bool,
    account: Option<&(String, Account)>,
    problems: &mut Problems,
) -> Option<Built> {
    let before = problems.len();
    let written: Written = item.clone().finish(problems)?;
    let config = Config {
        name: name.into(),
        path: written.path.value,
        settings: flattened(&written.settings, item, problems),
        threads: written.threads.as_ref().map_or(THREADS, |threads| threads.value),
        start_time: written.start_time.unwrap_or(Time::seconds(30)).duration(),
    };
    if let Some(threads) = written.threads.filter(|threads| !(1..=MOST_THREADS).contains(&threads.value)) {
        let problem = Problem::at(&threads.place, format!("{}.threads", item.path()), "that many threads cannot be");
        problems.push(problem.hint(format!("accepted: 1 to {MOST_THREADS}")));
    }
    if problems.len() > before {
        return None;
    }
    let problem = {
        let (path, item) = (config.path.clone(), item.clone());
        move |trouble: Trouble| trouble.problem(&path, &item)
    };
    if enabled && let Err(trouble) = probe::probe(&config, account) {
        problems.push(problem(trouble));
        return None;
    }
    let filter = LibraryFilter::new(&config);
    let opened = filter.clone();
    let opener: Opener = Box::new(move || opened.open(&config).map_err(problem));
    Some(Built { filter: Arc::new(filter), probe: None, opener: Some(opener) })
}

impl Trouble {
    fn problem(&self, path: &Path, item: &Item) -> Problem {
        if self.with_settings {
            return item.problem("settings", format!("the library {path:?} says: {}", self.message));
        }
        item.problem("path", format!("cannot use the library {path:?}: {}", self.message)).hint(ACCEPTED)
    }
}

impl From<LoadError> for Trouble {
    fn from(error: LoadError) -> Self {
        Self { with_settings: false, message: error.to_string() }
    }
}

impl From<CreateError> for Trouble {
    fn from(error: CreateError) -> Self {
        Self { with_settings: true, message: error.to_string() }
    }
}

/// The table `settings` as the contract has it: keys and texts, lists one by one, tables within with dots.
fn flattened(settings: &BTreeMap<String, Value>, item: &Item, problems: &mut Problems) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (key, value) in settings {
        if let Err((key, message)) = flatten(key, key, value, &mut all) {
            problems.push(item.problem("settings", format!("{key}: {message}")));
        }
    }
    all
}

fn flatten(
    key: &str,
    full: &str,
    value: &Value,
    all: &mut Vec<(String, String)>,
) -> Result<(), (String, &'static str)> {
    // A dot in a key would look like a table's.
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err((full.to_owned(), "keys for a library are of letters, digits, \"-\" and \"_\""));
    }
    let text = |value: &Value| match value {
        Value::String(text) if text.contains('\0') => Err((full.to_owned(), "it has a NUL octet")),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(is) => Ok(is.to_string()),
        // TOML has no null, and of numbers only finite ones were read.
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err((full.to_owned(), "a list for a library has only strings, numbers, true and false"))
        }
    };
    match value {
        Value::Object(table) => {
            table.iter().try_for_each(|(key, value)| flatten(key, &format!("{full}.{key}"), value, all))
        }
        Value::Array(items) => items.iter().try_for_each(|item| {
            all.push((full.to_owned(), text(item)?));
            Ok(())
        }),
        scalar => {
            all.push((full.to_owned(), text(scalar)?));
            Ok(())
        }
    }
}

/// Loads the library, or finds it loaded, and has it make an instance. Both block.
fn create(config: &Config) -> Result<checkpost_filter_host::Instance, Trouble> {
    let library = Library::load(&config.path)?;
    Ok(library.create(&config.settings, &filter::log(&config.name, ""))?)
}

#[cfg(test)]
mod tests {
    use checkpost_core::config::Document;

    use super::*;

    fn read(text: &str) -> (Option<Vec<(String, String)>>, String) {
        let mut problems = Problems::default();
        let mut document = Document::parse("x.toml", text, &mut problems);
        let item = document.take_item("filter.x", &mut problems).unwrap();
        let written: Option<Written> = item.clone().finish(&mut problems);
        let settings = written.map(|written| flattened(&written.settings, &item, &mut problems));
        if let Some(built) = build("x", &item, false, None, &mut Problems::default()) {
            assert!(built.opener.is_some());
        }
        (settings, problems.to_string())
    }

    #[test]
    fn settings_become_keys_and_texts() {
        let (settings, problems) = read(
            "[filter.x]\npath = '/x.so'\n\
             settings = { s = 'a b', i = -1, f = 2.5, b = true, l = ['x', 2], none = [], t = { u = { v = 'w' } } }\n",
        );
        assert_eq!(problems, "");
        let settings = settings.unwrap();
        let expected = [("b", "true"), ("f", "2.5"), ("i", "-1"), ("l", "x"), ("l", "2"), ("s", "a b"), ("t.u.v", "w")];
        let settings: Vec<_> = settings.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(settings, expected);
    }

    #[test]
    fn what_cannot_be_passed_is_a_problem() {
        let check = |settings: &str, expected: &str| {
            let (_, problems) = read(&format!("[filter.x]\npath = '/x.so'\nsettings = {settings}\n"));
            assert!(problems.starts_with("x.toml:3:12: filter.x.settings: "), "{problems}");
            assert!(problems.contains(expected), "{problems}");
        };
        check("{ a = [[1]] }", "a: a list for a library has only");
        check("{ a = [{ b = 1 }] }", "a: a list for a library has only");
        check("{ t = { 'a.b' = 1 } }", "t.a.b: keys for a library are of");
        check("{ a = \"\\u0000\" }", "a: it has a NUL octet");
        let (_, problems) = read("[filter.x]\npath = '/x.so'\nsettings = { a = nan }\n");
        assert_eq!(problems, "x.toml:3:18: filter.x.settings.a: not a finite number");
    }

    #[test]
    fn its_keys_are_checked() {
        let mut problems = Problems::default();
        let text = "[filter.x]\npath = '/x.so'\nthreads = 0\n";
        let mut document = Document::parse("x.toml", text, &mut problems);
        let item = document.take_item("filter.x", &mut problems).unwrap();
        assert!(build("x", &item, true, None, &mut problems).is_none());
        assert_eq!(
            problems.to_string(),
            "x.toml:3:11: filter.x.threads: that many threads cannot be; accepted: 1 to 256"
        );
        let (_, problems) = read("[filter.x]\nsettngs = {}\n");
        assert!(problems.contains("the key \"path\" is missing"), "{problems}");
        assert!(problems.contains("did you mean \"settings\"?"), "{problems}");
    }
}
