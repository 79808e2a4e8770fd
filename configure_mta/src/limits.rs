//! Do the times fit together? How long an MTA waits, its plug-in says; what Checkpost may take stands in Checkpost's own
//! files.

use checkpost_core::config::Time;
use checkpost_setup::{Limit, Look, Obstacle, Span, text};

use crate::own;

/// A line for each limit that is too short.
///
/// # Errors
/// When a file of Checkpost's cannot be read or is not understood.
pub fn warnings(look: &dyn Look, kind: &str, limits: &[Limit]) -> Result<Vec<String>, Obstacle> {
    let mut warnings = Vec::new();
    for limit in limits {
        let taken: Vec<u64> =
            limit.spans.iter().map(|span| taken(look, kind, span)).collect::<Result<_, Obstacle>>()?;
        warnings.extend(limit.warning(&taken));
    }
    Ok(warnings)
}

/// In whole seconds, rounded up. What is no time is refused by who reads it; here the default counts.
fn taken(look: &dyn Look, kind: &str, span: &Span) -> Result<u64, Obstacle> {
    let written = match span.file {
        Some(file) => text::setting(&look.text(file)?.unwrap_or_default(), span.key),
        None => own::of_way(look, kind, span.key)?,
    };
    let time = written.and_then(|written| written.parse::<Time>().ok());
    Ok(time.map_or(span.default, |time| time.duration().as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}
