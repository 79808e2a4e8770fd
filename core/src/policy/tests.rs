//! Rules as an administrator writes them, mails, and what comes out.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::abilities::{Abilities, Refusal, Replies};
use crate::finding::{Kind, Unscanned};
use crate::mail::{Address, Envelope, MailId, Origin, OriginClass};
use crate::verdict::Disposition;

mod early;

fn load(text: &str) -> (Policy, String) {
    let mut problems = Problems::default();
    let mut document = Document::parse("t", text, &mut problems);
    let lists = Lists::take(&mut document, &mut problems);
    let filters: Vec<(Arc<str>, WhenUnscanned)> = ["clamd", "rspamd"]
        .map(|name| {
            let item = document.take_item(&format!("filter.{name}"), &mut problems);
            let when = item.and_then(|mut item| item.take_key("when_unscanned", &mut problems));
            (name.into(), when.unwrap_or_default())
        })
        .into();
    let names = Names { filters: &filters, ways: &["mx", "lmtp"], lists: &lists };
    let policy = Policy::load(&mut document, &names, &mut problems);
    document.finish(&mut problems);
    (policy, problems.to_string())
}

fn good(text: &str) -> Policy {
    let (policy, problems) = load(text);
    assert_eq!(problems, "", "{text}");
    policy
}

fn mail(recipients: &[&str]) -> Mail {
    Mail {
        id: MailId::new(),
        envelope: Envelope {
            sender: "s@example.net".into(),
            recipients: recipients.iter().map(|r| Address::from(*r)).collect(),
        },
        origin: Origin {
            client: Some("192.0.2.7".parse().unwrap()),
            helo: Some("mx.example.net".into()),
            ..Origin::inbound("mx")
        },
        content: Bytes::from_static(b"Subject: Hello World\r\nList-Id: <x.example>\r\n\r\nx\r\n").into(),
    }
}

fn finding(kind: Kind, filter: &str, name: &str) -> Finding {
    Finding::new(kind, &filter.into(), name)
}

fn down(filter: &str) -> Finding {
    Finding::unscanned(&filter.into(), Unscanned::Timeout, Duration::ZERO, "")
}

fn virus() -> Finding {
    finding(Kind::Malware, "clamd", "Eicar-Test").with_class("test")
}

/// `deliver`, `reject 550 …` …, and the edits behind it.
fn outcomes(policy: &Policy, mail: &Mail, findings: &[Finding]) -> Vec<String> {
    let (verdict, trace) = policy.explain(mail, findings.to_vec());
    let decided = policy.decide(mail, findings.to_vec());
    assert_eq!(verdict.outcomes, decided.outcomes, "explain tells another story");
    assert_eq!(trace.groups.iter().map(|group| group.recipients.len()).sum::<usize>(), mail.envelope.recipients.len());
    let told = |recipient: &Address| {
        let group = trace.groups.iter().find(|group| group.recipients.contains(&recipient.to_string())).unwrap();
        group.outcome.clone()
    };
    mail.envelope.recipients.iter().map(told).collect()
}

fn check(rules: &str, findings: &[Finding], outcome: &str) {
    let seen = outcomes(&good(rules), &mail(&["a@example.org"]), findings);
    assert_eq!(seen, [outcome], "{rules}");
}

fn holds(when: &str, findings: &[Finding], wanted: bool) {
    let rule = format!(
        "[list.friends]\naddresses = ['@example.net', 'a@example.org']\nnetworks = ['192.0.2.0/24']\n\
         [filter.clamd]\nwhen_unscanned = 'deliver'\n\
         [[rule]]\nwhen = {when}\nthen = {{ reject = 'no' }}\n"
    );
    let seen = outcomes(&good(&rule), &mail(&["a@example.org"]), findings);
    assert_eq!(seen[0].starts_with("reject"), wanted, "{when}: {seen:?}");
}

