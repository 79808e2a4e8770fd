//! Attachment rules: by declared name, and by what the octets really are.

use file_format::{FileFormat, Kind};
use serde::Deserialize;

use crate::config::{OneOrMany, glob};

/// One `[[filter.built-in.attachment]]`. It holds when the name fits one of `file` or the real type
/// is one of `type`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachmentRule {
    /// The finding's name.
    pub name: String,
    /// Patterns for file names, with `*` and `?`, compared without case: `*.exe`.
    #[serde(default)]
    pub file: OneOrMany<String>,
    /// Real types, by the first octets whatever the name says: a media type (patterns too, as in
    /// `application/x-*`) or a group: `executable`, `archive`, `script`, `office-macro`.
    #[serde(default, rename = "type")]
    pub types: OneOrMany<String>,
    /// Look at members of archives too. Default true.
    #[serde(default = "yes")]
    pub in_archives: bool,
}

fn yes() -> bool {
    true
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A word that is neither a group nor a media type.
    #[error(
        "attachment rule {rule:?}: unknown type {given:?}; accepted: {}, or a media type such as \"application/pdf\"",
        GROUPS.join(", ")
    )]
    Type {
        /// The rule.
        rule: String,
        /// What was written.
        given: String,
    },
    /// Neither names nor types.
    #[error("attachment rule {rule:?} has neither `file` nor `type`, so it would never hold")]
    Empty {
        /// The rule.
        rule: String,
    },
}

/// The groups of real types.
pub(super) const GROUPS: [&str; 4] = ["executable", "archive", "script", "office-macro"];

/// All rules, checked.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<AttachmentRule>,
    /// Does any rule look at types?
    types: bool,
}

impl Rules {
    pub(super) fn new(rules: Vec<AttachmentRule>) -> Result<Self, RuleError> {
        for rule in &rules {
            if rule.file.0.is_empty() && rule.types.0.is_empty() {
                return Err(RuleError::Empty { rule: rule.name.clone() });
            }
            if let Some(given) = rule.types.0.iter().find(|given| !GROUPS.contains(&&***given) && !given.contains('/'))
            {
                return Err(RuleError::Type { rule: rule.name.clone(), given: given.clone() });
            }
        }
        let types = rules.iter().any(|rule| !rule.types.0.is_empty());
        Ok(Self { rules, types })
    }

    /// The rules that hold for a file of this name, as it is and as it would be opened.
    pub(super) fn by_name<'a>(&'a self, name: &'a str, archived: bool) -> impl Iterator<Item = &'a str> {
        let names = readings(name);
        self.applying(archived)
            .filter(move |rule| rule.file.0.iter().any(|pattern| names.iter().any(|name| glob::matches(pattern, name))))
            .map(|rule| &*rule.name)
    }

    /// The rules that hold for a file that begins with these octets.
    pub(super) fn by_octets(&self, octets: &[u8], archived: bool) -> Vec<&str> {
        if !self.types || octets.is_empty() {
            return Vec::new();
        }
        let (media_type, group) = real_type(octets);
        let holds = |wanted: &String| group == Some(&**wanted) || glob::matches(wanted, media_type);
        self.applying(archived).filter(|rule| rule.types.0.iter().any(holds)).map(|rule| &*rule.name).collect()
    }

    /// The rules that hold for an office document with macros.
    pub(super) fn by_macros(&self, archived: bool) -> impl Iterator<Item = &str> {
        self.applying(archived)
            .filter(|rule| rule.types.0.iter().any(|wanted| wanted == "office-macro"))
            .map(|rule| &*rule.name)
    }

    pub(super) fn look_at_types(&self) -> bool {
        self.types
    }

    fn applying(&self, archived: bool) -> impl Iterator<Item = &AttachmentRule> {
        self.rules.iter().filter(move |rule| rule.in_archives || !archived)
    }
}

/// A file's name without its folders; as Windows opens it, without trailing dots and blanks; without
/// what does not show, such as the marks that make `exe.txt` look like `txt.exe`; and cut where C
/// and NTFS end it.
fn readings(name: &str) -> [String; 3] {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let visible: String = base.chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect();
    let cut = base.split(['\0', ':']).next().unwrap_or(base);
    [base.to_owned(), visible.trim_end_matches(['.', ' ']).trim_start().to_owned(), cut.to_owned()]
}

