//! What smtpserver makes of a filter's lines: which of them count (subdaemon-ctf.c), what they mean (contentpolicy.c), and
//! what the client is told.

/// A line that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Below 0: refused. 0: accepted. Above: into the freezer.
    pub number: i64,
    /// What follows it.
    pub rest: String,
}

/// Does `sscanf("%i %i %i")` find at least two numbers?
pub(super) fn counts(line: &[u8]) -> bool {
    let mut rest = line;
    for _ in 0..2 {
        match scan(rest) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

impl Verdict {
    /// `None`: "tool broken", and the mail is accepted.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let (negative, digits) = line.strip_prefix(b"-").map_or((false, line), |rest| (true, rest));
        let length = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
        // A blank behind the number, in which there may be no digit at all.
        if digits.get(length) != Some(&b' ') {
            return None;
        }
        let number: i64 = std::str::from_utf8(&digits[..length]).ok()?.parse().unwrap_or(0);
        let rest = String::from_utf8_lossy(&digits[length..]).trim_start_matches(' ').to_owned();
        Some(Self { number: if negative { -number } else { number }, rest })
    }

    /// The reply to the final dot.
    pub fn reply(&self, id: &str) -> String {
        let (code, enhanced) = match self.number {
            ..0 => (552, "5.7.1"),
            0 => (250, "2.0.0"),
            1.. => (250, "2.7.1"),
        };
        let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let said = self.rest[..digits].parse().ok().filter(|code| (200..600).contains(code));
        let text = self.rest[digits..].trim_start_matches(' ');
        let own = text.as_bytes();
        let has_own =
            own.len() >= 5 && own[1] == b'.' && own[3] == b'.' && [0, 2, 4].iter().all(|&at| own[at].is_ascii_digit());
        let (enhanced, text) = if has_own { text.split_at(5) } else { (enhanced, text) };
        let code: u32 = said.unwrap_or(code);
        // Bytes beyond ASCII are dropped.
        let text: String = text.trim_start_matches(' ').chars().filter(char::is_ascii).collect();
        match self.number {
            ..0 => format!("{code} {enhanced} Content-Policy reject msg: {text}; {id}"),
            0 => format!("{code} {enhanced} {text}; {id}"),
            number => format!("{code} {enhanced} Content-Policy accept-into-freezer-{number} msg: {text}; {id}"),
        }
    }
}

/// One `%i` behind blanks: what follows it.
fn scan(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    let line = line.strip_prefix(b"-").or_else(|| line.strip_prefix(b"+")).unwrap_or(line);
    let hex = line.len() > 2 && line.to_ascii_lowercase().starts_with(b"0x") && line[2].is_ascii_hexdigit();
    let digits = if hex { &line[2..] } else { line };
    let is_digit = |octet: &&u8| match (hex, line.first()) {
        (true, _) => octet.is_ascii_hexdigit(),
        (false, Some(b'0')) => (b'0'..b'8').contains(octet),
        _ => octet.is_ascii_digit(),
    };
    let length = digits.iter().take_while(is_digit).count();
    (length > 0).then(|| &digits[length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of what a real smtpserver did.
    #[test]
    fn lines_count_as_they_do_for_smtpserver() {
        let told = |line: &str| -> String {
            let verdict = Some(line.as_bytes()).filter(|line| counts(line)).and_then(Verdict::read);
            verdict.map_or("ignored".into(), |verdict| verdict.reply("ID"))
        };
        for (line, reply) in [
            ("-1 550 5.7.1 Infected", "550 5.7.1 Content-Policy reject msg: Infected; ID"),
            ("-1 550 Infected", "550 5.7.1 Content-Policy reject msg: Infected; ID"),
            ("-1 550", "550 5.7.1 Content-Policy reject msg: ; ID"),
            ("-1  550  5.7.1  two blanks", "550 5.7.1 Content-Policy reject msg: two blanks; ID"),
            ("-1 5.7.1 Infected", "552 5.7.1 Content-Policy reject msg: .7.1 Infected; ID"),
            ("-1 2 viruses", "552 5.7.1 Content-Policy reject msg: viruses; ID"),
            ("-1 250 2.7.1 ok", "250 2.7.1 Content-Policy reject msg: ok; ID"),
            ("0 250 2.0.0 fine", "250 2.0.0 fine; ID"),
            ("1 250 2.7.1 held", "250 2.7.1 Content-Policy accept-into-freezer-1 msg: held; ID"),
            ("010 250 2.7.1 t", "250 2.7.1 Content-Policy accept-into-freezer-10 msg: t; ID"),
            ("-1 5500 5.7.1 t", "552 5.7.1 Content-Policy reject msg: t; ID"),
            ("-1 550 5.7.12 t", "550 5.7.1 Content-Policy reject msg: 2 t; ID"),
            ("12 34 cache entries", "250 2.7.1 Content-Policy accept-into-freezer-12 msg: cache entries; ID"),
            // A number of no digits at all: 0, accepted.
            (" -1 550 5.7.1 t", "250 2.0.0 -1 550 5.7.1 t; ID"),
        ] {
            assert_eq!(told(line), reply, "{line}");
        }
        for line in ["-1", "-1 Infected", "0", "0 nothing wrong.", "1", "1 held", "#text", "text", "", "#busy"] {
            assert_eq!(told(line), "ignored", "{line}");
        }
        // They count, and mean nothing.
        for line in ["-1\t550 5.7.1 t", "+1 250 2.7.1 t", "0x1 550 5.7.1 t"] {
            assert_eq!(told(line), "ignored", "{line}");
        }
    }
}
