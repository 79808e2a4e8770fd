//! What is refused early, and that the whole mail would have met the same refusal.

use super::*;

const STAGES: [Stage; 4] = [Stage::Connect, Stage::Helo, Stage::Sender, Stage::Recipient];

/// The mail as it is known at this stage: what does not count yet is nonsense.
fn early(policy: &Policy, mail: &Mail, recipient: &Address, stage: Stage) -> Option<Early> {
    let mut origin = mail.origin.clone();
    let (mut sender, mut named) = (&mail.envelope.sender, recipient);
    let nonsense = Address::from("nonsense@example.org");
    if stage < Stage::Helo {
        origin.helo = origin.helo.is_none().then(|| "nonsense".into());
    }
    if stage < Stage::Sender {
        origin.user = origin.user.is_none().then(|| "nonsense".into());
        origin.class = match origin.class {
            OriginClass::Inbound => OriginClass::Internal,
            OriginClass::Submission | OriginClass::Internal => OriginClass::Inbound,
        };
        sender = &nonsense;
    }
    if stage < Stage::Recipient {
        named = &nonsense;
    }
    let id = mail.id.as_str();
    policy.early(&Known { stage, origin: &origin, sender: Some(sender), recipient: Some(named), id })
}

/// `-` or `reject 550 …; by "rule"` for each stage.
fn told(policy: &Policy, mail: &Mail) -> [String; 4] {
    STAGES.map(|stage| match early(policy, mail, &mail.envelope.recipients[0], stage) {
        None => "-".to_owned(),
        Some(Early { disposition: Disposition::Reject(reply), rule }) => format!("reject {reply}; by \"{rule}\""),
        Some(Early { disposition: Disposition::Defer(reply), rule }) => format!("defer {reply}; by \"{rule}\""),
        Some(other) => panic!("{other:?}"),
    })
}

/// The mail of [`mail`] is refused early, for the first time at this stage. `None`: at no stage.
fn check(rules: &str, first: Option<Stage>) {
    let policy = good(&format!("[list.friends]\naddresses = ['@example.net']\nnetworks = ['192.0.2.0/24']\n{rules}"));
    let told = told(&policy, &mail(&["a@example.org"]));
    for (stage, told) in STAGES.into_iter().zip(&told) {
        assert_eq!(told != "-", first.is_some_and(|first| stage >= first), "{stage:?} of {rules}\n{told:#?}");
    }
}

/// One rule with these conditions that rejects.
fn check_when(when: &str, first: Option<Stage>) {
    check(&format!("[[rule]]\nwhen = {when}\nthen = {{ reject = 'no' }}\n"), first);
}

#[test]
fn a_condition_counts_from_its_stage_on() {
    use Stage::{Connect, Helo, Recipient, Sender};
    for (when, first) in [
        ("{}", Some(Connect)),
        ("{ way = 'mx' }", Some(Connect)),
        ("{ way = 'lmtp' }", None),
        ("{ client = '192.0.2.0/25' }", Some(Connect)),
        ("{ client = '@lists/friends' }", Some(Connect)),
        ("{ client = '198.51.100.1' }", None),
        ("{ helo = '*.example.net' }", Some(Helo)),
        ("{ not = { helo = 'x' } }", Some(Helo)),
        ("{ origin = 'inbound' }", Some(Sender)),
        ("{ authenticated = false }", Some(Sender)),
        ("{ sender = '@lists/friends' }", Some(Sender)),
        ("{ sender = '' }", None),
        ("{ recipient = 'a@*' }", Some(Recipient)),
        ("{ recipient = 'b@*' }", None),
        ("{ finding = 'malware' }", None),
        ("{ not = { finding = 'malware' } }", None),
        ("{ score = '< 1000' }", None),
        ("{ size = '> 0 B' }", None),
        ("{ header = { name = 'Subject', exists = true } }", None),
        // Three values.
        ("{ client = '192.0.2.7', helo = '*', sender = '@example.net', recipient = '@example.org' }", Some(Recipient)),
        ("{ client = '192.0.2.7', finding = 'malware' }", None),
        ("{ any = [{ finding = 'malware' }, { helo = '*' }] }", Some(Helo)),
        ("{ any = [{ finding = 'malware' }, { sender = '' }] }", None),
        ("{ not = { finding = 'malware', client = '198.51.100.1' } }", Some(Connect)),
        ("{ not = { finding = 'malware', client = '192.0.2.7' } }", None),
        ("{ not = { any = [{ helo = 'x' }, { sender = '' }] } }", Some(Sender)),
        ("{ all = [{ client = '192.0.2.7' }, { not = { recipient = 'b@*' } }] }", Some(Recipient)),
    ] {
        check_when(when, first);
    }
}

