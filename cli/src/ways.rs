//! `ways`: the kinds of way in and what `fit` makes of what they cannot do. The table comes from the
//! program's own data and from `fit` itself, so it cannot differ from what happens.

use checkpost_adapter::Kind;
use checkpost_core::edit::HeaderField;
use checkpost_core::fit::Answer;
use checkpost_core::{
    Abilities, Content, Disposition, Edit, Envelope, Finding, Mail, MailId, Origin, Outcome, Rejection, Verdict, fit,
};
use checkpostd::ways::KINDS;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{Common, print};

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    kind: Kind,
    /// What becomes of wanted outcomes: (wanted, done).
    fit: Vec<(&'static str, String)>,
}

pub(crate) fn run(common: &Common) -> anyhow::Result<u8> {
    let rows: Vec<Row> =
        KINDS.iter().map(|known| Row { kind: known.kind, fit: fitted(&known.kind.abilities) }).collect();
    if common.json {
        print::json(&rows)?;
        return Ok(0);
    }
    let yes = |has: bool| if has { "yes" } else { "no" };
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "kind",
        "replies",
        "refusal",
        "headers",
        "body",
        "leave out, add recipients",
        "discard",
        "contents by recipient",
        "sender",
        "hold",
    ]);
    for row in &rows {
        let Abilities { edit_headers, edit_body, drop_recipients, add_recipients, contents_by_recipient, .. } =
            row.kind.abilities;
        table.add_row([
            row.kind.name.to_owned(),
            word(&row.kind.abilities.replies)?,
            word(&row.kind.abilities.refusal)?,
            yes(edit_headers).to_owned(),
            yes(edit_body).to_owned(),
            format!("{}, {}", yes(drop_recipients), yes(add_recipients)),
            yes(row.kind.abilities.discard).to_owned(),
            yes(contents_by_recipient).to_owned(),
            yes(row.kind.abilities.change_sender).to_owned(),
            yes(row.kind.abilities.hold).to_owned(),
        ]);
    }
    print::line(&table.to_string());
    for row in &rows {
        print::line(&format!("\n{}: {}", row.kind.name, row.kind.about));
        row.fit.iter().for_each(|(wanted, done)| print::line(&format!("  {wanted}: {done}")));
    }
    Ok(0)
}

fn word(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_value(value)?.as_str().unwrap_or_default().to_owned())
}

/// What this way would make of the cases that administrators ask about.
fn fitted(abilities: &Abilities) -> Vec<(&'static str, String)> {
    let Ok(no) = Rejection::parse("5.7.1 refused") else { return Vec::new() };
    let deliver = Outcome::deliver();
    let reject = Outcome { disposition: Disposition::Reject(no), ..Outcome::deliver() };
    let discard = Outcome { disposition: Disposition::Discard, ..Outcome::deliver() };
    let edits = HeaderField::parse("X-Spam-Flag: YES").map(|field| vec![Edit::AddHeader(field)]).unwrap_or_default();
    let edited = Outcome { edits: edits.into(), ..Outcome::deliver() };
    let malware = Finding::new(checkpost_core::Kind::Malware, &"clamd".into(), "Example");
    let case = |outcomes: &[&Outcome], findings: Vec<Finding>| {
        let recipients = (0..outcomes.len()).map(|i| format!("r{}@example.org", i + 1).as_str().into()).collect();
        let mail = Mail {
            id: MailId::new(),
            envelope: Envelope { sender: "s@example.net".into(), recipients },
            origin: Origin::inbound("way"),
            content: Content::from(&b""[..]),
        };
        let verdict =
            Verdict { outcomes: outcomes.iter().copied().cloned().collect(), findings: findings.into(), score: 0.0 };
        let fitted = fit(&mail, &verdict, abilities);
        let answer = match &fitted.answer {
            Answer::ByRecipient => "each is answered by itself".to_owned(),
            Answer::Accept => "accepted".to_owned(),
            Answer::Refuse(disposition) => disposition.as_str().to_owned(),
        };
        let losses: Vec<String> = fitted.losses.iter().map(ToString::to_string).collect();
        if losses.is_empty() { answer } else { format!("{answer}; {}", losses.join("; ")) }
    };
    vec![
        ("reject, from outside", case(&[&reject], Vec::new())),
        ("reject, malware", case(&[&reject], vec![malware])),
        ("discard", case(&[&discard], Vec::new())),
        ("header edit", case(&[&edited], Vec::new())),
        ("deliver to one, reject for another", case(&[&deliver, &reject], Vec::new())),
        ("deliver to one, discard for another", case(&[&deliver, &discard], Vec::new())),
        ("header edit for one of two", case(&[&deliver, &edited], Vec::new())),
    ]
}