#[test]
fn conditions_on_findings() {
    let spam = |score| finding(Kind::Spam { score }, "rspamd", "BAYES");
    let v = [virus()];
    holds("{ finding = 'malware' }", &v, true);
    holds("{ finding = 'phishing' }", &v, false);
    holds("{ finding = ['phishing', 'malware'] }", &v, true);
    holds("{ finding = 'malware', name = 'eicar*' }", &v, true);
    holds("{ finding = 'malware', class = 'pua' }", &v, false);
    holds("{ class = 'test', filter = 'clamd' }", &v, true);
    holds("{ filter = 'rspamd' }", &v, false);
    // One and the same finding.
    holds("{ finding = 'malware', filter = 'rspamd' }", &[virus(), spam(1.0)], false);
    holds("{ all = [{ finding = 'malware' }, { filter = 'rspamd' }] }", &[virus(), spam(1.0)], true);
    holds("{ score = '>= 6' }", &[spam(4.0), spam(2.0)], true);
    holds("{ score = '>= 6' }", &[spam(5.9)], false);
    holds("{ score = '>= 6, < 15' }", &[spam(15.0)], false);
    holds("{ score = ['< 0', '> 10'] }", &[spam(-1.0)], true);
    holds("{ not = { finding = 'malware' } }", &v, false);
    holds("{ not = { finding = 'malware' } }", &[], true);
    holds("{ any = [{ finding = 'phishing' }, { filter = 'clamd', class = 'test' }] }", &v, true);
    holds("{}", &[], true);
}

#[test]
fn an_unscanned_finding_fits_only_what_names_it() {
    let d = [down("clamd")];
    holds("{ filter = 'clamd' }", &d, false);
    holds("{ name = '*' }", &d, false);
    holds("{ finding = 'unscanned' }", &d, true);
    holds("{ unscanned = 'timeout' }", &d, true);
    holds("{ unscanned = ['timeout'], filter = 'rspamd' }", &d, false);
    holds("{ unscanned = 'busy' }", &d, false);
    holds("{ unscanned = 'timeout' }", &[virus()], false);
}

#[test]
fn conditions_on_the_mail() {
    for (when, wanted) in [
        ("{ way = 'mx' }", true),
        ("{ way = ['lmtp'] }", false),
        ("{ origin = 'inbound' }", true),
        ("{ origin = ['submission', 'internal'] }", false),
        ("{ sender = 'S@example.net' }", true),
        ("{ sender = '@lists/friends' }", true),
        ("{ sender = ['', '@example.com'] }", false),
        ("{ recipient = '@example.org' }", true),
        ("{ recipient = 'b*@example.org' }", false),
        ("{ client = '192.0.2.0/25' }", true),
        ("{ client = '@lists/friends' }", true),
        ("{ client = '198.51.100.1' }", false),
        ("{ helo = '*.example.net' }", true),
        ("{ authenticated = true }", false),
        ("{ authenticated = false }", true),
        ("{ size = '> 10 B, < 1 KiB' }", true),
        ("{ size = '> 1 KiB' }", false),
        ("{ header = { name = 'subject', matches = 'hello*' } }", true),
        ("{ header = { name = 'Subject', contains = ['moon', 'world'] } }", true),
        ("{ header = [{ name = 'X-A', exists = true }, { name = 'List-Id', exists = true }] }", true),
        ("{ header = { name = 'List-Id', exists = false } }", false),
    ] {
        holds(when, &[], wanted);
    }
}

#[test]
fn rules_stop_or_go_on() {
    let tag = "[[rule]]\nname = 'tag'\nthen = { add_header = 'X-A: {rule}' }\n";
    check(tag, &[], "deliver; by \"tag\"; add header X-A: tag");
    check(
        &format!("{tag}[[rule]]\nname = 'ok'\nthen = {{ deliver = true, subject_tag = '[x]', remove_header = 'X-B' }}"),
        &[],
        "deliver; by \"ok\"; add header X-A: tag; remove header X-B; tag subject [x]",
    );
    check(
        "[[rule]]\nname = 'first'\nwhen = { score = '< 1' }\nthen = { defer = 'later', go_on = true, quarantine = true }\n\
         [[rule]]\nname = 'second'\nthen = { reject = '554 5.6.0 no' }\n",
        &[],
        "reject 554 5.6.0 no; by \"second\"; a copy is kept",
    );
    check(
        "[[rule]]\nname = 'first'\nwhen = { score = '< 1' }\nthen = { score = 7.5, stop = true }\n\
         [[rule]]\nname = 'second'\nthen = { reject = 'no' }\n",
        &[],
        "deliver; by \"first\"",
    );
    check(
        "[[rule]]\nthen = { score = 7.5 }\n[[rule]]\nname = 'b'\nwhen = { score = '> 7' }\nthen = { discard = true }\n",
        &[],
        "discard; by \"b\"",
    );
}