#[test]
fn the_walk_must_end_with_one_refusal() {
    use Stage::{Connect, Helo, Sender};
    let maybe = "[[rule]]\nwhen = { finding = 'malware' }\nthen";
    let sure = "[[rule]]\nname = 'sure'\nwhen = { client = '192.0.2.7' }\nthen";
    let wider = "[[rule]]\nwhen = { client = '192.0.2.0/24' }\nthen";
    let never = "[[rule]]\nwhen = { client = '198.51.100.1' }\nthen";
    let no = "{ reject = 'no' }";
    for (rules, first) in [
        (format!("{never} = {no}"), None),
        (format!("{never} = {{ deliver = true }}\n{sure} = {no}"), Some(Connect)),
        (format!("{sure} = {{ defer = 'later' }}"), Some(Connect)),
        (format!("{sure} = {{ deliver = true }}\n{wider} = {no}"), None),
        (format!("{sure} = {{ discard = true }}"), None),
        (format!("{sure} = {{ stop = true }}\n{wider} = {no}"), None),
        // What may stop before.
        (format!("{maybe} = {{ reject = 'other' }}\n{sure} = {no}"), None),
        (format!("{maybe} = {no}\n{sure} = {no}"), None),
        (format!("{maybe} = {{ stop = true }}\n{sure} = {no}"), None),
        (format!("{maybe} = {{ deliver = true, go_on = true }}\n{sure} = {no}"), Some(Connect)),
        (format!("{maybe} = {{ add_header = 'A: b', score = 5 }}\n{sure} = {no}"), Some(Connect)),
        (format!("[[rule]]\nwhen = {{ helo = 'x' }}\nthen = {{ deliver = true }}\n{sure} = {no}"), Some(Helo)),
        (
            format!("[[rule]]\nwhen = {{ helo = 'x', score = '> 5' }}\nthen = {{ deliver = true }}\n{sure} = {no}"),
            Some(Helo),
        ),
        // What may come behind.
        (format!("{sure} = {no}\n{maybe} = {{ deliver = true }}"), Some(Connect)),
        (format!("{sure} = {{ reject = 'no', go_on = true }}"), Some(Connect)),
        (format!("{sure} = {{ reject = 'no', go_on = true }}\n{maybe} = {{ deliver = true }}"), None),
        (format!("{sure} = {{ reject = 'no', go_on = true }}\n{maybe} = {{ stop = true }}"), Some(Connect)),
        (
            format!(
                "{sure} = {{ reject = 'no', go_on = true }}\n[[rule]]\nwhen = {{ sender = '' }}\nthen = {{ deliver = true }}"
            ),
            Some(Sender),
        ),
        // Copies.
        (format!("{sure} = {{ reject = 'no', quarantine = true }}"), None),
        (format!("{sure} = {{ reject = 'no', quarantine = false }}"), Some(Connect)),
        (format!("{maybe} = {{ quarantine = true }}\n{sure} = {no}"), None),
        (format!("{maybe} = {{ quarantine = true }}\n{sure} = {{ reject = 'no', quarantine = false }}"), Some(Connect)),
        (format!("{sure} = {{ reject = 'no', go_on = true }}\n{maybe} = {{ quarantine = true }}"), None),
        (format!("{sure} = {{ quarantine = true }}\n{maybe} = {{ quarantine = false }}\n{sure} = {no}"), None),
        // Texts.
        (format!("{sure} = {{ reject = 'no {{rule}}' }}"), Some(Connect)),
        (format!("{sure} = {{ reject = 'no {{score}}' }}"), None),
        (
            "[[rule]]\nwhen = { any = [{ finding = 'malware' }, { client = '192.0.2.7' }] }\n\
             then = { reject = 'no {name}' }"
                .to_owned(),
            None,
        ),
    ] {
        check(&rules, first);
    }
}

#[test]
fn it_is_told_with_its_text_and_rule() {
    let policy = good(
        "[[rule]]\nname = 'first'\nwhen = { client = '192.0.2.7' }\nthen = { defer = '4.3.2 later', go_on = true }\n\
         [[rule]]\nname = 'second'\nwhen = { helo = 'mx.*' }\nthen = { reject = '554 5.7.0 {rule} ({id})' }\n",
    );
    let mail = mail(&["a@example.org"]);
    let second = format!("reject 554 5.7.0 second ({}); by \"second\"", mail.id);
    assert_eq!(told(&policy, &mail), ["-", &second, &second, &second]);
    let other = Mail { origin: Origin { helo: None, ..mail.origin.clone() }, ..mail };
    let first = "defer 451 4.3.2 later; by \"first\"";
    assert_eq!(told(&policy, &other), ["-", first, first, first]);
}

