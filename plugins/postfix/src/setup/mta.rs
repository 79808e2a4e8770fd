//! Postfix for `configure_mta`: what is there, and what of a recipe is missing. It looks with `postconf` and changes
//! with `postconf`.

mod conf;
mod detect;
mod list;
mod milter;
mod pipe;
mod steps;

use checkpost_core::Abilities;
use checkpost_core::abilities::Replies;
use checkpost_setup::{
    Answers, Choice, Found, Limit, Look, LookError, Method, Mta, Obstacle, Plan, Question, Socket, Span, Submission,
    WHEN_DOWN,
};

use super::{RECIPES, Step};
use conf::{Conf, FIRST, seconds};
use steps::{Ports, Steps};

/// The plug-in's Postfix.
#[derive(Debug)]
pub struct Postfix;

const SCOPE: Question = Question {
    key: "scope",
    ask: "Whose mail goes through Checkpost?",
    choices: &[
        Choice { value: "all", about: "all mail, that of programs on this host included" },
        Choice { value: "outside", about: "only what comes in at the SMTP port" },
    ],
    default: "all",
};

const PORT: Question =
    Question { key: "port", ask: "Which port of 127.0.0.1 does Checkpost take?", choices: &[], default: "10025" };

const BACK_PORT: Question = Question {
    key: "back_port",
    ask: "At which port of 127.0.0.1 does Postfix take checked mail back?",
    choices: &[],
    default: "10026",
};

const METHODS: [Method; 4] = [
    Method {
        name: "postfix-milter",
        kind: crate::MILTER.name,
        about: crate::MILTER.about,
        when_down: "as chosen: clients are told to try again later, or mail passes unscanned",
        abilities: crate::MILTER.abilities,
        questions: &[WHEN_DOWN, SCOPE],
    },
    Method {
        name: "postfix-before-queue",
        kind: crate::BEFORE_QUEUE.name,
        about: crate::BEFORE_QUEUE.about,
        when_down: "clients are told to try again later (451)",
        abilities: crate::BEFORE_QUEUE.abilities,
        questions: &[PORT, BACK_PORT],
    },
    Method {
        name: "postfix-after-queue",
        kind: crate::AFTER_QUEUE.name,
        about: crate::AFTER_QUEUE.about,
        when_down: "mail stays in Postfix's queue and is tried again",
        // The recipe's way speaks LMTP.
        abilities: Abilities { replies: Replies::PerRecipient, ..crate::AFTER_QUEUE.abilities },
        questions: &[SCOPE, PORT, BACK_PORT],
    },
    Method {
        name: "postfix-pipe",
        kind: crate::PIPE.name,
        about: crate::PIPE.about,
        when_down: "as chosen: mail stays in Postfix's queue and is tried again, or it passes unscanned",
        abilities: crate::PIPE.abilities,
        questions: &[WHEN_DOWN],
    },
];

/// The milter's socket, from the queue directory.
const SOCKET: &str = "checkpost/milter.sock";

/// Of the places where a filter can be, beside the lists of milters, Postfix has one of each.
const PLACES: [&str; 2] = ["content_filter", "smtpd_proxy_filter"];

/// A list of words to which several may add, and by which a service can do without milters.
const OVERRIDES: &str = "receive_override_options";

/// What content_filter begins with when it is ours: the transport's name.
const TRANSPORT: &str = "checkpost:";

/// The daemon has to answer a milter by then; see [`crate::MILTER_DEFAULTS`].
const OF_MILTER: &[Span] = &[Span::of_way("check_timeout", 90)];
const OF_BEFORE: &[Span] = &[Span::of_way("check_timeout", 45), Span::of_way("hop_final_timeout", 45)];
const OF_AFTER: &[Span] = &[Span::of_way("check_timeout", 90), Span::of_way("hop_final_timeout", 600)];

