//! clamd's words.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::{Buf, BytesMut};
use checkpost_core::Envelope;
use checkpost_wire::clamd::server::{Chunks, Command, Request, answer, found, take_command};

use crate::GATE;
use crate::map::{Gate, gate, name};
use crate::session::{About, Dialect, Heard, Reply, Said, Source, Then, Wanted};

/// What is answered to `VERSION`. Programs look for the first word; the number is that of the clamd whose answers these are.
const VERSION: &str = concat!("ClamAV 1.4.6 (Checkpost ", env!("CARGO_PKG_VERSION"), ")");
const COMMANDS: &str =
    "SCAN CONTSCAN MULTISCAN ALLMATCHSCAN INSTREAM FILDES PING VERSION VERSIONCOMMANDS IDSESSION END";

/// One connection.
#[derive(Debug, Default)]
pub struct Clamd {
    /// Requests so far, within a session.
    session: Option<u32>,
    /// The octet that comes with a descriptor is waited for.
    descriptor: Option<u8>,
}

/// How an answer begins and ends.
#[derive(Debug)]
pub struct Asked {
    id: Option<u32>,
    subject: Vec<u8>,
    end: u8,
    stream: bool,
}

impl Dialect for Clamd {
    type Asked = Asked;

    fn read(&mut self, input: &mut BytesMut) -> Heard<Asked> {
        if let Some(end) = self.descriptor {
            if input.is_empty() {
                return Heard::More;
            }
            input.advance(1);
            self.descriptor = None;
            return self.look(Source::Descriptor, b"fd[10]", end);
        }
        match take_command(input) {
            Ok(None) => Heard::More,
            Ok(Some(request)) => self.heard(&request, input),
            Err(_) => say(answer(self.session, None, "UNKNOWN COMMAND", b'\n'), Then::Close),
        }
    }

    fn edits(&self, _: &Asked) -> bool {
        false
    }

    fn answer(&mut self, asked: &Asked, said: Said<'_>) -> Reply {
        let Asked { id, subject, end, stream } = asked;
        let mut then = if id.is_some() { Then::Stay } else { Then::Close };
        let octets = match said {
            Said::TooLarge if *stream => {
                then = Then::Close;
                answer(*id, None, "INSTREAM size limit exceeded. ERROR", *end)
            }
            said => answer(*id, Some(subject), &words(said), *end),
        };
        Reply { octets, pieces: Vec::new(), then }
    }
}

fn words(said: Said<'_>) -> String {
    match said {
        Said::TooLarge => "File too large ERROR".to_owned(),
        Said::Failed(why) => format!("{why} ERROR"),
        Said::Judged(judged, _) => match gate(judged) {
            Gate::Pass => "OK".to_owned(),
            Gate::Refuse(_) => found(&name(judged)),
            Gate::Later(deferral) => format!("{} ERROR", deferral.reply().text()),
            // Never, as the way declares.
            Gate::Discard | Gate::Hold(_) => "Local problem ERROR".to_owned(),
        },
    }
}

impl Clamd {
    fn heard(&mut self, request: &Request, input: &mut BytesMut) -> Heard<Asked> {
        if let Some(number) = &mut self.session {
            *number = number.saturating_add(1);
        }
        let (id, end) = (self.session, request.end);
        let then = if id.is_some() { Then::Stay } else { Then::Close };
        let reply = |said: &str, then| say(answer(id, None, said, end), then);
        if id.is_some() && request.old {
            return reply("Only nCMDS\\n and zCMDS\\0 are accepted inside IDSESSION. ERROR", Then::Close);
        }
        match &request.command {
            Command::Ping => reply("PONG", then),
            Command::Version => reply(VERSION, then),
            Command::Commands => reply(&format!("{VERSION}| COMMANDS: {COMMANDS}"), then),
            Command::Scan(path) => {
                let source = Source::Path(OsString::from_vec(path.clone()).into());
                self.look(source, path, end)
            }
            Command::Stream => self.look(Source::Chunks(Chunks::default()), b"stream", end),
            Command::Descriptor => {
                self.descriptor = Some(end);
                self.read(input)
            }
            Command::Session if id.is_none() => {
                self.session = Some(0);
                self.read(input)
            }
            Command::Session => reply("Command invalid inside IDSESSION. ERROR", Then::Close),
            Command::End if id.is_some() => Heard::Leave,
            Command::Unavailable => reply("COMMAND UNAVAILABLE", then),
            Command::End | Command::Unknown => reply("UNKNOWN COMMAND", Then::Close),
        }
    }

    fn look(&self, source: Source, subject: &[u8], end: u8) -> Heard<Asked> {
        let stream = matches!(source, Source::Chunks(_));
        let asked = Asked { id: self.session, subject: subject.to_vec(), end, stream };
        let (envelope, about) = (Envelope::default(), About::default());
        Heard::Look(Box::new(Wanted { source, envelope, about, abilities: GATE, first: "", asked }))
    }
}

fn say(octets: Vec<u8>, then: Then) -> Heard<Asked> {
    Heard::Say { octets, skip: 0, then }
}
