//! CommuniGate Pro for `configure_mta`: what is there, and what is left to do. The server keeps its settings in a database of
//! its own, so the helper and the rule are an administrator's, in WebAdmin; the program and its settings are written.

use checkpost_setup::{
    Answers, Change, Found, Limit, Look, LookError, Method, Mta, Obstacle, Owner, Plan, Socket, Span, WHEN_DOWN, What,
};

use super::{
    ENQUEUER, GREETING, HELPER, NO_HELPER, NO_RULE, PROGRAM, RECIPES, RULE, WHY_ENQUEUER, WHY_GREETING, WHY_HELPER,
    WHY_INSTALL, WHY_RULE,
};

/// The plug-in's CommuniGate Pro.
#[derive(Debug)]
pub struct CommuniGate;

const METHODS: [Method; 2] = [method(crate::HELPER), method(crate::SYNCHRONOUS)];

const fn method(kind: checkpost_adapter::Kind) -> Method {
    Method {
        name: kind.name,
        kind: kind.name,
        about: kind.about,
        when_down: "as chosen: mail stays in the server's queue and is asked about again, or it goes on unscanned",
        abilities: kind.abilities,
        questions: &[WHEN_DOWN],
    }
}

/// Where the server is, on Linux.
const BASE: &str = "/var/CommuniGate";
const SETTINGS: &str = "/etc/checkpost/communigate.conf";
/// The program makes it when the server starts it for the first time.
const STARTED: &str = "/var/lib/checkpost-communigate/journal";

/// How long the program may take, which the server must outlast.
const PATIENCE: &[Span] = &[Span { key: "timeout", file: Some(SETTINGS), default: 100 }];

const OPEN: &str = "# Mail goes on UNSCANNED while Checkpost does not answer.\nwhen_down = pass\n";

