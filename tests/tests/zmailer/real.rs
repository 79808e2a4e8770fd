//! In a real ZMailer, by its real smtpserver, with the shipped recipes. Listed as skipped where there is none.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use checkpost_adapter::setup::Plan;
use checkpost_tests::zmailer::{Mail, ZMailer};
use checkpost_tests::{Client, Daemon, Root, StartError, skip};
use checkpost_zmailer::setup;

use crate::cases::{self, ALICE, SENDER, Server, mail, message, without_id};
use crate::{daemon, ours};

const SOON: Duration = Duration::from_secs(60);
const POSTOFFICE: &str = "/var/spool/postoffice";
const LATER: &str = "451 4.3.0 Content-Policy reject msg: Local problem, try again later";
const STRANGER: &str = "203.0.113.5";
const CUSTOMER: &str = "10.9.8.7";

/// A ZMailer, and a daemon beside it.
pub(crate) struct Scene {
    pub(crate) root: Root,
    state: tempfile::TempDir,
    pub(crate) daemon: Option<Daemon>,
    server: Option<Child>,
}

/// `None`: the test was listed as skipped.
pub(crate) fn scene(recipe: Option<usize>) -> Option<Scene> {
    let root = ZMailer::home().map_err(StartError::from).and_then(|home| ZMailer::root(home).start());
    let root = match root {
        Ok(root) => root,
        Err(StartError::Unavailable(why)) => {
            skip(&why);
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    fs::copy(ours(), root.path("/usr/bin/checkpost-zmailer")).unwrap();
    for folder in ["/etc/checkpost", "/run/checkpost-zmailer"] {
        fs::create_dir(root.path(folder)).unwrap();
    }
    let mut scene = Scene { root, state: tempfile::tempdir().unwrap(), daemon: None, server: None };
    scene.settings("");
    scene.start_daemon();
    fs::copy(scene.state.path().join("mark.key"), scene.root.path("/etc/checkpost/mark.key")).unwrap();
    if let Some(recipe) = recipe {
        scene.install(&setup::plans().remove(recipe));
    }
    Some(scene)
}

impl Scene {
    pub(crate) fn settings(&self, lines: &str) {
        let text = format!(
            "socket = /lab/shared/smtp.sock\nrouter_socket = /lab/shared/router.sock\nmark_key = /etc/checkpost/mark.key\n{lines}\n"
        );
        fs::write(self.root.path("/etc/checkpost/zmailer.conf"), text).unwrap();
    }

    pub(crate) fn start_daemon(&mut self) {
        self.daemon = Some(daemon(&self.root.shared(), self.state.path()));
    }

    fn serve(&mut self) {
        self.shell("chown daemon: /run/checkpost-zmailer");
        let mut command = self.root.command("/usr/bin/checkpost-zmailer");
        let log = fs::File::options().create(true).append(true).open(self.state.path().join("filter.log")).unwrap();
        self.server = Some(command.arg("serve").stdin(Stdio::null()).stderr(log).spawn().unwrap());
        self.wait("a socket", || self.root.path("/run/checkpost-zmailer/filter.sock").exists());
    }

    /// As the recipe says, but for systemd, which is not there.
    pub(crate) fn install(&mut self, plan: &Plan) {
        for step in &plan.steps {
            match &step.run {
                Some(run) if run.contains("systemctl") => {
                    self.serve();
                    let test = run.split_once(" && ").unwrap().1;
                    self.shell(test);
                }
                Some(run) if run.contains("zmailer smtpserver") => self.restart(run),
                Some(run) => self.shell(run),
                // The policy is a test of its own.
                None => {}
            }
        }
    }

    /// Runs what restarts smtpserver, until the new one listens: the old one ends when it likes.
    fn restart(&self, run: &str) {
        let id = || fs::read_to_string(self.root.path(&format!("{POSTOFFICE}/.pid.smtpserver"))).unwrap_or_default();
        let old = id();
        self.shell(run);
        let listens = "i=$(awk '$2 ~ /:0019$/ && $4 == \"0A\" {print $10}' /proc/net/tcp); \
                       for n in $i; do ls -l /proc/$0/fd 2>/dev/null | grep -q \"socket:.$n.$\" && exit 0; done; exit 1";
        let is_new = |id: &str| {
            let mut look = self.root.command("sh");
            id != old && look.args(["-c", listens, id.trim()]).stdin(Stdio::null()).status().unwrap().success()
        };
        self.wait("a new listener", || is_new(&id()));
    }

    pub(crate) fn shell(&self, run: &str) {
        let output = self.root.command("sh").args(["-ec", run]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{run}: {output:?} {}", self.said());
    }

    pub(crate) fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        while !done() {
            assert!(Instant::now() < end, "{what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A session of a client at this address.
    fn client(&self, from: &str) -> Client {
        let stream = self.root.in_network(|| {
            let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &format!("{from}:0").parse::<SocketAddr>().unwrap())?;
            rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], 25)))?;
            Ok::<_, rustix::io::Errno>(TcpStream::from(socket))
        });
        Client::open(stream.unwrap(), "client.remote.test").unwrap()
    }

    fn session_from(&self, from: &str, mails: &[Mail]) -> Vec<String> {
        let mut client = self.client(from);
        let mut told = Vec::new();
        for mail in mails {
            let recipients: Vec<&str> = mail.recipients.iter().map(String::as_str).collect();
            let message = String::from_utf8_lossy(&mail.message).replace('\n', "\r\n");
            let answer = client.mail(&mail.sender, &recipients, message.as_bytes()).unwrap();
            told.push(without_id(&answer.last().to_string()));
        }
        client.quit();
        told
    }

    /// The mails in a mailbox.
    pub(crate) fn mailbox(&self, user: &str) -> Vec<String> {
        let text = fs::read(self.root.path(&format!("/var/mail/{user}"))).unwrap_or_default();
        let text = format!("\n{}", String::from_utf8_lossy(&text));
        text.split("\nFrom ").skip(1).map(str::to_owned).collect()
    }

    /// On their way.
    pub(crate) fn queued(&self) -> usize {
        self.root.queue_len() - self.root.held_len()
    }

    /// Until nothing is on its way, since a mail that should not arrive might.
    pub(crate) fn settled(&self) {
        let mut empty = 0;
        let end = Instant::now() + SOON;
        while empty < 3 {
            assert!(Instant::now() < end, "something is left: {}", self.said());
            empty = if self.queued() == 0 { empty + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Server for Scene {
    fn session(&self, mails: &[Mail]) -> Vec<String> {
        self.session_from(STRANGER, mails)
    }

    fn delivered(&self, mails: usize) -> Vec<(String, String)> {
        let users = ["alice", "bob"];
        let count = || users.iter().map(|user| self.mailbox(user).len()).sum::<usize>();
        self.wait("mails", || count() >= mails);
        self.settled();
        let of = |user: &str| self.mailbox(user).into_iter().map(|mail| (user.to_owned(), mail)).collect::<Vec<_>>();
        let delivered = users.iter().flat_map(|user| of(user)).collect();
        self.shell("rm -f /var/mail/*");
        delivered
    }

    fn frozen(&self) -> Vec<String> {
        let folder = self.root.path(&format!("{POSTOFFICE}/freezer"));
        let files = fs::read_dir(folder).unwrap().flatten();
        let read = |file: fs::DirEntry| {
            let text = fs::read_to_string(file.path()).unwrap();
            fs::remove_file(file.path()).unwrap();
            text
        };
        files.map(read).collect()
    }

    fn said(&self) -> String {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let log = |name: &str| read(self.root.path(&format!("/var/log/mail/{name}")));
        let daemon = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
        let last = |text: String| {
            text.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!(
            "SMTPSERVER\n{}\nROUTER\n{}\nFILTER\n{}\n{}\nCHECKPOST\n{}",
            last(log("smtpserver")),
            last(log("router")),
            read(self.state.path().join("filter.log")),
            self.root.log(),
            last(daemon)
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

#[test]
fn every_answer_of_a_real_smtpserver_by_socket() {
    let Some(scene) = scene(Some(0)) else { return };
    cases::every_answer(&scene);
    cases::one_session(&scene);
}

#[test]
fn every_answer_of_a_real_smtpserver_by_program() {
    let Some(scene) = scene(Some(1)) else { return };
    cases::every_answer(&scene);
    cases::one_session(&scene);
}

#[test]
fn a_real_smtpserver_with_mail_in_chunks() {
    let Some(scene) = scene(Some(0)) else { return };
    let mut client = scene.client(STRANGER);
    let mut send = |subject: &str| {
        let told = client.envelope(SENDER, &[ALICE]).unwrap();
        assert!(told.recipients[0].1.is_positive(), "{told:?}");
        let text = message(subject, "text").replace('\n', "\r\n");
        let (head, tail) = text.as_bytes().split_at(30);
        client.write(&[format!("BDAT {}\r\n", head.len()).as_bytes(), head].concat()).unwrap();
        assert_eq!(client.answer().unwrap().code, 250);
        client.write(&[format!("BDAT {} LAST\r\n", tail.len()).as_bytes(), tail].concat()).unwrap();
        without_id(&client.answer().unwrap().to_string())
    };
    assert!(send("clean").starts_with("250 2.0.0 "));
    assert_eq!(send("no thanks"), "550 5.7.0 Content-Policy reject msg: No thanks");
    assert_eq!(send("come later"), "451 4.7.5 Content-Policy reject msg: Not now");
    assert!(send("new body").starts_with("250 2.0.0 "));
    let delivered = scene.delivered(2);
    assert_eq!(delivered.len(), 2, "{}", scene.said());
    // Routed side by side, they arrive in any order.
    let changed = delivered.iter().find(|(_, text)| text.contains("Subject: new body\n")).unwrap();
    assert_eq!(cases::body(&changed.1), "It was taken away.");
}

#[test]
fn a_real_smtpserver_without_a_daemon_and_without_a_filter() {
    let Some(mut scene) = scene(Some(0)) else { return };
    let refused = "550 5.7.0 Content-Policy reject msg: No thanks";
    let reply = |scene: &Scene| scene.session(&[mail("no thanks", &[ALICE])]).remove(0);
    assert_eq!(reply(&scene), refused);
    scene.daemon.take().unwrap().kill().unwrap();
    assert_eq!(reply(&scene), LATER);
    scene.start_daemon();
    assert_eq!(reply(&scene), refused);
    assert_eq!(scene.mailbox("alice").len(), 0);
    // The filter itself killed: ZMailer lets mail pass, in a new session and in one that had asked it.
    let mut open = scene.client(STRANGER);
    let text = message("no thanks", "text").replace('\n', "\r\n");
    let ask = |client: &mut Client| client.mail(SENDER, &[ALICE], text.as_bytes()).unwrap().last().code;
    assert_eq!(ask(&mut open), 550);
    scene.shell("kill -9 $(pidof checkpost-zmailer)");
    scene.wait("its end", || scene.root.command("pidof").arg("checkpost-zmailer").output().unwrap().stdout.is_empty());
    assert_eq!((ask(&mut open), reply(&scene).as_str()), (250, "250 2.0.0 accepted"));
    // Started again it is asked again, by the same smtpserver.
    scene.serve();
    scene.wait("the filter", || reply(&scene) == refused);
    assert_eq!(ask(&mut open), 550, "the open session, too");
}

#[test]
fn a_real_smtpserver_ignores_a_socket_without_its_bits_and_takes_no_word_of_it() {
    let Some(scene) = scene(Some(0)) else { return };
    let reply = |scene: &Scene| scene.session(&[mail("no thanks", &[ALICE])]).remove(0);
    fs::set_permissions(scene.root.path("/run/checkpost-zmailer/filter.sock"), PermissionsExt::from_mode(0o660))
        .unwrap();
    scene.restart("/opt/zmailer/lib/zmailer smtpserver");
    assert_eq!(reply(&scene), "250 2.0.0 accepted");
    // Undone, and done again: the same as before.
    let plan = setup::plans().remove(0);
    let conf = || fs::read_to_string(scene.root.path("/opt/zmailer/share/smtpserver.conf")).unwrap();
    let with = conf();
    scene.restart(plan.steps[1].undo.as_ref().unwrap());
    assert!(!conf().contains("\nPARAM contentfilter ") && !conf().starts_with("PARAM contentfilter "));
    scene.shell(plan.steps[1].run.as_ref().unwrap());
    assert_eq!(conf(), with);
    fs::set_permissions(scene.root.path("/run/checkpost-zmailer/filter.sock"), PermissionsExt::from_mode(0o700))
        .unwrap();
    scene.restart("/opt/zmailer/lib/zmailer smtpserver");
    assert_eq!(reply(&scene), "550 5.7.0 Content-Policy reject msg: No thanks");
}

#[test]
fn a_real_smtpserver_filters_relay_clients_once_the_policy_says_so() {
    let Some(scene) = scene(Some(0)) else { return };
    let reply = || scene.session_from(CUSTOMER, &[mail("no thanks", &[ALICE])]).remove(0);
    assert_eq!(reply(), "250 2.0.0 accepted", "by default it is not asked about own clients");
    let plan = setup::plans().remove(0);
    let policy = plan.steps.iter().find(|step| step.run.is_none()).unwrap();
    let (_, line) = policy.lines.unwrap();
    let add = |entry: &str| {
        scene.shell(&format!(
            "cd /opt/zmailer/var/db; sed -i 's/^\\({entry}[[:space:]].*[^[:space:]]\\)[[:space:]]*\\(=[[:space:]]*[^[:space:]]*\\)$/\\1 {line} \\2/' smtp-policy.src; \
             grep -q '^{entry}.*{}' smtp-policy.src; /opt/zmailer/lib/policy-builder.sh -n",
            line.replace('+', "[+]")
        ));
    };
    add("_default_ipaddr");
    assert_eq!(reply(), "250 2.0.0 accepted", "in one of the two alone it does nothing");
    add("_full_rights");
    assert_eq!(reply(), "550 5.7.0 Content-Policy reject msg: No thanks");
    assert_eq!(scene.session(&[mail("no thanks", &[ALICE])]), ["550 5.7.0 Content-Policy reject msg: No thanks"]);
}

#[test]
fn many_sessions_of_a_real_smtpserver_at_once() {
    for recipe in [0, 1] {
        let Some(scene) = scene(Some(recipe)) else { return };
        std::thread::scope(|threads| {
            for number in 0..24 {
                let scene = &scene;
                threads.spawn(move || {
                    let (subject, code) =
                        [("no thanks", "550"), ("come later", "451"), ("new field", "250")][number % 3];
                    let told = scene.session(&vec![mail(subject, &[ALICE]); 2]);
                    assert!(told.iter().all(|reply| reply.starts_with(code)), "{told:?} {}", scene.said());
                });
            }
        });
        // Each is there once. ZMailer's scheduler may miss the word of one and come to it a minute later.
        scene.wait("16 mails", || scene.mailbox("alice").len() + scene.queued() == 16);
    }
}
