//! The program `configure_mta`. It shows what a way in needs in the MTA's configuration; it does not
//! find, change, prove or undo anything yet.

use std::process::ExitCode;

use checkpost_adapter::setup::Plan;
use clap::{Parser, Subcommand};

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

/// The plug-ins that have recipes.
fn plans() -> Vec<Plan> {
    let mut plans = checkpost_postfix::setup::plans();
    plans.extend(checkpost_sendmail::setup::plans());
    plans.extend(checkpost_qmail::setup::plans());
    plans.extend(checkpost_courier::setup::plans());
    plans
}

fn main() -> ExitCode {
    let Arguments { command: Command::Plan { way, json } } = Arguments::parse();
    let plans = plans();
    let chosen: Vec<&Plan> = plans.iter().filter(|plan| plan.way == way).collect();
    if chosen.is_empty() {
        let mut known: Vec<_> = plans.iter().map(|plan| plan.way).collect();
        known.dedup();
        say(&format!("configure_mta: no recipe for {way:?}; there are: {}", known.join(", ")), true);
        return ExitCode::FAILURE;
    }
    // One document, or one for each method.
    let show = |plan: &&Plan| if json { as_json(plan).to_string() } else { as_text(plan) };
    say(chosen.iter().map(show).collect::<Vec<_>>().join("\n\n").trim_end(), false);
    ExitCode::SUCCESS
}

fn as_text(plan: &Plan) -> String {
    let method = plan.method.map(|method| format!(" {method}")).unwrap_or_default();
    let mut text =
        format!("# {}{method}: a plan. Nothing was changed, and this program applies nothing yet.\n", plan.way);
    for step in &plan.steps {
        text.push('\n');
        if let Some(why) = step.why {
            text.push_str(&format!("# {why}\n"));
        }
        if let Some((place, lines)) = step.lines {
            text.push_str(&format!("# In {}, {place}:\n{lines}\n", step.file.unwrap_or("the configuration")));
        }
        if let Some(run) = &step.run {
            text.push_str(&format!("{run}\n"));
        }
    }
    let undo: Vec<&str> = plan.steps.iter().rev().filter_map(|step| step.undo.as_deref()).collect();
    if !undo.is_empty() {
        text.push_str(&format!("\n# To take it back:\n{}\n", undo.join("\n")));
    }
    text.push_str("\n# And in checkpost.toml:\n");
    text.push_str(plan.checkpost_toml);
    text
}

fn as_json(plan: &Plan) -> serde_json::Value {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    value["applied"] = false.into();
    value
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
        for plan in plans() {
            let text = as_text(&plan);
            for step in &plan.steps {
                assert!(step.why.is_none_or(|why| text.contains(why)), "{text}");
                assert!(step.undo.as_ref().is_none_or(|undo| text.contains(undo)), "{text}");
                assert!(step.run.is_some() || step.lines.is_some(), "{step:?}");
            }
            assert!(text.contains("applies nothing yet") && text.contains(plan.checkpost_toml), "{text}");
            assert_eq!(as_json(&plan)["steps"].as_array().map(Vec::len), Some(plan.steps.len()));
        }
    }
}
