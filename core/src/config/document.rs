//! The merged files, from which each part of the program takes its own section; what nobody took
//! is a problem.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::problem::{Place, Problem, Problems};
use super::read::{self, Located};
use super::tree::{self, Node, Table, Value};

/// All files of a configuration, merged. It stays whole: taking a section marks it as known.
#[derive(Debug, Clone)]
pub struct Document {
    pub(super) root: Table,
    files: Vec<PathBuf>,
    /// Full names of the sections that were asked for, there or not.
    known: BTreeSet<String>,
}

/// One table of a list such as `[[way]]`, or one section, to be read in steps: first the keys that
/// say what it is, then the rest by whoever knows that kind.
#[derive(Debug, Clone)]
pub struct Item {
    node: Node,
    path: String,
    taken: Vec<String>,
}

impl Document {
    /// Reads `path` and the `*.toml` of the folder `conf.d` beside it, in the order of their names.
    /// A file that cannot be read is a problem, a missing folder is none. Nothing is left out
    /// without a problem saying so.
    pub fn read(path: &Path, problems: &mut Problems) -> Self {
        let mut paths = vec![path.to_owned()];
        let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
        match drop_ins(&folder) {
            Ok(more) => paths.extend(more),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => problems.push(unreadable(&folder, &error)),
        }
        let mut document = Self { root: Table::default(), files: Vec::new(), known: BTreeSet::new() };
        for path in paths {
            match std::fs::read_to_string(&path) {
                Ok(text) => document.add(&path, &text, problems),
                Err(error) => problems.push(unreadable(&path, &error)),
            }
        }
        document
    }

    /// Reads a text as if it were this file.
    pub fn parse(file: impl AsRef<Path>, text: &str, problems: &mut Problems) -> Self {
        let mut document = Self { root: Table::default(), files: Vec::new(), known: BTreeSet::new() };
        document.add(file.as_ref(), text, problems);
        document
    }

    /// Merges one more file in: lists append, a key may be set once.
    pub fn add(&mut self, file: &Path, text: &str, problems: &mut Problems) {
        let table = tree::parse(&Arc::from(file), text, problems);
        self.root.merge(table, "", problems);
        self.files.push(file.to_owned());
    }

    /// The files read, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Is there such a section, list or key?
    pub fn has(&self, path: &str) -> bool {
        self.node(path).is_some()
    }

