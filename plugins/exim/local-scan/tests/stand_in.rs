//! The library as Exim loads it, in a stand-in for Exim (`host.c`) and with a daemon that answers as each case wants.

// What a test needs and does not get is the test failing.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use checkpost_client::fake::{Asked, Said, listen};
use checkpost_filter_fixtures::{Libraries, has_compiler};
use checkpost_wire::check::{Answer, Class, Content, Decision, Form, HELLO, Outcome, Part, Request, Response};

const LATER: &str = "4.3.0 Local problem, try again later";
const BODY: &str = "body\n.\nFrom here\n";

/// A host, the library, a folder for both, and perhaps a daemon.
struct Stand {
    libraries: Libraries,
    library: PathBuf,
    symbol: &'static str,
    asked: Arc<Mutex<Vec<Shown>>>,
}

/// What the daemon was shown.
type Shown = (Request, Vec<u8>);

/// What came of a call.
#[derive(Debug, Default, PartialEq)]
struct Came {
    code: i32,
    text: String,
    recipients: Vec<String>,
    headers: Vec<String>,
    log: String,
    /// After the first and after the last of many calls.
    descriptors: Vec<i64>,
    memory: Vec<i64>,
}

/// A mail as commands to the host.
#[derive(Clone)]
struct Mail {
    commands: String,
    body: Vec<u8>,
}

