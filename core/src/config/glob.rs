//! Patterns with `*` (any run of characters, none included) and `?` (one character), compared
//! without case of ASCII letters. Linear in the pattern times the text at worst.

/// Does the whole text fit the pattern?
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when the rest does not fit: behind the last star, with one octet more in it.
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                again = Some((p, t));
            }
            Some(b'?') => {
                p += 1;
                t += character_length(text[t]).min(text.len() - t);
            }
            Some(octet) if octet.eq_ignore_ascii_case(&text[t]) => {
                p += 1;
                t += 1;
            }
            _ => match again {
                Some((behind_star, from)) => {
                    p = behind_star;
                    t = from + 1;
                    again = Some((behind_star, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|octet| *octet == b'*')
}

/// Does it have a `*` or `?` at all?
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn character_length(first: u8) -> usize {
    match first {
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*.Example.org", "x.example.ORG", true),
            ("*.example.org", "example.org", false),
            ("Eicar*", "Eicar-Test", true),
            ("a?c", "a\u{e4}c", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("a**b", "ab", true),
            ("abc", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
        // Not exponential.
        assert!(!matches(&"*a".repeat(50), &"a".repeat(49)));
    }
}
