//! Postfix for `configure_mta`: what is there, and what of a recipe is missing. It looks with `postconf` and changes
//! with `postconf`, so `main.cf` and `master.cf` stay in Postfix's own hand.

use checkpost_setup::{
    Answers, Change, Choice, Command, Found, Look, LookError, Method, Mta, Obstacle, Owner, Plan, Question, Socket,
    Submission, WHEN_DOWN, What,
};

use super::{RECIPES, Step};

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

const METHODS: [Method; 3] = [
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
        abilities: crate::AFTER_QUEUE.abilities,
        questions: &[SCOPE, PORT, BACK_PORT],
    },
];

/// The milter's socket, from the queue directory.
const SOCKET: &str = "checkpost/milter.sock";

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
        if !look.exists("/etc/postfix/main.cf")? {
            return Ok(Vec::new());
        }
        let first = Conf::new(look, "/etc/postfix");
        let mut all = vec![found(&first, None)?];
        // postmulti(1): other instances have configuration folders of their own.
        for folder in first.value("multi_instance_directories")?.split([' ', ',', '\t']).filter(|word| !word.is_empty())
        {
            all.push(found(&Conf::new(look, folder), Some(folder))?);
        }
        Ok(all)
    }

    fn plan(&self, look: &dyn Look, found: &Found, method: &Method, answers: &Answers) -> Result<Plan, Obstacle> {
        let conf = Conf::new(look, found.instance.as_deref().unwrap_or("/etc/postfix"));
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
            activate: vec![conf.if_running("reload")],
            meanwhile: "Postfix is reloaded, not stopped: sessions that are open go on, and no mail is lost or refused"
                .into(),
            submission: Submission::Smtp { address: found.fact("address").unwrap_or("127.0.0.1:25").into() },
            ..Plan::default()
        };
        plan.flush = vec![conf.command("postqueue", &["-f"])];
        let (patience, least) = match method.kind {
            kind if kind == crate::MILTER.name => ("milter_content_timeout", 100),
            kind if kind == crate::BEFORE_QUEUE.name => ("smtpd_proxy_timeout", 95),
            _ => ("lmtp_data_done_timeout", 200),
        };
        let waits = conf.value(patience)?;
        if seconds(&waits).is_some_and(|seconds| seconds < least) {
            plan.warnings.push(format!(
                "{patience} is {waits}: Postfix gives up before Checkpost has to answer ({least}s); raise it, or lower \
                 check_timeout of the way"
            ));
        }
        if method.kind == crate::MILTER.name {
            milter(&conf, &mut plan, queue, &fronts, answers)?;
        } else {
            let outside = method.kind == crate::AFTER_QUEUE.name && answers.to(&SCOPE) == "outside";
            around(&conf, &mut plan, recipe.steps, &ports, &fronts, outside)?;
            plan.sockets = vec![Socket { address: ports.in_text("127.0.0.1:10025"), user: Some("postfix".into()) }];
        }
        if method.kind == crate::AFTER_QUEUE.name {
            // Queued mail carries the filter's name with it (FILTER_README).
            plan.settle = vec![conf.command("postsuper", &["-r", "ALL"])];
        }
        Ok(plan)
    }
}

/// The ports of a plan, in place of those of the recipe.
struct Ports<'a> {
    ours: &'a str,
    back: &'a str,
}

impl Ports<'_> {
    fn in_text(&self, text: &str) -> String {
        // By way of a port that is none, should one be the other's default.
        text.replace("127.0.0.1:10025", "127.0.0.1:OURS")
            .replace("127.0.0.1:10026", &format!("127.0.0.1:{}", self.back))
            .replace("127.0.0.1:OURS", &format!("127.0.0.1:{}", self.ours))
    }
}

