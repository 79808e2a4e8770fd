//! What each protocol's clients say and get, to the octet: in one piece, octet by octet, in slices; and what a client that is
//! wrong, greedy or gone gets.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

mod common;

use checkpost_adapter::conformance::Slicing;
use checkpost_core::edit::{HeaderField, HeaderText};
use checkpost_core::finding::Unscanned;
use checkpost_core::{Edit, Finding, Kind, Outcome, Verdict};
use checkpost_scan::Protocol;
use common::{Setup, by_rules, chunks, exim, finding, settings};

const MAIL: &str = "Subject: a\n\nbody\n";

fn malware() -> Vec<Finding> {
    vec![finding(Kind::Malware, "Eicar-Test-Signature")]
}

fn spam() -> Vec<Finding> {
    vec![finding(Kind::Spam { score: 1000.0 }, "GTUBE")]
}

fn unscanned() -> Vec<Finding> {
    vec![Finding::unscanned(&"clamd".into(), Unscanned::ConnectRefused, std::time::Duration::ZERO, "no answer")]
}

/// One connection in every slicing, judged by Checkpost's own rules.
fn check(protocol: Protocol, lines: &str, findings: &[Finding], said: impl AsRef<[u8]>, answered: &str) {
    for slicing in Slicing::ALL {
        let setup = Setup::new(protocol, lines).judged(by_rules(findings.to_vec())).sliced(slicing);
        let (heard, _) = setup.say(said.as_ref());
        assert_eq!(heard, answered, "{slicing:?}: {}", String::from_utf8_lossy(said.as_ref()));
    }
}

fn clamd(findings: &[Finding], said: impl AsRef<[u8]>, answered: &str) {
    check(Protocol::Clamd, "", findings, said, answered);
}

fn stream(start: &str, content: &str) -> Vec<u8> {
    [start.as_bytes(), &chunks(content.as_bytes(), 7)].concat()
}

#[test]
fn clamd_small_words() {
    clamd(&[], "zPING\0", "PONG|");
    clamd(&[], "nPING\n", "PONG\n");
    clamd(&[], "PING\n", "PONG\n");
    clamd(&[], "zPING\0zPING\0", "PONG|");
    clamd(&[], "zIDSESSION\0zPING\0nPING\nzEND\0", "1: PONG|2: PONG\n");
    clamd(&[], "zIDSESSION\0PING\n", "1: Only nCMDS\\n and zCMDS\\0 are accepted inside IDSESSION. ERROR\n");
    clamd(&[], "zIDSESSION\0zIDSESSION\0", "1: Command invalid inside IDSESSION. ERROR|");
    clamd(&[], "zSHUTDOWN\0", "COMMAND UNAVAILABLE|");
    clamd(&[], "GET / HTTP/1.0\r\n", "UNKNOWN COMMAND\n");
    clamd(&[], "zEND\0", "UNKNOWN COMMAND|");
    clamd(&[], vec![b'z'; 5000], "UNKNOWN COMMAND\n");
    let (version, _) = Setup::new(Protocol::Clamd, "").say("zVERSION\0");
    assert!(version.starts_with("ClamAV ") && version.ends_with(")|"), "{version}");
    let (commands, _) = Setup::new(Protocol::Clamd, "").say("nVERSIONCOMMANDS\n");
    assert!(commands.contains("| COMMANDS: SCAN ") && commands.ends_with(" END\n"), "{commands}");
}

#[test]
fn clamd_streams() {
    clamd(&[], stream("zINSTREAM\0", MAIL), "stream: OK|");
    clamd(&[], stream("nINSTREAM\n", MAIL), "stream: OK\n");
    clamd(&[], stream("zINSTREAM\0", ""), "stream: OK|");
    clamd(&malware(), stream("zINSTREAM\0", MAIL), "stream: Eicar-Test-Signature FOUND|");
    clamd(&spam(), stream("zINSTREAM\0", MAIL), "stream: Checkpost.Spam.GTUBE FOUND|");
    let later = "stream: Message could not be checked, try again later ERROR|";
    clamd(&unscanned(), stream("zINSTREAM\0", MAIL), later);
    let two = [&b"zIDSESSION\0"[..], &stream("zINSTREAM\0", MAIL), &stream("nINSTREAM\n", MAIL), b"zEND\0"].concat();
    clamd(&malware(), two, "1: stream: Eicar-Test-Signature FOUND|2: stream: Eicar-Test-Signature FOUND\n");
    // Half of it, and gone.
    clamd(&[], &stream("zINSTREAM\0", MAIL)[..20], "");
}

