//! What the proxy has to reach.
//! Not the place for numbers of other measurements.

use super::CHECKPOST;
use super::report::{Fact, size_name};
use super::rows::{MEASURED, Row};

/// What Checkpost has to reach, for as much of it as was measured.
pub(super) fn goals(rows: &[Row]) -> Vec<Fact> {
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
    if let Some(cpu) = small.and_then(|row| row.cpu[MEASURED]) {
        facts.push(Fact::new("CPU for a 4 KiB message, 10 sessions", cpu, "ms").at_most(0.5));
    }
    for row in rows.iter().filter(own).filter(|row| row.sessions == 50) {
        let errors = row.errors.values().sum::<usize>() as f64;
        facts.push(Fact::new(&format!("errors, {}, 50 sessions", size_name(row.size)), errors, "").at_most(0.0));
    }
    facts
}