fn found(conf: &Conf<'_>, instance: Option<&str>) -> Result<Found, LookError> {
    let mut found = Found { instance: instance.map(str::to_owned), ..Found::new("postfix") };
    let Some(version) = conf.run("postconf", &["-h", "mail_version"])? else {
        found.doubts.push("postconf cannot be run, so nothing can be said of this Postfix".into());
        return Ok(found);
    };
    found.version = Some(version.trim().to_owned());
    found.running = Some(conf.run("postfix", &["status"])?.is_some());
    found.knows("configuration", &*conf.folder);
    found.knows("queue directory", conf.value("queue_directory")?);
    let services = conf.run("postconf", &["-M"])?.unwrap_or_default();
    let services: Vec<Vec<&str>> = services.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
    let at_smtp = |service: &&Vec<&str>| {
        let port = service.first().map(|name| name.rsplit(':').next().unwrap_or(name));
        service.len() >= 8 && service[1] == "inet" && matches!(port, Some("smtp" | "25"))
    };
    let at_smtp: Vec<&Vec<&str>> = services.iter().filter(at_smtp).collect();
    let is = |command: &str| at_smtp.iter().any(|service| service[7] == command);
    let mut fronts: Vec<String> = Vec::new();
    for service in at_smtp.iter().filter(|service| service[7] == "smtpd") {
        fronts.push(format!("{}/inet", service[0]));
    }
    // Behind postscreen it is smtpd that talks to filters.
    if is("postscreen") {
        fronts.extend(
            services
                .iter()
                .filter(|s| s.len() >= 8 && s[1] == "pass" && s[7] == "smtpd")
                .map(|s| format!("{}/pass", s[0])),
        );
    }
    found.knows("postscreen", if is("postscreen") { "yes" } else { "no" });
    if fronts.is_empty() {
        found.doubts.push("master.cf has no smtpd at the SMTP port".into());
    }
    let front =
        services.iter().find(|s| s.len() >= 8 && fronts.iter().any(|front| *front == format!("{}/{}", s[0], s[1])));
    if let Some(front) = front {
        // postconf -M spells the default, "-", out as it stands: "n" since 3.0, with old compatibility levels "y".
        found.knows("smtpd chrooted", if front[4] == "y" { "yes" } else { "no" });
    }
    found.knows("smtp service", fronts.join(" "));
    let hosts: Vec<&str> =
        at_smtp.iter().filter_map(|service| service[0].rsplit_once(':').map(|(host, _)| host)).collect();
    if let Some(host) = hosts.first().filter(|_| hosts.len() == at_smtp.len()) {
        found.knows("address", format!("{host}:25"));
    }
    for name in ["smtpd_milters", "non_smtpd_milters"] {
        let items = tokens(&conf.value(name)?);
        found
            .filters
            .extend(items.into_iter().filter(|item| !item.contains(SOCKET)).map(|item| format!("{name}: {item}")));
    }
    let filter = conf.value("content_filter")?;
    if !filter.is_empty() && !filter.starts_with("checkpost:") {
        found.filters.push(format!("content_filter: {filter}"));
    }
    for line in conf.run("postconf", &["-P"])?.unwrap_or_default().lines() {
        let Some((name, value)) = line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            continue;
        };
        let (service, parameter) = name.rsplit_once('/').unwrap_or(("", name));
        let filters = ["smtpd_proxy_filter", "content_filter", "smtpd_milters"].contains(&parameter);
        if filters && !value.is_empty() && fronts.iter().any(|front| front == service) {
            found.filters.push(format!("{service}: {parameter}: {value}"));
        }
    }
    let destinations = conf.value("mydestination")?;
    let first = destinations.split([' ', ',', '\t']).find(|word| word.contains('.') && !word.contains(['/', ':']));
    found.domain = Some(first.map_or(conf.value("myhostname")?, str::to_owned));
    Ok(found)
}