impl Stand {
    /// Nobody listens yet. `None`: there is no C compiler.
    fn new(flags: &[&str]) -> Option<Self> {
        if !has_compiler() {
            return None;
        }
        let libraries = Libraries::new();
        // Cargo has made it for this test.
        let built = std::env::current_exe().unwrap().with_file_name("libcheckpost_exim_local_scan.so");
        let library = libraries.folder().join("checkpost.so");
        std::fs::copy(built, &library).unwrap();
        let stand = Self { library, libraries, symbol: "local_scan", asked: Arc::default() };
        let built = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-rdynamic"])
            .args(flags)
            .arg("-o")
            .args([&stand.path("host"), &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host.c")])
            .arg("-ldl")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        stand.settings(&[]);
        Some(stand)
    }

    fn with(judge: impl Fn(&Asked) -> Said + Send + Sync + 'static) -> Option<Self> {
        let stand = Self::new(&[])?;
        stand.listen(judge);
        Some(stand)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.libraries.folder().join(name)
    }

    fn listen(&self, judge: impl Fn(&Asked) -> Said + Send + Sync + 'static) {
        let heard = Arc::clone(&self.asked);
        listen(&self.path("socket"), move |asked| {
            heard.lock().unwrap().push((asked.request.clone(), asked.content.clone()));
            judge(asked)
        });
    }

    /// The settings with these changes, in the file beside the library.
    fn settings(&self, changes: &[(&str, &str)]) {
        let (socket, spool) = (self.path("socket"), self.libraries.folder());
        let usual = [("socket", socket.to_str().unwrap()), ("spool", spool.to_str().unwrap()), ("check_time", "20s")];
        let kept = usual.iter().filter(|(key, _)| changes.iter().all(|(changed, _)| changed != key));
        let lines: String = kept.chain(changes).map(|(key, value)| format!("{key} = {value}\n")).collect();
        std::fs::write(self.path("checkpost-exim.conf"), lines).unwrap();
    }

    /// What the host says to these commands, and whether it ended well.
    fn play(&self, commands: &str) -> (String, bool) {
        let mut host = Command::new(self.path("host"))
            .arg(&self.library)
            .arg(self.symbol)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        host.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        let output = host.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is said on standard error");
        (String::from_utf8(output.stdout).unwrap(), output.status.success())
    }

    fn call_all(&self, mails: &[Mail], call: &str) -> Vec<Came> {
        let mut commands = String::new();
        for (number, mail) in mails.iter().enumerate() {
            let body = self.path(&format!("body{number}"));
            std::fs::write(&body, &mail.body).unwrap();
            writeln!(commands, "{}body {}\n{call}", mail.commands, body.display()).unwrap();
        }
        let (said, well) = self.play(&commands);
        assert!(well, "{said}");
        let said = said.strip_prefix("version 6.0\n").expect("the version that Exim wants");
        let came: Vec<Came> = said.split_terminator("end\n").map(Came::read).collect();
        assert_eq!(came.len(), mails.len(), "{said}");
        let left = self.libraries.folder().read_dir().unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
        came
    }

    fn call(&self, mail: &Mail) -> Came {
        self.call_all(std::slice::from_ref(mail), "call").remove(0)
    }

    /// What the daemon was asked last.
    fn last(&self) -> Shown {
        self.asked.lock().unwrap().pop().expect("the daemon was asked")
    }
}

impl Came {
    fn read(said: &str) -> Self {
        let mut came = Self::default();
        for line in said.lines() {
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            let numbers = || rest.split(' ').map(|number| number.parse().unwrap()).collect();
            match what {
                "rc" => came.code = rest.parse().unwrap(),
                "text" => came.text = rest.to_owned(),
                "recipient" => came.recipients.push(rest.to_owned()),
                "header" => came.headers.push(rest.to_owned()),
                "log" => came.log = rest.to_owned(),
                "descriptors" => came.descriptors = numbers(),
                "memory" => came.memory = numbers(),
                _ => panic!("the host complains: {line}"),
            }
        }
        came
    }
}

impl Mail {
    fn new() -> Self {
        let commands = "sender s@client.example\nrecipient alice@example.test\nrecipient bob@example.test\n\
                        client 192.0.2.7\nid 1wABCD-000001-AB\nheader P Received: by mail\\n id 1\\n\n\
                        header   Subject: hello\\n\nheader * To: old@example.test\\n\n\
                        header T To: alice@example.test\\n\n";
        Self { commands: commands.into(), body: BODY.into() }
    }

    /// Nothing but what these commands say.
    fn of(commands: &str) -> Self {
        Self { commands: format!("{commands}\n"), body: Vec::new() }
    }

    fn and(mut self, command: &str) -> Self {
        self.commands.push_str(command);
        self.commands.push('\n');
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// The header of [`Mail::new`] as the daemon sees it, with the empty line.
const SHOWN: &str = "Received: by mail\n id 1\nSubject: hello\nTo: alice@example.test\n\n";
/// As Exim has it.
const HEADERS: [&str; 4] = [
    "P Received: by mail\\n id 1\\n",
    "  Subject: hello\\n",
    "* To: old@example.test\\n",
    "T To: alice@example.test\\n",
];

fn answer(decision: Decision, outcomes: Vec<Outcome>, contents: Vec<Content>) -> Response {
    Response::Answer(Answer { id: "T1".into(), decision, outcomes, contents })
}

fn content(form: Form, added: &[&str]) -> Content {
    Content { form, sender: None, added: added.iter().map(ToString::to_string).collect() }
}

/// Everybody gets it as it is.
fn deliver(asked: &Asked) -> Said {
    let outcomes = vec![Outcome::Deliver(0); asked.request.recipients.len()];
    Said::Response(answer(Decision::Accept, outcomes, vec![content(Form::Same, &[])]))
}

fn taken() -> Came {
    let recipients = vec!["alice@example.test".into(), "bob@example.test".into()];
    Came { text: "T1".into(), recipients, headers: HEADERS.map(Into::into).into(), ..Came::default() }
}

#[track_caller]
fn put_off(came: &Came, why: &str) {
    assert_eq!((came.code, &*came.text), (5, LATER), "{came:?}");
    assert!(came.log.starts_with("1 checkpost: mail put off: ") && came.log.contains(why), "{}", came.log);
    assert_eq!((came.recipients.len(), &came.headers), (2, &taken().headers), "nothing is changed");
}

#[test]
fn a_clean_mail_is_taken_as_it_is() {
    let Some(stand) = Stand::with(deliver) else { return };
    let mail = Mail::new().and("helo mail.client.example\nname host.client.example\ncipher TLS1.3:x:256\nuser anna");
    assert_eq!(stand.call(&mail), taken());
    let (request, shown) = stand.last();
    assert_eq!(String::from_utf8(shown).unwrap(), format!("{SHOWN}{BODY}"));
    assert_eq!(request.sender, b"s@client.example");
    assert_eq!(request.recipients, [b"alice@example.test".to_vec(), b"bob@example.test".to_vec()]);
    assert_eq!((request.client, request.class), ("192.0.2.7".parse().ok(), None));
    assert_eq!(request.helo.as_deref(), Some("mail.client.example"));
    assert_eq!(request.client_name.as_deref(), Some("host.client.example"));
    assert_eq!((request.user.as_deref(), request.tls), (Some("anna"), true));
    assert_eq!(request.queue_id.as_deref(), Some("1wABCD-000001-AB"));
}

#[test]
fn the_body_is_wherever_the_descriptor_stands() {
    let Some(stand) = Stand::with(deliver) else { return };
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let large = "0123456789abcde\n".repeat(10 << 16);
    let bodies = [BODY.to_owned(), String::new(), crlf(BODY), "no end".into(), "\n".into(), "x".repeat(1 << 20), large];
    for offset in [19, 26] {
        for body in &bodies {
            let mail = Mail::new().and(&format!("offset {offset}")).body(body.as_str());
            assert_eq!(stand.call(&mail), taken());
            let header = if body.contains("\r\n") { crlf(SHOWN) } else { SHOWN.to_owned() };
            assert!(stand.last().1 == format!("{header}{body}").into_bytes(), "{offset}, {} octets", body.len());
        }
    }
}

#[test]
fn who_sent_it() {
    let Some(stand) = Stand::with(deliver) else { return };
    for (commands, class, user) in [
        ("sender s@x\nuser anna", Some(Class::Submission), Some("anna")),
        ("sender \nuser Debian-exim", Some(Class::Internal), None),
        ("sender \nclient 2001:db8::7", None, None),
        ("sender s@x\nclient 192.0.2.7\nuser anna", None, Some("anna")),
    ] {
        assert_eq!(stand.call(&Mail::of(commands).and("recipient a@x")).code, 0);
        let (request, shown) = stand.last();
        assert_eq!((request.class, request.user.as_deref()), (class, user), "{commands}");
        assert_eq!(request.sender.is_empty(), commands.starts_with("sender \n"));
        assert_eq!(shown, b"\n");
    }
    // An ACL has discarded it: nobody is there to decide for.
    assert_eq!(stand.call(&Mail::of("sender s@x")), Came { text: "-".into(), ..Came::default() });
    assert!(stand.asked.lock().unwrap().is_empty());
}

#[test]
fn refusals_are_told_in_our_words() {
    let judge = |asked: &Asked| {
        let decision = match &asked.request.recipients[0][..] {
            b"alice@example.test" => Decision::Reject("550 5.7.1 Message contains malware (Eicar)".into()),
            _ => Decision::Defer("451 4.7.1 Come again".into()),
        };
        Said::Response(answer(decision, vec![], vec![]))
    };
    let Some(stand) = Stand::with(judge) else { return };
    let refused = Came { code: 3, text: "5.7.1 Message contains malware (Eicar)".into(), ..taken() };
    assert_eq!(stand.call(&Mail::new()), refused);
    let came = stand.call(&Mail::of("recipient carol@example.test\nclient 192.0.2.7"));
    assert_eq!((came.code, &*came.text, &*came.log), (5, "4.7.1 Come again", ""));
    // Exim would freeze the mail that could not be delivered.
    let came = stand.call(&Mail::of("recipient alice@example.test\nuser Debian-exim"));
    assert_eq!((came.code, &*came.text), (5, LATER));
    assert!(came.log.contains("a bounce refused for good (mail T1)"), "{}", came.log);
}

#[test]
fn recipients_go_and_come() {
    let judge = |asked: &Asked| {
        let (accept, same) = (Decision::Accept, |added: &[&str]| vec![content(Form::Same, added)]);
        let hold = || Outcome::Hold(0, "looks odd".into());
        let (outcomes, contents) = match asked.request.helo.as_deref() {
            Some("discard") => ([Outcome::Discard, Outcome::Discard], vec![]),
            Some("quarantine") => ([Outcome::Quarantine, Outcome::Discard], vec![]),
            Some("one") => ([Outcome::Deliver(0), Outcome::Quarantine], same(&[])),
            Some("hold") => ([hold(), hold()], same(&[])),
            _ => ([Outcome::Discard, Outcome::Deliver(0)], same(&["copy@example.test", "two@x"])),
        };
        Said::Response(answer(accept, outcomes.into(), contents))
    };
    let Some(stand) = Stand::with(judge) else { return };
    let call = |helo: &str| stand.call(&Mail::new().and(&format!("helo {helo}")));
    let of = |text: &str, recipients: &[&str]| Came {
        text: text.into(),
        recipients: recipients.iter().map(ToString::to_string).collect(),
        ..taken()
    };
    assert_eq!(call("discard"), of("discarded by Checkpost, mail T1", &[]));
    assert_eq!(call("quarantine"), of("kept in quarantine by Checkpost, mail T1", &[]));
    assert_eq!(call("one"), of("T1", &["alice@example.test"]));
    assert_eq!(call("more"), of("T1", &["bob@example.test", "copy@example.test", "two@x"]));
    let held = Came { code: 1, log: "1 checkpost: mail T1 is held: looks odd;".into(), ..taken() };
    assert_eq!(call("hold"), held);
    // The same address twice: one goes.
    let twice = Mail::of("client 192.0.2.7\nrecipient a@x\nrecipient a@x\nhelo one");
    assert_eq!(stand.call(&twice).recipients, ["a@x"]);
}

#[test]
fn header_lines_go_come_and_change() {
    let judge = |asked: &Asked| {
        let shown = String::from_utf8(asked.content.clone()).unwrap();
        let end = if shown.contains("\r\n") { "\r\n" } else { "\n" };
        let at = |text: &str| shown.find(text).unwrap() as u64;
        let (total, subject, to) = (shown.len() as u64, at("Subject"), at("To:"));
        let empty_line = at(&format!("{end}{end}")) + end.len() as u64;
        let new = [
            format!("X-Top: 1{end}X-Second:{end} 2{end}"),
            format!("Subject: [x] {}{end}", "hello ".repeat(20_000)),
            format!("X-Bottom: 3{end}"),
        ];
        let parts = vec![
            Part::Put(new[0].len() as u64),
            Part::Keep(0, subject),
            Part::Put(new[1].len() as u64),
            Part::Keep(to, empty_line - to),
            Part::Put(new[2].len() as u64),
            Part::Keep(empty_line, total - empty_line),
        ];
        let contents = vec![content(Form::Pieces(parts), &[])];
        Said::Pieces(answer(Decision::Accept, vec![Outcome::Deliver(0); 2], contents), new.concat().into_bytes())
    };
    let Some(stand) = Stand::with(judge) else { return };
    for body in [BODY.to_owned(), BODY.replace('\n', "\r\n")] {
        let came = stand.call(&Mail::new().body(body));
        assert_eq!((came.code, came.recipients.len()), (0, 2));
        // More than the 32 KiB that header_add() takes.
        let subject = format!("  Subject: [x] {}\\n", "hello ".repeat(20_000));
        let deleted = HEADERS[1].replacen(' ', "*", 1);
        let wanted = [
            "  X-Top: 1\\n",
            "  X-Second:\\n 2\\n",
            HEADERS[0],
            &deleted,
            &subject,
            HEADERS[2],
            HEADERS[3],
            "  X-Bottom: 3\\n",
        ];
        let start = |line: &str| line[..line.len().min(60)].to_owned();
        let starts: Vec<_> = came.headers.iter().map(|line| start(line)).collect();
        // What replaces a line may stand before or behind the one that is deleted.
        let mut wanted: Vec<_> = wanted.to_vec();
        if came.headers[3] == subject {
            wanted.swap(3, 4);
        }
        assert!(came.headers == wanted, "{starts:?}");
    }
}

#[test]
fn no_answer_is_later_or_unscanned_as_is_set() {
    let Some(stand) = Stand::new(&[]) else { return };
    let check = |came: &Came, passes: bool| {
        if passes {
            assert!(came.log.starts_with("1 checkpost: mail passes UNCHECKED (when_down = pass): "), "{}", came.log);
            assert_eq!((came.code, &*came.text, came.recipients.len()), (0, "-", 2));
        } else {
            put_off(came, "");
        }
    };
    put_off(&stand.call(&Mail::new()), "/socket: no connection: No such file or directory");
    stand.settings(&[("when_down", "pass")]);
    check(&stand.call(&Mail::new()), true);
    stand.listen(|asked| match asked.request.helo.as_deref() {
        Some("gone") => Said::Nothing,
        Some("silent") => Said::Silence,
        Some("error") => Said::Response(Response::Error("the spool is full".into())),
        Some("half") => Said::Octets([HELLO, b"answer=T1\0decision=acc"].concat()),
        Some("garbage") => Said::Octets(b"220 mail.example.test ESMTP\r\n".repeat(10)),
        Some("two") => {
            let Said::Response(response) = deliver(asked) else { unreachable!() };
            Said::Octets([HELLO, &response.encode(), &response.encode()].concat())
        }
        _ => deliver(asked),
    });
    for pass in [false, true] {
        stand.settings(&[("when_down", if pass { "pass" } else { "defer" }), ("check_time", "1s")]);
        for (helo, absent) in
            [("gone", true), ("silent", true), ("half", true), ("error", false), ("garbage", false), ("two", false)]
        {
            check(&stand.call(&Mail::new().and(&format!("helo {helo}"))), pass && absent);
        }
    }
    stand.settings(&[]);
    assert_eq!(stand.call(&Mail::new()), taken());
}

/// Exim would keep nothing of it, and many programs do not look at exit codes.
#[test]
fn what_a_local_program_cannot_send_again_is_kept() {
    let Some(stand) = Stand::new(&[]) else { return };
    let mail = |sender: &str| Mail::of(&format!("local\nuser root\nsender {sender}\nrecipient a@x"));
    let came = stand.call(&mail("s@x"));
    assert_eq!((came.code, &*came.text, came.recipients.len()), (1, "-", 1));
    assert!(came.log.contains("no connection") && came.log.contains("kept frozen and UNCHECKED"), "{}", came.log);
    // It is Exim that is told of a bounce, and keeps the mail that it is about.
    assert_eq!(stand.call(&mail("")).code, 5);
    stand.listen(|_| Said::Response(answer(Decision::Defer("451 4.7.1 Come again".into()), vec![], vec![])));
    let came = stand.call(&mail("s@x"));
    assert_eq!((came.code, came.log.contains("mail put off: 4.7.1 Come again; kept")), (1, true), "{}", came.log);
    stand.settings(&[("local_defer", "refuse")]);
    let came = stand.call(&mail("s@x"));
    assert_eq!((came.code, &*came.text, &*came.log), (5, "4.7.1 Come again", ""));
}

#[test]
fn what_is_broken_is_later() {
    let judge = |asked: &Asked| match asked.request.helo.as_deref() {
        Some("body") => {
            let contents = vec![content(Form::Pieces(vec![Part::Keep(0, asked.content.len() as u64 - 1)]), &[])];
            Said::Response(answer(Decision::Accept, vec![Outcome::Deliver(0); 2], contents))
        }
        _ => deliver(asked),
    };
    let Some(stand) = Stand::with(judge) else { return };
    put_off(&stand.call(&Mail::new().and("helo body")), "cannot be done: another body (mail T1)");
    for descriptor in ["-1", "999"] {
        put_off(&stand.call(&Mail::new().and(&format!("descriptor {descriptor}"))), "");
    }
    stand.settings(&[("soket", "/x")]);
    put_off(&stand.call(&Mail::new()), "soket: unknown key; accepted: socket, when_down");
    stand.settings(&[]);
    let file = stand.path("checkpost-exim.conf");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
    put_off(&stand.call(&Mail::new()), "checkpost-exim.conf: others can write to it");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    stand.settings(&[("spool", "/nonexistent")]);
    put_off(&stand.call(&Mail::new().body("x".repeat(2 << 20))), "/nonexistent: ");
    assert_eq!(stand.call(&Mail::new()), taken());
}

#[test]
fn a_panic_does_not_get_out() {
    let Some(mut stand) = Stand::with(deliver) else { return };
    // Cargo has made it, unless it was told to make this test alone.
    let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    stand.library = match std::fs::copy(target.join("examples/libpanicking_scan.so"), stand.path("panicking.so")) {
        Ok(_) => stand.path("panicking.so"),
        Err(_) => stand.libraries.exim_panicking_scan(),
    };
    stand.symbol = "panicking_scan";
    for came in stand.call_all(&[Mail::new(), Mail::new()], "call") {
        put_off(&came, "a fault of this library: panicked at ");
        assert!(came.log.contains("as asked"), "{}", came.log);
    }
}

#[test]
fn a_symbol_that_exim_does_not_export_is_told() {
    let Some(stand) = Stand::new(&["-DWITHOUT_STORE"]) else { return };
    put_off(&stand.call(&Mail::new()), "this Exim has no store_get_3");
}

#[test]
fn exims_own_time_limit_can_strike() {
    let Some(stand) = Stand::with(|_| Said::Silence) else { return };
    let mail = Mail::new().and("timeout 1").and("call");
    assert_eq!(stand.play(&mail.commands), ("version 6.0\ntimed out\n".into(), false));
}

#[test]
fn nothing_is_left_behind_by_many_mails() {
    let Some(stand) = Stand::with(deliver) else { return };
    let came = stand.call_all(&[Mail::new().body("x\n".repeat(100_000))], "repeat 300").remove(0);
    assert_eq!((came.code, came.descriptors[0]), (0, came.descriptors[1]));
    let grown = came.memory[1] - came.memory[0];
    assert!(grown < 512, "{grown} KiB more after 300 mails: {:?}", came.memory);
}

#[test]
fn mails_follow_one_another() {
    let judge = |asked: &Asked| match asked.request.helo.as_deref() {
        Some("refuse") => Said::Response(answer(Decision::Reject("550 5.7.1 no".into()), vec![], vec![])),
        Some("hang up") => Said::Nothing,
        _ => deliver(asked),
    };
    let Some(stand) = Stand::with(judge) else { return };
    let mail = |helo: &str| Mail::new().and(&format!("helo {helo}"));
    let came = stand.call_all(&[mail("a"), mail("refuse"), mail("hang up"), mail("b")], "call");
    assert_eq!(came.iter().map(|came| came.code).collect::<Vec<_>>(), [0, 3, 5, 0]);
    assert_eq!((&came[0], &came[3]), (&taken(), &taken()));
}
