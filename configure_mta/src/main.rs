//! The program `configure_mta`. It shows what a way in needs in the MTA's configuration; it does not
//! find, change, prove or undo anything yet.

use std::process::ExitCode;

use checkpost_postfix::setup::{RECIPES, Recipe, Step, recipe};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Set an MTA up for Checkpost.
///
/// It applies nothing yet: it prints what you may enter yourself.
///
/// Exit codes: 0; 1 no such way; 2 wrong usage.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the exact entries that a way in needs, and why
    Plan {
        /// The kind of way, as `checkpost ways` prints it
        way: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Arguments { command: Command::Plan { way, json } } = Arguments::parse();
    let Some(recipe) = recipe(&way) else {
        let known: Vec<_> = RECIPES.iter().map(|recipe| recipe.kind).collect();
        say(&format!("configure_mta: no recipe for {way:?}; there are: {}", known.join(", ")), true);
        return ExitCode::FAILURE;
    };
    let text = if json { as_json(recipe).to_string() } else { as_text(recipe) };
    say(text.trim_end(), false);
    ExitCode::SUCCESS
}

fn as_text(recipe: &Recipe) -> String {
    let mut text = format!("# {}: a plan. Nothing was changed, and this program applies nothing yet.\n", recipe.kind);
    for step in recipe.steps {
        if let Some(why) = why(step) {
            text.push_str(&format!("\n# {why}\n"));
        } else {
            text.push('\n');
        }
        text.push_str(&command(step).iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        text.push('\n');
    }
    text.push_str("\n# And in checkpost.toml:\n");
    text.push_str(recipe.way);
    text
}

fn as_json(recipe: &Recipe) -> Value {
    let steps = recipe.steps.iter().map(|step| json!({ "file": file(step), "run": command(step), "why": why(step) }));
    json!({
        "way": recipe.kind,
        "applied": false,
        "steps": steps.collect::<Vec<_>>(),
        "checkpost_toml": recipe.way,
    })
}

/// Postfix's own editor, as argument vector.
fn command(step: &Step) -> Vec<String> {
    let of = |words: [&str; 2], last: String| [words[0].to_owned(), words[1].to_owned(), last].to_vec();
    match step {
        Step::Main { name, value, .. } => of(["postconf", "-e"], format!("{name}={value}")),
        Step::Option { service, name, value, .. } => of(["postconf", "-P"], format!("{service}/{name}={value}")),
        Step::Service { service, entry, .. } => of(["postconf", "-Me"], format!("{service}={entry}")),
        Step::Reload => vec!["postfix".to_owned(), "reload".to_owned()],
    }
}

fn file(step: &Step) -> Option<&'static str> {
    match step {
        Step::Main { .. } => Some("main.cf"),
        Step::Option { .. } | Step::Service { .. } => Some("master.cf"),
        Step::Reload => None,
    }
}

fn why(step: &Step) -> Option<&'static str> {
    match step {
        Step::Main { why, .. } | Step::Option { why, .. } | Step::Service { why, .. } => Some(why),
        Step::Reload => None,
    }
}

/// For a shell.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn say(text: &str, trouble: bool) {
    use std::io::Write;
    // A reader that went away is no error.
    let _ = if trouble { writeln!(std::io::stderr(), "{text}") } else { writeln!(std::io::stdout(), "{text}") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_shown_whole() {
        for recipe in &RECIPES {
            let text = as_text(recipe);
            for step in recipe.steps {
                assert!(why(step).is_none_or(|why| text.contains(why)), "{text}");
            }
            assert!(text.contains("applies nothing yet") && text.contains(recipe.way), "{text}");
            assert_eq!(as_json(recipe)["steps"].as_array().map(Vec::len), Some(recipe.steps.len()));
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [("a=b", "a=b"), ("a b", "'a b'"), ("", "''"), ("it's", "'it'\\''s'"), ("$x", "'$x'")] {
            assert_eq!(quoted(word), expected);
        }
    }
}
