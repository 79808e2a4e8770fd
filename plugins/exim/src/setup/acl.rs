//! The recipes for the ways by the DATA ACL. Sources: the chapters "Content scanning at ACL time" and "Access control
//! lists" of Exim's manual, README.Debian of exim4-base.

use checkpost_adapter::setup::Recipe;

use super::{MACROS, ONE_FILE, OWN_MAIN, Place, SPLIT, Step};

/// The ACL's lines, for mail by SMTP.
pub(super) const DATA: &str = "/etc/exim4/checkpost_check_data";
/// The same for mail of local programs, as an ACL of its own.
pub(super) const NOT_SMTP: &str = "/etc/exim4/checkpost_not_smtp";
/// Debian's macro that names a file for its DATA ACL.
pub(super) const DATA_MACRO: &str = "CHECK_DATA_LOCAL_ACL_FILE";

const WHY_MAIN: &str = "each option must be set once in all of Exim's files: Exim does not start with two";
const WHY_DATA: &str = "`deny`, never `warn`: when nothing answers, `deny` puts the mail off, and `warn` lets it pass";
const WHY_NOT_SMTP: &str = "mail of local programs does not come by SMTP, and would not be checked";

/// Where the ACL's lines are.
macro_rules! main {
    ($who:literal) => {
        concat!(
            $who,
            "\nCHECK_DATA_LOCAL_ACL_FILE = /etc/exim4/checkpost_check_data\n",
            "acl_not_smtp = /etc/exim4/checkpost_not_smtp\n"
        )
    };
}

const CLAMD_MAIN: &str = main!("av_scanner = clamd:127.0.0.1 13310");
const RSPAMD_MAIN: &str = main!("spamd_address = 127.0.0.1 13311 variant=rspamd");
const SPAMD_MAIN: &str = main!("spamd_address = 127.0.0.1 13312");

/// The lines, and the same as a whole ACL.
macro_rules! acl {
    ($data:ident, $not_smtp:ident, $($line:literal),+) => {
        const $data: &str = concat!($($line, "\n"),+);
        const $not_smtp: &str = concat!($($line, "\n"),+, "\naccept\n");
    };
}

acl!(CLAMD_DATA, CLAMD_NOT_SMTP, "deny", "  malware = *", "  message = This message was refused ($malware_name)");

acl!(SPAMD_DATA, SPAMD_NOT_SMTP, "deny", "  spam = nobody", "  message = This message was refused by the mail filter");

acl!(
    RSPAMD_DATA,
    RSPAMD_NOT_SMTP,
    "deny",
    "  spam = nobody:true",
    "  condition = ${if eq{$spam_action}{reject}}",
    "  message = This message was refused by the mail filter",
    "discard",
    "  condition = ${if eq{$spam_action}{discard}}",
    "  log_message = discarded as Checkpost said",
    "warn",
    "  condition = ${if eq{$spam_action}{quarantine}}",
    "  control = freeze/no_tell",
    "deny",
    "  condition = ${if !inlist{$spam_action}{no action:quarantine}}",
    "  message = This message was refused by the mail filter"
);

/// The ACL's lines for those who want mail to pass unscanned while nothing answers: a failure counts as "no".
/// Behind it nothing may ask for `$spam_action`, which is then that of no mail, or of another.
pub(super) fn open(lines: &str) -> String {
    let mut text = lines
        .replace("  malware = *\n", "  malware = */defer_ok\n")
        .replace("  spam = nobody\n", "  spam = nobody/defer_ok\n");
    if text.contains("$spam_action") {
        text = text.replace("  spam = nobody:true\n", "").replace("$spam_action", "$acl_m_checkpost").replace(
            "{no action:quarantine}",
            // The first item is empty: nobody has answered.
            "{: no action : quarantine}",
        );
        // Set in any case, for those who have strict_acl_vars.
        let ask = "warn\n  set acl_m_checkpost =\n\
                   warn\n  spam = nobody:true/defer_ok\n  set acl_m_checkpost = $spam_action\n";
        text.insert_str(0, ask);
    }
    text
}

