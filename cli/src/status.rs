//! `status` and `reload`: what is asked of a running daemon.

use std::time::Duration;

use anyhow::{Context, bail};
use checkpost_core::config::{Document, Problems};
use checkpostd::Settings;
use checkpostd::admin::{Client, Request, Response};

use crate::{Common, print};

/// Reading a configuration and binding takes longer than a status.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(common: &Common) -> anyhow::Result<u8> {
    let Response::Status(status) = ask(common, &Request::Status {})? else {
        bail!("the daemon answered something else")
    };
    let code = u8::from(status.draining);
    if common.json {
        print::json(&status)?;
        return Ok(code);
    }
    let state = if status.draining { "ending" } else { "serving" };
    print::line(&format!("checkpostd {} (process {}): {state} for {} s", status.version, status.pid, status.uptime_s));
    print::line(&format!("configuration: {}, reloaded {} times", status.config, status.reloads));
    print::line(&format!("sessions: {} now, {} since the start", status.sessions, status.sessions_served));
    for way in &status.ways {
        print::line(&format!("way \"{}\" ({}): {}", way.name, way.kind, way.listen.join(", ")));
    }
    for filter in &status.filters {
        let version = filter.version.as_deref().unwrap_or("version unknown");
        let data = filter.data_version.as_ref().map(|data| format!(", signatures {data}")).unwrap_or_default();
        print::line(&format!("filter {}: {}", filter.name, print::clean(&format!("{version}{data}"))));
    }
    Ok(code)
}

pub(crate) fn reload(common: &Common) -> anyhow::Result<u8> {
    let Response::Reloaded(problems) = ask(common, &Request::Reload {})? else {
        bail!("the daemon answered something else")
    };
    if common.json {
        print::json(&problems)?;
    } else if problems.is_empty() {
        print::line("reloaded");
    } else {
        problems.iter().for_each(|problem| print::line(problem));
        print::error("not reloaded; the old configuration stays in force");
    }
    Ok(u8::from(!problems.is_empty()))
}

/// `[daemon]`; what is wrong elsewhere does not matter here. The defaults when the file is absent or
/// not ours to read. A section that is wrong is no reason to guess, and to ask another daemon.
pub(crate) fn settings(common: &Common) -> Result<Settings, Problems> {
    let mut document = Document::read(&common.config, &mut Problems::default());
    let mut problems = Problems::default();
    let settings = Settings::take(&mut document, &mut problems);
    problems.into_result().map(|()| settings)
}

fn ask(common: &Common, request: &Request) -> anyhow::Result<Response> {
    let socket = match &common.socket {
        Some(socket) => socket.clone(),
        None => settings(common)?.admin_socket,
    };
    let mut client = Client::connect(&socket).with_context(|| format!("no daemon answers at {}", socket.display()))?;
    Ok(client.ask(request, None, PATIENCE)?)
}