/// Two lists and an action, in main.cf; what a service has of its own goes before.
fn milter(conf: &Conf<'_>, plan: &mut Plan, queue: &str, fronts: &[&str], answers: &Answers) -> Result<(), Obstacle> {
    let folder = format!("{queue}/checkpost");
    let [recipe, ..] = &RECIPES;
    let why = |wanted: &str| {
        recipe.steps.iter().find_map(|step| match step {
            Step::Append { name, why, .. } | Step::Main { name, why, .. } if *name == wanted => Some(*why),
            _ => None,
        })
    };
    plan.writes.push(folder.clone());
    plan.sockets.push(Socket { address: format!("unix:{folder}/milter.sock"), user: Some("postfix".into()) });
    let why_folder = "the milter's socket lies where Postfix's smtpd sees it, and only these two may use it";
    match conf.look.about(&folder)? {
        None => plan.prepare.push(Change {
            why: why_folder.into(),
            what: What::Folder { path: folder, owner: Owner::new("checkpost", "postfix"), mode: 0o2750 },
        }),
        Some(about) if about.mode == 0o2750 => {}
        Some(_) => {
            return Err(Obstacle::new(
                format!("{folder} is there and is not as it must be"),
                format!("install -d -o checkpost -g postfix -m 2750 {folder}"),
            ));
        }
    }
    let action = if answers.closed() { "tempfail" } else { "accept" };
    let set = conf.set()?;
    let has = |name: &str| set.iter().find(|(set, _)| set == name).map(|(_, value)| &**value);
    let smtpd = has("smtpd_milters").unwrap_or_default();
    let non_smtpd = has("non_smtpd_milters").unwrap_or_default();
    let others =
        tokens(smtpd).into_iter().chain(tokens(non_smtpd)).any(|item| !item.contains(SOCKET) && !item.starts_with('$'));
    // Others keep their action; the braces are of Postfix 3.0.
    let own_action = others || has("milter_default_action").is_some_and(|set| set != action);
    let item =
        if own_action { format!("{{ unix:{SOCKET}, default_action={action} }}") } else { format!("unix:{SOCKET}") };
    let mut words: Vec<String> = Vec::new();
    let mut reasons: Vec<&str> = Vec::new();
    let mut want = |name: &'static str, value: String| {
        if has(name) != Some(&value) {
            words.push(format!("{name}={value}"));
            reasons.extend(why(name));
        }
    };
    want("smtpd_milters", appended(smtpd, &item));
    if answers.to(&SCOPE) == "all" && !non_smtpd.contains("$smtpd_milters") && !non_smtpd.contains("${smtpd_milters}") {
        want("non_smtpd_milters", appended(non_smtpd, &item));
    }
    if !own_action {
        want("milter_default_action", action.into());
    }
    if !words.is_empty() {
        let mut why = reasons.join("; ");
        if !answers.closed() {
            why = why.replace(
                "while Checkpost does not answer, clients are told to try again; nothing goes through unscanned",
                "while Checkpost does not answer, mail goes through UNSCANNED, as was chosen",
            );
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        plan.changes.push(conf.edit("main.cf", &[&["-e"], &words[..]].concat(), &why));
    }
    for front in fronts {
        let own = conf.option(front, "smtpd_milters")?;
        let Some(own) = own.filter(|own| !own.contains(SOCKET)) else { continue };
        // postconf -P of Postfix 3.7 takes no blanks.
        if own.contains(char::is_whitespace) || own_action {
            return Err(Obstacle::new(
                format!("{front} in master.cf has its own smtpd_milters = {own}"),
                format!("add unix:{SOCKET} to it, or take the option out of master.cf"),
            ));
        }
        let comma = if own.is_empty() { "" } else { "," };
        let value = format!("{front}/smtpd_milters={own}{comma}unix:{SOCKET}");
        plan.changes.push(conf.edit("master.cf", &["-P", &value], "this service has a list of milters of its own"));
    }
    if others {
        plan.notes.push(
            "Milters are asked in the order of the list. Checkpost is last: behind one that verifies DKIM, which is right; \
             if one of the others signs, put Checkpost before it or let no rule edit what is signed."
                .into(),
        );
    }
    Ok(())
}

/// The recipe's services, options and parameters, where they are not there yet.
fn around(
    conf: &Conf<'_>,
    plan: &mut Plan,
    steps: &[Step],
    ports: &Ports<'_>,
    fronts: &[&str],
    outside: bool,
) -> Result<(), Obstacle> {
    if fronts.is_empty() {
        return Err(Obstacle::new(
            "master.cf has no smtpd at the SMTP port",
            "take postfix-milter, or say more in master.cf",
        ));
    }
    let taken = |what: &str, value: &str| {
        Obstacle::new(
            format!("{what} is {value} already: another filter is in this place, and Postfix has one such place"),
            "take postfix-milter, which goes together with it, or take the other filter out first",
        )
    };
    for front in fronts {
        for parameter in ["smtpd_proxy_filter", "content_filter"] {
            let value = conf.option(front, parameter)?.unwrap_or_default();
            if !value.is_empty() && !value.contains(ports.ours) {
                return Err(taken(&format!("{parameter} of {front}"), &value));
            }
        }
    }
    let set = conf.set()?;
    let has = |name: &str| set.iter().find(|(set, _)| set == name).map(|(_, value)| &**value);
    for parameter in ["content_filter", "smtpd_proxy_filter"] {
        let value = has(parameter).unwrap_or_default();
        if !value.is_empty() && !value.starts_with("checkpost:") {
            return Err(taken(parameter, value));
        }
    }
    for step in steps {
        match step {
            Step::Service { service, entry, why } => {
                let (service, entry) = (ports.in_text(service), ports.in_text(entry));
                let there = conf.run("postconf", &["-M", &service])?.unwrap_or_default();
                let plain = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
                if plain(&there) == plain(&entry) {
                    continue;
                }
                if !there.trim().is_empty() {
                    return Err(Obstacle::new(
                        format!("master.cf has another service {service} already"),
                        "choose another port: --set back_port=…",
                    ));
                }
                if service.ends_with("/inet")
                    && ports.back.parse().is_ok_and(|port| conf.look.is_taken(port).unwrap_or(false))
                {
                    let why = format!("somebody listens at port {} already", ports.back);
                    return Err(Obstacle::new(why, "choose another: --set back_port=…"));
                }
                let words = format!("{service}={}", plain(&entry).join(" "));
                plan.changes.push(conf.edit("master.cf", &["-Me", &words], why));
            }
            Step::Option { name, value, why, .. } => {
                for front in fronts {
                    option(conf, plan, front, name, &ports.in_text(value), why)?;
                }
            }
            Step::Main { name, value, why } if outside => {
                for front in fronts {
                    option(conf, plan, front, name, &ports.in_text(value), why)?;
                }
            }
            Step::Main { name, value, why } | Step::Append { name, item: value, why } => {
                let (value, before) = (ports.in_text(value), has(name).unwrap_or_default());
                let is_list = *name == "receive_override_options" && !before.is_empty();
                if before == value || is_list && before.split([',', ' ']).any(|word| word == value) {
                    continue;
                }
                let value = if is_list { format!("{before}, {value}") } else { value };
                plan.changes.push(conf.edit("main.cf", &["-e", &format!("{name}={value}")], why));
            }
            Step::Reload => {}
        }
    }
    Ok(())
}

