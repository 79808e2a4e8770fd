//! From the tree to typed sections: a serde deserializer whose errors know their place, and a
//! reader that goes on after an error so that one pass finds all of a section's problems.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::{Place, Problem, Problems, suggestion};
use super::tree::{Entry, Node, Table, Value, join};

/// A value and where it was written: for checks that come after reading. Only
/// [`super::Document`] and [`super::Item`] can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// What was written.
    pub value: T,
    /// Where.
    pub place: Place,
}

/// One value or a list of values, written as `x` or `[x, y]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Reads a node. On an error the failing key is left out and reading starts again, so that all
/// errors are found; the result is then what was left, if that made a whole. Whoever needs all of it
/// looks whether problems came.
pub(super) fn read<T: DeserializeOwned>(node: &Node, path: &str, also: &[&str], problems: &mut Problems) -> Option<T> {
    // Far more than anybody wants to read.
    const MOST: usize = 50;
    let mut result = T::deserialize(Source { node });
    if result.is_ok() {
        return result.ok();
    }
    let mut node = node.clone();
    let mut left_out: Vec<String> = Vec::new();
    for _ in 0..MOST {
        let mut error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        error.path.reverse();
        // What we left out ourselves is not missing.
        if let What::Missing(name) = &error.what
            && left_out.contains(&full(path, &error.path, Some(name)))
        {
            break;
        }
        let name = full(path, &error.path, None);
        problems.push(error.problem(&node.place, &name, also));
        if !remove(&mut node, &error.path) {
            break;
        }
        left_out.push(name);
        result = T::deserialize(Source { node: &node });
    }
    None
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn full(path: &str, steps: &[Step], last: Option<&str>) -> String {
    let mut name = path.to_owned();
    for step in steps {
        name = match step {
            Step::Key(key) => join(&name, key),
            Step::Index(index) => format!("{name}[{index}]"),
        };
    }
    last.map_or(name.clone(), |last| join(&name, last))
}

/// Takes away what the path leads to. An item of a list takes the whole list with it: the numbers
/// of those behind it would be wrong. False: there is nothing to take.
fn remove(node: &mut Node, path: &[Step]) -> bool {
    let Some((Step::Key(key), rest)) = path.split_first() else { return false };
    let Value::Table(table) = &mut node.value else { return false };
    let next_is_key = matches!(rest.first(), Some(Step::Key(_)));
    if next_is_key && let Some(entry) = table.0.iter_mut().find(|entry| entry.key == *key) {
        return remove(&mut entry.node, rest);
    }
    table.remove(key).is_some()
}

#[derive(Debug)]
pub(super) struct Error {
    what: What,
    place: Option<Place>,
    /// Innermost first.
    path: Vec<Step>,
}

#[derive(Debug)]
enum What {
    Message(String),
    Type { wanted: String, found: String },
    UnknownKey { key: String, accepted: &'static [&'static str] },
    UnknownValue { value: String, accepted: &'static [&'static str] },
    Missing(&'static str),
    Duplicate(&'static str),
}

impl Error {
    fn at(mut self, place: &Place) -> Self {
        self.place.get_or_insert_with(|| place.clone());
        self
    }

    fn under(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    fn problem(&self, otherwise: &Place, name: &str, also: &[&str]) -> Problem {
        let place = self.place.as_ref().unwrap_or(otherwise);
        match &self.what {
            What::Message(message) => Problem::at(place, name, message.as_str()),
            What::Type { wanted, found } => Problem::at(place, name, format!("{found} where {wanted} is wanted")),
            What::UnknownKey { key, accepted } => {
                let accepted: Vec<&str> =
                    also.iter().copied().filter(|_| self.path.len() == 1).chain(accepted.iter().copied()).collect();
                Problem::at(place, name, "unknown key").hint(suggestion(key, &accepted))
            }
            What::UnknownValue { value, accepted } => {
                let what = self.path.iter().rev().find_map(|step| match step {
                    Step::Key(key) => Some(key.as_str()),
                    Step::Index(_) => None,
                });
                Problem::unknown_name(place, name, what.unwrap_or("value"), value, accepted.iter().copied())
            }
            What::Missing(key) => Problem::at(place, name, format!("the key \"{key}\" is missing")),
            What::Duplicate(key) => Problem::at(place, name, format!("the key \"{key}\" is there twice")),
        }
    }
}

impl From<What> for Error {
    fn from(what: What) -> Self {
        Self { what, place: None, path: Vec::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.what)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        What::Message(message.to_string()).into()
    }

    fn invalid_type(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        What::Type { wanted: wanted.to_string(), found: found.to_string() }.into()
    }

    fn invalid_value(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::invalid_type(found, wanted)
    }

    fn unknown_variant(value: &str, accepted: &'static [&'static str]) -> Self {
        What::UnknownValue { value: value.to_owned(), accepted }.into()
    }

    fn unknown_field(key: &str, accepted: &'static [&'static str]) -> Self {
        What::UnknownKey { key: key.to_owned(), accepted }.into()
    }

    fn missing_field(key: &'static str) -> Self {
        What::Missing(key).into()
    }

    fn duplicate_field(key: &'static str) -> Self {
        What::Duplicate(key).into()
    }
}

