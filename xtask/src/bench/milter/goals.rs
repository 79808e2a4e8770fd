//! What the milter has to reach.
//! Each goal is printed only when the run measured it.

use super::super::report::{Fact, size_name};
use super::super::rows::Row;
use super::UNIX;

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
