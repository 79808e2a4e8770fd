//! What a peer is told: a reply that is valid by construction.
//!
//! A [`Reply`] has a code, an enhanced status code (RFC 3463) of the same class, and a text without
//! line breaks or control characters. [`Rejection`] and [`Deferral`] are replies that can only be
//! permanent or only temporary, so that no path can say "try again later" with a 5xx.

use std::fmt;

/// The longest text of a reply, in octets. RFC 5321 section 4.5.3.1.5 allows 512 for the whole line.
pub const MAX_TEXT: usize = 400;

/// One reply: `550 5.7.1 text`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    enhanced: (u8, u16, u16),
    text: Box<str>,
}

/// Why a reply could not be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The code is not 2xx, 4xx or 5xx.
    #[error("reply code {0} is not 2xx, 4xx or 5xx")]
    Code(u16),
    /// The enhanced code's class differs from the code's first digit.
    #[error("enhanced code of class {enhanced} does not fit reply code {code}")]
    ClassMismatch {
        /// The reply code.
        code: u16,
        /// The class of the enhanced code.
        enhanced: u8,
    },
    /// The enhanced code is not of the form `class.subject.detail`, each at most 999.
    #[error("malformed enhanced status code")]
    Enhanced,
    /// The text has a control character.
    #[error("the text has a line break or another control character")]
    Control,
    /// The text is empty.
    #[error("the text is empty")]
    Empty,
    /// The text is longer than [`MAX_TEXT`].
    #[error("the text is longer than {MAX_TEXT} octets")]
    TooLong,
    /// A rejection was wanted, and this is none; or a deferral, likewise.
    #[error("a reply of class {found} where class {wanted} is needed")]
    WrongClass {
        /// The class needed: 4 or 5.
        wanted: u8,
        /// The class found.
        found: u8,
    },
}

impl Reply {
    /// Checks and builds a reply.
    pub fn new(code: u16, enhanced: (u8, u16, u16), text: &str) -> Result<Self, ReplyError> {
        let class = match code {
            200..=299 => 2,
            400..=499 => 4,
            500..=599 => 5,
            _ => return Err(ReplyError::Code(code)),
        };
        if enhanced.0 != class {
            return Err(ReplyError::ClassMismatch { code, enhanced: enhanced.0 });
        }
        if enhanced.1 > 999 || enhanced.2 > 999 {
            return Err(ReplyError::Enhanced);
        }
        if text.chars().any(char::is_control) {
            return Err(ReplyError::Control);
        }
        if text.trim().is_empty() {
            return Err(ReplyError::Empty);
        }
        if text.len() > MAX_TEXT {
            return Err(ReplyError::TooLong);
        }
        Ok(Self { code, enhanced, text: text.into() })
    }

    /// Three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Class, subject, detail.
    pub fn enhanced(&self) -> (u8, u16, u16) {
        self.enhanced
    }

    /// One line of text without the codes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2, 4 or 5.
    pub fn class(&self) -> u8 {
        self.enhanced.0
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, subject, detail) = self.enhanced;
        write!(f, "{} {class}.{subject}.{detail} {}", self.code, self.text)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({self})")
    }
}

