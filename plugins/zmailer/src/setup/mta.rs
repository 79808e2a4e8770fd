//! ZMailer for `configure_mta`: what is there, and what of a recipe is missing. smtpserver takes for "accept" whatever goes
//! wrong, and reads its configuration once: so the filter is there first, and a mail proves it afterwards.

use checkpost_setup::text::setting;
use checkpost_setup::{
    Answers, Change, Command, FileKind, Found, Limit, Look, LookError, Method, Mta, Obstacle, Owner, Plan, Socket,
    WHEN_DOWN, What,
};

use super::files::{self, ProcessError};
use super::home::{Home, Sight};
use super::{
    LISTEN, PROGRAM, RECIPES, RESTART, RESTART_ROUTER, SOCKET, WHY_POLICY, WHY_PROCESS, WHY_PROGRAM, WHY_SOCKET, server,
};
use crate::config::{Config, FILE};

/// The plug-in's ZMailer.
#[derive(Debug)]
pub struct ZMailer;

const SMTP_DOWN: &str = "as chosen: clients are told to try again later (451), or mail passes unscanned. While the filter itself is gone, \
                         mail passes unscanned: that is ZMailer's own rule";

const METHODS: [Method; 3] = [
    Method {
        name: "zmailer-smtp",
        kind: crate::SMTP.name,
        about: "smtpserver asks a server of ours at a socket, about mail that comes by SMTP",
        when_down: SMTP_DOWN,
        abilities: crate::SMTP.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: "zmailer-smtp/program",
        kind: crate::SMTP.name,
        about: "smtpserver starts a program of ours, 20 copies at most; mail that waits 120 s for a free one passes",
        when_down: SMTP_DOWN,
        abilities: crate::SMTP.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: "zmailer-router",
        kind: crate::ROUTER.name,
        about: crate::ROUTER.about,
        when_down: "as chosen: mail waits in the router's folder and is asked about again, or it passes unscanned",
        abilities: crate::ROUTER.abilities,
        questions: &[WHEN_DOWN],
    },
];

const COPY: &str = "/usr/bin/checkpost-zmailer";

impl Mta for ZMailer {
    fn name(&self) -> &'static str {
        "zmailer"
    }

    fn title(&self) -> &'static str {
        "ZMailer"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        let home = match Home::find(look)? {
            Sight::None => return Ok(Vec::new()),
            Sight::Unclear(zenv, why) => {
                let doubts = vec![format!("{zenv}: {why}")];
                return Ok(vec![Found { doubts, ..Found::new("zmailer") }]);
            }
            Sight::Home(home) => home,
        };
        let mut found = Found::new("zmailer");
        let said = look.run(&[&format!("{}/smtpserver", home.bin), "-V"])?;
        // "ZMailer smtpserver (3.0.1 #2: date)", on either output.
        found.version = said.and_then(|said| version(&format!("{}{}", said.out, said.err)));
        // Not everybody may read the post office.
        let runs = home.runs(look, "smtpserver").and_then(|runs| Ok(runs && home.runs(look, "router")?));
        found.running = runs.ok();
        found.knows("configuration", home.zenv);
        found.knows("smtpserver's configuration", home.smtpserver());
        found.knows("router's function", home.process());
        found.knows("post office", &*home.office);
        if let Some(conf) = regular(look, &home.smtpserver())? {
            let other = files::param(&conf, "contentfilter").filter(|path| !is_ours(path));
            found.filters.extend(other.map(|path| format!("{}: contentfilter {path}", home.smtpserver())));
        } else {
            found.doubts.push(format!("{} is no file: several smtpservers, or none", home.smtpserver()));
        }
        if let Some(cf) = regular(look, &home.process())? {
            found.filters.extend(files::programs(&cf).iter().map(|path| format!("{}: {path}", home.process())));
        }
        let policy = look.text(&format!("{}/db/smtp-policy.src", home.var))?.unwrap_or_default();
        found.knows("own clients", if filters_own_clients(&policy) { "filtered" } else { "not filtered" });
        let relay = look.text(&format!("{}/db/smtp-policy.relay", home.var))?.unwrap_or_default();
        if relay.lines().any(|line| line.starts_with("[127.0.0.1]")) && !filters_own_clients(&policy) {
            found.doubts.push(
                "127.0.0.1 is a relay client (smtp-policy.relay), whose mail smtpserver asks nobody about: test mails from \
                 here will not be seen"
                    .into(),
            );
        }
        found.domain = domain(look, &home)?;
        Ok(vec![found])
    }

    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let home = match Home::find(look)? {
            Sight::Home(home) => home,
            Sight::None => return Err(Obstacle::new("there is no zmailer.conf", "install ZMailer")),
            Sight::Unclear(zenv, why) => {
                return Err(Obstacle::new(
                    format!("{zenv} is not understood: {why}"),
                    format!("enter what `configure_mta recipe {}` prints", method.kind),
                ));
            }
        };
        let recipe = RECIPES.iter().find(|recipe| recipe.kind == method.kind);
        let way = recipe.map_or_else(String::new, |recipe| recipe.way.to_owned());
        // smtpserver asks an interactive router about senders (PARAM enable-router, as it ships).
        let mut plan = Plan { way, checks_senders: true, ..Plan::default() };
        let usual = Config::default();
        let (office, user) = (usual.postoffice.display().to_string(), usual.user);
        let needs = [("postoffice", &*home.office, &*office), ("user", &*home.user, &*user)];
        plan.prepare.extend(Change::settings(look, FILE, &needs, answers.closed())?);
        // As a program it gives up early on purpose: mails wait for a free copy. smtpserver's own limit is fixed, and no
        // setting of ours goes beyond it.
        let time = if method.kind == crate::ROUTER.name { "router_timeout" } else { "timeout" };
        if method.name != METHODS[1].name {
            let settings = look.text(FILE)?.unwrap_or_default();
            plan.limits.push(Limit::of_program(FILE, &settings, time, 100, 5));
        }
        let program = What::Program { name: "checkpost-zmailer".into(), path: COPY.into(), mode: 0o755 };
        plan.changes.push(Change { why: "who asks Checkpost for ZMailer".into(), what: program });
        if method.name == METHODS[2].name {
            by_router(look, &home, &mut plan)?;
        } else {
            by_smtpserver(look, found, &home, method, &mut plan)?;
        }
        Ok(plan)
    }
}

