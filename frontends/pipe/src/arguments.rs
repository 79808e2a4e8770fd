//! The command line, which the mail server's configuration writes.
//!
//! ```text
//! checkpost-pipe [--config FILE] exim --exim-uid UID --caller-uid UID          the envelope is batched SMTP
//! checkpost-pipe [--config FILE] postfix -f SENDER [OPTION VALUE]... -- RECIPIENT...
//! ```

use std::path::PathBuf;

use crate::config::FILE;
use crate::exim::Ids;
use crate::{Envelope, Origin};

/// What the program is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Its settings.
    pub config: PathBuf,
    /// For whom.
    pub mta: Mta,
}

/// The mail server that started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mta {
    /// Exim, and what it says of users.
    Exim(Ids),
    /// Postfix, and the envelope.
    Postfix(Envelope),
}

/// A command line that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("wrong arguments: {0}")]
pub struct ArgumentError(String);

/// Postfix's words for "not known" (pipe(8), XFORWARD_README).
const UNKNOWN: [&[u8]; 3] = [b"", b"unknown", b"[UNAVAILABLE]"];

impl Arguments {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// A word that is not known, or one that is missing.
    pub fn parse(words: impl IntoIterator<Item = Vec<u8>>) -> Result<Self, ArgumentError> {
        let mut words = words.into_iter();
        let mut config = PathBuf::from(FILE);
        loop {
            let word = words.next().unwrap_or_default();
            let mta = match word.as_slice() {
                b"--config" => {
                    config = text(&value(&mut words, &word)?).into();
                    continue;
                }
                b"exim" => Mta::Exim(exim(words)?),
                b"postfix" => Mta::Postfix(postfix(words)?),
                _ => return Err(unknown(&word, "exim, postfix, --config")),
            };
            return Ok(Self { config, mta });
        }
    }
}

fn exim(mut words: impl Iterator<Item = Vec<u8>>) -> Result<Ids, ArgumentError> {
    let mut ids = Ids::default();
    while let Some(word) = words.next() {
        let id = match word.as_slice() {
            b"--exim-uid" => &mut ids.exim,
            b"--caller-uid" => &mut ids.caller,
            _ => return Err(unknown(&word, "--exim-uid, --caller-uid")),
        };
        let number = text(&value(&mut words, &word)?);
        *id = Some(number.parse().map_err(|_| ArgumentError(format!("{number:?} is no user's number")))?);
    }
    Ok(ids)
}

fn postfix(mut words: impl Iterator<Item = Vec<u8>>) -> Result<Envelope, ArgumentError> {
    let (mut sender, mut origin) = (None, Origin::default());
    loop {
        let word = words.next().ok_or_else(|| ArgumentError("no recipients: -- RECIPIENT... is missing".into()))?;
        let known = |value: Vec<u8>| (!UNKNOWN.contains(&value.as_slice())).then(|| text(&value));
        match word.as_slice() {
            b"--" => break,
            b"-f" => sender = Some(value(&mut words, &word)?),
            b"--client" => origin.client = known(value(&mut words, &word)?).and_then(|address| address.parse().ok()),
            b"--client-name" => origin.client_name = known(value(&mut words, &word)?),
            b"--helo" => origin.helo = known(value(&mut words, &word)?),
            b"--user" => origin.user = known(value(&mut words, &word)?),
            b"--id" => origin.queue_id = known(value(&mut words, &word)?),
            _ => return Err(unknown(&word, "-f, --client, --client-name, --helo, --user, --id, --")),
        }
    }
    let sender = sender.ok_or_else(|| ArgumentError("no sender: -f SENDER is missing".into()))?;
    let recipients: Vec<Vec<u8>> = words.collect();
    if recipients.is_empty() {
        return Err(ArgumentError("no recipients behind --".into()));
    }
    Ok(Envelope { sender, recipients, origin })
}

fn value(words: &mut impl Iterator<Item = Vec<u8>>, of: &[u8]) -> Result<Vec<u8>, ArgumentError> {
    words.next().ok_or_else(|| ArgumentError(format!("{} without a value", String::from_utf8_lossy(of))))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn unknown(word: &[u8], accepted: &str) -> ArgumentError {
    ArgumentError(format!("{:?} is not known; accepted: {accepted}", String::from_utf8_lossy(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(words.iter().map(|word| word.as_bytes().to_vec())).map_err(|error| error.to_string())
    }

    #[test]
    fn both_mail_servers_lines_are_read() {
        let parsed = parse(&["exim", "--exim-uid", "100", "--caller-uid", "0"]).unwrap();
        assert_eq!(parsed, Arguments { config: FILE.into(), mta: Mta::Exim(Ids { exim: Some(100), caller: Some(0) }) });
        let words = ["--config", "/x", "postfix", "-f", "", "--client", "192.0.2.7", "--client-name", "unknown"];
        let more = ["--helo", "h", "--user", "", "--id", "4F2", "--", "-x@a.b", "--", "\"a b\"@c.d"];
        let parsed = parse(&[&words[..], &more].concat()).unwrap();
        assert_eq!(parsed.config, PathBuf::from("/x"));
        let Mta::Postfix(envelope) = parsed.mta else { panic!() };
        assert_eq!(envelope.sender, b"");
        // Whatever stands behind the first -- is an address.
        assert_eq!(envelope.recipients, [&b"-x@a.b"[..], b"--", b"\"a b\"@c.d"]);
        let origin = envelope.origin;
        assert_eq!((origin.client, origin.client_name), ("192.0.2.7".parse().ok(), None));
        assert_eq!((origin.helo.as_deref(), origin.user, origin.queue_id.as_deref()), (Some("h"), None, Some("4F2")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, said) in [
            (&[][..], "\"\" is not known; accepted: exim, postfix, --config"),
            (&["sendmail"], "\"sendmail\" is not known"),
            (&["--config"], "--config without a value"),
            (&["exim", "-f"], "\"-f\" is not known; accepted: --exim-uid"),
            (&["exim", "--exim-uid", "Debian-exim"], "\"Debian-exim\" is no user's number"),
            (&["postfix", "-f", "a@b"], "-- RECIPIENT... is missing"),
            (&["postfix", "-f", "a@b", "--"], "no recipients behind --"),
            (&["postfix", "--", "a@b"], "-f SENDER is missing"),
            (&["postfix", "-f"], "-f without a value"),
        ] {
            let error = parse(words).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
