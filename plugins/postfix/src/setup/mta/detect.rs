//! What there is of Postfix: its instances, who talks to clients in each, and which filters are in the path.

use checkpost_setup::{Found, Look, LookError};

use super::conf::{Conf, FIRST};
use super::{PLACES, SOCKET, TRANSPORT, list};

/// One for each instance.
pub(super) fn all(look: &dyn Look) -> Result<Vec<Found>, LookError> {
    if !look.exists("/etc/postfix/main.cf")? {
        return Ok(Vec::new());
    }
    let first = Conf::new(look, FIRST);
    let mut all = vec![one(&first, None)?];
    let others = first.value("multi_instance_directories")?;
    for folder in others.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        all.push(one(&Conf::new(look, folder), Some(folder))?);
    }
    Ok(all)
}

fn one(conf: &Conf<'_>, instance: Option<&str>) -> Result<Found, LookError> {
    let mut found = Found { instance: instance.map(str::to_owned), ..Found::new("postfix") };
    let Some(version) = conf.run("postconf", &["-h", "mail_version"])? else {
        found.doubts.push("postconf cannot be run, so nothing can be said of this Postfix".into());
        return Ok(found);
    };
    found.version = Some(version.trim().to_owned());
    found.running = running(conf)?;
    found.knows("configuration", &*conf.folder);
    found.knows("queue directory", conf.value("queue_directory")?);
    let fronts = doors(conf, &mut found)?;
    filters(conf, &fronts, &mut found)?;
    let destinations = conf.value("mydestination")?;
    let first = destinations.split([' ', ',', '\t']).find(|word| word.contains('.') && !word.contains(['/', ':']));
    found.domain = Some(first.map_or(conf.value("myhostname")?, str::to_owned));
    Ok(found)
}

/// postfix(1) answers root alone, and refuses others with the code of "not running".
fn running(conf: &Conf<'_>) -> Result<Option<bool>, LookError> {
    let runs = conf.run("postfix", &["status"])?.is_some();
    let user = conf.look.run(&["id", "-u"])?;
    let is_root = user.is_none_or(|user| user.out.trim() == "0");
    Ok((runs || is_root).then_some(runs))
}

/// The services that talk to clients at the SMTP port.
fn doors(conf: &Conf<'_>, found: &mut Found) -> Result<Vec<String>, LookError> {
    let services = conf.services()?;
    let port = |name: &str| name.rsplit(':').next().unwrap_or(name).to_owned();
    let at_smtp = |service: &&Vec<String>| service[1] == "inet" && matches!(&*port(&service[0]), "smtp" | "25");
    let at_smtp: Vec<&Vec<String>> = services.iter().filter(at_smtp).collect();
    let mut smtpd: Vec<&Vec<String>> = at_smtp.iter().copied().filter(|service| service[7] == "smtpd").collect();
    let postscreen = at_smtp.iter().any(|service| service[7] == "postscreen");
    if postscreen {
        // postscreen(8) looks at a client and passes it on; it is smtpd that talks to filters.
        smtpd.extend(services.iter().filter(|service| service[1] == "pass" && service[7] == "smtpd"));
    }
    let fronts: Vec<String> = smtpd.iter().map(|service| format!("{}/{}", service[0], service[1])).collect();
    found.knows("postscreen", if postscreen { "yes" } else { "no" });
    match smtpd.first() {
        None => found.doubts.push("master.cf has no smtpd at the SMTP port".into()),
        // postconf -M spells the default, "-", out as it stands: "n" since 3.0, with old compatibility levels "y".
        Some(service) => found.knows("smtpd chrooted", if service[4] == "y" { "yes" } else { "no" }),
    }
    found.knows("smtp service", fronts.join(" "));
    let own = |service: &&Vec<String>| service[0].rsplit_once(':').map(|(host, _)| host.to_owned());
    let hosts: Vec<String> = at_smtp.iter().filter_map(own).collect();
    let host = if hosts.len() == at_smtp.len() { hosts.into_iter().next() } else { interface(conf)? };
    if let Some(host) = host {
        found.knows("address", format!("{host}:25"));
    }
    Ok(fronts)
}

/// Where services listen that name no address; `None`: on loopback, too.
fn interface(conf: &Conf<'_>) -> Result<Option<String>, LookError> {
    let interfaces = conf.value("inet_interfaces")?;
    let mut words = list::words(&interfaces);
    let first = words.next().unwrap_or("all");
    let loopback = ["all", "loopback-only", "localhost", "127.0.0.1"];
    let has_loopback = loopback.contains(&first) || words.any(|word| loopback.contains(&word));
    let host = if first.contains(':') && !first.starts_with('[') { format!("[{first}]") } else { first.to_owned() };
    Ok((!has_loopback).then_some(host))
}

/// Filters of others.
fn filters(conf: &Conf<'_>, fronts: &[String], found: &mut Found) -> Result<(), LookError> {
    let mut milters = |of: &str, value: &str| {
        let others = list::milters(value).into_iter().filter(|item| !item.contains(SOCKET));
        found.filters.extend(others.map(|item| format!("{of}: {item}")));
    };
    for name in ["smtpd_milters", "non_smtpd_milters"] {
        milters(name, &conf.value(name)?);
    }
    let options = conf.options()?;
    let of_fronts = || options.iter().filter(|(service, ..)| fronts.contains(service));
    for (service, parameter, value) in of_fronts().filter(|(_, parameter, _)| parameter == "smtpd_milters") {
        milters(&format!("{service}: {parameter}"), value);
    }
    let ours = |value: &str| value.is_empty() || value.starts_with(TRANSPORT);
    for place in PLACES {
        let filter = conf.value(place)?;
        if !ours(&filter) {
            found.filters.push(format!("{place}: {filter}"));
        }
    }
    for (service, parameter, value) in of_fronts() {
        if PLACES.contains(&&**parameter) && !ours(value) {
            found.filters.push(format!("{service}: {parameter}: {value}"));
        }
    }
    Ok(())
}
