//! The milter: an item in two lists and an action, in main.cf. What a service has of its own goes before.

use checkpost_setup::{Answers, Change, FileKind, Obstacle, Owner, Plan, Socket, What};

use super::conf::Conf;
use super::{OVERRIDES, RECIPES, SCOPE, SOCKET, Step, list};

/// Adds what is missing.
pub(super) fn plan(
    conf: &Conf<'_>,
    plan: &mut Plan,
    queue: &str,
    fronts: &[&str],
    answers: &Answers,
) -> Result<(), Obstacle> {
    folder(conf, plan, queue)?;
    let action = if answers.closed() { "tempfail" } else { "accept" };
    let set = conf.set()?;
    for front in fronts {
        let own = conf.option(front, OVERRIDES)?;
        let overrides = own.as_deref().or(set.has(OVERRIDES)).unwrap_or_default();
        if list::has_word(overrides, "no_milters") {
            return Err(Obstacle::new(
                format!("{OVERRIDES} of {front} is {overrides}: no milter is asked there"),
                "take no_milters out, in main.cf or in master.cf, or take another way",
            ));
        }
    }
    let smtpd = set.has("smtpd_milters").unwrap_or_default();
    let non_smtpd = set.has("non_smtpd_milters").unwrap_or_default();
    let mut own_lists = Vec::new();
    for front in fronts {
        own_lists.extend(conf.option(front, "smtpd_milters")?.map(|list| (*front, list)));
    }
    let lists = [smtpd, non_smtpd].into_iter().chain(own_lists.iter().map(|(_, list)| &**list));
    let others = lists.flat_map(list::milters).any(|item| !item.contains(SOCKET) && !item.starts_with('$'));
    // Others keep their action; the braces are of Postfix 3.0.
    let own_action = others || set.has("milter_default_action").is_some_and(|set| set != action);
    let item =
        if own_action { format!("{{ unix:{SOCKET}, default_action={action} }}") } else { format!("unix:{SOCKET}") };
    let with_ours = |list: &str| list::with_milter(list, SOCKET, &item);
    let mut wanted = vec![("smtpd_milters", with_ours(smtpd))];
    if answers.to(&SCOPE) == "all" && !non_smtpd.contains("$smtpd_milters") && !non_smtpd.contains("${smtpd_milters}") {
        wanted.push(("non_smtpd_milters", with_ours(non_smtpd)));
    }
    if !own_action {
        wanted.push(("milter_default_action", action.into()));
    }
    wanted.retain(|(name, value)| set.has(name) != Some(value));
    if !wanted.is_empty() {
        let reasons: Vec<&str> = wanted.iter().filter_map(|(name, _)| why(name, answers.closed())).collect();
        let words: Vec<String> = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let words: Vec<&str> = std::iter::once("-e").chain(words.iter().map(String::as_str)).collect();
        plan.changes.push(conf.edit("main.cf", &words, &reasons.join("; ")));
    }
    // Without braces it is the action of all that counts.
    let plain = !own_action || conf.value("milter_default_action")? == action;
    for (front, own) in own_lists.iter().filter(|(_, own)| !own.contains(SOCKET)) {
        // postconf -P of Postfix 3.7 takes no blanks.
        if own.contains(char::is_whitespace) || !plain {
            return Err(Obstacle::new(
                format!("{front} in master.cf has its own smtpd_milters = {own}"),
                format!("add unix:{SOCKET} to it, or take the option out of master.cf"),
            ));
        }
        let comma = if own.is_empty() { "" } else { "," };
        let value = format!("{front}/smtpd_milters={own}{comma}unix:{SOCKET}");
        plan.changes.push(conf.edit("master.cf", &["-P", &value], "this service has a list of milters of its own"));
    }
    if others {
        plan.notes.push(
            "Milters are asked in the order of the list. Checkpost is last: behind one that verifies DKIM, which is right; \
             if one of the others signs, put Checkpost before it or let no rule edit what is signed."
                .into(),
        );
    }
    Ok(())
}

/// The socket's folder, in the queue directory: beyond that a chrooted smtpd sees nothing.
fn folder(conf: &Conf<'_>, plan: &mut Plan, queue: &str) -> Result<(), Obstacle> {
    let folder = format!("{queue}/checkpost");
    plan.writes.push(folder.clone());
    plan.sockets.push(Socket { address: format!("unix:{folder}/milter.sock"), user: Some("postfix".into()) });
    match conf.look.about(&folder)? {
        None => plan.prepare.push(Change {
            why: "the milter's socket lies where Postfix's smtpd sees it, and only these two may use it".into(),
            what: What::Folder { path: folder, owner: Owner::new("checkpost", "postfix"), mode: 0o2750 },
        }),
        Some(about) if about.kind == FileKind::Folder && about.mode == 0o2750 => {}
        Some(_) => {
            return Err(Obstacle::new(
                format!("{folder} is there and is not as it must be"),
                format!("install -d -o checkpost -g postfix -m 2750 {folder}"),
            ));
        }
    }
    Ok(())
}

/// The recipe's reason for a parameter.
fn why(wanted: &str, closed: bool) -> Option<&'static str> {
    if wanted == "milter_default_action" && !closed {
        return Some("while Checkpost does not answer, mail goes through UNSCANNED, as was chosen");
    }
    let recipe = RECIPES.iter().find(|recipe| recipe.kind == crate::MILTER.name)?;
    recipe.steps.iter().find_map(|step| match step {
        Step::Append { name, why, .. } | Step::Main { name, why, .. } if *name == wanted => Some(*why),
        _ => None,
    })
}