fn by_smtpserver(
    look: &dyn Look,
    found: &Found,
    home: &Home,
    method: &Method,
    plan: &mut Plan,
) -> Result<(), Obstacle> {
    let path = home.smtpserver();
    let by_hand = || format!("enter what `configure_mta recipe {}` prints", method.kind);
    let Some(conf) = regular(look, &path)? else {
        return Err(Obstacle::new(format!("{path} is no file: several smtpservers, or none"), by_hand()));
    };
    if home.smtp_options.split_ascii_whitespace().any(|word| word.starts_with("-C")) {
        return Err(Obstacle::new(
            format!("SMTPOPTIONS in {} names another configuration than {path} (-C)", home.zenv),
            by_hand(),
        ));
    }
    if let Some(other) = files::param(&conf, "contentfilter").filter(|path| !is_ours(path)) {
        return Err(Obstacle::new(
            format!("{path} names another filter, {other}, and smtpserver has one such place"),
            "take zmailer-router, which goes together with it, or take the other filter out first",
        ));
    }
    let is_socket = method.name == METHODS[0].name;
    if is_socket && found.running == Some(false) {
        return Err(Obstacle::new(
            "ZMailer does not run, so its filter would not be started either",
            "start it, or take zmailer-smtp/program",
        ));
    }
    let (lines, why) = if is_socket { (SOCKET, WHY_SOCKET) } else { (PROGRAM, WHY_PROGRAM) };
    if is_socket {
        server::changes(look, home, plan)?;
        plan.sockets.push(Socket { address: format!("unix:{LISTEN}"), user: Some(home.user.clone()) });
        let about = look.about(LISTEN)?;
        if about.is_some_and(|about| about.kind == FileKind::Socket && about.mode & 0o111 == 0) {
            plan.warnings
                .push(format!("{LISTEN} has no execute bit: smtpserver ignores it without a word at its next start"));
        }
    }
    if !files::has_params(&conf, lines) {
        let new = files::with_params(&conf, lines);
        plan.changes.extend(Change::write(&path, Some(&conf), &new, Owner::root(), 0o644, why));
    }
    plan.sockets.push(Socket { address: "unix:/run/checkpost/zmailer.sock".into(), user: Some(home.user.clone()) });
    plan.activate.push(restarted(home, "smtpserver", RESTART));
    plan.meanwhile =
        "smtpserver is restarted: for about 3 s clients cannot connect and try again; sessions that are open go on"
            .into();
    if found.fact("own clients") == Some("not filtered") {
        plan.notes.push(format!("Mail of your own clients is not filtered yet. For that add \"filtering +\" to both _default_ipaddr and _full_rights in {}/db/smtp-policy.src: {}",
            home.var, home.in_text(WHY_POLICY)));
    }
    plan.notes.push(kept(home));
    Ok(())
}