#[test]
fn a_stream_that_is_too_large_is_told_as_clamd_tells_it() {
    let limit = "max_size = \"100 B\"\n";
    let said = [stream("zINSTREAM\0", &"x".repeat(120)), b"zPING\0".to_vec()].concat();
    check(Protocol::Clamd, limit, &[], said, "INSTREAM size limit exceeded. ERROR|");
    check(Protocol::Clamd, limit, &[], stream("zINSTREAM\0", &"x".repeat(100)), "stream: OK|");
    // Much is promised and little sent: nothing is made ready for it.
    check(Protocol::Clamd, limit, &[], b"zINSTREAM\0\xff\xff\xff\xffabc", "");
    let (_, closings) = Setup::new(Protocol::Clamd, limit).say(stream("zINSTREAM\0", &"x".repeat(120)));
    assert_eq!(closings[0].text, "<>: deferred (451 4.3.4 Message too large for the filter)");
}

#[test]
fn what_goes_to_the_disk_is_judged_whole_or_put_off() {
    let content = "0123456789abcdef\n".repeat(500);
    for slicing in Slicing::ALL {
        for (disk, wanted) in
            [(usize::MAX, "stream: OK|"), (3000, "stream: Insufficient storage, try again later ERROR|")]
        {
            let whole = content.clone();
            let mut setup = Setup::new(Protocol::Clamd, "").sliced(slicing).judged(move |mail| {
                assert_eq!(mail.content.as_slice().unwrap(), whole.as_bytes());
                common::deliver(mail)
            });
            setup.link.memory_limit = 1000;
            setup.disk = disk;
            let (heard, closings) = setup.say(stream("zINSTREAM\0", &content));
            assert_eq!((&*heard, closings.len()), (wanted, 1));
        }
    }
    // After one that was put off half way, the next on the connection is itself alone.
    let two = [stream("zIDSESSION\0zINSTREAM\0", &content), stream("zINSTREAM\0", MAIL)].concat();
    let mut setup = Setup::new(Protocol::Clamd, "").judged(|mail| {
        assert_eq!(mail.content.as_slice().unwrap(), MAIL.as_bytes());
        common::deliver(mail)
    });
    setup.link.memory_limit = 1000;
    setup.disk = 3000;
    let (heard, _) = setup.say(two);
    assert_eq!(heard, "1: stream: Insufficient storage, try again later ERROR|2: stream: OK|");
}

#[test]
fn clamd_descriptors_and_files() {
    for slicing in Slicing::ALL {
        let mut setup =
            Setup::new(Protocol::Clamd, "paths = [\"/scan\"]\n").judged(by_rules(malware())).sliced(slicing);
        setup.descriptors = vec![MAIL.into(), MAIL.into()];
        setup.named = vec![("/scan/a".into(), MAIL.into()), ("/other".into(), MAIL.into())];
        let said = "zIDSESSION\0zFILDES\0\0zFILDES\0\0zFILDES\0\0zSCAN /scan/a\0zCONTSCAN /other\0nSCAN /scan/b\nzSCAN a\0zEND\0";
        let (heard, closings) = setup.say(said);
        let outside = "not beneath a folder that is allowed ERROR";
        let wanted = format!(
            "1: fd[10]: Eicar-Test-Signature FOUND|2: fd[10]: Eicar-Test-Signature FOUND|\
             3: fd[10]: No file descriptor received ERROR|4: /scan/a: Eicar-Test-Signature FOUND|5: /other: {outside}|\
             6: /scan/b: no such file ERROR\n7: a: {outside}|"
        );
        assert_eq!(heard, wanted, "{slicing:?}");
        assert_eq!(closings.len(), 7, "each has its closing line");
        assert_eq!(closings[3].size, MAIL.len() as u64);
    }
    let mut large = Setup::new(Protocol::Clamd, "paths = [\"/scan\"]\nmax_size = \"10 B\"\n");
    large.descriptors = vec![MAIL.into()];
    large.named = vec![("/scan/a".into(), MAIL.into())];
    let (heard, _) = large.say("zIDSESSION\0zFILDES\0\0zSCAN /scan/a\0zPING\0");
    assert!(heard.starts_with("1: fd[10]: the file is larger than the limit of 10 octets ERROR|"), "{heard}");
    assert!(heard.ends_with("2: /scan/a: larger than the limit of 10 octets ERROR|3: PONG|"), "{heard}");
    // None may be named unless it is configured.
    clamd(&[], "SCAN /etc/passwd\n", "/etc/passwd: not beneath a folder that is allowed ERROR\n");
}

