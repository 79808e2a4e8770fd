//! Plays a case on a server, and compares what became of each mail with what the case says.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use checkpost_tests::{Told, mails};

use crate::case::{Case, Expect, Mail, Prepared};
use crate::{Heard, Server};

const USERS: [&str; 2] = ["alice", "bob"];

/// Header fields that servers put on top of a mail.
const OF_SERVERS: [&str; 5] = ["Return-Path", "X-Original-To", "Delivered-To", "Received", "X-Authentication-Warning"];

/// Sends the mails of `case`, and looks at everything. `folder` is the daemon's.
pub(crate) fn play(server: &mut dyn Server, case: &Case, folder: &Path) -> Result<()> {
    let prepared = case.prepared();
    let mut begin = 0;
    while begin < prepared.len() {
        if case.mail[begin].local {
            let taken = server.submit(&prepared[begin])?;
            let wanted = case.mail[begin].expect.told.starts_with('2');
            ensure!(taken.is_none_or(|taken| taken == wanted), "sendmail(1) says {taken:?}");
            server.settle()?;
            begin += 1;
            continue;
        }
        let more = case.mail[begin + 1..].iter().take_while(|mail| !mail.local && !mail.new_connection);
        let end = begin + 1 + more.count();
        let heard = server.session(&case.helo, &prepared[begin..end])?;
        for (mail, told) in case.mail[begin..end].iter().zip(&heard.mails) {
            answers(&mail.expect, told, &heard)?;
        }
        ensure!(heard.mails.len() == end - begin, "only {} mails were told something", heard.mails.len());
        begin = end;
    }
    server.settle()?;

    let held = case.mail.iter().filter(|mail| mail.expect.held).count();
    ensure!(server.held() == held, "{} mails are held, not {held}", server.held());
    let copies = copies(folder);
    let kept = case.mail.iter().filter(|mail| mail.expect.quarantined).count();
    ensure!(copies == kept, "{copies} copies in our quarantine, not {kept}");
    if held > 0 {
        let list = server.held_list()?;
        for reason in case.mail.iter().filter_map(|mail| mail.expect.hold_reason.as_ref()) {
            ensure!(list.as_ref().is_none_or(|list| list.contains(reason)), "another reason: {list:?}");
        }
        let before: Vec<&Mail> = case.mail.iter().filter(|mail| !mail.expect.held).collect();
        ensure!(count(server) == expected(&before), "a held mail was delivered, or another was not");
        server.release()?;
        server.settle()?;
    }
    for (n, (mail, prepared)) in case.mail.iter().zip(&prepared).enumerate() {
        delivered(server, mail, prepared).with_context(|| format!("mail {}", n + 1))?;
    }
    let all: Vec<&Mail> = case.mail.iter().collect();
    ensure!(count(server) == expected(&all), "{} mails were delivered, not {}", count(server), expected(&all));
    Ok(())
}

/// The whole log of the daemon has one closing line for each mail that came as far as its recipients.
pub(crate) fn closing_lines(case: &Case, log: &str) -> Result<()> {
    let early = |mail: &&Mail| matches!(mail.expect.at.as_deref(), Some("greeting" | "mail"));
    let wanted = case.mail.iter().filter(|mail| !mail.rset && !early(mail)).count();
    let lines = log.lines().filter(|line| line.contains(" mail done ")).count();
    // Bounces may be mails, too.
    let bounces = case.mail.iter().any(|mail| !mail.expect.bounced.is_empty());
    ensure!(bounces || lines == wanted, "{lines} closing lines in the log, not {wanted}:\n{log}");
    Ok(())
}

fn count(server: &dyn Server) -> usize {
    USERS.iter().map(|user| server.mailbox(user).len()).sum()
}

fn expected(of: &[&Mail]) -> usize {
    of.iter().map(|mail| mail.delivered().len() + mail.expect.bounced.len()).sum()
}

/// Copies in Checkpost's quarantine.
fn copies(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder.join("state/quarantine")) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "eml")).count()
}

fn answers(expect: &Expect, told: &Told, heard: &Heard) -> Result<()> {
    let begins = |answer: &checkpost_tests::Answer, with: &str| {
        // Sendmail puts the address before the text.
        let mut said = answer.to_string();
        if let (Some(from), Some(to)) = (said.find('<'), said.find(">... ")) {
            said.replace_range(from..to + 5, "");
        }
        said.starts_with(with)
    };
    ensure!(begins(told.last(), &expect.told), "told {}, not {}: {told:?}", told.last(), expect.told);
    ensure!(
        expect.recipients.is_empty() || expect.recipients.len() == told.recipients.len(),
        "answers to recipients: {told:?}"
    );
    for (wanted, (_, answer)) in expect.recipients.iter().zip(&told.recipients) {
        ensure!(begins(answer, wanted), "a recipient was told {answer}, not {wanted}");
    }
    let refused = match told {
        _ if heard.greeting.code / 100 != 2 => "greeting",
        Told { sender, .. } if !sender.is_positive() => "mail",
        Told { end: None, .. } => "rcpt",
        Told { .. } => "end",
    };
    if let Some(at) = &expect.at {
        // Who is not welcome is told so at once or at MAIL: that is the server's choice.
        let fits = at == refused || (at == "greeting" && refused == "mail");
        ensure!(fits, "refused at {refused}, not at {at}: {heard:?}");
    }
    ensure!(heard.hello.is_positive() || refused == "greeting", "refused at HELO: {heard:?}");
    Ok(())
}

