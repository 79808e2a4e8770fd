//! One command line to one [`Command`] and back (RFC 5321, 2033, 3030, 4954; Postfix XCLIENT, XFORWARD).
//! Knows no order of commands and no extensions in force: the session does.

use bytes::BytesMut;

use super::attributes::Attributes;
use super::params::Params;
use super::path::{Path, PathError};

pub use super::line::{LineEvent, Lines, next_line};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO with the client's name, as given and printable.
    Ehlo(Box<str>),
    /// HELO.
    Helo(Box<str>),
    /// LHLO (RFC 2033).
    Lhlo(Box<str>),
    /// MAIL FROM.
    Mail {
        /// The sender.
        path: Path,
        /// In order, as given.
        params: Params,
    },
    /// RCPT TO.
    Rcpt {
        /// The recipient, never null. Needs SMTPUTF8 in the transaction when it is not ASCII: the session checks.
        path: Path,
        /// In order, as given.
        params: Params,
    },
    /// DATA.
    Data,
    /// BDAT (RFC 3030): `size` octets follow the line at once, also when the command is going to be refused.
    Bdat {
        /// Octets of the chunk.
        size: u64,
        /// It is the last one.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, its argument dropped.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY, its argument dropped.
    Vrfy,
    /// EXPN, its argument dropped.
    Expn,
    /// HELP, its argument dropped.
    Help,
    /// ETRN, its argument dropped.
    Etrn,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// In capitals.
        mechanism: Box<str>,
        /// The initial response, still base64 (or `=`).
        initial: Option<Box<[u8]>>,
    },
    /// XCLIENT.
    Xclient(Attributes),
    /// XFORWARD.
    Xforward(Attributes),
    /// A verb we do not know, in capitals, printable, at most 16 octets; possibly empty.
    Unknown(Box<str>),
}

/// Why a line is no command we can act on. [`CommandError::reply`] is what to tell the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Arguments missing, too many or malformed.
    #[error("wrong arguments")]
    Arguments,
    /// The sender's path is malformed.
    #[error("malformed sender address")]
    Sender,
    /// The recipient's path is malformed or null.
    #[error("malformed recipient address")]
    Recipient,
    /// Parameters that do not follow the syntax, or one twice.
    #[error("malformed parameters")]
    Parameters,
    /// A known parameter with a value it cannot have.
    #[error("parameter with an impossible value")]
    ParameterValue,
    /// A parameter of an extension that was not offered; see [`Params::check`].
    #[error("parameter of an extension that was not offered")]
    UnknownParameter,
    /// Octets over 127 that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A sender address that needs SMTPUTF8, without that parameter (RFC 6531 section 3.5).
    #[error("non-ASCII address without SMTPUTF8")]
    NeedsSmtpUtf8,
    /// The line or the address is too long.
    #[error("too long")]
    TooLong,
    /// The line holds a bare CR, bare LF or NUL.
    #[error("bare CR, LF or NUL in a command")]
    BareNewline,
}

impl CommandError {
    /// Code, enhanced code (RFC 3463) and text for the client.
    #[must_use]
    pub fn reply(&self) -> (u16, (u8, u16, u16), &'static str) {
        match self {
            Self::Arguments => (501, (5, 5, 4), "Syntax error in arguments"),
            Self::Sender => (501, (5, 1, 7), "Bad sender address syntax"),
            Self::Recipient => (501, (5, 1, 3), "Bad recipient address syntax"),
            Self::Parameters => (501, (5, 5, 4), "Syntax error in parameters"),
            Self::ParameterValue => (501, (5, 5, 4), "Bad parameter value"),
            Self::UnknownParameter => (555, (5, 5, 4), "Unsupported parameter"),
            Self::NotUtf8 => (501, (5, 5, 2), "Command is not UTF-8"),
            Self::NeedsSmtpUtf8 => (553, (5, 6, 7), "Address needs SMTPUTF8"),
            Self::TooLong => (500, (5, 5, 2), "Line too long"),
            Self::BareNewline => (500, (5, 5, 2), "Bare CR, LF or NUL in command"),
        }
    }
}

/// Longest EHLO name taken, in octets.
pub const MAX_HELO: usize = 255;