#[test]
fn exims_lines_tell_the_envelope_and_are_not_of_the_mail() {
    let forged = "X-Envelope-From: <forged@x>\nX-Envelope-To: forged@x\nSubject: a\n\nbody\n";
    for (sender, recipients) in [("a@x", &["b@x", "c@x"][..]), ("", &["b@x"])] {
        let shown = exim(sender, recipients, forged.as_bytes());
        let whom: Vec<String> = recipients.iter().map(|to| format!("<{to}>: passed")).collect();
        let judge = |mail: &checkpost_core::Mail| {
            assert!(mail.content.as_slice().unwrap().starts_with(b"X-Envelope-From: <forged@x>\n"));
            common::deliver(mail)
        };
        let look = |setup: Setup, said: &[u8], wanted: &str| {
            let (heard, closings) = setup.judged(judge).say(said);
            assert_eq!(heard, wanted);
            assert_eq!((&*closings[0].sender, &closings[0].text), (&*format!("<{sender}>"), &whom.join(", ")));
            assert_eq!(closings[0].size, forged.len() as u64);
        };
        for slicing in Slicing::ALL {
            let lines = "envelope_lines = true\n";
            let setup = Setup::new(Protocol::Clamd, lines).sliced(slicing);
            look(setup, &[&b"zINSTREAM\0"[..], &chunks(&shown, 11)].concat(), "stream: OK|");
            let mut setup = Setup::new(Protocol::Clamd, "envelope_lines = true\npaths = [\"/scan\"]\n").sliced(slicing);
            setup.named = vec![("/scan/a".into(), shown.clone())];
            look(setup, b"SCAN /scan/a\n", "/scan/a: OK\n");
            let head = format!("REPORT SPAMC/1.2\r\nUser: nobody\r\nContent-length: {}\r\n\r\n", shown.len());
            let report =
                "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.0 / 15.0\r\n\r\nCheckpost: No objections\nScore 0.0 of 15.0\n";
            let mut setup = Setup::new(Protocol::Spamd, lines).sliced(slicing);
            setup.ends = true;
            look(setup, &[head.as_bytes(), &shown].concat(), report);
        }
    }
    // Where they are not looked for, they are the mail's.
    let shown = exim("a@x", &["b@x"], MAIL.as_bytes());
    let (_, closings) = Setup::new(Protocol::Clamd, "").say([&b"zINSTREAM\0"[..], &chunks(&shown, 11)].concat());
    assert_eq!((closings[0].size, &*closings[0].text), (shown.len() as u64, "<>: passed"));
    // Too long to be read, so nobody knows for whom it is.
    let many = vec!["recipient@example.org"; 20_000];
    let shown = exim("a@x", &many, MAIL.as_bytes());
    let said = [&b"zINSTREAM\0"[..], &chunks(&shown, 100_000)].concat();
    let (heard, _) = Setup::new(Protocol::Clamd, "envelope_lines = true\n").say(&said);
    assert_eq!(heard, "stream: The lines with the envelope are too long ERROR|");
    let (heard, _) = Setup::new(Protocol::Clamd, "envelope_lines = true\nmax_recipients = 1\n")
        .say([&b"zINSTREAM\0"[..], &chunks(&exim("a@x", &["b@x", "c@x"], MAIL.as_bytes()), 99)].concat());
    assert_eq!(heard, "stream: Too many recipients ERROR|");
}

