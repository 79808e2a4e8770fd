//! Sendmail for `configure_mta`: what is there, and what of the recipe is missing. `sendmail.mc` gets one marked block;
//! `sendmail.cf` is made of it by m4, looked at by Sendmail itself, and only then takes the old one's place.

use checkpost_setup::text::{self, Marks, Place};
use checkpost_setup::{
    Answers, Change, Command, Found, Limit, Look, LookError, Method, Mta, Obstacle, Owner, Plan, Socket, Span,
    WHEN_DOWN, What,
};

use super::{RECIPES, Step};

/// The plug-in's Sendmail.
#[derive(Debug)]
pub struct Sendmail;

const METHODS: [Method; 1] = [Method {
    name: "sendmail-milter",
    kind: crate::MILTER.name,
    about: crate::MILTER.about,
    when_down: "as chosen: clients are told to try again later (F=T), or mail passes unscanned",
    abilities: crate::MILTER.abilities,
    questions: &[WHEN_DOWN],
}];

/// E of the recipe's line, in seconds. Signs of life renew Sendmail's other times, not this one: from the end of a mail to our
/// answer (libmilter/README).
const UNTIL_ANSWERED: u64 = 300;
const SPANS: &[Span] = &[Span::of_way("check_timeout", 90)];

const MC: &str = "/etc/mail/sendmail.mc";
const CF: &str = "/etc/mail/sendmail.cf";
const NEW: &str = "/etc/mail/sendmail.cf.checkpost-new";
const PID: &str = "/run/sendmail/mta/sendmail.pid";
const MARKS: Marks = Marks { begin: "dnl # BEGIN checkpost", end: "dnl # END checkpost" };

/// Owner and permissions stay, and at no moment is there half a file.
const BUILD: &str = "cd /etc/mail; cp -p sendmail.cf sendmail.cf.checkpost-new; \
                     m4 sendmail.mc > sendmail.cf.checkpost-new; \
                     sendmail -C /etc/mail/sendmail.cf.checkpost-new -bt < /dev/null > /dev/null; \
                     mv sendmail.cf.checkpost-new sendmail.cf";

/// At SIGHUP it starts itself anew, under another number.
const RELOAD: &str = "f=/run/sendmail/mta/sendmail.pid; p=$(head -n 1 $f 2> /dev/null) || exit 0; \
                      kill -HUP \"$p\" 2> /dev/null || exit 0; n=0; \
                      while [ \"$(head -n 1 $f 2> /dev/null)\" = \"$p\" ]; do n=$((n + 1)); [ $n -lt 300 ]; sleep 0.1; done";

