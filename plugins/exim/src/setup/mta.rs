//! Exim for `configure_mta`: which ways there are, and what of a way's recipe is missing. In Debian's split layout our files
//! are files of their own, in the other one blocks between marks. A configuration that is not Debian's is left alone.

use checkpost_setup::{
    Answers, Change, Choice, Command, Found, Look, LookError, Method, Mta, Obstacle, Owner, Plan, Question, Socket,
    Submission, WHEN_DOWN, What, shell,
};

use super::acl::{self, DATA, DATA_MACRO, NOT_SMTP};
use super::debian::{Debian, listening};
use super::edits::Edits;
use super::local_scan::LIBRARY;
use super::merge::merged;
use super::{BY_HAND, MACROS, MADE, ONE_FILE, OWN_MAIN, OWN_ROUTER, SPLIT, Step, UPDATE, WHY_LISTEN, detect, recipes};
use crate::acl::{CLAMD, RSPAMD, SPAMD};
use crate::local_scan::LOCAL_SCAN;
use crate::transport::{PIPE, TRANSPORT};

/// The plug-in's Exim.
#[derive(Debug)]
pub struct Exim;

const SCOPE: Question = Question {
    key: "scope",
    ask: "Whose mail goes through Checkpost?",
    choices: &[
        Choice { value: "all", about: "that of SMTP clients and of programs on this host" },
        Choice { value: "outside", about: "only that of SMTP clients" },
    ],
    default: "all",
};

const fn port(default: &'static str) -> Question {
    Question { key: "port", ask: "Which port of 127.0.0.1 does Checkpost take?", choices: &[], default }
}

const BACK_PORT: Question = Question {
    key: "back_port",
    ask: "At which port of 127.0.0.1 does Exim take checked mail back?",
    choices: &[],
    default: "10026",
};

const ACL_DOWN: &str = "as chosen: clients and local programs are told to try again later (451), or mail passes unscanned, and so \
                        does what Checkpost puts off, since Exim cannot tell the two apart";

const METHODS: [Method; 6] = [
    Method {
        name: LOCAL_SCAN.name,
        kind: LOCAL_SCAN.name,
        about: LOCAL_SCAN.about,
        when_down: "as chosen: clients and local programs are told to try again later (451), or mail passes unscanned",
        abilities: LOCAL_SCAN.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: TRANSPORT.name,
        kind: TRANSPORT.name,
        about: TRANSPORT.about,
        when_down: "mail stays in Exim's queue and is tried again",
        abilities: TRANSPORT.abilities,
        questions: &[port("10025"), BACK_PORT],
    },
    Method {
        name: PIPE.name,
        kind: PIPE.name,
        about: PIPE.about,
        when_down: "as chosen: mail stays in Exim's queue and is tried again, or it passes unscanned",
        abilities: PIPE.abilities,
        questions: &[WHEN_DOWN],
    },
    Method {
        name: RSPAMD.name,
        kind: RSPAMD.name,
        about: RSPAMD.about,
        when_down: ACL_DOWN,
        abilities: RSPAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13311")],
    },
    Method {
        name: CLAMD.name,
        kind: CLAMD.name,
        about: CLAMD.about,
        when_down: ACL_DOWN,
        abilities: CLAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13310")],
    },
    Method {
        name: SPAMD.name,
        kind: SPAMD.name,
        about: SPAMD.about,
        when_down: ACL_DOWN,
        abilities: SPAMD.abilities,
        questions: &[WHEN_DOWN, SCOPE, port("13312")],
    },
];

/// A daemon that does not run is not started. The script returns before the new one has bound its sockets; its number is in the
/// file when it has.
const RESTART: &str = "f=/run/exim4/exim.pid; p=$(cat $f 2> /dev/null) && kill -0 \"$p\" 2> /dev/null || exit 0; \
                       service exim4 restart > /dev/null; n=0; \
                       until q=$(cat $f 2> /dev/null) && [ \"$q\" != \"$p\" ] && kill -0 \"$q\"; do \
                       n=$((n + 1)); [ $n -lt 300 ]; sleep 0.1; done";

/// What was put off waits for its retry time, though it is routed anew: `-qf` does not ask for that. Frozen mail stays
/// (`-qff` would send it): some of it is in quarantine. Nobody waits for a long queue; a daemon that does not run shall not deliver.
const QUEUE: &str = "p=$(cat /run/exim4/exim.pid 2> /dev/null) && kill -0 \"$p\" 2> /dev/null || exit 0; \
                     exim4 -qf < /dev/null > /dev/null 2>&1 &";