#[test]
fn what_is_not_given_is_not_known() {
    for not in ["sender = 'x@*'", "recipient = 'x@*'"] {
        let policy = good(&format!("[[rule]]\nwhen = {{ not = {{ {not} }} }}\nthen = {{ reject = 'no' }}\n"));
        let mail = mail(&["a@example.org"]);
        let known = Known {
            stage: Stage::Recipient,
            origin: &mail.origin,
            sender: Some(&mail.envelope.sender),
            recipient: Some(&mail.envelope.recipients[0]),
            id: "",
        };
        assert!(policy.early(&known).is_some(), "{not}");
        assert_eq!(policy.early(&Known { sender: None, recipient: None, ..known }), None, "{not}");
    }
}

#[test]
fn a_way_need_not_ask_where_nothing_can_be_said() {
    let asks = |rules: &str| {
        let policy = good(rules);
        STAGES.map(|stage| if policy.asks_at(stage) { 'x' } else { '-' }).iter().collect::<String>()
    };
    let rule = |when: &str, then: &str| format!("[[rule]]\nwhen = {when}\nthen = {then}\n");
    let no = "{ reject = 'no' }";
    for (rules, wanted) in [
        (rule("{ client = '192.0.2.7' }", no), "x---"),
        (rule("{ helo = 'x' }", no), "-x--"),
        (rule("{ client = '192.0.2.7', helo = 'x' }", no), "-x--"),
        (rule("{ any = [{ client = '192.0.2.7' }, { recipient = 'x@*' }] }", no), "x--x"),
        (rule("{ authenticated = false }", no), "--x-"),
        (rule("{ origin = 'inbound' }", no), "--x-"),
        (rule("{ sender = '' }", "{ deliver = true }") + &rule("{}", no), "--x-"),
        (rule("{ sender = '', recipient = 'x@*' }", no), "---x"),
        (rule("{ finding = 'malware', client = '192.0.2.7' }", no), "----"),
        (rule("{ finding = 'malware' }", no) + &rule("{ client = '192.0.2.7' }", no), "----"),
        (rule("{ client = '192.0.2.7' }", no) + &rule("{ finding = 'malware' }", no), "x---"),
        (rule("{ client = '192.0.2.7' }", "{ deliver = true }"), "----"),
        (rule("{ client = '192.0.2.7' }", "{ reject = 'no', quarantine = true }"), "----"),
        (rule("{ client = '192.0.2.7' }", "{ reject = '{score}' }"), "----"),
        (rule("{ client = '192.0.2.7' }", no) + &rule("{ sender = '' }", "{ deliver = true }"), "x---"),
        (rule("{ not = { helo = 'x', size = '> 1 B' } }", no), "-x--"),
    ] {
        assert_eq!(asks(&rules), wanted, "{rules}");
    }
    assert!(STAGES.iter().all(|stage| !Policy::built_in().asks_at(*stage) && !Policy::default().asks_at(*stage)));
}

fn condition() -> impl Strategy<Value = String> {
    let session = prop::sample::select(vec![
        "way = 'mx'",
        "client = '192.0.2.0/24'",
        "client = ['192.0.2.7', '2001:db8::/32']",
        "helo = 'mx*'",
        "helo = '*.net'",
        "origin = 'inbound'",
        "origin = ['inbound', 'internal']",
        "authenticated = true",
        "authenticated = false",
        "sender = ''",
        "sender = '@example.net'",
        "recipient = 'a@*'",
        "recipient = '@example.org'",
    ]);
    let content = prop::sample::select(vec![
        "finding = 'malware'",
        "finding = 'unscanned'",
        "score = '> 5'",
        "score = '<= 5'",
        "size = '> 60 B'",
        "header = { name = 'List-Id', exists = true }",
    ]);
    let leaf = prop_oneof![4 => session, 1 => content].prop_map(str::to_owned);
    leaf.prop_recursive(2, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            inner.prop_map(|one| format!("not = {{ {one} }}")),
            pair.clone().prop_map(|(one, other)| format!("any = [{{ {one} }}, {{ {other} }}]")),
            pair.prop_map(|(one, other)| format!("all = [{{ {one} }}, {{ {other} }}]")),
        ]
    })
}

