//! Proves that mail is filtered: mails through the real MTA, what became of each, and what happens without the daemon.
//! It changes nothing but that it stops the daemon for a moment, if that is wanted.

mod smtp;

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use checkpost_core::abilities::Refusal;
use checkpost_setup::{Found, Method, Plan, Submission};

use crate::machine::Machine;
use crate::service::Service;
use crate::signals::Signals;

/// For an MTA that restarts, a queue, a log.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a log is looked at while a line is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What is to be proved, of what.
#[derive(Debug)]
pub struct Prove<'a> {
    /// The machine.
    pub machine: &'a Machine<'a>,
    /// Its MTA.
    pub found: &'a Found,
    /// How Checkpost gets its mail.
    pub method: &'a Method,
    /// What the plug-in says of sockets and submission.
    pub plan: &'a Plan,
    /// Fail-closed, as chosen?
    pub closed: bool,
    /// Who gets the clean mails.
    pub to: String,
    /// Stop the daemon for a moment, to see what becomes of mail then.
    pub outage: bool,
    /// While the daemon is stopped, they wait.
    pub signals: &'a Signals,
    /// This program, for looks as another user.
    pub program: String,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Proof {
    /// What.
    pub what: String,
    /// Is it as it should be? `None`: it could not be tried.
    pub ok: Option<bool>,
    /// What was seen.
    pub seen: String,
}

/// One mail to try it.
struct Probe {
    /// In its subject.
    token: String,
    sender: String,
    /// In its closing lines.
    mark: String,
    /// So many closing lines with that were there before it.
    before: usize,
}

/// What became of it.
struct Fates {
    /// Each recipient's, as in the closing line.
    fates: String,
    /// Did it get through?
    through: bool,
    /// For people.
    seen: String,
}

