//! `check` and `explain`: by the daemon, or by an engine of our own.

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use checkpost_core::OriginClass;
use checkpost_core::Spool;
use checkpostd::Loaded;
use checkpostd::admin::{Client, Request, Response};
use checkpostd::intake::Intake;
use checkpostd::report::{self, Circumstances, Outlook, Report};
use serde::Serialize;

use crate::{Common, print};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Message files; "-" is standard input. LF line ends are taken as CRLF
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Envelope sender [default: the null sender]
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    sender: String,
    /// Envelope recipient; may be given several times [default: postmaster]
    #[arg(long, value_name = "ADDRESS")]
    recipient: Vec<String>,
    /// The client's address
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// What the client said at HELO
    #[arg(long, value_name = "NAME")]
    helo: Option<String>,
    /// The authenticated user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// inbound, submission or internal [default: inbound]
    #[arg(long, value_parser = origin)]
    origin: Option<OriginClass>,
    /// The name of the way in
    #[arg(long, value_name = "NAME")]
    way: Option<String>,
    /// Do not ask the daemon
    #[arg(long)]
    embedded: bool,
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: &'a Path,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct FileProblem<'a> {
    file: &'a Path,
    problem: String,
}

/// Who judges.
enum Judge {
    Daemon { client: Box<Client>, patience: Duration, spool: Arc<Spool> },
    Embedded { loaded: Box<Loaded>, runtime: tokio::runtime::Runtime, spool: Arc<Spool> },
}

/// The exit code: the worst of all files.
pub(crate) fn run(common: &Common, arguments: &Arguments, explain: bool) -> anyhow::Result<u8> {
    let circumstances = Circumstances {
        sender: arguments.sender.clone(),
        recipients: arguments.recipient.clone(),
        client: arguments.client,
        helo: arguments.helo.clone(),
        user: arguments.user.clone(),
        origin: arguments.origin,
        way: arguments.way.clone(),
    };
    let mut worst = 0;
    for file in &arguments.files {
        let judged =
            Judge::find(common, arguments.embedded).and_then(|judge| judge.judge(file, &circumstances, explain));
        match judged {
            Ok(report) => {
                worst = worst.max(report.outlook.exit_code());
                if common.json {
                    print::json(&FileReport { file, report: &report })?;
                } else {
                    show(file, &report);
                }
            }
            Err(error) => {
                worst = worst.max(Outlook::NotJudged.exit_code());
                if common.json {
                    print::json(&FileProblem { file, problem: format!("{error:#}") })?;
                }
                print::error(&format!("checkpost: {}: {error:#}", file.display()));
            }
        }
    }
    Ok(worst)
}

impl Judge {
    fn find(common: &Common, embedded: bool) -> anyhow::Result<Self> {
        let spool = Arc::new(Spool::new(std::env::temp_dir()));
        if !embedded {
            let settings = match crate::status::settings(common) {
                Ok(settings) => settings,
                Err(problems) => bail!("the configuration is wrong:\n{problems}"),
            };
            let socket = common.socket.as_ref().unwrap_or(&settings.admin_socket);
            match Client::connect(socket) {
                Ok(client) => {
                    let patience = settings.check_time + Duration::from_secs(30);
                    return Ok(Self::Daemon { client: Box::new(client), patience, spool });
                }
                // Named by hand, it is the one that is meant.
                Err(error) if common.socket.is_some() => {
                    return Err(error).with_context(|| format!("no daemon answers at {}", socket.display()));
                }
                Err(_) => {}
            }
        }
        let loaded = Loaded::read(&common.config).and_then(|mut loaded| loaded.open().map(|()| loaded));
        let loaded = match loaded {
            Ok(loaded) => Box::new(loaded),
            Err(problems) => bail!("no daemon answers, and the configuration is wrong:\n{problems}"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        // The configured spool may be the daemon's user's alone.
        let spool = Arc::new(Spool { memory_limit: loaded.settings.spool.memory_limit, ..(*spool).clone() });
        Ok(Self::Embedded { loaded, runtime, spool })
    }

    fn judge(self, file: &Path, circumstances: &Circumstances, explain: bool) -> anyhow::Result<Report> {
        let input: Box<dyn Read> = if file == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            let opened = File::open(file)?;
            if opened.metadata()?.is_dir() {
                bail!("is a directory");
            }
            Box::new(opened)
        };
        match self {
            Self::Daemon { mut client, patience, spool } => {
                let content = Intake::read(input, spool)?;
                let (octets, circumstances) = (content.len(), circumstances.clone());
                let request = if explain {
                    Request::Explain { octets, circumstances }
                } else {
                    Request::Check { octets, circumstances }
                };
                match client.ask(&request, Some(&mut content.reader()), patience)? {
                    Response::Report(report) => Ok(*report),
                    other => bail!("the daemon answered something else: {other:?}"),
                }
            }
            Self::Embedded { loaded, runtime, spool } => {
                let content = Intake::read(input, spool)?;
                let within = loaded.settings.check_time;
                let check = report::examine(&loaded.engine, &loaded.ways, circumstances, content, within, explain);
                let report = runtime.block_on(check);
                // A filter may hang in a blocking call; nothing waits for it any more.
                runtime.shutdown_background();
                Ok(report)
            }
        }
    }
}

fn show(file: &Path, report: &Report) {
    print::line(&format!("{}: {}", file.display(), report.outlook.as_str()));
    for outcome in &report.outcomes {
        let mut text = format!("  <{}>: {}", print::clean(&outcome.recipient), outcome.disposition);
        if let Some(reply) = &outcome.reply {
            text.push_str(&format!(", {}", print::clean(reply)));
        }
        outcome.edits.iter().for_each(|edit| text.push_str(&format!(", {}", print::clean(edit))));
        if outcome.quarantine {
            text.push_str(", a copy is kept");
        }
        if let Some(rule) = &outcome.rule {
            text.push_str(&format!(" (rule \"{}\")", print::clean(rule)));
        }
        print::line(&text);
    }
    for finding in &report.findings {
        let class = if finding.class == finding.kind { String::new() } else { format!(" ({})", finding.class) };
        let part = finding.part.as_ref().map(|part| format!(" in part {part}")).unwrap_or_default();
        let detail = finding.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        let text = format!("{}{class} {} by {}{part}{detail}", finding.kind, finding.name, finding.filter);
        print::line(&format!("  found {}", print::clean(&text)));
    }
    if let Some(trace) = &report.trace {
        print::line("");
        trace.lines().for_each(|line| print::line(&format!("  {}", print::clean(line))));
    }
    for way in &report.ways {
        print::line(&format!("  by the way \"{}\" ({}): {}", way.way, way.kind, print::clean(&way.answer)));
        way.losses.iter().for_each(|loss| print::line(&format!("    {}", print::clean(loss))));
    }
}

fn origin(written: &str) -> Result<OriginClass, String> {
    [OriginClass::Inbound, OriginClass::Submission, OriginClass::Internal]
        .into_iter()
        .find(|class| class.as_str() == written)
        .ok_or_else(|| "accepted: inbound, submission, internal".to_owned())
}
