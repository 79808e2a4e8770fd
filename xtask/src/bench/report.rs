//! What is printed: one table, the goals, and the same as JSON.
//! Not a judgement: a missed goal is shown, the exit code stays 0, since a measurement on a busy machine proves little.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table};
use serde_json::{Value, json};

use super::load::Outcome;

/// One path through one size and number of sessions in one round.
pub(super) struct Run {
    pub(super) size: usize,
    pub(super) sessions: usize,
    pub(super) round: usize,
    pub(super) path: String,
    pub(super) outcome: Outcome,
    /// Most memory of the measured process, in bytes; unknown for the direct path and unwatched peers.
    pub(super) peak: Option<u64>,
}

/// The path every ratio is taken against.
pub(super) const DIRECT: &str = "direct";
/// The daemon under test.
pub(super) const CHECKPOST: &str = "checkpost";

/// CPU seconds are kept in this order in [`Outcome::cpu`]; the last is there only when a proxy is watched.
const LOAD: usize = 0;
const SINK: usize = 1;
const PROXY: usize = 2;

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

/// One line of the table: medians over the rounds.
struct Row {
    size: usize,
    sessions: usize,
    path: String,
    rate: f64,
    ratio: f64,
    p50: f64,
    p99: f64,
    p50_ratio: f64,
    /// Milliseconds for each message: load generator, sink, proxy.
    cpu: [Option<f64>; 3],
    peak: Option<u64>,
    messages: usize,
    errors: BTreeMap<String, usize>,
}

/// Everything that was measured, ready to print.
pub(super) struct Report {
    rows: Vec<Row>,
    facts: Vec<Fact>,
}