#[test]
fn unscanned_is_not_clean() {
    let friend = "[[rule]]\nname = 'friend'\nwhen = { sender = '@example.net' }\nthen = { deliver = true }\n";
    let later = "defer 451 4.7.1 Message could not be checked, try again later; by \"<unscanned>\"";
    check("", &[down("clamd")], later);
    check(friend, &[down("clamd")], later);
    check(friend, &[], "deliver; by \"friend\"");
    // What nobody gets needs no scan.
    check(
        "[[rule]]\nname = 'v'\nwhen = { finding = 'malware' }\nthen = { reject = 'no' }\n",
        &[down("rspamd"), virus()],
        "reject 550 5.7.1 no; by \"v\"",
    );
    // A rule that names it decides, for just the findings that it names.
    let named = "[[rule]]\nname = 'n'\nwhen = { finding = 'unscanned', filter = 'clamd', sender = '@example.net' }\n\
                 then = { deliver = true }\n";
    check(named, &[down("clamd")], "deliver; by \"n\"; add header X-Checkpost-Unscanned: clamd timeout");
    check(named, &[down("clamd"), down("rspamd")], later);
    // A rule that only marks it does not decide.
    check("[[rule]]\nwhen = { finding = 'unscanned' }\nthen = { add_header = 'X-A: 1' }\n", &[down("clamd")], later);
    // The filter's own word.
    let lenient =
        "[filter.rspamd]\nwhen_unscanned = 'deliver'\n[filter.clamd]\nwhen_unscanned = { inbound = 'reject' }\n";
    let marked = "add header X-Checkpost-Unscanned: rspamd timeout";
    check(&format!("{lenient}{friend}"), &[down("rspamd")], &format!("deliver; by \"friend\"; {marked}"));
    check(
        &format!("{lenient}{friend}"),
        &[down("rspamd"), down("clamd")],
        "reject 550 5.7.1 Message could not be checked; by \"<unscanned>\"",
    );
    // Of a filter that nobody configured: defer.
    check(lenient, &[down("rspamd"), down("stranger")], later);
}

#[test]
fn each_recipient_has_its_own_outcome() {
    let rules = "[list.tag]\naddresses = ['b@example.org', '@example.com']\n\
        [[rule]]\nname = 'score'\nwhen = { recipient = 'c@*' }\nthen = { score = 10 }\n\
        [[rule]]\nname = 'no'\nwhen = { score = '>= 10' }\nthen = { reject = 'no' }\n\
        [[rule]]\nname = 'tag'\nwhen = { recipient = '@lists/tag', score = '>= 5' }\nthen = { subject_tag = '[S]' }\n";
    let policy = good(rules);
    let mail = mail(&["a@example.org", "b@example.org", "c@example.org", "x@example.com", "b@example.org"]);
    let findings = [finding(Kind::Spam { score: 6.0 }, "rspamd", "X")];
    assert_eq!(
        outcomes(&policy, &mail, &findings),
        [
            "deliver; no rule held",
            "deliver; by \"tag\"; tag subject [S]",
            "reject 550 5.7.1 no; by \"no\"",
            "deliver; by \"tag\"; tag subject [S]",
            "deliver; by \"tag\"; tag subject [S]",
        ]
    );
    let verdict = policy.decide(&mail, findings.to_vec());
    assert!(Arc::ptr_eq(&verdict.outcomes[1].edits, &verdict.outcomes[3].edits), "equal edits are shared");
    assert_eq!(verdict.score, 6.0);
    let nobody = Mail { envelope: Envelope::default(), ..mail };
    assert!(policy.decide(&nobody, Vec::new()).outcomes.is_empty());
}

#[test]
fn hostile_names_stay_names() {
    let rules = "[[rule]]\nname = 'v'\nwhen = { finding = 'malware' }\n\
                 then = { deliver = true, add_header = 'X-V: {name}', subject_tag = '[{name}]' }\n";
    let hostile = finding(Kind::Malware, "clamd", "x\r\n\r\n.\r\nMAIL FROM:<>\0\u{202e}");
    let verdict = good(rules).decide(&mail(&["a@example.org"]), vec![hostile.clone()]);
    for edit in verdict.outcomes[0].edits.iter() {
        let text = edit.to_string();
        assert!(text.contains("x????.??MAIL FROM:<>??"), "{text:?}");
    }
    check(
        "[[rule]]\nname = 'v'\nwhen = { finding = 'malware' }\nthen = { reject = 'bad ({name})' }\n",
        &[hostile],
        "reject 550 5.7.1 bad (x????.??MAIL FROM:<>??); by \"v\"",
    );
}

