//! rspamd's words: JSON by HTTP, and the older form that Exim speaks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use checkpost_adapter::Judged;
use checkpost_core::content::header::Header;
use checkpost_core::edit::{Change, Changes};
use checkpost_core::{Abilities, Address, Envelope};
use checkpost_wire::head::HeadError;
use checkpost_wire::rspamd::{CONTINUE, Form, Reader, Request, Wanted as Kind, answer, old_answer, old_failure};
use checkpost_wire::spamd::{TEMPORARY, Tenths};
use serde_json::{Map, Value, json};

use crate::map::{Gate, Symbol, edits, gate, score, symbols};
use crate::session::{About, Dialect, Heard, Reply, Said, Source, Then, Wanted};

const JSON: &str = "application/json";
/// The names of the actions, as they are counted.
const ACTIONS: [&str; 5] = ["reject", "soft reject", "no action", "discard", "quarantine"];

/// What a way has answered, for `rspamc stat`.
#[derive(Debug)]
pub struct Counts {
    actions: [AtomicU64; ACTIONS.len()],
    since: Instant,
}

impl Default for Counts {
    fn default() -> Self {
        Self { actions: Default::default(), since: Instant::now() }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Rspamd {
    reader: Reader,
    required: Tenths,
    abilities: Abilities,
    counts: Arc<Counts>,
}

/// How an answer is to look.
#[derive(Debug)]
pub struct Asked {
    form: Form,
    started: Instant,
}

impl Rspamd {
    /// `required`: what makes spam; `abilities`: the way's.
    pub fn new(required: Tenths, abilities: Abilities, counts: Arc<Counts>) -> Self {
        Self { reader: Reader::default(), required, abilities, counts }
    }
}

impl Dialect for Rspamd {
    type Asked = Asked;

    fn read(&mut self, input: &mut BytesMut) -> Heard<Asked> {
        match self.reader.read(input) {
            Ok(None) => Heard::More,
            Ok(Some((request, length))) => {
                input.advance(length);
                self.heard(request)
            }
            Err(error) => {
                let status = if error == HeadError::TooLong { 431 } else { 400 };
                say(answer(status, JSON, &problem(&error.to_string()), false), u64::MAX, Then::Close)
            }
        }
    }

    fn edits(&self, asked: &Asked) -> bool {
        self.abilities.edit_headers && matches!(asked.form, Form::Http { .. })
    }

    fn answer(&mut self, asked: &Asked, said: Said<'_>) -> Reply {
        match asked.form {
            Form::Old => Reply { octets: self.old(said).into_bytes(), pieces: Vec::new(), then: Then::Close },
            Form::Http { keep } => {
                let (status, body) = match said {
                    Said::TooLarge => (413, problem("Message too large")),
                    Said::Failed(why) => (503, problem(why)),
                    Said::Judged(judged, header) => (200, self.json(judged, header, asked.started)),
                };
                let then = if keep { Then::Stay } else { Then::Close };
                Reply { octets: answer(status, JSON, &body, keep).into_bytes(), pieces: Vec::new(), then }
            }
        }
    }
}

impl Rspamd {
    fn heard(&self, request: Request) -> Heard<Asked> {
        let Request { form, wanted, length, expects, about } = request;
        let keep = form == Form::Http { keep: true };
        let then = if keep { Then::Stay } else { Then::Close };
        let skip = length.unwrap_or(0);
        let refuse = |status, why| say(answer(status, JSON, &problem(why), false), u64::MAX, Then::Close);
        let length = match wanted {
            Kind::Ping => return say(answer(200, "text/plain", "pong\r\n", keep), skip, then),
            Kind::Stat => return say(answer(200, JSON, &self.counts.json(), keep), skip, then),
            Kind::Other => return refuse(404, "not done here: /checkv2, /ping and /stat are"),
            Kind::Chunked => return refuse(411, "a body needs a Content-Length"),
            Kind::Elsewhere => return refuse(501, "the message must be in the body, neither compressed nor encrypted"),
            Kind::Check => match length {
                // Nothing is not a clean message.
                None => return refuse(411, "there is no message"),
                Some(length) => length,
            },
        };
        let abilities = match form {
            Form::Http { .. } => self.abilities,
            Form::Old => Abilities { edit_headers: false, ..self.abilities },
        };
        Heard::Look(Box::new(Wanted {
            source: Source::Length(length),
            envelope: Envelope {
                sender: Address::new(about.sender),
                recipients: about.recipients.into_iter().map(Address::new).collect(),
            },
            about: About {
                client: about.ip.and_then(|ip| ip.parse().ok()),
                client_name: about.hostname,
                helo: about.helo,
                user: about.user,
                queue_id: about.queue_id,
                tls: about.tls,
            },
            abilities,
            first: if expects { CONTINUE } else { "" },
            asked: Asked { form, started: Instant::now() },
        }))
    }

    /// Exim looks at the score alone, unless its ACL says otherwise: so whatever may not pass has the score of spam, and
    /// what comes again has none at all, which Exim takes for a failure and puts the mail off.
    fn old(&self, said: Said<'_>) -> String {
        let judged = match said {
            Said::TooLarge => return old_failure(TEMPORARY, "EX_TEMPFAIL Message too large"),
            Said::Failed(why) => return old_failure(TEMPORARY, &format!("EX_TEMPFAIL {why}")),
            Said::Judged(judged, _) => judged,
        };
        let (action, text) = action(&gate(judged));
        self.counts.count(action);
        if action == "soft reject" {
            return old_failure(TEMPORARY, &format!("EX_TEMPFAIL {}", text.unwrap_or_default()));
        }
        let verdict = score(judged, action == "no action", self.required);
        let symbols: Vec<String> =
            symbols(judged).iter().map(|Symbol { name, score, .. }| format!("{name}({score})")).collect();
        old_answer(verdict.spam, verdict.score, verdict.threshold, action, &symbols)
    }

    fn json(&self, judged: &Judged, header: Option<&Header>, started: Instant) -> String {
        let (action, text) = action(&gate(judged));
        self.counts.count(action);
        let verdict = score(judged, action == "no action", self.required);
        let mut all: BTreeMap<String, (Tenths, Vec<String>)> = BTreeMap::new();
        for Symbol { name, score, options } in symbols(judged) {
            let entry = all.entry(name).or_insert((Tenths(0), Vec::new()));
            entry.0 = Tenths(entry.0.0.saturating_add(score.0));
            entry.1.extend(options);
        }
        let symbols: Map<String, Value> = all
            .into_iter()
            .map(|(name, (score, options))| {
                let score = points(score);
                (name.clone(), json!({ "name": name, "score": score, "metric_score": score, "options": options }))
            })
            .collect();
        let mut reply = json!({
            "is_skipped": false,
            "score": points(verdict.score),
            "required_score": points(verdict.threshold),
            "action": action,
            "thresholds": { "reject": points(verdict.threshold) },
            "symbols": symbols,
            "messages": {},
            "message-id": message_id(header),
            "time_real": started.elapsed().as_secs_f64(),
        });
        if let Some(text) = text {
            reply["messages"] = json!({ "smtp_message": text });
        }
        if action == "no action"
            && let Some(milter) = header.and_then(|header| milter(header, judged))
        {
            reply["milter"] = milter;
        }
        reply.to_string()
    }
}

impl Counts {
    fn count(&self, action: &str) {
        if let Some(at) = ACTIONS.iter().position(|known| *known == action) {
            self.actions[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn json(&self) -> String {
        let count = |at: usize| self.actions[at].load(Ordering::Relaxed);
        let actions: Map<String, Value> =
            ACTIONS.iter().enumerate().map(|(at, name)| ((*name).to_owned(), json!(count(at)))).collect();
        let scanned: u64 = (0..ACTIONS.len()).map(count).sum();
        let ham = count(2);
        json!({
            "version": concat!("checkpost ", env!("CARGO_PKG_VERSION")),
            "uptime": self.since.elapsed().as_secs(),
            "read_only": true,
            "scanned": scanned,
            "learned": 0,
            "actions": actions,
            "spam_count": scanned - ham,
            "ham_count": ham,
            "connections": 0,
            "control_connections": 0,
            "pools_allocated": 0,
            "pools_freed": 0,
            "bytes_allocated": 0,
            "chunks_allocated": 0,
            "shared_chunks_allocated": 0,
            "chunks_freed": 0,
            "chunks_oversized": 0,
            "statfiles": [],
            "total_learns": 0,
        })
        .to_string()
    }
}

/// The action's word, and what the sender is to be told.
fn action(gate: &Gate<'_>) -> (&'static str, Option<String>) {
    match gate {
        Gate::Pass => ("no action", None),
        Gate::Refuse(rejection) => ("reject", Some(rejection.reply().text().to_owned())),
        Gate::Later(deferral) => ("soft reject", Some(deferral.reply().text().to_owned())),
        Gate::Discard => ("discard", None),
        Gate::Hold(reason) => ("quarantine", Some(reason.as_str().to_owned())),
    }
}

fn points(tenths: Tenths) -> f64 {
    f64::from(tenths.0) / 10.0
}

fn message_id(header: Option<&Header>) -> String {
    let field = header.and_then(|header| header.named("Message-ID").next());
    field.map_or_else(|| "undef".to_owned(), |field| field.text().trim_matches(['<', '>']).to_owned())
}

/// The header edits as rspamd's milter and others carry them out: first what goes (by number among the fields of the name,
/// 0 for all), then what comes, each on top of what is there, or at the end. `None`: nothing changes.
fn milter(header: &Header, judged: &Judged) -> Option<Value> {
    let changes = Changes::new(header, edits(judged));
    if changes.is_empty() {
        return None;
    }
    let fields: Vec<_> = header.fields().collect();
    let mut gone: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut come: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (index, change) in &changes.fields {
        let name = fields.get(*index)?.name;
        let number = fields[..=*index].iter().filter(|field| field.name.eq_ignore_ascii_case(name)).count();
        // As the first of them is spelt, so that all are under one key.
        let first = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        let key = String::from_utf8_lossy(first.name).into_owned();
        gone.entry(key.clone()).or_default().push(number);
        if let Change::Value(value) = change {
            come.entry(key).or_default().push(json!({ "value": text(value), "order": 0 }));
        }
    }
    for line in changes.top.iter().rev() {
        come.entry(line.name.to_string()).or_default().push(json!({ "value": &*line.value, "order": 0 }));
    }
    for line in &changes.bottom {
        come.entry(line.name.to_string()).or_default().push(json!({ "value": &*line.value, "order": -1 }));
    }
    let of_name = |name: &str| fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes())).count();
    let gone: Map<String, Value> = gone
        .into_iter()
        .map(|(name, numbers)| {
            let value = match &*numbers {
                all if all.len() == of_name(&name) => json!(0),
                [one] => json!(one),
                some => json!(some),
            };
            (name, value)
        })
        .collect();
    let one_or_many =
        |mut values: Vec<Value>| if values.len() == 1 { values.swap_remove(0) } else { Value::Array(values) };
    let come: Map<String, Value> = come.into_iter().map(|(name, values)| (name, one_or_many(values))).collect();
    Some(json!({ "remove_headers": gone, "add_headers": come }))
}

/// A field's value in one line. JSON is UTF-8: octets that are not go as an encoded word of an unknown character set
/// (RFC 1428), so that they are not lost.
fn text(value: &[u8]) -> String {
    let unfolded: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    match String::from_utf8(unfolded) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => {
            format!("=?unknown-8bit?B?{}?=", base64_simd::STANDARD.encode_to_string(error.as_bytes().trim_ascii()))
        }
    }
}

fn problem(why: &str) -> String {
    json!({ "error": why }).to_string()
}

fn say(text: String, skip: u64, then: Then) -> Heard<Asked> {
    Heard::Say { octets: text.into_bytes(), skip, then }
}
