//! The server that smtpserver asks at a socket, as a service of its own: systemd's units, or a script with
//! start-stop-daemon(8). It is there before smtpserver looks for it.

use checkpost_setup::{Change, Command, FileKind, Look, Obstacle, Owner, Plan, What};

use super::home::Home;
use super::{LISTEN, SERVER, SHOWS, STOP_SERVER, WHY_SERVER};

const SOCKET: &str = "checkpost-zmailer.socket";
const SERVICE: &str = "checkpost-zmailer.service";
const SCRIPT: &str = "/etc/init.d/checkpost-zmailer";

/// What is missing of it.
pub(super) fn changes(look: &dyn Look, home: &Home, plan: &mut Plan) -> Result<(), Obstacle> {
    if look.has_systemd()? {
        return by_systemd(look, home, plan);
    }
    if !look.exists("/sbin/start-stop-daemon")? || !look.exists("/etc/init.d")? {
        return Err(Obstacle::new(
            "neither systemd nor start-stop-daemon was found, so nothing would start the filter's server with the machine",
            "take zmailer-smtp/program: smtpserver starts that itself",
        ));
    }
    by_script(look, home, plan)
}

fn by_systemd(look: &dyn Look, home: &Home, plan: &mut Plan) -> Result<(), Obstacle> {
    let units = [
        (SOCKET, include_str!("../../../../packaging/checkpost-zmailer.socket")),
        (SERVICE, include_str!("../../../../packaging/checkpost-zmailer.service")),
    ];
    for (name, text) in units {
        let path = format!("/etc/systemd/system/{name}");
        if !look.exists(&format!("/lib/systemd/system/{name}"))? && !look.exists(&path)? {
            plan.changes.extend(Change::write(&path, None, &of(home, text), Owner::root(), 0o644, WHY_UNIT));
        }
    }
    plan.activate.push(Command::new(["systemctl", "daemon-reload"]));
    let said = look.run(&["systemctl", "is-active", "--quiet", SOCKET])?;
    if !said.is_some_and(|said| said.ok()) {
        let on = format!("systemctl daemon-reload; {SERVER}; {SHOWS}");
        // Also when an undo that was cut off is taken up again.
        let off = format!("systemctl cat {SOCKET} > /dev/null 2>&1 || exit 0; {STOP_SERVER}; rm -f {LISTEN}");
        plan.changes.push(switched(
            Command::shell(START, on),
            Command::shell("stop the filter's server", off),
            WHY_SERVER,
        ));
    }
    Ok(())
}

fn by_script(look: &dyn Look, home: &Home, plan: &mut Plan) -> Result<(), Obstacle> {
    if !look.exists(SCRIPT)? {
        let text = of(home, include_str!("../../../../packaging/checkpost-zmailer.init"));
        plan.changes.extend(Change::write(SCRIPT, None, &text, Owner::root(), 0o755, WHY_SCRIPT));
        let on = Command::new(["update-rc.d", "checkpost-zmailer", "defaults"]);
        let off = Command::new(["update-rc.d", "-f", "checkpost-zmailer", "remove"]);
        plan.changes.push(switched(on, off, "it is started with the machine, before ZMailer"));
    }
    let is_socket = look.about(LISTEN)?.is_some_and(|about| about.kind == FileKind::Socket);
    let said = look.run(&[SCRIPT, "status"])?;
    if !is_socket || !said.is_some_and(|said| said.ok()) {
        let on = format!("{SCRIPT} start; {SHOWS}");
        let off = format!("if [ -x {SCRIPT} ]; then {SCRIPT} stop; fi");
        plan.changes.push(switched(
            Command::shell(START, on),
            Command::shell("stop the filter's server", off),
            WHY_SERVER,
        ));
    }
    plan.notes.push(
        "Without systemd nobody starts the filter's server again if it is killed, and mail then passes UNSCANNED: \
         `configure_mta check` from cron tells, or take zmailer-smtp/program."
            .into(),
    );
    Ok(())
}

const START: &str = "start the filter's server";
const WHY_UNIT: &str =
    "systemd holds the socket and starts the server; while it is restarted, mail waits at the socket";
const WHY_SCRIPT: &str = "how the filter's server is started without systemd";

/// For this ZMailer's user and folder.
fn of(home: &Home, text: &str) -> String {
    let text = home.in_text(text);
    ["User=", "SocketUser=", "user="]
        .iter()
        .fold(text, |text, key| text.replace(&format!("\n{key}daemon\n"), &format!("\n{key}{}\n", home.user)))
}

fn switched(on: Command, off: Command, why: &str) -> Change {
    let what = What::Run { command: on, touches: Vec::new(), back: Some(off), rebuilds: false };
    Change { why: why.into(), what }
}