impl Prove<'_> {
    /// Tries everything; `tell` hears of each at once.
    ///
    /// # Errors
    /// When something cannot be tried.
    pub fn all(&self, tell: &mut dyn FnMut(&Proof)) -> io::Result<bool> {
        let mut all_ok = true;
        let mut note = |proof: Proof| {
            tell(&proof);
            all_ok &= proof.ok != Some(false);
        };
        let service = Service::of(self.machine, true).map_err(io::Error::other)?;
        for socket in self.reach()? {
            note(socket);
        }
        let (eicar, gtube) = test_strings();
        let (clean, copies) = self.clean(service)?;
        note(clean);
        note(self.bad(service, "EICAR, the virus test", &eicar)?);
        note(self.bad(service, "GTUBE, the spam test", &gtube)?);
        if self.outage {
            note(self.without_daemon(service, copies > 0)?);
        }
        Ok(all_ok)
    }

    /// Can each socket be reached by the user whose process will connect?
    ///
    /// # Errors
    /// When that cannot be tried.
    pub fn reach(&self) -> io::Result<Vec<Proof>> {
        let mut proofs = Vec::new();
        for socket in &self.plan.sockets {
            let mut words: Vec<String> = Vec::new();
            let root = rustix::process::geteuid().is_root();
            if let Some(user) = socket.user.as_ref().filter(|_| root) {
                let (uid, gid) = self.machine.account(user)?;
                words.extend([
                    "setpriv".into(),
                    format!("--reuid={uid}"),
                    format!("--regid={gid}"),
                    "--init-groups".into(),
                ]);
            }
            words.extend([self.program.clone(), "reach".into(), socket.address.clone()]);
            let said = self.machine.tools.run(&words, 30)?;
            let ok = said.as_ref().is_some_and(checkpost_setup::Said::ok);
            let by = socket.user.as_deref().unwrap_or("anybody");
            let seen = if ok {
                "it answers".to_owned()
            } else {
                said.map_or("setpriv is missing".into(), |said| said.err.trim().to_owned())
            };
            proofs.push(Proof { what: format!("{} can be reached by {by}", socket.address), ok: Some(ok), seen });
        }
        Ok(proofs)
    }

    /// A clean mail, and how many copies of it were seen.
    fn clean(&self, service: Service) -> io::Result<(Proof, usize)> {
        let what = "a clean mail";
        let probe = self.probe(service)?;
        let told = self.submit(&probe, what, "a mail to prove that clean mail gets through")?;
        let proof = |ok, seen| Proof { what: what.to_owned(), ok: Some(ok), seen };
        let Some(Fates { fates, through, seen }) = self.fates(service, &probe, &told)? else {
            return Ok((proof(false, not_seen(&told)), 0));
        };
        if !through || !self.is_accepted(&told) {
            return Ok((proof(false, seen), 0));
        }
        // An alias that is expanded twice, or a loop, shows in copies, or in a second look at the same mail.
        let copies = self.copies(&probe.token)?;
        let looks = self.closing_lines(service, &probe, 1)?.len();
        let to = if fates.contains(&format!("<{}>", self.to)) { "" } else { "; the recipient was rewritten before" };
        let proof = match (copies, looks) {
            (1, 1) => proof(true, format!("{seen}; one copy was delivered{to}")),
            (0, 1) => proof(true, format!("{seen}; no copy was seen in a mailbox of this host{to}")),
            (1, _) if self.plan.forwards_anew => {
                proof(true, format!("{seen}; one copy was delivered, by a forward that was looked at, too{to}"))
            }
            _ => proof(false, format!("{seen}; but it was looked at {looks} times, and there are {copies} copies")),
        };
        Ok((proof, copies))
    }

    /// A mail that must not get through.
    fn bad(&self, service: Service, what: &str, body: &str) -> io::Result<Proof> {
        let probe = self.probe(service)?;
        let told = self.submit(&probe, what, body)?;
        let proof = |ok, seen| Ok(Proof { what: what.to_owned(), ok: Some(ok), seen });
        let Some(Fates { through, seen, .. }) = self.fates(service, &probe, &told)? else {
            return proof(false, not_seen(&told));
        };
        let refused = told.starts_with('5') || self.is_program();
        proof(!through && (refused || !self.in_session()), seen)
    }

    /// What Checkpost's closing line says of a mail. `None`: there is none. What is refused before Checkpost has seen it proves
    /// nothing.
    fn fates(&self, service: Service, probe: &Probe, told: &str) -> io::Result<Option<Fates>> {
        let lines = self.closing_lines(service, probe, 1)?;
        Ok(lines.first().map(|line| {
            let fates = line.split("fates=").nth(1).unwrap_or(line);
            let fates = fates.split(" size=").next().unwrap_or(fates);
            let seen = format!("the sender was told {told:?}; Checkpost: {fates}");
            Fates { fates: fates.to_owned(), through: is_through(fates), seen }
        }))
    }

    /// `visible`: copies of mails can be seen on this host.
    fn without_daemon(&self, service: Service, visible: bool) -> io::Result<Proof> {
        let what = format!("without the daemon, fail-{}", if self.closed { "closed" } else { "open" });
        let (Some(stop), Some(start)) = (service.command("stop"), service.command("start")) else {
            return Ok(Proof { what, ok: None, seen: "not tried: it is not known how to stop the daemon".into() });
        };
        let probe = self.probe(service)?;
        let token = &probe.token;
        let held = self.signals.hold();
        self.machine.change(&stop)?;
        let told = self.submit(&probe, "without the daemon", "a mail while the daemon is stopped");
        let copies = if self.closed { self.copies_now(token) } else { self.copies(token) };
        // Whatever was seen: it must run again.
        self.machine.change(&start)?;
        drop(held);
        self.signals.none_came()?;
        let (told, copies) = (told?, copies?);
        let accepted = self.is_accepted(&told);
        let seen = format!("the sender was told {told:?}");
        let proof = |ok, seen| Ok(Proof { what: what.clone(), ok: Some(ok), seen });
        if !self.closed {
            if accepted && visible && copies == 0 {
                return proof(false, format!("{seen}, but the mail was not delivered"));
            }
            return proof(accepted, format!("{seen}; mail passes UNSCANNED while Checkpost is down, as chosen"));
        }
        if accepted && copies > 0 {
            return proof(false, format!("{seen}, and the mail was DELIVERED unscanned"));
        }
        if !accepted || self.is_program() && self.in_session() {
            return proof(!told.starts_with('5'), seen);
        }
        if self.in_session() {
            return proof(false, format!("{seen}: it was taken without having been looked at"));
        }
        let mut lines = Vec::new();
        // A try that was under way when the daemon came back is not made again at once: so it is asked for more than once.
        for _ in 0..3 {
            for command in &self.plan.flush {
                self.machine.change(command)?;
            }
            lines = self.closing_lines(service, &probe, 1)?;
            if !lines.is_empty() {
                break;
            }
        }
        let through = lines.iter().any(|line| is_through(line));
        proof(through, format!("{seen}; it waited in the queue, and went on when the daemon was back: {through}"))
    }

    fn in_session(&self) -> bool {
        self.method.abilities.refusal == Refusal::InSession
    }

    fn is_program(&self) -> bool {
        matches!(self.plan.submission, Submission::Program { .. })
    }

    fn is_accepted(&self, told: &str) -> bool {
        told.starts_with('2')
    }

    /// A mail to be.
    fn probe(&self, service: Service) -> io::Result<Probe> {
        let token = token();
        if !self.plan.checks_senders {
            let domain = self.found.domain.as_deref().unwrap_or("localhost");
            let sender = format!("checkpost-probe-{token}@{domain}");
            return Ok(Probe { mark: token.clone(), token, sender, before: 0 });
        }
        // Without a sender of its own it is known by its time.
        let mark = format!("sender=<{}>", self.to);
        let before = self.lines_of(service, &mark)?.len();
        Ok(Probe { token, sender: self.to.clone(), mark, before })
    }

    /// The closing lines that have this in them.
    fn lines_of(&self, service: Service, mark: &str) -> io::Result<Vec<String>> {
        let log = service.log(self.machine).map_err(io::Error::other)?;
        let is = |line: &&str| line.contains("mail done") && line.contains(mark);
        Ok(log.lines().filter(is).map(str::to_owned).collect())
    }

    /// The closing lines of a probe, when there are `least`, or as many as there are after a while.
    fn closing_lines(&self, service: Service, probe: &Probe, least: usize) -> io::Result<Vec<String>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines_of(service, &probe.mark)?.into_iter().skip(probe.before).collect::<Vec<_>>();
            if lines.len() >= least || Instant::now() > end {
                return Ok(lines);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Copies of a probe in mailboxes, when there is one, or after a while.
    fn copies(&self, token: &str) -> io::Result<usize> {
        let end = Instant::now() + PATIENCE / 3;
        loop {
            let copies = self.copies_now(token)?;
            if copies > 0 || Instant::now() > end {
                return Ok(copies);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn copies_now(&self, token: &str) -> io::Result<usize> {
        let script = "grep -rlsF -- \"$0\" /var/mail /var/spool/mail/ /root/Maildir /home/*/Maildir /home/*/Mailbox \
                      /home/*/mail /var/lib/*/Maildir 2>/dev/null | while read -r f; do readlink -f \"$f\"; done | sort -u | \
                      while read -r f; do grep -cF -- \"Subject: Checkpost probe $0\" \"$f\"; done";
        let words = ["sh", "-c", script, token].map(str::to_owned);
        let said = self.machine.tools.run(&words, 60)?;
        let said = said.map(|said| said.out).unwrap_or_default();
        Ok(said.lines().filter_map(|count| count.trim().parse::<usize>().ok()).sum())
    }

    /// What the sender was told: the last reply, or of a program that it took it.
    fn submit(&self, probe: &Probe, what: &str, body: &str) -> io::Result<String> {
        let domain = self.found.domain.as_deref().unwrap_or("localhost");
        let Probe { token, sender, .. } = probe;
        let message = format!(
            "From: <{sender}>\r\nTo: <{}>\r\nSubject: Checkpost probe {token}\r\nMessage-Id: <{token}@{domain}>\r\n\
             X-Checkpost-Probe: {what}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n{body}\r\n",
            self.to
        );
        match &self.plan.submission {
            Submission::Smtp { address } => smtp::send(address, domain, sender, &self.to, &message),
            Submission::Program { command } => {
                let script = "printf '%s' \"$1\" | tr -d '\\r' | { shift; exec \"$@\"; }";
                let words = ["sh", "-c", script, "probe", &message].map(str::to_owned).into_iter();
                let words: Vec<String> =
                    words.chain(command.0.iter().cloned()).chain([sender.clone(), self.to.clone()]).collect();
                let said = self.machine.tools.run(&words, 120)?;
                let said = said.ok_or_else(|| io::Error::other(format!("{command}: no such program")))?;
                // As sysexits(3) and qmail have it.
                Ok(match said.code {
                    Some(0) => "250 taken".into(),
                    Some(75 | 111) => format!("451 {}", said.err.trim()),
                    code => format!("554 exit {code:?}: {}", said.err.trim()),
                })
            }
        }
    }
}

fn is_through(line: &str) -> bool {
    line.contains("> delivered (") || line.contains("> passed")
}

fn not_seen(told: &str) -> String {
    format!("the MTA said {told:?}, and Checkpost has not seen the mail")
}

/// Connects to a socket of ours, and says why that cannot be.
///
/// # Errors
/// When it cannot be reached.
pub fn reach(address: &str) -> io::Result<()> {
    match address.strip_prefix("unix:") {
        Some(path) => std::os::unix::net::UnixStream::connect(path).map(drop),
        None => TcpStream::connect(address).map(drop),
    }
}

/// In pieces, so that no scanner takes this program for one of them.
fn test_strings() -> (String, String) {
    let eicar = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", "-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"].concat();
    let gtube = ["XJS*C4JDBQADN1.NSBN3*2IDNEN", "*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat();
    (eicar, gtube)
}

/// One of its own for each probe.
fn token() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    format!("{time:x}-{:x}-{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_probes_are_alike() {
        assert_ne!(token(), token());
    }
}
