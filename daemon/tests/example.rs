//! The shipped example file is right, as the whole program reads it: as it stands, and with every
//! setting that is commented out switched on.

use checkpostd::Loaded;

const EXAMPLE: &str = include_str!("../../docs/checkpost.toml");

fn problems_of(text: &str) -> String {
    // The list's file is not shipped, the user is made by the package, and the library is somebody else's.
    let text = text
        .replace("file = \"tag-spam.txt\"", "")
        .replace("\"checkpost\"", "\"0\"")
        .replace("kind = \"library\"", "kind = \"library\"\nenabled = false");
    match Loaded::parse("checkpost.toml", &text) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn the_example_is_right_as_it_stands() {
    assert_eq!(problems_of(EXAMPLE), "");
}

#[test]
fn the_example_is_right_with_everything_switched_on() {
    let setting = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let switched: Vec<_> =
        EXAMPLE.lines().map(|line| line.strip_prefix('#').filter(|rest| setting(rest)).unwrap_or(line)).collect();
    assert!(switched.iter().zip(EXAMPLE.lines()).filter(|(a, b)| *a != b).count() > 30);
    assert_eq!(problems_of(&switched.join("\n")), "");
}
