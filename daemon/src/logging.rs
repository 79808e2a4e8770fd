//! Log lines on standard error: plain, or one JSON object a line. Where they go from there is the
//! init system's business.
//!
//! A line is put together first and written by one write(2), so lines of several threads do not mix.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Plain,
    /// One JSON object a line, fields at its top level.
    Json,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level(String);

/// Not a level.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "not a log level: {written:?} ({cause}); accepted: \"error\", \"warn\", \"info\", \"debug\", \"trace\", \"info,checkpost_smtp=debug\""
)]
pub struct LevelError {
    written: String,
    cause: String,
}

impl Default for Level {
    /// `info`: starts, ends, faults, and one line per mail.
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl std::str::FromStr for Level {
    type Err = LevelError;

    fn from_str(written: &str) -> Result<Self, LevelError> {
        let wrong = |cause: String| LevelError { written: written.to_owned(), cause };
        // A single unknown word would pass as the name of a module that logs all.
        let known = ["error", "warn", "info", "debug", "trace", "off"];
        if !written.contains('=') && !written.split(',').all(|word| known.contains(&word.trim())) {
            return Err(wrong("unknown level".to_owned()));
        }
        EnvFilter::builder().parse(written).map_err(|error| wrong(error.to_string()))?;
        Ok(Self(written.to_owned()))
    }
}

impl Level {
    /// `error`, for programs that print themselves.
    pub fn quiet() -> Self {
        Self("error".to_owned())
    }

    fn filter(&self) -> EnvFilter {
        // Checked when built.
        EnvFilter::builder().parse(&self.0).unwrap_or_else(|_| EnvFilter::new("info"))
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sets logging up for the whole process; the first call wins. Panics are logged as errors from then
/// on, without the mail that was under way.
pub fn start(format: Format, level: &Level) {
    let (filter, handle) = reload::Layer::new(level.filter());
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        Format::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        // The journal has its own time.
        Format::Plain if std::env::var_os("JOURNAL_STREAM").is_some() => lines.without_time().with_ansi(false).boxed(),
        Format::Plain => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "a task crashed; this is a bug, please report it");
        }));
    }
}

/// Another level, without a restart.
pub fn set_level(level: &Level) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(level.filter())
    {
        tracing::warn!(%error, "the log level could not be changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for fits in ["info", "warn,checkpost_smtp=debug", "off"] {
            assert!(fits.parse::<Level>().is_ok(), "{fits}");
        }
        for wrong in ["", "loud", "info,loud", "a=loud"] {
            assert!(wrong.parse::<Level>().is_err(), "{wrong}");
        }
    }
}