const ROUTED: &str = "exim4 -bV > /dev/null; exim4 -bP transport_list | grep -qx checkpost; \
                      exim4 -bP router_list | grep -qx checkpost";

impl Mta for Exim {
    fn name(&self) -> &'static str {
        "exim"
    }

    fn title(&self) -> &'static str {
        "Exim"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        detect::found(look)
    }

    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let Some(debian) = Debian::read(look)? else {
            return Err(Obstacle::new(
                format!("{BY_HAND} was written by hand, and is not changed"),
                format!("enter what `configure_mta recipe {}` prints", method.kind),
            ));
        };
        let layout = if debian.split { SPLIT } else { ONE_FILE };
        let recipe = recipes().find(|recipe| recipe.kind == method.kind && recipe.method == Some(layout));
        let recipe = recipe.ok_or_else(|| Obstacle::new("no such recipe", "see configure_mta detect"))?;
        let ports = Ports::of(method, answers)?;
        let mut way = Way {
            look,
            debian: &debian,
            answers,
            ports: &ports,
            edits: Edits::new(look),
            plan: Plan {
                way: ports.in_text(recipe.way),
                activate: vec![Command::shell("restart Exim", RESTART)],
                meanwhile:
                    "Exim is started anew: for about a second clients cannot connect and try again; mail in its \
                            queue is not touched"
                        .into(),
                submission: Submission::Smtp { address: found.fact("address").unwrap_or("127.0.0.1:25").into() },
                ..Plan::default()
            },
        };
        match method.kind {
            kind if kind == LOCAL_SCAN.name => way.local_scan()?,
            kind if kind == TRANSPORT.name => way.transport()?,
            kind if kind == PIPE.name => way.pipe()?,
            _ => way.acl(found, method)?,
        }
        for step in recipe.steps {
            match *step {
                Step::Lines { file, place, lines, why } => {
                    let wanted = way.wanted(file, lines)?;
                    let Some(lines) = wanted else { continue };
                    // These two are read by name when Exim asks for them.
                    let is_acl = [DATA, NOT_SMTP].contains(&file);
                    if !is_acl {
                        way.edits.makes(&lines);
                    }
                    let open = is_acl && !answers.closed();
                    let why =
                        if open { "mail passes UNSCANNED while Checkpost does not answer, as was chosen" } else { why };
                    way.edits.lines(file, place, &lines, why)?;
                }
                Step::Listen => way.listen()?,
                Step::Library => way.library()?,
                Step::Restart | Step::Verify { .. } => {}
            }
        }
        way.plan()
    }
}

/// The ports of a plan, in place of those of the recipe.
struct Ports<'a> {
    /// Of the recipe, and as answered.
    ours: Option<(&'a str, &'a str)>,
    back: Option<(&'a str, &'a str)>,
}

impl<'a> Ports<'a> {
    fn of(method: &'a Method, answers: &'a Answers) -> Result<Self, Obstacle> {
        let one = |key: &str| {
            let question = method.questions.iter().find(|question| question.key == key);
            question.map(|question| (question.default, answers.to(question)))
        };
        let ports = Self { ours: one("port"), back: one(BACK_PORT.key) };
        let all = || ports.ours.iter().chain(&ports.back).map(|(_, port)| *port);
        for port in all() {
            if port.parse::<u16>().map_or(true, |number| number == 0) {
                return Err(Obstacle::new(format!("{port:?} is no port"), "a number from 1 to 65535"));
            }
        }
        if ports.back.is_some_and(|(_, back)| all().next() == Some(back)) {
            return Err(Obstacle::new("port and back_port are the same", "choose two"));
        }
        Ok(ports)
    }

    fn in_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // By way of a port that is none, should one be the other's default.
        for (i, (default, _)) in self.ours.iter().chain(&self.back).enumerate() {
            text = text.replace(default, &format!("PORT{i}"));
        }
        for (i, (_, port)) in self.ours.iter().chain(&self.back).enumerate() {
            text = text.replace(&format!("PORT{i}"), port);
        }
        text
    }
}

/// A plan in the making.
struct Way<'a> {
    look: &'a dyn Look,
    debian: &'a Debian,
    answers: &'a Answers,
    ports: &'a Ports<'a>,
    edits: Edits<'a>,
    plan: Plan,
}

