//! Checkpost's own side: the user, the programs, the configuration's file and the service, as changes like any others.
//! Which way it serves is the plug-in's business.

use std::path::Path;

use checkpost_setup::{Change, Command, FileKind, Look, LookError, Obstacle, Owner, Plan, What};

use crate::journal::Part;
use crate::own;

/// Where the configuration is.
pub const CONFIG: &str = "/etc/checkpost/checkpost.toml";
const UNIT: &str = "/etc/systemd/system/checkpost.service";
const PACKAGED: &str = "/lib/systemd/system/checkpost.service";
/// What `systemctl enable` makes of the unit.
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/checkpost.service";
const DROP_IN: &str = "/etc/systemd/system/checkpost.service.d";
const SCRIPT: &str = "/etc/init.d/checkpost";
const LOG: &str = "/var/log/checkpost.log";

/// What starts the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// systemd.
    Systemd,
    /// A script in /etc/init.d, with start-stop-daemon(8).
    Script,
    /// The administrator.
    ByHand,
}

impl Service {
    /// What there is. `live`: is this the running system, or one in a folder?
    ///
    /// # Errors
    /// When the machine cannot be looked at.
    pub fn of(look: &dyn Look, live: bool) -> Result<Self, LookError> {
        if if live { look.has_systemd()? } else { look.will_have_systemd()? } {
            return Ok(Self::Systemd);
        }
        let debian = look.exists("/sbin/start-stop-daemon")? && look.exists("/etc/init.d")?;
        Ok(if debian { Self::Script } else { Self::ByHand })
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Script => "a script in /etc/init.d",
            Self::ByHand => "none that is known: start checkpostd yourself",
        }
    }

    /// The command for a word like `start`; `None`: there is none.
    pub fn command(self, word: &str) -> Option<Command> {
        match self {
            Self::Systemd => Some(Command::new(["systemctl", word, "checkpost"])),
            Self::Script => Some(Command::new([SCRIPT, word])),
            Self::ByHand => None,
        }
    }

    /// Does it run?
    ///
    /// # Errors
    /// When that cannot be asked.
    pub fn runs(self, look: &dyn Look) -> Result<bool, LookError> {
        let said = match self {
            Self::Systemd => look.run(&["systemctl", "is-active", "--quiet", "checkpost"])?,
            Self::Script if look.exists(SCRIPT)? => look.run(&[SCRIPT, "status"])?,
            _ => look.run(&["checkpost", "status"])?,
        };
        Ok(said.is_some_and(|said| said.ok()))
    }

    /// What the daemon has logged lately.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(self, look: &dyn Look) -> Result<String, LookError> {
        Ok(match self {
            Self::Systemd => {
                let said = look.run(&["journalctl", "-u", "checkpost", "-o", "cat", "-n", "2000", "--no-pager"])?;
                said.map(|said| said.out).unwrap_or_default()
            }
            _ => {
                let said = look.run(&["tail", "-c", "1000000", LOG])?;
                said.map(|said| said.out).unwrap_or_default()
            }
        })
    }
}

/// Checkpost's own changes, in two parts: its files, which are checked, and its service.
///
/// # Errors
/// When its configuration is not understood.
pub fn parts(
    look: &dyn Look,
    plan: &Plan,
    scanner: Option<&str>,
    live: bool,
    source: &Path,
) -> Result<Vec<(Part, Vec<Change>)>, Obstacle> {
    let service = Service::of(look, live)?;
    let mut files = Vec::new();
    let passwd = look.text("/etc/passwd")?.unwrap_or_default();
    if !passwd.lines().any(|line| line.starts_with("checkpost:")) {
        let words = "useradd --system --user-group --home-dir /var/lib/checkpost --shell /usr/sbin/nologin checkpost";
        files.push(Change::run(
            Command::new(words.split(' ')),
            &[],
            "the daemon runs as a user of its own; it stays after an undo, since mails in quarantine are its",
        ));
    }
    for name in ["checkpostd", "checkpost"] {
        let path = format!("/usr/bin/{name}");
        if !look.exists(&path)? && source != Path::new("/usr/bin") {
            let what = What::Program { name: name.into(), path, mode: 0o755 };
            files.push(Change { why: "the programs are where the service and you look for them".into(), what });
        }
    }
    match look.about("/etc/checkpost")?.map(|about| about.kind) {
        Some(FileKind::Folder) => {}
        Some(_) => return Err(Obstacle::new("/etc/checkpost is no folder", "take it out of the way")),
        None => files.push(Change {
            why: "Checkpost's configuration".into(),
            what: What::Folder { path: "/etc/checkpost".into(), owner: Owner::root(), mode: 0o755 },
        }),
    }
    files.extend(own::configuration(look, &plan.way, scanner)?);
    files.extend(plan.prepare.iter().cloned());
    let mut check = Vec::new();
    if live && !files.is_empty() {
        check.push(Command::new(["checkpost", "config", "check"]));
    }
    let part = Part { title: "Checkpost's files".into(), check, activate: Vec::new(), settle: Vec::new() };
    let (started, serves) = start(look, service, plan, live, !files.is_empty())?;
    Ok(vec![(part, files), (serves, started)])
}

