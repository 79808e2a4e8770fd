//! A plan in the making: what all ways have. What each has of its own is in the files below.

mod after_queue;
mod in_session;

use checkpost_setup::{
    Answers, Change, Command, Found, Limit, Look, Obstacle, Plan, Socket, Span, Submission, What, shell,
};

use super::acl::{self, DATA, DATA_MACRO, NOT_SMTP};
use super::debian::Debian;
use super::edits::Edits;
use super::merge::merged;
use super::methods::SCOPE;
use super::ports::Ports;
use super::{MACROS, MADE, OWN_MAIN, Place};

/// A daemon that does not run is not started. systemd would leave a service that is started six times in ten seconds stopped
/// (StartLimitBurst), unless its count is set back. The script returns before the new one has bound its sockets; its number is
/// in the file when it has.
const RESTART: &str = "f=/run/exim4/exim.pid; p=$(cat $f 2> /dev/null) && kill -0 \"$p\" 2> /dev/null || exit 0; \
                       if [ -d /run/systemd/system ]; then systemctl reset-failed exim4 2> /dev/null || true; fi; \
                       service exim4 restart > /dev/null; n=0; \
                       until q=$(cat $f 2> /dev/null) && [ \"$q\" != \"$p\" ] && kill -0 \"$q\"; do \
                       n=$((n + 1)); [ $n -lt 300 ]; sleep 0.1; done";

/// A plan in the making.
pub(super) struct Way<'a> {
    look: &'a dyn Look,
    debian: &'a Debian,
    answers: &'a Answers,
    ports: &'a Ports<'a>,
    edits: Edits<'a>,
    plan: Plan,
}

impl<'a> Way<'a> {
    pub(super) fn new(
        look: &'a dyn Look,
        debian: &'a Debian,
        answers: &'a Answers,
        ports: &'a Ports<'a>,
        found: &Found,
    ) -> Self {
        let plan = Plan {
            activate: vec![Command::shell("restart Exim", RESTART)],
            meanwhile: "Exim is started anew: for about a second clients cannot connect and try again; mail in its \
                        queue is not touched"
                .into(),
            submission: Submission::Smtp { address: found.fact("address").unwrap_or("127.0.0.1:25").into() },
            ..Plan::default()
        };
        Self { look, debian, answers, ports, edits: Edits::new(look), plan }
    }

    /// Our own side.
    pub(super) fn serves(&mut self, way: &str) {
        self.plan.way = self.ports.in_text(way);
    }

    /// Lines of the recipe, as they are wanted here.
    pub(super) fn lines(&mut self, file: &str, place: Place, lines: &str, why: &str) -> Result<(), Obstacle> {
        let Some(lines) = self.wanted(file, lines)? else { return Ok(()) };
        // These two are read by name when Exim asks for them.
        let is_acl = [DATA, NOT_SMTP].contains(&file);
        if !is_acl {
            self.edits.makes(&lines);
        }
        let open = "mail passes UNSCANNED while Checkpost does not answer, as was chosen";
        let why = if is_acl && !self.answers.closed() { open } else { why };
        self.edits.lines(file, place, &lines, why)
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

    /// The daemon takes a port of 127.0.0.1, which nobody else may have.
    fn takes(&mut self, port: &str) -> Result<(), Obstacle> {
        let address = format!("127.0.0.1:{port}");
        let names = self.look.names("/etc/checkpost/conf.d")?.into_iter().map(|name| format!("conf.d/{name}"));
        let mut is_its_own = false;
        for name in names.chain(["checkpost.toml".into()]).filter(|name| name.ends_with(".toml")) {
            let text = self.look.text(&format!("/etc/checkpost/{name}"))?.unwrap_or_default();
            is_its_own |= text.contains(&format!("{address}\""));
        }
        if !is_its_own {
            self.is_free(port, "port")?;
        }
        self.connects(&address);
        Ok(())
    }

    fn connects(&mut self, address: &str) {
        self.plan.sockets.push(Socket { address: address.into(), user: Some("Debian-exim".into()) });
    }

    fn in_force(&mut self, option: &str, value: &str) {
        let line = shell(&["grep", "-qxF", &format!("{option} = {value}")]);
        let script = format!("exim4 -bV > /dev/null; exim4 -bP {option} | {line}");
        self.plan.check.push(Command::shell("Exim reads it", script));
    }

    /// So long Exim waits for what may take these times.
    fn waits(&mut self, name: &str, seconds: u64, spans: &'static [Span], margin: u64) {
        self.plan.limits.push(Limit { name: name.into(), seconds, spans, margin });
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
    pub(super) fn plan(self) -> Result<Plan, Obstacle> {
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
