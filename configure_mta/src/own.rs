//! checkpost.toml: a way is added, or an existing one of its kind is set right; every comment and every other line stays.

use checkpost_setup::{Change, Look, Obstacle, Owner};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use crate::service::CONFIG;

const FOLDER: &str = "/etc/checkpost/conf.d";
const WHY: &str = "the way by which the mail comes";

/// Where ClamAV's daemon listens on Debian.
pub const CLAMD: &str = "/run/clamav/clamd.ctl";

/// The change to the configuration; none if all is there.
///
/// # Errors
/// When a file is no TOML, or a file in conf.d has another way of this kind.
pub fn configuration(look: &dyn Look, way: &str, scanner: Option<&str>) -> Result<Option<Change>, Obstacle> {
    let wanted = parse("the plan", way)?;
    let text = look.text(CONFIG)?;
    let mut here = parse(CONFIG, text.as_deref().unwrap_or_default())?;
    let mut elsewhere = Vec::new();
    for name in look.names(FOLDER)?.iter().filter(|name| name.ends_with(".toml")) {
        let path = format!("{FOLDER}/{name}");
        let other = look.text(&path)?.unwrap_or_default();
        elsewhere.push((parse(&path, &other)?, path));
    }
    for table in ways(&wanted) {
        let kind = value(table, "kind");
        let same = |other: &&Table| value(other, "kind") == kind;
        if let Some((other, path)) = elsewhere.iter().find_map(|(file, path)| Some((ways(file).find(same)?, path))) {
            if let Some((key, wanted)) = differs(other, table) {
                let why = format!("{path} has a way of kind {kind} whose {key} is not {wanted}");
                return Err(Obstacle::new(why, "change it there, or take that way out"));
            }
            continue;
        }
        put(&mut here, table, &kind, text.is_none());
    }
    let has_filter = |file: &DocumentMut| file.get("filter").and_then(|filters| filters.get("clamd")).is_some();
    if let Some(address) = scanner
        && !has_filter(&here)
        && !elsewhere.iter().any(|(file, _)| has_filter(file))
    {
        let filters = here.entry("filter").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let mut table = Table::new();
        table.decor_mut().set_prefix("\n# ClamAV's daemon, found by configure_mta.\n");
        table.insert("address", toml_edit::value(format!("unix:{address}")));
        if let Some(filters) = filters.as_table_mut() {
            filters.insert("clamd", Item::Table(table));
        }
    }
    Ok(Change::write(CONFIG, text.as_deref(), &here.to_string(), Owner::root(), 0o644, WHY))
}

/// What the way of this kind sets a key to, if it is there and does.
///
/// # Errors
/// When a file cannot be read or is no TOML.
pub fn of_way(look: &dyn Look, kind: &str, key: &str) -> Result<Option<String>, Obstacle> {
    let names = look.names(FOLDER)?.into_iter().filter(|name| name.ends_with(".toml"));
    for path in std::iter::once(CONFIG.to_owned()).chain(names.map(|name| format!("{FOLDER}/{name}"))) {
        let file = parse(&path, &look.text(&path)?.unwrap_or_default())?;
        let text = |table: &Table, key: &str| table.get(key).and_then(Item::as_str).map(str::to_owned);
        if let Some(way) = ways(&file).find(|way| text(way, "kind").as_deref() == Some(kind)) {
            return Ok(text(way, key));
        }
    }
    Ok(None)
}

/// Does any file of the configuration speak of clamd?
///
/// # Errors
/// When a file cannot be looked at.
pub fn has_clamd(look: &dyn Look) -> Result<bool, Obstacle> {
    let mut texts = vec![look.text(CONFIG)?.unwrap_or_default()];
    for name in look.names(FOLDER)?.iter().filter(|name| name.ends_with(".toml")) {
        texts.extend(look.text(&format!("{FOLDER}/{name}"))?);
    }
    Ok(texts.iter().any(|text| text.lines().any(|line| line.trim() == "[filter.clamd]")))
}

