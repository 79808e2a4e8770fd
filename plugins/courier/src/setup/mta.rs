//! Courier for `configure_mta`: what is there, and what of the recipe is missing. The filter is started last, by
//! `filterctl`, and has ten seconds to show its socket: without one Courier takes mail and asks nobody.

use checkpost_setup::{
    Answers, Change, Choice, Command, FileKind, Found, Limit, Look, LookError, Method, Mta, Obstacle, Owner, Plan,
    Question, Socket, WHEN_DOWN, What,
};

use super::{PROGRAM, RECIPES, WHY_INSTALL, WHY_START};

/// The plug-in's Courier.
#[derive(Debug)]
pub struct Courier;

const SCOPE: Question = Question {
    key: "scope",
    ask: "Whose mail goes through Checkpost?",
    choices: &[
        Choice { value: "all", about: "that of SMTP clients and of programs on this host" },
        Choice { value: "outside", about: "only that of SMTP clients" },
    ],
    default: "all",
};

const METHODS: [Method; 1] = [Method {
    name: "courierfilter",
    kind: crate::COURIERFILTER.name,
    about: crate::COURIERFILTER.about,
    when_down: "as chosen: clients are told to try again later, or mail passes unscanned. A filter that was killed: 432; but when courierfilter or the \
                filter is stopped on purpose, mail passes unscanned: that is Courier's own rule",
    abilities: crate::COURIERFILTER.abilities,
    questions: &[WHEN_DOWN, SCOPE],
}];

const MODULES: &str = "/etc/courier/enablefiltering";
const ACTIVE: &str = "/etc/courier/filters/active/checkpost";
const SETTINGS: &str = "/etc/checkpost/courier.conf";
const PID: &str = "/run/courier/courierfilter.pid";

const STOP: &str = "if [ -L /etc/courier/filters/active/checkpost ]; then filterctl stop checkpost; fi; \
                    n=0; while [ -S /var/lib/courier/allfilters/checkpost ]; do n=$((n + 1)); [ $n -lt 150 ]; sleep 0.1; done";
/// Its socket is there, and somebody answers at it.
const SHOWS: &str = "n=0; until [ -S /var/lib/courier/allfilters/checkpost ] && \
                     /usr/lib/courier/filters/checkpost --probe 2> /dev/null; do n=$((n + 1)); \
                     if [ $n -gt 100 ]; then echo 'the filter did not start; see the mail log' >&2; exit 1; fi; sleep 0.1; done";

impl Mta for Courier {
    fn name(&self) -> &'static str {
        "courier"
    }

    fn title(&self) -> &'static str {
        "Courier"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        // courier-imap alone has no filters.
        if !look.exists("/etc/courier/courierd")? {
            return Ok(Vec::new());
        }
        let mut found = Found::new("courier");
        let said = look.run(&["dpkg-query", "-W", "-f", "${Version}", "courier-mta"])?;
        found.version = said.filter(checkpost_setup::Said::ok).map(|said| said.out.trim().to_owned());
        let pid = look.text(PID)?.map(|text| text.trim().to_owned());
        found.running = Some(match pid {
            Some(pid) => look.exists(&format!("/proc/{pid}"))?,
            None => false,
        });
        found.knows("filtered modules", modules(look)?.join(" "));
        let active = look.names("/etc/courier/filters/active")?;
        found.filters = active.into_iter().filter(|name| name != "checkpost").collect();
        for file in ["/etc/courier/me", "/etc/mailname", "/etc/courier/defaultdomain"] {
            let name = look.text(file)?.unwrap_or_default().trim().to_owned();
            if found.domain.is_none() && name.contains('.') {
                found.domain = Some(name);
            }
        }
        Ok(vec![found])
    }

    fn plan(&self, look: &dyn Look, found: &Found, _method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let [recipe] = &RECIPES;
        if found.running == Some(false) {
            return Err(Obstacle::new(
                "courierfilter does not run",
                "start it: systemctl start courierfilter (or: courierfilter start)",
            ));
        }
        let mut plan = Plan {
            way: recipe.way.to_owned(),
            check: vec![Command::shell("wait for the filter", SHOWS)],
            meanwhile: "nothing is restarted; the filter is started beside Courier, and mail is filtered from then on"
                .into(),
            flush: vec![Command::new(["courier", "flush"])],
            sockets: vec![Socket { address: "unix:/run/checkpost/courier.sock".into(), user: Some("courier".into()) }],
            ..Plan::default()
        };
        if found.filters.iter().any(|name| name.as_str() > "checkpost") {
            plan.notes.push("Courier asks filters in the order of their names; some come after Checkpost, and what they change is not looked at.".into());
        }
        plan.prepare.extend(Change::when_down(look, SETTINGS, answers.closed())?);
        // Courier itself waits for hours; the filter does not.
        let settings = look.text(SETTINGS)?.unwrap_or_default();
        plan.limits.push(Limit::of_program(SETTINGS, &settings, "timeout", 100, 5));
        let program = What::Program { name: "checkpost-courier".into(), path: PROGRAM.into(), mode: 0o755 };
        plan.changes.push(Change { why: WHY_INSTALL.into(), what: program });
        let there = look.text(MODULES)?;
        let mut words = modules(look)?;
        for module in if answers.to(&SCOPE) == "all" { &["esmtp", "local"][..] } else { &["esmtp"] } {
            if !words.iter().any(|word| word == module) {
                words.push((*module).to_owned());
            }
        }
        if modules(look)? != words || there.is_none() {
            let text = format!("{}\n", words.join(" "));
            let why = "whose mail is filtered: that of SMTP clients (esmtp), of local programs (local)";
            plan.changes.extend(Change::write(MODULES, there.as_deref(), &text, Owner::root(), 0o644, why));
        }
        let ours = FileKind::Link(PROGRAM.into());
        match look.about(ACTIVE)?.map(|about| about.kind) {
            Some(kind) if kind == ours => {}
            Some(_) => {
                return Err(Obstacle::new(
                    format!("{ACTIVE} is there and leads elsewhere"),
                    "filterctl stop checkpost, then again",
                ));
            }
            None => plan.changes.push(Change {
                why: WHY_START.into(),
                what: What::Run {
                    command: Command::new(["filterctl", "start", "checkpost"]),
                    touches: Vec::new(),
                    back: Some(Command::shell("filterctl stop checkpost", STOP)),
                    rebuilds: false,
                },
            }),
        }
        Ok(plan)
    }
}

fn modules(look: &dyn Look) -> Result<Vec<String>, LookError> {
    let text = look.text(MODULES)?.unwrap_or_else(|| "esmtp".into());
    Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
}
