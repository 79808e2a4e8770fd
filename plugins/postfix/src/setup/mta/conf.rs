//! One instance of Postfix, asked and edited by its own programs, so that `main.cf` and `master.cf` stay in Postfix's
//! own hand.

use checkpost_setup::{Change, Command, Look, LookError};

/// The first instance's folder; others are in `multi_instance_directories` (postmulti(1)).
pub(super) const FIRST: &str = "/etc/postfix";

/// One instance.
pub(super) struct Conf<'a> {
    pub(super) look: &'a dyn Look,
    pub(super) folder: String,
}

impl<'a> Conf<'a> {
    pub(super) fn new(look: &'a dyn Look, folder: &str) -> Self {
        Self { look, folder: folder.to_owned() }
    }

    /// What a program says; `None` if it is not there or does not end well.
    pub(super) fn run(&self, program: &str, words: &[&str]) -> Result<Option<String>, LookError> {
        let said = self.look.run(&[&[program, "-c", &self.folder], words].concat())?;
        Ok(said.filter(checkpost_setup::Said::ok).map(|said| said.out))
    }

    /// A parameter's value as it counts.
    pub(super) fn value(&self, name: &str) -> Result<String, LookError> {
        Ok(self.run("postconf", &["-hx", name])?.unwrap_or_default().trim().to_owned())
    }

    /// All parameters that main.cf sets, as written there.
    pub(super) fn set(&self) -> Result<Set, LookError> {
        let text = self.run("postconf", &["-n"])?.unwrap_or_default();
        let pair =
            |line: &str| line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Ok(Set(text.lines().filter_map(pair).collect()))
    }

    /// All services of master.cf, in the words of its columns.
    pub(super) fn services(&self) -> Result<Vec<Vec<String>>, LookError> {
        let text = self.run("postconf", &["-M"])?.unwrap_or_default();
        let words = |line: &str| line.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // service type private unpriv chroot wakeup maxproc command (master(5)).
        Ok(text.lines().map(words).filter(|words| words.len() >= 8).collect())
    }

    /// An option of a service in master.cf.
    pub(super) fn option(&self, service: &str, name: &str) -> Result<Option<String>, LookError> {
        let text = self.run("postconf", &["-P", &format!("{service}/{name}")])?.unwrap_or_default();
        Ok(text.lines().find_map(|line| line.split_once('=')).map(|(_, value)| value.trim().to_owned()))
    }

    /// All options of all services: service, parameter, value.
    pub(super) fn options(&self) -> Result<Vec<(String, String, String)>, LookError> {
        let text = self.run("postconf", &["-P"])?.unwrap_or_default();
        let one = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let (service, parameter) = name.trim().rsplit_once('/')?;
            Some((service.to_owned(), parameter.to_owned(), value.trim().to_owned()))
        };
        Ok(text.lines().filter_map(one).collect())
    }

    pub(super) fn command(&self, program: &str, words: &[&str]) -> Command {
        Command::new([&[program, "-c", &self.folder], words].concat())
    }

    pub(super) fn postfix(&self, word: &str) -> Command {
        self.command("postfix", &[word])
    }

    /// Returns when new connections are served by the new settings: reload only tells master(8), and for some
    /// 80 ms (3.7.11) idle processes of before take clients still. Those with a client go on with it, so there is an end to the waiting.
    pub(super) fn reload(&self, queue: &str) -> Command {
        let (status, reload) = (self.postfix("status"), self.postfix("reload"));
        let script = format!(
            "if {status} 2> /dev/null; then \
             old=$(cat /proc/$(tr -d ' ' < {queue}/pid/master.pid)/task/*/children) || old=; {reload}; n=0; \
             for p in $old; do while grep -qsE '^(smtpd|cleanup|pickup)$' /proc/$p/comm && [ $n -lt 50 ]; \
             do n=$((n + 1)); sleep 0.1; done; done; fi",
            queue = checkpost_setup::shell(&[queue]),
        );
        Command::shell("postfix reload", script)
    }

    pub(super) fn edit(&self, file: &str, words: &[&str], why: &str) -> Change {
        let path = format!("{}/{file}", self.folder);
        Change::run(self.command("postconf", words), &[&path], why)
    }
}

/// What main.cf sets.
pub(super) struct Set(Vec<(String, String)>);

impl Set {
    /// A parameter, if main.cf sets it.
    pub(super) fn has(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(set, _)| set == name).map(|(_, value)| &**value)
    }
}

/// A time of Postfix: a number and a letter.
pub(super) fn seconds(time: &str) -> Option<u64> {
    let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &time[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (time, expected) in
            [("300s", Some(300)), ("5m", Some(300)), ("1h", Some(3600)), ("20", Some(20)), ("x", None)]
        {
            assert_eq!(seconds(time), expected, "{time}");
        }
    }
}
