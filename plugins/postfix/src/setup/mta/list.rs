//! Postfix's lists: of milters, and of words. What others have put into one stays.

/// The items of a list of milters: words, or what is in braces.
pub(super) fn milters(list: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0_usize);
    for letter in list.chars().chain([' ']) {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (letter.is_whitespace() || letter == ',') {
            if !item.is_empty() {
                items.push(std::mem::take(&mut item));
            }
        } else {
            item.push(letter);
        }
    }
    items
}

/// A list of milters with this item in the place of the one that has `mark` in it, or at the end.
pub(super) fn with_milter(list: &str, mark: &str, item: &str) -> String {
    match milters(list).iter().find(|other| other.contains(mark)) {
        Some(old) => list.replacen(&**old, item, 1),
        None if list.is_empty() => item.to_owned(),
        None => format!("{list} {item}"),
    }
}

/// A list of words with this one, and no blanks, which postconf -P of Postfix 3.7 refuses.
pub(super) fn with_word(list: &str, word: &str) -> String {
    let mut words: Vec<&str> = words(list).collect();
    if !words.contains(&word) {
        words.push(word);
    }
    words.join(",")
}

/// Is it one of the words?
pub(super) fn has_word(list: &str, word: &str) -> bool {
    words(list).any(|other| other == word)
}

/// The words of a list.
pub(super) fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_milters_are_read_with_their_braces() {
        let list = "inet:127.0.0.1:8891, { unix:x y, default_action=accept } $more";
        assert_eq!(milters(list), ["inet:127.0.0.1:8891", "{ unix:x y, default_action=accept }", "$more"]);
        let with = |list, item| with_milter(list, "checkpost/milter.sock", item);
        assert_eq!(with("", "ours"), "ours");
        assert_eq!(with("a, b", "ours"), "a, b ours");
        assert_eq!(with("a unix:checkpost/milter.sock, b", "{ new }"), "a { new }, b");
    }

    #[test]
    fn a_word_is_in_a_list_once() {
        assert_eq!(with_word("", "b"), "b");
        assert_eq!(with_word("a, c", "b"), "a,c,b");
        assert_eq!(with_word("a b", "b"), "a,b");
        assert!(has_word("a, b", "b") && !has_word("a, bb", "b"));
    }
}
