//! What a way needs, as entries to be made by hand: the same on every machine. It looks at nothing.

use checkpost_adapter::setup::Plan;

/// The recipes of all plug-ins.
pub fn plans() -> Vec<Plan> {
    let mut plans = checkpost_postfix::setup::plans();
    plans.extend(checkpost_sendmail::setup::plans());
    plans.extend(checkpost_exim::setup::plans());
    plans.extend(checkpost_qmail::setup::plans());
    plans.extend(checkpost_courier::setup::plans());
    plans.extend(checkpost_communigate::setup::plans());
    plans.extend(checkpost_zmailer::setup::plans());
    plans
}

/// For people.
pub fn as_text(plan: &Plan) -> String {
    let method = plan.method.map(|method| format!(" {method}")).unwrap_or_default();
    let mut text = format!("# {}{method}: to be entered by hand; `configure_mta apply` does it for you.\n", plan.way);
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
            assert!(text.contains(plan.checkpost_toml), "{text}");
        }
    }
}
