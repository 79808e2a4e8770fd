//! What must be done to a Courier, as data: shown by `configure_mta`, used by the tests against a real Courier, and
//! explained in the README. Nothing is written from here. Every step may be repeated.
//!
//! Sources: courierfilter(8), filterctl(8), courier(8), and Debian's scripts for both.

mod mta;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};

pub use mta::Courier;

/// One change. The commands are for a shell that ends at the first failure (`sh -e`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The program where courierfilter looks for filters.
    Program,
    /// Whose mail is filtered.
    Modules,
    /// The filter is started, and at every start of courierfilter from now on.
    Start,
    /// The filter answers at its socket, within ten seconds.
    Verify,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        let (file, run, undo, why) = match self {
            Self::Program => (PROGRAM, INSTALL, Some(REMOVE), WHY_INSTALL),
            Self::Modules => ("/etc/courier/enablefiltering", MODULES, Some(MODULES_BACK), WHY_MODULES),
            Self::Start => ("/etc/courier/filters/active/checkpost", START, Some(STOP), WHY_START),
            Self::Verify => ("/var/lib/courier/allfilters/checkpost", VERIFY, None, WHY_VERIFY),
        };
        Entry {
            file: Some(file),
            run: Some(run.into()),
            why: Some(why),
            undo: undo.map(Into::into),
            ..Entry::default()
        }
    }
}

const PROGRAM: &str = "/usr/lib/courier/filters/checkpost";

const INSTALL: &str = "install -m 755 \"$(command -v checkpost-courier)\" /usr/lib/courier/filters/.checkpost.new && \
                       mv /usr/lib/courier/filters/.checkpost.new /usr/lib/courier/filters/checkpost";
const WHY_INSTALL: &str = "a copy of the program where filterctl finds it, complete before it has its name; a filter \
                           that runs goes on with the old one";

const REMOVE: &str = "rm -f /usr/lib/courier/filters/checkpost";

const MODULES: &str = "f=/etc/courier/enablefiltering; [ -e $f ] || echo esmtp > $f; \
                       [ -e $f.before-checkpost ] || cp -p $f $f.before-checkpost; m=$(cat $f); \
                       for w in esmtp local; do case \" $m \" in *\" $w \"*) ;; *) m=\"$m $w\" ;; esac; done; \
                       cp -p $f $f.new && echo $m > $f.new && mv $f.new $f";
const WHY_MODULES: &str = "mail of SMTP clients and of local programs is filtered; Debian's default is the first alone. \
                           The file as it was is kept beside it";
const MODULES_BACK: &str = "f=/etc/courier/enablefiltering; [ ! -e $f.before-checkpost ] || mv $f.before-checkpost $f";

const START: &str = "p=/usr/lib/courier/filters/checkpost; a=/etc/courier/filters/active/checkpost; \
                     s=/var/lib/courier/allfilters/checkpost; \
                     if [ \"$(readlink $a)\" = $p ] && ! $p --probe; then filterctl stop checkpost; \
                     for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ ! -e $s ] || sleep 1; done; fi; \
                     [ \"$(readlink $a)\" = $p ] || filterctl start checkpost";
const WHY_START: &str = "filterctl makes a link and tells courierfilter; with the link there it would fail and tell nobody. \
                         A filter that has ended is not started by anything but a stop before it";
const STOP: &str = "[ ! -L /etc/courier/filters/active/checkpost ] || filterctl stop checkpost; ( for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do \
                    [ -e /var/lib/courier/allfilters/checkpost ] || exit 0; sleep 1; done; exit 1 )";

const VERIFY: &str = "( for i in 1 2 3 4 5 6 7 8 9 10; do \
                      ! /usr/lib/courier/filters/checkpost --probe 2> /dev/null || exit 0; sleep 1; done; \
                      filterctl stop checkpost; \
                      echo 'the filter does not answer and was stopped: mail passes unchecked; see the mail log' >&2; exit 1 )";
const WHY_VERIFY: &str =
    "without its socket Courier takes mail and asks nobody; with a socket that nobody answers at it takes none";

/// All recipes.
pub const RECIPES: [Recipe<Step>; 1] = [Recipe {
    kind: "courierfilter",
    method: None,
    way: "[[way]]\nkind = \"courierfilter\"\nlisten = \"unix:/run/checkpost/courier.sock\"\n",
    steps: &[Step::Program, Step::Modules, Step::Start, Step::Verify],
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_starts_last_and_is_checked() {
        let [recipe] = &RECIPES;
        assert_eq!(recipe.kind, crate::COURIERFILTER.name);
        assert_eq!(recipe.steps[recipe.steps.len() - 2..], [Step::Start, Step::Verify]);
        for (step, entry) in recipe.steps.iter().zip(recipe.plan().steps) {
            assert_eq!(entry.undo.is_some(), *step != Step::Verify, "{step:?} is taken back");
            for command in entry.run.iter().chain(&entry.undo) {
                assert!(!command.contains("  ") && !command.contains('\n'), "{command}");
            }
        }
    }
}
