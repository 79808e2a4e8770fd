//! The text of a refusal (`SMFIR_REPLYCODE`), made such that neither mail server takes it for malformed.

/// Longest line, in octets before `%` is doubled, and most lines (libmilter/docs/smfi_setmlreply.html).
const MAX_LINE: usize = 980;
const MAX_LINES: usize = 32;

/// The lines as they go out, without the last line end; `None` when it is no refusal: Sendmail makes 550 of
/// such a text, Postfix 451.
pub(super) fn lines(text: &str) -> Option<String> {
    let (code, rest) = text.split_at_checked(3)?;
    if !matches!(code.as_bytes(), [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']) {
        return None;
    }
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix([' ', '-'])? };
    let (mut enhanced, rest) = split_enhanced(rest);
    // Postfix wants some text.
    let rest = if rest.trim().is_empty() { "refused" } else { rest.trim() };
    let lines: Vec<&str> = rest.split('\n').take(MAX_LINES).collect();
    let is_permanent = code.starts_with('5');
    if !enhanced.starts_with(if is_permanent { '5' } else { '4' }) {
        // Postfix takes a digit there for an enhanced code, whose class must be that of the reply.
        let is_misread = lines.iter().any(|line| line.as_bytes().first().is_some_and(u8::is_ascii_digit));
        enhanced = match is_misread {
            true if is_permanent => "5.0.0",
            true => "4.0.0",
            false => "",
        };
    }
    let mut out = String::with_capacity(rest.len() + 16 * lines.len());
    for (index, line) in lines.iter().enumerate() {
        let is_last = index + 1 == lines.len();
        out.push_str(code);
        out.push(if is_last { ' ' } else { '-' });
        let mut room = MAX_LINE - 4;
        if !enhanced.is_empty() {
            out.push_str(enhanced);
            out.push(' ');
            room -= enhanced.len() + 1;
        }
        for letter in line.trim_end().chars().take(room) {
            match letter {
                '%' => out.push_str("%%"),
                ' '..='~' => out.push(letter),
                '\t' => out.push(' '),
                _ => out.push('?'),
            }
        }
        if !is_last {
            out.push_str("\r\n");
        }
    }
    Some(out)
}

/// An enhanced code (RFC 3463 section 2), empty when there is none, and the rest.
fn split_enhanced(text: &str) -> (&str, &str) {
    let word = text.split(' ').next().unwrap_or_default();
    let mut parts = word.split('.');
    let mut is_number = |most: usize| {
        parts
            .next()
            .is_some_and(|part| (1..=most).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit()))
    };
    let is_class = word.starts_with(['2', '4', '5']);
    if is_class && is_number(1) && is_number(3) && is_number(3) && parts.next().is_none() {
        text.split_at(word.len())
    } else {
        ("", text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(lines(text).as_deref(), expected, "{text:?}");
    }

    #[test]
    fn refusals() {
        check("550 5.7.1 no", Some("550 5.7.1 no"));
        check("421 4.3.2 bye", Some("421 4.3.2 bye"));
        check("451 later", Some("451 later"));
        check("550-no", Some("550 no"));
        check("550 5.7.1 100% %s", Some("550 5.7.1 100%% %%s"));
        check("550 5.7.1 a\tb\0c\rd\x1be", Some("550 5.7.1 a b?c?d?e"));
        // Without their eighth bit, the octets of U+010A are "D" and a line feed.
        check("550 5.7.1 \u{10a}250 ok", Some("550 5.7.1 ?250 ok"));
        check("550 5.7.1 a\r\nb\n\nc\n", Some("550-5.7.1 a\r\n550-5.7.1 b\r\n550-5.7.1 \r\n550 5.7.1 c"));
    }

    #[test]
    fn what_postfix_would_not_take() {
        for wrong in ["", "5", "55", "550x", "250 ok", "354 go", "650 no", "5a0 no", "\u{20ac}", "no"] {
            check(wrong, None);
        }
        check("550", Some("550 refused"));
        check("550 5.7.1", Some("550 5.7.1 refused"));
        check("550 5.7.1 ", Some("550 5.7.1 refused"));
        check("550 4.7.1 no", Some("550 no"));
        check("450 2.0.0 no", Some("450 no"));
        check("550 4 of 5 failed", Some("550 5.0.0 4 of 5 failed"));
        check("450 5.1234.1 failed", Some("450 4.0.0 5.1234.1 failed"));
    }

    #[test]
    fn long_texts_are_cut() {
        let long = lines(&format!("550 5.7.1 {}", "a\n".repeat(50))).unwrap();
        assert_eq!(long.split("\r\n").count(), MAX_LINES);
        assert!(long.ends_with("\r\n550 5.7.1 a"));
        assert_eq!(lines(&format!("550 {}", "a".repeat(5000))).map(|text| text.len()), Some(MAX_LINE));
    }

    proptest! {
        #[test]
        fn every_text_is_well_formed(text in "[245][0-9]{0,2}[ -]?([245]\\.[0-9]{1,4}\\.[0-9] ?)?([a5%\u{10a}\n\r]|\\PC){0,40}") {
            let Some(out) = lines(&text) else { return Ok(()) };
            let code = &text[..3];
            let all: Vec<&str> = out.split("\r\n").collect();
            for (index, line) in all.iter().enumerate() {
                prop_assert!(line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
                let (head, rest) = line.split_at(4);
                prop_assert_eq!(&head[..3], code);
                prop_assert_eq!(&head[3..], if index + 1 == all.len() { " " } else { "-" });
                prop_assert_eq!(rest.replace("%%", "").contains('%'), false);
            }
            for first in all.iter().filter_map(|line| line.as_bytes().get(4)) {
                prop_assert!(!first.is_ascii_digit() || *first == code.as_bytes()[0], "{out:?}");
            }
        }
    }
}
