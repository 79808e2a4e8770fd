//! qmail for `configure_mta`: what is there, and what of a recipe is missing. The original qmail-queue is never copied
//! over and never without a name; what is ours is told from it by the set-uid bit, which only the original has.

use checkpost_setup::{
    About, Answers, Change, Command, FileKind, Found, Limit, Look, LookError, Method, Mta, Obstacle, Owner, Plan,
    Socket, Submission, WHEN_DOWN, What,
};

use super::{RECIPES, WHY_REPLACE, WHY_SAVE, WHY_VARIABLE};

/// The plug-in's qmail.
#[derive(Debug)]
pub struct Qmail;

const DOWN: &str = "as chosen: mail is put off (exit 71 or 74), or it passes unscanned";

const METHODS: [Method; 2] = [
    Method {
        name: "qmail-queue",
        kind: crate::QUEUE.name,
        about: "in qmail-queue's place, for all mail and any qmail",
        when_down: DOWN,
        abilities: crate::QUEUE.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: "qmail-queue/variable",
        kind: crate::QUEUE.name,
        about: "by QMAILQUEUE, for the clients in /etc/tcp.smtp; a qmail that knows the variable",
        when_down: DOWN,
        abilities: crate::QUEUE.abilities,
        questions: &[WHEN_DOWN],
    },
];

const QUEUE: &str = "/var/qmail/bin/qmail-queue";
const ORIGINAL: &str = "/var/qmail/bin/qmail-queue.orig";
const NAME: &str = "checkpost-qmail-queue";
const RULES: &str = "/etc/tcp.smtp";
const VARIABLE: &str = "QMAILQUEUE=\"/usr/bin/checkpost-qmail-queue\"";

impl Mta for Qmail {
    fn name(&self) -> &'static str {
        "qmail"
    }

    fn title(&self) -> &'static str {
        "qmail"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        if !look.exists(QUEUE)? && !look.exists(ORIGINAL)? {
            return Ok(Vec::new());
        }
        let mut found = Found::new("qmail");
        let flavour = [
            ("/var/qmail/bin/qmail-smtpam", "indimail or another descendant"),
            ("/var/qmail/control/ldapserver", "qmail-ldap"),
            ("/var/qmail/bin/spawn-filter", "indimail"),
        ];
        for (file, name) in flavour {
            if look.exists(file)? {
                found.knows("flavour", name);
                break;
            }
        }
        found.knows("home", "/var/qmail");
        found.knows("tcpserver rules", if look.exists(RULES)? { RULES } else { "" });
        for line in look.text(RULES)?.unwrap_or_default().lines() {
            if let Some(other) = other_queue(line) {
                found.filters.push(format!("{RULES}: QMAILQUEUE={other}"));
            }
        }
        let me = look.text("/var/qmail/control/me")?.unwrap_or_default();
        found.domain = Some(me.trim().to_owned()).filter(|me| !me.is_empty());
        Ok(vec![found])
    }

    fn plan(&self, look: &dyn Look, _found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let mut plan = Plan {
            way: RECIPES[0].way.to_owned(),
            meanwhile: "nothing is restarted; programs that run go on with the qmail-queue they started".into(),
            sockets: vec![Socket { address: "unix:/run/checkpost/qmail.sock".into(), user: Some("qmaild".into()) }],
            ..Plan::default()
        };
        plan.prepare.extend(Change::when_down(look, crate::config::FILE, answers.closed())?);
        // qmail itself waits as long as it takes; a client is there for ten minutes.
        let settings = look.text(crate::config::FILE)?.unwrap_or_default();
        plan.limits.push(Limit::of_program(crate::config::FILE, &settings, "check_time", 90, 0));
        if method.name == METHODS[0].name {
            plan.submission = Submission::Program { command: Command::new(["/var/qmail/bin/qmail-inject", "-f"]) };
            // qmail-local hands it to qmail-queue (dot-qmail(5)).
            plan.forwards_anew = true;
            in_place(look, &mut plan)?;
        } else {
            by_variable(look, &mut plan)?;
        }
        Ok(plan)
    }
}

