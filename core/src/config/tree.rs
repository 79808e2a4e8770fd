//! The merged tree of all files: every value knows the place it came from.
//! It knows no section's meaning.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, Problems};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What TOML can say.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys in the order they were written.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) Vec<Entry>);

/// A key, its place, its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Table {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.0.iter().position(|entry| entry.key == key)?;
        Some(self.0.remove(index))
    }

    /// The one merge rule: tables are united, lists append, a key may be set once.
    pub(super) fn merge(&mut self, other: Self, path: &str, problems: &mut Problems) {
        for entry in other.0 {
            let key = join(path, &entry.key);
            let Some(mine) = self.0.iter_mut().find(|mine| mine.key == entry.key) else {
                self.0.push(entry);
                continue;
            };
            match (&mut mine.node.value, entry.node.value) {
                (Value::Table(mine), Value::Table(theirs)) => mine.merge(theirs, &key, problems),
                (Value::Array(mine), Value::Array(theirs)) => mine.extend(theirs),
                (_, _) => {
                    let first = &mine.place;
                    let message = format!("set a second time; the first is at {first}");
                    problems.push(Problem::at(&entry.place, key, message).hint("a key may be set once, lists append"));
                }
            }
        }
    }
}

/// `a.b`, `b` at the top, the key in quotes where TOML needs them.
pub(super) fn join(path: &str, key: &str) -> String {
    let key = quoted(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A key as TOML writes it.
pub(super) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { basic_string(key) }
}

/// A text as a TOML string on one line.
pub(super) fn basic_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Reads one text. What can be read is in the table, also when something else cannot.
pub(super) fn parse(file: &Arc<Path>, text: &str, problems: &mut Problems) -> Table {
    let lines = Lines::new(file, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = lines.place(error.span().map_or(0, |span| span.start));
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        problems.push(Problem::at(&place, "", format!("not valid TOML: {message}")));
    }
    table_from(table.get_ref(), "", &lines, problems)
}

fn table_from(table: &DeTable<'_>, path: &str, lines: &Lines<'_>, problems: &mut Problems) -> Table {
    let mut written: Vec<_> = table.iter().collect();
    // The parser sorts by name.
    written.sort_by_key(|(key, _)| key.span().start);
    Table(
        written
            .into_iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                place: lines.place(key.span().start),
                node: node_from(value, &join(path, key.get_ref()), lines, problems),
            })
            .collect(),
    )
}

fn node_from(value: &Spanned<DeValue<'_>>, path: &str, lines: &Lines<'_>, problems: &mut Problems) -> Node {
    let place = lines.place(value.span().start);
    let number = |problems: &mut Problems| {
        problems.push(Problem::at(&place, path, "the number is too large"));
    };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => {
                number(problems);
                Value::Integer(0)
            }
        },
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(float) if float.is_finite() => Value::Float(float),
            _ => {
                problems.push(Problem::at(&place, path, "not a finite number"));
                Value::Float(0.0)
            }
        },
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(datetime) => Value::Datetime(datetime.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| node_from(item, &format!("{path}[{index}]"), lines, problems))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(table_from(table, path, lines, problems)),
    };
    Node { value, place }
}

/// From byte offsets to lines and columns.
struct Lines<'a> {
    file: &'a Arc<Path>,
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Arc<Path>, text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        Self { file, text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset).max(1) - 1;
        let before = self.text.as_bytes().get(self.starts[line]..offset).unwrap_or_default();
        let column = String::from_utf8_lossy(before).chars().count() + 1;
        let as_u32 = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: Arc::clone(self.file), line: as_u32(line + 1), column: as_u32(column) }
    }
}