fn delivered(server: &dyn Server, mail: &Mail, prepared: &Prepared) -> Result<()> {
    let wanted = mail.delivered();
    let mark = prepared.id.as_bytes();
    for user in USERS {
        let mails = server.mailbox(user);
        let (own, others): (Vec<_>, Vec<_>) = mails.iter().partition(|stored| has_id(stored, mark));
        let copies = wanted.iter().filter(|name| *name == user).count();
        ensure!(own.len() == copies, "{user} got it {} times, not {copies}", own.len());
        for stored in own {
            content(mail, prepared, stored).with_context(|| {
                let shown = &stored[..stored.len().min(3000)];
                format!("delivered to {user}:\n{}", String::from_utf8_lossy(shown))
            })?;
        }
        let null = |stored: &&&Vec<u8>| {
            stored.starts_with(b"Return-Path: <>") || stored.starts_with(b"Return-Path: <MAILER-DAEMON")
        };
        let bounces = others.iter().filter(null).count();
        let bounced = usize::from(mail.expect.bounced.iter().any(|name| name == user));
        ensure!(bounces >= bounced, "no bounce for {user}");
    }
    Ok(())
}

/// Only the header counts: a bounce has the mail in its body.
fn has_id(stored: &[u8], mark: &[u8]) -> bool {
    let end = stored.windows(2).position(|pair| pair == b"\n\n").unwrap_or(stored.len());
    stored[..end].windows(mark.len()).any(|part| part == mark)
}

fn content(mail: &Mail, prepared: &Prepared, stored: &[u8]) -> Result<()> {
    let expect = &mail.expect;
    let (fields, body) = split(stored)?;
    let values = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    };
    let sent = mails::as_stored(&prepared.content);
    let edited = !expect.fields.is_empty() || !expect.order.is_empty() || expect.body.is_some();
    if !edited {
        ensure!(stored.ends_with(&sent), "not what was sent");
        let on_top = &stored[..stored.len() - sent.len()];
        let (fields, _) = split(&[on_top, b"\n"].concat())?;
        for (name, _) in fields {
            ensure!(OF_SERVERS.contains(&name.as_str()), "a field {name} that nobody asked for");
        }
    }
    for (name, wanted) in &expect.fields {
        let wanted: Vec<&str> = wanted.as_array().into_iter().flatten().filter_map(toml::Value::as_str).collect();
        ensure!(values(name) == wanted, "{name} is {:?}, not {wanted:?}", values(name));
    }
    // What the case does not speak of is as it was sent.
    let (sent_fields, sent_body) = split(&sent)?;
    for (name, _) in &sent_fields {
        if expect.fields.keys().any(|key| key.eq_ignore_ascii_case(name)) {
            continue;
        }
        let sent: Vec<&str> =
            sent_fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect();
        ensure!(values(name) == sent || name == "Received", "{name} became {:?}", values(name));
    }
    let place = |name: &String| fields.iter().position(|(n, _)| n.eq_ignore_ascii_case(name));
    let places: Option<Vec<usize>> = expect.order.iter().map(place).collect();
    ensure!(places.is_some_and(|places| places.is_sorted()), "not in order: {:?}", expect.order);
    let wanted = expect.body.as_ref().map_or(sent_body, |body| body.as_bytes());
    ensure!(body == wanted, "another body: {} octets, not {}", body.len(), wanted.len());
    if let Some(path) = &expect.return_path {
        // Postfix and Sendmail write the null sender as they like.
        let path = format!("<{path}>");
        let daemon = values("Return-Path").iter().all(|value| value.starts_with("<MAILER-DAEMON"));
        ensure!(
            (path == "<>" && daemon) || values("Return-Path") == [path.as_str()],
            "sender {:?}",
            values("Return-Path")
        );
    }
    Ok(())
}

/// Names, and values without the blanks around them.
type Fields = Vec<(String, String)>;

/// Header and body.
fn split(stored: &[u8]) -> Result<(Fields, &[u8])> {
    let end = stored.windows(2).position(|pair| pair == b"\n\n").context("no end of the header")?;
    let mut fields = Fields::new();
    for line in String::from_utf8_lossy(&stored[..end]).split('\n').filter(|line| !line.is_empty()) {
        match (line.starts_with([' ', '\t']), fields.last_mut(), line.split_once(':')) {
            (true, Some((_, value)), _) => value.push_str(&format!("\n{line}")),
            (false, _, Some((name, value))) => fields.push((name.to_owned(), value.trim().to_owned())),
            _ => bail!("no header field: {line:?}"),
        }
    }
    Ok((fields, &stored[end + 2..]))
}