const CLAMD_WAY: &str = "[[way]]\nkind = \"exim-clamd\"\nlisten = \"127.0.0.1:13310\"\n";
const RSPAMD_WAY: &str = "[[way]]\nkind = \"exim-rspamd\"\nlisten = \"127.0.0.1:13311\"\n";
const SPAMD_WAY: &str = "[[way]]\nkind = \"exim-spamd\"\nlisten = \"127.0.0.1:13312\"\n";

const fn data(lines: &'static str) -> Step {
    Step::Lines { file: DATA, place: Place::Whole, lines, why: WHY_DATA }
}

const fn not_smtp(lines: &'static str) -> Step {
    Step::Lines { file: NOT_SMTP, place: Place::Whole, lines, why: WHY_NOT_SMTP }
}

const fn split(lines: &'static str) -> Step {
    Step::Lines { file: OWN_MAIN, place: Place::Whole, lines, why: WHY_MAIN }
}

const fn one_file(lines: &'static str) -> Step {
    Step::Lines { file: MACROS, place: Place::Macros, lines, why: WHY_MAIN }
}

/// All recipes.
pub const RECIPES: [Recipe<Step>; 6] = [
    Recipe {
        kind: "exim-rspamd",
        method: Some(SPLIT),
        way: RSPAMD_WAY,
        steps: &[data(RSPAMD_DATA), not_smtp(RSPAMD_NOT_SMTP), split(RSPAMD_MAIN), Step::Restart],
    },
    Recipe {
        kind: "exim-rspamd",
        method: Some(ONE_FILE),
        way: RSPAMD_WAY,
        steps: &[data(RSPAMD_DATA), not_smtp(RSPAMD_NOT_SMTP), one_file(RSPAMD_MAIN), Step::Restart],
    },
    Recipe {
        kind: "exim-clamd",
        method: Some(SPLIT),
        way: CLAMD_WAY,
        steps: &[data(CLAMD_DATA), not_smtp(CLAMD_NOT_SMTP), split(CLAMD_MAIN), Step::Restart],
    },
    Recipe {
        kind: "exim-clamd",
        method: Some(ONE_FILE),
        way: CLAMD_WAY,
        steps: &[data(CLAMD_DATA), not_smtp(CLAMD_NOT_SMTP), one_file(CLAMD_MAIN), Step::Restart],
    },
    Recipe {
        kind: "exim-spamd",
        method: Some(SPLIT),
        way: SPAMD_WAY,
        steps: &[data(SPAMD_DATA), not_smtp(SPAMD_NOT_SMTP), split(SPAMD_MAIN), Step::Restart],
    },
    Recipe {
        kind: "exim-spamd",
        method: Some(ONE_FILE),
        way: SPAMD_WAY,
        steps: &[data(SPAMD_DATA), not_smtp(SPAMD_NOT_SMTP), one_file(SPAMD_MAIN), Step::Restart],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipes_fail_closed_and_name_one_address() {
        for recipe in RECIPES {
            let port = recipe.way.split("127.0.0.1:").nth(1).unwrap().trim_end_matches(['"', '\n']);
            let [
                Step::Lines { lines: data, .. },
                Step::Lines { lines: not_smtp, .. },
                Step::Lines { lines: main, .. },
                Step::Restart,
            ] = recipe.steps
            else {
                panic!("{:?}", recipe.steps)
            };
            assert!(main.contains(&format!("127.0.0.1 {port}")), "{main}");
            assert_eq!(format!("{data}\naccept\n"), *not_smtp);
            // The first question decides what a failure does.
            let asks = ["deny\n  malware = *\n", "deny\n  spam = nobody:true\n", "deny\n  spam = nobody\n"];
            assert!(asks.iter().any(|ask| data.starts_with(ask)), "{data}");
            assert!(!data.contains("defer_ok"));
            assert_eq!(open(data).matches("/defer_ok\n").count(), 1, "{}", open(data));
        }
    }

    #[test]
    fn open_asks_once_and_takes_no_answer_for_none() {
        let text = open(RSPAMD_DATA);
        let ask = "warn\n  spam = nobody:true/defer_ok\n  set acl_m_checkpost = $spam_action\ndeny\n  condition";
        assert!(text.contains(ask), "{text}");
        assert_eq!(text.matches("$spam_action").count(), 1, "{text}");
        assert!(text.contains("  condition = ${if !inlist{$acl_m_checkpost}{: no action : quarantine}}\n"), "{text}");
    }
}
