//! Several Postfixes on one host (postmulti(1)): one of them is set up, and the others do not notice.

use checkpost_tests::Told;

use crate::host::{ALICE, Host, SENDER, SOON, clean, infected, same};
use crate::postfix::{MILTER, postfix};

const SECOND: &str = "127.0.0.2:25";

/// A second one, at an address of its own, with its own queue.
const MAKE: &str = "ip address add 127.0.0.2/8 dev lo; postmulti -e init; postmulti -I postfix-out -e create; cd /etc/postfix-out; \
    postconf -c . -e master_service_disable= authorized_submit_users=static:anyone inet_interfaces=127.0.0.2 \
        inet_protocols=ipv4 myhostname=out.example.test mydomain=example.test myorigin=example.test \
        'mydestination=out.example.test, example.test' home_mailbox=Maildir/ mailbox_command= alias_maps=hash:/etc/aliases \
        disable_dns_lookups=yes smtp_host_lookup=native minimal_backoff_time=1s queue_run_delay=1s \
        compatibility_level=3.6 syslog_name=postfix-out; \
    postmulti -i postfix-out -e enable; /usr/lib/postfix/configure-instance.sh postfix-out; \
    postconf -e inet_interfaces=127.0.0.1; postfix stop || true; postfix start";

fn host() -> Option<Host> {
    let host = Host::start(&postfix(), MILTER)?;
    host.shell(MAKE);
    Some(host)
}

impl Host {
    fn send_to_second(&self, mail: &[u8]) -> Told {
        let stream = self.root.in_network(|| std::net::TcpStream::connect(SECOND)).unwrap();
        checkpost_tests::send(stream, SENDER, &[ALICE], mail).unwrap()
    }
}

#[test]
fn each_instance_is_found() {
    let Some(host) = host() else { return };
    let said = host.expect(0, &["detect"]);
    assert_eq!(said.matches("Postfix 3.").count(), 2, "{said}");
    assert!(said.contains("instance /etc/postfix-out, running"), "{said}");
    assert!(said.contains("queue directory: /var/spool/postfix-out"), "{said}");
    assert!(said.contains("address: 127.0.0.2:25"), "probes must go to the right one: {said}");
    // Who is not root cannot tell whether it runs.
    let output = host.root.command_as("alice", "/opt/checkpost/configure_mta").arg("detect").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("instance /etc/postfix-out\n") && !said.contains("running"), "{said}");
}

#[test]
fn only_the_second_is_set_up_and_taken_back() {
    for way in ["postfix-milter", "postfix-before-queue", "postfix-after-queue"] {
        let Some(host) = host() else { return };
        let before = host.snapshot();
        let of_first = host.shell("postconf -n; postconf -Mf");
        let words = ["apply", way, "--yes", "--set", "mta=postfix:/etc/postfix-out", "--set", "to=staff@example.test"];
        let said = host.expect(0, &words);
        assert!(said.contains("Mail is filtered."), "{said}\n{}", host.said());
        assert_eq!(host.shell("postconf -n; postconf -Mf"), of_first);
        host.expect(0, &["check"]);
        assert_eq!(host.send_to_second(&infected()).accepted(), way == "postfix-after-queue", "{}", host.said());
        // The first goes on as ever.
        let count = host.root.mailbox("alice").len();
        assert!(host.send(&infected()).accepted(), "{}", host.said());
        assert_eq!(host.root.wait_mailbox("alice", count + 1, SOON).len(), count + 1, "{}", host.said());
        host.expect(0, &["undo", "--yes"]);
        same(&before, &host.snapshot());
        let count = host.root.mailbox("alice").len();
        assert!(host.send_to_second(&infected()).accepted() && host.send_to_second(&clean()).accepted());
        assert_eq!(host.root.wait_mailbox("alice", count + 2, SOON).len(), count + 2, "{}", host.said());
        host.flows_as_before();
    }
}

#[test]
fn what_only_the_first_can_do_is_refused_for_the_second() {
    let Some(host) = host() else { return };
    let before = host.snapshot();
    let said = host.expect(1, &["apply", "postfix-pipe", "--yes", "--set", "mta=postfix:/etc/postfix-out"]);
    assert!(said.contains("hands mail back to the first instance"), "{said}");
    same(&before, &host.snapshot());
}

/// The second is set up when the first has been taken back; nothing is half of each.
#[test]
fn a_second_instance_is_refused_while_the_first_is_set_up() {
    let Some(host) = host() else { return };
    host.expect(0, &["apply", "--yes", "--no-prove"]);
    let before = host.snapshot();
    let said = host.expect(1, &["apply", "--yes", "--no-prove", "--set", "mta=postfix:/etc/postfix-out"]);
    assert!(said.contains("is set up already"), "{said}");
    same(&before, &host.snapshot());
}