fn in_place(look: &dyn Look, plan: &mut Plan) -> Result<(), Obstacle> {
    let set_uid = |about: &About| about.kind == FileKind::File && about.mode & 0o4000 != 0;
    let (queue, original) = (look.about(QUEUE)?, look.about(ORIGINAL)?);
    match (&queue, &original) {
        (Some(queue), None) if set_uid(queue) => {
            plan.changes.push(Change {
                why: WHY_SAVE.into(),
                what: What::SecondName { path: QUEUE.into(), name: ORIGINAL.into() },
            });
        }
        // Ours is in place, or was about to be.
        (Some(queue), Some(original))
            if set_uid(original) && (!set_uid(queue) || queue.identity == original.identity) => {}
        (Some(queue), Some(_)) if set_uid(queue) => {
            return Err(Obstacle::new(
                format!("{QUEUE} and {ORIGINAL} are two programs: qmail was upgraded after Checkpost took its place"),
                format!(
                    "look at both; if the first is the new qmail's, rm {ORIGINAL} and `configure_mta undo --force`, then again"
                ),
            ));
        }
        _ => {
            return Err(Obstacle::new(
                format!("{QUEUE} is not set-uid, and there is no original beside it: this is not understood"),
                "it must be qmail's own program, owned by qmailq, mode 4711",
            ));
        }
    }
    plan.changes.push(Change {
        why: WHY_REPLACE.into(),
        what: What::Program { name: NAME.into(), path: QUEUE.into(), mode: 0o711 },
    });
    plan.notes.push(
        "After every upgrade of qmail run `configure_mta check`: an upgrade puts qmail's own program back.".into(),
    );
    Ok(())
}

fn by_variable(look: &dyn Look, plan: &mut Plan) -> Result<(), Obstacle> {
    let Some(rules) = look.text(RULES)? else {
        return Err(Obstacle::new(
            format!("there is no {RULES}, so the clients' rules are elsewhere"),
            format!("add {VARIABLE} to the rules of tcpserver, or take the method qmail-queue"),
        ));
    };
    plan.changes.push(Change {
        why: "tcpserver's programs find it there".into(),
        what: What::Program { name: NAME.into(), path: "/usr/bin/checkpost-qmail-queue".into(), mode: 0o755 },
    });
    let mut new = String::new();
    for line in rules.split_inclusive('\n') {
        if let Some(other) = other_queue(line) {
            return Err(Obstacle::new(
                format!("{RULES} names another program: QMAILQUEUE={other}"),
                "take it out, or take the method qmail-queue, which goes together with it",
            ));
        }
        let body = line.trim_end_matches('\n');
        let allows = !body.starts_with('#') && body.split_once(':').is_some_and(|(_, rule)| rule.starts_with("allow"));
        if allows && !body.contains(VARIABLE) {
            new.push_str(&format!("{body},{VARIABLE}{}", &line[body.len()..]));
        } else {
            new.push_str(line);
        }
    }
    if !new.lines().any(|line| line.starts_with(':')) {
        let gap = if new.is_empty() || new.ends_with('\n') { "" } else { "\n" };
        new.push_str(&format!("{gap}:allow,{VARIABLE}\n"));
    }
    plan.notes.push("Mail of local programs, forwards and bounces is not checked by this method.".into());
    if new == rules {
        return Ok(());
    }
    plan.changes.extend(Change::write(RULES, Some(&rules), &new, Owner::root(), 0o644, WHY_VARIABLE));
    plan.changes.push(Change {
        why: "tcpserver reads the rules in this form, at each connection".into(),
        what: What::Run {
            command: Command::shell("make tcp.smtp.cdb of tcp.smtp", super::RULES),
            touches: vec!["/etc/tcp.smtp.cdb".into(), "/etc/tcp.smtp.tmp".into()],
            back: None,
            rebuilds: true,
        },
    });
    Ok(())
}

/// A program that is not ours, in a line of rules.
fn other_queue(line: &str) -> Option<&str> {
    let value = line.split("QMAILQUEUE=").nth(1).filter(|_| !line.starts_with('#'))?;
    let value = value.strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or(value.trim());
    (!value.ends_with("checkpost-qmail-queue")).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_others_is_seen() {
        assert_eq!(other_queue("10.:allow,QMAILQUEUE=\"/var/qmail/bin/simscan\""), Some("/var/qmail/bin/simscan"));
        assert_eq!(other_queue(&format!(":allow,{VARIABLE}")), None);
        assert_eq!(other_queue("# QMAILQUEUE=\"x\""), None);
    }
}
