//! The recipes for the way by `local_scan()`. Sources: local_scan.h of Debian's exim4-dev, the chapter "Adding a local scan
//! function" of Exim's manual.

use checkpost_adapter::setup::Recipe;

use super::{MACROS, ONE_FILE, OWN_MAIN, Place, SPLIT, Step};

/// Where Exim is told to look for the library.
pub(super) const LIBRARY: &str = "/usr/lib/exim4/local_scan/checkpost.so";

pub(super) const INSTALL: &str = "d=/usr/lib/exim4/local_scan; install -d -m 755 $d; \
                                  install -m 644 /usr/lib/checkpost/libcheckpost_exim_local_scan.so $d/.checkpost.new && \
                                  sync $d/.checkpost.new && mv -T $d/.checkpost.new $d/checkpost.so";
pub(super) const WHY_INSTALL: &str = "complete before it has its name, and never written over: processes that have loaded \
                                      the old one go on with it. To be repeated after every upgrade of Checkpost";
/// When the setting is gone: Exim reads that first, since without the library it would refuse all mail for now.
pub(super) const REMOVE: &str = "update-exim4.conf --check && update-exim4.conf && service exim4 restart && \
                                 rm -f /usr/lib/exim4/local_scan/checkpost.so";

/// Exim's main option.
const SETTING: &str = "local_scan_path = /usr/lib/exim4/local_scan/checkpost.so\n";
const WHY_SETTING: &str = "Exim asks the library for every mail. The option must be set once only: Exim does not start \
                           with two. Never set it before the library is there: Exim would refuse all mail for now";

const VERIFY: Step = Step::Verify {
    run: "exim4 -bP local_scan_path | grep -qx 'local_scan_path = /usr/lib/exim4/local_scan/checkpost.so'; \
          ! exim4 -bP config | grep -q '^[^#]*cutthrough_delivery'",
    why: "the setting is in force; and no ACL hands mail on before it is taken (control = cutthrough_delivery), past what \
          Checkpost says of its header and recipients",
};

/// Our own side is the same for both.
const WAY: &str = "[[way]]\nkind = \"exim-local-scan\"\nlisten = \"unix:/run/checkpost/exim.sock\"\n";

/// All recipes.
pub const RECIPES: [Recipe<Step>; 2] = [
    Recipe {
        kind: "exim-local-scan",
        method: Some(SPLIT),
        way: WAY,
        steps: &[
            Step::Library,
            Step::Lines { file: OWN_MAIN, place: Place::Whole, lines: SETTING, why: WHY_SETTING },
            Step::Restart,
            VERIFY,
        ],
    },
    Recipe {
        kind: "exim-local-scan",
        method: Some(ONE_FILE),
        way: WAY,
        steps: &[
            Step::Library,
            Step::Lines { file: MACROS, place: Place::Macros, lines: SETTING, why: WHY_SETTING },
            Step::Restart,
            VERIFY,
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_there_before_exim_is_told_of_it() {
        for recipe in RECIPES {
            assert!(matches!(recipe.steps, [Step::Library, Step::Lines { .. }, Step::Restart, Step::Verify { .. }]));
        }
        assert!(SETTING.ends_with(&format!(" = {LIBRARY}\n")) && INSTALL.ends_with("$d/checkpost.so"));
    }
}