#[test]
fn every_action_is_read() {
    let act = |then: &str| {
        let rules = format!("[[rule]]\nname = 'v'\nthen = {{ {then} }}\n");
        let outcome = good(&rules).decide(&mail(&["a@example.org"]), Vec::new()).outcomes.remove(0);
        let edits: Vec<String> = outcome.edits.iter().map(ToString::to_string).collect();
        format!("{} {}", outcome.disposition.as_str(), edits.join(", "))
    };
    assert_eq!(act("hold = 'looks odd'"), "hold ");
    assert_eq!(act("hold = 'odd', set_header = 'A: {rule}'"), "hold set header A: v");
    assert_eq!(act("append_header = ['A: 1', 'B: 2']"), "deliver append header A: 1, append header B: 2");
    assert_eq!(act("replace_body = \"Grüße\\n{rule}\\n\""), "deliver replace body (18 octets)");
    assert_eq!(act("add_recipient = 'a@example.org'"), "deliver add recipient <a@example.org>");
    assert_eq!(act("change_sender = ''"), "deliver change sender to <>");
    for (then, key) in [
        ("hold = ''", "then.hold"),
        ("hold = 'x', discard = true", "then"),
        ("add_recipient = 'nobody'", "then.add_recipient"),
        ("add_recipient = 'a@b, c@d'", "then.add_recipient"),
        ("change_sender = 'a b@example.org'", "then.change_sender"),
        ("replace_body = 'a {nothing}'", "then.replace_body"),
        ("set_header = 'no colon'", "then.set_header"),
    ] {
        let (_, problems) = load(&format!("[[rule]]\nname = 'v'\nthen = {{ {then} }}\n"));
        assert!(problems.contains(&format!("rule[0].{key}")), "{then}: {problems}");
    }
}

#[test]
fn a_mail_is_held_for_a_reason_even_if_its_name_is_empty() {
    let rule = "[[rule]]\nname = 'odd'\nwhen = { finding = 'malware' }\nthen = { hold = '{part} {name}' }\n";
    for (name, reason) in [("X", " X"), ("", "odd")] {
        let outcome =
            &good(rule).decide(&mail(&["a@example.org"]), vec![finding(Kind::Malware, "clamd", name)]).outcomes[0];
        let Disposition::Hold(seen) = &outcome.disposition else { panic!("{outcome:?}") };
        assert_eq!(seen.as_str(), reason);
    }
}

#[test]
fn the_built_in_rules() {
    let policy = Policy::built_in();
    let spam = |score| finding(Kind::Spam { score }, "built-in", "GTUBE");
    for (finding, outcome) in [
        (virus(), "reject 550 5.7.1 Message contains malware (Eicar-Test); by \"no malware\""),
        (
            finding(Kind::Policy, "built-in", "a.exe").with_class("attachment"),
            "reject 550 5.7.1 Attachment not allowed (a.exe); by \"no dangerous attachments\"",
        ),
        (
            finding(Kind::Policy, "clamd", "PUA.X").with_class("pua"),
            "deliver; by \"mark what was only partly looked at\"; add header X-Checkpost-Note: policy PUA.X",
        ),
        (spam(1000.0), "reject 550 5.7.1 Message looks like spam; by \"no obvious spam\""),
        (spam(6.0), "deliver; by \"mark spam\"; add header X-Spam-Flag: YES; add header X-Spam-Score: 6.0"),
        (spam(5.9), "deliver; no rule held"),
        (
            finding(Kind::Encrypted, "built-in", "a.zip"),
            "deliver; by \"mark what was only partly looked at\"; add header X-Checkpost-Note: encrypted a.zip",
        ),
        (down("clamd"), "defer 451 4.7.1 Message could not be checked, try again later; by \"<unscanned>\""),
    ] {
        assert_eq!(outcomes(&policy, &mail(&["a@example.org"]), &[finding]), [outcome]);
    }
    // A configuration without rules has them, and shows them.
    let mut problems = Problems::default();
    let mut document = Document::parse("t", "", &mut problems);
    Policy::load(&mut document, &Names { filters: &[], ways: &[], lists: &Lists::default() }, &mut problems);
    document.finish(&mut problems);
    assert_eq!(problems.to_string(), "");
    assert!(document.render(true).contains("name = \"no malware\"  # <built-in rules>:5\n"));
}

