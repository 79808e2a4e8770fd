//! What is printed: one table, the goals, and the same as JSON.
//! Not a judgement: a missed goal is shown, the exit code stays 0, since a measurement on a busy machine proves little.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::rows::{LOAD, MEASURED, OTHER, Row, Run, rows};

/// A number measured once, with the goal it has to reach, where there is one.
pub(super) struct Fact {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<(Direction, f64)>,
}

#[derive(Clone, Copy)]
enum Direction {
    AtLeast,
    AtMost,
}

impl Fact {
    pub(super) fn new(what: &str, value: f64, unit: &'static str) -> Self {
        Self { what: what.to_string(), value, unit, goal: None }
    }

    pub(super) fn at_most(mut self, goal: f64) -> Self {
        self.goal = Some((Direction::AtMost, goal));
        self
    }

    pub(super) fn at_least(mut self, goal: f64) -> Self {
        self.goal = Some((Direction::AtLeast, goal));
        self
    }

    fn reached(&self) -> Option<bool> {
        self.goal.map(|(direction, goal)| match direction {
            Direction::AtLeast => self.value >= goal,
            Direction::AtMost => self.value <= goal,
        })
    }

    fn json(&self) -> Value {
        let goal = self.goal.map(|(direction, goal)| match direction {
            Direction::AtLeast => json!({ "at_least": goal }),
            Direction::AtMost => json!({ "at_most": goal }),
        });
        json!({ "what": self.what, "value": self.value, "unit": self.unit, "goal": goal, "reached": self.reached() })
    }
}

/// How a measurement is shown.
pub(super) struct Layout {
    /// The path that every ratio is taken against.
    pub(super) baseline: &'static str,
    /// The column of the CPU time of what the path ends in; `None` where it ends in the measured process.
    pub(super) other: Option<&'static str>,
    /// What has to be reached, for as much of it as was measured.
    pub(super) goals: fn(&[Row]) -> Vec<Fact>,
}

/// Everything that was measured, ready to print.
pub(super) struct Report {
    other: Option<&'static str>,
    rows: Vec<Row>,
    facts: Vec<Fact>,
}

impl Report {
    pub(super) fn new(layout: &Layout, runs: &[Run], facts: Vec<Fact>) -> Self {
        let rows = rows(layout.baseline, runs);
        let facts = (layout.goals)(&rows).into_iter().chain(facts).collect();
        Self { other: layout.other, rows, facts }
    }

    /// The tables in Markdown, as they stand in the documentation.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", machine());
        if !self.rows.is_empty() {
            text.push_str(&format!("\n{}\n", self.measurements()));
        }
        if !self.facts.is_empty() {
            text.push_str(&format!("\n{}\n", self.goals()));
        }
        for row in &self.rows {
            for (error, count) in &row.errors {
                let Row { size, sessions, path, .. } = row;
                text.push_str(&format!("\n{path}, {}, {sessions} sessions: {count} × {error}", size_name(*size)));
            }
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({
            "date": date(),
            "machine": machine(),
            "rows": rows,
            "goals": self.facts.iter().map(Fact::json).collect::<Vec<_>>(),
        })
    }

    fn measurements(&self) -> Table {
        let number = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
        let mut header = vec![
            "size",
            "sessions",
            "path",
            "msg/s",
            "ratio",
            "p50 ms",
            "p99 ms",
            "p50 ratio",
            "CPU ms/msg",
            "load CPU",
        ];
        header.extend(self.other);
        header.extend(["peak MiB", "errors"]);
        let mut table = markdown(&header);
        for row in &self.rows {
            let mut cells = vec![
                size_name(row.size),
                row.sessions.to_string(),
                row.path.clone(),
                format!("{:.0}", row.rate),
                format!("{:.2}", row.ratio),
                format!("{:.2}", row.p50),
                format!("{:.2}", row.p99),
                format!("{:.1}", row.p50_ratio),
                number(row.cpu[MEASURED]),
                number(row.cpu[LOAD]),
            ];
            cells.extend(self.other.map(|_| number(row.cpu[OTHER])));
            cells.push(row.peak.map_or("–".into(), |peak| format!("{:.1}", peak as f64 / f64::from(1 << 20))));
            cells.push(row.errors.values().sum::<usize>().to_string());
            table.add_row(cells);
        }
        align(&mut table, &[0, 2]);
        table
    }

    fn goals(&self) -> Table {
        let mut table = markdown(&["what", "measured", "goal", ""]);
        for fact in &self.facts {
            let goal = match fact.goal {
                Some((Direction::AtLeast, goal)) => format!("≥ {goal} {}", fact.unit),
                Some((Direction::AtMost, goal)) => format!("≤ {goal} {}", fact.unit),
                None => String::new(),
            };
            let reached = fact.reached().map_or("", |reached| if reached { "reached" } else { "MISSED" });
            let decimals = if fact.value.fract() == 0.0 { 0 } else { 2 };
            let value = format!("{:.decimals$} {}", fact.value, fact.unit);
            table.add_row([fact.what.as_str(), value.trim_end(), goal.trim_end(), reached]);
        }
        align(&mut table, &[0, 3]);
        table
    }
}

/// `4 KiB`, `1 MiB`, or plain bytes when it is neither.
pub(super) fn size_name(size: usize) -> String {
    match size {
        size if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

fn markdown(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN).set_header(header.iter().copied());
    table
}

/// Numbers to the right, the named columns of words to the left.
fn align(table: &mut Table, words: &[usize]) {
    for (index, column) in table.column_iter_mut().enumerate() {
        if !words.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The machine in one line: numbers without it say little.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let gibibytes = kibibytes.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / f64::from(1 << 20);
    format!(
        "{}, {cores} cores ({}), {gibibytes:.0} GiB, Linux {}, load {}",
        date(),
        model.trim_start_matches([' ', '\t', ':']),
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

/// Today in UTC as `YYYY-MM-DD`.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    civil(seconds / 86_400)
}

/// Days since 1970-01-01 in the Gregorian calendar, counted in eras of 400 years that begin on the first of March.
fn civil(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_shown_as_reached_or_missed() {
        let goals = |_: &[Row]| {
            vec![
                Fact::new("a", 0.5, "").at_least(0.4),
                Fact::new("b", 7.25, "ms").at_most(7.0),
                Fact::new("c", 1.0, ""),
            ]
        };
        let layout = Layout { baseline: "direct", other: None, goals };
        let text = Report::new(&layout, &[], Vec::new()).text();
        for line in ["| a    |     0.50 |  ≥ 0.4 | reached |", "|  7.25 ms | ≤ 7 ms | MISSED  |"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn days_become_dates() {
        for (days, date) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (20_781, "2026-11-24"), (19_782, "2024-02-29")]
        {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn sizes_have_names() {
        for (size, name) in [(4096, "4 KiB"), (1 << 20, "1 MiB"), (1000, "1000 B"), (1536, "1536 B")] {
            assert_eq!(size_name(size), name);
        }
    }
}
