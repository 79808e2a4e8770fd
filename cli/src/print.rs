//! The one place that writes to the terminal. A reader that went away (`| head`) is no error.

use std::io::Write;

use serde::Serialize;

/// To standard output.
pub(crate) fn line(text: &str) {
    // Nobody reads: nothing to do.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// To standard error.
pub(crate) fn error(text: &str) {
    // Likewise.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// As JSON, one object on one line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?);
    Ok(())
}

/// What came from a mail, harmless for a terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
