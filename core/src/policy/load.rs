//! From written rules to rules with all names resolved; what cannot be is a problem.

use std::sync::Arc;

use crate::config::{AddressSet, Document, Lists, Located, Network, OneOrMany, Place, Problem, Problems};
use crate::edit::{Edit, HeaderField, HeaderName, HeaderText};
use crate::mail::Address;

use super::condition::{Addresses, Condition, FindingTest, HeaderAsks, HeaderTest, Networks};
use super::rule::{Actions, Fate, Rule, TextEdit};
use super::text::{Say, Template};
use super::unscanned::WhenUnscanned;
use super::written;
use super::{DEFAULT_RULES, DEFAULT_RULES_NAME, Policy, reach};

/// What rules may name.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The enabled filters, each with what becomes of mail it did not scan.
    pub filters: &'a [(Arc<str>, WhenUnscanned)],
    /// The enabled ways' names.
    pub ways: &'a [&'a str],
    /// The lists.
    pub lists: &'a Lists,
}

pub(super) fn load(document: &mut Document, names: &Names<'_>, problems: &mut Problems) -> Policy {
    if !document.has("rule") {
        document.add(std::path::Path::new(DEFAULT_RULES_NAME), DEFAULT_RULES, problems);
    }
    let mut rules = Vec::new();
    for (index, item) in document.take_items("rule", problems).into_iter().enumerate() {
        let place = item.place().clone();
        let before = problems.len();
        // What is right of a rule is checked further, so that all its problems are told.
        let Some(written) = item.finish_partly::<written::Rule>(problems) else { continue };
        let complete = problems.len() == before;
        let mut loader = Loader { names, problems, path: format!("rule[{index}]"), complete };
        let rule = loader.rule(written, index, place);
        if problems.len() == before {
            rules.push(rule);
        }
    }
    reach::check(&rules, problems);
    Policy { rules: rules.into(), unscanned: names.filters.into() }
}

struct Loader<'a> {
    names: &'a Names<'a>,
    problems: &'a mut Problems,
    path: String,
    /// Was the rule read without leaving anything out?
    complete: bool,
}