macro_rules! of_class {
    ($(#[$doc:meta])* $name:ident, $class:literal, $default_code:literal, $default:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub struct $name(Reply);

        impl $name {
            /// Reads what an administrator writes: `[CODE] [X.Y.Z] text`. A missing code is the
            /// usual one of the class, a missing enhanced code is the default's.
            pub fn parse(written: &str) -> Result<Self, ReplyError> {
                let mut rest = written.trim();
                let mut code = None;
                if let Some((head, tail)) = split_word(rest)
                    && head.len() == 3
                    && let Ok(number) = head.parse::<u16>()
                {
                    code = Some(number);
                    rest = tail;
                }
                let mut enhanced = None;
                if let Some((head, tail)) = split_word(rest)
                    && let Some(parsed) = parse_enhanced(head)
                {
                    enhanced = Some(parsed?);
                    rest = tail;
                }
                let default = $default;
                let enhanced = enhanced.unwrap_or(default);
                Self::try_from(Reply::new(code.unwrap_or($default_code), enhanced, rest)?)
            }

            /// The usual code with this enhanced code's subject and detail. Text that no reply can
            /// carry (control characters, overlong) is made harmless instead of refused: for texts
            /// that hold names from scanners and mails.
            pub fn lossy(subject: u16, detail: u16, text: &str) -> Self {
                let mut clean: String = text
                    .chars()
                    .map(|c| if c.is_control() || !c.is_ascii() { '?' } else { c })
                    .collect();
                clean.truncate(MAX_TEXT);
                if clean.trim().is_empty() {
                    clean = "no reason given".into();
                }
                Self(Reply {
                    code: $default_code,
                    enhanced: ($class, subject.min(999), detail.min(999)),
                    text: clean.into(),
                })
            }

            /// The reply as such.
            pub fn reply(&self) -> &Reply {
                &self.0
            }
        }

        impl TryFrom<Reply> for $name {
            type Error = ReplyError;
            fn try_from(reply: Reply) -> Result<Self, ReplyError> {
                if reply.class() == $class {
                    Ok(Self(reply))
                } else {
                    Err(ReplyError::WrongClass { wanted: $class, found: reply.class() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

of_class!(
    /// A permanent refusal: 5xx. The mail is the sender's to bounce.
    Rejection, 5, 550, (5, 7, 1)
);
of_class!(
    /// A temporary refusal: 4xx. The mail stays where it came from and is tried again.
    Deferral, 4, 451, (4, 7, 1)
);

impl Deferral {
    /// `451 4.7.1 Message could not be checked, try again later`.
    pub fn unchecked() -> Self {
        Self::lossy(7, 1, "Message could not be checked, try again later")
    }

    /// `451 4.3.0 Local problem, try again later`: something on our side failed.
    pub fn local_problem() -> Self {
        Self::lossy(3, 0, "Local problem, try again later")
    }
}

fn split_word(text: &str) -> Option<(&str, &str)> {
    let (head, tail) = text.split_once(char::is_whitespace)?;
    Some((head, tail.trim_start()))
}

/// `None` when the word does not look like an enhanced code at all.
fn parse_enhanced(word: &str) -> Option<Result<(u8, u16, u16), ReplyError>> {
    if !word.contains('.') || !word.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let mut parts = word.split('.');
    let parsed = (|| {
        let class = parts.next()?.parse().ok()?;
        let subject = parts.next()?.parse().ok()?;
        let detail = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some((class, subject, detail))
    })();
    Some(parsed.ok_or(ReplyError::Enhanced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_administrator_writes_is_read() {
        for (written, reply) in [
            ("no thanks", "550 5.7.1 no thanks"),
            ("5.7.0 no thanks", "550 5.7.0 no thanks"),
            ("554 5.6.0 no thanks", "554 5.6.0 no thanks"),
            ("554 no thanks", "554 5.7.1 no thanks"),
        ] {
            assert_eq!(Rejection::parse(written).unwrap().to_string(), reply);
        }
        assert_eq!(Deferral::parse("later").unwrap().to_string(), "451 4.7.1 later");
    }

    #[test]
    fn what_cannot_be_said_cannot_be_built() {
        assert_eq!(Rejection::parse("a\r\nb"), Err(ReplyError::Control));
        assert_eq!(Rejection::parse("4.7.1 for good"), Err(ReplyError::ClassMismatch { code: 550, enhanced: 4 }));
        assert_eq!(Rejection::parse("451 4.7.1 for good"), Err(ReplyError::WrongClass { wanted: 5, found: 4 }));
        assert_eq!(Rejection::parse("5.7 x"), Err(ReplyError::Enhanced));
        assert_eq!(Rejection::parse("  "), Err(ReplyError::Empty));
        assert_eq!(Reply::new(350, (3, 0, 0), "x"), Err(ReplyError::Code(350)));
        assert_eq!(Rejection::parse(&"x".repeat(MAX_TEXT + 1)), Err(ReplyError::TooLong));
    }

    #[test]
    fn names_from_outside_are_made_harmless() {
        let reply = Rejection::lossy(7, 1, "found Eicar\r\n250 ok\0 \u{e9}");
        assert_eq!(reply.to_string(), "550 5.7.1 found Eicar??250 ok? ?");
    }
}
