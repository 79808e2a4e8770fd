//! Disks that are full, or fill up while `configure_mta` works, on a real Postfix.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use checkpost_tests::Postfix;

use crate::host::{Host, same};

const MILTER: Option<&str> = Some("/var/spool/postfix/checkpost");

/// The configuration is on a disk of its own, of this many KiB beside what is in it.
fn with_a_small_disk(free: usize) -> Option<Host> {
    let host = Host::start(&Postfix::new(), MILTER)?;
    host.shell(&format!(
        "cp -a /etc/postfix /tmp/postfix; size=$(du -sk /etc/postfix | cut -f1); \
         mount -t tmpfs -o mode=755,size=$((size + {free}))k tmpfs /etc/postfix; cp -a /tmp/postfix/. /etc/postfix; rm -r /tmp/postfix"
    ));
    Some(host)
}

#[test]
fn without_room_on_the_disk_of_the_configuration_nothing_is_begun() {
    let Some(host) = with_a_small_disk(100) else { return };
    let before = host.snapshot();
    let said = host.expect(3, &["--yes"]);
    assert!(said.contains("take room on the disk") && said.contains("No space left on device"), "{said}");
    same(&before, &host.snapshot());
    host.flows_as_before();
}

#[test]
fn a_disk_that_fills_up_meanwhile_leaves_all_as_it_was() {
    let Some(host) = with_a_small_disk(600) else { return };
    let before = host.snapshot();
    // Somebody else takes all that is left, after each of the changes to Postfix.
    let mut rolled_back = 0;
    for at in 0.. {
        let mut run = host.root.command("/opt/checkpost/configure_mta");
        run.args(["apply", "postfix-before-queue", "--yes", "--no-prove"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = run.spawn().unwrap();
        let mut changes = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
            if line.starts_with("  .. run postconf") {
                if changes == at {
                    host.shell("dd if=/dev/zero of=/etc/postfix/filler bs=1k 2> /dev/null || true");
                }
                changes += 1;
            }
        }
        let code = child.wait().unwrap().code();
        host.shell("rm -f /etc/postfix/filler");
        match code {
            Some(3) => rolled_back += 1,
            Some(0) => drop(host.expect(0, &["undo", "--yes"])),
            other => panic!("{other:?} {}", host.said()),
        }
        same(&before, &host.snapshot());
        if changes <= at {
            break;
        }
    }
    assert!(rolled_back > 0);
    host.flows_as_before();
}