impl Loader<'_> {
    fn rule(&mut self, written: written::Rule, index: usize, place: Place) -> Rule {
        let name = match written.name {
            Some(Located { value, place }) => {
                let shown = value.chars().all(|c| (' '..='~').contains(&c)) && !value.starts_with('<');
                if value.trim().is_empty() || !shown {
                    let problem = Problem::at(&place, format!("{}.name", self.path), "not a name for logs and replies");
                    self.problems.push(problem.hint("accepted: printable ASCII that does not begin with \"<\""));
                }
                value
            }
            None => format!("rule {}", index + 1),
        };
        let when = written.when.map_or_else(Vec::new, |when| self.conditions(when, "when", &place));
        let then = self.actions(written.then, &when);
        let (varying, fixed) = when.into_iter().partition(Condition::varies);
        Rule { name: name.into(), place, index, fixed, varying, then }
    }

    fn problem(&mut self, place: &Place, key: &str, message: impl Into<String>) -> &mut Self {
        self.problems.push(Problem::at(place, format!("{}.{key}", self.path), message));
        self
    }

    /// An empty list would never hold, which nobody means.
    fn some<T>(&mut self, written: Option<Located<OneOrMany<T>>>, key: &str) -> Option<Vec<T>> {
        let Located { value: OneOrMany(values), place } = written?;
        if values.is_empty() {
            self.problem(&place, key, "an empty list never holds; leave the key out instead");
        }
        Some(values)
    }

    fn conditions(&mut self, when: written::When, path: &str, place: &Place) -> Vec<Condition> {
        let key = |name: &str| format!("{path}.{name}");
        let mut all = Vec::new();
        let place = when.finding.as_ref().map_or(place, |finding| &finding.place).clone();
        let test = FindingTest {
            kinds: self.some(when.finding, &key("finding")).unwrap_or_default().iter().map(|kind| kind.0).collect(),
            names: self.some(when.name, &key("name")).unwrap_or_default(),
            classes: self.some(when.class, &key("class")).unwrap_or_default(),
            filters: self.filters(when.filter, &key("filter")),
            reasons: self.some(when.unscanned, &key("unscanned")).unwrap_or_default().iter().map(|r| r.0).collect(),
        };
        if !test.reasons.is_empty() && !test.kinds.is_empty() && !test.kinds.contains(&"unscanned") {
            self.problem(
                &place,
                &key("finding"),
                "never holds together with \"unscanned\", which is a kind of its own",
            );
        }
        if test != FindingTest::default() {
            all.push(Condition::Finding(test));
        }
        if let Some(ranges) = self.some(when.score, &key("score")) {
            all.push(Condition::Score(ranges.into_iter().map(|range| range.0).collect()));
        }
        if let Some(ways) = self.some(when.way, &key("way")) {
            all.push(Condition::Way(self.ways(ways, &key("way"))));
        }
        if let Some(classes) = self.some(when.origin, &key("origin")) {
            all.push(Condition::Origin(classes));
        }
        if let Some(written) = self.some(when.sender, &key("sender")) {
            all.push(Condition::Sender(self.addresses(written, &key("sender"))));
        }
        if let Some(written) = self.some(when.recipient, &key("recipient")) {
            all.push(Condition::Recipient(self.addresses(written, &key("recipient"))));
        }
        if let Some(written) = self.some(when.client, &key("client")) {
            all.push(Condition::Client(self.networks(written, &key("client"))));
        }
        if let Some(patterns) = self.some(when.helo, &key("helo")) {
            all.push(Condition::Helo(patterns));
        }
        all.extend(when.authenticated.map(Condition::Authenticated));
        if let Some(ranges) = self.some(when.size, &key("size")) {
            all.push(Condition::Size(ranges.into_iter().map(|range| range.0).collect()));
        }
        if let Some(tests) = self.some(when.header, &key("header")) {
            let tests = tests.into_iter().filter_map(|test| self.header(test, &key("header"))).collect();
            all.push(Condition::Header(tests));
        }
        if let Some(branches) = when.all {
            for branch in self.branches(branches, &key("all")) {
                match branch {
                    Condition::All(conditions) => all.extend(conditions),
                    other => all.push(other),
                }
            }
        }
        if let Some(branches) = when.any {
            all.push(Condition::Any(self.branches(branches, &key("any"))));
        }
        if let Some(not) = when.not {
            let inner = self.conditions(*not, &key("not"), &place);
            if inner.is_empty() {
                self.problem(&place, &key("not"), "an empty table always holds, so its opposite never does");
            }
            all.push(Condition::Not(Box::new(together(inner))));
        }
        all
    }

    fn branches(&mut self, written: Located<Vec<written::When>>, path: &str) -> Vec<Condition> {
        if written.value.is_empty() {
            self.problem(&written.place, path, "an empty list says nothing");
        }
        let mut branches = Vec::new();
        for (index, when) in written.value.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let conditions = self.conditions(when, &path, &written.place);
            if conditions.is_empty() {
                self.problem(&written.place, &path, "an empty table always holds");
            }
            branches.push(together(conditions));
        }
        branches
    }

    fn filters(&mut self, written: Option<Located<OneOrMany<Located<String>>>>, key: &str) -> Vec<String> {
        let mut names = Vec::new();
        for Located { value, place } in self.some(written, key).unwrap_or_default() {
            let known = self.names.filters.iter().map(|(name, _)| &**name);
            if !known.clone().any(|name| name == value) {
                let full = format!("{}.{key}", self.path);
                self.problems.push(Problem::unknown_name(&place, full, "filter", &value, known));
            }
            names.push(value);
        }
        names
    }

    fn ways(&mut self, written: Vec<Located<String>>, key: &str) -> Vec<String> {
        let mut names = Vec::new();
        for Located { value, place } in written {
            if !self.names.ways.contains(&value.as_str()) {
                let full = format!("{}.{key}", self.path);
                let known = self.names.ways.iter().copied();
                self.problems.push(Problem::unknown_name(&place, full, "way", &value, known));
            }
            names.push(value);
        }
        names
    }

    /// `@lists/NAME`: the list, or a problem.
    fn list(&mut self, text: &str, place: &Place, key: &str) -> Option<Option<Arc<crate::config::List>>> {
        let name = text.strip_prefix("@lists/")?;
        let list = self.names.lists.list(name).cloned();
        if list.is_none() {
            let full = format!("{}.{key}", self.path);
            self.problems.push(Problem::unknown_name(place, full, "list", name, self.names.lists.names()));
        }
        Some(list)
    }

    fn addresses(&mut self, written: Vec<Located<String>>, key: &str) -> Addresses {
        let mut addresses = Addresses::default();
        let mut own = AddressSet::default();
        for Located { value, place } in written {
            if let Some(list) = self.list(&value, &place, key) {
                addresses.lists.extend(list);
            } else if let Err(message) = own.insert(&value) {
                self.problem(&place, key, message);
            }
            addresses.written.push(value);
        }
        Addresses { own, ..addresses }
    }

    fn networks(&mut self, written: Vec<Located<String>>, key: &str) -> Networks {
        let mut networks = Networks::default();
        for Located { value, place } in written {
            if let Some(list) = self.list(&value, &place, key) {
                networks.all.extend(list.iter().flat_map(|list| &list.networks));
            } else {
                match value.parse::<Network>() {
                    Ok(network) => networks.all.push(network),
                    Err(message) => {
                        self.problem(&place, key, message);
                    }
                }
            }
            networks.written.push(value);
        }
        networks
    }

    fn header(&mut self, written: Located<written::Header>, key: &str) -> Option<HeaderTest> {
        let Located { value: written::Header { name, exists, matches, contains }, place } = written;
        if let Err(error) = HeaderName::new(&name) {
            self.problem(&place, &format!("{key}.name"), error.to_string());
            return None;
        }
        let asks = match (exists, matches.0, contains.0) {
            (None, matches, contains) if !matches.is_empty() && contains.is_empty() => HeaderAsks::Matches(matches),
            (None, matches, contains) if matches.is_empty() && !contains.is_empty() => {
                HeaderAsks::Contains(contains.iter().map(|piece| piece.to_ascii_lowercase()).collect())
            }
            (Some(exists), matches, contains) if matches.is_empty() && contains.is_empty() => {
                HeaderAsks::Exists(exists)
            }
            _ => {
                self.problem(&place, key, "exactly one of exists, matches and contains must be there");
                return None;
            }
        };
        Some(HeaderTest { name, asks })
    }

    fn actions(&mut self, written: Located<written::Then>, when: &[Condition]) -> Actions {
        let Located { value: then, place } = written;
        let mut actions = Actions { place: place.clone(), ..Actions::nothing(place.clone()) };
        let mut fates = Vec::new();
        let before = self.problems.len();
        if then.deliver.is_some() {
            fates.push(Fate::Deliver);
        }
        if let Some(text) = then.reject {
            fates.extend(
                self.say(Say::<crate::Rejection>::parse(&text.value), &text.place, "then.reject").map(Fate::Reject),
            );
        }
        if let Some(text) = then.defer {
            fates.extend(
                self.say(Say::<crate::Deferral>::parse(&text.value), &text.place, "then.defer").map(Fate::Defer),
            );
        }
        if then.discard.is_some() {
            fates.push(Fate::Discard);
        }
        if let Some(reason) = then.hold {
            fates.extend(self.say(reason_of(&reason.value), &reason.place, "then.hold").map(Fate::Hold));
        }
        if fates.len() > 1 {
            self.problem(&place, "then", "only one of deliver, reject, defer, discard and hold can happen");
        }
        actions.quarantine = then.quarantine;
        for name in then.remove_header.0 {
            let edit = HeaderName::new(&name.value).map(|name| TextEdit::Fixed(Edit::RemoveHeader(name)));
            actions.edits.extend(self.say(edit.map_err(|error| error.to_string()), &name.place, "then.remove_header"));
        }
        actions.edits.extend(self.fields(then.add_header, "then.add_header", TextEdit::AddHeader));
        actions.edits.extend(self.fields(then.append_header, "then.append_header", TextEdit::AppendHeader));
        actions.edits.extend(self.fields(then.set_header, "then.set_header", TextEdit::SetHeader));
        if let Some(tag) = then.subject_tag {
            actions.edits.extend(self.say(tag_edit(&tag.value), &tag.place, "then.subject_tag"));
        }
        if let Some(text) = then.replace_body {
            let body = Template::parse_text(&text.value).map(TextEdit::ReplaceBody);
            actions.edits.extend(self.say(body, &text.place, "then.replace_body"));
        }
        for to in then.add_recipient.0 {
            let edit = address(&to.value).map(|to| TextEdit::Fixed(Edit::AddRecipient(to)));
            actions.edits.extend(self.say(edit, &to.place, "then.add_recipient"));
        }
        if let Some(from) = then.change_sender {
            let sender = if from.value.is_empty() { Ok(Address::null()) } else { address(&from.value) };
            let edit = sender.map(|sender| TextEdit::Fixed(Edit::ChangeSender(sender)));
            actions.edits.extend(self.say(edit, &from.place, "then.change_sender"));
        }
        if let Some(score) = then.score {
            if !score.is_finite() {
                self.problem(&place, "then.score", "not a finite number");
            }
            actions.score = score;
        }
        if then.stop.is_some() && then.go_on.is_some() {
            self.problem(&place, "then", "stop and go_on exclude each other");
        }
        actions.stop = then.stop.is_some() || (!fates.is_empty() && then.go_on.is_none());
        actions.fate = fates.into_iter().next();
        if actions.is_nothing() && self.complete && self.problems.len() == before {
            self.problem(&place, "then", "there is no action");
        }
        self.check_slots(&actions, when);
        actions
    }

    fn fields(
        &mut self,
        lines: OneOrMany<Located<String>>,
        key: &str,
        edit: fn(HeaderName, Template) -> TextEdit,
    ) -> Vec<TextEdit> {
        let mut read = |line: Located<String>| self.say(field(&line.value), &line.place, key);
        lines.0.into_iter().filter_map(&mut read).map(|(name, value)| edit(name, value)).collect()
    }

    fn say<T>(&mut self, parsed: Result<T, String>, place: &Place, key: &str) -> Option<T> {
        parsed.map_err(|message| self.problem(place, key, message)).ok()
    }

    /// `{name}` where the rule asks for no finding would always be empty.
    fn check_slots(&mut self, actions: &Actions, when: &[Condition]) {
        let asks = when.iter().any(|condition| condition.mentions(|c| matches!(c, Condition::Finding(_))));
        if asks || !self.complete {
            return;
        }
        if let Some(slot) = actions.templates().find_map(Template::needs_finding) {
            let message = format!("\"{{{slot}}}\" is always empty: the rule asks for no finding");
            self.problem(&actions.place, "then", message);
        }
    }
}

