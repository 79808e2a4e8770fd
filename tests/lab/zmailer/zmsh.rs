//! A function of the router's shell as one of sh: as far as process.cf needs it, with what was seen of the router's shell
//! that another does not have: an unquoted word ends at its `-`.

/// The text of process.cf for sh.
pub(super) fn as_sh(text: &str) -> String {
    let mut all = String::new();
    for line in text.lines() {
        match line.strip_suffix(" (file) {") {
            Some(name) => all.push_str(&format!("{name} () {{ file=$1\n")),
            None => all.push_str(&format!("{}\n", cut(line))),
        }
    }
    all
}

/// A blank before each `-` within an unquoted word.
fn cut(line: &str) -> String {
    if line.trim_start().starts_with('#') {
        return line.to_owned();
    }
    let mut new = String::new();
    // Within quotes or not, for each `$(` that is open.
    let mut quoted = vec![false];
    let mut before = ' ';
    for letter in line.chars() {
        let is_quoted = quoted.last().copied().unwrap_or_default();
        match letter {
            '"' => {
                quoted.pop();
                quoted.push(!is_quoted);
            }
            '(' if before == '$' => quoted.push(false),
            ')' if !is_quoted && quoted.len() > 1 => drop(quoted.pop()),
            // In brackets it is a range.
            '-' if !is_quoted
                && !before.is_whitespace()
                && !line.contains(&format!("{before}-9]"))
                && before != 'A' =>
            {
                new.push(' ');
            }
            _ => {}
        }
        new.push(letter);
        before = letter;
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unquoted_word_ends_at_its_hyphen() {
        for (line, expected) in [
            ("/usr/bin/checkpost-zmailer router \"$file\"", "/usr/bin/checkpost -zmailer router \"$file\""),
            ("\"/usr/bin/checkpost-zmailer\" router", "\"/usr/bin/checkpost-zmailer\" router"),
            (
                "case \"$(\"/usr/bin/checkpost-zmailer\" router \"$file\")\" in",
                "case \"$(\"/usr/bin/checkpost-zmailer\" router \"$file\")\" in",
            ),
            ("case \"$(/usr/bin/a-b \"$file\")\" in", "case \"$(/usr/bin/a -b \"$file\")\" in"),
            ("\t[A-Z]/[0-9]*)\trfc822 \"$file\" ;;", "\t[A-Z]/[0-9]*)\trfc822 \"$file\" ;;"),
            ("# a-b", "# a-b"),
            ("ls -l", "ls -l"),
        ] {
            assert_eq!(cut(line), expected);
        }
        assert_eq!(as_sh("process (file) {\n\t:\n}\n"), "process () { file=$1\n\t:\n}\n");
    }
}
