//! A recipe's services, options and parameters in one instance, where they are not there yet: the ways around Postfix,
//! and the one by a program.

use checkpost_setup::{Obstacle, Plan};

use super::conf::{Conf, Set};
use super::{OVERRIDES, PLACES, Step, list};

/// One instance, and how the recipe is to be entered there.
pub(super) struct Steps<'a> {
    pub(super) conf: &'a Conf<'a>,
    pub(super) steps: &'static [Step],
    pub(super) ports: Ports<'a>,
    /// The services that talk to clients.
    pub(super) fronts: &'a [&'a str],
    /// What the recipe has in main.cf is for these services alone.
    pub(super) outside: bool,
}

/// The ports of a plan, in place of those of the recipe.
#[derive(Clone, Copy)]
pub(super) struct Ports<'a> {
    pub(super) ours: &'a str,
    pub(super) back: &'a str,
}

impl Ports<'_> {
    pub(super) fn in_text(self, text: &str) -> String {
        // By way of a port that is none, should one be the other's default.
        text.replace("127.0.0.1:10025", "127.0.0.1:OURS")
            .replace("127.0.0.1:10026", &format!("127.0.0.1:{}", self.back))
            .replace("127.0.0.1:OURS", &format!("127.0.0.1:{}", self.ours))
    }
}

impl Steps<'_> {
    /// Adds what is missing.
    pub(super) fn plan(&self, plan: &mut Plan) -> Result<(), Obstacle> {
        if self.fronts.is_empty() {
            return Err(Obstacle::new(
                "master.cf has no smtpd at the SMTP port",
                "take postfix-milter, or say more in master.cf",
            ));
        }
        let set = self.conf.set()?;
        self.places_are_free(&set)?;
        for step in self.steps {
            match step {
                Step::Service { service, entry, why } => self.service(plan, service, entry, why)?,
                Step::Option { name, value, why, .. } => self.option(plan, &set, name, value, why)?,
                Step::Main { name, value, why } if self.outside => self.option(plan, &set, name, value, why)?,
                Step::Main { name, value, why } | Step::Append { name, item: value, why } => {
                    self.parameter(plan, &set, name, value, why)?;
                }
                Step::Reload => {}
            }
        }
        Ok(())
    }

    /// No other filter is where ours is to be.
    fn places_are_free(&self, set: &Set) -> Result<(), Obstacle> {
        let taken = |what: &str, value: &str| {
            Obstacle::new(
                format!("{what} is {value} already: another filter is in this place, and Postfix has one such place"),
                "take postfix-milter, which goes together with it, or take the other filter out first",
            )
        };
        for place in PLACES {
            let (in_main, in_options) = (self.in_main(place), self.in_options(place));
            let value = set.has(place).unwrap_or_default();
            if !value.is_empty() && in_main.as_deref() != Some(value) {
                return Err(taken(place, value));
            }
            for front in self.fronts {
                match self.conf.option(front, place)? {
                    Some(value) if value.is_empty() && in_main.is_some() => {
                        return Err(Obstacle::new(
                            format!(
                                "{front} in master.cf has an empty {place} of its own, so its mail would not be checked"
                            ),
                            format!("take the option out: postconf -PX {front}/{place}"),
                        ));
                    }
                    Some(value) if !value.is_empty() && ![&in_main, &in_options].contains(&&Some(value.clone())) => {
                        return Err(taken(&format!("{place} of {front}"), &value));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What the recipe sets a parameter to in main.cf.
    fn in_main(&self, wanted: &str) -> Option<String> {
        self.steps.iter().find_map(|step| match step {
            Step::Main { name, value, .. } if *name == wanted && !self.outside => Some(self.ports.in_text(value)),
            _ => None,
        })
    }

    /// What the recipe sets a parameter to at the services that talk to clients.
    fn in_options(&self, wanted: &str) -> Option<String> {
        self.steps.iter().find_map(|step| match step {
            Step::Option { name, value, .. } if *name == wanted => Some(self.ports.in_text(value)),
            Step::Main { name, value, .. } if *name == wanted && self.outside => Some(self.ports.in_text(value)),
            _ => None,
        })
    }

    fn service(&self, plan: &mut Plan, service: &str, entry: &str, why: &str) -> Result<(), Obstacle> {
        let (service, entry) = (self.ports.in_text(service), self.ports.in_text(entry));
        let there = self.conf.run("postconf", &["-M", &service])?.unwrap_or_default();
        let plain = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if plain(&there) == plain(&entry) {
            return Ok(());
        }
        let is_port = service.ends_with("/inet");
        if !there.trim().is_empty() {
            let hint = if is_port { "choose another port: --set back_port=…" } else { "give that one another name" };
            return Err(Obstacle::new(format!("master.cf has another service {service} already"), hint));
        }
        let back = self.ports.back;
        if is_port && back.parse().is_ok_and(|port| self.conf.look.is_taken(port).unwrap_or(false)) {
            let why = format!("somebody listens at port {back} already");
            return Err(Obstacle::new(why, "choose another: --set back_port=…"));
        }
        let words = format!("{service}={}", plain(&entry).join(" "));
        plan.changes.push(self.conf.edit("master.cf", &["-Me", &words], why));
        Ok(())
    }

    /// An option of each service that talks to clients.
    fn option(&self, plan: &mut Plan, set: &Set, name: &str, value: &str, why: &str) -> Result<(), Obstacle> {
        let value = self.ports.in_text(value);
        for front in self.fronts {
            let there = self.conf.option(front, name)?;
            let is_set = there.as_deref().is_some_and(|there| match name {
                // A limit of the administrator's own stays.
                "smtpd_client_connection_count_limit" => true,
                OVERRIDES => list::has_word(there, &value),
                _ => there == value,
            });
            if is_set {
                continue;
            }
            let value = if name == OVERRIDES {
                // The option goes before what main.cf says, so that is said again.
                list::with_word(there.as_deref().or(set.has(name)).unwrap_or_default(), &value)
            } else {
                value.clone()
            };
            plan.changes.push(self.conf.edit("master.cf", &["-P", &format!("{front}/{name}={value}")], why));
        }
        Ok(())
    }

    /// A parameter in main.cf.
    fn parameter(&self, plan: &mut Plan, set: &Set, name: &str, value: &str, why: &str) -> Result<(), Obstacle> {
        let (value, before) = (self.ports.in_text(value), set.has(name).unwrap_or_default());
        if name != OVERRIDES {
            if before != value {
                plan.changes.push(self.conf.edit("main.cf", &["-e", &format!("{name}={value}")], why));
            }
            return Ok(());
        }
        if !list::has_word(before, &value) {
            let comma = if before.is_empty() { "" } else { ", " };
            let words = format!("{name}={before}{comma}{value}");
            plan.changes.push(self.conf.edit("main.cf", &["-e", &words], why));
        }
        // Where a service has the option itself, that of main.cf does not count there.
        let options = self.conf.options()?;
        let has_filter = |service: &str| options.iter().any(|(of, name, _)| of == service && name == "content_filter");
        for (service, parameter, own) in &options {
            if parameter == name && !has_filter(service) && !list::has_word(own, &value) {
                let words = format!("{service}/{name}={}", list::with_word(own, &value));
                plan.changes.push(self.conf.edit("master.cf", &["-P", &words], why));
            }
        }
        Ok(())
    }
}