fn start(
    look: &dyn Look,
    service: Service,
    plan: &Plan,
    live: bool,
    changed: bool,
) -> Result<(Vec<Change>, Part), Obstacle> {
    let mut changes = Vec::new();
    let mut part =
        Part { title: "Checkpost's service".into(), check: Vec::new(), activate: Vec::new(), settle: Vec::new() };
    let why = "the daemon is started before the MTA asks it, and at every start of the machine";
    let runs = live && service.runs(look)?;
    match service {
        Service::Systemd => {
            let packaged = look.exists(PACKAGED)?;
            if !packaged && !look.exists(UNIT)? {
                let unit = include_str!("../../packaging/checkpost.service");
                changes.extend(Change::write(UNIT, None, unit, Owner::root(), 0o644, "how systemd starts the daemon"));
            }
            if !plan.writes.is_empty() {
                if !look.exists(DROP_IN)? {
                    let what = What::Folder { path: DROP_IN.into(), owner: Owner::root(), mode: 0o755 };
                    changes.push(Change { why: "settings of the unit for this machine".into(), what });
                }
                let path = format!("{DROP_IN}/configure_mta.conf");
                let text: String = plan.writes.iter().map(|folder| format!("ReadWritePaths=-{folder}\n")).collect();
                let (there, text) = (look.text(&path)?, format!("[Service]\n{text}"));
                let why = "all else is read-only to the daemon";
                changes.extend(Change::write(&path, there.as_deref(), &text, Owner::root(), 0o644, why));
            }
            if live && !changes.is_empty() {
                part.activate.push(Command::new(["systemctl", "daemon-reload"]));
            }
            if live && !runs {
                let on = "systemctl daemon-reload && systemctl enable --now checkpost";
                let off = switch_off("systemctl disable --now checkpost");
                changes.push(switched(Command::shell("start the service", on), off, why));
            }
            if !live && look.about(ENABLED)?.is_none() {
                // For a system that does not run it does its work on files alone.
                let on = Command::new(["systemctl", "enable", "checkpost"]);
                let off = switch_off("systemctl disable checkpost");
                changes.push(switched(on, off, "it is started with the machine"));
            }
        }
        Service::Script => {
            let text = include_str!("../../packaging/checkpost.init");
            let there = look.text(SCRIPT)?;
            if there.is_none() {
                let why = "how the daemon is started without systemd";
                changes.extend(Change::write(SCRIPT, None, text, Owner::root(), 0o755, why));
                let on = Command::new(["update-rc.d", "checkpost", "defaults"]);
                let off = Command::new(["update-rc.d", "-f", "checkpost", "remove"]);
                changes.push(switched(on, off, "it is started with the machine"));
            }
            if live && !runs {
                let stop = Command::shell("stop the service", format!("if [ -x {SCRIPT} ]; then {SCRIPT} stop; fi"));
                changes.push(switched(Command::new([SCRIPT, "start"]), stop, why));
            }
        }
        Service::ByHand => {
            if live && !runs {
                let what = What::ByHand {
                    steps: format!("start the daemon: checkpostd --config {CONFIG}"),
                    back: "end checkpostd".into(),
                };
                changes.push(Change { why: "no systemd and no start-stop-daemon were found".into(), what });
            }
        }
    }
    if runs && (changed || !changes.is_empty()) {
        part.activate.extend(service.command("restart"));
        if changes.is_empty() {
            // A part without changes is not carried out.
            let restart = service.command("restart").unwrap_or_else(|| Command::new(["true"]));
            part.activate.clear();
            changes.push(switched(restart.clone(), restart, "the daemon reads its new configuration"));
        }
    }
    Ok((changes, part))
}

/// An undo that was cut off when the unit was gone already must not fail for that.
fn switch_off(run: &str) -> Command {
    Command::shell("switch the service off", format!("if [ -e {UNIT} ] || [ -e {PACKAGED} ]; then {run}; fi"))
}

fn switched(on: Command, off: Command, why: &str) -> Change {
    let what = What::Run { command: on, touches: Vec::new(), back: Some(off), rebuilds: false };
    Change { why: why.into(), what }
}
