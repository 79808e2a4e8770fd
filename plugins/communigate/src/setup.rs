//! What must be done to a CommuniGate Pro, as data: shown by `configure_mta` and explained in the README. Its settings
//! are in its own database and are changed in its WebAdmin, so most steps are an administrator's. Nothing is written
//! from here, and no password is asked for.
//!
//! Sources: Guide/Helpers.html, Guide/VirusScan.html, Guide/Rules.html.

mod mta;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};

pub use mta::CommuniGate;

/// One change, in the order in which no mail is lost or held up: what is asked is there before anybody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The program, where only root can change it: it runs as root.
    Program,
    /// The server starts it.
    Helper,
    /// It greets, so it runs.
    Greeting,
    /// More than one mail is asked about at once.
    Enqueuer,
    /// Mail is asked about.
    Rule,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        let by_hand = |place, lines, why, undo: Option<&str>| Entry {
            file: Some("WebAdmin"),
            lines: Some((place, lines)),
            why: Some(why),
            undo: undo.map(Into::into),
            ..Entry::default()
        };
        match self {
            Self::Program => Entry {
                file: Some(PROGRAM),
                run: Some(INSTALL.into()),
                why: Some(WHY_INSTALL),
                undo: Some(REMOVE.into()),
                ..Entry::default()
            },
            Self::Helper => by_hand("Settings, General, Helpers, the empty entry", HELPER, WHY_HELPER, Some(NO_HELPER)),
            Self::Greeting => by_hand("Monitors, Logs, within a minute", GREETING, WHY_GREETING, None),
            Self::Enqueuer => by_hand("Settings, Queue, Enqueuer", ENQUEUER, WHY_ENQUEUER, None),
            Self::Rule => by_hand("Settings, Rules (Server-Wide), a new rule", RULE, WHY_RULE, Some(NO_RULE)),
        }
    }
}

const PROGRAM: &str = "/usr/bin/checkpost-communigate";
const INSTALL: &str = "install -o root -g root -m 755 \"$(command -v checkpost-communigate)\" /usr/bin/.checkpost-communigate.new && \
                       mv -T /usr/bin/.checkpost-communigate.new /usr/bin/checkpost-communigate";
const WHY_INSTALL: &str = "the server starts it as its own user, mostly root: nobody else may be able to write the file \
                           or its folders. A helper that runs goes on with the old one until it is disabled and enabled again";
const REMOVE: &str = "rm -f /usr/bin/checkpost-communigate";

const HELPER: &str = "  Content Filtering: Enabled\n  Name:         Checkpost\n  Log Level:    Problems\n  \
                      Program Path: /usr/bin/checkpost-communigate\n  Time-out:     5 minutes\n  Auto-Restart: 1 minute";
const WHY_HELPER: &str = "this alone checks nothing. Time-out must be more than the program's own `timeout` (100s), or the \
                          server ends it in the middle; without Auto-Restart one crash needs an administrator";
const NO_HELPER: &str =
    "# WebAdmin, Settings, General, Helpers: set Checkpost to Disabled, Update; then clear its name, Update";

const GREETING: &str = "  EXTFILTER(Checkpost) … checkpost-communigate … ready";
const WHY_GREETING: &str = "no rule before this: with a rule and no helper that runs, mail waits. A line that says \
                            \"no mail can be changed\" or \"the settings are wrong\" must be mended first";

const ENQUEUER: &str = "  Processors: 10";
const WHY_ENQUEUER: &str = "as many mails are checked at once; with one, a slow mail stops all others";

const RULE: &str = "  Name:      Checkpost\n  Priority:  5\n  Data:      (no condition: all mail)\n  \
                    Action:    ExternalFilter   Parameter: Checkpost";
const WHY_RULE: &str = "now mail is checked. Do not skip mail by a header field in a condition: anybody can write one. \
                        In an emergency set the helper to Disabled: mail then passes UNCHECKED";
const NO_RULE: &str = "# WebAdmin, Settings, Rules: delete the rule Checkpost, Update (before the helper is disabled)";

/// All recipes.
pub const RECIPES: [Recipe<Step>; 2] = [
    Recipe {
        kind: "communigate",
        method: None,
        way: "[[way]]\nkind = \"communigate\"\nlisten = \"unix:/run/checkpost/communigate.sock\"\n",
        steps: STEPS,
    },
    Recipe {
        kind: "communigate-synchronous",
        method: None,
        way: "[[way]]\nkind = \"communigate-synchronous\"\nlisten = \"unix:/run/checkpost/communigate.sock\"\n",
        steps: STEPS,
    },
];

const STEPS: &[Step] = &[Step::Program, Step::Helper, Step::Greeting, Step::Enqueuer, Step::Rule];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_who_is_not_there() {
        assert_eq!(RECIPES.map(|recipe| recipe.kind), [crate::HELPER.name, crate::SYNCHRONOUS.name]);
        for recipe in RECIPES {
            let at = |step| recipe.steps.iter().position(|known| *known == step).unwrap();
            assert!(at(Step::Program) < at(Step::Helper));
            assert!(at(Step::Helper) < at(Step::Greeting) && at(Step::Greeting) < at(Step::Rule));
            // Taken back in reverse: the rule first, the program last.
            let undo: Vec<String> = recipe.plan().steps.into_iter().rev().filter_map(|step| step.undo).collect();
            assert!(undo[0].contains("rule") && undo[1].contains("Disabled") && undo[2].starts_with("rm "));
        }
    }
}
