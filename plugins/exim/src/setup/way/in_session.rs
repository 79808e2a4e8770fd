//! The ways that are asked in Exim's session: by local_scan, and by the DATA ACL.

use checkpost_setup::{Change, Found, Obstacle, Owner, Span, What};

use super::Way;
use crate::setup::acl::DATA_MACRO;
use crate::setup::local_scan::LIBRARY;
use crate::setup::time::seconds;

/// The library's own.
const SETTINGS: &str = "/etc/checkpost/exim.conf";

/// What Checkpost may take while Exim waits.
const OF_LOCAL_SCAN: &[Span] = &[Span { key: "check_time", file: Some(SETTINGS), default: 90 }];
const OF_ACL: &[Span] = &[Span::of_way("check_timeout", 90)];

impl Way<'_> {
    pub(in crate::setup) fn local_scan(&mut self) -> Result<(), Obstacle> {
        self.connects("unix:/run/checkpost/exim.sock");
        self.in_force("local_scan_path", LIBRARY);
        self.notes_held();
        self.plan.prepare.extend(Change::when_down(self.look, SETTINGS, self.answers.closed())?);
        if let Some(line) = self.debian.says("cutthrough_delivery") {
            self.plan.warnings.push(format!(
                "{} says {:?}: such mail is handed on before it is checked, and what is said of it then comes too late",
                line.file, line.text
            ));
        }
        let set = self.debian.settings("local_scan_timeout").first().and_then(|set| seconds(set.value));
        // 0: no limit.
        if set != Some(0) {
            self.waits("local_scan_timeout", set.unwrap_or(300), OF_LOCAL_SCAN, 10);
        }
        Ok(())
    }

    /// It is there before Exim is told of it, and goes when Exim has been told otherwise: without it all mail is put off.
    pub(in crate::setup) fn library(&mut self) -> Result<(), Obstacle> {
        if !self.look.exists("/usr/lib/exim4/local_scan")? {
            let what = What::Folder { path: "/usr/lib/exim4/local_scan".into(), owner: Owner::root(), mode: 0o755 };
            self.plan.prepare.push(Change { why: "where Exim finds such libraries".into(), what });
        }
        self.program(
            "libcheckpost_exim_local_scan.so",
            LIBRARY,
            0o644,
            "the library that Exim loads for each mail, complete before it has its name",
        );
        Ok(())
    }

    pub(in crate::setup) fn clamd(&mut self, found: &Found) -> Result<(), Obstacle> {
        let address = self.asked(found)?;
        self.in_force("av_scanner", &format!("clamd:{address}"));
        Ok(())
    }

    pub(in crate::setup) fn spamd(&mut self, found: &Found) -> Result<(), Obstacle> {
        let address = self.asked(found)?;
        self.in_force("spamd_address", &address);
        Ok(())
    }

    pub(in crate::setup) fn rspamd(&mut self, found: &Found) -> Result<(), Obstacle> {
        let address = self.asked(found)?;
        self.in_force("spamd_address", &format!("{address} variant=rspamd"));
        self.notes_held();
        Ok(())
    }

    /// What the three ways by the DATA ACL have; our address, as Exim writes it.
    fn asked(&mut self, found: &Found) -> Result<String, Obstacle> {
        if found.fact("content scanning") != Some("yes") {
            return Err(Obstacle::new(
                "this Exim has no content scanning",
                "apt install exim4-daemon-heavy, or take exim-local-scan",
            ));
        }
        let in_it = "take exim-local-scan, or put `.include /etc/exim4/checkpost_check_data` into that ACL by hand";
        if let [set, ..] = self.debian.settings("MAIN_ACL_CHECK_DATA")[..] {
            let why = format!("{} says {:?}, so Debian's own ACL is not asked", set.line.file, set.line.text);
            return Err(Obstacle::new(why, in_it));
        }
        self.uses("acl_smtp_data", "MAIN_ACL_CHECK_DATA")?;
        if self.debian.says(&format!(".include {DATA_MACRO}")).is_none() {
            return Err(Obstacle::new(format!("the ACL acl_check_data does not ask for {DATA_MACRO}"), in_it));
        }
        // Its default; after it there is no answer.
        self.waits("Exim's time for a scanner", 120, OF_ACL, 10);
        let port = self.ports.ours.map(|(_, port)| port).unwrap_or_default();
        self.takes(port)?;
        Ok(format!("127.0.0.1 {port}"))
    }
}