fn together(mut conditions: Vec<Condition>) -> Condition {
    match conditions.pop() {
        Some(only) if conditions.is_empty() => only,
        Some(last) => {
            conditions.push(last);
            Condition::All(conditions)
        }
        None => Condition::All(conditions),
    }
}

fn field(line: &str) -> Result<(HeaderName, Template), String> {
    let field = HeaderField::parse(line).map_err(|error| error.to_string())?;
    let value = Template::parse(field.value.as_str())?;
    Ok((field.name, value))
}

fn reason_of(text: &str) -> Result<Template, String> {
    if text.trim().is_empty() {
        return Err("a reason is needed: the MTA shows it to the administrator".into());
    }
    HeaderText::new(text).map_err(|error| error.to_string())?;
    Template::parse(text)
}

/// An address that every MTA takes as it is (RFC 5321 section 4.1.2, without quoted local parts).
fn address(text: &str) -> Result<Address, String> {
    let printable = text.bytes().all(|b| (33..=126).contains(&b) && !b"<>\"\\,;:()[]".contains(&b));
    match text.rsplit_once('@') {
        Some((local, domain)) if printable && !local.is_empty() && !domain.is_empty() && text.len() <= 254 => {
            Ok(Address::from(text))
        }
        _ => Err("not an address; accepted: \"user@example.org\"".into()),
    }
}

fn tag_edit(tag: &str) -> Result<TextEdit, String> {
    HeaderText::new(tag).map_err(|error| error.to_string())?;
    Ok(TextEdit::TagSubject(Template::parse(tag)?))
}
