//! What the milter has to reach.
//! Each goal is printed only when the run measured it.

use super::super::report::{Fact, size_name};
use super::super::rows::{Row, Run, rate_ratio};
use super::{TCP, UNIX};

/// Against the C filter that does nothing, 10 sessions.
pub(super) fn alone(rows: &[Row]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (size, goal) in [(4 << 10, 1.2), (64 << 10, 1.2), (1 << 20, 0.8)] {
        let row = rows.iter().find(|row| (row.path.as_str(), row.size, row.sessions) == (UNIX, size, 10));
        if let Some(row) = row.filter(|row| !row.ratio.is_nan()) {
            let what = format!("milter alone, ratio, {}, 10 sessions", size_name(size));
            facts.push(Fact::new(&what, row.ratio, "").at_least(goal));
        }
    }
    facts
}

/// Through Postfix, against no filter.
pub(super) fn through_postfix(rows: &[Row]) -> Vec<Fact> {
    let row = rows.iter().find(|row| (row.path.as_str(), row.size, row.sessions) == (UNIX, 4 << 10, 10));
    row.map(|row| Fact::new("through Postfix, ratio, 4 KiB, 10 sessions", row.ratio, "").at_least(0.8))
        .into_iter()
        .collect()
}

/// TCP against a Unix socket for one size and number of sessions; with a goal where a real MTA is behind it.
pub(super) fn tcp(runs: &[Run], of: &str, point: (usize, usize), goal: Option<f64>) -> Option<Fact> {
    let (size, sessions) = point;
    let ratio = rate_ratio(runs, point, TCP, UNIX)?;
    let fact = Fact::new(&format!("{of}, TCP to Unix, {}, {sessions} sessions", size_name(size)), ratio, "");
    Some(match goal {
        Some(goal) => fact.at_least(goal),
        None => fact,
    })
}