#[test]
fn what_is_wrong_with_rules_is_told_at_once() {
    let (_, problems) = load(
        r#"[[rule]]
name = "a"
when = { finding = "malwares", sendr = "x" }
then = { reject = "4.7.1 no" }
[[rule]]
when = { finding = "malware", filter = "clamav", way = "mxx", recipient = "@lists/gone", sender = "a b" }
then = { reject = "{nmae}", discard = true, add_header = "X", deliver = false }
[[rule]]
when = { score = 6, size = "10 MiB", client = "192.0.2.1/24", header = { name = "X" }, any = [], not = {} }
then = {}
[[rule]]
when = { finding = "malware", unscanned = "timeout" }
then = { stop = true, go_on = true, add_header = "X-A: {name}" }
[[rule]]
name = "all"
then = { deliver = true }
[[rule]]
name = "late"
then = { reject = "{name}" }
"#,
    );
    let golden = include_str!("tests/problems.txt");
    assert_eq!(problems, golden.trim_end(), "\n{problems}\n");
}

#[test]
fn rules_that_are_never_reached() {
    let late = |first: &str, second: &str| {
        let (_, problems) = load(&format!(
            "[[rule]]\nname = 'x'\nwhen = {first}\nthen = {{ reject = 'a' }}\n\
             [[rule]]\nwhen = {second}\nthen = {{ add_header = 'A: b' }}\n"
        ));
        assert!(problems.is_empty() || problems.contains("rule[1]: the rule is never reached"), "{problems}");
        !problems.is_empty()
    };
    for (first, second, unreached) in [
        ("{}", "{ score = '> 1' }", true),
        ("{ finding = 'malware' }", "{ finding = 'malware' }", true),
        ("{ finding = ['malware', 'phishing'] }", "{ finding = 'malware', sender = '' }", true),
        ("{ finding = 'malware' }", "{ finding = ['malware', 'phishing'] }", false),
        ("{ finding = 'malware', class = 'test' }", "{ finding = 'malware' }", false),
        ("{ finding = 'malware' }", "{ finding = 'malware', class = 'test' }", true),
        ("{ class = 'x' }", "{ finding = 'unscanned', class = 'x' }", false),
        ("{ score = '>= 6' }", "{ score = '>= 15' }", true),
        ("{ score = '>= 15' }", "{ score = '>= 6' }", false),
        ("{ score = '> 6' }", "{ score = '>= 6' }", false),
        ("{ recipient = ['@a.example', 'b@a.example'] }", "{ recipient = '@a.example' }", true),
        ("{ client = '192.0.2.0/24' }", "{ client = '192.0.2.5' }", true),
        ("{ not = { way = 'mx' } }", "{ not = { way = 'mx' }, sender = '' }", true),
        ("{ not = { way = 'mx' } }", "{ not = { way = ['mx', 'lmtp'] } }", false),
        ("{ any = [{ way = 'mx' }, { sender = '' }] }", "{ way = 'mx' }", true),
        ("{ way = 'mx' }", "{ any = [{ way = 'mx' }, { sender = '' }] }", false),
    ] {
        assert_eq!(late(first, second), unreached, "{first} {second}");
    }
}