impl Command {
    /// Reads a line without its CRLF. Verbs and keywords in any case, blanks at the end ignored, a blank allowed
    /// after `FROM:` and `TO:`, angle brackets required.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        if line.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
            return Err(CommandError::BareNewline);
        }
        let line = line.trim_ascii_end();
        let end = line.iter().position(|octet| matches!(octet, b' ' | b'\t')).unwrap_or(line.len());
        let (verb, rest) = line.split_at(end);
        let rest = rest.trim_ascii_start();
        let mut upper = [0; 8];
        let Some(upper) = upper.get_mut(..verb.len()) else { return Ok(Self::unknown(verb)) };
        upper.copy_from_slice(verb);
        upper.make_ascii_uppercase();
        match &*upper {
            b"EHLO" => helo(rest).map(Self::Ehlo),
            b"HELO" => helo(rest).map(Self::Helo),
            b"LHLO" => helo(rest).map(Self::Lhlo),
            b"MAIL" => mail(rest),
            b"RCPT" => rcpt(rest),
            b"DATA" => bare(rest, Self::Data),
            b"BDAT" => bdat(rest),
            b"RSET" => bare(rest, Self::Rset),
            b"NOOP" => Ok(Self::Noop),
            b"QUIT" => bare(rest, Self::Quit),
            b"VRFY" => Ok(Self::Vrfy),
            b"EXPN" => Ok(Self::Expn),
            b"HELP" => Ok(Self::Help),
            b"ETRN" => Ok(Self::Etrn),
            b"STARTTLS" => bare(rest, Self::StartTls),
            b"AUTH" => auth(rest),
            b"XCLIENT" => Attributes::parse(rest).map(Self::Xclient).ok_or(CommandError::Arguments),
            b"XFORWARD" => Attributes::parse(rest).map(Self::Xforward).ok_or(CommandError::Arguments),
            _ => Ok(Self::unknown(verb)),
        }
    }

    /// The verb in capitals, for logs.
    #[must_use]
    pub fn verb(&self) -> &str {
        match self {
            Self::Ehlo(_) => "EHLO",
            Self::Helo(_) => "HELO",
            Self::Lhlo(_) => "LHLO",
            Self::Mail { .. } => "MAIL",
            Self::Rcpt { .. } => "RCPT",
            Self::Data => "DATA",
            Self::Bdat { .. } => "BDAT",
            Self::Rset => "RSET",
            Self::Noop => "NOOP",
            Self::Quit => "QUIT",
            Self::Vrfy => "VRFY",
            Self::Expn => "EXPN",
            Self::Help => "HELP",
            Self::Etrn => "ETRN",
            Self::StartTls => "STARTTLS",
            Self::Auth { .. } => "AUTH",
            Self::Xclient(_) => "XCLIENT",
            Self::Xforward(_) => "XFORWARD",
            Self::Unknown(verb) => verb,
        }
    }

    /// Writes the command for a server, with CRLF. XCLIENT and XFORWARD may become several commands, one reply each
    /// (see [`Attributes::commands`]); commands whose argument was dropped are written without one.
    pub fn write_to(&self, out: &mut BytesMut) {
        match self {
            Self::Ehlo(name) | Self::Helo(name) | Self::Lhlo(name) => write_words(out, &[self.verb(), name]),
            Self::Mail { path, params } => write_path(out, "MAIL FROM:<", path, params, |_, _| true),
            Self::Rcpt { path, params } => write_path(out, "RCPT TO:<", path, params, |_, _| true),
            Self::Bdat { size, last } => {
                write_words(
                    out,
                    &["BDAT", &size.to_string()][..].iter().copied().chain(last.then_some("LAST")).collect::<Vec<_>>(),
                );
            }
            Self::Auth { mechanism, initial } => {
                out.extend_from_slice(b"AUTH ");
                out.extend_from_slice(mechanism.as_bytes());
                if let Some(initial) = initial {
                    out.extend_from_slice(b" ");
                    out.extend_from_slice(initial);
                }
                out.extend_from_slice(b"\r\n");
            }
            Self::Xclient(attributes) | Self::Xforward(attributes) => {
                let all = super::Attribute::ALL.into_iter().collect();
                for command in attributes.commands(self.verb(), all) {
                    out.extend_from_slice(command.as_bytes());
                }
            }
            other => write_words(out, &[other.verb()]),
        }
    }

    fn unknown(verb: &[u8]) -> Self {
        let printable =
            verb.iter().take(16).map(|&octet| if octet.is_ascii_graphic() { char::from(octet) } else { '?' });
        Self::Unknown(printable.map(|c| c.to_ascii_uppercase()).collect::<String>().into())
    }
}

/// Writes `MAIL FROM:<…>` with those parameters that `filter` lets through.
pub fn write_mail(out: &mut BytesMut, path: &Path, params: &Params, filter: impl FnMut(&str, Option<&str>) -> bool) {
    write_path(out, "MAIL FROM:<", path, params, filter);
}

/// Writes `RCPT TO:<…>` with those parameters that `filter` lets through.
pub fn write_rcpt(out: &mut BytesMut, path: &Path, params: &Params, filter: impl FnMut(&str, Option<&str>) -> bool) {
    write_path(out, "RCPT TO:<", path, params, filter);
}