fn spamd(findings: &[Finding], said: impl AsRef<[u8]>, answered: &str) {
    check(Protocol::Spamd, "required_score = 5\n", findings, said, answered);
}

fn asked(method: &str, version: &str) -> String {
    format!("{method} SPAMC/{version}\r\nContent-length: {}\r\n\r\n{MAIL}", MAIL.len())
}

#[test]
fn spamd_words() {
    spamd(&[], "PING SPAMC/1.2\r\n", "SPAMD/1.5 0 PONG\r\n");
    spamd(&[], "PING SPAMC/1.5\r\n\r\n", "SPAMD/1.5 0 PONG\r\n");
    spamd(&[], "SKIP SPAMC/1.5\r\n\r\n", "");
    spamd(&[], asked("TELL", "1.5"), "SPAMD/1.0 69 Service Unavailable: nothing is learned here\r\n");
    let compressed = asked("CHECK", "1.5").replace("\r\n\r\n", "\r\nCompress: zlib\r\n\r\n");
    spamd(&[], compressed, "SPAMD/1.0 76 Bad header line: (Compress is not supported)\r\n");
    spamd(&[], "HELO x\r\n", "SPAMD/1.0 76 Bad header line: (a line that is not `Name: value`)\r\n");
    spamd(&[], asked("CHECK", "1.2"), "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.0 / 5.0\r\n\r\n");
    spamd(&spam(), asked("CHECK", "1.5"), "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1000.0 / 5.0\r\n\r\n");
    // Malware has no points, and is as unwelcome.
    spamd(&malware(), asked("CHECK", "1.5"), "SPAMD/1.1 0 EX_OK\r\nSpam: True ; 5.0 / 5.0\r\n\r\n");
    // The rules let a score of 10 pass, so whoever compares it must let it pass, too.
    let ten = [finding(Kind::Spam { score: 10.0 }, "TEN")];
    spamd(&ten, asked("CHECK", "1.5"), "SPAMD/1.1 0 EX_OK\r\nSpam: False ; 4.9 / 5.0\r\n\r\n");
    spamd(
        &unscanned(),
        asked("CHECK", "1.5"),
        "SPAMD/1.0 75 EX_TEMPFAIL Message could not be checked, try again later\r\n",
    );
    let head = "SPAMD/1.1 0 EX_OK\r\nContent-length: ";
    spamd(&spam(), asked("SYMBOLS", "1.3"), &format!("{head}5\r\nSpam: True ; 1000.0 / 5.0\r\n\r\nGTUBE"));
    let report = "Checkpost: Message looks like spam\nScore 1000.0 of 5.0\n\n pts  name (filter, kind, part)\n1000.0 GTUBE (built-in, spam)\n";
    spamd(
        &spam(),
        asked("REPORT", "1.5"),
        &format!("{head}{}\r\nSpam: True ; 1000.0 / 5.0\r\n\r\n{report}", report.len()),
    );
    spamd(&[], asked("REPORT_IFSPAM", "1.5"), &format!("{head}0\r\nSpam: False ; 0.0 / 5.0\r\n\r\n"));
    // Without a length, the end of what is said is the end of the message.
    let mut setup = Setup::new(Protocol::Spamd, "");
    setup.ends = true;
    let (heard, closings) = setup.say(format!("CHECK SPAMC/1.0\r\n\r\n{MAIL}"));
    assert_eq!(
        (&*heard, closings[0].size),
        ("SPAMD/1.1 0 EX_OK\r\nSpam: False ; 0.0 / 15.0\r\n\r\n", MAIL.len() as u64)
    );
    // With one, an early end is no message.
    let mut setup = Setup::new(Protocol::Spamd, "");
    setup.ends = true;
    let (heard, closings) = setup.say(format!("CHECK SPAMC/1.2\r\nContent-length: 99\r\n\r\n{MAIL}"));
    assert_eq!((&*heard, closings.len()), ("", 1));
    assert!(closings[0].text.contains("not handed on"), "{closings:?}");
}