impl Way<'_> {
    fn local_scan(&mut self) -> Result<(), Obstacle> {
        self.connects("unix:/run/checkpost/exim.sock");
        self.in_force("local_scan_path", LIBRARY);
        self.notes_held();
        self.plan.prepare.extend(Change::when_down(self.look, "/etc/checkpost/exim.conf", self.answers.closed())?);
        if let Some(line) = self.debian.says("cutthrough_delivery") {
            self.plan.warnings.push(format!(
                "{} says {:?}: such mail is handed on before it is checked, and what is said of it then comes too late",
                line.file, line.text
            ));
        }
        for set in self.debian.settings("local_scan_timeout") {
            if seconds(set.value).is_some_and(|time| time > 0 && time < 100) {
                self.plan.warnings.push(format!(
                    "local_scan_timeout is {}: Exim gives up before Checkpost has to answer (90s); raise it, or lower \
                     check_time in /etc/checkpost/exim.conf",
                    set.value
                ));
            }
        }
        Ok(())
    }

    /// It is there before Exim is told of it, and goes when Exim has been told otherwise: without it all mail is put off.
    fn library(&mut self) -> Result<(), Obstacle> {
        if !self.look.exists("/usr/lib/exim4/local_scan")? {
            let what = What::Folder { path: "/usr/lib/exim4/local_scan".into(), owner: Owner::root(), mode: 0o755 };
            self.plan.prepare.push(Change { why: "where Exim finds such libraries".into(), what });
        }
        self.program(
            "libcheckpost_exim_local_scan.so",
            LIBRARY,
            0o644,
            "the library that Exim loads for each mail, complete before it has its name",
        );
        Ok(())
    }

    fn transport(&mut self) -> Result<(), Obstacle> {
        self.after_queue()?;
        for (option, name) in [("mail", "MAIL"), ("rcpt", "RCPT"), ("data", "DATA")] {
            self.uses(&format!("acl_smtp_{option}"), &format!("MAIN_ACL_CHECK_{name}"))?;
        }
        for name in ["acl_smtp_connect", "acl_smtp_helo", "acl_smtp_predata", "acl_smtp_mime", "acl_smtp_dkim"] {
            if let [set, ..] = self.debian.settings(name)[..] {
                let file = &set.line.file;
                self.plan
                    .notes
                    .push(format!("{file} sets {name}: it is asked once more when checked mail comes back."));
            }
        }
        for set in self.debian.settings("smtp_accept_max_per_host") {
            if set.value != "0" {
                self.plan.warnings.push(format!(
                    "smtp_accept_max_per_host is {}: it holds for 127.0.0.1, too, from where checked mail comes back",
                    set.value
                ));
            }
        }
        if let Some((_, ours)) = self.ports.ours {
            self.connects(&format!("127.0.0.1:{ours}"));
        }
        if let Some((_, back)) = self.ports.back {
            self.plan.sockets.push(Socket { address: format!("127.0.0.1:{back}"), user: Some("checkpost".into()) });
        }
        Ok(())
    }

    fn pipe(&mut self) -> Result<(), Obstacle> {
        self.after_queue()?;
        self.connects("unix:/run/checkpost/pipe.sock");
        let settings = "/etc/checkpost/pipe.conf";
        self.program("checkpost-pipe", "/usr/bin/checkpost-pipe", 0o755, "the program that Exim starts for each mail");
        self.plan.prepare.extend(Change::when_down(self.look, settings, self.answers.closed())?);
        let text = self.look.text(settings)?.unwrap_or_default();
        let time = text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| key.trim() == "check_time");
        if let Some((_, time)) = time.filter(|(_, time)| seconds(time.trim()).is_some_and(|time| time > 800)) {
            self.plan.warnings.push(format!(
                "check_time in {settings} is {}: the transport's time-out is 15m, and what takes longer is tried again \
                 and again; lower it",
                time.trim()
            ));
        }
        if let [set, ..] = self.debian.settings("acl_not_smtp")[..] {
            let file = &set.line.file;
            self.plan.notes.push(format!("{file} sets acl_not_smtp: it is asked when checked mail comes back."));
        }
        Ok(())
    }

    /// What both ways after the queue have.
    fn after_queue(&mut self) -> Result<(), Obstacle> {
        if let Some(line) = self.debian.says("cutthrough_delivery") {
            return Err(Obstacle::new(
                format!(
                    "{} says {:?}: such mail never gets into the queue, and would not be checked",
                    line.file, line.text
                ),
                "take that line out, or take exim-rspamd, which is asked in the session",
            ));
        }
        if let Some(line) = self.debian.earlier_router(OWN_ROUTER) {
            self.plan.warnings.push(format!(
                "the router {} in {} comes before Checkpost's: what it takes is NOT checked; give its file a number above 050",
                line.text.trim_end_matches(':'),
                line.file
            ));
        }
        self.plan.check.push(Command::shell("Exim reads it", ROUTED));
        // Mail in the queue has no trace of us and is routed anew at each try, but for its retry times.
        self.plan.settle.push(Command::shell("try waiting mail again", QUEUE));
        self.plan.flush.push(Command::shell("try waiting mail again", QUEUE));
        self.plan.meanwhile =
            "Exim is started anew: for about a second clients cannot connect and try again; mail that is in its queue \
                               goes through Checkpost, too, when it is tried next"
                .into();
        Ok(())
    }

    fn acl(&mut self, found: &Found, method: &Method) -> Result<(), Obstacle> {
        if found.fact("content scanning") != Some("yes") {
            return Err(Obstacle::new(
                "this Exim has no content scanning",
                "apt install exim4-daemon-heavy, or take exim-local-scan",
            ));
        }
        let in_it = "take exim-local-scan, or put `.include /etc/exim4/checkpost_check_data` into that ACL by hand";
        if let [set, ..] = self.debian.settings("MAIN_ACL_CHECK_DATA")[..] {
            let why = format!("{} says {:?}, so Debian's own ACL is not asked", set.line.file, set.line.text);
            return Err(Obstacle::new(why, in_it));
        }
        self.uses("acl_smtp_data", "MAIN_ACL_CHECK_DATA")?;
        if self.debian.says(&format!(".include {DATA_MACRO}")).is_none() {
            return Err(Obstacle::new(format!("the ACL acl_check_data does not ask for {DATA_MACRO}"), in_it));
        }
        let Some((_, ours)) = self.ports.ours else { return Ok(()) };
        self.connects(&format!("127.0.0.1:{ours}"));
        match method.kind {
            kind if kind == CLAMD.name => self.in_force("av_scanner", &format!("clamd:127.0.0.1 {ours}")),
            kind if kind == SPAMD.name => self.in_force("spamd_address", &format!("127.0.0.1 {ours}")),
            _ => {
                self.in_force("spamd_address", &format!("127.0.0.1 {ours} variant=rspamd"));
                self.notes_held();
            }
        }
        Ok(())
    }

    /// The recipe's lines as they are wanted here.
    fn wanted(&self, file: &str, lines: &str) -> Result<Option<String>, Obstacle> {
        let outside = self.answers.to(&SCOPE) == "outside";
        let lines = self.ports.in_text(lines);
        Ok(match file {
            NOT_SMTP if outside => None,
            NOT_SMTP => Some(self.as_chosen(&lines)),
            DATA => {
                let theirs = self.debian.settings(DATA_MACRO);
                let theirs = theirs.first().filter(|theirs| theirs.value != DATA);
                let theirs = theirs.map(|theirs| format!(".include {}\n", theirs.value)).unwrap_or_default();
                Some(self.as_chosen(&lines) + &theirs)
            }
            OWN_MAIN | MACROS => {
                let is_kept = |line: &&str| !outside || !line.starts_with("acl_not_smtp ");
                let lines: String = lines.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
                Some(merged(&lines, self.debian)?)
            }
            _ => Some(lines),
        })
    }

    fn as_chosen(&self, lines: &str) -> String {
        if self.answers.closed() { lines.to_owned() } else { acl::open(lines) }
    }

    /// One more address, in Debian's list.
    fn listen(&mut self) -> Result<(), Obstacle> {
        let Some((_, back)) = self.ports.back else { return Ok(()) };
        let address = format!("127.0.0.1.{back}");
        let hint = format!("have Exim listen at {address} as well: add it to that list");
        let options = self.look.text("/etc/default/exim4")?.unwrap_or_default();
        let is_list =
            |line: &&str| line.trim().starts_with("SMTPLISTENEROPTIONS=") && line.contains("-oX") && line.contains('.');
        if let Some(line) = options.lines().find(is_list).filter(|line| !line.contains(&address)) {
            return Err(Obstacle::new(
                format!("/etc/default/exim4 says {:?}, and Debian's list does not count", line.trim()),
                hint,
            ));
        }
        let sets = ["MAIN_LOCAL_INTERFACES", "local_interfaces"].iter().flat_map(|name| self.debian.settings(name));
        let others: Vec<_> = sets.filter(|set| set.value != "MAIN_LOCAL_INTERFACES").collect();
        if let [set, ..] = others[..] {
            if set.value.contains(&address) {
                return Ok(());
            }
            let why = format!("{} says {:?}, and Debian's list does not count", set.line.file, set.line.text);
            return Err(Obstacle::new(why, hint));
        }
        self.uses("local_interfaces", "MAIN_LOCAL_INTERFACES")?;
        if self.debian.dc("dc_eximconfig_configtype") == Some("none") {
            return Err(Obstacle::new(
                format!("dc_eximconfig_configtype in {UPDATE} is none, and Debian's list does not count"),
                "set MAIN_LOCAL_INTERFACES in /etc/exim4/exim4.conf.localmacros",
            ));
        }
        let text = self.edits.text(UPDATE)?.to_owned();
        let new = listening(&text, &address).map_err(|why| Obstacle::new(format!("{UPDATE}: {why}"), hint))?;
        if new != text {
            self.is_free(back, "back_port")?;
        }
        self.edits.makes_part(&address);
        self.edits.set(UPDATE, new, &self.ports.in_text(WHY_LISTEN))
    }

    fn is_free(&self, port: &str, key: &str) -> Result<(), Obstacle> {
        if port.parse().is_ok_and(|port| self.look.is_taken(port).unwrap_or(false)) {
            let why = format!("somebody listens at port {port} already");
            return Err(Obstacle::new(why, format!("choose another: --set {key}=…")));
        }
        Ok(())
    }

    /// Debian's file has an option as its macro, so that ours counts.
    fn uses(&self, option: &str, macro_name: &str) -> Result<(), Obstacle> {
        match self.debian.settings(option)[..] {
            [set] if set.value == macro_name => Ok(()),
            [set, ..] => Err(Obstacle::new(
                format!("{} says {:?}, and not {macro_name} as Debian has it", set.line.file, set.line.text),
                format!("write `{option} = {macro_name}` there, and set {macro_name} to what it was before it"),
            )),
            [] => Err(Obstacle::new(
                format!("Exim's files do not have Debian's line `{option} = {macro_name}`"),
                "put it back where Debian has it",
            )),
        }
    }

    fn connects(&mut self, address: &str) {
        self.plan.sockets.push(Socket { address: address.into(), user: Some("Debian-exim".into()) });
    }

    fn in_force(&mut self, option: &str, value: &str) {
        let line = shell(&["grep", "-qxF", &format!("{option} = {value}")]);
        let script = format!("exim4 -bV > /dev/null; exim4 -bP {option} | {line}");
        self.plan.check.push(Command::shell("Exim reads it", script));
    }

    fn notes_held(&mut self) {
        self.plan.notes.push(
            "Mails that Checkpost held are frozen in Exim's queue: `exiqgrep -z -i` lists them, `exim4 -Mt ID` releases one."
                .into(),
        );
    }

    fn program(&mut self, name: &str, path: &str, mode: u32, why: &str) {
        let what = What::Program { name: name.into(), path: path.into(), mode };
        self.plan.prepare.push(Change { why: why.into(), what });
    }

    /// With Exim's files changed, Debian's is made anew.
    fn plan(self) -> Result<Plan, Obstacle> {
        let Self { look, edits, mut plan, .. } = self;
        let made = look.text(MADE)?.unwrap_or_default();
        let (changes, anew) = edits.changes(&made);
        plan.changes = changes;
        if anew {
            plan.changes.push(Change {
                why: "Debian makes the file that Exim reads out of its own files".into(),
                what: What::Run {
                    command: Command::new(["update-exim4.conf"]),
                    touches: vec![MADE.into()],
                    back: None,
                    rebuilds: true,
                },
            });
        }
        Ok(plan)
    }
}

