//! What becomes of our lines where some of them are set already: an option, or a macro, may stand once in all of Exim's
//! files. What goes together is merged, else it is said what is in the way.

use checkpost_setup::Obstacle;

use super::acl::DATA_MACRO;
use super::debian::{Debian, Setting};

/// What others may have in the place of a line of ours.
enum Rule {
    /// A macro: theirs goes into ours, in this word's place, and ours is read after theirs.
    Within(&'static str),
    /// Theirs stays if it is no limit (0) or at least this.
    NoLimitBelow(u32),
    /// Theirs stays if it is at least this.
    AtLeast(u32),
    /// Theirs stays if it has this host.
    Has(&'static str),
    /// Nothing else; what would help.
    Nothing(&'static str),
}

fn rule(name: &str) -> Rule {
    match name {
        "MAIN_ACL_CHECK_MAIL" => Rule::Within("acl_check_mail"),
        "MAIN_ACL_CHECK_RCPT" => Rule::Within("acl_check_rcpt"),
        "MAIN_ACL_CHECK_DATA" => Rule::Within("acl_check_data"),
        "MESSAGE_SIZE_LIMIT" => Rule::Within("50M"),
        // Ours asks before the lines of theirs, which are included below it.
        DATA_MACRO => Rule::Within(""),
        "smtp_accept_max" => Rule::NoLimitBelow(40),
        "smtp_accept_reserve" => Rule::AtLeast(20),
        "smtp_reserve_hosts" => Rule::Has("127.0.0.1"),
        "av_scanner" => Rule::Nothing("take exim-rspamd, which goes together with it, or take that line out"),
        "spamd_address" => Rule::Nothing("take exim-clamd, which goes together with it, or take that line out"),
        "acl_not_smtp" => Rule::Nothing(
            "say --set scope=outside, and mail of local programs is not checked; or take that line out, with what it is \
             good for",
        ),
        _ => Rule::Nothing("take that line out, with what it is good for"),
    }
}

/// Our lines for the main part, as they go together with what is there.
pub(super) fn merged(ours: &str, debian: &Debian) -> Result<String, Obstacle> {
    let mut text = String::new();
    for line in ours.lines() {
        let set = line.split_once(" = ").filter(|_| !line.starts_with('#'));
        let (name, value) = set.unwrap_or_default();
        match debian.settings(name)[..] {
            [] => text.extend([line, "\n"]),
            [theirs] if theirs.value == value => {}
            [theirs] => text.push_str(&one(name, value, theirs)?),
            [first, ..] => {
                let file = &first.line.file;
                return Err(Obstacle::new(format!("{name} is set more than once, in {file} and again"), "set it once"));
            }
        }
    }
    Ok(text)
}

/// What stands in the place of our line.
fn one(name: &str, value: &str, theirs: Setting<'_>) -> Result<String, Obstacle> {
    let file = &theirs.line.file;
    let why = |why: &str| format!("{file} says {:?}, {why}", theirs.line.text);
    let number = || theirs.value.parse::<u32>().ok();
    match rule(name) {
        Rule::Within(word) => {
            if !theirs.line.before_ours {
                let hint = "set it in /etc/exim4/exim4.conf.localmacros, or in conf.d/main/000_localmacros";
                return Err(Obstacle::new(why("behind the place where it can be made to go together"), hint));
            }
            // Anything but a name or a number would need to be understood.
            let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"_-/.".contains(&octet);
            if theirs.value.is_empty() || !theirs.value.bytes().all(plain) {
                return Err(Obstacle::new(why("which is no plain name"), "make it one, or take the line out"));
            }
            let value = if word.is_empty() { value.to_owned() } else { value.replace(word, theirs.value) };
            Ok(format!("{name} == {value}\n"))
        }
        Rule::NoLimitBelow(least) if number().is_some_and(|number| number == 0 || number >= least) => Ok(String::new()),
        Rule::AtLeast(least) if number().is_some_and(|number| number >= least) => Ok(String::new()),
        Rule::Has(host) if theirs.value.split([':', ';', ' ']).any(|word| word == host || word == "*") => {
            Ok(String::new())
        }
        Rule::NoLimitBelow(least) => {
            let short = "and half of these connections are kept for mail that comes back";
            Err(Obstacle::new(why(short), format!("set it to {least} or more")))
        }
        Rule::AtLeast(least) => {
            let short = "and that many connections are kept for mail that comes back";
            Err(Obstacle::new(why(short), format!("set it to {least} or more")))
        }
        Rule::Has(host) => {
            Err(Obstacle::new(why("and mail comes back from another host"), format!("add {host} to it")))
        }
        Rule::Nothing(hint) => Err(Obstacle::new(why(&format!("and Exim takes {name} once")), hint)),
    }
}