#[test]
fn spamd_gives_the_mail_back_with_what_spamds_users_look_for() {
    let forged = "X-Spam-Flag: NO\nSubject: a\nx-spam-status: No, score=-99\n\nbody\n";
    let said = |method: &str| format!("{method} SPAMC/1.5\r\nContent-length: {}\r\n\r\n{forged}", forged.len());
    let answer = |body: &str, line: &str| {
        format!("SPAMD/1.1 0 EX_OK\r\nContent-length: {}\r\nSpam: {line}\r\n\r\n{body}", body.len())
    };
    let clean = "X-Spam-Status: No, score=0.0 required=5.0 tests=\nSubject: a\n\n";
    spamd(&[], said("PROCESS"), &answer(&format!("{clean}body\n"), "False ; 0.0 / 5.0"));
    spamd(&[], said("HEADERS"), &answer(clean, "False ; 0.0 / 5.0"));
    let bad =
        "X-Spam-Flag: YES\nX-Spam-Status: Yes, score=5.0 required=5.0 tests=Eicar-Test-Signature\nSubject: a\n\nbody\n";
    spamd(&malware(), said("PROCESS"), &answer(bad, "True ; 5.0 / 5.0"));
    spamd(&unscanned(), said("PROCESS"), "SPAMD/1.0 75 EX_TEMPFAIL Message could not be checked, try again later\r\n");
    let edited = |mail: &checkpost_core::Mail| {
        let tag = Edit::TagSubject(HeaderText::new("[SPAM]").unwrap());
        let outcome = Outcome { edits: vec![tag].into(), ..Outcome::deliver() };
        Verdict::uniform(&outcome, mail.envelope.recipients.len(), Vec::new())
    };
    // One that is in the spool comes back from there.
    for memory_limit in [1 << 20, 10] {
        let mut setup = Setup::new(Protocol::Spamd, "").judged(edited);
        setup.link.memory_limit = memory_limit;
        let (heard, closings) = setup.say(asked("PROCESS", "1.5"));
        let wanted = "X-Spam-Status: No, score=0.0 required=15.0 tests=\nSubject: [SPAM] a\n\nbody\n";
        assert!(heard.ends_with(&format!("\r\n\r\n{wanted}")), "{heard}");
        assert_eq!(closings[0].text, "<>: passed");
    }
}

fn http(line: &str, headers: &str) -> String {
    format!("{line}\r\nContent-Length: {}\r\n{headers}\r\n{MAIL}", MAIL.len())
}

#[test]
fn rspamd_says_in_json_what_is_wrong_and_what_to_change() {
    let said = http("POST /checkv2 HTTP/1.0", "From: <a@x>\r\nRcpt: b@x\r\nRcpt: c@x\r\nIP: 192.0.2.1\r\nUser: u\r\n");
    let field = Edit::AddHeader(HeaderField::parse("X-Checked: yes").unwrap());
    let tag = Edit::TagSubject(HeaderText::new("[SPAM]").unwrap());
    let outcome = Outcome { edits: vec![field, tag].into(), ..Outcome::deliver() };
    for slicing in Slicing::ALL {
        let outcome = outcome.clone();
        let setup = Setup::new(Protocol::Rspamd, "")
            .sliced(slicing)
            .judged(move |mail| Verdict::uniform(&outcome, mail.envelope.recipients.len(), Vec::new()));
        let (heard, closings) = setup.say(&said);
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nConnection: close\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["action"], "no action");
        assert_eq!(body["milter"]["remove_headers"], serde_json::json!({ "Subject": 0 }));
        let added = serde_json::json!({
            "Subject": { "value": "[SPAM] a", "order": 0 }, "X-Checked": { "value": "yes", "order": 0 }
        });
        assert_eq!(body["milter"]["add_headers"], added);
        assert_eq!(closings[0].text, "<b@x>: passed, <c@x>: passed");
        assert_eq!((&*closings[0].class, closings[0].client.as_deref()), ("submission", Some("192.0.2.1")));
    }
    let (heard, _) = Setup::new(Protocol::Rspamd, "").judged(by_rules(malware())).say(&said);
    let body: serde_json::Value = serde_json::from_str(heard.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        (&body["action"], &body["score"], &body["required_score"]),
        (&"reject".into(), &15.0.into(), &15.0.into())
    );
    assert_eq!(body["messages"]["smtp_message"], "Message contains malware (Eicar-Test-Signature)");
    assert_eq!(body["symbols"]["Eicar-Test-Signature"]["options"][1], "malware");
    let (heard, _) = Setup::new(Protocol::Rspamd, "").judged(by_rules(unscanned())).say(&said);
    assert!(heard.contains("\"action\":\"soft reject\"") && heard.contains("\"score\":15.0"), "{heard}");
}