fn parse(path: &str, text: &str) -> Result<DocumentMut, Obstacle> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        Obstacle::new(
            format!("{path} is no TOML: {}", error.to_string().trim_end()),
            "correct it: checkpost config check",
        )
    })
}

fn ways(file: &DocumentMut) -> impl Iterator<Item = &Table> {
    file.get("way").and_then(Item::as_array_of_tables).into_iter().flat_map(ArrayOfTables::iter)
}

fn value(table: &Table, key: &str) -> String {
    table.get(key).and_then(Item::as_value).map(plain).unwrap_or_default()
}

/// Without the blanks and comments around it.
fn plain(value: &toml_edit::Value) -> String {
    value.clone().decorated("", "").to_string()
}

/// The first key that is not as wanted.
fn differs(table: &Table, wanted: &Table) -> Option<(String, String)> {
    let pairs = wanted.iter().map(|(key, _)| (key.to_owned(), value(wanted, key)));
    pairs.into_iter().find(|(key, wanted)| value(table, key) != *wanted)
}

fn put(file: &mut DocumentMut, wanted: &Table, kind: &str, is_new: bool) {
    let all = file.entry("way").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let Some(all) = all.as_array_of_tables_mut() else { return };
    if let Some(there) = all.iter_mut().find(|table| value(table, "kind") == kind) {
        for (key, item) in wanted.iter().filter(|(_, item)| item.is_value()) {
            if value(there, key) == value(wanted, key) {
                continue;
            }
            match (there.get_mut(key).and_then(Item::as_value_mut), item.as_value()) {
                // The comment behind the old value stays.
                (Some(old), Some(new)) => {
                    let decor = old.decor().clone();
                    *old = new.clone();
                    *old.decor_mut() = decor;
                }
                _ => drop(there.insert(key, item.clone())),
            }
        }
        return;
    }
    let mut table = wanted.clone();
    let gap = if is_new {
        "# Every key and its default: checkpost.toml in the documentation, or `checkpost config show`.\n\n"
    } else {
        "\n"
    };
    table.decor_mut().set_prefix(format!("{gap}# Made by configure_mta.\n"));
    table.set_position(None);
    all.push(table);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, way: &str) -> String {
        let wanted = parse("plan", way).unwrap();
        let mut file = parse("file", text).unwrap();
        for table in ways(&wanted) {
            put(&mut file, table, &value(table, "kind"), text.is_empty());
        }
        file.to_string()
    }

    const WAY: &str = "[[way]]\nkind = \"k\"\nlisten = \"127.0.0.1:1\"\n";

    #[test]
    fn a_way_is_added_below_what_is_there() {
        let text = "# mine\n[[way]]\nkind = \"other\" # why\n\n[filter.clamd]\naddress = \"x\"\n# the end\n";
        let once = edited(text, WAY);
        assert!(once.starts_with("# mine\n[[way]]\nkind = \"other\" # why\n"), "{once}");
        assert!(
            once.contains("\n# Made by configure_mta.\n[[way]]\nkind = \"k\"\nlisten = \"127.0.0.1:1\"\n"),
            "{once}"
        );
        assert!(once.contains("[filter.clamd]\naddress = \"x\"\n# the end\n"), "{once}");
        assert_eq!(edited(&once, WAY), once);
        let new = edited("", WAY);
        assert_eq!(edited(&new, WAY), new);
    }

    #[test]
    fn a_way_of_the_kind_is_set_right_and_keeps_its_comments() {
        let text = "[[way]]\nkind = \"k\"\n# where\nlisten = \"127.0.0.1:9\" # old\nname = \"mine\"\n";
        let expected = "[[way]]\nkind = \"k\"\n# where\nlisten = \"127.0.0.1:1\" # old\nname = \"mine\"\n";
        assert_eq!(edited(text, WAY), expected);
    }
}
