//! Debian's Exim: of which files its configuration is made, in which order, and what stands in them. It looks only.
//! Sources: update-exim4.conf(8) and the script itself, spec.txt ("The runtime configuration file").

use checkpost_setup::{FileKind, Look, LookError};

use super::{BY_HAND, MACROS, OWN_MAIN, TEMPLATE, UPDATE};

const SECTIONS: [(&str, &str); 4] =
    [("main", "main"), ("acl", "acl"), ("router", "routers"), ("transport", "transports")];

/// Debian's files, as they are now.
#[derive(Debug, Default)]
pub(super) struct Debian {
    /// Many files, or one.
    pub(super) split: bool,
    /// Debian's own settings: a shell's file.
    update: String,
    lines: Vec<Line>,
}

/// A line, with those that continue it. Comments and what stands between our marks are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its file.
    pub(super) file: String,
    /// Exim reads it before what we put into the main part.
    pub(super) before_ours: bool,
    section: String,
    /// The macros whose definition in another place makes Exim leave this line out: `.ifndef`.
    unless: Vec<String>,
    /// Its text, without the blanks around it.
    pub(super) text: String,
}

/// An option or a macro in the main part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting<'a> {
    /// Where it stands.
    pub(super) line: &'a Line,
    /// Its value.
    pub(super) value: &'a str,
}

impl Debian {
    /// `None`: it is another configuration, written by hand.
    pub(super) fn read(look: &dyn Look) -> Result<Option<Self>, LookError> {
        if look.exists(BY_HAND)? {
            return Ok(None);
        }
        let update = look.text(UPDATE)?.unwrap_or_default();
        let split = value_in(&update, "dc_use_split_config").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let mut debian = Self { split, update, lines: Vec::new() };
        if split {
            for (folder, section) in SECTIONS {
                let folder = format!("/etc/exim4/conf.d/{folder}");
                let names = look.names(&folder)?;
                for name in names.iter().filter(|name| is_read(name)) {
                    let instead = format!("{name}.rul");
                    let name = if names.contains(&instead) { &instead } else { name };
                    let file = format!("{folder}/{name}");
                    if look.about(&file)?.is_some_and(|about| about.kind != FileKind::Folder) {
                        debian.add(&file, &text(look, &file)?, section, file.as_str() <= OWN_MAIN);
                    }
                }
            }
        } else {
            debian.add(MACROS, &text(look, MACROS)?, "main", true);
            debian.add(TEMPLATE, &text(look, TEMPLATE)?, "main", false);
        }
        for file in debian.included() {
            debian.add(&file, &text(look, &file)?, "acl", false);
        }
        Ok(Some(debian))
    }

    /// Debian's ACLs have macros that name files of the administrator's, each read in its place.
    fn included(&self) -> Vec<String> {
        let macros = self.lines.iter().filter_map(|line| line.text.split_once('='));
        let files = macros.filter(|(name, _)| name.trim_end().ends_with("_LOCAL_ACL_FILE"));
        let files = files.map(|(_, file)| file.trim_start_matches('=').trim().replace("CONFDIR/", "/etc/exim4/"));
        files.filter(|file| file.starts_with('/')).collect()
    }

    fn add(&mut self, file: &str, text: &str, section: &str, before_ours: bool) {
        let mut section = section.to_owned();
        let (mut ours, mut joined) = (false, String::new());
        let mut unless: Vec<Option<String>> = Vec::new();
        for line in text.lines() {
            match line {
                _ if line.starts_with("# BEGIN checkpost") => ours = true,
                _ if line.starts_with("# END checkpost") => ours = false,
                _ if ours || line.trim_start().starts_with('#') => {}
                _ => {
                    joined.push_str(line.trim_start());
                    // A line that ends in a backslash goes on in the next one.
                    if let Some(begun) = joined.trim_end().strip_suffix('\\') {
                        joined = begun.to_owned();
                        continue;
                    }
                    let text = std::mem::take(&mut joined).trim().to_owned();
                    let mut words = text.split_ascii_whitespace();
                    match (words.next(), words.next()) {
                        (None, _) => continue,
                        (Some("begin"), Some(name)) => name.clone_into(&mut section),
                        (Some(".ifndef"), name) => unless.push(name.map(str::to_owned)),
                        (Some(".ifdef"), _) => unless.push(None),
                        // The other branch of an .ifndef is for when it is defined.
                        (Some(".else" | ".elifdef" | ".elifndef"), _) => {
                            if let Some(last) = unless.last_mut() {
                                *last = None;
                            }
                        }
                        (Some(".endif"), _) => drop(unless.pop()),
                        _ => {}
                    }
                    let unless = unless.iter().flatten().cloned().collect();
                    let file = file.to_owned();
                    self.lines.push(Line { file, before_ours, section: section.clone(), unless, text });
                }
            }
        }
    }

    /// Where an option or a macro of the main part is set, other than as a default that gives way to any other.
    pub(super) fn settings<'a>(&'a self, name: &str) -> Vec<Setting<'a>> {
        let mut found = Vec::new();
        for line in self.lines.iter().filter(|line| line.section == "main") {
            let Some((left, value)) = line.text.split_once('=') else { continue };
            if left.trim() == name && !line.unless.iter().any(|unless| unless == name) {
                found.push(Setting { line, value: value.trim_start_matches('=').trim() });
            }
        }
        found
    }

    /// A line anywhere that has this in it.
    pub(super) fn says(&self, part: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.text.contains(part))
    }

    /// A router that comes before the first of ours: in the split layout our file has its place among others, in the one
    /// file we are first.
    pub(super) fn earlier_router(&self, ours: &str) -> Option<&Line> {
        let is_name = |text: &str| text.strip_suffix(':').is_some_and(|name| name.bytes().all(is_word));
        let mut routers = self.lines.iter().filter(|line| line.section == "routers" && is_name(&line.text));
        routers.find(|line| self.split && line.file.as_str() < ours)
    }

    /// One of Debian's own settings.
    pub(super) fn dc(&self, key: &str) -> Option<&str> {
        value_in(&self.update, key)
    }
}

