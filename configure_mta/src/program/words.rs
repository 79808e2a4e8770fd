//! What is printed, and where.

use std::io::{self, Write};

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

pub(crate) fn say(text: &str) {
    // A reader that went away is no error.
    let _ = writeln!(io::stdout(), "{text}");
}

pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