/// Zero-width and direction marks.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
}

/// Is it a text that an interpreter runs? Only what a mark tells: a shell's, a batch file's, PHP's, an
/// encoded VBScript's or JScript's, a Windows script file's.
fn is_script(octets: &[u8]) -> bool {
    const STARTS: [&[u8]; 7] = [b"#!", b"@echo ", b"<?php", b"#@~^", b"<job", b"<package>", b"<script"];
    let text = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets).trim_ascii_start();
    let text = text[..text.len().min(16)].to_ascii_lowercase();
    STARTS.iter().any(|start| text.starts_with(start))
}

/// Media type and group by the first octets.
fn real_type(octets: &[u8]) -> (&'static str, Option<&'static str>) {
    if octets.starts_with(b"#!") {
        return ("text/x-shellscript", Some("script"));
    }
    // DOS programs have no more than two letters for a mark; what the library knows goes first.
    let format = FileFormat::from_bytes(octets);
    let group = match format.kind() {
        Kind::Executable => Some("executable"),
        Kind::Archive | Kind::Compressed | Kind::Package | Kind::Disk => Some("archive"),
        _ if octets.starts_with(b"MZ") => Some("executable"),
        _ if is_script(octets) => Some("script"),
        _ => None,
    };
    let group = match media_type_of(format) {
        "application/x-msi" | "application/x-ms-shortcut" | "application/java-vm" | "application/vnd.android.dex" => {
            Some("executable")
        }
        _ => group,
    };
    (media_type_of(format), group)
}

fn media_type_of(format: FileFormat) -> &'static str {
    // The library ties the text to the value, which is a copy of a constant: take the constant.
    FileFormat::from_media_type(format.media_type())
        .first()
        .map_or("application/octet-stream", |first| first.media_type())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Document, Problems};

    fn rules(text: &str) -> Result<Rules, RuleError> {
        let mut problems = Problems::default();
        let rules = Document::parse("test", text, &mut problems).take_list("rule", &mut problems);
        assert!(problems.is_empty(), "{problems}");
        Rules::new(rules.into_iter().map(|rule| rule.value).collect())
    }

    #[test]
    fn names_and_types() {
        let rules = rules(
            "rule = [{ name = 'programs', file = ['*.exe', '*.scr'], type = 'executable' },
                     { name = 'outside', file = '*.zip', in_archives = false },
                     { name = 'pdf', type = 'application/pdf' }]",
        )
        .unwrap();
        let by_name = |name, archived| rules.by_name(name, archived).collect::<Vec<_>>();
        assert_eq!(by_name("invoice.pdf.EXE", false), ["programs"]);
        assert_eq!(by_name("x/y.scr. ", true), ["programs"]);
        assert_eq!(by_name("a.zip", false), ["outside"]);
        assert!(by_name("a.zip", true).is_empty());
        assert!(by_name("exe", false).is_empty());
        for disguised in ["a\u{202e}.e\u{200b}xe", "a.exe\0.txt", "a.exe:stream", "a\\b.exe. ."] {
            assert_eq!(by_name(disguised, false), ["programs"], "{disguised:?}");
        }
        assert_eq!(rules.by_octets(b"MZ\x90\0", false), ["programs"]);
        assert_eq!(rules.by_octets(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0", false), ["programs"]);
        assert_eq!(rules.by_octets(b"%PDF-1.7\n", true), ["pdf"]);
        assert!(rules.by_octets(b"just text", false).is_empty());
    }

    #[test]
    fn what_would_never_hold_is_an_error() {
        let error = rules("rule = [{ name = 'a', type = 'program' }]").unwrap_err().to_string();
        assert_eq!(
            error,
            "attachment rule \"a\": unknown type \"program\"; accepted: executable, archive, script, office-macro, \
             or a media type such as \"application/pdf\""
        );
        assert!(matches!(rules("rule = [{ name = 'a' }]"), Err(RuleError::Empty { .. })));
    }
}
