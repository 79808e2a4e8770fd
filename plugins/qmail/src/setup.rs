//! What must be done to a qmail, as data: shown by `configure_mta`, used by the tests against a real qmail, and
//! explained in the README. Nothing is written from here. Every step may be repeated.
//!
//! Sources: qmail-queue(8), tcprules(1), hier.c and instcheck.c of notqmail 1.09.

mod mta;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};

pub use mta::Qmail;

/// One change. The commands are for a shell that ends at the first failure (`sh -e`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// tcpserver gives qmail-smtpd the variable.
    Variable,
    /// The rules are read by tcpserver in this form, at each connection.
    Rules,
    /// The original gets a second name. It is never ours that is saved: the original alone is set-uid.
    Save,
    /// Our program takes the original's first name, at one blow.
    Replace,
    /// All is as it must be.
    Verify,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        let (file, run, undo, why) = match self {
            Self::Variable => {
                return Entry {
                    file: Some("/etc/tcp.smtp"),
                    lines: Some(("in place of the line \":allow\", and added to every other line that allows", LINE)),
                    why: Some(WHY_VARIABLE),
                    ..Entry::default()
                };
            }
            Self::Rules => ("/etc/tcp.smtp.cdb", RULES, None, None),
            Self::Save => ("/var/qmail/bin/qmail-queue.orig", SAVE, None, Some(WHY_SAVE)),
            Self::Replace => ("/var/qmail/bin/qmail-queue", REPLACE, Some(RESTORE), Some(WHY_REPLACE)),
            Self::Verify => ("/var/qmail/bin/qmail-queue", VERIFY, None, Some(WHY_VERIFY)),
        };
        Entry { file: Some(file), run: Some(run.into()), why, undo: undo.map(Into::into), ..Entry::default() }
    }
}

const LINE: &str = ":allow,QMAILQUEUE=\"/usr/bin/checkpost-qmail-queue\"";
const WHY_VARIABLE: &str = "mail of these clients is checked; to have all mail checked, forwards and bounces included, export \
                            the variable where qmail-start is run instead. Never leave it set and empty: all mail would be put off";
const RULES: &str = "tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp < /etc/tcp.smtp";

const SAVE: &str = "cd /var/qmail/bin; if [ -u qmail-queue ] && ! [ qmail-queue -ef qmail-queue.orig ]; then \
                    ln qmail-queue qmail-queue.orig; fi; [ -u qmail-queue.orig ] && \
                    [ \"$(stat -c %U qmail-queue.orig)\" = qmailq ]";
const WHY_SAVE: &str = "a link, so that owner and set-uid bit stay; it fails if there is another file of that name, as \
                        after an upgrade of qmail: look at it, and take it away";
const REPLACE: &str = "cd /var/qmail/bin; install -m 711 /usr/bin/checkpost-qmail-queue .qmail-queue.new && \
                       sync .qmail-queue.new && mv -T .qmail-queue.new qmail-queue";
const WHY_REPLACE: &str = "every mail that enters qmail is checked; at no moment is there no qmail-queue, and programs that \
                           run go on with the one they started";
const RESTORE: &str = "cd /var/qmail/bin; if [ -u qmail-queue.orig ]; then mv -T qmail-queue.orig qmail-queue; fi; \
                       [ -u qmail-queue ]";
const VERIFY: &str = "cd /var/qmail/bin; [ -u qmail-queue.orig ] && ! [ -u qmail-queue ] && \
                      cmp qmail-queue /usr/bin/checkpost-qmail-queue";
const WHY_VERIFY: &str =
    "to be repeated after every upgrade of qmail, which puts its own program back, and of Checkpost";

/// Our own side is the same for both.
const WAY: &str = "[[way]]\nkind = \"qmail-queue\"\nlisten = \"unix:/run/checkpost/qmail.sock\"\n";

/// All recipes.
pub const RECIPES: [Recipe<Step>; 2] = [
    Recipe {
        kind: "qmail-queue",
        method: Some("by QMAILQUEUE, for chosen services and clients"),
        way: WAY,
        steps: &[Step::Variable, Step::Rules],
    },
    Recipe {
        kind: "qmail-queue",
        method: Some("in qmail-queue's place, for all mail and any qmail"),
        way: WAY,
        steps: &[Step::Save, Step::Replace, Step::Verify],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_saved_before_it_is_replaced_and_can_come_back() {
        let [by_variable, in_place] = &RECIPES;
        assert_eq!((by_variable.kind, in_place.kind), (crate::QUEUE.name, crate::QUEUE.name));
        assert_eq!(in_place.steps, [Step::Save, Step::Replace, Step::Verify]);
        let plan = in_place.plan();
        assert_eq!(plan.steps.iter().filter(|step| step.undo.is_some()).count(), 1);
        for entry in plan.steps {
            let run = entry.run.unwrap();
            assert!(!run.contains("  ") && !run.contains('\n'), "{run}");
        }
        assert!(!LINE.contains("checkpost-qmail-queue "), "the value is a path: no arguments, no blanks");
    }
}