/// A time of Exim's: numbers, each with a letter.
fn seconds(time: &str) -> Option<u64> {
    let (mut sum, mut number) = (0_u64, None);
    for letter in time.chars() {
        let unit = match letter {
            '0'..='9' => {
                let digit = u64::from(letter.to_digit(10)?);
                number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    // Without a letter these are seconds.
    sum.checked_add(number.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (time, expected) in
            [("5m", Some(300)), ("1h30m", Some(5400)), ("90", Some(90)), ("0s", Some(0)), ("x", None)]
        {
            assert_eq!(seconds(time), expected, "{time}");
        }
    }

    #[test]
    fn ports_are_put_in_even_if_they_change_places() {
        let method = METHODS.iter().find(|method| method.name == TRANSPORT.name).unwrap();
        let mut answers = Answers::default();
        answers.0.extend([("port".into(), "10026".into()), ("back_port".into(), "10025".into())]);
        let ports = Ports::of(method, &answers).unwrap();
        assert_eq!(ports.in_text("10025 10026 10025"), "10026 10025 10026");
        answers.0.insert("port".into(), "10025".into());
        assert!(Ports::of(method, &answers).is_err());
        answers.0.insert("port".into(), "0".into());
        assert!(Ports::of(method, &answers).is_err());
    }
}
