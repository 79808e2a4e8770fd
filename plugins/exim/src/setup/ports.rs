//! The ports of a plan, in place of those of the recipes.

use checkpost_setup::{Answers, Method, Obstacle};

use super::methods::BACK_PORT;

/// The ports of a plan, in place of those of the recipe.
pub(super) struct Ports<'a> {
    /// Of the recipe, and as answered.
    pub(super) ours: Option<(&'a str, &'a str)>,
    pub(super) back: Option<(&'a str, &'a str)>,
}

impl<'a> Ports<'a> {
    pub(super) fn of(method: &'a Method, answers: &'a Answers) -> Result<Self, Obstacle> {
        let one = |key: &str| {
            let question = method.questions.iter().find(|question| question.key == key);
            question.map(|question| (question.default, answers.to(question)))
        };
        let ports = Self { ours: one("port"), back: one(BACK_PORT.key) };
        let all = || ports.ours.iter().chain(&ports.back).map(|(_, port)| *port);
        for port in all() {
            if port.parse::<u16>().map_or(true, |number| number == 0) {
                return Err(Obstacle::new(format!("{port:?} is no port"), "a number from 1 to 65535"));
            }
        }
        if ports.back.is_some_and(|(_, back)| all().next() == Some(back)) {
            return Err(Obstacle::new("port and back_port are the same", "choose two"));
        }
        Ok(ports)
    }

    pub(super) fn in_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // By way of a port that is none, should one be the other's default.
        for (i, (default, _)) in self.ours.iter().chain(&self.back).enumerate() {
            text = text.replace(default, &format!("PORT{i}"));
        }
        for (i, (_, port)) in self.ours.iter().chain(&self.back).enumerate() {
            text = text.replace(&format!("PORT{i}"), port);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::methods::METHODS;
    use crate::transport::TRANSPORT;

    #[test]
    fn ports_are_put_in_even_if_they_change_places() {
        let method = METHODS.iter().find(|method| method.name == TRANSPORT.name).unwrap();
        let mut answers = Answers::default();
        answers.0.extend([("port".into(), "10026".into()), ("back_port".into(), "10025".into())]);
        let ports = Ports::of(method, &answers).unwrap();
        assert_eq!(ports.in_text("10025 10026 10025"), "10026 10025 10026");
        answers.0.insert("port".into(), "10025".into());
        assert!(Ports::of(method, &answers).is_err());
        answers.0.insert("port".into(), "0".into());
        assert!(Ports::of(method, &answers).is_err());
    }
}
