//! The answering side.

use std::sync::Arc;
use std::time::Duration;

use checkpost_adapter::stream::{BoxStream, Connection};
use checkpost_core::Content;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{MAX_LINE, MAX_MESSAGE, Request, Response};
use crate::intake::Intake;
use crate::report::{self, Circumstances};
use crate::run::Daemon;

/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// At most so many at once: an administrator's programs, not an MTA's.
const MAX_CLIENTS: usize = 32;

/// Serves one connection to its end. Whatever comes, other sessions do not notice.
pub(crate) async fn serve(connection: Connection, daemon: Arc<Daemon>) {
    let Some(_ticket) = daemon.admins.enter(MAX_CLIENTS) else {
        let mut stream = connection.stream;
        // The client may be gone; then nobody needs the answer.
        let _ = say(&mut stream, &Response::Problem("too many clients; try again later".to_owned())).await;
        return;
    };
    let mut stream = BufReader::new(connection.stream);
    while let Ok(Some(line)) = read_line(&mut stream).await {
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => answer(request, &mut stream, &daemon).await,
            Err(error) => Err(format!("not a request: {error}")),
        };
        let last = response.is_err();
        let response = response.unwrap_or_else(Response::Problem);
        if say(stream.get_mut(), &response).await.is_err() || last {
            return;
        }
    }
}

async fn answer(request: Request, stream: &mut BufReader<BoxStream>, daemon: &Arc<Daemon>) -> Result<Response, String> {
    match request {
        Request::Status {} => Ok(Response::Status(daemon.status().await)),
        Request::Reload {} => daemon.reload().await.map(Response::Reloaded),
        Request::Check { octets, circumstances } => examine(stream, daemon, octets, &circumstances, false).await,
        Request::Explain { octets, circumstances } => examine(stream, daemon, octets, &circumstances, true).await,
    }
}

async fn examine(
    stream: &mut BufReader<BoxStream>,
    daemon: &Daemon,
    octets: u64,
    circumstances: &Circumstances,
    explain: bool,
) -> Result<Response, String> {
    if octets > MAX_MESSAGE {
        return Err(format!("the message is larger than {MAX_MESSAGE} octets"));
    }
    let state = daemon.state();
    let content = read_message(stream, octets, Intake::new(Arc::clone(&state.host.spool))).await?;
    let within = state.settings.check_time;
    let report = report::examine(&state.host.engine, &state.ways, circumstances, content, within, explain).await;
    Ok(Response::Report(Box::new(report)))
}

async fn read_message(stream: &mut BufReader<BoxStream>, octets: u64, mut intake: Intake) -> Result<Content, String> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = octets;
    while left > 0 {
        let size = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer[..size])).await;
        match read {
            Ok(Ok(0)) => return Err(format!("the message ends {left} octets early")),
            Ok(Ok(count)) => {
                // May wait for the spool's disk, which must not hold up the sessions of this thread.
                tokio::task::block_in_place(|| intake.append(&buffer[..count]))
                    .map_err(|error| format!("the message cannot be spooled: {error}"))?;
                left -= count as u64;
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_elapsed) => return Err("the rest of the message did not come".to_owned()),
        }
    }
    Ok(intake.finish())
}

/// A line without its end; `None` at the end, after too long a line and after too long a pause.
async fn read_line(stream: &mut BufReader<BoxStream>) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut bounded = stream.take(MAX_LINE as u64);
    match tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await {
        Ok(read) => read?,
        Err(_elapsed) => return Ok(None),
    };
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

async fn say(stream: &mut BoxStream, response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}