/// To be looked at only: a comment in another character set is no reason to stop.
fn text(look: &dyn Look, path: &str) -> Result<String, LookError> {
    let octets = look.file(path)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// As run-parts has it: other names are not read.
fn is_read(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| is_word(octet) || octet == b'-')
}

fn is_word(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'_'
}

/// The value of a shell's variable, if it is a plain text.
fn value_in<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))?.trim();
    let inside = |mark: char| value.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    let value = inside('\'').or_else(|| inside('"')).unwrap_or(value);
    (!value.contains(['\'', '"', '$', '`', '\\'])).then_some(value)
}

/// The file with one more address for Exim to listen at; the same text if it is there.
///
/// # Errors
/// Why that cannot be said, in a few words.
pub(super) fn listening(text: &str, address: &str) -> Result<String, &'static str> {
    const KEY: &str = "dc_local_interfaces";
    let is = |line: &str| line.trim_start().starts_with("dc_local_interfaces=");
    let lines = text.lines().filter(|line| is(line)).count();
    if lines > 1 {
        return Err("dc_local_interfaces is set more than once");
    }
    let before = match value_in(text, KEY) {
        Some(before) => before.trim().trim_end_matches(';').trim_end(),
        None if lines == 0 => "",
        None => return Err("the value of dc_local_interfaces is no plain text"),
    };
    if before.split(';').any(|item| item.trim() == address) {
        return Ok(text.to_owned());
    }
    if before.starts_with('<') || before.contains(':') && !before.contains(';') {
        return Err("the addresses in dc_local_interfaces are not separated by semicolons");
    }
    // An empty list means all addresses, and stays that.
    let before = if before.is_empty() { "0.0.0.0 ; ::0" } else { before };
    let line = format!("{KEY}='{before} ; {address}'");
    if lines == 0 {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{line}\n"));
    }
    let new = |old: &str| format!("{line}{}", &old[old.trim_end_matches(['\r', '\n']).len()..]);
    Ok(text.split_inclusive('\n').map(|old| if is(old) { new(old) } else { old.to_owned() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_file(macros: &str, template: &str) -> Debian {
        let mut debian = Debian::default();
        debian.add(MACROS, macros, "main", true);
        debian.add(TEMPLATE, template, "main", false);
        debian
    }

    #[test]
    fn settings_are_those_of_the_main_part_that_count() {
        let template = ".ifndef A\nA = default\n.endif\nopt = A\n.ifndef B\n.else\nB == again\n.endif\n\
                        long = one \\\n  two\n# no = comment\nbegin acl\nacl_x:\n  deny\n    message = B\n";
        let debian = one_file("A = mine\n# BEGIN checkpost\nC = ours\n# END checkpost\n", template);
        let values = |name: &str| debian.settings(name).iter().map(|setting| setting.value).collect::<Vec<_>>();
        assert_eq!(values("A"), ["mine"]);
        assert_eq!(values("B"), ["again"]);
        assert_eq!(values("long"), ["one two"]);
        for none in ["C", "no", "message", "# no"] {
            assert!(values(none).is_empty(), "{none}");
        }
        let (a, b) = (debian.settings("A"), debian.settings("B"));
        assert!(a[0].line.before_ours && !b[0].line.before_ours);
        assert!(debian.says("message = B").is_some() && debian.says("comment").is_none());
    }

    #[test]
    fn names_are_read_as_by_run_parts() {
        for (name, read) in [("01_exim4-config", true), ("x.rul", false), ("x.dpkg-old", false), ("x~", false)] {
            assert_eq!(is_read(name), read, "{name}");
        }
    }

    #[test]
    fn debians_settings_are_a_shells() {
        let text = "# dc_x='no'\ndc_x='1 ; 2'\ndc_y=true\ndc_z=\"a\"\ndc_odd=\"$HOME\"\n";
        let all =
            [("dc_x", Some("1 ; 2")), ("dc_y", Some("true")), ("dc_z", Some("a")), ("dc_odd", None), ("dc", None)];
        for (key, value) in all {
            assert_eq!(value_in(text, key), value, "{key}");
        }
    }

    #[test]
    fn an_address_is_added_once_and_the_rest_stays() {
        let add = |text: &str| listening(text, "127.0.0.1.10026");
        let text = "# kept\ndc_local_interfaces='127.0.0.1 ; ::1'\ndc_other='x'\n";
        let once = add(text).unwrap();
        assert_eq!(once, "# kept\ndc_local_interfaces='127.0.0.1 ; ::1 ; 127.0.0.1.10026'\ndc_other='x'\n");
        assert_eq!(add(&once).unwrap(), once);
        let all = "dc_local_interfaces='0.0.0.0 ; ::0 ; 127.0.0.1.10026'\n";
        assert_eq!(add("dc_local_interfaces=''\n").unwrap(), all);
        assert_eq!(add("").unwrap(), all);
        assert_eq!(add("dc_x=''").unwrap(), format!("dc_x=''\n{all}"));
        for odd in [
            "dc_local_interfaces='<, 127.0.0.1'\n",
            "dc_local_interfaces='127.0.0.1 : 10.0.0.1'\n",
            "dc_local_interfaces=\"$all\"\n",
            "dc_local_interfaces=''\ndc_local_interfaces=''\n",
        ] {
            assert!(add(odd).is_err(), "{odd}");
        }
    }
}
