//! The sections `[list.NAME]`: addresses kept in one place, in the file or beside it, for rules to
//! name as `@lists/NAME`.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::document::Document;
use super::glob;
use super::origins::Network;
use super::problem::{Place, Problem, Problems};
use super::read::{Located, OneOrMany};
use crate::mail::Address;

/// Addresses and patterns, compared without case. What fits:
/// `user@example.org` (with `*` and `?` as wildcards), `@example.org` for a whole domain,
/// `@*.example.org` for the domains below it, `""` for the null sender.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressSet {
    exact: HashSet<String>,
    domains: HashSet<String>,
    patterns: Vec<String>,
    domain_patterns: Vec<String>,
}

/// All named lists.
#[derive(Debug, Clone, Default)]
pub struct Lists(BTreeMap<String, Arc<List>>);

/// One list: addresses to compare senders and recipients with, networks for clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List {
    /// The addresses.
    pub addresses: AddressSet,
    /// The networks.
    pub networks: Vec<Network>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    addresses: OneOrMany<Located<String>>,
    #[serde(default)]
    networks: OneOrMany<Network>,
    file: Option<Located<PathBuf>>,
}

impl AddressSet {
    /// Takes one pattern in. The error says what is accepted.
    pub fn insert(&mut self, pattern: &str) -> Result<(), String> {
        let lower = pattern.to_ascii_lowercase();
        if lower.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>')) {
            return Err(format!(
                "not an address: {pattern:?}; accepted: \"user@example.org\", \"@example.org\", \"@*.example.org\", \
                 \"@lists/NAME\", \"\" for the null sender"
            ));
        }
        match lower.strip_prefix('@') {
            Some(domain) if glob::is_pattern(domain) => self.domain_patterns.push(domain.to_owned()),
            Some(domain) => {
                self.domains.insert(domain.to_owned());
            }
            None if glob::is_pattern(&lower) => self.patterns.push(lower),
            None => {
                self.exact.insert(lower);
            }
        }
        Ok(())
    }

    /// Is the address in it?
    pub fn contains(&self, address: &Address) -> bool {
        let (whole, domain) = (address.as_str(), address.domain());
        holds(&self.exact, whole)
            || (!domain.is_empty() && holds(&self.domains, domain))
            || self.patterns.iter().any(|pattern| glob::matches(pattern, whole))
            || (!domain.is_empty() && self.domain_patterns.iter().any(|pattern| glob::matches(pattern, domain)))
    }

    /// Is every pattern of this one in the other, too?
    pub fn is_subset(&self, other: &Self) -> bool {
        self.exact.is_subset(&other.exact)
            && self.domains.is_subset(&other.domains)
            && self.patterns.iter().all(|pattern| other.patterns.contains(pattern))
            && self.domain_patterns.iter().all(|pattern| other.domain_patterns.contains(pattern))
    }
}

/// Most addresses are lower case already and need no copy.
fn holds(set: &HashSet<String>, text: &str) -> bool {
    if set.is_empty() {
        false
    } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
        set.contains(&text.to_ascii_lowercase())
    } else {
        set.contains(text)
    }
}

impl Lists {
    /// Takes all sections `[list.NAME]` and reads their files (one entry a line, `#` begins a
    /// comment; a relative path starts in the folder of the configuration file). An entry of a file
    /// that is a network counts as one, all others are addresses.
    pub fn take(document: &mut Document, problems: &mut Problems) -> Self {
        let mut lists = BTreeMap::new();
        for name in document.names("list") {
            let path = format!("list.{name}");
            let written: Option<Written> = document.take_section(&path, problems);
            // A list that is wrong is still defined: rules that name it have no second problem.
            let mut list = List::default();
            if let Some(written) = written {
                for Located { value, place } in &written.addresses.0 {
                    if let Err(message) = list.addresses.insert(value) {
                        problems.push(Problem::at(place, format!("{path}.addresses"), message));
                    }
                }
                list.networks = written.networks.0;
                if let Some(file) = &written.file {
                    list.read_file(file, &format!("{path}.file"), problems);
                }
            }
            lists.insert(name, Arc::new(list));
        }
        Self(lists)
    }

    /// The list of this name.
    pub fn list(&self, name: &str) -> Option<&Arc<List>> {
        self.0.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl List {
    fn read_file(&mut self, file: &Located<PathBuf>, key: &str, problems: &mut Problems) {
        let path = file.place.resolve(&file.value);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(Problem::at(&file.place, key, format!("cannot read {}: {error}", path.display())));
                return;
            }
        };
        let name: Arc<std::path::Path> = Arc::from(path);
        for (number, line) in (1..).zip(text.lines()) {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if entry.is_empty() {
                continue;
            }
            if let Ok(network) = entry.parse() {
                self.networks.push(network);
            } else if let Err(message) = self.addresses.insert(entry) {
                let place = Place { file: Arc::clone(&name), line: number, column: 1 };
                problems.push(Problem::at(&place, key, message));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fit() {
        let mut set = AddressSet::default();
        for pattern in ["A@example.org", "@example.com", "@*.example.net", "news-*@example.info", ""] {
            set.insert(pattern).unwrap();
        }
        for (address, fits) in [
            ("a@example.org", true),
            ("a@EXAMPLE.org", true),
            ("b@example.org", false),
            ("x@Example.com", true),
            ("x@a.example.com", false),
            ("x@a.example.net", true),
            ("x@example.net", false),
            ("news-1@example.info", true),
            ("", true),
            ("postmaster", false),
        ] {
            assert_eq!(set.contains(&address.into()), fits, "{address}");
        }
        assert!(set.insert("a b@example.org").is_err());
    }

    #[test]
    fn lists_come_from_the_file_and_from_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("more"), "# ours\nb@example.org # second\n\n192.0.2.0/24\nbad one\n")
            .unwrap();
        let mut problems = Problems::default();
        let text = "[list.ours]\naddresses = 'a@example.org'\nfile = 'more'\n[list.gone]\nfile = 'gone'\n";
        let mut document = Document::parse(folder.path().join("x.toml"), text, &mut problems);
        let lists = Lists::take(&mut document, &mut problems);
        document.finish(&mut problems);
        let list = lists.list("ours").unwrap();
        assert!(list.addresses.contains(&"a@example.org".into()) && list.addresses.contains(&"b@example.org".into()));
        assert_eq!(list.networks.len(), 1);
        let text = problems.to_string().replace(&*folder.path().to_string_lossy(), "DIR");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("DIR/more:5:1: list.ours.file: not an address: \"bad one\""), "{text}");
        assert!(lines[1].starts_with("DIR/x.toml:5:8: list.gone.file: cannot read DIR/gone:"), "{text}");
    }
}
