//! The way by a program: what it needs beside its entries. What was checked comes back by sendmail(1) and pickup(8), so
//! nothing there may send it round again.

use checkpost_setup::{Answers, Change, Found, Limit, Obstacle, Plan, Socket, Span, What};

use super::conf::{Conf, seconds};
use super::list;

const SETTINGS: &str = "/etc/checkpost/pipe.conf";

/// What the program may take: the daemon's answer, then sendmail(1).
const SPANS: &[Span] = &[Span { key: "check_time", file: Some(SETTINGS), default: 120 }];
/// For sendmail(1) on a busy host, in seconds.
const MARGIN: u64 = 60;

/// Adds what is missing.
pub(super) fn plan(conf: &Conf<'_>, plan: &mut Plan, found: &Found, answers: &Answers) -> Result<(), Obstacle> {
    if let Some(instance) = &found.instance {
        return Err(Obstacle::new(
            format!("checkpost-pipe hands mail back to the first instance, and {instance} is another"),
            "take postfix-milter or one of the proxy ways for this instance",
        ));
    }
    let pickup = conf.option("pickup/unix", "content_filter")?.unwrap_or_default();
    if !pickup.is_empty() {
        return Err(Obstacle::new(
            format!(
                "pickup in master.cf has content_filter={pickup}: mail that was checked would be filtered again there"
            ),
            "take postfix-milter, or take that option out",
        ));
    }
    // postdrop(1) asks this of whoever submits mail; a static: table says yes to anyone, nothing at all to nobody.
    let users = conf.value("authorized_submit_users")?;
    if !users.starts_with("static:") && !list::has_word(&users, "checkpost") {
        return Err(Obstacle::new(
            format!(
                "authorized_submit_users is {users:?}: who knows whether checkpost may hand mail back by sendmail(1)"
            ),
            "let it begin with checkpost: postconf -e \"authorized_submit_users=checkpost, $(postconf -hx authorized_submit_users)\"",
        ));
    }
    plan.prepare.push(Change {
        why: "pipe(8) starts it for each mail".into(),
        what: What::Program { name: "checkpost-pipe".into(), path: "/usr/bin/checkpost-pipe".into(), mode: 0o755 },
    });
    plan.prepare.extend(Change::when_down(conf.look, SETTINGS, answers.closed())?);
    plan.sockets = vec![Socket { address: "unix:/run/checkpost/pipe.sock".into(), user: Some("checkpost".into()) }];
    // Of the transport's own name; where it is not set, command_time_limit counts (pipe(8)).
    for name in ["checkpost_time_limit", "command_time_limit"] {
        if let Some(seconds) = seconds(&conf.value(name)?) {
            plan.limits.push(Limit { name: name.into(), seconds, spans: SPANS, margin: MARGIN });
            break;
        }
    }
    let settings = conf.look.text(SETTINGS)?.unwrap_or_default();
    plan.limits.push(Limit::of_program(SETTINGS, &settings, "check_time", 120, 5));
    let milters = conf.value("non_smtpd_milters")?;
    if !milters.is_empty() {
        plan.notes.push(format!(
            "non_smtpd_milters is {milters}: what Checkpost hands back passes there too, so mail from outside is seen twice by \
             a milter that is in both lists. One that signs would sign it as this host's own"
        ));
    }
    plan.notes.push(
        "Mail of programs on this host is not checked by this way: it comes in where checked mail comes back.".into(),
    );
    Ok(())
}