impl Mta for Sendmail {
    fn name(&self) -> &'static str {
        "sendmail"
    }

    fn title(&self) -> &'static str {
        "Sendmail"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        // Other MTAs have a program of that name, and some keep aliases in that folder.
        if !look.exists(MC)? && !look.exists(CF)? {
            return Ok(Vec::new());
        }
        let mut found = Found::new("sendmail");
        let said = look.run(&["sendmail", "-d0.1", "-bt"])?;
        let version =
            said.and_then(|said| said.out.lines().find_map(|line| line.strip_prefix("Version ").map(str::to_owned)));
        found.version = version;
        let pid = look.text(PID)?.and_then(|text| text.lines().next().map(|line| line.trim().to_owned()));
        found.running = Some(match pid {
            Some(pid) => look.exists(&format!("/proc/{pid}"))?,
            None => false,
        });
        let mc = look.text(MC)?;
        found.knows("configuration", if mc.is_some() { MC } else { CF });
        match &mc {
            None => found.doubts.push(format!("there is no {MC}: sendmail.cf was made elsewhere or by hand")),
            Some(mc) => found.filters = others(mc),
        }
        let names = look.text("/etc/mail/local-host-names")?.unwrap_or_default();
        let mailname = look.text("/etc/mailname")?.unwrap_or_default();
        let domain = names
            .lines()
            .chain(mailname.lines())
            .map(str::trim)
            .find(|name| name.contains('.') && !name.starts_with('#'));
        found.domain = domain.map(str::to_owned);
        Ok(vec![found])
    }

    fn plan(&self, look: &dyn Look, _found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let [recipe] = &RECIPES;
        let Some(mc) = look.text(MC)? else {
            return Err(Obstacle::new(
                format!("there is no {MC}, and sendmail.cf is not changed by hand"),
                format!(
                    "make sendmail.cf of a sendmail.mc, or enter the lines that `configure_mta recipe {}` prints",
                    method.name
                ),
            ));
        };
        let steps = recipe.steps.iter().find_map(|step| match step {
            Step::Lines { text, why } => Some((*text, *why)),
            Step::Rebuild => None,
        });
        let (lines, why) = steps.unwrap_or_default();
        let inside = lines.strip_prefix(MARKS.begin).and_then(|rest| rest.strip_suffix(MARKS.end)).unwrap_or(lines);
        let (inside, why) = if answers.closed() {
            (inside.trim_start().to_owned(), why.to_owned())
        } else {
            // Without F= a milter that is gone is left out.
            let why = "every mail that Sendmail receives is checked in its session; without F= mail goes through UNSCANNED while \
                       Checkpost does not answer, as was chosen";
            (inside.trim_start().replace(" F=T,", ""), why.to_owned())
        };
        let without = match text::block(&mc, MARKS) {
            Ok(Some(block)) => mc.replace(&block, ""),
            Ok(None) => mc.clone(),
            Err(error) => return Err(Obstacle::new(format!("{MC}: {error}"), "put the marks right, or take them out")),
        };
        if without.contains("MAIL_FILTER(`checkpost'") {
            return Err(Obstacle::new(
                format!("{MC} has a filter `checkpost' that was entered by hand"),
                "take it out: this does it for you",
            ));
        }
        let is_place = |line: &str| line.starts_with("MAILER");
        let place = Some(Place { name: "MAILER line in sendmail.mc", is: &is_place, behind: false });
        let new = text::with_block(&mc, MARKS, &inside, place);
        let new =
            new.map_err(|error| Obstacle::new(format!("{MC}: {error}"), "sendmail.mc as Debian ships it has one"))?;
        // cf/README: this define replaces the list, with whatever stood before it.
        let after = new.split(MARKS.end).nth(1).unwrap_or_default();
        if after.lines().any(|line| line.starts_with("define(`confINPUT_MAIL_FILTERS'")) {
            return Err(Obstacle::new(
                "confINPUT_MAIL_FILTERS is set behind our place, and would throw the filter out again",
                "put that line before the first MAILER line",
            ));
        }
        let mut plan = Plan {
            way: recipe.way.to_owned(),
            check: vec![Command::new(["grep", "-q", "^Xcheckpost,", CF])],
            activate: vec![Command::shell("restart Sendmail by SIGHUP", RELOAD)],
            meanwhile:
                "Sendmail starts itself anew: for about a second clients cannot connect and try again; mail in its \
                        queue is not touched"
                    .into(),
            sockets: vec![Socket { address: "unix:/run/checkpost/milter.sock".into(), user: None }],
            flush: vec![Command::new(["sendmail", "-q"])],
            notes: vec![
                "Mails that Checkpost held stay in Sendmail's quarantine after an undo: `mailq -qQ` shows them, \
                 `sendmail -Q -qQ` releases all."
                    .into(),
            ],
            ..Plan::default()
        };
        let line = inside.lines().find_map(|line| line.split("`checkpost', `").nth(1)?.strip_suffix("')dnl"));
        let built = format!("Xcheckpost, {}", line.unwrap_or_default());
        let name = format!("T=E: of the filter in {MC}");
        plan.limits.push(Limit { name, seconds: UNTIL_ANSWERED, spans: SPANS, margin: 10 });
        let cf = look.text(CF)?.unwrap_or_default();
        let is_built = cf.lines().any(|line| line == built);
        plan.changes.extend(Change::write(MC, Some(&mc), &new, Owner::root(), 0o644, &why));
        if mc != new || !is_built {
            plan.changes.push(Change {
                why: "sendmail.cf is made of sendmail.mc, and Sendmail itself has read it before it counts".into(),
                what: What::Run {
                    command: Command::shell("make sendmail.cf of sendmail.mc", BUILD),
                    touches: vec![CF.into(), NEW.into()],
                    back: None,
                    rebuilds: true,
                },
            });
        }
        Ok(plan)
    }
}

/// Filters of others, by their names.
fn others(mc: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("INPUT_MAIL_FILTER(`").or_else(|| line.strip_prefix("MAIL_FILTER(`"))?;
        rest.split('\'').next().map(str::to_owned)
    };
    mc.lines().filter_map(name).filter(|name| name != "checkpost").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_our_answer_is_the_recipes() {
        let [recipe] = &RECIPES;
        let Step::Lines { text, .. } = recipe.steps[0] else { panic!("lines come first") };
        assert!(text.contains(";E:5m'") && UNTIL_ANSWERED == 5 * 60, "{text}");
    }

    #[test]
    fn other_filters_are_known_by_their_names() {
        let mc = "dnl\nINPUT_MAIL_FILTER(`opendkim', `S=inet:8891@localhost')dnl\nMAIL_FILTER(`x', `')\nINPUT_MAIL_FILTER(`checkpost', `')\n";
        assert_eq!(others(mc), ["opendkim", "x"]);
    }
}
