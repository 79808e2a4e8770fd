//! What must stand in Sendmail's configuration, as data: shown by `configure_mta`, used by the tests
//! against a real Sendmail, and explained in the README. Nothing is written from here.
//!
//! Sources: cf/README and libmilter/README of Sendmail 8.17, sendmail(8).

mod mta;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};

pub use mta::Sendmail;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Lines in `sendmail.mc`, before its MAILER lines.
    Lines {
        /// The lines, with their marks; no line end behind the last.
        text: &'static str,
        /// The reason, for the administrator.
        why: &'static str,
    },
    /// `sendmail.cf` made anew of `sendmail.mc`, then read by the running daemon.
    Rebuild,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        match self {
            Self::Lines { text, why } => Entry {
                file: Some("/etc/mail/sendmail.mc"),
                lines: Some(("before the first MAILER line", text)),
                why: Some(why),
                ..Entry::default()
            },
            Self::Rebuild => Entry {
                file: Some("/etc/mail/sendmail.cf"),
                run: Some("make -C /etc/mail && systemctl reload sendmail".into()),
                ..Entry::default()
            },
        }
    }
}

/// All recipes.
pub const RECIPES: [Recipe<Step>; 1] = [Recipe {
    kind: "sendmail-milter",
    method: None,
    way: "[[way]]\nkind = \"sendmail-milter\"\nlisten = \"unix:/run/checkpost/milter.sock\"\n",
    steps: &[
        Step::Lines {
            text: "dnl # BEGIN checkpost\n\
                   INPUT_MAIL_FILTER(`checkpost', `S=local:/run/checkpost/milter.sock, F=T, T=C:30s;S:60s;R:60s;E:5m')dnl\n\
                   dnl # END checkpost",
            why: "every mail that Sendmail receives is checked in its session; F=T: while Checkpost does not answer, \
                  clients are told to try again. Without F= mail would go through unscanned",
        },
        Step::Rebuild,
    ],
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_fails_closed_and_names_one_socket() {
        let [recipe] = &RECIPES;
        assert_eq!(recipe.kind, crate::MILTER.name);
        let Step::Lines { text, .. } = recipe.steps[0] else { panic!("lines come first") };
        assert!(
            text.contains(" F=T,") && text.lines().all(|line| line.starts_with("dnl") || line.ends_with("dnl")),
            "{text}"
        );
        let socket = recipe.way.split("unix:").nth(1).unwrap().trim_end_matches(['"', '\n']);
        assert!(text.contains(&format!("S=local:{socket},")));
        assert_eq!(recipe.steps.last(), Some(&Step::Rebuild));
    }
}
