//! `--root`: a whole system in a folder, set up before it is ever started.

use checkpost_tests::Postfix;

use crate::host::{Host, same};

const SYSTEM: &str = "/srv/system";

/// A copy of the root's own system, which does not run.
fn copied(host: &Host) {
    host.shell(&format!(
        "mkdir -p {SYSTEM}; cd /; for folder in bin etc home lib lib64 opt root sbin srv tmp usr var; do \
         [ ! -e $folder ] || [ $folder = srv ] || cp -a --one-file-system $folder {SYSTEM}; done; \
         mkdir {SYSTEM}/proc {SYSTEM}/dev {SYSTEM}/run; rm -f {SYSTEM}/var/spool/postfix/pid/*"
    ));
}

#[test]
fn a_system_in_a_folder_is_set_up_and_taken_back() {
    let Some(host) = Host::start(&Postfix::new(), Some("/var/spool/postfix/checkpost")) else { return };
    host.shell("mkdir -p /srv/empty");
    let nothing = host.expect(1, &["detect", "--root", "/srv/empty"]);
    assert!(nothing.contains("no mail server was found") && nothing.contains("smtp-proxy"), "{nothing}");
    copied(&host);
    let (outside, before) = (host.snapshot(), host.snapshot_below(SYSTEM));
    let said = host.expect(0, &["--root", SYSTEM, "--yes"]);
    assert!(said.contains("all is in place") && !said.contains("Proof"), "{said}");
    let again = host.expect(0, &["apply", "--root", SYSTEM, "--yes"]);
    assert!(again.contains("Nothing is to be done"), "{again}");
    host.expect(0, &["check", "--root", SYSTEM]);
    // The unit is on in there; the system around it is what it was.
    let on = host.shell(&format!("systemctl --root={SYSTEM} is-enabled checkpost"));
    assert_eq!(on.trim(), "enabled");
    let milters = host.shell(&format!("postconf -h -c {SYSTEM}/etc/postfix smtpd_milters"));
    assert_eq!(milters.trim(), "unix:checkpost/milter.sock");
    same(&outside, &host.snapshot());
    host.expect(0, &["undo", "--root", SYSTEM, "--yes"]);
    same(&before, &host.snapshot_below(SYSTEM));
}