fn option(conf: &Conf<'_>, plan: &mut Plan, service: &str, name: &str, value: &str, why: &str) -> Result<(), Obstacle> {
    let there = conf.option(service, name)?;
    // A limit of the administrator's own stays.
    let keeps = there.is_some() && name == "smtpd_client_connection_count_limit";
    if there.as_deref() != Some(value) && !keeps {
        plan.changes.push(conf.edit("master.cf", &["-P", &format!("{service}/{name}={value}")], why));
    }
    Ok(())
}

/// A time of Postfix: a number and a letter.
fn seconds(time: &str) -> Option<u64> {
    let digits = time.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &time[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The items of a list of milters: words, or what is in braces.
fn tokens(list: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0_usize);
    for letter in list.chars().chain([' ']) {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && (letter.is_whitespace() || letter == ',') {
            if !item.is_empty() {
                items.push(std::mem::take(&mut item));
            }
        } else {
            item.push(letter);
        }
    }
    items
}

/// A list with our item in the place where it was, or at the end.
fn appended(list: &str, item: &str) -> String {
    let items = tokens(list);
    let mine = |other: &String| other.contains(SOCKET);
    match items.iter().find(|other| mine(other)) {
        Some(old) => list.replacen(&**old, item, 1),
        None if list.is_empty() => item.to_owned(),
        None => format!("{list} {item}"),
    }
}

/// One instance, asked by its own programs.
struct Conf<'a> {
    look: &'a dyn Look,
    folder: String,
}

impl<'a> Conf<'a> {
    fn new(look: &'a dyn Look, folder: &str) -> Self {
        Self { look, folder: folder.to_owned() }
    }

    /// What a program says; `None` if it is not there or does not end well.
    fn run(&self, program: &str, words: &[&str]) -> Result<Option<String>, LookError> {
        let said = self.look.run(&[&[program, "-c", &self.folder], words].concat())?;
        Ok(said.filter(checkpost_setup::Said::ok).map(|said| said.out))
    }

    /// A parameter's value as it counts.
    fn value(&self, name: &str) -> Result<String, LookError> {
        Ok(self.run("postconf", &["-hx", name])?.unwrap_or_default().trim().to_owned())
    }

    /// All parameters that main.cf sets, as written there.
    fn set(&self) -> Result<Vec<(String, String)>, LookError> {
        let text = self.run("postconf", &["-n"])?.unwrap_or_default();
        let pair =
            |line: &str| line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Ok(text.lines().filter_map(pair).collect())
    }

    /// An option of a service in master.cf.
    fn option(&self, service: &str, name: &str) -> Result<Option<String>, LookError> {
        let text = self.run("postconf", &["-P", &format!("{service}/{name}")])?.unwrap_or_default();
        Ok(text.lines().find_map(|line| line.split_once('=')).map(|(_, value)| value.trim().to_owned()))
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        Command::new([&[program, "-c", &self.folder], words].concat())
    }

    fn postfix(&self, word: &str) -> Command {
        self.command("postfix", &[word])
    }

    fn if_running(&self, word: &str) -> Command {
        let (status, run) = (self.postfix("status"), self.postfix(word));
        Command::shell(&format!("postfix {word}"), format!("if {status} 2> /dev/null; then {run}; fi"))
    }

    fn edit(&self, file: &str, words: &[&str], why: &str) -> Change {
        let path = format!("{}/{file}", self.folder);
        Change::run(self.command("postconf", words), &[&path], why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (time, expected) in
            [("300s", Some(300)), ("5m", Some(300)), ("1h", Some(3600)), ("20", Some(20)), ("x", None)]
        {
            assert_eq!(seconds(time), expected, "{time}");
        }
    }

    #[test]
    fn lists_of_milters_are_read_with_their_braces() {
        let list = "inet:127.0.0.1:8891, { unix:x y, default_action=accept } $more";
        assert_eq!(tokens(list), ["inet:127.0.0.1:8891", "{ unix:x y, default_action=accept }", "$more"]);
        assert_eq!(appended("", "ours"), "ours");
        assert_eq!(appended("a, b", "ours"), "a, b ours");
        assert_eq!(appended("a unix:checkpost/milter.sock, b", "{ new }"), "a { new }, b");
    }
}
