//! How long an MTA waits for an answer, and what of Checkpost's must fit into that time.

use serde::Serialize;

/// A time that the MTA waits. Who knows Checkpost's configuration compares: [`Limit::warning`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The MTA's own name of it: `milter_content_timeout`.
    pub name: String,
    /// So long it waits.
    pub seconds: u64,
    /// What Checkpost may take meanwhile, one after the other.
    pub spans: &'static [Span],
    /// So much earlier Checkpost must have answered.
    pub margin: u64,
}

/// A time that Checkpost may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The key that sets it.
    pub key: &'static str,
    /// The settings file of a small program, lines `key = value`; `None`: the way in checkpost.toml.
    pub file: Option<&'static str>,
    /// In seconds, where the key is not set.
    pub default: u64,
}

impl Span {
    /// A key of the way.
    pub const fn of_way(key: &'static str, default: u64) -> Self {
        Self { key, file: None, default }
    }
}

/// What the daemon may take for an answer at a check socket.
const CHECK: &[Span] = &[Span::of_way("check_timeout", 90)];

impl Limit {
    /// How long one of our small programs waits for the daemon: by `key` in its file of settings, whose text this is.
    pub fn of_program(file: &str, settings: &str, key: &str, default: u64, margin: u64) -> Self {
        let said = crate::text::setting(settings, key);
        let said = said.and_then(|time| time.strip_suffix('s').unwrap_or(&time).trim_end().parse().ok());
        Self { name: format!("{key} in {file}"), seconds: said.unwrap_or(default), spans: CHECK, margin }
    }

    /// Why it does not fit, if it does not; `taken`: how long each of [`Limit::spans`] is, in their order.
    pub fn warning(&self, taken: &[u64]) -> Option<String> {
        let sum: u64 = taken.iter().sum();
        if sum + self.margin <= self.seconds {
            return None;
        }
        let spans = self.spans.iter().zip(taken);
        let spans: Vec<String> = spans.map(|(span, seconds)| format!("{} {seconds}s", span.key)).collect();
        Some(format!(
            "{} is {}s, and Checkpost may take {sum}s ({}): no answer would be waited for any more. {}s \
             are to be left; raise the first, or lower the others",
            self.name,
            self.seconds,
            spans.join(" and "),
            self.margin
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_waits_as_its_settings_say() {
        let seconds = |settings: &str| Limit::of_program("/etc/x", settings, "timeout", 100, 5).seconds;
        assert_eq!(["", "timeout = 80s\n", "timeout = \"70\"\n", "# timeout = 5s\n"].map(seconds), [100, 80, 70, 100]);
        let said = Limit::of_program("/etc/x", "timeout = 94s\n", "timeout", 100, 5).warning(&[90]).unwrap();
        assert!(said.contains("timeout in /etc/x is 94s, and Checkpost may take 90s"), "{said}");
    }

    #[test]
    fn the_sum_must_fit_with_something_left() {
        const SPANS: &[Span] = &[Span::of_way("check_timeout", 45), Span::of_way("hop_final_timeout", 45)];
        let limit = |seconds| Limit { name: "smtpd_proxy_timeout".into(), seconds, spans: SPANS, margin: 5 };
        assert_eq!(limit(95).warning(&[45, 45]), None);
        let said = limit(94).warning(&[45, 45]).unwrap();
        assert!(said.contains("smtpd_proxy_timeout is 94s"), "{said}");
        assert!(said.contains("90s (check_timeout 45s and hop_final_timeout 45s)"), "{said}");
    }
}
