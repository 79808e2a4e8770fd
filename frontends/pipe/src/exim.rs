//! Exim: how it takes a mail back, and how a circle is seen before it begins.
//!
//! The mail is given to `exim4` itself, as a local program would (spec.txt, "Command line": `-oMr`, `-f`, `-oMa`). The
//! name after `-oMr` becomes `$received_protocol`, which the router looks at so that a mail comes here once. **For a
//! caller whom Exim does not trust these options do nothing, and nobody says so**: the mail would come here again and
//! again. So the program takes a mail back only as a user who is trusted.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use checkpost_client::runs::Run;

use crate::Origin;

/// `$received_protocol` of a mail that was here. The router must not send it here again.
pub const PROTOCOL: &str = "checkpost";

/// What Exim says of users, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ids {
    /// Exim's own (`$exim_uid`).
    pub exim: Option<u32>,
    /// Who gave the mail to Exim (`$originator_uid`).
    pub caller: Option<u32>,
}

/// Why a mail must not be handed back: it would come here again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Circle {
    /// It was here.
    #[error(
        "this mail was checked and came again: the router must have condition = ${{if !eq{{$received_protocol}}{{checkpost}}}}"
    )]
    Router,
    /// Exim would overlook `-oMr`.
    #[error(
        "Exim does not trust the user {0} whom it runs this program as: set user = Debian-exim in the transport, or add that user to trusted_users"
    )]
    NotTrusted(u32),
    /// Exim has overlooked it.
    #[error("this mail was checked and came again: Exim does not trust the user {0}")]
    Overlooked(u32),
}

/// Looks whether a mail that is handed back would come again. `user`: whom we run as. `is_trusted`: asks Exim; it is
/// called for users only of whom that is not known.
///
/// # Errors
/// It would, or it has.
pub fn look(ids: Ids, origin: &Origin, user: u32, is_trusted: impl FnOnce() -> bool) -> Result<(), Circle> {
    let protocol = origin.protocol.as_deref();
    if protocol == Some(PROTOCOL) {
        return Err(Circle::Router);
    }
    // root and Exim itself are trusted (spec.txt, "Trusted and admin users").
    if user == 0 || ids.exim == Some(user) {
        return Ok(());
    }
    if protocol == Some("local") && ids.caller == Some(user) {
        return Err(Circle::Overlooked(user));
    }
    if is_trusted() { Ok(()) } else { Err(Circle::NotTrusted(user)) }
}

/// Is this user in the answer of `exim -bP trusted_users`? Such as `trusted_users = uucp : checkpost`; users may be
/// numbers there.
pub fn is_trusted(answer: &str, name: &str, user: u32) -> bool {
    let list = answer.trim().strip_prefix("trusted_users =").unwrap_or_default().trim();
    // A list may begin with a separator of its own (spec.txt, "Changing list separators").
    let (separator, list) = match list.strip_prefix('<') {
        Some(rest) => {
            let separator = rest.chars().next().unwrap_or(':');
            (separator, &rest[separator.len_utf8().min(rest.len())..])
        }
        None => (':', list),
    };
    list.split(separator).map(str::trim).any(|one| (!name.is_empty() && one == name) || one.parse() == Ok(user))
}

/// The words behind `exim4` that make it take back a mail on its standard input.
pub fn words(run: &Run, origin: &Origin) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "-oMr", PROTOCOL, // How it came.
        "-oi",    // A line with a dot alone is no end.
        "-bnq",   // No domain is put to addresses in the header.
        "-oep",   // An error is told to us, and not by a mail to the sender.
    ]
    .map(Into::into)
    .into();
    if let Some(client) = origin.client {
        // Whoever has a host's address is no local mail: nothing is added to its header.
        words.extend(["-oMa".into(), client.to_string().into()]);
        if let Some(name) = origin.client_name.as_deref().filter(|name| is_name(name)) {
            words.extend(["-oMs".into(), name.into()]);
        }
    }
    if let Some(user) = origin.user.as_deref().filter(|user| is_name(user)) {
        words.extend(["-oMai".into(), user.into()]);
    }
    words.extend(["-f".into(), path(&run.sender), "--".into()]);
    words.extend(run.recipients.iter().map(|recipient| path(recipient)));
    words
}

/// In angle brackets an address is one, whatever it begins with.
fn path(address: &[u8]) -> OsString {
    OsString::from_vec([b"<", address, b">"].concat())
}

/// Not taken for an option, and nothing that a log could be broken with.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(|octet| octet.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(origin: &Origin) -> String {
        let run =
            Run { content: 0, sender: b"".to_vec(), recipients: vec![b"-x@a.b".to_vec(), b"\"a b\"@c.d".to_vec()] };
        words(&run, origin).iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn exim_is_told_where_a_mail_came_from() {
        let back = "-f <> -- <-x@a.b> <\"a b\"@c.d>";
        assert_eq!(line(&Origin::default()), format!("-oMr checkpost -oi -bnq -oep {back}"));
        let mut origin = Origin {
            client: "192.0.2.7".parse().ok(),
            client_name: Some("c.example".into()),
            user: Some("anna".into()),
            ..Origin::default()
        };
        let client = "-oMa 192.0.2.7 -oMs c.example -oMai anna";
        assert_eq!(line(&origin), format!("-oMr checkpost -oi -bnq -oep {client} {back}"));
        origin.client_name = Some("-bs".into());
        origin.user = Some("a b".into());
        assert_eq!(line(&origin), format!("-oMr checkpost -oi -bnq -oep -oMa 192.0.2.7 {back}"));
    }

    #[test]
    fn circles_are_seen_before_they_begin() {
        fn check(protocol: &str, user: u32, caller: u32, trusted: bool) -> Result<(), Circle> {
            let ids = Ids { exim: Some(100), caller: Some(caller) };
            let origin = Origin { protocol: Some(protocol.into()), ..Origin::default() };
            look(ids, &origin, user, || trusted)
        }
        assert_eq!(check("esmtp", 100, 0, false), Ok(()));
        assert_eq!(check("esmtp", 0, 0, false), Ok(()));
        // A bounce of Exim's own.
        assert_eq!(check("local", 100, 100, false), Ok(()));
        assert_eq!(check("checkpost", 100, 100, true), Err(Circle::Router));
        assert_eq!(check("esmtp", 999, 0, true), Ok(()));
        assert_eq!(check("esmtp", 999, 0, false), Err(Circle::NotTrusted(999)));
        assert_eq!(check("local", 999, 1000, true), Ok(()));
        assert_eq!(check("local", 999, 999, true), Err(Circle::Overlooked(999)));
        let unknown = look(Ids::default(), &Origin::default(), 100, || false);
        assert_eq!(unknown, Err(Circle::NotTrusted(100)));
    }

    #[test]
    fn trusted_users_are_read_from_exims_answer() {
        for (answer, trusted) in [
            ("trusted_users = uucp", false),
            ("trusted_users = uucp : checkpost\n", true),
            ("trusted_users = <; uucp;checkpost", true),
            ("trusted_users = 999", true),
            ("trusted_users = 99 : checkpost2", false),
            ("trusted_users =", false),
            ("trusted_users = <", false),
            ("", false),
        ] {
            assert_eq!(is_trusted(answer, "checkpost", 999), trusted, "{answer}");
        }
        assert!(!is_trusted("trusted_users = uucp : ", "", 999));
    }
}