#[test]
fn rspamd_refuses_what_is_no_message_to_look_at() {
    let status = |said: &str, wanted: &str| {
        for slicing in Slicing::ALL {
            let (heard, closings) = Setup::new(Protocol::Rspamd, "").sliced(slicing).say(said);
            assert!(heard.starts_with(&format!("HTTP/1.1 {wanted} ")), "{said}: {heard}");
            assert_eq!(heard.matches("HTTP/1.1 ").count(), 1, "{heard}");
            assert!(closings.is_empty());
        }
    };
    status("GET /ping HTTP/1.0\r\n\r\n", "200");
    status("GET /stat HTTP/1.0\r\n\r\n", "200");
    status("POST /checkv2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "411");
    status("POST /checkv2 HTTP/1.1\r\n\r\n", "411");
    status("POST /checkv2 HTTP/1.1\r\nFile: /etc/passwd\r\nContent-Length: 0\r\n\r\n", "501");
    status(&http("POST /learnspam HTTP/1.1", ""), "404");
    status("nonsense\r\n\r\n", "400");
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(300 << 10));
    let (heard, _) = Setup::new(Protocol::Rspamd, "").say(long);
    assert!(heard.starts_with("HTTP/1.1 431 "), "{heard}");
    let (heard, _) = Setup::new(Protocol::Rspamd, "max_size = \"5 B\"\n").say(http("POST /checkv2 HTTP/1.0", ""));
    assert!(heard.starts_with("HTTP/1.1 413 "), "{heard}");
    let mut full = Setup::new(Protocol::Rspamd, "");
    full.link.refuse = Some("Too many connections");
    let (heard, closings) = full.say(http("POST /checkv2 HTTP/1.0", ""));
    assert!(heard.starts_with("HTTP/1.1 503 ") && heard.contains("Too many connections"), "{heard}");
    assert_eq!(closings.len(), 1);
}

#[test]
fn a_connection_serves_on_as_long_as_it_may() {
    let ping = "GET /ping HTTP/1.1\r\n\r\n";
    let check = http("POST /checkv2 HTTP/1.1", "Expect: 100-continue\r\n");
    let count = |lines: &str, drain_at: Option<usize>| {
        let mut setup = Setup::new(Protocol::Rspamd, lines);
        setup.drain_at = drain_at;
        let (heard, _) = setup.say(format!("{ping}{check}{check}{ping}"));
        (heard.matches("HTTP/1.1 200 OK").count(), heard.matches("HTTP/1.1 100 Continue").count())
    };
    assert_eq!(count("", None), (4, 2));
    assert_eq!(count("max_requests = 2\n", None), (2, 1));
    assert_eq!(count("", Some(0)), (0, 0), "after the signal to end nothing is begun");
}

#[test]
fn settings_are_checked() {
    let wrong = |protocol, lines: &str, key: &str| {
        let error = settings(protocol, lines).unwrap_err();
        assert!(error.starts_with(&format!("{key}: ")), "{error}");
    };
    wrong(Protocol::Spamd, "paths = [\"/x\"]\n", "paths");
    wrong(Protocol::Clamd, "paths = [\"x\"]\n", "paths");
    wrong(Protocol::Clamd, "paths = [\"/\"]\n", "paths");
    wrong(Protocol::Clamd, "required_score = 5\n", "required_score");
    wrong(Protocol::Spamd, "required_score = 0\n", "required_score");
    wrong(Protocol::Spamd, "actions = [\"discard\"]\n", "actions");
    wrong(Protocol::Clamd, "max_sessions = 0\n", "max_sessions");
    wrong(Protocol::Clamd, "max_requests = 0\n", "max_requests");
    let (_, abilities) = settings(Protocol::Rspamd, "actions = [\"discard\"]\n").unwrap();
    assert_eq!((abilities.discard, abilities.hold), (true, false));
}