fn write_path(
    out: &mut BytesMut,
    verb: &str,
    path: &Path,
    params: &Params,
    filter: impl FnMut(&str, Option<&str>) -> bool,
) {
    out.extend_from_slice(verb.as_bytes());
    out.extend_from_slice(path.as_str().as_bytes());
    out.extend_from_slice(b">");
    params.write_to(out, filter);
    out.extend_from_slice(b"\r\n");
}

fn write_words(out: &mut BytesMut, words: &[&str]) {
    out.extend_from_slice(words.join(" ").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn bare(rest: &[u8], command: Command) -> Result<Command, CommandError> {
    if rest.is_empty() { Ok(command) } else { Err(CommandError::Arguments) }
}

/// The name goes into headers and XFORWARD: printable ASCII only. More than one word is taken, as MTAs do.
fn helo(rest: &[u8]) -> Result<Box<str>, CommandError> {
    if rest.is_empty() || rest.len() > MAX_HELO || !rest.iter().all(|octet| matches!(octet, b' '..=b'~')) {
        return Err(CommandError::Arguments);
    }
    std::str::from_utf8(rest).map(Into::into).map_err(|_| CommandError::NotUtf8)
}

fn mail(rest: &[u8]) -> Result<Command, CommandError> {
    let (path, params) = path_and_params(rest, b"FROM:", CommandError::Sender)?;
    if !path.is_ascii() && !params.smtputf8() {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(Command::Mail { path, params })
}

fn rcpt(rest: &[u8]) -> Result<Command, CommandError> {
    let (path, params) = path_and_params(rest, b"TO:", CommandError::Recipient)?;
    if path.is_null() {
        return Err(CommandError::Recipient);
    }
    Ok(Command::Rcpt { path, params })
}

fn path_and_params(rest: &[u8], keyword: &[u8], syntax: CommandError) -> Result<(Path, Params), CommandError> {
    let (given, rest) = rest.split_at_checked(keyword.len()).ok_or(CommandError::Arguments)?;
    if !given.eq_ignore_ascii_case(keyword) {
        return Err(CommandError::Arguments);
    }
    let (path, rest) = Path::parse_prefix(rest.trim_ascii_start()).map_err(|error| match error {
        PathError::Syntax => syntax,
        PathError::NotUtf8 => CommandError::NotUtf8,
        PathError::TooLong => CommandError::TooLong,
    })?;
    Ok((path, Params::parse(rest)?))
}

fn bdat(rest: &[u8]) -> Result<Command, CommandError> {
    let mut words = rest.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty());
    let size = words.next().ok_or(CommandError::Arguments)?;
    if !size.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::Arguments);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok()).ok_or(CommandError::Arguments)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(CommandError::Arguments),
    };
    if words.next().is_some() { Err(CommandError::Arguments) } else { Ok(Command::Bdat { size, last }) }
}