#[test]
fn risks_are_told() {
    const LMTP: Abilities = Abilities {
        replies: Replies::PerRecipient,
        refusal: Refusal::InSession,
        edit_headers: true,
        edit_body: true,
        add_recipients: true,
        change_sender: true,
        hold: false,
        drop_recipients: true,
        discard: true,
        contents_by_recipient: true,
    };
    const POOR: Abilities = Abilities {
        replies: Replies::PerMessage,
        refusal: Refusal::Bounces,
        edit_headers: false,
        edit_body: false,
        add_recipients: false,
        change_sender: false,
        hold: false,
        drop_recipients: false,
        discard: true,
        contents_by_recipient: false,
    };
    let policy = good(
        "[filter.clamd]\nwhen_unscanned = { timeout = 'deliver' }\n\
         [[rule]]\nname = 'a'\nwhen = { recipient = '@example.org' }\nthen = { reject = 'no' }\n\
         [[rule]]\nname = 'b'\nwhen = { way = 'lmtp' }\nthen = { subject_tag = 'x' }\n\
         [[rule]]\nname = 'c'\nthen = { discard = true, add_header = 'A: b' }\n",
    );
    let texts = |ways: &[(&str, Abilities)]| policy.risks(ways).iter().map(Risk::to_string).collect::<Vec<_>>();
    let always = [
        "t:13:8: rule \"c\": the mail is gone without a copy; quarantine = true keeps one".to_owned(),
        "filter.clamd.when_unscanned: mail from outside may be delivered although this filter did not scan it".into(),
    ];
    assert_eq!(texts(&[("lmtp", LMTP)]), always);
    let seen = texts(&[("lmtp", LMTP), ("mx", POOR)]);
    assert_eq!(seen.len(), 5, "{seen:#?}");
    assert!(seen[0].ends_with("all of it is deferred (by mx)"), "{seen:#?}");
    assert!(seen[1].contains("it bounces where that is safe"), "{seen:#?}");
    assert_eq!(seen[2], "t:13:8: rule \"c\": header edits are left out (by mx)");
    assert!(texts(&[("mx", POOR)])[2].contains("no enabled way can do this: header edits are left out (by mx)"));
}

#[test]
fn the_trace_says_why() {
    let policy = good(
        "[[rule]]\nname = 'virus'\nwhen = { finding = 'malware', origin = 'inbound' }\nthen = { reject = 'no' }\n\
         [[rule]]\nname = 'odd'\nwhen = { any = [{ score = '> 5' }, { not = { helo = 'mx.*' } }] }\nthen = { stop = true }\n\
         [[rule]]\nname = 'friends'\nwhen = { recipient = 'b@example.org' }\nthen = { deliver = true, quarantine = true }\n\
         [[rule]]\nname = 'rest'\nthen = { subject_tag = 'x' }\n",
    );
    let (_, trace) = policy.explain(&mail(&["a@example.org", "b@example.org"]), vec![down("clamd")]);
    let text = trace.to_string();
    assert_eq!(text, include_str!("tests/trace.txt"), "\n{text}\n");
    let json = serde_json::to_value(&trace).unwrap();
    assert_eq!(json["groups"][1]["rules"][2]["conditions"][0]["because"], "the recipient is <b@example.org>");
}

#[test]
fn a_way_that_is_not_inbound_has_its_own_word_on_unscanned() {
    let policy = good("[filter.clamd]\nwhen_unscanned = { internal = 'deliver' }\n");
    let mut mail = mail(&["a@example.org"]);
    for (class, outcome) in
        [(OriginClass::Inbound, "defer"), (OriginClass::Submission, "defer"), (OriginClass::Internal, "deliver")]
    {
        mail.origin.class = class;
        assert!(outcomes(&policy, &mail, &[down("clamd")])[0].starts_with(outcome), "{class}");
    }
}

proptest! {
    #[test]
    fn no_rules_make_it_panic(
        text in r#"(\[\[rule\]\]\n|\[list\.x\]\n|(when|then|addresses) = |\{ |\}\n|, |(finding|not|any|score|reject|header|sender|way|discard|add_header|name) = |"malware"|">= 6"|"@lists/x"|\[|\]|true|"X: \{name\}"|.{0,6}){0,24}"#
    ) {
        let (policy, problems) = load(&text);
        if problems.is_empty() {
            outcomes(&policy, &mail(&["a@example.org", "b@example.org"]), &[virus(), down("clamd")]);
        }
    }

    #[test]
    fn what_nobody_looked_at_is_not_delivered_by_accident(
        conditions in prop::collection::vec(
            prop::sample::select(vec!["sender = '@example.net'", "finding = 'malware'", "name = '*'", "filter = 'clamd'",
                "not = { finding = 'malware' }", "score = '< 5'", "class = '*'"]), 1..3),
        action in prop::sample::select(vec!["deliver = true", "add_header = 'X: 1'", "deliver = true, go_on = true", "stop = true"]),
    ) {
        let mut conditions = conditions;
        conditions.sort_unstable();
        conditions.dedup();
        let policy = good(&format!("[[rule]]\nwhen = {{ {} }}\nthen = {{ {action} }}\n", conditions.join(", ")));
        for findings in [vec![down("clamd")], vec![virus(), down("rspamd")]] {
            let verdict = policy.decide(&mail(&["a@example.org"]), findings);
            prop_assert_eq!(verdict.outcomes[0].disposition.as_str(), "defer");
        }
    }
}