fn rule() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        3 => Just("reject = 'no {rule} {id}'"),
        2 => Just("defer = 'later'"),
        1 => Just("reject = '{score}'"),
        1 => Just("deliver = true"),
        1 => Just("discard = true"),
        1 => Just("hold = 'look'"),
        2 => Just("score = 4"),
        1 => Just("add_header = 'X: {rule}'"),
    ];
    let more = prop_oneof![
        5 => Just(""), 2 => Just(", go_on = true"), 1 => Just(", stop = true"), 1 => Just(", quarantine = true"),
        1 => Just(", quarantine = true, go_on = true"), 1 => Just(", quarantine = false"),
    ];
    (prop::option::weighted(0.9, condition()), action, more).prop_map(|(when, action, more)| {
        let when = when.unwrap_or_default();
        format!("[[rule]]\nwhen = {{ {when} }}\nthen = {{ {action}{more} }}\n")
    })
}

fn any_mail() -> impl Strategy<Value = Mail> {
    let address = prop::sample::select(vec!["", "a@example.org", "b@example.org", "a@example.net"]);
    let recipients = prop::collection::vec(address.clone(), 1..4);
    let client = prop::sample::select(vec![None, Some("192.0.2.7"), Some("192.0.2.8"), Some("2001:db8::1")]);
    let helo = prop::sample::select(vec![None, Some("mx.example.net"), Some("host.example.net"), Some("mx")]);
    let class = prop::sample::select(vec![OriginClass::Inbound, OriginClass::Submission, OriginClass::Internal]);
    let content = prop::sample::select(vec![
        "Subject: x\r\n\r\nx\r\n",
        "List-Id: <x.example>\r\nSubject: this is a longer content than the other\r\n\r\nx\r\n",
    ]);
    let way = prop::sample::select(vec!["mx", "lmtp"]);
    (address, recipients, client, helo, class, any::<bool>(), content, way).prop_map(
        |(sender, recipients, client, helo, class, user, content, way)| Mail {
            id: MailId::new(),
            envelope: Envelope {
                sender: sender.into(),
                recipients: recipients.into_iter().map(Address::from).collect(),
            },
            origin: Origin {
                client: client.map(|client| client.parse().unwrap()),
                helo: helo.map(Into::into),
                user: user.then(|| "user".into()),
                class,
                ..Origin::inbound(way)
            },
            content: Bytes::from_static(content.as_bytes()).into(),
        },
    )
}

fn any_findings() -> impl Strategy<Value = Vec<Finding>> {
    let one = prop::sample::select(vec![
        virus(),
        down("clamd"),
        down("rspamd"),
        finding(Kind::Spam { score: 6.0 }, "rspamd", "X"),
        finding(Kind::Spam { score: -4.0 }, "rspamd", "Y"),
    ]);
    prop::collection::vec(one, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    #[test]
    fn what_is_refused_early_would_be_refused_later(
        rules in prop::collection::vec(rule(), 1..5),
        mails in prop::collection::vec((any_mail(), prop::collection::vec(any_findings(), 1..5)), 4),
    ) {
        let text = rules.concat();
        let (policy, problems) = load(&text);
        // A rule that is never reached is a problem of its own.
        prop_assume!(problems.is_empty());
        for (mail, findings) in mails {
            for (at, recipient) in mail.envelope.recipients.iter().enumerate() {
                let mut before = None;
                for stage in STAGES {
                    let told = early(&policy, &mail, recipient, stage);
                    prop_assert!(told == before || policy.asks_at(stage), "asked in vain at {:?}: {}", stage, text);
                    prop_assert!(before.is_none() || told == before, "unsaid at {:?}: {}", stage, text);
                    before = told;
                    let Some(Early { disposition, rule }) = &before else { continue };
                    prop_assert!(matches!(disposition, Disposition::Reject(_) | Disposition::Defer(_)));
                    for findings in &findings {
                        let outcomes = policy.decide(&mail, findings.clone()).outcomes;
                        let those = if stage == Stage::Recipient { &outcomes[at..=at] } else { &outcomes[..] };
                        for outcome in those {
                            prop_assert_eq!(&outcome.disposition, disposition, "{:?} of {}", stage, text);
                            prop_assert_eq!(outcome.rule.as_ref(), Some(rule));
                            prop_assert!(!outcome.quarantine, "{:?} of {}", stage, text);
                        }
                    }
                }
            }
        }
    }
}