/// Names by which [`Located`] and [`OneOrMany`] are known to the deserializer.
const LOCATED: &str = "$checkpost::Located";
const LOCATED_FIELDS: &[&str] = &["file", "line", "column", "value"];
const ONE_OR_MANY: &str = "$checkpost::OneOrMany";

#[derive(Clone, Copy)]
struct Source<'a> {
    node: &'a Node,
}

impl<'de> Deserializer<'de> for Source<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let place = &self.node.place;
        match &self.node.value {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(integer) => visitor.visit_i64(*integer),
            Value::Float(float) => visitor.visit_f64(*float),
            Value::Boolean(boolean) => visitor.visit_bool(*boolean),
            Value::Datetime(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items { items, next: 0, is_list: true }),
            Value::Table(table) => visitor.visit_map(Entries { table, next: 0 }),
        }
        .map_err(|error| error.at(place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name != ONE_OR_MANY {
            return visitor.visit_newtype_struct(self);
        }
        let (items, is_list) = match &self.node.value {
            Value::Array(items) => (items.as_slice(), true),
            _ => (std::slice::from_ref(self.node), false),
        };
        visitor.visit_seq(Items { items, next: 0, is_list }).map_err(|error| error.at(&self.node.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == LOCATED {
            return visitor.visit_map(WithPlace { node: self.node, next: 0 });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let _ = (name, variants);
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(StrDeserializer::<Error>::new(text)),
            other => Err(What::Type { wanted: "a string".into(), found: other.type_name().into() }.into()),
        }
        .map_err(|error| error.at(&self.node.place))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    next: usize,
    is_list: bool,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let index = self.next;
        let Some(node) = self.items.get(index) else { return Ok(None) };
        self.next += 1;
        let value = seed.deserialize(Source { node });
        let is_list = self.is_list;
        value.map(Some).map_err(|error| {
            let error = error.at(&node.place);
            if is_list { error.under(Step::Index(index)) } else { error }
        })
    }
}

struct Entries<'a> {
    table: &'a Table,
    next: usize,
}

impl<'a> Entries<'a> {
    fn entry(&self) -> Option<&'a Entry> {
        self.table.0.get(self.next)
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(entry) = self.entry() else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<Error>::new(&entry.key));
        key.map(Some).map_err(|error| error.at(&entry.place).under(Step::Key(entry.key.clone())))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some(entry) = self.entry() else { return Err(What::Message("no value".into()).into()) };
        self.next += 1;
        let value = seed.deserialize(Source { node: &entry.node });
        value.map_err(|error| error.at(&entry.node.place).under(Step::Key(entry.key.clone())))
    }
}

struct WithPlace<'a> {
    node: &'a Node,
    next: usize,
}

impl<'de> MapAccess<'de> for WithPlace<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        match LOCATED_FIELDS.get(self.next) {
            Some(name) => seed.deserialize(StrDeserializer::<Error>::new(name)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        use serde::de::IntoDeserializer;
        let place = &self.node.place;
        self.next += 1;
        match self.next {
            1 => seed.deserialize(StrDeserializer::<Error>::new(&place.file.to_string_lossy())),
            2 => seed.deserialize(place.line.into_deserializer()),
            3 => seed.deserialize(place.column.into_deserializer()),
            _ => seed.deserialize(Source { node: self.node }),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename = "$checkpost::Located")]
        struct Written<T> {
            file: PathBuf,
            line: u32,
            column: u32,
            value: T,
        }
        let Written { file, line, column, value } = Written::deserialize(deserializer)?;
        Ok(Self { value, place: Place { file: Arc::<Path>::from(file), line, column } })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }
        }
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, All(std::marker::PhantomData))
    }
}
