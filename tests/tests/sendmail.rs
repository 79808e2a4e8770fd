//! Sendmail's configuration as it is shipped: the lines that the program prints and the README shows.
//! What the milter does there is in `milter/`.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use checkpost_sendmail::setup;
use checkpost_tests::mock_mta::Wire;
use checkpost_tests::{Daemon, Root, Sendmail, mails, program};

const SENDER: &str = "sender@example.net";
const ALICE: &str = "alice@example.test";

#[test]
fn sendmail_entries_that_are_shipped_work() {
    for plan in setup::plans() {
        let Some(root) = Root::start_or_skip(&Sendmail::new()) else { return };
        let shell = |run: &str| {
            let output = root.command("sh").args(["-ec", run]).output().unwrap();
            assert!(output.status.success(), "{run}: {output:?}");
        };
        for step in &plan.steps {
            if let Some((_, lines)) = step.lines {
                let file = root.path(step.file.unwrap());
                let text = std::fs::read_to_string(&file).unwrap();
                let (before, mailers) = text.split_once("MAILER(").unwrap();
                std::fs::write(&file, format!("{before}{lines}\nMAILER({mailers}")).unwrap();
                // The README's look at the result.
                shell(
                    "m4 /etc/mail/sendmail.mc > /tmp/sendmail.cf && sendmail -C /tmp/sendmail.cf -bt < /dev/null && \
                     grep '^Xcheckpost' /tmp/sendmail.cf",
                );
            }
            if let Some(run) = &step.run {
                // There is no systemd in the root; this is what its unit does.
                shell(&run.replace("systemctl reload sendmail", "kill -HUP $(head -1 /run/sendmail/mta/sendmail.pid)"));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = root.shared().join("milter/milter.sock");
        let way = plan.checkpost_toml.replace("/run/checkpost/milter.sock", &socket.display().to_string());
        let config = format!("[daemon]\nstate = \"{}/state\"\n\n{way}", folder.path().display());
        let ready = || Wire::unix(&socket).is_ok_and(|mut wire| wire.negotiates());
        let daemon = Daemon::start_when(Command::new(program("checkpostd")), folder.path(), &config, ready).unwrap();
        let said = || format!("{}\n{}", root.log(), daemon.log());
        assert!(root.wait_log("restarting /usr/sbin/sendmail", std::time::Duration::from_secs(30)), "{}", said());
        // Until the new one listens, the old one is gone.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while root.connect(25).is_err() {
            assert!(std::time::Instant::now() < end, "{}", said());
            std::thread::yield_now();
        }
        let infected = mails::with_attachment(SENDER, ALICE, "x", "a.zip", &mails::eicar_in_nested_zip());
        let told = root.send(SENDER, &[ALICE], &infected).unwrap();
        assert_eq!(told.last().code, 550, "{told:?} {}", said());
        let clean = mails::plain(SENDER, ALICE, "clean", "text\n");
        assert!(root.send(SENDER, &[ALICE], &clean).unwrap().accepted(), "{}", said());
        assert_eq!(root.wait_mailbox("alice", 1, std::time::Duration::from_secs(30)).len(), 1, "{}", said());
    }
}