    /// The names of the tables under a section, in the order written: `["clamd", "rspamd"]` for
    /// `[filter.clamd]` and `[filter.rspamd]`. Empty when there is no such section.
    pub fn names(&self, path: &str) -> Vec<String> {
        match self.node(path).map(|node| &node.value) {
            Some(Value::Table(table)) => table.0.iter().map(|entry| entry.key.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Takes a section such as `filter.clamd`: `None` when it is absent, and when it is wrong,
    /// which `problems` then says.
    pub fn take_section<T: DeserializeOwned>(&mut self, path: &str, problems: &mut Problems) -> Option<T> {
        self.take_item(path, problems)?.finish(problems)
    }

    /// Like [`Document::take_section`], the default when the section is absent or wrong.
    pub fn take_section_or_default<T: DeserializeOwned + Default>(&mut self, path: &str, problems: &mut Problems) -> T {
        self.take_section(path, problems).unwrap_or_default()
    }

    /// Takes a section to read it in steps.
    pub fn take_item(&mut self, path: &str, problems: &mut Problems) -> Option<Item> {
        self.known.insert(path.to_owned());
        let node = self.node(path)?;
        if !matches!(node.value, Value::Table(_)) {
            let message = format!("{} where a table is wanted", node.value.type_name());
            problems.push(Problem::at(&node.place, path, message).hint(format!("accepted: [{path}]")));
            return None;
        }
        Some(Item { node: node.clone(), path: path.to_owned(), taken: Vec::new() })
    }

    /// Takes a list of tables such as `[[rule]]`. Items that are wrong are left out, and `problems`
    /// says so.
    pub fn take_list<T: DeserializeOwned>(&mut self, path: &str, problems: &mut Problems) -> Vec<Located<T>> {
        self.take_items(path, problems)
            .into_iter()
            .filter_map(|item| Some(Located { place: item.place().clone(), value: item.finish(problems)? }))
            .collect()
    }

    /// Takes a list of tables to read each in steps.
    pub fn take_items(&mut self, path: &str, problems: &mut Problems) -> Vec<Item> {
        self.known.insert(path.to_owned());
        let Some(node) = self.node(path) else { return Vec::new() };
        let Value::Array(nodes) = &node.value else {
            let message = format!("{} where a list of tables is wanted", node.value.type_name());
            problems.push(Problem::at(&node.place, path, message).hint(format!("accepted: [[{path}]]")));
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if matches!(node.value, Value::Table(_)) {
                items.push(Item { node: node.clone(), path, taken: Vec::new() });
            } else {
                let message = format!("{} where a table is wanted", node.value.type_name());
                problems.push(Problem::at(&node.place, path, message));
            }
        }
        items
    }

    /// Reports every section and key that nobody took.
    pub fn finish(&self, problems: &mut Problems) {
        self.unknown(&self.root, "", problems);
    }

    fn unknown(&self, table: &Table, path: &str, problems: &mut Problems) {
        for entry in &table.0 {
            let full = tree::join(path, &entry.key);
            if self.known.contains(&full) {
                continue;
            }
            let within = format!("{full}.");
            match &entry.node.value {
                Value::Table(table) if self.known.iter().any(|known| known.starts_with(&within)) => {
                    self.unknown(table, &full, problems);
                }
                _ => {
                    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
                    let siblings: BTreeSet<&str> =
                        self.known.iter().filter_map(|known| known.strip_prefix(&prefix)?.split('.').next()).collect();
                    problems.push(Problem::unknown_name(&entry.place, full, "section", &entry.key, siblings));
                }
            }
        }
    }

    fn node(&self, path: &str) -> Option<&Node> {
        let mut table = &self.root;
        let mut steps = path.split('.').peekable();
        loop {
            let entry = table.entry(steps.next()?)?;
            if steps.peek().is_none() {
                return Some(&entry.node);
            }
            let Value::Table(next) = &entry.node.value else { return None };
            table = next;
        }
    }
}

impl Item {
    /// Where it begins.
    pub fn place(&self) -> &Place {
        &self.node.place
    }

    /// Its full name: `way[0]`, `filter.clamd`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A text in it, which stays there.
    pub fn peek(&self, key: &str) -> Option<&str> {
        match &self.table()?.entry(key)?.node.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Is there such a key?
    pub fn has(&self, key: &str) -> bool {
        self.table().is_some_and(|table| table.entry(key).is_some())
    }

    /// Takes one key out: `None` when it is absent, or wrong and `problems` says so. Whoever
    /// reads the rest sees a table without it.
    pub fn take_key<T: DeserializeOwned>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        self.taken.push(key.to_owned());
        let Value::Table(table) = &mut self.node.value else { return None };
        let entry = table.remove(key)?;
        let before = problems.len();
        let value = read::read(&entry.node, &tree::join(&self.path, key), &[], problems);
        value.filter(|_| problems.len() == before)
    }

    /// Like [`Item::take_key`]; that it is absent is a problem, too.
    pub fn need_key<T: DeserializeOwned>(&mut self, key: &str, problems: &mut Problems) -> Option<T> {
        if !self.has(key) {
            problems.push(self.problem("", format!("the key \"{key}\" is missing")));
        }
        self.take_key(key, problems)
    }

    /// Reads all keys that were not taken.
    pub fn finish<T: DeserializeOwned>(self, problems: &mut Problems) -> Option<T> {
        let before = problems.len();
        self.finish_partly(problems).filter(|_| problems.len() == before)
    }

    /// Like [`Item::finish`]; keys that were wrong are left out, so that checks of the others can
    /// go on. Only whoever finds no new problem may use the value.
    pub(crate) fn finish_partly<T: DeserializeOwned>(self, problems: &mut Problems) -> Option<T> {
        let also: Vec<&str> = self.taken.iter().map(String::as_str).collect();
        read::read(&self.node, &self.path, &also, problems)
    }

    /// A problem with one of its keys, at that key's value; at the item itself when the key is
    /// empty, not there, or taken.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let place = self.table().and_then(|table| table.entry(key)).map_or(&self.node.place, |entry| &entry.node.place);
        let path = if key.is_empty() { self.path.clone() } else { tree::join(&self.path, key) };
        Problem::at(place, path, message)
    }

    fn table(&self) -> Option<&Table> {
        match &self.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }
}

fn drop_ins(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let reason =
        if error.kind() == std::io::ErrorKind::InvalidData { "not UTF-8 text".into() } else { error.to_string() };
    Problem::general("", format!("cannot read {}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{OneOrMany, Size, Time};
    use crate::mail::OriginClass;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "what is read is compared as a whole")]
    struct Scanner {
        address: String,
        #[serde(default)]
        limit: Size,
        #[serde(default)]
        patience: Option<Time>,
        #[serde(default)]
        origins: OneOrMany<OriginClass>,
    }

    fn all(files: &[(&str, &str)]) -> (Option<Scanner>, Vec<Located<Scanner>>, String) {
        let mut problems = Problems::default();
        let mut document = Document::parse(files[0].0, files[0].1, &mut problems);
        for (file, text) in &files[1..] {
            document.add(Path::new(file), text, &mut problems);
        }
        let one = document.take_section("filter.a", &mut problems);
        let list = document.take_list("way", &mut problems);
        document.finish(&mut problems);
        (one, list, problems.to_string())
    }

    #[test]
    fn files_are_merged() {
        let (one, list, problems) = all(&[
            ("a", "[filter.a]\naddress = 'x'\norigins = 'inbound'\n[[way]]\naddress = '1'\n"),
            ("b", "[filter.a]\nlimit = '1 KiB'\n[[way]]\naddress = '2'\norigins = ['inbound', 'internal']"),
        ]);
        assert_eq!(problems, "");
        assert_eq!(one.unwrap().limit, Size::kibibytes(1));
        assert_eq!(list.iter().map(|w| &*w.value.address).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(list[1].place.to_string(), "b:3:1");
        assert_eq!(list[1].value.origins.0, [OriginClass::Inbound, OriginClass::Internal]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let (one, list, problems) = all(&[
            ("a", "[filter.a]\nadress = 'x'\nlimit = 10\npatience = '5 sec'\norigins = ['inbond']\n\n[filtr]\n"),
            ("b", "[filter.a]\nlimit = '1 KiB'\n\n[[way]]\naddress = 5\nx = 1\n[[way]]\n[[way]]\naddress = 'y'\n"),
            ("c", "a = \n[way]\n"),
        ]);
        assert!(one.is_none());
        assert_eq!(list.len(), 1);
        let golden = r#"a:1:1: filter.a: the key "address" is missing
a:2:1: filter.a.adress: unknown key; did you mean "address"? accepted: address, limit, patience, origins
a:3:9: filter.a.limit: integer `10` where a whole number with a unit: B, KiB, MiB, GiB or TiB, as in "10 MiB" is wanted
a:4:12: filter.a.patience: not a time: "5 sec"; accepted: a whole number with a unit: ms, s, m, h or d, as in "30s"
a:5:12: filter.a.origins[0]: unknown origins "inbond"; did you mean "inbound"? accepted: inbound, submission, internal
a:7:2: filtr: unknown section "filtr"; did you mean "filter"? accepted: filter, way
b:2:1: filter.a.limit: set a second time; the first is at a:3:1; a key may be set once, lists append
b:5:11: way[0].address: integer `5` where a string is wanted
b:6:1: way[0].x: unknown key; accepted: address, limit, patience, origins
b:7:1: way[1]: the key "address" is missing
c:1:1: a: unknown section "a"; accepted: filter, way
c:1:5: not valid TOML: string values must be quoted, expected literal string
c:2:2: way: set a second time; the first is at b:4:3; a key may be set once, lists append"#;
        assert_eq!(problems, golden);
    }

    #[test]
    fn it_reads_its_own_rendering() {
        let text =
            "a = \"x\\ny\\u007f\"\n[filter.a]\naddress = 'x'\npassword = 'x'\n[[way]]\nt = { 'b c' = [1, 2.0] }\n";
        let mut problems = Problems::default();
        let document = Document::parse("f", text, &mut problems);
        let shown = document.render(true);
        assert_eq!(
            shown,
            "a = \"x\\u000Ay\\u007F\"  # f:1\n\n[filter.a]  # f:2\naddress = \"x\"  # f:3\npassword = \"***\"  # f:4\n\n\
             [[way]]  # f:5\nt = { \"b c\" = [1, 2.0] }  # f:6\n"
        );
        let again = Document::parse("f", &shown, &mut problems);
        assert_eq!(again.render(false), document.render(false));
        assert_eq!(problems.to_string(), "");
    }

    #[test]
    fn drop_ins_follow_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("checkpost.toml");
        std::fs::create_dir(folder.path().join("conf.d")).unwrap();
        for (name, text) in [("20.toml", "l = [3]"), ("10.toml", "l = [2]"), ("note.txt", "="), (".x.toml", "=")] {
            std::fs::write(folder.path().join("conf.d").join(name), text).unwrap();
        }
        let mut problems = Problems::default();
        Document::read(&main, &mut problems);
        assert!(problems.to_string().starts_with("cannot read "), "{problems}");
        std::fs::write(&main, "l = [1]").unwrap();
        let mut problems = Problems::default();
        let document = Document::read(&main, &mut problems);
        assert_eq!((document.render(false).as_str(), problems.len()), ("l = [1, 2, 3]\n", 0));
        assert_eq!(document.files().len(), 3);
    }

    #[test]
    fn an_item_is_read_in_steps() {
        let mut problems = Problems::default();
        let text = "[[way]]\nkind = 'scanner'\naddress = 'x'\nknd = 1\n";
        let mut item = Document::parse("f", text, &mut problems).take_items("way", &mut problems).remove(0);
        assert_eq!(item.peek("kind"), Some("scanner"));
        let kind: Option<String> = item.need_key("kind", &mut problems);
        assert_eq!(kind.as_deref(), Some("scanner"));
        assert!(item.finish::<Scanner>(&mut problems).is_none());
        assert_eq!(
            problems.to_string(),
            "f:4:1: way[0].knd: unknown key; did you mean \"kind\"? accepted: kind, address, limit, patience, origins"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in r#"(\[{0,2}(way|filter\.a|list\.x|"")\]{0,2}\n|(address|origins|limit|x\.y) = ('a'|1|\[\]|\{\}|\["inbound", 1\]|"é)\n|.{0,20}){0,12}"#) {
            let (_, _, problems) = all(&[("f", &text), ("g", &text)]);
            drop(problems);
            let mut problems = Problems::default();
            let document = Document::parse("f", &text, &mut problems);
            if problems.is_empty() {
                let shown = document.render(true);
                let again = Document::parse("f", &shown, &mut problems);
                prop_assert_eq!(problems.to_string(), "");
                prop_assert_eq!(again.render(false), document.render(false));
            }
        }
    }
}
