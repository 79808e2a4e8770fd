//! The merged configuration as one TOML text, each line with the place it came from.

use std::fmt::Write;

use super::document::Document;
use super::tree::{Entry, Node, Table, Value, basic_string, join, quoted};

impl Document {
    /// All of it as TOML that reads back as the same; with `origin`, each line ends in
    /// `# FILE:LINE`. Values of keys that hold secrets are shown as `"***"`.
    pub fn render(&self, origin: bool) -> String {
        let mut out = Output { text: String::new(), origin };
        out.table(&self.root, "");
        out.text
    }
}

struct Output {
    text: String,
    origin: bool,
}

impl Output {
    fn table(&mut self, table: &Table, path: &str) {
        for entry in table.0.iter().filter(|entry| !is_section(&entry.node)) {
            self.line(entry);
        }
        for entry in table.0.iter().filter(|entry| is_section(&entry.node)) {
            let path = join(path, &entry.key);
            match &entry.node.value {
                Value::Table(table) => {
                    if table.0.is_empty() || table.0.iter().any(|entry| !is_section(&entry.node)) {
                        self.header(&format!("[{path}]"), &entry.node);
                    }
                    self.table(table, &path);
                }
                Value::Array(items) => {
                    for item in items {
                        self.header(&format!("[[{path}]]"), item);
                        if let Value::Table(table) = &item.value {
                            table.0.iter().for_each(|entry| self.line(entry));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn header(&mut self, header: &str, node: &Node) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(header);
        self.end(node);
    }

    fn line(&mut self, entry: &Entry) {
        let value = if is_secret(&entry.key) { "\"***\"".to_owned() } else { inline(&entry.node) };
        let _ = write!(self.text, "{} = {value}", quoted(&entry.key));
        self.end(&entry.node);
    }

    fn end(&mut self, node: &Node) {
        if self.origin {
            let _ = write!(self.text, "  # {}", node.place.file_and_line());
        }
        self.text.push('\n');
    }
}

/// Tables and lists of tables get a header, all else a line.
fn is_section(node: &Node) -> bool {
    match &node.value {
        Value::Table(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| matches!(item.value, Value::Table(_))),
        _ => false,
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", "token"].iter().any(|word| key.ends_with(word))
}

fn inline(node: &Node) -> String {
    match &node.value {
        Value::String(text) => basic_string(text),
        Value::Integer(integer) => integer.to_string(),
        Value::Float(float) => format!("{float:?}"),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Datetime(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Table(table) if table.0.is_empty() => "{}".into(),
        Value::Table(table) => {
            let pairs: Vec<_> = table
                .0
                .iter()
                .map(|entry| {
                    let value = if is_secret(&entry.key) { "\"***\"".to_owned() } else { inline(&entry.node) };
                    format!("{} = {value}", quoted(&entry.key))
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
    }
}
