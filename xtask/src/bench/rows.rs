//! From runs to the lines of the table: medians over the rounds, ratios within each.
//! Not what has to be reached: that is each measurement's own.

use std::collections::BTreeMap;

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

/// CPU seconds are kept in this order in [`Outcome::cpu`]: the load generator, what the path ends in (sink or MTA), and
/// the process that is measured; `None` where there is none or its id is not known.
pub(super) const LOAD: usize = 0;
pub(super) const OTHER: usize = 1;
pub(super) const MEASURED: usize = 2;

/// One line of the table: medians over the rounds.
pub(super) struct Row {
    pub(super) size: usize,
    pub(super) sessions: usize,
    pub(super) path: String,
    pub(super) rate: f64,
    pub(super) ratio: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p50_ratio: f64,
    /// Milliseconds for each message: in the order of [`LOAD`], [`OTHER`] and [`MEASURED`].
    pub(super) cpu: [Option<f64>; 3],
    pub(super) peak: Option<u64>,
    pub(super) messages: usize,
    pub(super) errors: BTreeMap<String, usize>,
}

impl Row {
    pub(super) fn json(&self) -> Value {
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
            "cpu_ms_per_message": self.cpu[MEASURED],
            "load_cpu_ms_per_message": self.cpu[LOAD],
            "other_cpu_ms_per_message": self.cpu[OTHER],
            "peak_bytes": self.peak,
            "errors": self.errors,
        })
    }
}

/// Gathers the rounds of each size, number of sessions and path, in the order in which they were first measured.
pub(super) fn rows(baseline: &str, runs: &[Run]) -> Vec<Row> {
    let mut keys: Vec<(usize, usize, &str)> = Vec::new();
    for run in runs {
        let key = (run.size, run.sessions, run.path.as_str());
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.sort_by_key(|(size, sessions, path)| (*size, *sessions, *path != baseline, path.to_string()));
    keys.into_iter().map(|key| row(key, baseline, runs)).collect()
}

fn row((size, sessions, path): (usize, usize, &str), baseline: &str, runs: &[Run]) -> Row {
    let mine: Vec<&Run> =
        runs.iter().filter(|run| (run.size, run.sessions, run.path.as_str()) == (size, sessions, path)).collect();
    let over_baseline =
        |value: fn(&Outcome) -> f64| median(pairs(&mine, baseline, runs).map(|(run, base)| value(run) / value(base)));
    let messages: usize = mine.iter().map(|run| run.outcome.messages).sum();
    let cpu = |index: usize| {
        let seconds: Option<f64> = mine.iter().map(|run| run.outcome.cpu.get(index).copied().flatten()).sum();
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
        ratio: over_baseline(Outcome::rate),
        p50: median(mine.iter().map(|run| run.outcome.latency(0.5))),
        p99: median(mine.iter().map(|run| run.outcome.latency(0.99))),
        p50_ratio: over_baseline(|outcome| outcome.latency(0.5)),
        cpu: [cpu(LOAD), cpu(OTHER), cpu(MEASURED)],
        peak: mine.iter().filter_map(|run| run.peak).max(),
        messages,
        errors,
    }
}

/// Each run with that of `baseline` in the same round: both saw the machine in the same mood.
fn pairs<'a>(runs: &[&'a Run], baseline: &str, all: &'a [Run]) -> impl Iterator<Item = (&'a Outcome, &'a Outcome)> {
    runs.iter().filter_map(move |run| {
        let same = |other: &&Run| {
            (other.size, other.sessions, other.round) == (run.size, run.sessions, run.round) && other.path == baseline
        };
        Some((&run.outcome, &all.iter().find(same)?.outcome))
    })
}

/// The rate of `path` for each message of `other`, taken within the rounds; `None` when they did not run together.
pub(super) fn rate_ratio(runs: &[Run], (size, sessions): (usize, usize), path: &str, other: &str) -> Option<f64> {
    let mine: Vec<&Run> =
        runs.iter().filter(|run| (run.size, run.sessions, run.path.as_str()) == (size, sessions, path)).collect();
    Some(median(pairs(&mine, other, runs).map(|(run, base)| run.rate() / base.rate()))).filter(|ratio| !ratio.is_nan())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &str, round: usize, messages: usize) -> Run {
        let mut outcome = Outcome::default();
        (outcome.messages, outcome.seconds, outcome.cpu) = (messages, 1.0, vec![Some(0.1), Some(0.2), Some(0.3)]);
        Run { size: 4096, sessions: 10, round, path: path.into(), outcome, peak: Some(1 << 20) }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine is twice as slow in the second round, for both paths: no ratio changes.
        let runs = [
            run("checkpost", 0, 500),
            run("direct", 0, 1000),
            run("direct", 1, 500),
            run("checkpost", 1, 250),
            run("direct", 2, 1000),
            run("checkpost", 2, 600),
        ];
        let rows = rows("direct", &runs);
        assert_eq!(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["direct", "checkpost"]);
        assert!((rows[1].ratio - 0.5).abs() < 1e-9 && (rows[1].rate - 500.0).abs() < 1e-9);
        assert!((rows[1].cpu[MEASURED].unwrap() - 900.0 / 1350.0).abs() < 1e-9);
        assert!((rate_ratio(&runs, (4096, 10), "checkpost", "direct").unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(rate_ratio(&runs, (4096, 1), "checkpost", "direct"), None);
    }

    #[test]
    fn medians() {
        for (values, expected) in [(vec![3.0], 3.0), (vec![9.0, 1.0], 5.0), (vec![2.0, 9.0, 1.0], 2.0)] {
            assert!((median(values.into_iter()) - expected).abs() < 1e-9);
        }
        assert!(median(std::iter::empty()).is_nan());
    }
}
