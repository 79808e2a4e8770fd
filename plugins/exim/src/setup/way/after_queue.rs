//! The ways after Exim's queue.

use checkpost_setup::{Change, Command, Obstacle, Socket, Span};

use super::Way;
use crate::setup::debian::listening;
use crate::setup::{OWN_ROUTER, UPDATE, WHY_LISTEN};

/// What was put off waits for its retry time, though it is routed anew: `-qf` does not ask for that. Frozen mail stays
/// (`-qff` would send it): some of it is in quarantine. Nobody waits for a long queue; a daemon that does not run shall not deliver.
const QUEUE: &str = "p=$(cat /run/exim4/exim.pid 2> /dev/null) && kill -0 \"$p\" 2> /dev/null || exit 0; \
                     exim4 -qf < /dev/null > /dev/null 2>&1 &";

/// What Checkpost may take while Exim waits.
const OF_TRANSPORT: &[Span] = &[Span::of_way("check_timeout", 90), Span::of_way("hop_final_timeout", 600)];
const OF_PIPE: &[Span] = &[Span { key: "check_time", file: Some(SETTINGS), default: 120 }];
/// The program's own.
const SETTINGS: &str = "/etc/checkpost/pipe.conf";

const ROUTED: &str = "exim4 -bV > /dev/null; exim4 -bP transport_list | grep -qx checkpost; \
                      exim4 -bP router_list | grep -qx checkpost";

impl Way<'_> {
    pub(in crate::setup) fn transport(&mut self) -> Result<(), Obstacle> {
        self.after_queue()?;
        for (option, name) in [("mail", "MAIL"), ("rcpt", "RCPT"), ("data", "DATA")] {
            self.uses(&format!("acl_smtp_{option}"), &format!("MAIN_ACL_CHECK_{name}"))?;
        }
        for name in ["acl_smtp_connect", "acl_smtp_helo", "acl_smtp_predata", "acl_smtp_mime", "acl_smtp_dkim"] {
            if let [set, ..] = self.debian.settings(name)[..] {
                let file = &set.line.file;
                self.plan
                    .notes
                    .push(format!("{file} sets {name}: it is asked once more when checked mail comes back."));
            }
        }
        for set in self.debian.settings("smtp_accept_max_per_host") {
            if set.value != "0" {
                self.plan.warnings.push(format!(
                    "smtp_accept_max_per_host is {}: it holds for 127.0.0.1, too, from where checked mail comes back",
                    set.value
                ));
            }
        }
        // As the recipe has it; Exim sends the mail once more when it has given up.
        self.waits("final_timeout of the transport", 900, OF_TRANSPORT, 10);
        if let Some((_, ours)) = self.ports.ours {
            self.takes(ours)?;
        }
        if let Some((_, back)) = self.ports.back {
            self.plan.sockets.push(Socket { address: format!("127.0.0.1:{back}"), user: Some("checkpost".into()) });
        }
        Ok(())
    }

    pub(in crate::setup) fn pipe(&mut self) -> Result<(), Obstacle> {
        self.after_queue()?;
        self.connects("unix:/run/checkpost/pipe.sock");
        self.program("checkpost-pipe", "/usr/bin/checkpost-pipe", 0o755, "the program that Exim starts for each mail");
        self.plan.prepare.extend(Change::when_down(self.look, SETTINGS, self.answers.closed())?);
        // Then the mail is handed back.
        self.waits("timeout of the transport", 900, OF_PIPE, 100);
        self.plan.notes.push(
            "When the program cannot be started, or a signal ends it, Exim freezes the mail and tells postmaster. An undo leaves \
             such mail frozen: `exiqgrep -z -i` lists it, `exim4 -Mt ID` releases one."
                .into(),
        );
        if let [set, ..] = self.debian.settings("acl_not_smtp")[..] {
            let file = &set.line.file;
            self.plan.notes.push(format!("{file} sets acl_not_smtp: it is asked when checked mail comes back."));
        }
        Ok(())
    }

    /// One more address, in Debian's list.
    pub(in crate::setup) fn listen(&mut self) -> Result<(), Obstacle> {
        let Some((_, back)) = self.ports.back else { return Ok(()) };
        let address = format!("127.0.0.1.{back}");
        let hint = format!("have Exim listen at {address} as well: add it to that list");
        let options = self.look.text("/etc/default/exim4")?.unwrap_or_default();
        let is_list =
            |line: &&str| line.trim().starts_with("SMTPLISTENEROPTIONS=") && line.contains("-oX") && line.contains('.');
        if let Some(line) = options.lines().find(is_list).filter(|line| !line.contains(&address)) {
            return Err(Obstacle::new(
                format!("/etc/default/exim4 says {:?}, and Debian's list does not count", line.trim()),
                hint,
            ));
        }
        let sets = ["MAIN_LOCAL_INTERFACES", "local_interfaces"].iter().flat_map(|name| self.debian.settings(name));
        let others: Vec<_> = sets.filter(|set| set.value != "MAIN_LOCAL_INTERFACES").collect();
        if let [set, ..] = others[..] {
            if set.value.contains(&address) {
                return Ok(());
            }
            let why = format!("{} says {:?}, and Debian's list does not count", set.line.file, set.line.text);
            return Err(Obstacle::new(why, hint));
        }
        self.uses("local_interfaces", "MAIN_LOCAL_INTERFACES")?;
        if self.debian.dc("dc_eximconfig_configtype") == Some("none") {
            return Err(Obstacle::new(
                format!("dc_eximconfig_configtype in {UPDATE} is none, and Debian's list does not count"),
                "set MAIN_LOCAL_INTERFACES in /etc/exim4/exim4.conf.localmacros",
            ));
        }
        let text = self.edits.text(UPDATE)?.to_owned();
        let new = listening(&text, &address).map_err(|why| Obstacle::new(format!("{UPDATE}: {why}"), hint))?;
        if new != text {
            self.is_free(back, "back_port")?;
        }
        self.edits.makes_part(&address);
        self.edits.set(UPDATE, new, &self.ports.in_text(WHY_LISTEN))
    }

    /// What both ways after the queue have.
    fn after_queue(&mut self) -> Result<(), Obstacle> {
        if let Some(line) = self.debian.says("cutthrough_delivery") {
            return Err(Obstacle::new(
                format!(
                    "{} says {:?}: such mail never gets into the queue, and would not be checked",
                    line.file, line.text
                ),
                "take that line out, or take exim-rspamd, which is asked in the session",
            ));
        }
        if let Some(line) = self.debian.earlier_router(OWN_ROUTER) {
            self.plan.warnings.push(format!(
                "the router {} in {} comes before Checkpost's: what it takes is NOT checked; give its file a number above 050",
                line.text.trim_end_matches(':'),
                line.file
            ));
        }
        self.plan.check.push(Command::shell("Exim reads it", ROUTED));
        // Mail in the queue has no trace of us and is routed anew at each try, but for its retry times.
        self.plan.settle.push(Command::shell("try waiting mail again", QUEUE));
        self.plan.flush.push(Command::shell("try waiting mail again", QUEUE));
        self.plan.meanwhile =
            "Exim is started anew: for about a second clients cannot connect and try again; mail that is in its queue \
                               goes through Checkpost, too, when it is tried next"
                .into();
        Ok(())
    }
}