impl Report {
    pub(super) fn new(runs: &[Run], mut facts: Vec<Fact>) -> Self {
        let rows = rows(runs);
        let mut goals = goals(&rows);
        goals.append(&mut facts);
        Self { rows, facts: goals }
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
        let mut table = markdown(&[
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
            "sink CPU",
            "peak MiB",
            "errors",
        ]);
        for row in &self.rows {
            table.add_row([
                size_name(row.size),
                row.sessions.to_string(),
                row.path.clone(),
                format!("{:.0}", row.rate),
                format!("{:.2}", row.ratio),
                format!("{:.2}", row.p50),
                format!("{:.2}", row.p99),
                format!("{:.1}", row.p50_ratio),
                row.cpu[PROXY].map_or("–".into(), |cpu| format!("{cpu:.2}")),
                row.cpu[LOAD].map_or("–".into(), |cpu| format!("{cpu:.2}")),
                row.cpu[SINK].map_or("–".into(), |cpu| format!("{cpu:.2}")),
                row.peak.map_or("–".into(), |peak| format!("{:.1}", peak as f64 / f64::from(1 << 20))),
                row.errors.values().sum::<usize>().to_string(),
            ]);
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

impl Row {
    fn json(&self) -> Value {
        json!({
            "size": self.size,
            "sessions": self.sessions,
            "path": self.path,
            "messages": self.messages,
            "messages_per_second": self.rate,
            "ratio": self.ratio,
            "p50_ms": self.p50,
            "p99_ms": self.p99,
            "p50_ratio": self.p50_ratio,
            "cpu_ms_per_message": self.cpu[PROXY],
            "load_cpu_ms_per_message": self.cpu[LOAD],
            "sink_cpu_ms_per_message": self.cpu[SINK],
            "peak_bytes": self.peak,
            "errors": self.errors,
        })
    }
}

/// Gathers the rounds of each size, number of sessions and path, in the order in which they were first measured.
fn rows(runs: &[Run]) -> Vec<Row> {
    let mut keys: Vec<(usize, usize, &str)> = Vec::new();
    for run in runs {
        let key = (run.size, run.sessions, run.path.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|(size, sessions, path)| (*size, *sessions, *path != DIRECT, path.to_string()));
    keys.into_iter().map(|key| row(key, runs)).collect()
}

fn row((size, sessions, path): (usize, usize, &str), runs: &[Run]) -> Row {
    let of_path = |wanted: &'static str| runs.iter().filter(move |run| run.path == wanted);
    let mine: Vec<&Run> =
        runs.iter().filter(|run| (run.size, run.sessions, run.path.as_str()) == (size, sessions, path)).collect();
    // The direct run of the same round: both saw the machine in the same mood.
    let direct = |run: &Run| {
        of_path(DIRECT).find(|other| (other.size, other.sessions, other.round) == (size, sessions, run.round))
    };
    let over_direct = |value: &dyn Fn(&Outcome) -> f64| {
        median(mine.iter().filter_map(|run| Some(value(&run.outcome) / value(&direct(run)?.outcome))))
    };
    let messages: usize = mine.iter().map(|run| run.outcome.messages).sum();
    let cpu = |index: usize| {
        let seconds: Option<f64> = mine.iter().map(|run| run.outcome.cpu.get(index)).sum();
        seconds.filter(|_| messages > 0).map(|seconds| seconds * 1000.0 / messages as f64)
    };
    let mut errors = BTreeMap::new();
    for (error, count) in mine.iter().flat_map(|run| &run.outcome.errors) {
        *errors.entry(error.clone()).or_default() += count;
    }
    Row {
        size,
        sessions,
        path: path.to_string(),
        rate: median(mine.iter().map(|run| run.outcome.rate())),
        ratio: over_direct(&Outcome::rate),
        p50: median(mine.iter().map(|run| run.outcome.latency(0.5))),
        p99: median(mine.iter().map(|run| run.outcome.latency(0.99))),
        p50_ratio: over_direct(&|outcome| outcome.latency(0.5)),
        cpu: [cpu(LOAD), cpu(SINK), cpu(PROXY)],
        peak: mine.iter().filter_map(|run| run.peak).max(),
        messages,
        errors,
    }
}

/// What Checkpost has to reach, for as much of it as was measured.
fn goals(rows: &[Row]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let own = |row: &&Row| row.path == CHECKPOST;
    for (size, goal) in [(4 << 10, 0.40), (64 << 10, 0.50), (1 << 20, 0.70)] {
        if let Some(row) = rows.iter().filter(own).find(|row| (row.size, row.sessions) == (size, 10)) {
            facts.push(Fact::new(&format!("ratio, {}, 10 sessions", size_name(size)), row.ratio, "").at_least(goal));
        }
    }
    for row in rows.iter().filter(own).filter(|row| row.sessions == 1) {
        facts
            .push(Fact::new(&format!("p50 ratio, {}, 1 session", size_name(row.size)), row.p50_ratio, "").at_most(4.0));
    }
    let small = rows.iter().filter(own).find(|row| (row.size, row.sessions) == (4 << 10, 10));
    if let Some(cpu) = small.and_then(|row| row.cpu[PROXY]) {
        facts.push(Fact::new("CPU for a 4 KiB message, 10 sessions", cpu, "ms").at_most(0.5));
    }
    for row in rows.iter().filter(own).filter(|row| row.sessions == 50) {
        let errors = row.errors.values().sum::<usize>() as f64;
        facts.push(Fact::new(&format!("errors, {}, 50 sessions", size_name(row.size)), errors, "").at_most(0.0));
    }
    facts
}

/// The middle value, or the mean of the two middle ones; NaN for none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
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

    fn run(path: &str, round: usize, messages: usize) -> Run {
        let mut outcome = Outcome::default();
        (outcome.messages, outcome.seconds, outcome.cpu) = (messages, 1.0, vec![0.1, 0.2, 0.3]);
        Run { size: 4096, sessions: 10, round, path: path.into(), outcome, peak: Some(1 << 20) }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is twice as slow in the second round, for both paths: no ratio changes.
        let runs = [
            run(CHECKPOST, 0, 500),
            run(DIRECT, 0, 1000),
            run(DIRECT, 1, 500),
            run(CHECKPOST, 1, 250),
            run(DIRECT, 2, 1000),
            run(CHECKPOST, 2, 600),
        ];
        let rows = rows(&runs);
        assert_eq!(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), [DIRECT, CHECKPOST]);
        assert!((rows[1].ratio - 0.5).abs() < 1e-9 && (rows[1].rate - 500.0).abs() < 1e-9);
        assert!((rows[1].cpu[PROXY].unwrap() - 900.0 / 1350.0).abs() < 1e-9);
        let text = Report::new(&runs, Vec::new()).text();
        assert!(text.contains("ratio, 4 KiB, 10 sessions"), "{text}");
        assert!(text.contains("reached") && text.contains("MISSED"), "{text}");
    }

    #[test]
    fn medians() {
        for (values, expected) in [(vec![3.0], 3.0), (vec![9.0, 1.0], 5.0), (vec![2.0, 9.0, 1.0], 2.0)] {
            assert!((median(values.into_iter()) - expected).abs() < 1e-9);
        }
        assert!(median(std::iter::empty()).is_nan());
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