fn auth(rest: &[u8]) -> Result<Command, CommandError> {
    let mut words = rest.split(|octet| matches!(octet, b' ' | b'\t')).filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(CommandError::Arguments)?;
    // RFC 4422 section 3.1: 1 to 20 capitals, digits, hyphens, underscores.
    let is_name = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
    if mechanism.len() > 20 || !mechanism.iter().all(is_name) {
        return Err(CommandError::Arguments);
    }
    let mechanism = String::from_utf8_lossy(mechanism).to_ascii_uppercase().into();
    let initial = words.next();
    let is_base64 = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'=');
    if words.next().is_some() || !initial.unwrap_or_default().iter().all(is_base64) {
        return Err(CommandError::Arguments);
    }
    Ok(Command::Auth { mechanism, initial: initial.map(Into::into) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a line becomes when it is read and written again.
    fn check(line: &str, expected: &str) {
        let command = Command::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        let mut out = BytesMut::new();
        command.write_to(&mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap().strip_suffix("\r\n").unwrap(), expected, "{line:?}");
    }

    fn refused(line: &str, expected: CommandError) {
        assert_eq!(Command::parse(line.as_bytes()), Err(expected), "{line:?}");
    }

    #[test]
    fn commands_are_read_and_written() {
        check("ehlo a.example", "EHLO a.example");
        check("HELO [192.0.2.1] ", "HELO [192.0.2.1]");
        check("LHLO two words", "LHLO two words");
        check("MAIL FROM:<>", "MAIL FROM:<>");
        check("mail from: <a@b> SIZE=10  BODY=8BITMIME ", "MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME");
        check("MAIL FROM:<\"a b> x\"@c> ret=FULL", "MAIL FROM:<\"a b> x\"@c> ret=FULL");
        check("MAIL FROM:<grün@example.org> SMTPUTF8", "MAIL FROM:<grün@example.org> SMTPUTF8");
        check("RCPT TO:<Postmaster>", "RCPT TO:<Postmaster>");
        check("RCPT TO:<@a,@b:u@d> ORCPT=rfc822;U+2B@d", "RCPT TO:<u@d> ORCPT=rfc822;U+2B@d");
        check("DATA", "DATA");
        check("data  ", "DATA");
        check("BDAT 10", "BDAT 10");
        check("bdat 0  last", "BDAT 0 LAST");
        check("RSET", "RSET");
        check("NOOP what ever", "NOOP");
        check("QUIT", "QUIT");
        check("VRFY <a@b>", "VRFY");
        check("EXPN list", "EXPN");
        check("HELP", "HELP");
        check("ETRN example.org", "ETRN");
        check("STARTTLS", "STARTTLS");
        check("auth plain AGEAYg==", "AUTH PLAIN AGEAYg==");
        check("AUTH EXTERNAL =", "AUTH EXTERNAL =");
        check("AUTH LOGIN", "AUTH LOGIN");
        check("XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]", "XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]");
        check("xforward ident=4F2", "XFORWARD IDENT=4F2");
        check("BURL imap://x LAST", "BURL");
        check("averyveryverylongverb x", "AVERYVERYVERYLON");
        check("\x1b[A", "?[A");
        check("", "");
        check(" MAIL FROM:<a@b>", "");
    }

    #[test]
    fn wrong_commands_are_refused() {
        use CommandError::{
            Arguments, BareNewline, NeedsSmtpUtf8, NotUtf8, ParameterValue, Parameters, Recipient, Sender, TooLong,
        };
        for line in [
            "EHLO",
            "EHLO grün",
            "EHLO a\tb",
            "MAIL",
            "MAIL <a@b>",
            "MAIL FROM <a@b>",
            "RCPT FROM:<a@b>",
            "DATA x",
            "RSET x",
            "QUIT x",
            "STARTTLS x",
            "BDAT",
            "BDAT -1",
            "BDAT +1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST LAST",
            "BDAT 18446744073709551616",
            "AUTH",
            "AUTH PLAIN a b",
            "AUTH PLAIN a%b",
            "AUTH ABCDEFGHIJKLMNOPQRSTU",
            "XCLIENT",
            "XFORWARD FOO=1",
        ] {
            refused(line, Arguments);
        }
        refused(&format!("EHLO {}", "a".repeat(256)), Arguments);
        refused("MAIL FROM:a@b", Sender);
        refused("MAIL FROM:<a b@c>", Sender);
        refused("RCPT TO:<>", Recipient);
        refused("RCPT TO:a@b", Recipient);
        refused("MAIL FROM:<a@b>SIZE=1", Parameters);
        refused("MAIL FROM:<a@b> SIZE=x", ParameterValue);
        refused("MAIL FROM:<grün@example.org>", NeedsSmtpUtf8);
        refused("NOOP a\nb", BareNewline);
        refused("MAIL FROM:<a@b>\rRCPT", BareNewline);
        refused(&format!("RCPT TO:<{}@b>", "a".repeat(2000)), TooLong);
        assert_eq!(Command::parse(b"RCPT TO:<\xe4@b>"), Err(NotUtf8));
    }

    #[test]
    fn a_recipient_that_needs_smtputf8_is_flagged() {
        let Ok(Command::Rcpt { path, .. }) = Command::parse("RCPT TO:<grün@example.org>".as_bytes()) else { panic!() };
        assert!(!path.is_ascii());
    }

    #[test]
    fn replies_are_negative_and_consistent() {
        use CommandError::*;
        for error in [
            Arguments,
            Sender,
            Recipient,
            Parameters,
            ParameterValue,
            UnknownParameter,
            NotUtf8,
            NeedsSmtpUtf8,
            TooLong,
            BareNewline,
        ] {
            let (code, (class, _, _), text) = error.reply();
            assert_eq!((code / 100, class), (5, 5), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_safe(line: Vec<u8>) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn whatever_parses_is_written_so_that_it_parses_the_same(
            verb in prop_oneof!["MAIL FROM:", "RCPT TO:", "BDAT ", "AUTH ", "EHLO ", "XFORWARD NAME=", "[A-Z]{0,9} "],
            rest in "[<>a@\"\\\\ =+;.:ü1SIZETUF8\\[\\]-]{0,20}",
        ) {
            if let Ok(command) = Command::parse(format!("{verb}{rest}").as_bytes()) {
                let mut out = BytesMut::new();
                command.write_to(&mut out);
                let line = out.strip_suffix(b"\r\n").unwrap();
                prop_assert!(memchr::memchr2(b'\r', b'\n', line).is_none());
                prop_assert_eq!(Command::parse(line), Ok(command));
            }
        }
    }
}
