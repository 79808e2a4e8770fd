//! Edits to other people's text files, as pure functions: every line that is not ours stays, octet for octet.

/// The marks around lines of ours, in the file's own form of a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The line before.
    pub begin: &'static str,
    /// The line after.
    pub end: &'static str,
}

/// The marks of shells, Exim, TOML and most others.
pub const HASH: Marks = Marks { begin: "# BEGIN checkpost", end: "# END checkpost" };

/// The place of new lines.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// What is looked for, for people.
    pub name: &'static str,
    /// Is it this line?
    pub is: &'a dyn Fn(&str) -> bool,
    /// Behind that line; else before it.
    pub behind: bool,
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a file cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is a begin without an end, or more than one block.
    #[error("the marks {0:?} … {1:?} are not what they were")]
    Marks(&'static str, &'static str),
    /// No line of the kind that the block goes before.
    #[error("there is no {0}")]
    NoPlace(&'static str),
}

/// The lines between the marks, if there is a block.
///
/// # Errors
/// When the marks are broken.
pub fn block(text: &str, marks: Marks) -> Result<Option<String>, EditError> {
    let broken = EditError::Marks(marks.begin, marks.end);
    let count = |mark: &str| text.lines().filter(|line| *line == mark).count();
    match (count(marks.begin), count(marks.end)) {
        (0, 0) => Ok(None),
        (1, 1) => {
            let mut lines = text.lines().skip_while(|line| *line != marks.begin).skip(1);
            let mut inside = String::new();
            loop {
                match lines.next() {
                    None => return Err(broken),
                    Some(line) if line == marks.end => return Ok(Some(inside)),
                    Some(line) => inside.extend([line, "\n"]),
                }
            }
        }
        _ => Err(broken),
    }
}

/// The text with `lines` (each with its line end) between the marks: in the place where the block is, else at
/// the first line that is `place`, or at the end with `None`.
///
/// # Errors
/// When the marks are broken or there is no such line.
pub fn with_block(text: &str, marks: Marks, lines: &str, place: Option<Place<'_>>) -> Result<String, EditError> {
    let new = format!("{}\n{lines}{}\n", marks.begin, marks.end);
    if let Some(inside) = block(text, marks)? {
        let old = format!("{}\n{inside}{}", marks.begin, marks.end);
        return Ok(text.replacen(&old, new.trim_end_matches('\n'), 1));
    }
    let Some(place) = place else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{gap}{new}"));
    };
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if (place.is)(line.trim_end_matches('\n')) {
            let at = if place.behind { at + line.len() } else { at };
            return Ok(format!("{}{new}{}", &text[..at], &text[at..]));
        }
        at += line.len();
    }
    Err(EditError::NoPlace(place.name))
}

/// A file of lines `key = value` with this value; a comment behind the key's line is not known to such files.
pub fn with_setting(text: &str, key: &str, value: &str) -> String {
    let is = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    let new = format!("{key} = {value}\n");
    if text.lines().any(is) {
        return text.split_inclusive('\n').map(|line| if is(line) { &*new } else { line }).collect();
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{gap}{new}")
}

/// What such a file sets a key to; a value may stand in double quotes.
pub fn setting(text: &str, key: &str) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let value = pairs.filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()).next_back()?;
    let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    Some(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_put_in_once_and_replaced_in_its_place() {
        let text = "one\nMAILER(x)\nMAILER(y)\n";
        let is_place = |line: &str| line.starts_with("MAILER");
        let place = Some(Place { name: "MAILER line", is: &is_place, behind: false });
        let once = with_block(text, HASH, "ours\n", place).unwrap();
        assert_eq!(once, "one\n# BEGIN checkpost\nours\n# END checkpost\nMAILER(x)\nMAILER(y)\n");
        assert_eq!(with_block(&once, HASH, "ours\n", place).unwrap(), once);
        let other = with_block(&once, HASH, "other\nlines\n", place).unwrap();
        assert_eq!(block(&other, HASH).unwrap().unwrap(), "other\nlines\n");
        assert_eq!(
            with_block("no line end", HASH, "x\n", None).unwrap(),
            "no line end\n# BEGIN checkpost\nx\n# END checkpost\n"
        );
        let behind = place.map(|place| Place { behind: true, ..place });
        let text = with_block(text, HASH, "x\n", behind).unwrap();
        assert_eq!(text, "one\nMAILER(x)\n# BEGIN checkpost\nx\n# END checkpost\nMAILER(y)\n");
        assert_eq!(with_block("one\n", HASH, "x\n", place), Err(EditError::NoPlace("MAILER line")));
    }

    #[test]
    fn a_setting_is_set_in_its_place() {
        assert_eq!(with_setting("", "a", "1"), "a = 1\n");
        assert_eq!(with_setting("# a = 0\na=0\nb = 2", "a", "1"), "# a = 0\na = 1\nb = 2");
        assert_eq!(with_setting("b = 2", "a", "1"), "b = 2\na = 1\n");
        let text = "# a = 0\na = 1\nb = \"2\"\n";
        assert_eq!(["a", "b", "c"].map(|key| setting(text, key)), [Some("1".into()), Some("2".into()), None]);
    }

    #[test]
    fn broken_marks_are_not_touched() {
        for text in [
            "# BEGIN checkpost\n",
            "# END checkpost\n# BEGIN checkpost\n",
            "# BEGIN checkpost\n# BEGIN checkpost\n# END checkpost\n",
        ] {
            assert!(with_block(text, HASH, "x\n", None).is_err(), "{text}");
        }
    }
}
