//! spamd's words.

use std::fmt::Write as _;

use bytes::{Buf, BytesMut};
use checkpost_adapter::{Judged, Piece, edited};
use checkpost_core::content::header::Header;
use checkpost_core::edit::{HeaderField, HeaderName, HeaderText};
use checkpost_core::{Abilities, Content, Edit, Envelope};
use checkpost_wire::head::HeadError;
use checkpost_wire::spamd::{self, Method, PONG, Reader, Request, Tenths, Verdict, failure};

use crate::GATE;
use crate::map::{Gate, Symbol, edits, gate, score, symbols};
use crate::session::{About, Dialect, Heard, Reply, Said, Source, Then, Wanted};

/// One connection: one request, as spamd has it.
#[derive(Debug)]
pub struct Spamd {
    reader: Reader,
    required: Tenths,
    /// What the way can do at most.
    abilities: Abilities,
}

impl Spamd {
    /// `required`: what makes spam.
    pub fn new(required: Tenths, abilities: Abilities) -> Self {
        Self { reader: Reader::default(), required, abilities }
    }
}

impl Dialect for Spamd {
    type Asked = Request;

    fn read(&mut self, input: &mut BytesMut) -> Heard<Request> {
        let request = match self.reader.read(input) {
            Ok(None) => return Heard::More,
            Ok(Some((request, length))) => {
                input.advance(length);
                request
            }
            Err(error) => return refuse(error, input.len()),
        };
        let length = request.length;
        match request.method {
            Method::Ping => return say(PONG.into(), 0),
            Method::Skip => return Heard::Leave,
            Method::Tell => {
                return say(
                    failure(spamd::UNAVAILABLE, "Service Unavailable: nothing is learned here"),
                    length.unwrap_or(u64::MAX),
                );
            }
            _ if request.compressed => {
                return say(
                    failure(spamd::PROTOCOL, "Bad header line: (Compress is not supported)"),
                    length.unwrap_or(u64::MAX),
                );
            }
            _ => {}
        }
        let way = &self.abilities;
        let abilities = match request.method {
            Method::Process => Abilities { edit_headers: way.edit_headers, edit_body: way.edit_body, ..GATE },
            Method::Headers => Abilities { edit_headers: way.edit_headers, ..GATE },
            _ => GATE,
        };
        Heard::Look(Box::new(Wanted {
            source: length.map_or(Source::ToEnd, Source::Length),
            envelope: Envelope::default(),
            about: About::default(),
            abilities,
            first: "",
            asked: request,
        }))
    }

    fn edits(&self, request: &Request) -> bool {
        matches!(request.method, Method::Process | Method::Headers)
    }

    fn answer(&mut self, request: &Request, said: Said<'_>) -> Reply {
        let temporary = |why: &str| plain(failure(spamd::TEMPORARY, &format!("EX_TEMPFAIL {why}")));
        let (judged, header) = match said {
            Said::TooLarge => return temporary("Message too large"),
            Said::Failed(why) => return temporary(why),
            Said::Judged(judged, header) => (judged, header),
        };
        let pass = match gate(judged) {
            Gate::Pass => true,
            Gate::Refuse(_) => false,
            Gate::Later(deferral) => return temporary(deferral.reply().text()),
            // Never, as the way declares.
            Gate::Discard | Gate::Hold(_) => return temporary("Local problem"),
        };
        let verdict = score(judged, pass, self.required);
        let text = match request.method {
            Method::Symbols if request.version < (1, 3) => format!("{}\r\n", names(judged)),
            Method::Symbols => names(judged),
            Method::Report => report(judged, verdict),
            Method::ReportIfSpam if verdict.spam => report(judged, verdict),
            Method::Process | Method::Headers => {
                return match header {
                    Some(header) => changed(request, judged, header, verdict),
                    None => temporary("Local problem"),
                };
            }
            _ => String::new(),
        };
        let mut answer = request.answer(verdict, text.len() as u64);
        answer.push_str(&text);
        plain(answer)
    }
}

fn say(text: String, skip: u64) -> Heard<Request> {
    Heard::Say { octets: text.into_bytes(), skip, then: Then::Close }
}

fn refuse(error: HeadError, here: usize) -> Heard<Request> {
    say(failure(spamd::PROTOCOL, &format!("Bad header line: ({error})")), here as u64)
}

fn plain(text: String) -> Reply {
    Reply { octets: text.into_bytes(), pieces: Vec::new(), then: Then::Close }
}

fn names(judged: &Judged) -> String {
    symbols(judged).into_iter().map(|symbol| symbol.name).collect::<Vec<_>>().join(",")
}

/// A text for people. Exim keeps it as `$spam_report`.
fn report(judged: &Judged, verdict: Verdict) -> String {
    let what = match gate(judged) {
        Gate::Refuse(rejection) => rejection.reply().text().to_owned(),
        _ => "No objections".to_owned(),
    };
    let mut text = format!("Checkpost: {what}\nScore {} of {}\n", verdict.score, verdict.threshold);
    let all = symbols(judged);
    if !all.is_empty() {
        text.push_str("\n pts  name (filter, kind, part)\n");
    }
    for Symbol { name, score, options } in all {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:>5} {name} ({})", score.to_string(), options.join(", "));
    }
    text
}

/// The message with what rules want changed in it, and with the fields that users of spamd look for: who asks for the
/// message will deliver it, so a refusal must be in it.
fn changed(request: &Request, judged: &Judged, header: &Header, verdict: Verdict) -> Reply {
    let flags =
        ["X-Spam-Flag", "X-Spam-Status", "X-Spam-Level"].into_iter().filter_map(|name| HeaderName::new(name).ok());
    let mut all: Vec<Edit> = flags.map(Edit::RemoveHeader).chain(edits(judged).iter().cloned()).collect();
    let mut add = |name: &str, value: &str| {
        if let Ok(name) = HeaderName::new(name) {
            all.push(Edit::AddHeader(HeaderField { name, value: HeaderText::lossy(value) }));
        }
    };
    let word = if verdict.spam { "Yes" } else { "No" };
    let (score, required) = (verdict.score, verdict.threshold);
    add("X-Spam-Status", &format!("{word}, score={score} required={required} tests={}", names(judged)));
    if verdict.spam {
        add("X-Spam-Flag", "YES");
    }
    let content = &judged.mail.content;
    let pieces = if request.method == Method::Headers {
        // Read before, so it can be read again; if not, the length would not fit, so nothing is said.
        match content.prefix(header.body_start()) {
            Ok(head) => edited::pieces(&Content::from(head), header, &all, "", header.line_end().unwrap_or("\n")),
            Err(error) => return plain(failure(spamd::TEMPORARY, &format!("EX_TEMPFAIL {error}"))),
        }
    } else {
        edited::pieces(content, header, &all, "", header.line_end().unwrap_or("\n"))
    };
    let length = pieces.iter().map(Piece::len).sum();
    Reply { octets: request.answer(verdict, length).into_bytes(), pieces, then: Then::Close }
}