impl Mta for CommuniGate {
    fn name(&self) -> &'static str {
        "communigate"
    }

    fn title(&self) -> &'static str {
        "CommuniGate Pro"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        if !look.exists(&format!("{BASE}/Queue"))? {
            return Ok(Vec::new());
        }
        let mut found = Found::new("communigate");
        found.knows("base directory", BASE);
        let started = look.exists(STARTED)?;
        found.knows("helper", if started { "was started by the server" } else { "never started" });
        found.doubts.push("helpers and rules are in the server's own database, which is not read here".into());
        Ok(vec![found])
    }

    fn plan(&self, look: &dyn Look, _found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        if !look.exists(&format!("{BASE}/Submitted"))? {
            return Err(Obstacle::new(
                format!("there is no {BASE}/Submitted, by which changed mail is handed in"),
                "start the server once: it makes the folder",
            ));
        }
        let recipe = RECIPES.iter().find(|recipe| recipe.kind == method.kind);
        let mut plan = Plan {
            way: recipe.map_or_else(String::new, |recipe| recipe.way.to_owned()),
            meanwhile: "nothing is restarted; mail is checked from the moment the rule is there".into(),
            sockets: vec![Socket { address: "unix:/run/checkpost/communigate.sock".into(), user: None }],
            notes: vec![format!(
                "Make the steps by hand, then: configure_mta prove. From cron: checkpost-communigate --look {BASE}. It has never been tried on a real server: \
                 go through \"The first hour\" in plugins/communigate/README.md."
            )],
            ..Plan::default()
        };
        let there = look.text(SETTINGS)?;
        plan.limits.push(Limit::of_program(SETTINGS, there.as_deref().unwrap_or_default(), "timeout", 100, 5));
        // The server's own limit is in its database: what the steps say of it.
        let name = "Time-out of the helper, by our steps,".into();
        plan.limits.push(Limit { name, seconds: 300, spans: PATIENCE, margin: 10 });
        let is_open = there.as_deref().is_some_and(|text| text.lines().any(|line| line.trim() == "when_down = pass"));
        match (answers.closed(), &there) {
            (true, Some(_)) if is_open => {
                return Err(Obstacle::new(
                    format!("{SETTINGS} says when_down = pass"),
                    "take the line out, or choose that mail passes",
                ));
            }
            (false, Some(_)) if !is_open => {
                return Err(Obstacle::new(
                    format!("{SETTINGS} is there, and was written by hand"),
                    "enter when_down = pass yourself, or choose that mail waits",
                ));
            }
            (false, None) => {
                let why = "mail goes on UNSCANNED while Checkpost does not answer, as was chosen";
                plan.changes.extend(Change::write(SETTINGS, None, OPEN, Owner::root(), 0o644, why));
            }
            _ => {}
        }
        if !look.exists(PROGRAM)? {
            let program = What::Program { name: "checkpost-communigate".into(), path: PROGRAM.into(), mode: 0o755 };
            plan.changes.push(Change { why: WHY_INSTALL.into(), what: program });
        }
        // What the server has of it cannot be seen; that it has started the program can.
        if !look.exists(STARTED)? {
            let by_hand = |why: [&str; 2], steps: [&str; 4], back: &str| {
                let [place, lines, then, more] = steps;
                let steps = format!("WebAdmin, {place}:\n{lines}\nthen {then}:\n{more}");
                let back = back.trim_start_matches("# ").to_owned();
                Change { why: why.join("; "), what: What::ByHand { steps, back } }
            };
            let helper =
                ["Settings, General, Helpers, the empty entry", HELPER, "Monitors, Logs, within a minute", GREETING];
            let rule = ["Settings, Queue, Enqueuer", ENQUEUER, "Settings, Rules (Server-Wide), a new rule", RULE];
            // Taken back in reverse: the rule first.
            plan.changes.push(by_hand([WHY_HELPER, WHY_GREETING], helper, NO_HELPER));
            plan.changes.push(by_hand([WHY_ENQUEUER, WHY_RULE], rule, NO_RULE));
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use checkpost_setup::{About, Said};

    use super::*;

    /// A machine that has these files and nothing else.
    struct Machine(BTreeMap<&'static str, &'static str>);

    impl Look for Machine {
        fn file(&self, path: &str) -> Result<Option<Vec<u8>>, LookError> {
            Ok(self.0.get(path).map(|text| text.as_bytes().to_vec()))
        }

        fn about(&self, path: &str) -> Result<Option<About>, LookError> {
            let about = About { kind: checkpost_setup::FileKind::File, mode: 0o755, uid: 0, gid: 0, identity: (0, 0) };
            Ok(self.0.contains_key(path).then_some(about))
        }

        fn names(&self, _: &str) -> Result<Vec<String>, LookError> {
            Ok(Vec::new())
        }

        fn run(&self, _: &[&str]) -> Result<Option<Said>, LookError> {
            Ok(None)
        }
    }

    const SERVER: [(&str, &str); 2] = [("/var/CommuniGate/Queue", ""), ("/var/CommuniGate/Submitted", "")];

    fn plan(files: &[(&'static str, &'static str)], when_down: &str) -> Result<Plan, Obstacle> {
        let machine = Machine(SERVER.iter().chain(files).copied().collect());
        let found = CommuniGate.detect(&machine).unwrap().remove(0);
        let answers = Answers([("when_down".to_owned(), when_down.to_owned())].into());
        CommuniGate.plan(&machine, &found, &METHODS[0], &answers)
    }

    fn titles(plan: &Plan) -> Vec<String> {
        plan.changes.iter().map(Change::title).collect()
    }

    #[test]
    fn what_is_missing_is_planned_and_no_more() {
        assert!(CommuniGate.detect(&Machine(BTreeMap::new())).unwrap().is_empty());
        let program = "copy the program checkpost-communigate to /usr/bin/checkpost-communigate (0755)";
        assert_eq!(titles(&plan(&[], "closed").unwrap()), [program, "by hand", "by hand"]);
        assert_eq!(
            titles(&plan(&[(PROGRAM, "")], "open").unwrap()),
            [&format!("make {SETTINGS}"), "by hand", "by hand"]
        );
        let done = [(PROGRAM, ""), (STARTED, ""), (SETTINGS, OPEN)];
        assert_eq!(titles(&plan(&done, "open").unwrap()), Vec::<String>::new());
        assert_eq!(titles(&plan(&done[..2], "closed").unwrap()), Vec::<String>::new());
    }

    #[test]
    fn settings_of_somebody_else_are_left_alone() {
        assert!(plan(&[(SETTINGS, OPEN)], "closed").is_err());
        assert!(plan(&[(SETTINGS, "timeout = 60s\n")], "open").is_err());
        assert!(plan(&[(SETTINGS, "timeout = 60s\n")], "closed").is_ok());
    }

    #[test]
    fn the_rule_goes_before_the_helper() {
        let plan = plan(&[], "closed").unwrap();
        let backs = plan.changes.iter().rev().filter_map(|change| match &change.what {
            What::ByHand { back, .. } => Some(back.clone()),
            _ => None,
        });
        let backs: Vec<String> = backs.collect();
        assert!(backs[0].contains("delete the rule") && backs[1].contains("Disabled"), "{backs:?}");
    }
}
