//! What a caller of qmail-queue says to its client, by exit code and text. The table is qmail.c's; its columns for other
//! flavours are their patches'.

/// Whose qmail.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// qmail 1.03 and netqmail: no text is read.
    Plain,
    /// notqmail since 2021: descriptor 6, exit code 82.
    Notqmail,
    /// The patch that simscan ships, and qmail-ldap: descriptor 4, exit code 82.
    Simscan,
    /// sagredo: descriptor 4 or `ERROR_FD`, exit codes 82 and 88.
    Sagredo,
    /// indimail: descriptor 2 or `ERROR_FD`, exit code 88.
    Indimail,
}

impl Flavour {
    /// The descriptor that the caller reads, and how much of it.
    pub fn text(self) -> Option<(u8, usize)> {
        match self {
            Self::Plain => None,
            Self::Notqmail => Some((6, 255)),
            Self::Simscan | Self::Sagredo => Some((4, 255)),
            Self::Indimail => Some((2, 1023)),
        }
    }

    fn takes_text(self, code: i32) -> bool {
        match self {
            Self::Plain => false,
            Self::Notqmail | Self::Simscan => code == 82,
            Self::Sagredo => matches!(code, 82 | 88),
            Self::Indimail => code == 88,
        }
    }
}

/// What qmail-smtpd answers, without the time in an acceptance.
///
/// `code`: `None` when a signal ended the program; `broken`: the caller could not write everything.
pub fn reply(flavour: Flavour, code: Option<i32>, text: &[u8], broken: bool, id: u32) -> String {
    let Some(code) = code else { return "451 qq crashed (#4.3.0)".into() };
    let said = match code {
        0 if !broken => return format!("250 ok qp {id}"),
        11 | 115 => "Denvelope address too long for qq (#5.1.3)",
        31 => "Dmail server permanently rejected message (#5.3.0)",
        51 => "Zqq out of memory (#4.3.0)",
        52 => "Zqq timeout (#4.3.0)",
        53 => "Zqq write error or disk full (#4.3.0)",
        0 | 54 => "Zqq read error (#4.3.0)",
        55 => "Zqq unable to read configuration (#4.3.0)",
        56 => "Zqq trouble making network connection (#4.3.0)",
        61 => "Zqq trouble in home directory (#4.3.0)",
        62..=66 => "Zqq trouble creating files in queue (#4.3.0)",
        71 => "Zmail server temporarily rejected message (#4.3.0)",
        72 => "Zconnection to mail server timed out (#4.4.1)",
        73 => "Zconnection to mail server rejected (#4.4.1)",
        74 => "Zcommunication with mail server failed (#4.4.2)",
        81 | 91 => "Zqq internal bug (#4.3.0)",
        82 if flavour == Flavour::Indimail => "Zunable to exec qq (#4.3.0)",
        120 => "Zunable to exec qq (#4.3.0)",
        code if flavour.takes_text(code) && text.len() > 2 => {
            let most = flavour.text().map_or(0, |(_, most)| most);
            return answer(&text[..text.len().min(most)]);
        }
        11..=40 => "Dqq permanent problem (#5.3.0)",
        _ => "Zqq temporary problem (#4.3.0)",
    };
    answer(said.as_bytes())
}

/// A first letter D is for good, any other is not; it is never shown.
fn answer(said: &[u8]) -> String {
    let code = if said[0] == b'D' { "554" } else { "451" };
    format!("{code} {}", String::from_utf8_lossy(&said[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_those_seen_of_a_real_one() {
        for (flavour, code, text, said) in [
            (Flavour::Notqmail, Some(0), "", "250 ok qp 7"),
            (Flavour::Notqmail, Some(31), "Dnot read", "554 mail server permanently rejected message (#5.3.0)"),
            (Flavour::Notqmail, Some(82), "Dno (#5.7.1)", "554 no (#5.7.1)"),
            (Flavour::Notqmail, Some(82), "Rejected", "451 ejected"),
            (Flavour::Notqmail, Some(82), "Dx", "451 qq temporary problem (#4.3.0)"),
            (Flavour::Notqmail, Some(88), "Dno (#5.7.1)", "451 qq temporary problem (#4.3.0)"),
            (Flavour::Plain, Some(82), "Dno (#5.7.1)", "451 qq temporary problem (#4.3.0)"),
            (Flavour::Sagredo, Some(88), "Dno (#5.7.1)", "554 no (#5.7.1)"),
            (Flavour::Indimail, Some(82), "Dno (#5.7.1)", "451 unable to exec qq (#4.3.0)"),
            (Flavour::Notqmail, Some(40), "", "554 qq permanent problem (#5.3.0)"),
            (Flavour::Notqmail, Some(100), "", "451 qq temporary problem (#4.3.0)"),
            (Flavour::Notqmail, Some(127), "", "451 qq temporary problem (#4.3.0)"),
            (Flavour::Notqmail, None, "Dno (#5.7.1)", "451 qq crashed (#4.3.0)"),
        ] {
            assert_eq!(reply(flavour, code, text.as_bytes(), false, 7), said);
        }
        assert_eq!(reply(Flavour::Plain, Some(0), b"", true, 7), "451 qq read error (#4.3.0)");
        assert_eq!(reply(Flavour::Notqmail, Some(82), &[b'D'; 300], false, 7).len(), 4 + 254);
    }
}