fn by_router(look: &dyn Look, home: &Home, plan: &mut Plan) -> Result<(), Obstacle> {
    let path = home.process();
    let Some(cf) = regular(look, &path)? else {
        return Err(Obstacle::new(format!("there is no {path}"), "start ZMailer once, or look for its MAILSHARE"));
    };
    let new = files::with_question(&cf).map_err(|why| {
        let hint = match why {
            ProcessError::ByHand => "take it out: this does it for you",
            ProcessError::Edit(_) => "put the marks right, or take them out",
            ProcessError::Cases => "enter by hand what the README says, before each rfc822; or take zmailer-smtp",
        };
        Obstacle::new(format!("{path}: {why}"), hint)
    })?;
    plan.changes.extend(Change::write(&path, Some(&cf), &new, Owner::root(), 0o644, WHY_PROCESS));
    // The router is root's.
    plan.sockets.push(Socket { address: "unix:/run/checkpost/zmailer-router.sock".into(), user: None });
    plan.activate.push(restarted(home, "router", RESTART_ROUTER));
    plan.meanwhile = "the router is restarted: mail waits in its folder for some seconds, and no client notices".into();
    plan.notes
        .push("After every upgrade of ZMailer run `configure_mta check`: it may put its own process.cf back.".into());
    plan.notes.push(kept(home));
    Ok(())
}

/// After an undo the program is gone; before it, `release` lets it pass the rule that held it.
fn kept(home: &Home) -> String {
    format!(
        "Mail that Checkpost held is in {0}/freezer, and an undo leaves it there. Before it: checkpost-zmailer release NAME; \
         after it: mv {0}/freezer/NAME {0}/router/NUMBER, the digits that NAME begins with.",
        home.office
    )
}

/// Until another process has taken the old one's place, the old configuration counts.
fn restarted(home: &Home, part: &str, restart: &str) -> Command {
    let (file, restart) = (format!("{}/.pid.{part}", home.office), home.in_text(restart));
    let script = format!(
        "f={file}; p=$(cat $f 2> /dev/null) || exit 0; [ -e /proc/$p ] || exit 0; \
         {restart} > /dev/null 2>&1 < /dev/null; n=0; \
         until q=$(cat $f 2> /dev/null) && [ \"$q\" != \"$p\" ] && [ -e /proc/$q ]; do n=$((n + 1)); \
         if [ $n -gt 300 ]; then echo '{part} did not start again' >&2; exit 1; fi; sleep 0.1; done"
    );
    Command::shell(&format!("restart {part}"), script)
}

fn is_ours(path: &str) -> bool {
    path == LISTEN || path == COPY
}

/// A file's text; `None` if it is a folder or not there.
fn regular(look: &dyn Look, path: &str) -> Result<Option<String>, LookError> {
    match look.about(path)? {
        Some(about) if about.kind == FileKind::File => look.text(path),
        _ => Ok(None),
    }
}

/// The one before `#` in parentheses.
fn version(said: &str) -> Option<String> {
    let inside = said.split_once('(')?.1;
    let version = inside.split([' ', ')']).next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// As smtp-policy.src says: `filtering +` in both entries (policytest.c).
fn filters_own_clients(policy: &str) -> bool {
    let has = |entry: &str| {
        policy.lines().any(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.first() == Some(&entry) && words.windows(2).any(|pair| pair == ["filtering", "+"])
        })
    };
    has("_default_ipaddr") && has("_full_rights")
}

/// A name that mail is taken for: the organisation's, if it is one, else the first with a dot.
fn domain(look: &dyn Look, home: &Home) -> Result<Option<String>, LookError> {
    let names = look.text(&format!("{}/db/localnames", home.var))?.unwrap_or_default();
    let names: Vec<&str> = names
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_ascii_whitespace().next())
        .filter(|name| name.contains('.') && !name.starts_with(['.', '[']))
        .collect();
    let own = look.text(&format!("{}/mail.conf", home.var))?.unwrap_or_default();
    let own = setting(&own, "orgdomain").filter(|own| names.contains(&own.as_str()));
    Ok(own.or_else(|| names.first().map(|name| (*name).to_owned())))
}
