//! A root in which the driver's smtpserver and router are where ZMailer's would be, with configuration files of the same
//! form, for what changes these and restarts those.

use std::fs;
use std::io;
use std::path::Path;

use crate::root::Builder;
use crate::{Queue, Recipe, Root};

pub(super) const OFFICE: &str = "/var/spool/postoffice";
pub(super) const SHARE: &str = "/opt/zmailer/share";

/// As the real one, `mail.example.test`; alice, bob, and staff, who is alice.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandIn;

impl StandIn {
    /// Its root, not started yet. `program`: the stand-in, `stub-zmailer`.
    pub fn root(program: &Path) -> Builder<'static> {
        Root::of(&StandIn).bind(program.parent().unwrap_or(program), "/lab/stand-ins")
    }
}

impl Recipe for StandIn {
    fn name(&self) -> &'static str {
        "zmailerdriver"
    }

    fn script(&self) -> &'static str {
        include_str!("../recipes/zmailerdriver.sh")
    }

    fn setup(&self) -> Vec<(&'static str, String)> {
        vec![("smtpserver.conf", SMTPSERVER_CONF.into()), ("process.cf", PROCESS_CF.into())]
    }

    fn queue(&self) -> Queue {
        Queue {
            waiting: &["/var/spool/postoffice/public/", "/var/spool/postoffice/router/"],
            held: &["/var/spool/postoffice/freezer/"],
            ..Queue::default()
        }
    }
}

/// As an administrator finds it: a filter in a comment, the line of its copies, too.
const SMTPSERVER_CONF: &str = "# global parameters\nPARAM  enable-router    # interactive\n\
                               #PARAM  contentfilter   $MAILBIN/smtp-contentfilter\n#PARAM  contentfilter-maxpar 2  # 1 .. 20\n\
                               *                    * ftveR\n";

/// The two cases for files as they ship, and the one for what is none.
const PROCESS_CF: &str = "process (file) {\n\n#| for each file\n\tdb flush\n\n\tcase \"$file\" in\n#\t[0-9]*.x400)\tx400 \"$file\" ;;\n\
                          \t[A-Z]/[0-9]*)\trfc822 \"$file\" ;;\n\t[0-9]*)\t\trfc822 \"$file\" ;;\n\
                          \t*)\t\t/bin/mv \"$file\" ../freezer/\"$file\"\n\t\t\treturn\n\t\t\t;;\n\tesac\n}\n\nprovide process\n";

/// `$POSTOFFICE/.pid.PART`, whole when it is there.
pub(super) fn write_pid(part: &str) -> io::Result<()> {
    let (path, new) = (format!("{OFFICE}/.pid.{part}"), format!("{OFFICE}/.new.{part}"));
    fs::write(&new, format!("{}\n", std::process::id()))?;
    fs::rename(new, path)
}