impl Mta for Postfix {
    fn name(&self) -> &'static str {
        "postfix"
    }

    fn title(&self) -> &'static str {
        "Postfix"
    }

    fn methods(&self) -> &'static [Method] {
        &METHODS
    }

    fn detect(&self, look: &dyn Look) -> Result<Vec<Found>, LookError> {
        detect::all(look)
    }

    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let conf = Conf::new(look, found.instance.as_deref().unwrap_or(FIRST));
        if found.version.is_none() {
            return Err(Obstacle::new(
                "postconf cannot be run",
                "Postfix's own programs are needed to change its files",
            ));
        }
        let recipe = RECIPES.iter().find(|recipe| recipe.kind == method.kind);
        let recipe = recipe.ok_or_else(|| Obstacle::new("no such recipe", "see configure_mta detect"))?;
        let ports = Ports { ours: answers.to(&PORT), back: answers.to(&BACK_PORT) };
        for port in [ports.ours, ports.back] {
            if port.parse::<u16>().is_err() {
                return Err(Obstacle::new(format!("{port:?} is no port"), "a number from 1 to 65535"));
            }
        }
        let fronts: Vec<&str> = found.fact("smtp service").unwrap_or_default().split_ascii_whitespace().collect();
        let queue = found.fact("queue directory").unwrap_or("/var/spool/postfix");
        let mut plan = Plan {
            way: ports.in_text(recipe.way).replace("/var/spool/postfix", queue),
            check: vec![conf.postfix("check")],
            activate: vec![conf.reload(queue)],
            flush: vec![conf.command("postqueue", &["-f"])],
            meanwhile: "Postfix is reloaded, not stopped: sessions that are open go on, and no mail is lost or refused"
                .into(),
            submission: Submission::Smtp { address: found.fact("address").unwrap_or("127.0.0.1:25").into() },
            ..Plan::default()
        };
        if method.kind == crate::MILTER.name {
            milter::plan(&conf, &mut plan, queue, &fronts, answers)?;
            plan.limits.extend(in_main(&conf, "milter_content_timeout", OF_MILTER)?);
            return Ok(plan);
        }
        let outside = method.kind == crate::AFTER_QUEUE.name && answers.to(&SCOPE) == "outside";
        Steps { conf: &conf, steps: recipe.steps, ports, fronts: &fronts, outside }.plan(&mut plan)?;
        if method.kind == crate::PIPE.name {
            pipe::plan(&conf, &mut plan, found, answers)?;
        } else {
            plan.sockets = vec![Socket { address: ports.in_text("127.0.0.1:10025"), user: Some("postfix".into()) }];
        }
        if method.kind == crate::BEFORE_QUEUE.name {
            plan.limits.extend(in_main(&conf, "smtpd_proxy_timeout", OF_BEFORE)?);
        } else {
            // Queued mail carries the filter's name with it (FILTER_README).
            plan.settle = vec![conf.command("postsuper", &["-r", "ALL"])];
        }
        if method.kind == crate::AFTER_QUEUE.name {
            let time = in_service(recipe.steps, DATA_DONE).and_then(seconds);
            plan.limits.extend(time.map(|seconds| limit(DATA_DONE, seconds, OF_AFTER)));
        }
        Ok(plan)
    }
}

/// How long the LMTP client waits for the answer to a whole mail.
const DATA_DONE: &str = "lmtp_data_done_timeout";

/// An option of a service of the recipe's own, which is entered as it stands.
fn in_service(steps: &'static [Step], name: &str) -> Option<&'static str> {
    steps.iter().find_map(|step| match step {
        Step::Service { entry, .. } => {
            entry.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        }
        _ => None,
    })
}

/// A time in main.cf.
fn in_main(conf: &Conf<'_>, name: &str, spans: &'static [Span]) -> Result<Option<Limit>, LookError> {
    Ok(seconds(&conf.value(name)?).map(|seconds| limit(name, seconds, spans)))
}

/// Checkpost has to answer so early that the answer arrives.
fn limit(name: &str, seconds: u64, spans: &'static [Span]) -> Limit {
    Limit { name: name.into(), seconds, spans, margin: 5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_take_the_places_of_the_recipes() {
        let swapped = Ports { ours: "10026", back: "10025" };
        assert_eq!(swapped.in_text("127.0.0.1:10025 127.0.0.1:10026"), "127.0.0.1:10026 127.0.0.1:10025");
    }

    #[test]
    fn the_times_of_a_way_are_those_of_its_defaults() {
        let [(_, before), (_, after)] = crate::kinds();
        let spans = |spans: &[Span]| spans.iter().map(|span| span.default).collect::<Vec<_>>();
        let times = |way: checkpost_smtp::Defaults| [way.check_timeout.as_secs(), way.hop_final_timeout.as_secs()];
        assert_eq!(spans(OF_BEFORE), times(before));
        assert_eq!(spans(OF_AFTER), times(after));
        let after = RECIPES.iter().find(|recipe| recipe.kind == crate::AFTER_QUEUE.name).unwrap();
        assert_eq!(in_service(after.steps, DATA_DONE), Some("1200s"));
    }
}
