//! Where a ZMailer has its parts: zmailer.conf, which its own programs read as shell assignments (zmailer(8), "ZENV").
//! What would need a shell to be understood is not understood.

use checkpost_setup::{FileKind, Look, LookError};

/// Where it lies, as built and as Debian's own package had it.
const ZENV: [&str; 2] = ["/etc/zmailer.conf", "/etc/zmailer/zmailer.conf"];

/// A ZMailer's folders and options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    /// Its zmailer.conf.
    pub(super) zenv: &'static str,
    /// `MAILBIN`.
    pub(super) bin: String,
    /// `MAILSHARE`.
    pub(super) share: String,
    /// `MAILVAR`.
    pub(super) var: String,
    /// `POSTOFFICE`.
    pub(super) office: String,
    /// `TRUSTEDUSER`, who owns the spool files.
    pub(super) user: String,
    /// `SMTPOPTIONS`: how smtpserver is started.
    pub(super) smtp_options: String,
}

/// What there is.
pub(super) enum Sight {
    /// No ZMailer.
    None,
    /// One whose zmailer.conf is not understood, and why.
    Unclear(&'static str, String),
    /// One.
    Home(Home),
}

impl Home {
    /// Looks for one.
    pub(super) fn find(look: &dyn Look) -> Result<Sight, LookError> {
        for zenv in ZENV {
            if look.about(zenv)?.is_none_or(|about| about.kind != FileKind::File) {
                continue;
            }
            let Some(text) = look.text(zenv)? else { continue };
            return Ok(match Self::read(zenv, &text) {
                Ok(home) => Sight::Home(home),
                Err(why) => Sight::Unclear(zenv, why),
            });
        }
        Ok(Sight::None)
    }

    fn read(zenv: &'static str, text: &str) -> Result<Self, String> {
        let values = assignments(text);
        let get = |name: &str| values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let folder = |name: &str| match get(name) {
            Some(value) if is_plain_path(&value) => Ok(value),
            Some(value) => Err(format!("{name} is {value:?}, which is no plain path")),
            None => Err(format!("{name} is not set in it")),
        };
        Ok(Self {
            zenv,
            bin: folder("MAILBIN")?,
            share: folder("MAILSHARE")?,
            var: folder("MAILVAR")?,
            office: folder("POSTOFFICE")?,
            user: get("TRUSTEDUSER").filter(|user| !user.is_empty()).unwrap_or_else(|| "daemon".into()),
            smtp_options: get("SMTPOPTIONS").unwrap_or_default(),
        })
    }

    /// A command of ours, with this ZMailer's folders in place of the usual ones.
    pub(super) fn in_text(&self, text: &str) -> String {
        text.replace("/opt/zmailer/lib", &self.bin)
            .replace("/opt/zmailer/share", &self.share)
            .replace("/opt/zmailer/var", &self.var)
            .replace("/var/spool/postoffice", &self.office)
    }

    /// smtpserver's configuration.
    pub(super) fn smtpserver(&self) -> String {
        self.in_text(super::SMTPSERVER)
    }

    /// The router's function for each file.
    pub(super) fn process(&self) -> String {
        self.in_text(super::PROCESS_CF)
    }

    /// Is a part of it running? By its file with its process's number.
    pub(super) fn runs(&self, look: &dyn Look, part: &str) -> Result<bool, LookError> {
        let pid = look.text(&format!("{}/.pid.{part}", self.office))?.unwrap_or_default();
        let pid = pid.trim();
        let is_number = !pid.is_empty() && pid.bytes().all(|octet| octet.is_ascii_digit());
        Ok(is_number && look.exists(&format!("/proc/{pid}"))?)
    }
}

/// It goes into commands for a shell, so it has nothing in it that a shell knows.
fn is_plain_path(value: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"/._-+".contains(&octet);
    value.starts_with('/') && value.bytes().all(plain) && !value.contains("..")
}

/// `NAME=value` lines, earlier names expanded. A value that only a shell could know is left out.
fn assignments(text: &str) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let Some((name, rest)) = line.split_once('=') else { continue };
        let is_name = |name: &str| name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_');
        if name.is_empty() || !is_name(name) {
            continue;
        }
        if let Some(value) = value(rest, &values) {
            values.push((name.to_owned(), value));
        }
    }
    values
}

/// One word of a shell, with quotes taken away and variables put in.
fn value(word: &str, known: &[(String, String)]) -> Option<String> {
    let mut value = String::new();
    let mut quote = None;
    let mut rest = word;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\'' | '"' if quote.is_none() => quote = Some(letter),
            _ if quote == Some(letter) => quote = None,
            ' ' | '\t' | ';' if quote.is_none() => break,
            '`' | '\\' if quote != Some('\'') => return None,
            '$' if quote != Some('\'') => {
                let (name, after) = variable(rest)?;
                value.push_str(&known.iter().rev().find(|(other, _)| other == name)?.1);
                rest = after;
            }
            _ => value.push(letter),
        }
    }
    quote.is_none().then_some(value)
}

/// `NAME` or `{NAME}`, and what follows it.
fn variable(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}');
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let text = "# x=1\nprefix=/opt/z\nMAILBIN=${prefix}/lib; export MAILBIN\nexport MAILSHARE=\"$prefix/share\"\nMAILVAR='/v'  # where\n\
                    POSTOFFICE=`pwd`\nSMTPOPTIONS=\"-sve -l $MAILVAR/log\"\nprefix=/other\nBAD=\"open\n";
        let values = assignments(text);
        let get = |name: &str| values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| &**value);
        assert_eq!(get("MAILBIN"), Some("/opt/z/lib"));
        assert_eq!(get("MAILSHARE"), Some("/opt/z/share"));
        assert_eq!(get("MAILVAR"), Some("/v"));
        assert_eq!(get("SMTPOPTIONS"), Some("-sve -l /v/log"));
        assert_eq!((get("POSTOFFICE"), get("BAD"), get("x")), (None, None, None));
        assert!(Home::read(ZENV[0], text).unwrap_err().contains("POSTOFFICE"));
        let home = Home::read(ZENV[0], &text.replace("`pwd`", "/srv/office")).unwrap();
        assert_eq!((&*home.office, &*home.user), ("/srv/office", "daemon"));
        assert_eq!(home.in_text("/opt/zmailer/lib/zmailer smtpserver"), "/opt/z/lib/zmailer smtpserver");
        assert!(Home::read(ZENV[0], &text.replace("`pwd`", "'/srv/a b'")).is_err());
    }
}
