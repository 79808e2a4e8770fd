//! The root with programs that ask scanners. Which scanner answers is the test's business.

use crate::Recipe;

/// `clamdscan`, `spamc` and `rspamc` as Debian has them; nothing runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanners;

impl Recipe for Scanners {
    fn name(&self) -> &'static str {
        "scanners"
    }

    fn script(&self) -> &'static str {
        include_str!("recipes/scanners.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
